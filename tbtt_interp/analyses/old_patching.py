"""Activation patching: which activation, where, decides between a clean and a corrupted answer.

Source: Zhang and Nanda 2024, Towards Best Practices of Activation Patching in Language Models;
Heimersheim and Nanda 2024, How to Use and Interpret Activation Patching.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp import figures
from tbtt_interp.activations import unknown_site
from tbtt_interp.analyses.findings import Finding, Result, Tell, further_null, silent
from tbtt_interp.analyses.old_ablation import with_ablations
from tbtt_interp.analyses.old_pairs import Pairs, donors, ordered_pairs
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject, in_reading_order
from tbtt_interp.evaluate import TOKENS_AT_ONCE, Questions
from tbtt_interp.old_interventions import logits_of
from tbtt_interp.runs import Run
from tbtt_interp.stats import Interval, crossed_intervals

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

STREAMS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
OF_HEADS = ("attn.hook_v", "attn.hook_pattern", "attn.hook_z")
DIRECTIONS = ("denoising", "noising")
DONORS = ("pair", "same answer", "random")
METRICS = ("logit difference", "log-probability")
WHOLE = "answer"  # all of an answer's characters together


class Cell(NamedTuple):
    """A place to patch.

    Attributes:
        head: None where a site has no heads.
        pos: counted from the prompt's last token, which is -1; None is every position. Of a
            pattern it is the query's, of a value the key's.
    """

    site: str
    head: int | None
    pos: int | None


def sites_of(subject: Subject) -> list[str]:
    """Every site that is patched, in the order of a forward pass."""
    parts = (STREAMS[0], *OF_HEADS, *STREAMS[1:])
    sites = [f"blocks.{layer}.{part}" for layer in range(subject.layers) for part in parts]
    return [site for site in sites if site in subject.models[0].hook_dict]


def cells_of(subject: Subject, questions: Questions, sites: Sequence[str]) -> list[Cell]:
    """Every cell: of a site each head, and each position that any question has."""
    first = -int(questions.end.max()) - 1
    last = int((questions.pos - questions.end[questions.row]).max()) - 1
    places: list[int | None] = [*range(first, last + 1), None]
    found = []
    for site in sites:
        of_heads = site.endswith(OF_HEADS)
        heads: Sequence[int | None] = range(subject.heads) if of_heads else [None]
        found += [Cell(site, head, pos) for head in heads for pos in places]
    return found


def patch(
    values: Float[Tensor, "row ..."],
    hook: object,
    *,
    cell: Cell,
    donor: Float[Tensor, "row ..."],
    end: Int[Tensor, " row"],
) -> Float[Tensor, "row ..."]:
    """A hook that puts a donor's activation in place of what is there."""
    pattern = cell.site.endswith("hook_pattern")
    index: tuple[object, ...] = ()
    if cell.head is not None:
        index = (cell.head,) if pattern else (slice(None), cell.head)
    values = values.clone()
    if cell.pos is None:
        values[(slice(None), *index)] = donor[(slice(None), *index)]
        return values
    at = end + 1 + cell.pos
    rows = ((at >= 0) & (at < values.shape[-2 if pattern else 1])).nonzero().squeeze(1)
    place = (rows, cell.head, at[rows]) if pattern else (rows, at[rows], *index[1:])
    values[place] = donor[place]
    return values


def scores(
    logits: Float[Tensor, "character d_vocab"],
    right: Int[Tensor, " character"],
    wrong: Int[Tensor, " character"],
) -> Float[Tensor, "metric character"]:
    """Logit of the clean answer's character minus the corrupted one's; log-probability, in nats."""
    of_right = logits.gather(1, right[:, None]).squeeze(1)
    of_wrong = logits.gather(1, wrong[:, None]).squeeze(1)
    return torch.stack([of_right - of_wrong, of_right - logits.logsumexp(1)])


def patch_pairs(
    model: "HookedTransformer", pairs: Pairs, cells: Sequence[Cell], direction: str, seed: int
) -> tuple[Float[Tensor, "metric character"], Float[Tensor, "donor cell metric character"]]:
    """How far each cell moves each character's score from the recipient's towards the donor's.

    Returns:
        how far the donor's own run is from the recipient's, and how far a patch goes; positive is
        towards the clean answer when denoising, and away from it when noising. nan where a donor
        is missing.
    """
    recipient, giver = pairs.corrupt, pairs.clean
    if direction == "noising":
        recipient, giver = giver, recipient
    sites = list(dict.fromkeys(cell.site for cell in cells))
    asked, wrong = pairs.questions(recipient), pairs.wrong
    sign = 1 if direction == "denoising" else -1
    before = scores(logits_of(model, asked), asked.target, wrong)
    other = scores(logits_of(model, pairs.questions(giver)), asked.target, wrong)
    moved = torch.full((len(DONORS), len(cells), *before.shape), torch.nan, dtype=before.dtype)
    for number, kind in enumerate(DONORS):
        given = giver if kind == "pair" else donors(pairs, kind, recipient, seed)
        there = torch.from_numpy(given >= 0)
        source = pairs.questions(np.where(given >= 0, given, recipient))
        with torch.no_grad():
            cache = model.run_with_cache(source.tokens, names_filter=sites)[1]
        for k, cell in enumerate(cells):
            hook = partial(patch, cell=cell, donor=cache[cell.site], end=asked.end)
            after = scores(logits_of(model, asked, [(cell.site, hook)]), asked.target, wrong)
            after[:, ~there[asked.example]] = torch.nan
            moved[number, k] = sign * (after - before)
    return sign * (other - before), moved


def patch_model(
    subject: Subject, k: int, pairs: Pairs, cells: Sequence[Cell], tell: Tell, seed: int
) -> Arrays:
    """One model's sums over pairs, by what was changed, the character's role and the clean example.

    Returns:
        total: `[direction, metric, group, example]`, of how far donors are from recipients;
        moved: `[direction, donor, cell, metric, group, example]`, of how far patches go;
        whole: like moved, of the totals where that donor is there; the share's denominator.
        count: `[direction, donor, group, example]`, characters.
    """
    groups, examples = groups_of(pairs), len(subject.examples)
    places = {group: number for number, group in enumerate(groups)}
    size = len(groups) * examples
    shape = (len(groups), examples)
    sums: dict[str, list[np.ndarray]] = {"moved": [], "whole": [], "count": []}
    each = max(1, TOKENS_AT_ONCE // 2 // subject.n_ctx)
    starts = range(0, len(pairs), each)
    for d, direction in enumerate(DIRECTIONS):
        found: Arrays = {}
        for part, start in enumerate(starts):
            some = pairs.take(np.arange(start, min(start + each, len(pairs))))
            total, moved = patch_pairs(subject.models[k], some, cells, direction, seed)
            pair = np.repeat(np.arange(len(some)), some.scored)
            bins = []
            for names in (some.roles, [WHOLE] * len(pair)):
                group = [places[some.changed[p], role] for p, role in zip(pair, names, strict=True)]
                bins.append(np.array(group) * examples + some.clean[pair])
            for name, values in _sums(total.numpy(), moved.numpy(), bins, size).items():
                found[name] = found.get(name, 0) + values
            tell(d * len(starts) + part + 1, len(DIRECTIONS) * len(starts))
        for name, values in found.items():
            sums[name].append(values.reshape(*values.shape[:-1], *shape))
    return {name: np.stack(values) for name, values in sums.items()}


def _sums(total: np.ndarray, moved: np.ndarray, bins: Sequence[np.ndarray], size: int) -> Arrays:
    """Over the characters of each bin; what is nan counts for nothing."""
    there = np.isfinite(moved[:, 0, 0])  # [donor, character]

    def binned(values: np.ndarray) -> np.ndarray:
        rows = values.reshape(-1, values.shape[-1])
        sums = [sum(np.bincount(b, row, size) for b in bins) for row in rows]
        return np.array(sums).reshape(*values.shape[:-1], size)

    return {
        "moved": binned(np.nan_to_num(moved)),
        "whole": binned(total[None] * there[:, None]),
        "count": binned(there.astype(float)),
    }


def groups_of(pairs: Pairs) -> list[tuple[str, str]]:
    """What was changed and which character it is, and of each change all characters together."""
    roles = in_reading_order(pairs.roles)
    return [(changed, role) for changed in dict.fromkeys(pairs.changed) for role in (*roles, WHOLE)]


def patching_table(
    subject: Subject,
    pairs: Pairs | None = None,
    *,
    sites: Sequence[str] | None = None,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """The whole grid: every cell, both directions, every character, beside two kinds of donor.

    A share is of the way from the recipient's score to the donor's, as the ratio of sums over
    pairs; its interval is Student's over models. The nulls are the same
    share where the donor is another example with the recipient's answer, and any other example.

    Args:
        pairs: None is `ordered_pairs`.
        sites: by hook name; None is `sites_of`.
        parts: where finished models are kept.
        seed: of donors.
    Returns:
        a row a direction, changed label, character (`answer` is all together), metric and cell:
        `effect`, nats a character (of pairs, of logit or of log-probability), `share`, `low`,
        `high`, `same_answer`, `random`, `distance` (nats between the two runs) and `pairs`.
    Raises:
        TbttError: if a site is unknown or has nothing that can be patched.
    """
    pairs = ordered_pairs(subject) if pairs is None else pairs
    known = sites_of(subject)
    for site in sites or ():
        if site not in known:
            raise unknown_site(site, known)
    cells = cells_of(subject, pairs.questions(pairs.clean), list(sites or known))
    models, parts = len(subject.models), parts or Parts()

    def told(k: int, done: int, of: int) -> None:
        tell(k * of + done, models * of)

    found = [
        parts.get(
            f"seed-{s}", partial(patch_model, subject, k, pairs, cells, partial(told, k), seed)
        )
        for k, s in enumerate(subject.seeds)
    ]
    stacked = {name: np.stack([part[name] for part in found]) for name in found[0]}
    names = subject.place_names(min(c.pos or 0 for c in cells), max(c.pos or 0 for c in cells))
    rows = []
    for d, direction in enumerate(DIRECTIONS):
        for g, (changed, character) in enumerate(groups_of(pairs)):
            count = stacked["count"][:, d, :, g]  # [seed, donor, example]
            if not count[:, 0].any():
                continue
            asked = count[:, 0].any(0)
            for m, metric in enumerate(METRICS):
                moved = stacked["moved"][:, d, :, :, m, g]  # [seed, donor, cell, example]
                whole = stacked["whole"][:, d, :, m, g]  # [seed, donor, example]
                shares = [
                    crossed_intervals(
                        moved[:, n].swapaxes(0, 1)[..., asked],
                        np.broadcast_to(whole[:, n], (len(cells), *whole[:, n].shape))[..., asked],
                        seed=seed, resamples=999 if n == 0 else 1,
                    )
                    for n in range(len(DONORS))
                ]  # fmt: skip
                total = count[:, 0].sum()
                for k, cell in enumerate(cells):
                    share, same, random = (each[k] for each in shares)
                    rows.append({
                        "direction": direction, "changed": changed, "character": character,
                        "metric": metric, "site": cell.site, "head": cell.head, "pos": cell.pos,
                        "place": "all" if cell.pos is None else names[cell.pos],
                        "effect": moved[:, 0, k].sum() / total, "share": share.mean,
                        "low": share.low, "high": share.high, "same_answer": same.mean,
                        "random": random.mean, "distance": whole[:, 0].sum() / total,
                        "characters": int(total / models),
                    })  # fmt: skip
    return pd.DataFrame(rows).astype({"head": "Int64", "pos": "Int64"})


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Denoising, whole answers, logit differences: a row a change and site, a column a place."""
    main = table[
        (table["direction"] == DIRECTIONS[0])
        & (table["character"] == WHOLE)
        & (table["metric"] == METRICS[0])
    ]
    places = [str(p) for p in dict.fromkeys(main.sort_values("pos", na_position="last")["place"])]
    names = [
        site if pd.isna(head) else f"{site}.{head}"
        for site, head in zip(main["site"], main["head"], strict=True)
    ]
    grid = main.assign(site=names).pivot_table(
        index=["changed", "site"], columns="place", values="share", sort=False, aggfunc="first"
    )
    return grid.reindex(columns=places).map("{:.2f}".format).reset_index()


def patching_findings(table: pd.DataFrame) -> list[Finding]:
    """Of each change and part of the model the place that moves the whole answer furthest.

    Not of the streams: where the prompts differ they hold all there is, before and after.
    """
    of_answer = table[
        (table["character"] == WHOLE)
        & (table["metric"] == METRICS[0])
        & table["pos"].notna()
        & table["site"].str.endswith((*OF_HEADS, "mlp_out"))
    ]
    found = []
    for direction, verb in zip(DIRECTIONS, ("restores", "destroys"), strict=True):
        mine = of_answer[of_answer["direction"] == direction]
        for (changed, site), rows in mine.groupby(["changed", "site"], sort=False):
            row = rows.sort_values("share").iloc[-1]
            head = "" if pd.isna(row["head"]) else f" head {row['head']}"
            found.append(
                Finding(
                    what=f"where {changed} differs, {site}{head} at {row['place']} {verb}",
                    effect=Interval(mean=row["share"], low=row["low"], high=row["high"]),
                    null=further_null(row["share"], [row["same_answer"], row["random"]]),
                    null_is="the better of the two other donors",
                    of="the logit difference",
                )
            )
    return found


def analyse_patching(
    subject: Subject | Run,
    pairs: Pairs | None = None,
    *,
    sites: Sequence[str] | None = None,
    ablate: bool = True,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Result:
    """The grid of `patching_table`, and what is lost without each part; their arguments.

    Args:
        ablate: whether heads, MLPs and neurons are taken away, too.
    """
    subject = Subject.of(subject)
    pairs = ordered_pairs(subject) if pairs is None else pairs
    table = patching_table(subject, pairs, sites=sites, parts=parts, tell=tell, seed=seed)
    notes = pairs.notes()
    result = Result(
        name="patching",
        tables={"patching": table},
        shown=_shown(table),
        figures={
            "patching": partial(figures.patching_grid, table, " ".join(notes[1:])),
            "patching-characters": partial(figures.patching_characters, table, notes[0]),
        },
        findings=patching_findings(table),
        notes=[
            f"{len(pairs):,} ordered pair{'s' if len(pairs) > 1 else ''}. Shares of the logit "
            "difference between clean and corrupted answer that come back when one activation of "
            "the clean run is put into the corrupted one (denoising), all characters together.",
            *notes,
            "What is found is the strongest place, chosen on these data; its null is its own.",
        ],
    )
    return with_ablations(result, subject, tell=tell, seed=seed) if ablate else result

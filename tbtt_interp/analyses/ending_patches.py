"""What carries the difference that the line before a prompt makes to its answer."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from tbtt_interp.activations import unknown_site
from tbtt_interp.analyses.endings import (
    answer_nats,
    draw_endings,
    endings_of,
    have_room,
    no_room,
    questions_after,
)
from tbtt_interp.analyses.findings import Finding, Tell, silent
from tbtt_interp.analyses.old_pairs import MANY_PARAMETERS
from tbtt_interp.analyses.old_patching import OF_HEADS, Cell, cells_of, patch, sites_of
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.evaluate import Questions
from tbtt_interp.old_interventions import logits_of
from tbtt_interp.stats import Interval, crossed_intervals
from tbtt_interp.tasks import Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

DONORS = ("own", "other")
DRAWS = 4  # of other lines, for each prompt that is patched in a small model
PATCHED = 8_192  # characters of context, of all draws, in a small model
FEW = 16  # prompts that are patched in a large one, with one draw each


def patch_endings(
    model: "HookedTransformer",
    task: Task,
    drawn: pd.DataFrame,
    cells: Sequence[Cell],
    n_ctx: int,
    tell: Tell = silent,
) -> Arrays:
    """How far each cell of a donor's run moves a prompt's answer after the ending in its place.

    Returns:
        in nats of the whole right answer: whole `[example]`, from that ending to the own one;
        moved `[donor, cell, row]`, by the own line's activation and by another's.
    """

    def after(name: str) -> Questions:
        return questions_after(task, drawn["example"].tolist(), drawn[name].tolist(), n_ctx)

    asked = after("placed")
    before = answer_nats(asked, logits_of(model, asked))
    whole = answer_nats(asked, logits_of(model, after("own"))) - before
    moved = torch.zeros(len(DONORS), len(cells), len(before), dtype=before.dtype)
    sites = list(dict.fromkeys(cell.site for cell in cells))
    for d, donor in enumerate(DONORS):
        with torch.no_grad():
            cache = model.run_with_cache(after(donor).tokens, names_filter=sites)[1]
        for k, cell in enumerate(cells):
            hook = partial(patch, cell=cell, donor=cache[cell.site], end=asked.end)
            moved[d, k] = answer_nats(asked, logits_of(model, asked, [(cell.site, hook)])) - before
            tell(d * len(cells) + k + 1, len(DONORS) * len(cells))
    return {"whole": whole.numpy(), "moved": moved.numpy()}


def ending_table(
    subject: Subject,
    files: Sequence[Sequence[str]],
    *,
    sites: Sequence[str] | None = None,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """Which activations carry what the own line before a seen prompt does for its answer.

    Each prompt is put after another line's end; there one activation of its run after its own line
    is put. A share is of the log-probability that the own line gives the right answer beyond that
    one, as the ratio of sums over prompts; its interval is over models and prompts. The null is the
    same patch from a run after a third line.

    Args:
        files: each model's lines, in their order.
        sites: by hook name; None is `patching.sites_of`.
        parts: where finished models are kept.
        seed: of the other lines.
    Returns:
        a row a cell: site, head, pos, place, `effect`, nats an answer, `share`, `low`, `high`,
        `other` (the null's share); `whole`, nats an answer from the other line to the own, with
        `whole_low` and `whole_high`; `prompts`.
    Raises:
        TbttError: if a site is unknown or has nothing that can be patched, or no prompt has room.
    """
    assert subject.run is not None
    if not have_room(subject, files):
        raise no_room(subject)
    known = sites_of(subject)
    for site in sites or ():
        if site not in known:
            raise unknown_site(site, known)
    parts, models, examples = parts or Parts(), len(subject.models), len(subject.examples)
    size = sum(p.numel() for p in subject.models[0].parameters())
    most, draws = max(FEW, PATCHED // DRAWS // subject.n_ctx), DRAWS
    if size > MANY_PARAMETERS:
        most, draws = FEW, 1
    drawn = [
        draw_endings(endings_of(task, lines, subject.n_ctx, seed), most, draws, seed)
        for (task, _), lines in zip(subject.files, files, strict=True)
    ]
    asked = [questions_after(task, each["example"].tolist(), each["own"].tolist(), subject.n_ctx)
             for (task, _), each in zip(subject.files, drawn, strict=True)]  # fmt: skip
    cells = cells_of(subject, asked[0], list(sites or known))
    whole = np.zeros((models, examples))
    count = np.zeros((models, examples))
    moved = np.zeros((len(DONORS), len(cells), models, examples))

    def told(k: int, done: int, of: int) -> None:
        tell(k * of + done, models * of)

    for k, (s, each) in enumerate(zip(subject.seeds, drawn, strict=True)):
        compute = partial(
            patch_endings, subject.models[k], subject.files[k][0], each, cells, subject.n_ctx,
            partial(told, k),
        )  # fmt: skip
        found = parts.get(f"patched-{s}", compute)
        for row, example in enumerate(each["example"].tolist()):
            whole[k, example] += found["whole"][row]
            count[k, example] += 1
            moved[:, :, k, example] += found["moved"][..., row]
    used = count.any(0)
    whole, count, moved = whole[:, used], count[:, used], moved[..., used]
    weights = np.broadcast_to(whole, moved.shape[1:])
    shares = crossed_intervals(moved[0], weights, seed=seed)
    others = moved[1].sum((1, 2)) / whole.sum()
    all_there = crossed_intervals(whole[None], count[None], seed=seed)[0]
    names = _place_names(subject, cells)
    return pd.DataFrame([
        {"site": cell.site, "head": cell.head, "pos": cell.pos, "place": names[cell.pos],
         "effect": moved[0, k].sum() / count.sum(), "share": shares[k].mean,
         "low": shares[k].low, "high": shares[k].high, "other": others[k],
         "whole": all_there.mean, "whole_low": all_there.low, "whole_high": all_there.high,
         "prompts": int((count > 0).sum() / models)}
        for k, cell in enumerate(cells)
    ]).astype({"head": "Int64", "pos": "Int64"})  # fmt: skip


def _place_names(subject: Subject, cells: Sequence[Cell]) -> dict[int | None, str]:
    """What stands at each place; of the line before, how far from its end. No name is twice."""
    places = [cell.pos for cell in cells if cell.pos is not None]
    longest = max(len(prompt) for prompt, _ in subject.tokens)
    known = subject.place_names(min(places), max(places))
    names = {p: name if p >= -longest else f"before {p + longest}" for p, name in known.items()}
    often = Counter(names.values())
    unique = {p: name if often[name] == 1 else f"{name} {p}" for p, name in names.items()}
    return {None: "all", **unique}


def ending_findings(table: pd.DataFrame) -> list[Finding]:
    """Of each part of the model the place that carries most; none if there is nothing to carry.

    Not of the streams: in the line before they hold all there is.
    """
    carried = table[
        (table["whole_low"] > 0)
        & table["pos"].notna()
        & table["site"].str.endswith((*OF_HEADS, "mlp_out"))
    ]
    found = []
    for site, rows in carried.groupby("site", sort=False):
        row = rows.sort_values("share").iloc[-1]
        head = "" if pd.isna(row["head"]) else f" head {row['head']}"
        found.append(
            Finding(
                what=f"after another line, {site}{head} at {row['place']} brings back",
                effect=Interval(mean=row["share"], low=row["low"], high=row["high"]),
                null=float(row["other"]), null_is="from a third line",
                of=f"the {row['whole']:.2f} nats that its own line gives a seen answer",
            )
        )  # fmt: skip
    return found

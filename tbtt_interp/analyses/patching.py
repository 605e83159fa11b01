"""Activation patching: which activation, at which position, decides between two answers.

Source: Zhang and Nanda 2024, Towards Best Practices of Activation Patching in Language Models;
Heimersheim and Nanda 2024, How to Use and Interpret Activation Patching.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import as_list, cached, site_names, unknown_site
from tbtt_interp.analyses.ablation import with_ablations
from tbtt_interp.analyses.logit_lens import WHOLE
from tbtt_interp.analyses.pairs import SOURCES, Pairs, chosen_pairs, ordered_pairs
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import TOKENS_AT_ONCE
from tbtt_interp.interventions import Location, answer_logits, changed, index_of, run_with
from tbtt_interp.plots import heatmaps, short_site
from tbtt_interp.prompts import PromptBatch, PromptSet, in_reading_order
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Arrays, Models, over_seeds
from tbtt_interp.stats import ratios_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

STREAMS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
OF_HEADS = ("attn.hook_v", "attn.hook_pattern", "attn.hook_z")
DIRECTIONS = {"denoising": "restores", "noising": "destroys"}
METRICS = ("logit difference", "log-probability")


def offsets_of(batch: PromptBatch) -> range:
    """The positions that any row has, counted from its prompt's last token, which is -1."""
    last = (batch.answer_pos - batch.last_prompt_pos[batch.answer_row]).max()
    return range(-int(batch.last_prompt_pos.max()) - 1, int(last))


def locations_of(
    model: "HookedTransformer", batch: PromptBatch, sites: Sequence[str] | None = None,
    positions: Sequence[int | None] | None = None,
) -> list[Location]:  # fmt: skip
    """Every head of some sites, at some positions.

    Args:
        sites: None is all.
        positions: None is each position, and all at once.

    Raises:
        TbttError: if a site is unknown or cannot be patched.
    """
    names, visited = (STREAMS[0], *OF_HEADS, *STREAMS[1:]), set(site_names(model))
    every = [f"blocks.{layer}.{name}" for layer in range(model.cfg.n_layers) for name in names]
    known = [site for site in every if site in visited]
    chosen = as_list(sites) if sites else known
    if unknown := [site for site in chosen if site not in known]:
        raise unknown_site(unknown[0], known)
    return [
        Location(site, head, pos)
        for site in chosen
        for head in (range(model.cfg.n_heads) if site.endswith(OF_HEADS) else [None])
        for pos in (positions or (*offsets_of(batch), None))
    ]


def patched_scores(
    model: "HookedTransformer", base: PromptBatch, source: PromptBatch,
    locations: Sequence[Location], score: Callable[[Tensor], Tensor],
) -> Float[Tensor, "location ..."]:  # fmt: skip
    """A score of the base run's answer logits, with one location at a time from the source run.

    Rows that have the same activation there in both runs are not run again.
    """
    hooks = list({location.hook for location in locations})
    (logits, own), (_, other) = (cached(model, x.tokens, hooks) for x in (base, source))

    def patched(location: Location) -> Float[Tensor, "answer d_vocab"]:
        values, after = own[location.hook], logits.clone()
        index = index_of(location, base, values)
        new = changed(values, index, other[location.hook][index])
        if len(rows := (new != values).flatten(1).any(1).nonzero().squeeze(1)):
            after[rows] = run_with(model, base.tokens[rows], [(location.hook, lambda _: new[rows])])
        return base.at_answers(after).double().cpu()

    return torch.stack([score(patched(location)) for location in locations])


def answer_scores(
    logits: Float[Tensor, "answer d_vocab"], clean: Int[Tensor, " answer"],
    corrupted: Int[Tensor, " answer"],
) -> Float[Tensor, "metric answer"]:  # fmt: skip
    """The clean token's logit minus the corrupted one's, and the clean one's log-probability."""
    of_clean, of_corrupted = (logits.gather(1, t[:, None]).squeeze(1) for t in (clean, corrupted))
    return torch.stack([of_clean - of_corrupted, of_clean - logits.logsumexp(1)])


def patch_pairs(
    model: "HookedTransformer",
    pairs: Pairs,
    locations: Sequence[Location],
    direction: str = "denoising",
    seed: int = 0,
) -> tuple[Float[Tensor, "metric answer"], Float[Tensor, "source location metric answer"]]:
    """The total effect of the source run, and of a patch from it at each location, in nats.

    Denoising patches the clean run into the corrupted one, noising the other way round. Positive
    is towards the source's answer; nan where there is no null source.
    """
    at_once = max(1, TOKENS_AT_ONCE // 2 // model.cfg.n_ctx)
    if len(pairs) > at_once:
        numbers = np.split(np.arange(len(pairs)), range(at_once, len(pairs), at_once))
        parts = [patch_pairs(model, pairs.take(k), locations, direction, seed) for k in numbers]
        return torch.cat([total for total, _ in parts], -1), torch.cat([x for _, x in parts], -1)
    base, sign = (pairs.corrupted, 1) if direction == "denoising" else (pairs.clean, -1)
    batch, effects = pairs.batch(base), []
    score = partial(answer_scores, clean=batch.answer_token, corrupted=pairs.corrupted_tokens)
    before = score(answer_logits(model, batch))
    for kind in SOURCES:
        source, is_known = pairs.source_examples(kind, base, seed)
        after = patched_scores(model, batch, pairs.batch(source), locations, score)
        has_source = torch.from_numpy(is_known)[batch.answer_example]
        effects.append((sign * (after - before)).where(has_source, torch.nan))
    source, _ = pairs.source_examples("pair", base, seed)
    total = score(answer_logits(model, pairs.batch(source))) - before
    return sign * total, torch.stack(effects)


def groups_of(pairs: Pairs) -> list[tuple[str, str]]:
    """Each changed label with each role of an answer token, and with the whole answer."""
    roles = (*in_reading_order(pairs.roles), WHOLE)
    return [(changed, role) for changed in dict.fromkeys(pairs.changed) for role in roles]


def patching_sums(
    model: "HookedTransformer", prompts: PromptSet, pairs: Pairs, locations: Sequence[Location],
    seed: int = 0, directions: Sequence[str] = tuple(DIRECTIONS),
) -> Arrays:  # fmt: skip
    """Sums of `patch_pairs` over the answer tokens of each group of `groups_of`.

    Returns:
        `effect` [direction, source, location, metric, group]; with a location axis of 1
        `total_effect` of the tokens that have a source, and their count `n`.
    """
    groups, found = groups_of(pairs), []
    tokens = zip(np.repeat(pairs.changed, pairs.n_scored), pairs.roles, strict=True)
    in_group = torch.tensor([
        [label == changed and of in (role, WHOLE) for label, of in groups]
        for changed, role in tokens
    ]).double()  # fmt: skip
    for direction in directions:
        total, effect = patch_pairs(model, pairs, locations, direction, seed)
        known = effect[:, :1].isfinite().double()
        of_token = {"effect": effect.nan_to_num(), "total_effect": total * known, "n": known}
        found.append({name: (values @ in_group).numpy() for name, values in of_token.items()})
    return {name: np.stack([sums[name] for sums in found]) for name in found[0]}


def fraction_columns(
    effect: Float[np.ndarray, "source ... model"], total: Float[np.ndarray, "source ... model"]
) -> dict[str, np.ndarray]:
    """Columns of the fraction that each of SOURCES restores, the first with its interval.

    Fractions are ratios of sums over models, and intervals are Student's.
    """
    mean, low, high, n = ratios_over_models(effect, total)
    return {
        "fraction_restored": mean[0], "fraction_restored_low": low[0],
        "fraction_restored_high": high[0], "same_answer": mean[1], "random": mean[2],
        "n_models": n[0],
    }  # fmt: skip


def fraction_claims(
    rows: pd.DataFrame, texts: Iterable[str], *, unit: str = "of the logit difference",
    nulls: Sequence[str] = ("same_answer", "random"),
    null_name: str = "the stronger of the two null sources",
) -> list[Claim]:  # fmt: skip
    """A claim per row of a table: a text, the fraction restored, and the strongest null's."""
    return [
        Claim.of_row(row, "fraction_restored", {null: null for null in nulls}, "strongest",
                     text=text, unit=unit, null_name=null_name)
        for row, text in zip(rows.to_dict("records"), texts, strict=True)
    ]  # fmt: skip


def patching_table(
    run: Models | Run, pairs: Pairs | None = None, *, sites: Sequence[str] | None = None,
    positions: Sequence[int | None] | None = None, seed: int = 0,
    directions: Sequence[str] = tuple(DIRECTIONS),
) -> pd.DataFrame:  # fmt: skip
    """The fraction of the total effect that a patch restores, per location, with two nulls.

    The nulls are the same fraction where the source is another example with the base's answer
    (`same_answer`), and any other example (`random`).

    Args:
        sites, positions: as in `locations_of`.

    Returns:
        One row per direction, changed label, role of the answer token (`answer` is all together),
        metric and location: `effect` and `total_effect` in nats per answer token,
        `fraction_restored` with its interval, the nulls, and each model's `n_answers`.
    """
    models = Models.of(run)
    pairs = ordered_pairs(models.shared_prompts) if pairs is None else pairs
    batch = pairs.batch(pairs.clean)
    locations = locations_of(models.first, batch, sites, positions)
    offsets = offsets_of(batch)
    names = {**pairs.prompts.position_names(offsets[0], offsets[-1]), None: "all"}
    table = pd.DataFrame(
        [(direction, *group, metric, *at, names[at.pos]) for direction in directions
         for group in groups_of(pairs) for metric in METRICS for at in locations],
        columns=["direction", "changed", "role", "metric", "site", "head", "pos", "position"],
    ).astype({"head": "Int64", "pos": "Int64"})  # fmt: skip
    sums = over_seeds(models, patching_sums, pairs, locations, seed, directions)
    axes = "model direction source location metric group"
    effect, total, n = (
        rearrange(sums[name], f"{axes} -> source direction group metric location model")
        for name in ("effect", "total_effect", "n")
    )
    nats = {"effect": effect[0].mean(-1), "total_effect": total[0].mean(-1)}
    columns = {**nats, **fraction_columns(effect, total), "n_answers": n[0].mean(-1)}
    shape = effect.shape[1:-1]
    table = table.assign(**{k: np.broadcast_to(x, shape).ravel() for k, x in columns.items()})
    table = table[table["n_answers"] > 0].astype({"n_answers": int}).reset_index(drop=True)
    table[list(nats)] = table[list(nats)].div(table["n_answers"], axis=0)
    return table


def _logit_differences(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of logit differences, with the site's name and head as `location`."""
    head = table["head"].map(lambda head: "" if pd.isna(head) else f".{head}").astype(str)
    return table.assign(location=table["site"] + head).query("metric == @METRICS[0]")


def patching_display(table: pd.DataFrame) -> pd.DataFrame:
    """Fractions restored of whole answers, denoising: a row per location, a column per position."""
    rows = _logit_differences(table).query("direction == 'denoising' and role == @WHOLE")
    grid = rows.pivot_table("fraction_restored", ["changed", "location"], "position", sort=False)
    return grid[rows["position"].unique()].map("{:.2f}".format).reset_index()


def patching_claims(table: pd.DataFrame) -> list[Claim]:
    """For each change and component, the position that moves the whole answer furthest.

    Streams are left out: where the prompts differ they carry all of the difference.
    """
    rows = _logit_differences(table).query("role == @WHOLE").dropna(subset=["pos"])
    rows = rows[rows["site"].str.endswith((*OF_HEADS, "mlp_out"))].sort_values("fraction_restored")
    strongest = rows.groupby(["direction", "changed", "site"]).tail(1).sort_index()
    texts = ("Where " + strongest["changed"] + " differs, " + strongest["location"] + " at "
             + strongest["position"] + " " + strongest["direction"].map(DIRECTIONS))  # fmt: skip
    return fraction_claims(strongest, texts)


def analyse_patching(
    run: Models | Run, pairs: Pairs | None = None, *, clean: str | None = None,
    corrupted: str | None = None, held_out: str | None = None, n_pairs: int | None = None,
    sites: Sequence[str] | None = None, seed: int = 0,
) -> Result:  # fmt: skip
    """Activation patching as in `patching_table`, and the drops under ablation.

    One pair by its prompts goes without ablation. For the options see `chosen_pairs`.

    Raises:
        TbttError: if options do not go together, or a site is unknown.
    """
    if (clean is None) != (corrupted is None):
        raise TbttError("--clean and --corrupted go together: give both, or neither for all pairs")
    if clean is not None and (held_out or n_pairs):
        raise TbttError("--clean and --corrupted name one pair: leave out --held-out and --pairs")
    if n_pairs is not None and n_pairs < 1:
        raise TbttError(f"pairs must be at least 1, got {n_pairs}")
    models = Models.of(run)
    if pairs is None:
        pairs = chosen_pairs(models, clean, corrupted, held_out=held_out, count=n_pairs, seed=seed)
    table, notes = patching_table(models, pairs, sites=sites, seed=seed), pairs.notes()
    result = Result(
        name="patching", tables={"patching": table}, display=patching_display(table),
        claims=patching_claims(table),
        figures={
            "patching": partial(plot_patching, table, note=" ".join(notes[1:])),
            "patching-roles": partial(plot_patching, table, by_role=True, note=notes[0]),
        },
        notes=[
            f"{len(pairs):,} ordered pair{'s' if len(pairs) > 1 else ''}. Fractions of the logit "
            "difference between the clean and the corrupted answer that one activation of the "
            "clean run restores in the corrupted run (denoising), all answer tokens together.",
            *notes,
            "Random sources have answers of their own: in "
            f"{100 * pairs.shared_by_random(seed):.0f} % of the scored tokens the same as the "
            "clean one's, which such a source then restores by construction.",
            "A claim is about the strongest position, chosen on these models; its null is at the "
            "same position.",
        ],
    )  # fmt: skip
    return result if clean else with_ablations(result, models, seed=seed)


def plot_patching(table: pd.DataFrame, *, by_role: bool = False, note: str = "") -> "Figure":
    """Fraction restored at each location: a panel per changed label, with its total effect.

    Panels are by direction too, or denoising alone by role of an answer token.
    """
    rows = _logit_differences(table)
    if by_role:
        rows = rows[(rows["role"] != WHOLE) & (rows["direction"] == "denoising")]
        panel, what = rows["changed"] + " differs, " + rows["role"], "restored, by answer token"
    else:
        rows = rows[rows["role"] == WHOLE]
        panel, what = rows["direction"] + ", " + rows["changed"] + " differs", "moved"
    apart = rows["total_effect"].map("{:.1f} nats apart".format)
    figure = heatmaps(
        rows.assign(panel=panel + "<br>" + apart, location=rows["location"].map(short_site)),
        row="location", column="position", value="fraction_restored", panel="panel", signed=True,
        title="fraction", across=rows["role" if by_role else "changed"].nunique(),
        hover=["fraction_restored_low", "fraction_restored_high", "same_answer", "random",
               "effect", "n_answers"],
    )  # fmt: skip
    title = f"Fraction of the logit difference {what}"
    return figure.update_layout(
        title={"text": title, "subtitle": {"text": note}, "y": 0.985, "yanchor": "top"},
        margin={"t": 130},
    )

"""Activation patching: which activation, at which position, decides between two answers.

Source: Zhang and Nanda 2024, Towards Best Practices of Activation Patching in Language Models;
Heimersheim and Nanda 2024, How to Use and Interpret Activation Patching.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import cached, unknown_site
from tbtt_interp.analyses.ablation import with_ablations
from tbtt_interp.analyses.pairs import Pairs, chosen_pairs, null_sources, ordered_pairs
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import TOKENS_AT_ONCE
from tbtt_interp.interventions import Location, answer_logits, patch
from tbtt_interp.plots import heatmaps, short_site
from tbtt_interp.prompts import PromptBatch, PromptSet, in_reading_order
from tbtt_interp.results import Claim, Result, strongest_null
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Arrays, Models, over_seeds
from tbtt_interp.stats import Interval, ratios_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

STREAMS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
OF_HEADS = ("attn.hook_v", "attn.hook_pattern", "attn.hook_z")
DIRECTIONS = {"denoising": "restores", "noising": "destroys"}
SOURCES = ("pair", "same answer", "random")  # the pair's other prompt, and two nulls
METRICS = ("logit difference", "log-probability")
WHOLE = "answer"  # all of an answer's tokens together


def sites_of(model: "HookedTransformer") -> list[str]:
    """Every site that is patched, in the order of a forward pass."""
    names = (STREAMS[0], *OF_HEADS, *STREAMS[1:])
    sites = [f"blocks.{layer}.{name}" for layer in range(model.cfg.n_layers) for name in names]
    return [site for site in sites if site in model.hook_dict]


def locations_of(
    model: "HookedTransformer", batch: PromptBatch, sites: Sequence[str] | None = None
) -> list[Location]:
    """Every head of some sites, at each position that any prompt has and at all positions.

    Args:
        sites: hook names; None is `sites_of`.
    Raises:
        TbttError: if a site is unknown or cannot be patched.
    """
    known = sites_of(model)
    if unknown := [site for site in sites or () if site not in known]:
        raise unknown_site(unknown[0], known)
    first = -int(batch.last_prompt_pos.max()) - 1
    last = int((batch.answer_pos - batch.last_prompt_pos[batch.answer_row]).max()) - 1
    return [
        Location(site, head, pos)
        for site in sites or known
        for head in (range(model.cfg.n_heads) if site.endswith(OF_HEADS) else [None])
        for pos in (*range(first, last + 1), None)
    ]


def patched_scores(
    model: "HookedTransformer", base: PromptBatch, source: PromptBatch,
    locations: Sequence[Location], score: Callable[[Tensor], Tensor],
) -> Float[Tensor, "location ..."]:  # fmt: skip
    """A score of the base run's answer logits, with one location at a time from the source run."""
    cache = cached(model, source.tokens, list({location.hook for location in locations}))[1]
    hooks = (patch(location, cache[location.hook], base) for location in locations)
    return torch.stack([score(answer_logits(model, base, [hook])) for hook in hooks])


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
    """How far the source run, and a patch from it at each location, moves each token's score.

    Denoising patches the clean run into the corrupted one, noising the other way round.

    Args:
        seed: of the null sources.
    Returns:
        the total effect, and the effect of each patch, in nats. Positive is towards the clean
        answer when denoising, and away from it when noising; nan where there is no null source.
    """
    base, own_source, sign = pairs.corrupted, pairs.clean, 1
    if direction == "noising":
        base, own_source, sign = own_source, base, -1
    batch = pairs.batch(base)
    score = partial(answer_scores, clean=batch.answer_token, corrupted=pairs.corrupted_tokens)
    before = score(answer_logits(model, batch))
    effects = []
    for kind in SOURCES:
        source = own_source if kind == "pair" else null_sources(pairs, kind, base, seed)
        is_known = torch.from_numpy(source >= 0)[batch.answer_example]
        source_batch = pairs.batch(np.where(source >= 0, source, base))
        after = patched_scores(model, batch, source_batch, locations, score)
        effects.append((sign * (after - before)).where(is_known, torch.nan))
    total = score(answer_logits(model, pairs.batch(own_source))) - before
    return sign * total, torch.stack(effects)


def groups_of(pairs: Pairs) -> list[tuple[str, str]]:
    """Each changed label with each role of an answer token, and with the whole answer."""
    roles = (*in_reading_order(pairs.roles), WHOLE)
    return [(changed, role) for changed in dict.fromkeys(pairs.changed) for role in roles]


def patching_sums(
    model: "HookedTransformer", prompts: PromptSet, pairs: Pairs, locations: Sequence[Location],
    seed: int = 0,
) -> Arrays:  # fmt: skip
    """Sums of `patch_pairs` over the answer tokens of each group of `groups_of`.

    Returns:
        `effect` [direction, source, group, metric, location]; `total_effect` of the tokens that
        have a source, [direction, source, group, metric]; their count `n` [direction, source,
        group].
    """
    at_once = max(1, TOKENS_AT_ONCE // 2 // prompts.n_ctx)
    sums: list[Arrays] = []
    for direction in DIRECTIONS:
        parts = []
        for first in range(0, len(pairs), at_once):
            chunk = pairs.take(np.arange(first, min(first + at_once, len(pairs))))
            tokens = list(zip(np.repeat(chunk.changed, chunk.n_scored), chunk.roles, strict=True))
            in_group = torch.tensor([
                [label == changed and role in (own, WHOLE) for label, role in groups_of(pairs)]
                for changed, own in tokens
            ]).double()  # fmt: skip
            total, effect = patch_pairs(model, chunk, locations, direction, seed)
            known = effect[:, 0, 0].isfinite().double()
            parts.append({
                "effect": einsum(effect.nan_to_num(), in_group, "s l m a, a g -> s g m l"),
                "total_effect": einsum(total, known, in_group, "m a, s a, a g -> s g m"),
                "n": known @ in_group,
            })  # fmt: skip
        sums.append({k: np.sum([part[k].numpy() for part in parts], 0) for k in parts[0]})
    return {name: np.stack([part[name] for part in sums]) for name in sums[0]}


def patching_table(
    run: Models | Run, pairs: Pairs | None = None, *, sites: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """The fraction of the total effect that a patch restores, per location, with two nulls.

    The fraction is a ratio of sums over answer tokens and models. Its interval is Student's over
    models. The nulls are the same fraction where the source is another example with the base's
    answer (`same_answer`), and any other example (`random`).

    Args:
        pairs: None is `ordered_pairs`.
        sites: hook names; None is `sites_of`.
        seed: of the null sources.
    Returns:
        One row per direction, changed label, role of the answer token (`answer` is all together),
        metric and location: `effect` and `total_effect` in nats per answer token,
        `fraction_restored` with its interval, `same_answer`, `random`, and `n_answers`, the answer
        tokens of each model.
    Raises:
        TbttError: if a site is unknown or cannot be patched.
    """
    models = Models.of(run)
    pairs = ordered_pairs(models.shared_prompts) if pairs is None else pairs
    locations = locations_of(models.first, pairs.batch(pairs.clean), sites)
    sums = over_seeds(models, patching_sums, pairs, locations, seed)
    effect, total = (np.moveaxis(sums[name], 0, -1) for name in ("effect", "total_effect"))
    fraction = ratios_over_models(effect, total[..., None, :])
    n = sums["n"][:, :, 0].sum(0)[..., None, None]  # of all models, [direction, group, 1, 1]
    n[n == 0] = np.nan
    values = {
        "effect": effect[:, 0].sum(-1) / n, "fraction_restored": fraction.mean[:, 0],
        "fraction_restored_low": fraction.low[:, 0], "fraction_restored_high": fraction.high[:, 0],
        "same_answer": fraction.mean[:, 1], "random": fraction.mean[:, 2],
        "total_effect": total[:, 0].sum(-1)[..., None] / n, "n_models": fraction.n[:, 0],
        "n_answers": n // len(models.models),
    }  # fmt: skip
    offsets = [location.pos or 0 for location in locations]
    names = pairs.prompts.position_names(min(offsets), max(offsets))
    table = pd.DataFrame(
        [
            (direction, *group, metric, *at, "all" if at.pos is None else names[at.pos])
            for direction in DIRECTIONS
            for group in groups_of(pairs)
            for metric in METRICS
            for at in locations
        ],
        columns=["direction", "changed", "role", "metric", "site", "head", "pos", "position"],
    ).astype({"head": "Int64", "pos": "Int64"})
    shape = fraction.mean[:, 0].shape
    table = table.assign(**{k: np.broadcast_to(x, shape).ravel() for k, x in values.items()})
    known = table.dropna(subset=["n_answers"]).astype({"n_answers": int})
    return known.reset_index(drop=True)


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
    return [
        Claim(
            text=f"Where {row['changed']} differs, {row['location']} at {row['position']} "
            f"{DIRECTIONS[row['direction']]}",
            effect=Interval.of_row(row, "fraction_restored"), unit="of the logit difference",
            null=strongest_null(row["fraction_restored"], [row["same_answer"], row["random"]]),
            null_name="the stronger of the two null sources",
        )
        for row in strongest.to_dict("records")
    ]  # fmt: skip


def analyse_patching(
    run: Models | Run, pairs: Pairs | None = None, *, clean: str | None = None,
    corrupt: str | None = None, held_out: str | None = None, n_pairs: int | None = None,
    sites: Sequence[str] | None = None, ablate: bool = True, seed: int = 0,
) -> Result:  # fmt: skip
    """The table of `patching_table`, and what answers lose when a component is ablated.

    Args:
        pairs: None is the pairs that the next four options choose; see `chosen_pairs`.
        clean, corrupt: the prompts of one pair, which goes without ablation.
        held_out: only clean equations of this held-out pair of operands, as in 5,7.
        n_pairs: how many pairs, drawn at random.
        sites: hook names; None is `sites_of`.
        ablate: whether heads, MLPs and neurons are ablated, too; see `ablation_table`.
    Raises:
        TbttError: if options do not go together, or a site is unknown.
    """
    if (clean is None) != (corrupt is None):
        raise TbttError("--clean and --corrupt go together: give both, or neither for all pairs")
    if clean is not None and (held_out or n_pairs):
        raise TbttError("--clean and --corrupt name one pair: leave out --held-out and --pairs")
    if n_pairs is not None and n_pairs < 1:
        raise TbttError(f"pairs must be at least 1, got {n_pairs}")
    models = Models.of(run)
    if pairs is None:
        pairs = chosen_pairs(models, clean, corrupt, held_out=held_out, count=n_pairs, seed=seed)
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
            "A claim names the strongest position, which these data chose; its null is of the same "
            "position.",
        ],
    )  # fmt: skip
    return result if clean or not ablate else with_ablations(result, models, seed=seed)


def plot_patching(table: pd.DataFrame, *, by_role: bool = False, note: str = "") -> "Figure":
    """Fractions restored by each location: a panel per changed label, with its total effect.

    Args:
        table: as `patching_table` returns it.
        by_role: one panel per role of an answer token, denoising, instead of one per direction.
        note: what a reader has to know, put under the title.
    """
    rows = _logit_differences(table)
    rows = rows[(rows["role"] != WHOLE) & (rows["direction"] == "denoising")
                if by_role else rows["role"] == WHOLE]  # fmt: skip
    inner = rows["changed"] + " differs"
    panel = inner + ", " + rows["role"] if by_role else rows["direction"] + ", " + inner
    figure = heatmaps(
        rows.assign(
            panel=panel + "<br>" + rows["total_effect"].map("{:.1f} nats apart".format),
            location=rows["location"].map(short_site),
        ),
        row="location", column="position", value="fraction_restored", panel="panel", signed=True,
        title="fraction", across=rows["role" if by_role else "changed"].nunique(),
        hover=["fraction_restored_low", "fraction_restored_high", "same_answer", "random",
               "effect", "n_answers"],
    )  # fmt: skip
    what = "restored, by answer token" if by_role else "moved"
    title = {
        "text": f"Fraction of the logit difference {what}",
        "subtitle": {"text": note},
        "y": 0.985,
        "yanchor": "top",
    }
    return figure.update_layout(title=title, margin={"t": 130})

"""Ablation: what answers lose without a head, an MLP or one neuron."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp.activations import cached
from tbtt_interp.interventions import changed, logits_with_edits, mean_by_position, source_rows
from tbtt_interp.plots import points
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.shares import summarize_shares
from tbtt_interp.stats import summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import ActivationCache, HookedTransformer

SITES = {"head": "attn.hook_z", "MLP": "hook_mlp_out", "neuron": "mlp.hook_post",
         "random direction": "mlp.hook_post"}  # fmt: skip
NEURONS = 64  # neurons of a layer that are ablated, those that write most
DRAWN = 8  # neurons in a figure, those that cost most
COMPONENT = ["kind", "layer", "number", "mode", "split"]
COUNTS = ["right_before", "kept", "right", "of"]


class Component(NamedTuple):
    """What is ablated, one of SITES: the number of a head, a neuron or a random direction."""

    kind: str
    layer: int
    number: int
    site: str


def components_of(
    model: "HookedTransformer", cache: "ActivationCache", kinds: Sequence[str] = tuple(SITES)
) -> list[Component]:
    """Every head and MLP; each layer's neurons that write most; as many random directions."""
    found = []
    for layer in range(model.cfg.n_layers):
        numbers = {"head": list(range(model.cfg.n_heads))}
        if not model.cfg.attn_only and set(kinds) != {"head"}:
            post, block = cache[f"blocks.{layer}.{SITES['neuron']}"], model.blocks[layer]
            writes = post.flatten(0, 1).std(0) * block.mlp.W_out.norm(dim=1).cpu()  # pyright: ignore
            chosen = writes.topk(min(NEURONS, len(writes))).indices.sort().values.tolist()
            numbers |= {"MLP": [0], "neuron": chosen, "random direction": list(range(len(chosen)))}
        found += [Component(kind, layer, k, f"blocks.{layer}.{SITES[kind]}")
                  for kind in numbers if kind in kinds for k in numbers[kind]]  # fmt: skip
    return found


def ablated(
    values: Float[Tensor, "row pos ..."], new: Float[Tensor, "row pos ..."], component: Component,
    seed: int,
) -> Float[Tensor, "row pos ..."]:  # fmt: skip
    """Activations with those of one component replaced by new ones."""
    if component.kind == "random direction":
        generator = np.random.default_rng((seed, component.layer, component.number))
        drawn = torch.from_numpy(generator.standard_normal(values.shape[-1])).to(values)
        direction = F.normalize(drawn, dim=0)
        return values + ((new - values) @ direction)[..., None] * direction
    index = (..., component.number) if component.kind == "neuron" else (...,)
    index = (..., component.number, slice(None)) if component.kind == "head" else index
    return changed(values, index, new[index])


def ablated_logits(
    model: "HookedTransformer", batch: PromptBatch, cache: "ActivationCache",
    sources: Mapping[str, Tensor], seed: int, kinds: Sequence[str] = tuple(SITES),
) -> Iterator[tuple[Component, str, Float[Tensor, "answer d_vocab"]]]:  # fmt: skip
    """Each component, ablation mode, and the logits that predict the answers.

    Args:
        sources: for each resampling mode, each row's source row, or -1.
    """
    for site, components in groupby(components_of(model, cache, kinds), key=lambda one: one.site):
        values = cache[site]
        new = {"zero": torch.zeros_like(values), "mean": mean_by_position(values, batch)}
        for mode, rows in sources.items():
            new[mode] = values[torch.where(rows < 0, torch.arange(len(rows)), rows)]
        jobs = [
            (component, mode) for component in components for mode in new
            if mode != "same answer" or component.kind in ("head", "MLP")
        ]  # fmt: skip
        edits = [partial(ablated, new=new[mode], component=c, seed=seed) for c, mode in jobs]
        after = logits_with_edits(model, batch, site, edits)
        yield from ((*job, logits) for job, logits in zip(jobs, after, strict=True))


def scored(
    batch: PromptBatch, logits: Float[Tensor, "answer d_vocab"]
) -> tuple[Float[np.ndarray, " example"], Bool[np.ndarray, " example"]]:
    """Each whole answer's log-probability, in nats, and whether it is right."""
    logits = logits.double().cpu()
    return batch.answer_logprobs(logits).numpy(), batch.margins(logits[None])[0].numpy() > 0


def ablation_table(
    model: "HookedTransformer", prompts: PromptSet, seed: int = 0,
    kinds: Sequence[str] = tuple(SITES),
) -> pd.DataFrame:  # fmt: skip
    """Drop in log-probability and accuracy when a component is ablated at every position.

    Mode `zero` sets its output to 0, `mean` to its mean over all examples at the same position,
    and `resample` to a random other example's. For heads and MLPs, `same answer` resamples from an
    example with the same answer; examples without one are left out.

    Args:
        kinds: of component, all of SITES or some.
    Returns:
        One row per component, mode and split: `logprob_drop`, nats per whole answer;
        `accuracy_drop`, the share of right answers lost; the counts of answers `right_before`,
        `kept` (those still right), `right` and `of`; and the `rank` of a neuron or direction in
        its layer, 0 for the one whose mean ablation costs seen answers most.
    """
    batch, generator = prompts.batch(), prompts.random(seed)
    answers = [prompts.examples[k].answer for k in batch.row_example.tolist()]
    keys = {"resample": [""] * len(answers), "same answer": answers}
    sources = {mode: source_rows(of, batch, generator) for mode, of in keys.items()}
    has_source = np.ones(len(batch), dtype=bool)
    has_source[batch.row_example[sources["same answer"] < 0]] = False
    sites = [f"blocks.{layer}.{name}" for layer in range(model.cfg.n_layers)
             for name in SITES.values()]  # fmt: skip
    logits, cache = cached(model, batch.tokens, sites)
    logprobs_before, right_before = scored(batch, batch.at_answers(logits))
    rows, sums = [], []
    for component, mode, logits in ablated_logits(model, batch, cache, sources, seed, kinds):
        logprobs, right = scored(batch, logits)
        of_answer = np.stack([logprobs_before - logprobs, right_before, right_before & right,
                              right, np.ones(len(batch))])  # fmt: skip
        for split, mask in prompts.splits.items():
            rows.append((*component, mode, split))
            sums.append(of_answer @ (mask & has_source if mode == "same answer" else mask))
    table = pd.DataFrame(rows, columns=[*Component._fields, "mode", "split"])
    table[["logprob_drop", *COUNTS]] = np.stack(sums)
    table["logprob_drop"] /= table["of"]
    table["accuracy_drop"] = 1 - table["kept"] / table["right_before"]
    is_ranked = table["kind"].isin(["neuron", "random direction"]) & (table["mode"] == "mean")
    ranked = table[is_ranked & (table["split"] == next(iter(prompts.splits)))]
    drops = ranked.groupby(["kind", "layer"])["logprob_drop"]
    ranks = ranked[COMPONENT[:3]].assign(rank=drops.rank(ascending=False, method="first") - 1)
    return table.merge(ranks, "left").astype({"rank": "Int64"} | dict.fromkeys(COUNTS, int))


def ablation_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over models for each component with its null; neurons by rank, not by number.

    The null of a resampled head or MLP is a resample with the same answer; that of a neuron is the
    random direction of the same rank.
    """
    table = table.assign(number=table["rank"].fillna(table["number"]).astype(int))
    drops, ends = ["logprob_drop", "accuracy_drop"], ["accuracy_drop_low", "accuracy_drop_high"]
    summary = summarize(table, COMPONENT, drops)
    shares = summarize_shares(table, COMPONENT, ["accuracy_drop"], of="right_before")
    summary[ends] = shares[ends]
    summary[COUNTS] = table.groupby(COMPONENT, sort=False)[COUNTS].sum().to_numpy()
    direction, same = summary["kind"] == "random direction", summary["mode"] == "same answer"
    nulls = pd.concat([
        summary[direction].assign(kind="neuron"), summary[same].assign(mode="resample"),
    ])[[*COMPONENT, *drops]]  # fmt: skip
    return summary[~direction & ~same].merge(nulls, "left", COMPONENT, suffixes=("", "_null"))


def ablation_claims(summary: pd.DataFrame) -> list[Claim]:
    """The share of right seen answers lost without each head and MLP, and the costliest neuron."""
    seen = summary[(summary["split"] == "seen") & summary["accuracy_drop"].notna()]
    is_neuron = seen["kind"] == "neuron"
    whole = seen[~is_neuron & (seen["mode"] == "resample")]
    neurons = seen[is_neuron & (seen["mode"] == "mean") & (seen["number"] == 0)]
    claims = []
    for row in pd.concat([whole, neurons]).to_dict("records"):
        kind, layer = row["kind"], row["layer"]
        if kind == "neuron":
            text = f"Layer {layer}'s costliest neuron, set to its mean, costs"
            null_name = "the costliest random direction"
        else:
            name = f"{kind[0].upper()}{kind[1:]} {layer}.{row['number']}"
            text = f"{name}, resampled from another example, costs"
            null_name = "resampled from an example with the same answer"
        claims.append(Claim.of_row(row, "accuracy_drop", {"accuracy_drop_null": null_name},
                                   text=text, unit="of the right seen answers"))  # fmt: skip
    return claims


def with_ablations(result: Result, run: Models | Run, *, seed: int = 0) -> Result:
    """A result with each component's drops."""
    models = Models.of(run)
    table = over_seeds(models, ablation_table, seed)
    summary = ablation_summary(table)
    tables = {**result.tables, "ablations": summary, "ablations-by-seed": table}
    figures = {**result.figures, "ablations": partial(plot_ablations, summary)}
    claims = [*result.claims, *ablation_claims(summary)]
    return dataclasses.replace(result, tables=tables, figures=figures, claims=claims)


def plot_ablations(summary: pd.DataFrame) -> "Figure":
    """The share of right answers lost without each head, each MLP and the costliest neurons."""
    rows = summary[(summary["kind"] != "neuron") | (summary["number"] < DRAWN)]
    rows = rows.sort_values(["split", "layer", "kind", "number"], ascending=[False, *[True] * 3])
    layer, number = rows["layer"].astype(str), rows["number"].astype(str)
    of_rank = "layer " + layer + ", neuron of rank " + (rows["number"] + 1).astype(str)
    name = (rows["kind"] + " " + layer + "." + number).where(rows["kind"] != "neuron", of_rank)
    return points(
        rows.assign(component=name), name="component", value="accuracy_drop",
        by="mode", panel="split", nulls={"accuracy_drop_null": "null"},
        title="share of right answers lost",
        hover=["right_before", "right", "of", "logprob_drop"],
    )  # fmt: skip

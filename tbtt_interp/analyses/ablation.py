"""Ablation: what answers lose without a head, an MLP or one neuron, and what neurons respond to."""

import dataclasses
from collections.abc import Callable
from functools import partial
from math import nan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.activations import cached
from tbtt_interp.interventions import logits_with_edits, mean_by_position, source_rows
from tbtt_interp.plots import heatmaps, points
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.stats import Interval, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import ActivationCache, HookedTransformer

MODES = ("zero", "mean", "resample")
NEURONS = 64  # neurons of a layer that are ablated, those that write most
DRAWN = 8  # neurons in a figure, those that cost most
COMPONENT = ["kind", "layer", "number", "mode", "split"]


class Component(NamedTuple):
    """What is ablated: a head, an MLP, a neuron, or a random direction among a layer's neurons.

    Attributes:
        number: of the head, the neuron or the draw.
        site: the hook's name.
    """

    kind: str
    layer: int
    number: int
    site: str


def components_of(model: "HookedTransformer", cache: "ActivationCache") -> list[Component]:
    """Every head and MLP; every neuron, or a layer's that write most; as many random directions.

    Args:
        cache: has the activations of each layer's neurons.
    """
    found = []
    for layer in range(model.cfg.n_layers):
        block = f"blocks.{layer}."
        heads = range(model.cfg.n_heads)
        found += [Component("head", layer, k, f"{block}attn.hook_z") for k in heads]
        if model.cfg.attn_only:
            continue
        found.append(Component("MLP", layer, 0, f"{block}hook_mlp_out"))
        post = cache[f"{block}mlp.hook_post"]
        writes = post.flatten(0, 1).std(0) * model.blocks[layer].mlp.W_out.norm(dim=1).cpu()  # pyright: ignore
        chosen = writes.topk(min(NEURONS, len(writes))).indices.sort().values.tolist()
        for kind, numbers in (("neuron", chosen), ("random direction", range(len(chosen)))):
            found += [Component(kind, layer, k, f"{block}mlp.hook_post") for k in numbers]
    return found


def ablated(
    values: Float[Tensor, "row pos ..."], new: Float[Tensor, "row pos ..."], component: Component,
    seed: int,
) -> Float[Tensor, "row pos ..."]:  # fmt: skip
    """Activations with those of one component replaced by new ones."""
    if component.kind == "MLP":
        return new
    if component.kind == "random direction":
        generator = np.random.default_rng((seed, component.layer, component.number))
        drawn = torch.from_numpy(generator.standard_normal(values.shape[-1])).to(values)
        direction = F.normalize(drawn, dim=0)
        return values + ((new - values) @ direction)[..., None] * direction
    index = (..., component.number, slice(None)) if component.kind == "head" else (
        ..., component.number)  # fmt: skip
    values = values.clone()
    values[index] = new[index]
    return values


def ablation_table(model: "HookedTransformer", prompts: PromptSet, seed: int = 0) -> pd.DataFrame:
    """What answers lose when one component is ablated at every position.

    Mode `zero` sets its output to 0, `mean` to its mean over all examples at the same position,
    and `resample` to a random other example's. For heads and MLPs, `same answer` resamples from an
    example with the same answer; examples without one are left out.

    Args:
        seed: of sources and directions.
    Returns:
        One row per component (`kind`, `layer`, `number`), mode and split: `logprob_drop`, nats per
        whole answer; `accuracy_drop`, the share of right answers lost; the counts of answers
        `right_before`, `kept` (those still right), `right` and `of`; and the `rank` of a neuron or
        direction in its layer, 0 for the one whose mean ablation costs seen answers most.
    """
    batch = prompts.batch()
    example, names = batch.row_example, ("attn.hook_z", "hook_mlp_out", "mlp.hook_post")
    sites = [f"blocks.{layer}.{name}" for layer in range(model.cfg.n_layers) for name in names]
    logits, cache = cached(model, batch.tokens, sites)
    answers = [prompts.examples[k].answer for k in example.tolist()]
    generator = prompts.random(seed)
    sources = {
        "resample": source_rows([""] * len(answers), batch, generator),
        "same answer": source_rows(answers, batch, generator),
    }
    has_source = torch.ones(len(batch), dtype=torch.bool)
    has_source[example[sources["same answer"] < 0]] = False

    def scored(logits: Float[Tensor, "answer d_vocab"]) -> tuple[np.ndarray, np.ndarray]:
        logits = logits.double().cpu()
        return batch.answer_logprobs(logits).numpy(), batch.margins(logits[None])[0].numpy() > 0

    logprobs_before, right_before = scored(batch.at_answers(logits))
    components = components_of(model, cache)
    rows = []
    for site in dict.fromkeys(component.site for component in components):
        values = cache[site]
        new = {"zero": torch.zeros_like(values), "mean": mean_by_position(values, batch)} | {
            mode: values[torch.where(chosen < 0, torch.arange(len(chosen)), chosen)]
            for mode, chosen in sources.items()
        }
        jobs = [
            (c, mode) for c in components if c.site == site for mode in new
            if mode in MODES or c.kind in ("head", "MLP")
        ]  # fmt: skip
        edits: list[Callable[[Tensor], Tensor]] = [
            partial(ablated, new=new[mode], component=c, seed=seed) for c, mode in jobs
        ]
        after = logits_with_edits(model, batch, site, edits)
        for (component, mode), logits in zip(jobs, after, strict=True):
            logprobs, right = scored(logits)
            asked = has_source.numpy() if mode == "same answer" else np.ones(len(batch), bool)
            for split, mask in prompts.splits.items():
                of = mask & asked
                before, kept = (int(x[of].sum()) for x in (right_before, right_before & right))
                drop = (logprobs_before - logprobs)[of]
                rows.append(component._asdict() | {
                    "mode": mode, "split": split,
                    "logprob_drop": float(drop.mean()) if of.any() else nan,
                    "accuracy_drop": 1 - kept / before if before else nan,
                    "right_before": before, "kept": kept, "right": int(right[of].sum()),
                    "of": int(of.sum()),
                })  # fmt: skip
    table = pd.DataFrame(rows)
    units = table["kind"].isin(["neuron", "random direction"]) & (table["mode"] == "mean")
    ranked = table[units & (table["split"] == next(iter(prompts.splits)))]
    drops = ranked.groupby(["kind", "layer"])["logprob_drop"]
    rank = drops.rank(ascending=False, method="first").astype(int) - 1
    ranks = ranked[COMPONENT[:3]].assign(rank=rank)
    return table.merge(ranks, "left", COMPONENT[:3]).astype({"rank": "Int64"})


def ablation_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over models for each component with its null; neurons by rank, not by number.

    The null of a resampled head or MLP is a resample with the same answer; that of a neuron is the
    random direction of the same rank.

    Args:
        table: `ablation_table` of every seed.
    """
    table = table.assign(number=table["rank"].fillna(table["number"]).astype(int))
    drops, counts = ["logprob_drop", "accuracy_drop"], ["right_before", "kept", "right", "of"]
    summary = summarize(table, COMPONENT, drops)
    ends = ["accuracy_drop_low", "accuracy_drop_high"]
    summary[ends] = summary[ends].clip(0, 1)
    summary[counts] = table.groupby(COMPONENT, sort=False)[counts].sum().to_numpy()
    direction, same = summary["kind"] == "random direction", summary["mode"] == "same answer"
    nulls = pd.concat([
        summary[direction].assign(kind="neuron"), summary[same].assign(mode="resample"),
    ])[[*COMPONENT, *drops]]  # fmt: skip
    return summary[~direction & ~same].merge(nulls, "left", COMPONENT, suffixes=("", "_null"))


def neuron_maps(model: "HookedTransformer", prompts: PromptSet) -> pd.DataFrame:
    """Each neuron's activation at the prompt's last token, over the grid of operands.

    Returns:
        One row per layer, neuron and example: `operator`, `a`, `b`, `activation`.
    Raises:
        TbttError: if the examples are no grid of operands.
    """
    operators, names = prompts.require_grids(), ["operator", "a", "b"]
    labels = [e.labels for e in prompts.examples]
    chosen = [k for k, known in enumerate(labels) if str(known.get("operator")) in operators]
    equations = pd.DataFrame([{name: labels[k][name] for name in names} for k in chosen])
    batch = prompts.batch(chosen).first_tokens()
    sites = [f"blocks.{layer}.mlp.hook_post" for layer in range(model.cfg.n_layers)]
    cache = cached(model, batch.tokens, sites)[1]
    found = []
    for layer, site in enumerate(sites):
        wide = pd.DataFrame(batch.at_answers(cache[site]).double().numpy()).join(equations)
        long = wide.melt(names, var_name="neuron", value_name="activation")
        found.append(long.assign(layer=layer))
    columns = ["layer", "neuron", *names, "activation"]
    return pd.concat(found, ignore_index=True)[columns].astype({"neuron": int})


def ablation_claims(summary: pd.DataFrame) -> list[Claim]:
    """The share of right seen answers lost without each head and MLP, and the costliest neuron."""
    seen = summary[(summary["split"] == "seen") & summary["accuracy_drop"].notna()]
    whole = seen[(seen["kind"] != "neuron") & (seen["mode"] == "resample")]
    neurons = seen[(seen["kind"] == "neuron") & (seen["mode"] == "mean") & (seen["number"] == 0)]
    claims = []
    for row in pd.concat([whole, neurons]).to_dict("records"):
        text = f"{row['kind']} {row['layer']}.{row['number']}, resampled from another example,"
        null_name = "resampled from an example with the same answer"
        if row["kind"] == "neuron":
            text = f"Layer {row['layer']}'s costliest neuron, set to its mean,"
            null_name = "the costliest random direction"
        claims.append(Claim(
            text=f"{text[0].upper()}{text[1:]} costs", null=row["accuracy_drop_null"],
            effect=Interval.of_row(row, "accuracy_drop"), unit="of the right seen answers",
            null_name=null_name,
        ))  # fmt: skip
    return claims


def with_ablations(result: Result, run: Models | Run, *, seed: int = 0) -> Result:
    """A result with what answers lose without each component, and what neurons respond to.

    Args:
        seed: of sources and directions.
    """
    models = Models.of(run)
    table = over_seeds(models, ablation_table, seed)
    summary = ablation_summary(table)
    tables = {**result.tables, "ablations": summary, "ablations-by-seed": table}
    figures = {**result.figures, "ablations": partial(plot_ablations, summary)}
    if models.shared_prompts.operand_grids:
        ranks = table[table["kind"] == "neuron"].rename(columns={"number": "neuron"})
        ranks = ranks[["seed", "layer", "neuron", "rank"]].drop_duplicates()
        tables["neurons"] = over_seeds(models, neuron_maps).merge(ranks, "left")
        figures["neurons"] = partial(plot_neurons, tables["neurons"])
    claims = [*result.claims, *ablation_claims(summary)]
    return dataclasses.replace(result, tables=tables, figures=figures, claims=claims)


def plot_ablations(summary: pd.DataFrame) -> "Figure":
    """The share of right answers lost without each head, each MLP and the costliest neurons.

    Args:
        summary: as `ablation_summary` returns it.
    """
    rows = summary[(summary["kind"] != "neuron") | (summary["number"] < DRAWN)]
    rows = rows.sort_values(["split", "layer", "kind", "number"], ascending=[False, *[True] * 3])
    layer, number = rows["layer"].astype(str), rows["number"].astype(str)
    of_rank = "layer " + layer + ", neuron of rank " + (rows["number"] + 1).astype(str)
    name = (rows["kind"] + " " + layer + "." + number).where(rows["kind"] != "neuron", of_rank)
    return points(
        rows.assign(component=name), name="component", value="accuracy_drop",
        low="accuracy_drop_low", high="accuracy_drop_high", by="mode", panel="split",
        nulls={"accuracy_drop_null": "null"}, title="share of right answers lost",
        hover=["right_before", "right", "of", "logprob_drop"],
    )  # fmt: skip


def plot_neurons(maps: pd.DataFrame, seed: int | None = None) -> "Figure":
    """The activation of one model's costliest neurons over the operands, an operator per row.

    Args:
        maps: `neuron_maps` of every seed, with the `rank` of each neuron.
        seed: of the model; None is the first.
    """
    seed = int(maps["seed"].iloc[0]) if seed is None else seed
    rows = maps[(maps["seed"] == seed) & (maps["rank"] < DRAWN)].sort_values(["rank", "layer"])
    neurons = rows[["layer", "neuron"]].drop_duplicates().head(DRAWN)
    rows = rows.merge(neurons).sort_values(["operator", "rank", "layer", "a", "b"])
    name = "neuron " + rows["layer"].astype(str) + "." + rows["neuron"].astype(str)
    return heatmaps(
        rows.assign(panel=name + ", a" + rows["operator"] + "b"), row="a", column="b",
        value="activation", panel="panel", title=f"activation,<br>seed {seed}", signed=True,
        bounds=None, text=False, across=len(neurons), axes=("a", "b"),
    )  # fmt: skip

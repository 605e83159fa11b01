"""Ablation: what answers lose without a head, an MLP or a single neuron, and what neurons hold."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from math import nan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp import figures
from tbtt_interp.analyses.findings import Finding, Result, Tell, silent
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.evaluate import TOKENS_AT_ONCE, Questions
from tbtt_interp.stats import Interval, mean_over_models

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

MODES = ("zero", "mean", "resample")
NEURONS = 64  # of a layer, where it has more: those that write most


class Part(NamedTuple):
    """What is taken away: at a hook, one head, or all of it, or one direction of it.

    Attributes:
        kind: head, MLP, neuron, or random direction.
        number: of the head, neuron or draw.
    """

    kind: str
    layer: int
    number: int
    site: str


def mean_by_place(
    values: Float[Tensor, "row pos ..."], end: Int[Tensor, " row"], length: Int[Tensor, " row"]
) -> Float[Tensor, "row pos ..."]:
    """Each row's mean over all rows, at the same place counted from the prompt's end.

    Args:
        length: tokens of each row; what is behind them is padding.
    """
    pos = torch.arange(values.shape[1])
    offset = pos - end[:, None] + int(end.max())  # [row, pos]
    there = (pos < length[:, None]).to(values.dtype)
    flat = values * there.view(*there.shape, *[1] * (values.ndim - 2))
    size = int(offset.max()) + 1
    sums = torch.zeros(size, *values.shape[2:], dtype=values.dtype)
    sums.index_add_(0, offset.flatten(), flat.flatten(0, 1))
    counts = torch.zeros(size, dtype=values.dtype).index_add_(0, offset.flatten(), there.flatten())
    return (sums / counts.clamp(min=1).view(-1, *[1] * (values.ndim - 2)))[offset]


def row_donors(
    answers: Sequence[str], questions: Questions, generator: np.random.Generator
) -> Int[Tensor, " row"]:
    """For each row another example's, drawn at random, whose prompt ends at the same place.

    Args:
        answers: of each row; a donor has the same.
    Returns:
        the donors' rows, no shorter than their own; -1 where there is none.
    """
    example, length = questions.of_row.tolist(), questions.lengths.tolist()
    keys = list(zip(questions.end.tolist(), answers, strict=True))
    rows: dict[object, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    others = (
        [r for r in rows[key] if example[r] != k and length[r] >= length[row]]
        for row, (key, k) in enumerate(zip(keys, example, strict=True))
    )
    return torch.tensor([int(generator.choice(some or [-1])) for some in others])


def parts_of(
    subject: Subject, posts: Sequence[Float[Tensor, "row pos d_mlp"]], model: "HookedTransformer"
) -> list[Part]:
    """Every head and MLP; every neuron, or those of a layer that write most; random directions.

    Args:
        posts: of each layer, the activations of its neurons.
    """
    found = []
    for layer, post in enumerate(posts):
        site = f"blocks.{layer}."
        found += [Part("head", layer, k, f"{site}attn.hook_z") for k in range(subject.heads)]
        found.append(Part("MLP", layer, 0, f"{site}hook_mlp_out"))
        writes = post.flatten(0, 1).std(0) * model.blocks[layer].mlp.W_out.norm(dim=1).cpu()  # pyright: ignore
        chosen = writes.topk(min(NEURONS, len(writes))).indices.sort().values
        found += [Part("neuron", layer, k, f"{site}mlp.hook_post") for k in chosen.tolist()]
        found += [
            Part("random direction", layer, k, f"{site}mlp.hook_post") for k in range(len(chosen))
        ]
    return found


def without(
    values: Float[Tensor, "row pos ..."],
    target: Float[Tensor, "row pos ..."],
    part: Part,
    seed: int,
) -> Float[Tensor, "row pos ..."]:
    """Activations with a part replaced by what stands in its place."""
    if part.kind == "MLP":
        return target
    if part.kind == "head":
        values = values.clone()
        values[:, :, part.number] = target[:, :, part.number]
        return values
    if part.kind == "neuron":
        values = values.clone()
        values[..., part.number] = target[..., part.number]
        return values
    generator = np.random.default_rng((seed, part.layer, part.number))
    drawn = torch.from_numpy(generator.standard_normal(values.shape[-1])).to(values)
    direction = F.normalize(drawn, dim=0)
    return values + ((target - values) @ direction)[..., None] * direction


def _ablate_model(
    subject: Subject, k: int, seed: int
) -> Iterator[tuple[Part, str, Float[np.ndarray, " example"], Float[np.ndarray, " example"]]]:
    """Each part and mode, the log-probability of each whole answer, and its margin.

    The first is of nothing taken away.
    """
    model = subject.models[k]
    questions = Questions.of_tokens(subject.tokens, subject.n_ctx)
    layers = range(subject.layers)
    names = ("attn.hook_z", *(() if model.cfg.attn_only else ("hook_mlp_out", "mlp.hook_post")))
    sites = [f"blocks.{layer}.{name}" for layer in layers for name in names]
    with torch.no_grad():
        logits, cache = model.run_with_cache(questions.tokens, names_filter=sites)
    yield (Part("nothing", 0, 0, ""), "zero", *answers_in(torch.as_tensor(logits), questions))
    answers = [subject.examples[n].answer for n in questions.of_row.tolist()]
    generator = np.random.default_rng((seed, k))
    donors = {
        "resample": row_donors([""] * len(answers), questions, generator),
        "same answer": row_donors(answers, questions, generator),
    }
    length, itself = questions.lengths, torch.arange(len(questions.of_row))
    has_none = torch.zeros(len(questions.fits), dtype=torch.bool)
    has_none[questions.of_row[donors["same answer"] < 0]] = True
    posts = [cache[f"blocks.{layer}.mlp.hook_post"] for layer in layers]
    jobs = [
        (part, mode)
        for part in parts_of(subject, posts, model)
        for mode in (*MODES, "same answer")
        if mode in MODES or part.kind in ("head", "MLP")
    ]
    each = max(1, TOKENS_AT_ONCE // questions.tokens.numel())
    for site in dict.fromkeys(part.site for part, _ in jobs):
        values = cache[site]
        target = {
            "zero": torch.zeros_like(values),
            "mean": mean_by_place(values, questions.end, length),
            **{mode: values[torch.where(rows < 0, itself, rows)] for mode, rows in donors.items()},
        }
        mine = [job for job in jobs if job[0].site == site]
        for first in range(0, len(mine), each):
            some = mine[first : first + each]
            changed = torch.cat([without(values, target[mode], part, seed) for part, mode in some])
            with torch.no_grad():
                logits = model.run_with_hooks(
                    questions.tokens.repeat(len(some), 1),
                    fwd_hooks=[(site, lambda _, hook, changed=changed: changed)],
                )
            for (part, mode), rows in zip(some, logits.chunk(len(some)), strict=True):
                nats, margins = answers_in(rows, questions)
                if mode == "same answer":
                    nats[has_none] = nan
                yield part, mode, nats, margins


def answers_in(
    logits: Float[Tensor, "row pos d_vocab"], questions: Questions
) -> tuple[Float[np.ndarray, " example"], Float[np.ndarray, " example"]]:
    """Log-probability of each whole answer, and its margin."""
    asked = logits[questions.row, questions.pos].double()
    nats = -F.cross_entropy(asked, questions.target, reduction="none")
    whole = torch.zeros(len(questions.fits), dtype=nats.dtype).index_add_(
        0, questions.example, nats
    )
    return whole.numpy(), questions.margins(asked[None])[0].numpy()


def ablation_table(subject: Subject, *, tell: Tell = silent, seed: int = 0) -> pd.DataFrame:
    """What each model's answers lose when a part is taken away at every position.

    Zero: its output is 0. Mean: its mean over all examples at the same place. Resample: another
    example's, drawn at random; of heads and MLPs, `same answer` is a resample from an example with
    the same answer, asked of those that have one. Random directions are as many as neurons, drawn
    among their layer's.

    Args:
        seed: of donors and directions.
    Returns:
        a row a seed, part (`kind`, `layer`, `number`), mode and split (`seen`, `held out`): `lost`,
        nats of log-probability a whole answer; `right_before`, `kept` (those still right), `right`
        and `of`, answers; of neurons and directions `rank`, 0 for the one of its kind in its layer
        whose mean in its place costs seen answers most.
    """
    rows = []
    for k, name in enumerate(subject.seeds):
        ablated = _ablate_model(subject, k, seed)
        _, _, nats_before, margins_before = next(ablated)
        was_right = margins_before > 0
        out = subject.held_out[k]
        splits = [(n, mask) for n, mask in (("seen", ~out), ("held out", out)) if mask.any()]
        for part, mode, nats, margins in ablated:
            for split, of_split in splits:
                mask = of_split & np.isfinite(nats)
                rows.append({
                    "seed": name, **part._asdict(), "mode": mode, "split": split,
                    "lost": float((nats_before - nats)[mask].mean()) if mask.any() else nan,
                    "right_before": int(was_right[mask].sum()),
                    "kept": int((was_right & (margins > 0))[mask].sum()),
                    "right": int((margins > 0)[mask].sum()), "of": int(mask.sum()),
                })  # fmt: skip
        tell(k + 1, len(subject.seeds))
    table = pd.DataFrame(rows)
    units = table["kind"].isin(["neuron", "random direction"])
    key = ["seed", "kind", "layer", "number"]
    asked = table[units & (table["mode"] == "mean") & (table["split"] == table["split"].iloc[0])]
    rank = asked.groupby(key[:3])["lost"].rank(ascending=False, method="first").astype(int) - 1
    return table.merge(asked[key].assign(rank=rank), "left", key).astype({"rank": "Int64"})


def ablation_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Over models, each part beside its null; neurons by rank, since a number means no part.

    The null of a resampled head or MLP is the same from an example with the same answer. That of a
    neuron is the random direction of its rank, so that the choice of the first among many is in
    both.

    Args:
        table: as `ablation_table` has it.
    Returns:
        a row a part, mode and split: `lost`, nats an answer, and `flipped`, the share of right
        answers that are not right any more, each with `_low`, `_high` over models and `_null`;
        counts over models: `right_before`, `kept`, `right`, `of`.
    """
    table = table.assign(
        number=table["rank"].fillna(table["number"]),
        flipped=1 - table["kept"] / table["right_before"].where(table["right_before"] > 0),
    )
    where = ["kind", "layer", "number", "mode", "split"]
    rows = []
    for place, some in table.groupby(where, sort=False):
        row = dict(zip(where, place, strict=True))
        for name in ("lost", "flipped"):
            known = some[name].dropna().tolist()
            of = mean_over_models(known) if known else Interval(mean=nan, low=nan, high=nan)
            row |= {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}
        rows.append(row | some[["right_before", "kept", "right", "of"]].sum().to_dict())
    summary = pd.DataFrame(rows)
    direction, same = summary["kind"] == "random direction", summary["mode"] == "same answer"
    nulls = pd.concat([
        summary[direction].assign(kind="neuron"),
        summary[same].assign(mode="resample"),
    ])[[*where, "lost", "flipped"]]  # fmt: skip
    return summary[~direction & ~same].merge(nulls, "left", where, suffixes=("", "_null"))


def neuron_maps(subject: Subject) -> pd.DataFrame:
    """What each neuron's activation is at the prompt's last character, over the operands.

    Returns:
        a row a seed, layer, neuron and example: `operator`, `a`, `b`, `activation`.
    Raises:
        TbttError: if the examples are no grid of operands.
    """
    operators = subject.grid()
    chosen = [
        k for k, e in enumerate(subject.examples) if str(e.labels.get("operator")) in operators
    ]
    questions = Questions.of_tokens([subject.tokens[k] for k in chosen], subject.n_ctx).beginnings()
    labels = pd.DataFrame([
        {name: subject.examples[k].labels[name] for name in ("operator", "a", "b")} for k in chosen
    ])  # fmt: skip
    found = []
    for seed, model in zip(subject.seeds, subject.models, strict=True):
        sites = [f"blocks.{layer}.mlp.hook_post" for layer in range(subject.layers)]
        with torch.no_grad():
            cache = model.run_with_cache(questions.tokens, names_filter=sites)[1]
        for layer, site in enumerate(sites):
            at = cache[site][torch.arange(len(chosen)), questions.end]
            wide = pd.DataFrame(at.double().numpy()).join(labels)
            long = wide.melt(["operator", "a", "b"], var_name="neuron", value_name="activation")
            found.append(long.assign(seed=seed, layer=layer))
    columns = ["seed", "layer", "neuron", "operator", "a", "b", "activation"]
    return pd.concat(found, ignore_index=True)[columns].astype({"neuron": int})


def ablation_findings(summary: pd.DataFrame) -> list[Finding]:
    """The share of seen answers lost without each head and MLP, and the neuron most needed."""
    seen = summary[(summary["split"] == "seen") & summary["flipped"].notna()]
    parts = seen[(seen["kind"] != "neuron") & (seen["mode"] == "resample")]
    neurons = seen[(seen["kind"] == "neuron") & (seen["mode"] == "mean") & (seen["number"] == 0)]
    found = []
    for row in pd.concat([parts, neurons]).to_dict("records"):
        effect = Interval(mean=row["flipped"], low=row["flipped_low"], high=row["flipped_high"])
        what, null_is = f"{row['kind']} {row['layer']}.{row['number']}", "one with the same answer"
        if row["kind"] == "neuron":
            what, null_is = (
                f"layer {row['layer']}'s neuron most needed",
                "random direction, as most",
            )
        how = "held at its mean" if row["kind"] == "neuron" else "taken from another example"
        found.append(
            Finding(
                what=f"{what}, {how}, costs", effect=effect, null=row["flipped_null"],
                null_is=null_is, of="seen answers",
            )
        )  # fmt: skip
    return found


def with_ablations(
    result: Result, subject: Subject, *, tell: Tell = silent, seed: int = 0
) -> Result:
    """An analysis's result, and beside it what is lost without each part and what neurons hold."""
    table = ablation_table(subject, tell=tell, seed=seed)
    summary = ablation_summary(table)
    tables = {**result.tables, "ablations": summary, "ablations-by-seed": table}
    drawn = {**result.figures, "ablations": partial(figures.ablations, summary)}
    if subject.has_grid:
        maps = neuron_maps(subject).merge(
            table[table["kind"] == "neuron"]
            .rename(columns={"number": "neuron"})[["seed", "layer", "neuron", "rank"]]
            .drop_duplicates(),
            "left",
        )
        tables["neurons"] = maps
        drawn["neurons"] = partial(figures.neuron_maps, maps)
    return dataclasses.replace(
        result, tables=tables, figures=drawn,
        findings=[*result.findings, *ablation_findings(summary)],
    )  # fmt: skip

"""Instruments: probes and analyses as functions of models, and what they should read from a truth.

An instrument gets models and their prompts alone. It returns findings: a question, the size of the
effect, and whether the claim that a user would read is supported. What the answer should be is
another function, of the truth alone, which only the scoring calls.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from tbtt_interp.analyses import (
    ablation,
    additivity,
    attention,
    attribution,
    geometry,
    graph,
    line_order,
    memorization,
    patching,
    path_patching,
)
from tbtt_interp.analyses.logit_lens import WHOLE
from tbtt_interp.analyses.pairs import Pairs, ordered_pairs
from tbtt_interp.calibration.plants import MID, POST, UNKNOWN, Truth
from tbtt_interp.errors import TbttError
from tbtt_interp.model import Shape, hooked_transformer, initial_parameters
from tbtt_interp.probes.effects import effect_claims, erasure_table
from tbtt_interp.probes.grid import probe_claims, probe_grid
from tbtt_interp.results import Claim
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.stats import Interval, summarize

CONTROLS = 19  # draws of each null of probes and erasure: p is at least 1/20
SHUFFLES = 39  # of the operand grid: twice the least p is 0.05
PAIRS, FEW_PAIRS = 48, 24  # patched, and along paths
FEATURES = ("parity", "carry")


class Measurement(NamedTuple):
    """An answer to one question about models.

    Attributes:
        kind: what the finding is about; the table has a row for each.
        place: where, or of which feature.
        effect: its size, in the instrument's unit.
        is_found: whether the claim is supported, of an effect in the claimed direction.
    """

    kind: str
    place: str
    effect: float
    is_found: bool


class Expected(NamedTuple):
    """What a finding should be.

    Attributes:
        effect: the true size: 0 is absent, nan present and of unknown size.
        is_blind: whether the effect is there and of a kind that the instrument cannot see.
    """

    effect: float
    is_blind: bool = False


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """A probe or analysis by its name, its question, and what it should find.

    Attributes:
        read: its findings in models.
        expected: from a truth, by kind and place; questions that are not there are not scored.
        is_fast: whether it needs less than 0.2 s a draw.
    """

    name: str
    question: str
    read: Callable[[Models], list[Measurement]]
    expected: Callable[[Truth], dict[tuple[str, str], Expected]]
    is_fast: bool = False


def _finding(kind: str, place: str, claim: Claim, *, at_least: float = 0.0) -> Measurement:
    effect = claim.effect.mean
    found = claim.verdict == "supported" and effect > at_least
    return Measurement(kind, place, effect, found)


def _streams(models: Models) -> list[str]:
    """The last layer's streams after attention, where there is one, and at its end."""
    block, has_mlp = f"blocks.{models.first.cfg.n_layers - 1}", not models.first.cfg.attn_only
    return [f"{block}.hook_{stream}" for stream in ([MID] if has_mlp else []) + [POST]]


def _alone(models: Models) -> Models:
    """The models with prompts by themselves, without the files that they were trained on."""
    prompts = tuple(dataclasses.replace(of, training=None) for of in models.prompts)
    return dataclasses.replace(models, prompts=prompts)


def _at(feature: str, site: str) -> str:
    return f"{feature} at {site.rpartition('hook_')[2]}"


def read_probes(models: Models) -> list[Measurement]:
    """Each feature at the last layer's streams, by the probe grid."""
    cfg = models.first.cfg
    shape = Shape(
        layers=cfg.n_layers, heads=cfg.n_heads, d_model=cfg.d_model, d_mlp=cfg.d_mlp or 1,
        n_ctx=cfg.n_ctx, d_vocab=cfg.d_vocab, tied=False,
    )  # fmt: skip
    initial = [hooked_transformer(initial_parameters(shape, seed=k), shape) for k in models.seeds]
    table = probe_grid(models, FEATURES, sites=_streams(models), positions=[-1],
                       controls=CONTROLS, untrained=[] if cfg.attn_only else initial)  # fmt: skip
    rows = table[table["p"].notna()]
    claims = probe_claims(table)
    return [_finding("accuracy", _at(str(row["feature"]), str(row["site"])), claim)
            for row, claim in zip(rows.to_dict("records"), claims, strict=True)]  # fmt: skip


def expect_probes(truth: Truth) -> dict[tuple[str, str], Expected]:
    """Accuracies of the best linear probes."""
    return {("accuracy", _at(*at)): Expected(size) for at, size in truth.decoded.items()}


ERASURE = {"margin drop": "erasure", "logit shift": "interchange"}


def read_erasure(models: Models) -> list[Measurement]:
    """Each feature's code erased and interchanged at the last layer's streams."""
    table = erasure_table(models, FEATURES, sites=_streams(models), draws=CONTROLS)
    rows = zip(table.itertuples(), effect_claims(table), strict=True)
    return [_finding(ERASURE[str(row.measure)], _at(str(row.feature), str(row.site)), claim)
            for row, claim in rows if row.measure in ERASURE]  # fmt: skip


def expect_erasure(truth: Truth) -> dict[tuple[str, str], Expected]:
    """Codes that are used, and features that are used by no linear code."""
    found = {(kind, _at(*at)): Expected(size)
             for kind in ERASURE.values() for at, size in truth.used.items()}  # fmt: skip
    blind = {(kind, _at(*at)): Expected(UNKNOWN, is_blind=True)
             for kind in ERASURE.values() for at in truth.used_nonlinearly}  # fmt: skip
    return found | blind


def _pairs(models: Models, count: int) -> Pairs:
    return ordered_pairs(models.shared_prompts).sample(count, seed=0)


def _head(changed: str, layer: int, head: int, pos: int) -> str:
    return f"{changed} through head {layer}.{head} at {pos}"


def read_patching(models: Models) -> list[Measurement]:
    """Every head's output at the prompt's last two digits, patched by itself."""
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(models.first.cfg.n_layers)]
    table = patching.patching_table(models, _pairs(models, PAIRS), sites=sites)
    rows = table[(table["direction"] == "denoising") & (table["metric"] == patching.METRICS[0])]
    rows = rows[(rows["role"] == WHOLE) & rows["pos"].isin([-1, -2])]
    claims = patching.fraction_claims(rows, rows["site"])
    return [
        _finding("fraction restored", _head(str(row["changed"]), int(row["site"].split(".")[1]),
                                            int(row["head"]), int(row["pos"])), claim)
        for row, claim in zip(rows.to_dict("records"), claims, strict=True)
    ]  # fmt: skip


def _expect_heads(truth: Truth, kind: str) -> dict[tuple[str, str], Expected]:
    operands = {operand for operand, *_ in truth.carries}
    layers = 1 + max((layer for _, layer, _, _ in truth.carries), default=-1)
    return {
        (kind, _head(*at)): Expected(truth.carries.get(at, 0.0))
        for operand in operands for layer in range(layers) for head in range(4) for pos in (-1, -2)
        if (at := (operand, layer, head, pos))
    }  # fmt: skip


def expect_patching(truth: Truth) -> dict[tuple[str, str], Expected]:
    """The share that each head carries, and 0 of the others."""
    return _expect_heads(truth, "fraction restored")


def read_paths(models: Models) -> list[Measurement]:
    """Each head's value path from the embeddings to the logits, past the MLP; in one layer."""
    cfg = models.first.cfg
    if cfg.attn_only or cfg.n_layers > 1:
        return []
    pairs = _pairs(models, FEW_PAIRS)
    table = path_patching.paths_table(
        models, pairs, over_seeds(models, path_patching.path_effects, pairs, n_random=0)
    )
    rows = table[table["name"].str.match(rf"{graph.EMBED} → v \S+ → {graph.LOGITS}$")]
    claims = patching.fraction_claims(rows, rows["name"])
    return [
        _finding("value path", f"{row.changed} through head {str(row.path).split()[3]}", claim)
        for row, claim in zip(rows.rename(columns={"name": "path"}).itertuples(), claims,
                              strict=True)
    ]  # fmt: skip


def expect_paths(truth: Truth) -> dict[tuple[str, str], Expected]:
    """The heads that write the answer themselves."""
    if truth.written.get("MLP", 1.0) > 0:
        return {}
    of_heads = _expect_heads(truth, "value path")
    return {(kind, place.removesuffix(" at -1")): x
            for (kind, place), x in of_heads.items() if place.endswith("at -1")}  # fmt: skip


def read_ablation(models: Models) -> list[Measurement]:
    """Every head, its output resampled from another prompt."""
    table = ablation.ablation_summary(over_seeds(models, ablation.ablation_table))
    rows = table[(table["kind"] == "head") & (table["mode"] == "resample")].assign(kind="head")
    claims = [ablation.ablation_claims(rows.iloc[k : k + 1]) for k in range(len(rows))]
    return [_finding("accuracy drop", f"head {row.layer}.{row.number}", claim[0])
            for row, claim in zip(rows.itertuples(), claims, strict=True) if claim]  # fmt: skip


def expect_ablation(truth: Truth) -> dict[tuple[str, str], Expected]:
    """Heads that carry most of an operand cost answers, and heads that carry nothing none.

    The null resamples from an example with the same answer. Where a head carries one of two
    operands, such an example has another operand there, so that the null is as large.
    """
    heads: dict[tuple[int, int], float] = {}
    for (_, layer, head, _), share in truth.carries.items():
        heads[layer, head] = max(heads.get((layer, head), 0.0), share)
    layers, both = {layer for layer, _ in heads}, len({at[0] for at in truth.carries}) > 1
    return {
        ("accuracy drop", f"head {layer}.{head}"): (
            Expected(UNKNOWN, is_blind=both) if share else Expected(0.0))
        for layer in layers for head in range(4)
        if (share := heads.get((layer, head), 0.0)) == 0 or share > 0.6
    } if truth.answered == 1 else {}  # fmt: skip


def read_attention(models: Models) -> list[Measurement]:
    """Every head's attention from "=" to b, knocked out."""
    drops = over_seeds(_alone(models), attention.knockouts_by_role)
    table = attention.summarize_drops(drops, attention.BY)
    rows = table[(table["query"] == "=") & (table["key"] == "b")]
    return [
        _finding("knockout of b", f"head {row['layer']}.{row['head']}", Claim(
            text="", effect=Interval.of_row(row, "accuracy_drop"), unit="",
            null=row["accuracy_drop_random"], null_name="",
        ))
        for row in rows.to_dict("records")
    ]  # fmt: skip


def expect_attention(truth: Truth) -> dict[tuple[str, str], Expected]:
    """Heads that carry most of b, and heads that carry nothing."""
    of_b = Truth(carries={at: x for at, x in truth.carries.items() if at[0] == "b"},
                 answered=truth.answered)  # fmt: skip
    return {("knockout of b", place): x for (_, place), x in expect_ablation(of_b).items()}


def read_attribution(models: Models) -> list[Measurement]:
    """What attention to b and the MLP write of the logit difference."""
    summary, _ = attribution.attribution_tables(models)
    claims = attribution.attribution_claims(summary)
    names = {"attention from b": "attention from b", "MLP": "MLP"}
    return [
        _finding("logit difference", name, claim)
        for claim in claims for end, name in names.items()
        if claim.text == f"layer 0 {end} writes"
    ]  # fmt: skip


def expect_attribution(truth: Truth) -> dict[tuple[str, str], Expected]:
    """Shares of the logit difference."""
    return {("logit difference", name): Expected(x) for name, x in truth.written.items()}


def read_geometry(models: Models) -> list[Measurement]:
    """How much of a's representation after attention is a number line."""
    table = geometry.geometry_table(models, dimensions=models.first.cfg.d_model)
    rows = table[(table["measure"] == "number line") & (table["operand"] == "a")]
    rows = rows[rows["site"].str.endswith(f"hook_{MID}")]
    return [_finding("number line", "a", claim) for claim in geometry.geometry_claims(rows)]


def expect_geometry(truth: Truth) -> dict[tuple[str, str], Expected]:
    """The share that is a line; one-hot operands are no line."""
    known = truth.number_line is not None
    return {("number line", "a"): Expected(truth.number_line)} if known else {}  # pyright: ignore


def read_additivity(models: Models) -> list[Measurement]:
    """How much of the last layer's streams and of the logits is f(a) + g(b)."""
    sites = [site for site in _streams(models) if site.endswith(MID)] + [additivity.LOGITS]
    table = over_seeds(models, additivity.variance_shares, sites=sites, n_shuffles=SHUFFLES)
    table = additivity.share_summary(table.assign(untrained=math.nan))
    rows = table[table["effect"] == "interaction"]
    return [
        Measurement("f(a) + g(b)", str(row["site"]).rpartition("hook_")[2], 1 - claim.effect.mean,
                claim.verdict == "supported" and claim.effect.mean < claim.null)
        for row, claim in zip(rows.to_dict("records"), additivity.interaction_claims(table),
                              strict=True)
    ]  # fmt: skip


def expect_additivity(truth: Truth) -> dict[tuple[str, str], Expected]:
    """Whether an activation is a rule, f(a) + g(b), or a table."""
    return {("f(a) + g(b)", site): Expected(x) for site, x in truth.additive.items()}


def read_memorization(models: Models) -> list[Measurement]:
    """The share of the bits of seen answers that is stored."""
    claims = memorization.stored_bits_claims(over_seeds(_alone(models), memorization.stored_bits))
    return [_finding("bits of answers", "seen", claims[0])]


def expect_memorization(truth: Truth) -> dict[tuple[str, str], Expected]:
    """Whether every answer is known, or none."""
    if truth.answered not in (0.0, 1.0):
        return {}
    return {("bits of answers", "seen"): Expected(truth.answered)}


def read_order(models: Models) -> list[Measurement]:
    """How often the next line's first operand is predicted in the model's own file."""
    tables = []
    for other in (False, True):
        table = over_seeds(models, line_order.bits_by_character, other_order=other)
        table = table[table["label"] == "a"]
        tables.append((table["rank"] == 0).groupby(table["seed"]).mean())
        largest = table.groupby(["seed", "character"]).size().groupby("seed").max()
    counts = pd.DataFrame({"accuracy": tables[0], "other_order": tables[1],
                           "majority": largest / 99, "label": "a"})  # fmt: skip
    means = summarize(counts.reset_index(), ["label"], ["accuracy", "other_order", "majority"])
    row = means.to_dict("records")[0]
    claim = Claim(text="", effect=Interval.of_row(row, "accuracy"), unit="",
                  null=max(row["other_order"], row["majority"]), null_name="")  # fmt: skip
    return [_finding("next line", "first operand", claim)]


def expect_order(truth: Truth) -> dict[tuple[str, str], Expected]:
    """The share of lines whose successor is known."""
    known = truth.order is not None
    return {("next line", "first operand"): Expected(truth.order)} if known else {}  # pyright: ignore


INSTRUMENTS: Mapping[str, Instrument] = {
    name: Instrument(name=name, question=question, read=read, expected=expected, is_fast=fast)
    for name, question, read, expected, fast in (
        ("probe grid", "Is the feature decoded beyond every null?",
         read_probes, expect_probes, False),
        ("erasure and interchange", "Does the answer depend on the feature's linear code?",
         read_erasure, expect_erasure, False),
        ("patching", "Which head carries the operand to the answer?",
         read_patching, expect_patching, False),
        ("paths", "Which head's values reach the answer directly?",
         read_paths, expect_paths, False),
        ("ablation", "Which head do answers need?", read_ablation, expect_ablation, False),
        ("attention knockout", "Which head's attention to b do answers need?",
         read_attention, expect_attention, False),
        ("attribution", "Which part writes the answer?",
         read_attribution, expect_attribution, True),
        ("geometry", "Are operands on a number line?", read_geometry, expect_geometry, False),
        ("additivity", "A rule or a table?", read_additivity, expect_additivity, True),
        ("memorization", "Are the answers stored?",
         read_memorization, expect_memorization, True),
        ("order", "Is the order of lines known?", read_order, expect_order, False),
    )
}  # fmt: skip


def scored(instrument: Instrument, models: Models, truth: Truth) -> Iterable[dict[str, object]]:
    """An instrument's findings beside what they should be; questions without a truth left out.

    An effect that an instrument could have found, and has no row for, was not found.
    """
    found: list[Measurement] = []
    with contextlib.suppress(TbttError):  # it does not apply to these models, and says so
        found = instrument.read(models)
    expected = instrument.expected(truth)
    for finding in found:
        if (should := expected.get((finding.kind, finding.place))) is not None:
            yield {"instrument": instrument.name, **finding._asdict(), **should._asdict(),
                   "effect": finding.effect, "true": should.effect}  # fmt: skip
    known = {(finding.kind, finding.place) for finding in found}
    for (kind, place), should in expected.items():
        if found and should.effect != 0 and (kind, place) not in known:
            missed = Measurement(kind, place, UNKNOWN, is_found=False)
            yield {"instrument": instrument.name, **missed._asdict(), "true": should.effect,
                   "is_blind": should.is_blind}  # fmt: skip

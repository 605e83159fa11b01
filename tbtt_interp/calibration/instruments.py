"""Instruments: probes and analyses as functions of models, and what they should read from a truth.

An instrument gets models and their prompts alone. It returns findings: a question, the size of the
effect with its interval, and whether the claim that a user would read is supported. What the answer
should be is another function, of the truth alone, which only the scoring calls.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
from tbtt_interp.calibration.truth import MID, POST, UNKNOWN, Truth
from tbtt_interp.model import Shape, hooked_transformer, initial_parameters
from tbtt_interp.probes.effects import effect_claims, erasure_table
from tbtt_interp.probes.grid import probe_claims, probe_grid
from tbtt_interp.results import Claim
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.shares import summarize_shares

CONTROLS = 19  # draws of each null of probes and erasure: p is at least 1/20
SHUFFLES = 39  # of the operand grid: twice the least p is 0.05
PAIRS, FEW_PAIRS = 48, 24  # patched, and along paths
FEATURES = ("parity", "carry")
HEADS = range(4)
Question = tuple[str, str]  # the kind of finding, and the place or feature that it is about


class Measurement(NamedTuple):
    """An answer to one question about models.

    Attributes:
        kind: what the finding is about; the table has a row for each.
        place: where, or of which feature.
        effect, low, high: its size with its interval over models, in the instrument's unit.
        is_found: whether the claim is supported, of an effect above 0.
    """

    kind: str
    place: str
    effect: float
    low: float = math.nan
    high: float = math.nan
    is_found: bool = False

    @classmethod
    def of(cls, kind: str, place: str, claim: Claim) -> "Measurement":
        """What a claim says of the size of an effect, found where it is supported and above 0."""
        effect = claim.effect
        found = claim.verdict == "supported" and effect.mean > 0
        return cls(kind, place, effect.mean, effect.low, effect.high, found)


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
        unfit: plants that it cannot be applied to, and why. Any error in another is a failure.
        is_fast: whether it needs less than 0.2 s a draw.
    """

    name: str
    question: str
    read: Callable[[Models], Iterable[Measurement]]
    expected: Callable[[Truth], dict[Question, Expected]]
    unfit: Mapping[str, str] = field(default_factory=dict)
    is_fast: bool = False


def _findings(kind: str, places: Iterable[str], claims: Iterable[Claim]) -> Iterator[Measurement]:
    for place, claim in zip(places, claims, strict=True):
        yield Measurement.of(kind, place, claim)


def _streams(models: Models) -> list[str]:
    """The last layer's streams after attention, where there is one, and at its end."""
    block, has_mlp = f"blocks.{models.first.cfg.n_layers - 1}", not models.first.cfg.attn_only
    return [f"{block}.hook_{stream}" for stream in ([MID] if has_mlp else []) + [POST]]


def _alone(models: Models) -> Models:
    """The models with prompts by themselves, without the files that they were trained on."""
    prompts = tuple(dataclasses.replace(of, training=None) for of in models.prompts)
    return dataclasses.replace(models, prompts=prompts)


def _at(feature: object, site: object) -> str:
    return f"{feature} at {str(site).rpartition('hook_')[2]}"


def _probes(models: Models) -> Iterator[Measurement]:
    cfg = models.first.cfg
    shape = Shape(
        layers=cfg.n_layers, heads=cfg.n_heads, d_model=cfg.d_model, d_mlp=cfg.d_mlp or 1,
        n_ctx=cfg.n_ctx, d_vocab=cfg.d_vocab, tied=False,
    )  # fmt: skip
    initial = [hooked_transformer(initial_parameters(shape, seed=k), shape) for k in models.seeds]
    table = probe_grid(models, FEATURES, sites=_streams(models), positions=[-1],
                       controls=CONTROLS, untrained=[] if cfg.attn_only else initial)  # fmt: skip
    rows = table[table["p"].notna()]
    return _findings("accuracy", map(_at, rows["feature"], rows["site"]), probe_claims(table))


def _expect_probes(truth: Truth) -> dict[Question, Expected]:
    return {("accuracy", _at(*at)): Expected(size) for at, size in truth.decoded.items()}


ERASURE = {"margin drop": "erasure", "logit shift": "interchange"}


def _erasure(models: Models) -> Iterator[Measurement]:
    table = erasure_table(models, FEATURES, sites=_streams(models), draws=CONTROLS)
    for measure, kind in ERASURE.items():
        rows = table[table["measure"] == measure]
        yield from _findings(kind, map(_at, rows["feature"], rows["site"]), effect_claims(rows))


def _expect_erasure(truth: Truth) -> dict[Question, Expected]:
    linear = {at: Expected(size) for at, size in truth.used.items()}
    blind = {at: Expected(UNKNOWN, is_blind=True) for at in truth.used_nonlinearly}
    return {(kind, _at(*at)): x for kind in ERASURE.values() for at, x in (linear | blind).items()}


def _pairs(models: Models, count: int) -> Pairs:
    return ordered_pairs(models.shared_prompts).sample(count, seed=0)


def _head(changed: object, layer: object, head: object, pos: object) -> str:
    return f"{changed} through head {layer}.{head} at {pos}"


def _patching(models: Models) -> Iterator[Measurement]:
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(models.first.cfg.n_layers)]
    table = patching.patching_table(models, _pairs(models, PAIRS), sites=sites, positions=[-1, -2],
                                    directions=["denoising"])  # fmt: skip
    rows = table[(table["metric"] == patching.METRICS[0]) & (table["role"] == WHOLE)]
    layers, heads = rows["site"].str.split(".").str[1], rows["head"].astype(int)
    places = map(_head, rows["changed"], layers, heads, rows["pos"].astype(int))
    return _findings("fraction restored", places, patching.fraction_claims(rows, rows["site"]))


def _expect_patching(truth: Truth) -> dict[Question, Expected]:
    """The share that each head carries, and 0 of the others."""
    layers = 1 + max((layer for _, layer, _, _ in truth.carries), default=-1)
    places = ((operand, layer, head, pos) for operand in {at[0] for at in truth.carries}
              for layer in range(layers) for head in HEADS for pos in (-1, -2))  # fmt: skip
    return {("fraction restored", _head(*at)): Expected(truth.carries.get(at, 0.0))
            for at in places}  # fmt: skip


def _paths(models: Models) -> Iterator[Measurement]:
    pairs = _pairs(models, FEW_PAIRS)
    heads = [name for name in graph.ends_of(models.first)[1] if name.startswith("v")]
    paths = [(head,) for head in heads]
    effects = over_seeds(models, path_patching.exact_effects, pairs, [], paths)
    for changed, columns in path_patching.fractions_by_change(pairs, effects).items():
        places = [f"{changed} through head {name.removeprefix('v ')}" for name in heads]
        claims = patching.fraction_claims(pd.DataFrame(columns), places)
        yield from _findings("value path", places, claims)


def _expect_paths(truth: Truth) -> dict[Question, Expected]:
    """The heads that write the answer themselves."""
    if not truth.written or truth.written.get("MLP", 0.0) > 0:
        return {}
    heads = _expect_patching(truth).items()
    return {("value path", place.removesuffix(" at -1")): x
            for (_, place), x in heads if place.endswith("at -1")}  # fmt: skip


def _ablation(models: Models) -> Iterator[Measurement]:
    table = ablation.ablation_summary(over_seeds(models, ablation.ablation_table, kinds=["head"]))
    rows = table[(table["kind"] == "head") & (table["mode"] == "resample")]
    for row in rows.itertuples():
        claims = ablation.ablation_claims(rows[rows.index == row.Index])
        places = [f"head {row.layer}.{row.number}"] * len(claims)
        yield from _findings("accuracy drop", places, claims)


def _expect_ablation(truth: Truth) -> dict[Question, Expected]:
    """Heads that carry most of an operand cost answers, and heads that carry nothing none.

    The null resamples from an example with the same answer. Where a head carries one of two
    operands, such an example has another operand there, so that the null is as large.
    """
    if truth.answered != 1:
        return {}
    shares = {(layer, head): 0.0 for _, layer, _, _ in truth.carries for head in HEADS}
    for (_, layer, head, _), share in truth.carries.items():
        shares[layer, head] = max(shares[layer, head], share)
    both = len({operand for operand, *_ in truth.carries}) > 1
    return {("accuracy drop", f"head {layer}.{head}"):
            Expected(UNKNOWN, is_blind=both) if share else Expected(0.0)
            for (layer, head), share in shares.items() if share == 0 or share > 0.6}  # fmt: skip


def _attention(models: Models) -> Iterator[Measurement]:
    drops = over_seeds(_alone(models), attention.knockouts_by_role)
    table = attention.summarize_drops(drops, attention.BY)
    rows = table[(table["query"] == "=") & (table["key"] == "b")].to_dict("records")
    places = [f"head {row['layer']}.{row['head']}" for row in rows]
    claims = [Claim.of_row(row, "accuracy_drop", {"accuracy_drop_random": "random keys"},
                           text="", unit="") for row in rows]  # fmt: skip
    return _findings("knockout of b", places, claims)


def _expect_attention(truth: Truth) -> dict[Question, Expected]:
    """Heads that carry most of b, and heads that carry nothing."""
    of_b = {at: x for at, x in truth.carries.items() if at[0] == "b"}
    heads = _expect_ablation(dataclasses.replace(truth, carries=of_b))
    return {("knockout of b", place): x for (_, place), x in heads.items()}


def _attribution(models: Models) -> Iterator[Measurement]:
    claims = attribution.attribution_claims(attribution.attribution_tables(models)[0])
    by_text = {claim.text: claim for claim in claims}
    for place in ("attention from b", "MLP"):
        if claim := by_text.get(f"layer 0 {place} writes"):
            yield from _findings("logit difference", [place], [claim])


def _expect_attribution(truth: Truth) -> dict[Question, Expected]:
    return {("logit difference", name): Expected(x) for name, x in truth.written.items()}


def _geometry(models: Models) -> Iterator[Measurement]:
    table = geometry.geometry_table(models, dimensions=models.first.cfg.d_model)
    rows = table[(table["measure"] == "number line") & (table["operand"] == "a")]
    rows = rows[rows["site"].str.endswith(f"hook_{MID}")]
    claims = geometry.geometry_claims(rows)
    return _findings("number line", ["a"] * len(claims), claims)


def _expect_geometry(truth: Truth) -> dict[Question, Expected]:
    share = truth.number_line
    return {} if share is None else {("number line", "a"): Expected(share)}


def _additivity(models: Models) -> Iterator[Measurement]:
    sites = [site for site in _streams(models) if site.endswith(MID)] + [additivity.LOGITS]
    table = over_seeds(models, additivity.variance_shares, sites=sites, n_shuffles=SHUFFLES)
    table = additivity.share_summary(table.assign(untrained=math.nan))
    rows = table[table["effect"] == "interaction"]
    claims = additivity.interaction_claims(table)
    for site, claim in zip(rows["site"], claims, strict=True):
        share = claim.effect  # of the interaction; the finding is of the rest
        yield Measurement(
            "f(a) + g(b)", str(site).rpartition("hook_")[2], 1 - share.mean, 1 - share.high,
            1 - share.low, claim.verdict == "supported" and share.mean < claim.null,
        )  # fmt: skip


def _expect_additivity(truth: Truth) -> dict[Question, Expected]:
    return {("f(a) + g(b)", site): Expected(x) for site, x in truth.additive.items()}


def _memorization(models: Models) -> Iterator[Measurement]:
    table = over_seeds(_alone(models), memorization.stored_bits)
    return _findings("bits of answers", ["seen"], memorization.stored_bits_claims(table)[:1])


def _expect_memorization(truth: Truth) -> dict[Question, Expected]:
    """Whether every answer is known, or none."""
    known = truth.answered
    return {("bits of answers", "seen"): Expected(known)} if known in (0.0, 1.0) else {}


def _order(models: Models) -> Iterator[Measurement]:
    characters = line_order.characters_table(models)
    following = line_order.next_line_accuracy(characters)
    of_a = following[following["label"] == "a"]
    of_a = summarize_shares(of_a, ["label"], line_order.NEXT, of="n_lines")
    claims = line_order.order_claims(line_order.bits_by_line(characters), of_a)
    return _findings("next line", ["first operand"], claims[-1:])


def _expect_order(truth: Truth) -> dict[Question, Expected]:
    share = truth.order
    return {} if share is None else {("next line", "first operand"): Expected(share)}


INSTRUMENTS: dict[str, Instrument] = {one.name: one for one in (
    Instrument(name="probe grid", question="Is the feature decoded beyond every null?",
               read=_probes, expected=_expect_probes),
    Instrument(name="erasure and interchange", read=_erasure, expected=_expect_erasure,
               question="Does the answer depend on the feature's linear code?"),
    Instrument(name="patching", question="Which head carries the operand to the answer?",
               read=_patching, expected=_expect_patching),
    Instrument(name="paths", question="Which head's values reach the answer directly?",
               read=_paths, expected=_expect_paths,
               unfit={"attention only": "paths go through MLPs, and these models have none"}),
    Instrument(name="ablation", question="Which head do answers need?",
               read=_ablation, expected=_expect_ablation),
    Instrument(name="attention knockout", question="Which head's attention to b do answers need?",
               read=_attention, expected=_expect_attention),
    Instrument(name="attribution", question="Which part writes the answer's logit?",
               read=_attribution, expected=_expect_attribution, is_fast=True),
    Instrument(name="geometry", question="Are operands on a number line?",
               read=_geometry, expected=_expect_geometry),
    Instrument(name="additivity", question="A rule or a table?",
               read=_additivity, expected=_expect_additivity, is_fast=True),
    Instrument(name="memorization", question="Are the answers stored?",
               read=_memorization, expected=_expect_memorization, is_fast=True),
    Instrument(name="order", question="Is the order of lines known?",
               read=_order, expected=_expect_order),
)}  # fmt: skip


def scored(instrument: Instrument, models: Models, truth: Truth) -> Iterator[dict[str, object]]:
    """An instrument's findings beside what they should be; questions without a truth left out.

    An effect that an instrument could have found, and has no row for, was not found.
    """
    expected = instrument.expected(truth)
    found = {(one.kind, one.place): one for one in instrument.read(models)}
    for question, (true, is_blind) in expected.items():
        if question in found or true != 0:
            one = found.get(question, Measurement(*question, UNKNOWN))
            yield {"instrument": instrument.name, **one._asdict(), "true": true,
                   "is_blind": is_blind}  # fmt: skip

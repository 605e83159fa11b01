"""Further instruments: streams, a rule's directions, heads, preceding lines and latent answers."""

from collections.abc import Iterator

from tbtt_interp.analyses.heads import BY, SCORES, head_claims, head_scores
from tbtt_interp.analyses.logit_lens import METRICS, WHOLE, lens_claims, logit_lens
from tbtt_interp.analyses.preceding_line import (
    accuracy_by_split,
    answer_claims,
    answers_after_lines,
    patch_claims,
    patch_preceding_line,
    summarize_patches,
)
from tbtt_interp.analyses.restricted_loss import restricted_loss, restricted_loss_claims
from tbtt_interp.calibration.instruments import (
    CONTROLS,
    INSTRUMENTS,
    Expected,
    Instrument,
    Measurement,
    Question,
)
from tbtt_interp.calibration.truth import MID, POST, UNKNOWN, Truth
from tbtt_interp.probes.effects import effect_claims, latent_answers
from tbtt_interp.seeds import Models, over_seeds, summarize_over_seeds


def _lens(models: Models) -> Iterator[Measurement]:
    table = logit_lens(models)
    rows = table[(table["role"] == WHOLE) & (table["metric"] == METRICS[0])]
    for stream, claim in zip(rows["stream"], lens_claims(table), strict=False):  # not of the last
        yield Measurement.of("accuracy", stream.replace("blocks.", "").replace("hook_", ""), claim)


def _expect_lens(truth: Truth) -> dict[Question, Expected]:
    return {("accuracy", stream): Expected(share) for stream, share in truth.lens.items()}


def _restricted(models: Models) -> Iterator[Measurement]:
    table = over_seeds(models, restricted_loss)
    known = table[table["fraction"].notna()]["change"].unique()
    for change, claim in zip(known, restricted_loss_claims(table), strict=True):
        yield Measurement.of(f"{change} loss", "operands", claim)


def _expect_restricted(truth: Truth) -> dict[Question, Expected]:
    """A rule's two directions; of an operand in one-hot, which has nine, two; of a table, none.

    A table reads the operands, too, so that leaving directions of theirs out costs its answers.
    """
    rule = dict(truth.rule)
    if truth.additive.get("logits") == 0:
        rule = {"restricted": 0.0, "excluded": UNKNOWN}
    elif truth.written.get("attention from b") == 1 and "MLP" in truth.written:
        rule = {"restricted": UNKNOWN, "excluded": UNKNOWN}
    return {(f"{change} loss", "operands"): Expected(size) for change, size in rule.items()}


def _kinds(models: Models) -> Iterator[Measurement]:
    table = summarize_over_seeds(models, head_scores, by=BY, values=SCORES[:2], knockouts=False)[1]
    rows = table[table["uniform"].notna()]
    best = rows.loc[rows.groupby("kind", sort=False)["score"].idxmax()].to_dict("records")
    for row, claim in zip(best, head_claims(table), strict=True):
        place = f"{row['kind']} in head {row['layer']}.{row['head']}"
        yield Measurement.of("attention", place, claim)


def _expect_kinds(truth: Truth) -> dict[Question, Expected]:
    return {("attention", f"{kind} in head {layer}.{head}"): Expected(share)
            for (kind, layer, head), share in truth.attends.items()}  # fmt: skip


def _preceding(models: Models) -> Iterator[Measurement]:
    shares = accuracy_by_split(over_seeds(models, answers_after_lines))
    kinds = "right after own line", "change of line changes it"
    for kind, claim in zip(kinds, answer_claims(shares), strict=True):
        yield Measurement.of(kind, "seen", claim)


def _expect_preceding(truth: Truth) -> dict[Question, Expected]:
    if truth.preceding is None:
        return {}
    changes = UNKNOWN if truth.preceding else 0.0
    return {("right after own line", "seen"): Expected(truth.preceding),
            ("change of line changes it", "seen"): Expected(changes)}  # fmt: skip


def _line_patches(models: Models) -> Iterator[Measurement]:
    site = f"blocks.{models.first.cfg.n_layers - 1}.hook_mlp_out"
    patches = over_seeds(models, patch_preceding_line, sites=[site])
    summary = summarize_patches(patches, models)
    known = summary[summary["pos"].notna()].sort_values("fraction_restored")
    for claim in patch_claims(summary):
        yield Measurement.of("fraction restored", f"MLP at {known['position'].iloc[-1]}", claim)


def _expect_line_patches(truth: Truth) -> dict[Question, Expected]:
    """The MLP at the prompt's end, where the table is read; without an effect no claim is made."""
    return {("fraction restored", "MLP at ="): Expected(1.0)} if truth.preceding else {}


def _latent(models: Models) -> Iterator[Measurement]:
    last = f"blocks.{models.first.cfg.n_layers - 1}.hook_"
    table = latent_answers(models, ["answer"], sites=[last + MID, last + POST], draws=CONTROLS)
    for row, claim in zip(table.to_dict("records"), effect_claims(table), strict=True):
        stream = str(row["site"]).removeprefix(last)
        yield Measurement.of(str(row["measure"]), f"answer at {stream}", claim)


def _expect_latent(truth: Truth) -> dict[Question, Expected]:
    return {(measure, f"answer at {stream}"): Expected(share)
            for (measure, stream), share in truth.latent.items()}  # fmt: skip


INSTRUMENTS |= {one.name: one for one in (
    Instrument(name="logit lens", question="Which stream holds the answer as it is read?",
               read=_lens, expected=_expect_lens, is_fast=True),
    Instrument(name="restricted loss", read=_restricted, expected=_expect_restricted,
               question="Do answers follow from the operands' main directions?"),
    Instrument(name="kinds of heads", question="Which head is of a known kind?",
               read=_kinds, expected=_expect_kinds),
    Instrument(name="preceding line", read=_preceding, expected=_expect_preceding,
               question="Do answers depend on the line before?"),
    Instrument(name="patching of the preceding line", read=_line_patches,
               expected=_expect_line_patches,
               question="Which activation carries what the line before changes?"),
    Instrument(name="latent answers", read=_latent, expected=_expect_latent,
               question="Is the right answer there where another one is given?"),
)}  # fmt: skip

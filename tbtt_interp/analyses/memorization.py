"""Memorization, metered: bits stored, directions used, loss without the rule, pair upon pair.

No meter is of memorization alone. Bits of answers may come of a rule, which the held-out ones show;
the learning coefficient counts what is used for either; what a rule's directions do not carry need
not be a table. Together, over sizes and framings, they tell more than each.
"""

from collections.abc import Callable

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.analyses.findings import Finding, Result, Tell, silent
from tbtt_interp.analyses.influence import (
    held_of,
    influence_findings,
    influence_notes,
    influence_table,
    relation_table,
)
from tbtt_interp.analyses.influence_halves import agreement_table, half_table
from tbtt_interp.analyses.learning_coefficient import (
    learning_coefficient_notes,
    learning_coefficient_table,
)
from tbtt_interp.analyses.parts import Parts
from tbtt_interp.analyses.restricted_loss import (
    has_equations,
    restricted_loss_findings,
    restricted_loss_table,
)
from tbtt_interp.analyses.stored_bits import (
    ALL,
    CAPACITY,
    HELD_OUT,
    KNOWLEDGE,
    ORDER,
    SEEN,
    stored_bits_findings,
    stored_bits_table,
    trained_parameters,
)
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.runs import Run

FEW = 8  # models that the slow meters are asked of, where there are more
MANY_PARAMETERS = 1_000_000  # beyond these, sampling weights takes hours
LITERATURE = {
    "bits a parameter": f"{KNOWLEDGE:g} [1], {CAPACITY:g} [2]",
    "coefficient": "≤ null [3]",
    "excluded": "0 to 1 [4]",
}
SOURCES = (
    "Literature: [1] of knowledge, Allen-Zhu and Li 2024, arXiv 2404.05405; [2] of random text, "
    "Morris et al. 2025, arXiv 2505.24832; [3] half the parameters at most, Watanabe 2009; Lau et "
    "al. 2023, arXiv 2308.12108; [4] low while a network memorizes, higher as its rule forms, "
    "Nanda et al. 2023, arXiv 2301.05217."
)
NOTES = (
    "Bits: that answers take less to write than for one who knows how often each occurs; of the "
    "order of the lines at least so many are held, and below 0 none are shown. A parameter's bits "
    "are of seen answers and order.",
    "Restricted, excluded: with the operands' main directions alone, and without them; the share "
    "saved, or lost, of what erasing all of the activation costs seen answers.",
)


def memorization_table(
    bits: pd.DataFrame, coefficients: pd.DataFrame, losses: pd.DataFrame
) -> pd.DataFrame:
    """Every model's reading on every meter: a row a seed and meter.

    Args:
        bits, coefficients, losses: as `stored_bits_table`, `learning_coefficient_table` and
            `restricted_loss_table` have them; empty where a meter was not asked.
    Returns:
        seed, `meter`, `value`, `most` (all there could be, or the literature's figure), `null` (of
        these on the value's scale), and `literature`.
    """
    rows: list[dict[str, object]] = []
    for row in bits.to_dict("records"):
        if row["kind"] in (SEEN, HELD_OUT, ORDER):
            rows.append(
                {"meter": row["kind"], "value": row["bits"], "most": row["most"], "null": 0}
            )
        elif row["kind"] == ALL:
            rows.append({"meter": "bits a parameter", "value": row["per_parameter"],
                         "most": KNOWLEDGE, "null": 0})  # fmt: skip
        rows[-1]["seed"] = row["seed"]
    for row in coefficients.to_dict("records"):
        half = row["half_parameters"]
        rows.append({"seed": row["seed"], "meter": "coefficient", "value": row["coefficient"],
                     "most": half, "null": half})  # fmt: skip
    for row in losses.to_dict("records"):
        if row["split"] == "seen":
            rows.append({"seed": row["seed"], "meter": row["change"], "value": row["share"],
                         "most": 1, "null": row["random_share"]})  # fmt: skip
    table = pd.DataFrame(rows)[["seed", "meter", "value", "most", "null"]]
    return table.assign(literature=table["meter"].map(LITERATURE).fillna(""))


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """A row a model, of some, and under them the mean, the null's and the literature's figure."""
    meters = [str(meter) for meter in dict.fromkeys(table["meter"])]
    values = table.pivot(index="seed", columns="meter", values="value")[meters]
    rows = {str(seed): row for seed, row in values.head(FEW).iterrows()}
    rows |= {"mean": values.mean(), "null": table.groupby("meter")["null"].mean()}
    digits = {"bits a parameter": 3, "restricted": 2, "excluded": 2}
    words = {
        name: ["" if pd.isna(row[m]) else f"{row[m]:,.{digits.get(m, 0)}f}" for m in meters]
        for name, row in rows.items()
    }
    words["literature"] = [LITERATURE.get(meter, "") for meter in meters]
    return pd.DataFrame(words, index=meters).T.rename_axis("seed").reset_index()


def analyse_memorization(
    subject: Subject | Run,
    *,
    site: str | None = None,
    steps: int | None = None,
    sample: bool = True,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Result:
    """Every meter that can be asked of these models; what cannot be is said.

    Args:
        site: where the rule's directions are looked for; None is the last layer's
            `hook_resid_mid`.
        steps: of the sampling that the learning coefficient takes; None is its own number.
        sample: whether there is any, which takes most of the time.
        parts: where what is finished is kept.
        seed: of sampling, of random directions, and of halves.
    """
    subject = Subject.of(subject)
    few, parts = subject.take(FEW), parts or Parts()
    notes: list[str] = []
    tables: dict[str, pd.DataFrame] = {}
    findings: list[Finding] = []
    drawn: dict[str, Callable] = {}

    def part(number: int) -> Tell:
        return lambda done, of: tell(number * of + done, 3 * of)

    bits = tables["stored-bits"] = stored_bits_table(subject)
    findings += stored_bits_findings(bits)
    coefficients = losses = pd.DataFrame()
    if not sample:
        notes.append("No learning coefficient: its sampling was left out.")
    elif subject.run is None or trained_parameters(few.models[0]) > MANY_PARAMETERS:
        notes.append(
            "No learning coefficient: it takes a run's training windows, and no more than a "
            "million parameters."
        )
    else:
        coefficients, chains = learning_coefficient_table(
            few, steps=steps, parts=parts, tell=part(0), seed=seed
        )
        tables |= {"learning-coefficient": coefficients, "chains": chains}
        drawn["chains"] = lambda: figures.coefficient_chains(chains)
        notes += learning_coefficient_notes(coefficients)
    if has_equations(subject):
        losses = restricted_loss_table(few, site=site, parts=parts, tell=part(1), seed=seed)
        tables["restricted-loss"] = losses
        drawn["restricted-loss"] = lambda: figures.restricted_loss(losses)
        findings += restricted_loss_findings(losses)
    else:
        notes.append("No restricted or excluded loss: there are no equations, so no known rule.")
    if bool((subject.held_out != subject.held_out[0]).any()):
        held = held_of(subject, parts=parts, tell=part(2))
        table, agreement = influence_table(held), agreement_table(held, seed=seed)
        relations, sides = relation_table(held, seed=seed), half_table(held, seed=seed)
        tables |= {"influence": table, "agreement": agreement, "relations": relations,
                   "halves": sides}  # fmt: skip
        drawn["influence"] = lambda: figures.influence(table, sides, relations)
        findings += influence_findings(table, agreement, relations)
        notes += influence_notes(table, agreement)
    else:
        notes.append(
            "No influence of pair on pair: every model holds out the same. `tbtt train --recipe "
            "influence` trains models that each hold out their own."
        )
    if len(few.models) < len(subject.models):
        notes.append(f"Coefficient and losses are of the first {FEW} models.")
    main = memorization_table(bits, coefficients, losses)
    return Result(
        name="memorization",
        tables={"memorization": main, **tables},
        shown=_shown(main),
        figures={"memorization": lambda: figures.memorization_meters(main), **drawn},
        findings=findings,
        notes=[*NOTES, *notes, SOURCES],
    )

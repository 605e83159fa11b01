"""Memorization measured: bits stored in answers and in the line order, and loss without the rule.

No measure is of memorization alone. A rule may supply the bits of answers, which held-out answers
show. The line order has no rule. What the rule's directions do not carry need not be a table.

Source: Allen-Zhu and Li 2024, Physics of Language Models 3.3, arXiv 2404.05405; Morris et al. 2025,
How much do language models memorize?, arXiv 2505.24832.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from tbtt_interp.analyses.restricted_loss import (
    plot_restricted_loss,
    restricted_loss,
    restricted_loss_claims,
)
from tbtt_interp.interventions import answer_logits
from tbtt_interp.plots import points
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.stats import mean_over_models, summarize
from tbtt_interp.tasks import Stream

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

KNOWLEDGE = 2.0  # bits of knowledge per parameter: Allen-Zhu and Li 2024
CAPACITY = 3.6  # bits of random text per parameter: Morris et al. 2025
SEEN, HELD_OUT, ORDER, ALL = "seen answers", "held-out answers", "line order", "all"
PER_PARAMETER = "bits per parameter"
FEW = 8  # models at most for the slow measures
LITERATURE = {PER_PARAMETER: f"{KNOWLEDGE:g} [1], {CAPACITY:g} [2]", "excluded": "0 to 1 [3]"}
NOTES = (
    "Bits: how much shorter the model writes the answers than a reader who knows how often each "
    "answer occurs. Line order: the bits that are shown at least; below 0 none are shown. Bits per "
    "parameter are those of seen answers and order.",
    "Restricted, excluded: with the operands' main directions alone, and without them; the "
    "fraction saved, or lost, of the loss that erasing the whole activation adds.",
    "Literature: [1] of knowledge, Allen-Zhu and Li 2024, arXiv 2404.05405; [2] of random text, "
    "Morris et al. 2025, arXiv 2505.24832; [3] low while a network memorizes, higher as its rule "
    "forms, Nanda et al. 2023, arXiv 2301.05217.",
)


def answer_bits(model: "HookedTransformer", prompts: PromptSet) -> Float[np.ndarray, " example"]:
    """The bits that each right answer, its terminator included, takes to write with this model."""
    batch = prompts.batch()
    return -batch.answer_logprobs(answer_logits(model, batch)).numpy() / math.log(2)


def marginal_bits(prompts: PromptSet) -> Float[np.ndarray, " example"]:
    """The same for a reader who knows how often each answer occurs in its group."""
    keys = [(e.group, e.answer) for e in prompts.examples]
    times, sizes = Counter(keys), Counter(group for group, _ in keys)
    return np.array([math.log2(sizes[key[0]] / times[key]) for key in keys])


def order_bits(
    model: "HookedTransformer", training: Stream, sections: Sequence[int]
) -> tuple[float, float]:
    """The bits of the file's line order that a model shows at least, and how many there are.

    They are the bits of all orders minus what the model takes to write the file in one pass.

    Args:
        sections: lines in each section; the order of the sections themselves is common knowledge.
    """
    windows = training.reference()
    with torch.no_grad():
        logs = model(torch.from_numpy(windows.tokens)).double().log_softmax(-1)
    nats = -logs.gather(-1, torch.from_numpy(windows.targets)[..., None]).squeeze(-1)
    written = float(nats[0].sum() + nats[1:, -1].sum()) / math.log(2)
    orders = sum(math.lgamma(lines + 1) for lines in sections) / math.log(2)
    return orders - written, orders


def trained_parameters(model: "HookedTransformer") -> int:
    """Trained parameters of a model: no biases that are 0, and tied embeddings once."""
    nonzero = {name: p for name, p in model.named_parameters() if bool((p != 0).any())}
    tied = torch.equal(model.W_E, model.W_U.mT)
    return sum(p.numel() for name, p in nonzero.items() if not (tied and name == "unembed.W_U"))


def stored_bits(model: "HookedTransformer", prompts: PromptSet) -> pd.DataFrame:
    """The bits stored in a model's answers, and in the order of its file's lines.

    Returns:
        one row per kind (seen answers; held-out answers; line order; all, which is seen answers
        and the order shown): `bits`, `most` that there could be, `share` of these, `n` answers or
        lines, `parameters` and `per_parameter`.
    """
    marginal = marginal_bits(prompts)
    saved = marginal - answer_bits(model, prompts)
    kinds = {"seen": SEEN, "held out": HELD_OUT}
    bits = {
        kinds[split]: (float(saved[mask].sum()), float(marginal[mask].sum()), int(mask.sum()))
        for split, mask in prompts.splits.items()
    }
    training, task = prompts.training, prompts.task
    if training is not None and task is not None and training.framing == "file":
        sections = [sum(not e.held_out for e in section) for section in task.sections]
        bits[ORDER] = (*order_bits(model, training, sections), sum(sections))
    seen, most, n = bits[SEEN]
    shown, possible, _ = bits.get(ORDER, (0.0, 0.0, 0))
    bits[ALL] = (seen + max(shown, 0.0), most + possible, n)
    parameters = trained_parameters(model)
    return pd.DataFrame([
        {"kind": kind, "bits": value, "most": most, "share": value / most if most else math.nan,
         "n": n, "parameters": parameters, "per_parameter": value / parameters}
        for kind, (value, most, n) in bits.items()
    ])  # fmt: skip


def stored_bits_claims(table: pd.DataFrame) -> list[Claim]:
    """Claims on the share of the bits stored, and on bits per parameter, over models."""
    counts = "reader who knows how often each answer occurs"
    text = {
        SEEN: ("Seen answers have", "of their bits", counts),
        HELD_OUT: ("Held-out answers have", "of their bits", counts),
        ORDER: ("Models store, at least,", "of the bits of the line order",
                "line-entropy floor"),
        ALL: ("Seen answers and order take", f"of {KNOWLEDGE:g} bits per parameter",
              "model that stores nothing"),
    }  # fmt: skip
    claims = []
    for kind, (words, unit, null_name) in text.items():
        rows = table[table["kind"] == kind]
        values = (rows["per_parameter"] / KNOWLEDGE if kind == ALL else rows["share"]).dropna()
        values = values.clip(lower=0) if kind == ORDER else values  # a bound below 0 is no bound
        if len(values):
            claims.append(Claim(text=words, effect=mean_over_models(values), unit=unit, null=0.0,
                                null_name=null_name))  # fmt: skip
    return claims


def memorization_table(bits: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """One row per seed and measure: `value`, `null`, `literature`, and the maximum, `most`.

    Args:
        losses: `restricted_loss` over seeds; may be empty.
    """
    is_all = bits["kind"] == ALL
    rows = bits.assign(
        measure=bits["kind"].mask(is_all, PER_PARAMETER), null=0.0,
        value=bits["bits"].mask(is_all, bits["per_parameter"]),
        most=bits["most"].mask(is_all, KNOWLEDGE),
    )  # fmt: skip
    if not losses.empty:
        names = {"change": "measure", "fraction": "value", "random_fraction": "null"}
        seen = losses[losses["split"] == "seen"].rename(columns=names)
        rows = pd.concat([rows, seen.assign(most=1.0)], ignore_index=True)
    table = rows[["seed", "measure", "value", "most", "null"]].reset_index(drop=True)
    return table.assign(literature=table["measure"].map(LITERATURE).fillna(""))


def _display(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model, the mean over models, the null and the literature's figure."""
    by_measure = {
        str(m): rows.set_index("seed") for m, rows in table.groupby("measure", sort=False)
    }
    words = {}
    for measure, rows in by_measure.items():
        values = pd.concat([rows["value"].head(FEW), rows[["value", "null"]].mean()])
        digits = {PER_PARAMETER: 3, "restricted": 2, "excluded": 2}.get(measure, 0)
        words[measure] = values.map(f"{{:,.{digits}f}}".format, na_action="ignore")
    display = pd.DataFrame(words).rename(str).rename({"value": "mean"}).fillna("")
    display.loc["literature"] = [LITERATURE.get(measure, "") for measure in words]
    return display.rename_axis("seed").reset_index()


def plot_memorization(table: pd.DataFrame) -> "Figure":
    """Every measure as a share of its maximum, or of the value in the literature."""
    unit = {"restricted": ", of the loss saved", "excluded": ", of the loss added",
            PER_PARAMETER: f", of {KNOWLEDGE:g}"}  # fmt: skip
    most = table.groupby("measure")["most"].mean()
    names = {m: m + unit.get(m, f", of {most[m]:,.0f} bits") for m in most.index.map(str)}
    shares = table.assign(
        measure=table["measure"].map(names), share=table["value"] / table["most"],
        null=table["null"] / table["most"],
    )  # fmt: skip
    figure = points(
        summarize(shares, ["measure"], ["share", "null"]), name="measure", value="share",
        dots=shares, nulls={"null": "null"}, hover=["n_models"],
        title="share of all there could be, or of the literature's figure",
    )  # fmt: skip
    return figure.add_vline(x=1, line={"dash": "dash", "width": 1}).update_layout(width=820)


def analyse_memorization(source: Models | Run, *, site: str | None = None, seed: int = 0) -> Result:
    """Bits stored by every model, and restricted and excluded loss where there are equations."""
    models = Models.of(source)
    bits, losses = over_seeds(models, stored_bits), pd.DataFrame()
    tables, claims, figures = {"stored-bits": bits}, stored_bits_claims(bits), {}
    note = ["No restricted or excluded loss: there are no equations, so no known rule."]
    if models.shared_prompts.operand_grids:
        losses = over_seeds(models.take(FEW), restricted_loss, site=site, seed=seed)
        tables["restricted-loss"] = losses
        figures["restricted-loss"] = partial(plot_restricted_loss, losses)
        claims += restricted_loss_claims(losses)
        is_all = len(models.models) <= FEW
        note = [] if is_all else [f"Restricted and excluded loss: the first {FEW} models."]
    table = memorization_table(bits, losses)
    return Result(
        name="memorization", tables={"memorization": table, **tables}, display=_display(table),
        figures={"memorization": partial(plot_memorization, table), **figures},
        claims=claims, notes=[*NOTES, *note],
    )  # fmt: skip

"""Rates are picked on what was seen; order, framing and size come out as they were planted."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import widths as study
from planted_tables import WIDTHS, cell
from scipy.stats import linregress

from tbtt_interp.model_tables import with_accuracies

FRAMINGS = ("file", "shuffled", "line")


def test_the_rate_of_a_width_is_that_of_lowest_loss_where_there_is_no_order_to_know() -> None:
    """Neither the loss on file nor held-out answers, which both favour 1e-3, have a say."""
    losses = {1e-3: (0.60, 0.82, 0.68), 1e-2: (0.70, 0.80, 0.69)}
    models = pd.concat([
        cell([4 * (rate == 1e-3)] * 4, framing=framing, learning_rate=rate, loss=loss)
        for rate, of_framings in losses.items()
        for framing, loss in zip(FRAMINGS, of_framings, strict=True)
    ])  # fmt: skip
    assert study.picked_rates(models).to_dict() == {14: 1e-2}, "0.80 + 0.69 < 0.82 + 0.68"


@pytest.mark.parametrize(
    ("wide", "verdicts", "values"),
    [  # 14 answers all, so that of 3 lost on file at 56, order is 2, framing 1 and size none
        ((1, 3, 4), ["supported", "supported", "undecided", "supported"],
         [0.0, 0.5, 0.0, 0.25, 0.75, 0.25, 0.0, 0.75, -0.375, -0.125, 0.0]),
        ((1, 1, 1), ["undecided", "undecided", "supported", "contradicted"],
         [0.0, 0.0, 0.0, 0.0, 0.75, 0.75, 0.75, -0.75, -0.375, -0.375, -0.375]),
    ],
)  # fmt: skip
def test_planted_order_framing_and_size_come_out(
    wide: tuple[int, ...], verdicts: list[str], values: list[float]
) -> None:
    right = {"small": (4, 4, 4), "large": wide}
    result = study.widths_result(pd.concat([
        cell([n] * 4, size=size, framing=framing)
        for size, answers in right.items() for framing, n in zip(FRAMINGS, answers, strict=True)
    ]))  # fmt: skip
    found = result.tables["widths-differences"].set_index("difference")["value"]
    names = [
        *(f"{of} at width {width}" for of, width in product(("order", "framing"), (14, 56))),
        *(f"width 14 minus 56 on {framing}" for framing in FRAMINGS),
        "on file, order and framing minus what is left on line",
        *(f"a doubling of width on {framing}" for framing in FRAMINGS),
    ]
    assert found[names].tolist() == pytest.approx(values)
    assert [claim.verdict for claim in result.claims] == verdicts
    assert result.figures["widths"]().data


def test_a_slope_is_least_squares_over_log2_of_width() -> None:
    chance = np.random.default_rng(0)
    models = with_accuracies(pd.concat([
        cell(chance.integers(0, 5, 4).tolist(), size=size, framing=framing)
        for size, framing in product(WIDTHS, FRAMINGS) if size != "mlt"
    ]))  # fmt: skip
    slopes = study.differences(models).set_index(["difference", "seed"])["value"]
    for (framing, seed), rows in models.groupby(["framing", "seed"]):
        line = linregress(np.log2(rows["width"]), rows["held_out_accuracy"])
        assert slopes[f"a doubling of width on {framing}", seed] == pytest.approx(line.slope)

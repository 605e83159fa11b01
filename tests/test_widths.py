"""Rates are picked on what was seen; order, framing and size come out as they were planted."""

import itertools

import numpy as np
import pandas as pd
import pytest
import widths as study
from planted_tables import WIDTHS, cell
from scipy.stats import linregress

from tbtt_interp.model_tables import with_accuracies
from tbtt_interp.results import Result

SIZES = [size for size in WIDTHS if size != "mlt"]
FRAMINGS = ("file", "shuffled", "line")


def random_models(seed: int, rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    return pd.concat(
        [
            cell(chance.integers(0, 5, 4).tolist(), size=size, framing=framing, learning_rate=rate,
                 seen=chance.integers(100, 197, 4).tolist(), run=f"{size}-{framing}-{rate}",
                 loss=float(chance.uniform(0.5, 1)))
            for size, framing, rate in itertools.product(SIZES, FRAMINGS, rates)
        ],
        ignore_index=True,
    )  # fmt: skip


def planted(right: dict[str, tuple[int, int, int]], seeds: int = 4) -> Result:
    """So many of four are answered on each framing, by size, and of every seed."""
    return study.widths_result(pd.concat([
        cell([n] * seeds, size=size, framing=framing)
        for size, answers in right.items() for framing, n in zip(FRAMINGS, answers, strict=True)
    ], ignore_index=True))  # fmt: skip


def test_the_rate_of_a_width_is_that_of_lowest_loss_where_there_is_no_order_to_know() -> None:
    lost = {("file", 1e-3): 0.60, ("file", 1e-2): 0.70, ("shuffled", 1e-3): 0.82,
            ("shuffled", 1e-2): 0.80, ("line", 1e-3): 0.68, ("line", 1e-2): 0.69}  # fmt: skip
    models = pd.concat([
        cell([4] * 4, framing=framing, learning_rate=rate, loss=loss)
        for (framing, rate), loss in lost.items()
    ])  # fmt: skip
    assert study.picked_rates(models).to_dict() == {14: 1e-2}, "0.80 + 0.69 < 0.82 + 0.68"
    models = random_models(1)
    other = models.assign(held_out_right=4 - models["held_out_right"], margin_held_out=9.0)
    pd.testing.assert_series_equal(study.picked_rates(models), study.picked_rates(other))


def test_planted_order_framing_and_size_come_out() -> None:
    """At 56, order costs 2 of 4 and framing 1; of 3 lost on file against 14, none is size."""
    result = planted({"small": (4, 4, 4), "large": (1, 3, 4)})
    found = result.tables["widths-differences"].set_index("difference")["value"]
    assert found.round(9).to_dict() == {
        "order at width 14": 0.0, "order at width 56": 0.5, "framing at width 14": 0.0,
        "framing at width 56": 0.25, "width 14 minus 56 on file": 0.75,
        "width 14 minus 56 on shuffled": 0.25, "width 14 minus 56 on line": 0.0,
        "on file, order and framing minus what is left on line": 0.75,
        "a doubling of width on file": -0.375, "a doubling of width on shuffled": -0.125,
        "a doubling of width on line": 0.0,
    }  # fmt: skip
    verdicts = [claim.verdict for claim in result.claims]
    assert verdicts == ["supported", "supported", "undecided", "supported"]
    opposite = planted({"small": (4, 4, 4), "large": (1, 1, 1)})
    assert opposite.claims[-1].verdict == "contradicted", "all of it is left on line"
    assert len(result.figures["widths"]().data) > 0


def test_one_seed_decides_nothing() -> None:
    result = planted({"small": (4, 4, 4), "large": (1, 3, 4)}, seeds=1)
    assert {claim.verdict for claim in result.claims} == {"undecided"}


@pytest.mark.parametrize("seed", range(3))
def test_a_slope_is_least_squares_over_log2_of_width(seed: int) -> None:
    models = with_accuracies(random_models(seed, rates=(1e-2,)))
    slopes = study.differences(models).set_index(["difference", "seed"])["value"]
    for (framing, number), rows in models.groupby(["framing", "seed"]):
        theirs = linregress(np.log2(rows["width"]), rows["held_out_accuracy"])
        ours = slopes[f"a doubling of width on {framing}", number]
        assert ours == pytest.approx(theirs.slope)

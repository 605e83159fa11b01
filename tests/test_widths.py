"""Rates are picked on what was seen; order, framing and size come out as they were planted."""

import itertools

import numpy as np
import pandas as pd
import pytest
from planted_tables import WIDTHS, cell, load_study, over_training
from scipy.stats import linregress

from tbtt_interp.results import Result
from tbtt_interp.sweep_tables import with_accuracies

study = load_study("widths")
LAST, AT_FIXED, AT_LOSS = study.LAST, study.AT_FIXED, study.AT_LOSS
SIZES = [size for size in WIDTHS if size != "mlt"]
FRAMINGS = ("file", "shuffled", "line")


def random_models(seed: int, rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    return pd.concat(
        [
            cell(chance.integers(0, 5, 4).tolist(), size=size, framing=framing, learning_rate=rate,
                 seen=chance.integers(100, 197, 4).tolist(), run=f"{size}-{framing}-{rate}",
                 margin_seen=float(chance.normal()), loss=float(chance.uniform(0.5, 1)))
            for size, framing, rate in itertools.product(SIZES, FRAMINGS, rates)
        ],
        ignore_index=True,
    )  # fmt: skip


def answered(*models: pd.DataFrame) -> Result:
    table = pd.concat(models, ignore_index=True)
    return study.widths_result(table, over_training(table, range(100, 1_001, 100)))


def divided(right: dict[str, tuple[int, int, int]], seeds: int = 4) -> Result:
    """So many of four are answered on each framing, by size, and of every seed."""
    return answered(*(
        cell([n] * seeds, size=size, framing=framing)
        for size, answers in right.items() for framing, n in zip(FRAMINGS, answers, strict=True)
    ))  # fmt: skip


def differences(result: Result, at: str) -> pd.DataFrame:
    table = result.tables["widths-differences"]
    return table[table["at"] == at].set_index("difference")


def test_the_rate_of_a_width_is_that_of_lowest_loss_where_there_is_no_order_to_know() -> None:
    lost = {("file", 1e-3): 0.60, ("file", 1e-2): 0.70, ("shuffled", 1e-3): 0.82,
            ("shuffled", 1e-2): 0.80, ("line", 1e-3): 0.68, ("line", 1e-2): 0.69}  # fmt: skip
    models = with_accuracies(pd.concat([
        cell([4] * 4, framing=framing, learning_rate=rate, loss=loss, run=f"{framing}-{rate}")
        for (framing, rate), loss in lost.items()
    ], ignore_index=True))  # fmt: skip
    rates = study.rates_table(models)
    assert set(rates.loc[rates["picked"], "learning_rate"]) == {1e-2}, "0.80 + 0.69 < 0.82 + 0.68"
    above = rates.set_index(["framing", "learning_rate"])["above"]
    assert above["shuffled", 1e-2] == pytest.approx(0.03)
    assert above["line", 1e-2] == pytest.approx(0.03)
    alone = study.rates_table(models[models["framing"] == "file"])
    assert alone.loc[alone["picked"], "learning_rate"].tolist() == [1e-3]


def test_held_out_answers_have_no_say_in_the_rate() -> None:
    models = random_models(1)
    other = models.assign(held_out_right=4 - models["held_out_right"], margin_held_out=9.0)
    rates = [study.rates_table(with_accuracies(table)) for table in (models, other)]
    pd.testing.assert_series_equal(rates[0]["picked"], rates[1]["picked"])
    assert (rates[0].groupby(["width", "framing"])["picked"].sum() == 1).all()
    assert (rates[0][rates[0]["picked"]].groupby("width")["learning_rate"].nunique() == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_difference_on_file_is_exactly_the_sum_of_its_parts(seed: int) -> None:
    models = with_accuracies(random_models(seed, rates=(1e-2,)))
    table = study.differences(models).pivot(index="seed", columns="difference", values="value")
    on_file = models[models["framing"] == "file"].pivot(
        index="seed", columns="width", values="held_out_accuracy"
    )
    assert table["width 14 less 56 on file"].tolist() == (on_file[14] - on_file[56]).tolist()
    cost = {w: table[f"order at width {w}"] for w in (14, 56)}
    assert table["on file, order"].tolist() == pytest.approx((cost[56] - cost[14]).tolist())
    parts = table[["on file, order", "on file, framing", "on file, left on line"]].sum(axis=1)
    assert parts.tolist() == pytest.approx((on_file[14] - on_file[56]).tolist())


def test_planted_order_framing_and_size_come_out() -> None:
    """At 56, order costs 2 of 4 and framing 1; of 3 lost on file against 14, none is size."""
    result = divided({"small": (4, 4, 4), "large": (1, 3, 4)})
    assert differences(result, LAST)["value"].to_dict() == {
        "order at width 14": 0.0, "order at width 56": 0.5, "framing at width 14": 0.0,
        "framing at width 56": 0.25, "width 14 less 56 on file": 0.75,
        "width 14 less 56 on shuffled": 0.25, "width 14 less 56 on line": 0.0,
        "on file, order": 0.5, "on file, framing": 0.25, "on file, left on line": 0.0,
        "a doubling of width on file": -0.375, "a doubling of width on shuffled": -0.125,
        "a doubling of width on line": 0.0,
    }  # fmt: skip
    assert [claim.verdict for claim in result.claims] == [
        "supported", "supported", "undecided", "supported"
    ]  # fmt: skip
    by_way, by_level = (table.set_index("difference") for table in result.more_displays.values())
    assert by_way.loc["order at width 56"].tolist() == ["0.50 (4)"] * 4
    assert by_level.columns.tolist() == [f"first {n}% of seen" for n in (50, 70, 90, 99)]
    assert by_level.loc["width 14 less 56 on file"].tolist() == ["0.75 (4)"] * 4


@pytest.mark.parametrize(
    ("small", "large", "verdict"),
    [
        ((4, 4, 4), (1, 3, 4), "supported"),
        ((4, 4, 4), (1, 1, 1), "contradicted"),
        ((1, 3, 4), (4, 4, 4), "supported"),  # the wide one has more, by order and framing
        ((0, 1, 1), (2, 4, 4), "contradicted"),  # the wide one has more, and on line most of all
        ((2, 2, 2), (2, 4, 4), "undecided"),  # there is no difference on file
    ],
)
def test_parts_are_compared_in_the_direction_of_the_whole(
    small: tuple[int, int, int], large: tuple[int, int, int], verdict: str
) -> None:
    claim = divided({"small": small, "large": large}).claims[-1]
    assert claim.verdict == verdict
    assert ("so none is divided" in claim.measured) == (verdict == "undecided")


def test_one_seed_and_one_width_decide_nothing() -> None:
    for result in (divided({"small": (4, 4, 4), "large": (1, 3, 4)}, seeds=1),
                   divided({"small": (4, 4, 4)})):  # fmt: skip
        assert {claim.verdict for claim in result.claims} == {"undecided"}


def test_a_slope_is_least_squares_over_log2_of_width() -> None:
    models = with_accuracies(random_models(3, rates=(1e-2,)))
    slopes = study.differences(models).set_index(["difference", "seed"])["value"]
    for (framing, seed), rows in models.groupby(["framing", "seed"]):
        theirs = linregress(np.log2(rows["width"]), rows["held_out_accuracy"])
        assert slopes[f"a doubling of width on {framing}", seed] == pytest.approx(theirs.slope)


def test_models_are_matched_at_the_first_evaluation_that_knows_enough() -> None:
    found = answered(cell([0] * 4, seen=[196, 150, 90, 180])).tables["widths-models"]
    matched = found[found["at"] == "first 50% of seen"].set_index("seed")
    assert matched["step"].to_dict() == {0: 500, 1: 700, 3: 600}  # 98 of 196 or more
    assert (matched["seen_accuracy"] >= 0.5).all()


def test_who_never_knows_enough_is_left_out_of_the_match_with_its_pair() -> None:
    slow = cell([4, 4, 4, 4], size="large", framing="shuffled", seen=[196, 100, 196, 196])
    table = answered(cell([0] * 4, size="large"), slow).tables["widths-differences"]
    table = table[table["difference"] == "order at width 56"].set_index("at")
    assert table["n_models"].to_dict() == {
        LAST: 4, **dict.fromkeys(study.LEVELS, 3), "first 50% of seen": 4, AT_LOSS: 4, AT_FIXED: 4,
    }  # fmt: skip


def test_a_seed_that_never_gets_there_has_no_slope() -> None:
    slow = cell([4] * 4, size="large", seen=[196, 90, 196, 196])
    result = answered(cell([0] * 4), slow)
    name = "a doubling of width on file"
    assert differences(result, LAST).loc[name, "n_models"] == 4
    assert differences(result, "first 90% of seen").loc[name, "n_models"] == 3


def test_models_are_matched_at_the_first_loss_near_the_floor_of_their_framing() -> None:
    models = pd.concat(
        [cell([0, 0], framing=f, loss=loss) for f, loss in (("file", 0.83), ("line", 0.70))],
        ignore_index=True,
    )
    over = over_training(models, (100, 200, 300))
    over.loc[over["step"] == 100, "loss"] = 0.9
    over.loc[(over["step"] == 300) & (over["seed"] == 1), "loss"] = 0.6
    found = study.widths_result(models, over).tables["widths-models"].query("at == @AT_LOSS")
    reached = found.set_index(["framing", "seed"])["step"].to_dict()
    assert reached == {("file", 1): 300, ("line", 0): 200, ("line", 1): 200}


def test_the_fixed_rate_is_compared_alone_and_the_figure_has_the_means() -> None:
    models = random_models(4)
    result = answered(models)
    cells = result.tables["widths-models"]
    fixed = cells[cells["at"] == AT_FIXED]
    assert set(fixed["learning_rate"]) == {1e-2} and len(fixed) == len(models) / 3
    traces = [t for t in result.figures["widths-effects"]().data if t.error_y.array is not None]
    last = next(t for t in traces if t.name == LAST)
    assert list(last.y) == pytest.approx(differences(result, LAST)["value"].tolist())
    assert result.figures["widths"]().data

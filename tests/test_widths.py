"""Rates are picked on what was seen; order, framing and size come out as they were planted."""

import itertools

import numpy as np
import pandas as pd
import pytest
from planted_tables import WIDTHS, cell, over_training
from scipy.stats import linregress

from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.evidence.effects import effect_rows, first_evaluations, with_shares
from tbtt_interp.evidence.widths import (
    AT_FIXED,
    AT_KNOWN,
    AT_LEVEL,
    AT_LOSS,
    EFFECTS,
    LAST,
    part_rows,
    rates_table,
    slope_rows,
    widths_evidence,
)

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


def evidence(models: pd.DataFrame) -> Evidence:
    return widths_evidence(models, over_training(models, range(100, 1_001, 100)))


def test_the_rate_of_a_width_is_that_of_lowest_loss_where_there_is_no_order_to_know() -> None:
    lost = {("file", 1e-3): 0.60, ("file", 1e-2): 0.70, ("shuffled", 1e-3): 0.82,
            ("shuffled", 1e-2): 0.80, ("line", 1e-3): 0.68, ("line", 1e-2): 0.69}  # fmt: skip
    models = pd.concat([
        cell([4] * 4, framing=framing, learning_rate=rate, loss=loss, run=f"{framing}-{rate}")
        for (framing, rate), loss in lost.items()
    ], ignore_index=True)  # fmt: skip
    rates = rates_table(with_shares(models))
    assert set(rates.loc[rates["picked"], "learning_rate"]) == {1e-2}, "0.80 + 0.69 < 0.82 + 0.68"
    above = rates.set_index(["framing", "learning_rate"])["above"]
    assert above["shuffled", 1e-2] == pytest.approx(0.03)
    assert above["line", 1e-2] == pytest.approx(0.03)
    alone = rates_table(with_shares(models[models["framing"] == "file"]))
    assert alone.loc[alone["picked"], "learning_rate"].tolist() == [1e-3]


def test_held_out_answers_have_no_say_in_the_rate() -> None:
    models = random_models(1)
    other = models.assign(held_out_right=4 - models["held_out_right"], margin_held_out=9.0)
    rates = [rates_table(with_shares(table)) for table in (models, other)]
    pd.testing.assert_series_equal(rates[0]["picked"], rates[1]["picked"])
    assert (rates[0].groupby(["width", "framing"])["picked"].sum() == 1).all()
    assert (rates[0][rates[0]["picked"]].groupby("width")["learning_rate"].nunique() == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_difference_on_file_is_exactly_the_sum_of_its_parts(seed: int) -> None:
    models = with_shares(random_models(seed, rates=(1e-2,)))
    parts = part_rows(models).pivot(index="seed", columns="part", values="value")
    on_file = models[models["framing"] == "file"].pivot(
        index="seed", columns="width", values="held_out"
    )
    assert parts["on file"].tolist() == (on_file[14] - on_file[56]).tolist()
    whole = parts[["order", "framing", "left on line"]].sum(axis=1)
    assert whole.tolist() == pytest.approx(parts["on file"].tolist())


def test_planted_order_framing_and_size_come_out() -> None:
    """At 56, order costs 2 of 4 and framing 1; of 3 lost on file against 14, none is size."""
    right = {("small", "file"): 4, ("small", "shuffled"): 4, ("small", "line"): 4,
             ("large", "file"): 1, ("large", "shuffled"): 3, ("large", "line"): 4}  # fmt: skip
    models = pd.concat(
        [cell([n] * 4, size=size, framing=framing) for (size, framing), n in right.items()],
        ignore_index=True,
    )
    found = evidence(models)
    effects = found.tables["widths-effects"].query("at == @LAST").set_index(["effect", "width"])
    assert effects["mean"].to_dict() == {
        ("order", 14): 0.0, ("framing", 14): 0.0, ("order", 56): 0.5, ("framing", 56): 0.25
    }  # fmt: skip
    parts = found.tables["widths-parts"].query("at == @LAST").set_index("part")["mean"]
    assert parts.to_dict() == {
        "on file": 0.75, "order": 0.5, "framing": 0.25, "left on line": 0.0
    }  # fmt: skip
    assert [claim.verdict for claim in found.claims] == [
        "supported", "supported", "undecided", "supported"
    ]  # fmt: skip
    assert found.sentences[0] == (
        "A doubling of width changes the held-out share by -0.38 on file, -0.12 on shuffled, 0.00 "
        "on line; at width 56, shuffled less file is 0.50 and line less shuffled is 0.25."
    )
    by_way, by_level = (table.set_index(table.columns[0]) for table in found.further.values())
    assert by_way.loc["order at width 56"].tolist() == ["0.50 (4)"] * 4
    assert by_way.loc["of that, framing", LAST] == "0.25 (4)"
    assert by_level.columns.tolist() == [f"{n}% of seen" for n in (50, 70, 90, 99)]
    assert by_level.loc["file"].tolist() == ["0.75 (4)"] * 4
    assert "width 14 less 56 on file" in str(found)
    slopes = found.tables["widths-slopes"].query("at == @LAST").set_index("framing")["mean"]
    assert slopes.to_dict() == {"file": -0.375, "shuffled": -0.125, "line": 0.0}


def test_where_nothing_differs_the_evidence_says_so() -> None:
    models = pd.concat(
        [cell([2] * 4, size=size, framing=f) for size in ("small", "large") for f in FRAMINGS]
    )
    assert any("not told apart" in sentence for sentence in found_of(models).sentences)


def divided(right: dict[str, tuple[int, int, int]], seeds: int = 4) -> Evidence:
    """So many of four are answered on each framing, by size, and of every seed."""
    return found_of(pd.concat(
        [cell([n] * seeds, size=size, framing=framing)
         for size, answers in right.items()
         for framing, n in zip(FRAMINGS, answers, strict=True)]
    ))  # fmt: skip


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
def test_parts_are_held_against_each_other_in_the_direction_of_the_whole(
    small: tuple[int, int, int], large: tuple[int, int, int], verdict: str
) -> None:
    claim = divided({"small": small, "large": large}).claims[-1]
    assert claim.verdict == verdict
    assert ("nothing is divided" in claim.measured) == (verdict == "undecided")


def test_one_seed_tells_no_difference_on_file_apart() -> None:
    found = divided({"small": (4, 4, 4), "large": (1, 3, 4)}, seeds=1)
    assert any("not told apart" in sentence for sentence in found.sentences)
    alone = divided({"small": (4, 4, 4)})
    assert not any("not told apart" in sentence for sentence in alone.sentences)


def found_of(models: pd.DataFrame) -> Evidence:
    return evidence(models.reset_index(drop=True))


def test_a_slope_is_least_squares_over_log2_of_width() -> None:
    models = with_shares(random_models(3, rates=(1e-2,)))
    slopes = slope_rows(models).set_index(["framing", "seed"])["value"]
    for (framing, seed), part in models.groupby(["framing", "seed"]):
        theirs = linregress(np.log2(part["width"]), part["held_out"])
        assert slopes[(framing, seed)] == pytest.approx(theirs.slope)


def test_models_are_matched_at_the_first_evaluation_that_knows_enough() -> None:
    models = cell([0] * 4, seen=[196, 150, 90, 180])
    over = with_shares(over_training(models, range(100, 1_001, 100)))
    matched = first_evaluations(over, over["seen"] >= 0.5).set_index("seed")
    assert matched["step"].to_dict() == {0: 500, 1: 700, 3: 600}  # 98 of 196 or more
    assert (matched["seen"] >= 0.5).all()


def test_who_never_knows_enough_is_left_out_of_the_match_with_its_pair() -> None:
    slow = cell([4, 4, 4, 4], size="large", framing="shuffled", seen=[196, 100, 196, 196])
    models = pd.concat([cell([0] * 4, size="large"), slow], ignore_index=True)
    effects = evidence(models).tables["widths-effects"].query("effect == 'order'").set_index("at")
    assert effects["models"].to_dict() == {
        LAST: 4, **dict.fromkeys(AT_LEVEL, 3), "first knowing 50% of seen": 4, AT_LOSS: 4,
        AT_FIXED: 4,
    }  # fmt: skip


def test_a_width_that_never_gets_there_has_no_slope_and_no_figure_of_it() -> None:
    slow = cell([4] * 4, size="large", seen=[196, 90, 196, 196])
    found = evidence(pd.concat([cell([0] * 4), slow], ignore_index=True))
    slopes = found.tables["widths-slopes"].set_index("at")["models"].to_dict()
    assert slopes[LAST] == 4 and slopes[AT_KNOWN] == 3
    with pytest.raises(TbttError, match="nothing to draw"):  # of one framing there is no effect
        found.figures["widths-effects"]()
    matched = found.tables["widths-matched"].query("width == 56").set_index("at")
    assert matched.loc[AT_KNOWN, "models"] == 3 and matched.loc[AT_KNOWN, "seen"] >= 0.9


def test_models_are_matched_at_the_first_loss_near_the_floor_of_their_framing() -> None:
    models = pd.concat(
        [cell([0, 0], framing=f, loss=loss) for f, loss in (("file", 0.83), ("line", 0.70))],
        ignore_index=True,
    )
    over = over_training(models, (100, 200, 300))
    over.loc[over["step"] == 100, "loss"] = 0.9
    over.loc[(over["step"] == 300) & (over["seed"] == 1), "loss"] = 0.6
    found = widths_evidence(models, over).tables["widths-models"].query("at == @AT_LOSS")
    reached = found.set_index(["framing", "seed"])["step"].to_dict()
    assert reached == {("file", 1): 300, ("line", 0): 200, ("line", 1): 200}


def test_the_sensitivity_has_the_fixed_rate_alone() -> None:
    models = random_models(4)
    cells = evidence(models).tables["widths-models"]
    fixed = cells[cells["at"] == AT_FIXED]
    assert set(fixed["learning_rate"]) == {1e-2}
    assert len(fixed) == len(models) / 3


def test_effects_are_of_one_seed_and_the_figure_has_their_means() -> None:
    found = evidence(random_models(5))
    rows = found.tables["widths-effects"].query("at == @LAST and effect == 'order'")
    traces = [t for t in found.figures["widths-effects"]().data if t.error_y.array is not None]
    first = next(t for t in traces if t.name == LAST)
    assert list(first.y) == pytest.approx(rows["mean"].tolist())
    models = with_shares(random_models(5, (1e-2,)))
    found = effect_rows(models, EFFECTS, each="width", arms="framing")
    assert found["seed"].nunique() == 4

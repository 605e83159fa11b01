"""Rates are picked on what was seen; order, framing and size come out as they were planted."""

import itertools

import numpy as np
import pandas as pd
import pytest
from planted_tables import WIDTHS, cell, over_training
from scipy.stats import linregress

from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.evidence.effects import effect_rows, first_evaluations, with_shares
from tbtt_interp.evidence.widths import (
    AT_FIXED,
    AT_KNOWN,
    AT_LOSS,
    BY_LOSS,
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


def test_the_rate_is_that_which_learned_most_of_what_was_seen() -> None:
    models = random_models(0)
    rates = rates_table(with_shares(models))
    picked = rates[rates["picked"]]
    assert len(picked) == len(SIZES) * len(FRAMINGS)
    for (width, framing), part in models.groupby(["width", "framing"]):
        best = part.groupby("learning_rate")["seen_right"].sum().idxmax()
        mine = picked[(picked["width"] == width) & (picked["framing"] == framing)]
        assert mine["learning_rate"].tolist() == [best]


def test_held_out_answers_have_no_say_in_the_rate() -> None:
    models = random_models(1)
    other = models.assign(held_out_right=4 - models["held_out_right"], margin_held_out=9.0)
    picked = [rates_table(with_shares(table))["picked"] for table in (models, other)]
    pd.testing.assert_series_equal(*picked)


def test_ties_go_to_the_margin_and_then_to_the_loss() -> None:
    def picked(**by_rate: list[float]) -> float:
        cells = [
            cell([0, 0], learning_rate=rate, run=str(rate), **{k: v[n] for k, v in by_rate.items()})
            for n, rate in enumerate((1e-3, 1e-2))
        ]
        rates = rates_table(with_shares(pd.concat(cells, ignore_index=True)))
        return rates.loc[rates["picked"], "learning_rate"].item()

    assert picked(margin_seen=[1.0, 2.0], loss=[0.5, 0.9]) == 1e-2
    assert picked(margin_seen=[2.0, 1.0], loss=[0.9, 0.5]) == 1e-3
    assert picked(margin_seen=[1.0, 1.0], loss=[0.9, 0.5]) == 1e-2


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
    assert "Order at width 56: 0.50 (4); measured otherwise 0.50 to 0.50." in found.sentences


def test_where_nothing_differs_the_evidence_says_so() -> None:
    models = pd.concat(
        [cell([2] * 4, size=size, framing=f) for size in ("small", "large") for f in FRAMINGS]
    )
    assert found_of(models).sentences[-1].startswith("The difference on file is itself not told")


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
    assert found.sentences[-1].startswith("The difference on file is itself not told")
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
        LAST: 4, AT_KNOWN: 3, AT_LOSS: 4, BY_LOSS: 4, AT_FIXED: 4
    }  # fmt: skip


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


def test_the_lowest_loss_is_a_way_to_pick_a_rate_by_itself() -> None:
    lost = {1e-3: 0.6, 1e-2: 0.8}  # the rate that learns more of the order, and less of the rest
    models = pd.concat([
        cell([round(rate * 100)] * 4, learning_rate=rate, run=str(rate), loss=loss,
             seen=[round(196 - 10 * (rate < 1e-2))] * 4)
        for rate, loss in lost.items()
    ], ignore_index=True)  # fmt: skip
    cells = evidence(models).tables["widths-models"].groupby("at")["learning_rate"].unique()
    assert cells[LAST].tolist() == [1e-2]
    assert cells[BY_LOSS].tolist() == [1e-3]


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

"""Forgetting beside learning the order: planted courses come back, shared time is no finding."""

import forgetting as study
import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from tbtt_interp.errors import TbttError
from tbtt_interp.results import Result

STEPS = np.arange(0, 2_500, 100)
CROSSING = 1_000  # the last evaluation at which the planted loss is not below the floor
# from 1 to the floor of the lines, 0.8, and on to halfway to that of the order, 0.6
CROSSES = np.interp(STEPS, [0, CROSSING, 2_400], [1.0, 0.8, 0.7])
KEPT, NEVER, FADING = np.ones(len(STEPS)), np.zeros(len(STEPS)), -STEPS / 100
LOST = np.where(STEPS > CROSSING, 0.25 * (STEPS < 2_000), 1.0)
LEARNED = 1.0 * (STEPS > CROSSING)
NOISE = np.random.default_rng(0).normal(size=(8, len(STEPS)))  # of its own for each seed


def planted(
    share: np.ndarray, twin: np.ndarray | None, margin: ArrayLike = 0.0,
    twin_margin: ArrayLike = 0.0, *, seeds: int = 8, loss: np.ndarray = CROSSES,
    **also: object,
) -> pd.DataFrame:  # fmt: skip
    """A table as `over_training_table` has it, of a file run and, if given, its shuffled twin."""
    known = np.clip((0.8 - loss) / 0.2, 0, None)
    courses = (("file", share, margin, known), ("shuffled", twin, twin_margin, np.nan))
    return pd.concat([
        pd.DataFrame(
            {"task": "arithmetic", "size": "medium", "width": 28, "learning_rate": 0.01,
             "weight_decay": 0.0, "window": 9, "batch": 882, "run": f"medium-{framing}",
             "steps": 2_400, "held_out": "5,7", "framing": framing, "seed": seed, "step": STEPS,
             "loss": loss, "floor_lines": 0.8, "floor_order": 0.6, "order_known": order,
             "held_out_right": 4 * answers, "held_out_of": 4,
             "margin_held_out": np.broadcast_to(margins, (seeds, len(STEPS)))[seed]}
            | also
        )
        for framing, answers, margins, order in courses if answers is not None
        for seed in range(seeds)
    ], ignore_index=True)  # fmt: skip


def of_models(table: pd.DataFrame) -> pd.DataFrame:
    return study.forgetting_table(study.paired_courses(table))


def printed(result: Result) -> pd.Series:
    return result.display.set_index("measure")["medium"]


@pytest.mark.parametrize(
    ("loss", "crossed"),
    [(CROSSES, CROSSING), (np.where(STEPS == 500, 0.79, 0.9), 400)],
    ids=["for good", "once"],
)
def test_the_moment_is_the_last_evaluation_before_the_loss_is_below_the_floor(loss, crossed):
    models = of_models(planted(LOST, KEPT, loss=loss))
    assert models["crossed"].tolist() == [crossed] * 8
    assert set(models["accuracy_then"]) == {1}
    assert set(models["accuracy_end"]) == {0}, "over the last sixth, from step 2,000"
    known = np.mean(np.clip((0.8 - loss[STEPS >= 2_000]) / 0.2, 0, None))
    assert models["order_known"].tolist() == pytest.approx([known] * 8)


@pytest.mark.parametrize(
    ("file", "twin", "effects", "fell"),
    [
        (LOST, KEPT, [-1, 0, -1, -1], ["8 of 8", "8 of 8"]),  # lost with the order, else kept
        (LOST, LOST, [-1, -1, 0, 0], ["8 of 8", "0 of 8"]),
        (NEVER, LEARNED, [0, 1, -1, -1], ["0 of 8", "8 of 8"]),  # learned by the twin alone
        (LOST, None, [-1], ["8 of 8", "0 of 0"]),
    ],
)
def test_a_change_is_claimed_of_models_of_their_twins_and_beyond_these(file, twin, effects, fell):
    table = planted(file, twin, file, NEVER if twin is None else twin)
    # models differ a little, since an interval without width decides nothing
    table["held_out_right"] -= table["seed"] / 100 * (table["held_out_right"] > 0)
    some = (table["seed"] % 2 == 1) & (table["step"] == 2_400) & (table["framing"] == "file")
    table["margin_held_out"] += 0.1 * (some & (twin is not file))
    result = study.forgetting_result(table)
    for claim, effect in zip(result.claims, effects, strict=True):
        assert claim.verdict == {-1: "supported", 0: "undecided", 1: "contradicted"}[effect]
        assert "margin" in claim.text or claim.effect.mean == pytest.approx(effect, abs=0.02)
    assert printed(result).head(5).tolist() == ["8 of 8", "0 of 8", "1,000", *fell]


def test_who_has_nothing_to_lose_is_not_compared_with_a_twin_that_has() -> None:
    """Both end at none: a model that never had any did not come off better than its twin."""
    two = planted(LOST, LOST)
    two.loc[(two["framing"] == "file") & (two["seed"] < 2), "held_out_right"] = 0
    result = study.forgetting_result(two)
    assert result.claims[2].effect.n == 6
    assert printed(result)[study.FELL_MORE] == "0 of 6"


def test_margins_that_fall_with_time_alone_are_no_finding_and_with_the_order_alone_are() -> None:
    models = of_models(planted(KEPT, KEPT, FADING, FADING))
    for column, rank in (("margin", -1), ("shuffled_margin", -1), ("beyond_margin", 0)):
        assert models[f"{column}_rank"].tolist() == pytest.approx([rank] * 8)
    rank = study.forgetting_result(planted(KEPT, KEPT, FADING, NOISE)).claims[3]
    assert rank.verdict == "supported" and rank.effect.mean < -0.7


@pytest.mark.parametrize(("loss", "below"), [(0.9, "0 of 8"), (0.7, "8 of 8")])
def test_models_that_never_cross_or_always_were_below_are_counted_and_left_out(loss, below):
    result = study.forgetting_result(planted(LOST, KEPT, loss=np.full(len(STEPS), loss)))
    assert result.tables["forgetting-models"]["crossed"].isna().all() and not result.claims
    assert printed(result).head(4).tolist() == ["0 of 8", below, "–", "0 of 0"]


def test_few_models_decide_nothing() -> None:
    """All of five may fall by chance once in sixteen times, or rise."""
    for seeds, n_claims in ((5, 0), (6, 4)):
        assert len(study.forgetting_result(planted(LOST, KEPT, seeds=seeds)).claims) == n_claims


def test_twins_are_of_the_same_seed_and_settings() -> None:
    table = planted(LOST, KEPT)
    is_twin = table["framing"] == "shuffled"
    for column, value, pairs in (("seed", table["seed"] + 4, 4), ("learning_rate", 0.001, 0)):
        other = table.assign(**{column: table[column].mask(is_twin, value)})
        assert of_models(other)["shuffled_accuracy_change"].count() == pairs


def test_a_table_without_files_or_held_out_equations_is_refused() -> None:
    table = planted(LOST, KEPT)
    for wrong in (table[table["framing"] == "shuffled"], table.assign(held_out_of=0),
                  table.drop(columns="held_out_of"), table.assign(task="facts")):  # fmt: skip
        with pytest.raises(TbttError, match=r"so none can forget them: tbtt sweep ladder trains"):
            study.paired_courses(wrong)

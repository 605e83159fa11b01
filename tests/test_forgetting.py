"""Forgetting beside learning the order: planted courses come back, shared time is no finding."""

from collections.abc import Callable
from pathlib import Path

import forgetting as study
import numpy as np
import pandas as pd
import pytest
from sweeps import finished_runs

from tbtt_interp.errors import TbttError
from tbtt_interp.model_tables import over_training_table

forgetting_result, paired_courses = study.forgetting_result, study.paired_courses
forgetting_table = study.forgetting_table

STEPS = np.arange(0, 2_500, 100)
CROSSING = 1_000  # the last evaluation at which the planted loss is not below the floor
Course = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def loss_that_crosses(steps: np.ndarray) -> np.ndarray:
    """From 1 to the floor of the lines, 0.8, and on to halfway to that of the order, 0.6."""
    return np.interp(steps, [0, CROSSING, 2_400], [1.0, 0.8, 0.7])


def planted(
    share: Course, twin: Course | None, margin: Course | None = None,
    twin_margin: Course | None = None, *, seeds: int = 8, size: str = "medium", rate: float = 0.01,
    loss: Callable[[np.ndarray], np.ndarray] = loss_that_crosses,
) -> pd.DataFrame:  # fmt: skip
    """A table as `over_training_table` has it, of a file run and, if given, its shuffled twin."""
    framings = [("file", share, margin)]
    framings += [("shuffled", twin, twin_margin)] if twin else []
    parts = []
    for framing, answers, margins in framings:
        for seed in range(seeds):
            generator = np.random.default_rng((seed, framing == "file"))
            known = np.clip((0.8 - loss(STEPS)) / 0.2, 0, None) if framing == "file" else np.nan
            parts.append(pd.DataFrame(
                {"task": "arithmetic", "size": size, "width": 28, "learning_rate": rate,
                 "weight_decay": 0.0, "window": 9, "steps": 2_400, "held_out": "5,7",
                 "framing": framing, "seed": seed, "step": STEPS, "loss": loss(STEPS),
                 "floor_lines": 0.8, "floor_order": 0.6, "order_known": known,
                 "held_out_right": 4 * answers(STEPS, generator), "held_out_of": 4,
                 "margin_held_out": (margins or answers)(STEPS, generator)}
            ))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def kept(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.ones(len(steps))


def lost(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.where(steps > CROSSING, 0.25 * (steps < 2_000), 1.0)


def fading(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return -steps / 100


def noise(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.normal(size=len(steps))


def test_the_moment_is_the_last_evaluation_before_the_loss_is_below_the_floor() -> None:
    models = forgetting_table(paired_courses(planted(lost, kept)))
    assert models["crossed"].tolist() == [CROSSING] * 8
    assert models["accuracy_then"].tolist() == [1] * 8
    assert models["accuracy_end"].tolist() == [0] * 8, "over the last sixth, from step 2,000"
    assert models["order_known"].iloc[0] == pytest.approx(
        np.mean([(0.8 - loss) / 0.2 for loss in loss_that_crosses(STEPS[STEPS >= 2_000])])
    )


def test_a_loss_below_the_floor_once_is_crossed_then_though_it_rises_again() -> None:
    def back(steps: np.ndarray) -> np.ndarray:
        return np.where(steps == 500, 0.79, 0.9)

    models = forgetting_table(paired_courses(planted(lost, kept, loss=back)))
    assert models["crossed"].tolist() == [400] * 8


def test_what_is_lost_with_the_order_and_kept_without_is_forgotten() -> None:
    result = forgetting_result(planted(lost, kept))
    change, twin, beyond, rank = result.claims
    assert (change.verdict, beyond.verdict, rank.verdict) == ("supported",) * 3
    assert change.effect.mean == beyond.effect.mean == -1
    assert (twin.verdict, twin.effect.mean) == ("undecided", 0)
    assert {claim.origin for claim in result.claims} == {"explored"}
    assert result.display.set_index("measure")["medium"].head(5).tolist() == [
        "8 of 8", "0 of 8", "1,000", "8 of 8", "8 of 8"
    ]  # fmt: skip


def test_what_the_twin_loses_as_well_is_not_the_order_s() -> None:
    result = forgetting_result(planted(lost, lost))
    change, twin, beyond, rank = result.claims
    assert change.verdict == twin.verdict == "supported"
    assert change.effect.mean == twin.effect.mean == -1
    assert (beyond.verdict, beyond.effect.mean) == ("undecided", 0)
    assert (rank.verdict, rank.effect.mean) == ("undecided", 0)


def test_what_only_the_twin_learns_is_no_forgetting() -> None:
    def never(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return np.zeros(len(steps))

    def learning(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return 1.0 * (steps > CROSSING)

    change, _, beyond, _ = forgetting_result(planted(never, learning)).claims
    assert change.verdict == "undecided" and change.effect.mean == 0
    assert beyond.verdict == "supported" and beyond.effect.mean == -1


def test_who_has_nothing_to_lose_is_not_held_against_a_twin_that_has() -> None:
    """Both end at none: a model that never had any did not come off better than its twin."""

    def never(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return np.zeros(len(steps))

    for mine, twin in ((never, lost), (lost, never)):
        result = forgetting_result(planted(mine, twin))
        assert result.tables["forgetting-models"]["beyond_accuracy_change"].isna().all()
        assert not any("falls more" in claim.text for claim in result.claims)
    some = planted(lost, lost)
    none = (some["framing"] == "file") & (some["seed"] < 2)
    some.loc[none, "held_out_right"] = 0
    result = forgetting_result(some)
    assert result.claims[2].effect.n == 6
    assert result.display.set_index("measure").loc[study.FELL_MORE, "medium"] == "0 of 6"


def test_margins_that_fall_with_time_alone_correlate_and_are_no_finding() -> None:
    table = planted(kept, kept, margin=fading, twin_margin=fading)
    models = forgetting_table(paired_courses(table))
    assert models["margin_rank"].tolist() == pytest.approx([-1] * 8)
    assert models["twin_margin_rank"].tolist() == pytest.approx([-1] * 8)
    assert models["beyond_margin_rank"].tolist() == pytest.approx([0] * 8)


def test_margins_that_fall_with_the_order_alone_are_a_finding() -> None:
    table = planted(kept, kept, margin=fading, twin_margin=noise)
    rank = forgetting_result(table).claims[3]
    assert rank.verdict == "supported" and rank.effect.mean < -0.7


def test_a_margin_that_falls_an_evaluation_after_the_order_rose_follows_it() -> None:
    rises = np.random.default_rng(0).uniform(0, 1, len(STEPS)).cumsum()
    rises = (rises - rises[0]) / rises[-1]

    def uneven(steps: np.ndarray) -> np.ndarray:
        return 0.8 - 0.1 * rises

    def later(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return -np.concatenate([[0], rises[:-1]])

    table = planted(kept, kept, margin=later, twin_margin=noise, loss=uneven)
    models = forgetting_table(paired_courses(table))
    assert models["margin_follow"].tolist() == pytest.approx([-1] * 8)
    assert models["twin_margin_follow"].abs().mean() < 0.4


def test_models_that_never_cross_are_counted_and_left_out() -> None:
    def above(steps: np.ndarray) -> np.ndarray:
        return np.full(len(steps), 0.9)

    result = forgetting_result(planted(lost, kept, loss=above))
    assert result.tables["forgetting-models"]["crossed"].isna().all() and not result.claims
    assert result.display["medium"].head(4).tolist() == ["0 of 8", "0 of 8", "–", "0 of 0"]


def test_models_below_the_floor_from_the_first_evaluation_are_not_said_to_be_above_it() -> None:
    def below(steps: np.ndarray) -> np.ndarray:
        return np.full(len(steps), 0.7)

    result = forgetting_result(planted(lost, kept, loss=below))
    assert not result.claims
    assert result.display["medium"].head(2).tolist() == ["0 of 8", "8 of 8"]


def test_few_models_decide_nothing() -> None:
    """All of five may fall by chance once in sixteen times, or rise."""
    result = forgetting_result(planted(lost, kept, seeds=5))
    assert not result.claims
    assert result.display.set_index("measure").loc["its change", "medium"] == "-1.00"
    found = forgetting_result(planted(lost, kept, seeds=6)).claims
    assert [claim.verdict for claim in found][::2] == ["supported"] * 2


def test_without_a_twin_the_change_stands_alone() -> None:
    result = forgetting_result(planted(lost, None))
    assert [claim.effect.mean for claim in result.claims] == [-1]
    assert result.display.set_index("measure").loc["twin's accuracy then", "medium"] == "–"


def test_twins_are_of_the_same_seed_and_settings() -> None:
    file, twin = (
        planted(lost, kept).query(f"framing == '{name}'") for name in ("file", "shuffled")
    )
    other = pd.concat([file, twin.assign(seed=twin["seed"] + 4)])
    assert forgetting_table(paired_courses(other))["twin_accuracy_change"].count() == 4
    rate = pd.concat([file, twin.assign(learning_rate=0.001)])
    assert forgetting_table(paired_courses(rate))["twin_accuracy_change"].count() == 0
    twice = pd.concat([file, file, twin])
    assert len(paired_courses(twice)) == len(file), "sweeps have cells in common"


def test_models_of_one_size_trained_differently_are_told_apart() -> None:
    slow = planted(kept, kept, rate=0.001)
    courses = paired_courses(pd.concat([planted(lost, kept), slow, planted(lost, kept, size="x")]))
    conditions = {"medium, rate 0.001, 2,400 steps", "medium, rate 0.01, 2,400 steps", "x"}
    assert set(courses["condition"]) == conditions
    change = forgetting_table(courses).groupby("condition")["accuracy_change"].mean()
    assert change["x"] == -1 and change["medium, rate 0.001, 2,400 steps"] == 0


@pytest.mark.parametrize(
    ("setting", "values", "named"),
    [
        ("window", (9, 24), "medium, window 24"),
        ("batch", (576, 307), "medium, batch 307"),
        ("weight_decay", (0.0, 0.1), "medium, decay 0.1"),
        ("held_out", ("5,7", "2,3"), "medium, held out 2,3"),
    ],
)
def test_courses_of_two_models_are_never_taken_for_one(
    setting: str, values: tuple[object, object], named: str
) -> None:
    one, other = (
        planted(course, kept).assign(**{setting: value})
        for course, value in zip((kept, lost), values, strict=True)
    )
    models = forgetting_table(paired_courses(pd.concat([one, other])))
    assert len(models) == 16
    assert set(models.loc[models["condition"] == named, "accuracy_change"]) == {-1.0}
    assert set(models.loc[models["condition"] != named, "accuracy_change"]) == {0.0}


def test_a_table_without_files_or_held_out_equations_is_refused() -> None:
    table = planted(lost, kept)
    for wrong in (table[table["framing"] == "shuffled"], table.assign(held_out_of=0),
                  table.drop(columns="held_out_of"), table.assign(task="facts")):  # fmt: skip
        with pytest.raises(TbttError, match=r"so none can forget them: tbtt sweep ladder trains"):
            paired_courses(wrong)


def test_the_courses_of_real_runs_are_their_metrics_with_the_twin_s_beside(
    sweeps: Path,
) -> None:
    runs = {run.folder.name: run for run in finished_runs(sweeps / "ladder")}
    courses = paired_courses(over_training_table(runs.values()))
    courses = courses[courses["size"] == "small"]
    for seed in (0, 1):
        mine = courses[courses["seed"] == seed].set_index("step")
        for name, column in (("file", "margin"), ("shuffled", "twin_margin")):
            metrics = runs[f"arithmetic-small-{name}"].metrics()
            theirs = metrics[metrics["seed"] == seed].set_index("step")["margin_held_out"]
            assert mine[column].tolist() == theirs.tolist()
    assert len(courses) == 2 * 4


def test_phases_are_drawn_where_the_loss_was_with_twins_below() -> None:
    courses = paired_courses(
        pd.concat([planted(lost, kept), planted(lost, None, size="x").assign(width=56)])
    )
    figure = study.plot_courses(courses, "accuracy")
    means = [trace for trace in figure.data if trace.mode == "lines+markers"]
    file, alone, twin, _ = means
    assert list(file.x) == pytest.approx((0.8 - loss_that_crosses(STEPS)) / 0.2)
    assert list(file.x) == pytest.approx(list(twin.x))
    assert file.y[0] == 1 and file.y[-1] == 0 and set(twin.y) == {1.0}
    assert list(alone.y) == list(file.y)
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["medium", "x", "twins of medium", "twins of x"]
    assert study.plot_courses(courses, "margin").data

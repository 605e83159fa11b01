"""What a rate does, and what mlt answers, by planted tables."""

import pandas as pd
import pytest
from planted_tables import cell, load_study, over_training

from tbtt_interp.results import Result

study = load_study("optimisation")


def answered(
    file: list[int], shuffled: list[int], *, losses: tuple[float, ...] = (0.7, 0.6, 0.8)
) -> Result:
    """Large answers 1, 2 and 3 of four at the three rates, whose losses are given."""
    widths = pd.concat([
        cell([n + 1] * 4, size="large", learning_rate=rate, loss=losses[n], run=str(rate))
        for n, rate in enumerate((1e-3, 3e-3, 1e-2))
    ] + [cell([4] * 4, size="large", framing="line", run="line")])  # fmt: skip
    mlt = pd.concat([
        cell(file, size="mlt", learning_rate=1e-3),
        cell(shuffled, size="mlt", framing="shuffled", learning_rate=1e-3),
        cell([None], task="facts", size="mlt", facts=[50], learning_rate=1e-3),
    ])  # fmt: skip
    mlt = mlt.reset_index(drop=True)
    return study.optimisation_result(
        widths.reset_index(drop=True), mlt, over_training(mlt), over_training(LADDER)
    )


# of three smalls, of whom one never knows as much as mlt, and three larges, who do half way
LADDER = pd.concat([
    cell([4, 3, 4], size="small", seen=[196, 196, 190]),
    cell([0, 1, 0], size="large", seen=[196, 196, 196]),
    cell([4, 4, 4], size="large", framing="shuffled"), cell([4], size="large", framing="line"),
], ignore_index=True)  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "effect", "verdict"),
    [((0.7, 0.6, 0.8), -0.25, "contradicted"), ((0.7, 0.8, 0.6), 0.0, "undecided")],
)
def test_the_best_rate_is_of_lowest_loss_and_not_of_most_held_out(
    losses: tuple[float, ...], effect: float, verdict: str
) -> None:
    rate = answered([4, 4, 4], [4, 4, 4], losses=losses).claims[0]
    assert (rate.effect.mean, rate.verdict) == (effect, verdict)


@pytest.mark.parametrize(
    ("file", "verdict"),
    [([4, 1, 3], "supported"), ([4, 0, 3], "undecided"), ([0, 0, 0], "contradicted")],
)
def test_every_seed_answers_only_if_every_one_does(file: list[int], verdict: str) -> None:
    assert answered(file, [4, 4, 4]).claims[1].verdict == verdict


@pytest.mark.parametrize(
    ("shuffled", "verdict"),
    [([3, 3, 3], "supported"), ([4, 4, 4], "supported"), ([4, 2, 3], "undecided"),
     ([1, 1, 1], "contradicted")],
)  # fmt: skip
def test_at_least_as_many_is_met_by_as_many(shuffled: list[int], verdict: str) -> None:
    assert answered([3, 3, 3], shuffled).claims[2].verdict == verdict


def test_the_table_has_each_model_beside_the_paper() -> None:
    display = answered([4, 1, 3], [4, 4, 4]).display
    rows = display.set_index(["task", "framing", "size", "rate"])
    row = rows.loc[("arithmetic", "file", "mlt", "0.001")]
    assert (row["held-out"], row["each"], row["paper"]) == ("8/12", "4 1 3", "0/4")
    assert rows.loc[("facts", "file", "mlt", "0.001"), "paper"] == "100.0% facts"
    assert ("arithmetic", "file", "large", "0.003 lowest") in rows.index
    assert rows.loc[("arithmetic", "file", "large", "0.01"), "paper"] == "0/4"
    assert "line" not in set(display["framing"])


def test_sizes_are_compared_when_they_know_as_much() -> None:
    result = answered([4, 4, 4], [4, 3, 4])
    (table,) = result.more_displays.values()
    rows = table.set_index(["framing", "size"])
    assert set(rows["first knowing"]) == {"99% of seen"}
    assert rows["held-out"].to_dict() == {
        ("file", "small"): "7/8", ("file", "large"): "1/12", ("file", "mlt"): "12/12",
        ("shuffled", "large"): "12/12", ("shuffled", "mlt"): "11/12",
    }  # fmt: skip
    assert rows.loc[("file", "small"), ["models", "seen"]].tolist() == ["2 of 3", "392/392"]
    explored = [claim for claim in result.claims if claim.origin == "explored"]
    assert [(claim.effect.mean, claim.null) for claim in explored] == [
        (pytest.approx(1 / 12), 1.0), (1.0, 0.75)
    ]  # fmt: skip
    assert [claim.verdict for claim in explored] == ["supported", "contradicted"]
    assert set(result.tables["optimisation-matched"]["framing"]) == {"file", "shuffled"}


def test_sizes_are_compared_when_they_know_as_much_of_the_order() -> None:
    mlt = cell([4, 4, 4], size="mlt", learning_rate=1e-3)
    over = over_training(mlt).assign(order_known=lambda t: t["step"] / 4_000)
    large = cell([4], size="large")
    result = study.optimisation_result(large, mlt, over, over_training(LADDER))
    (table,) = result.more_displays.values()
    of_order = table[table["first knowing"] == "0.15 of order"]
    assert of_order[["framing", "size", "held-out", "models"]].to_numpy().tolist() == [
        ["file", "mlt", "12/12", "3 of 3"]
    ]


def test_of_facts_alone_nothing_is_compared() -> None:
    facts = cell([None], task="facts", size="mlt", facts=[50], learning_rate=1e-3)
    result = study.optimisation_result(cell([4], size="large"), facts, over_training(facts), LADDER)
    assert result.tables["optimisation-matched"].empty
    assert "1e-2" in str(result)


def test_both_figures_are_drawn() -> None:
    result = answered([4, 1, 3], [4, 4, 4])
    names = {trace.name for trace in result.figures["optimisation"]().data}
    assert {"rate 0.001, file", "rate 0.01, file", "rate 0.001, shuffled"} <= names
    assert len(result.figures["optimisation-mlt"]().data) > 0

"""What a rate does, and what mlt answers, by planted tables."""

import optimisation as study
import pandas as pd
import pytest
from planted_tables import cell, over_training

from tbtt_interp.results import Result

# of three smalls, of whom one never knows as much as mlt, and three larges, who do half way
LADDER = pd.concat([
    cell([4, 3, 4], size="small", seen=[196, 196, 190]),
    cell([0, 1, 0], size="large", seen=[196, 196, 196]),
    cell([4, 4, 4], size="large", framing="shuffled"), cell([4], size="large", framing="line"),
], ignore_index=True)  # fmt: skip


def answered(file: list[int], shuffled: list[int], best: int = 1) -> Result:
    """Large answers 1, 2 and 3 of four at the three rates, of which one has the lowest loss."""
    widths = pd.concat([
        cell([n + 1] * 4, size="large", learning_rate=rate, loss=0.7 - 0.1 * (n == best))
        for n, rate in enumerate((1e-3, 3e-3, 1e-2))
    ] + [cell([4] * 4, size="large", framing="line")])  # fmt: skip
    mlt = pd.concat([
        cell(file, size="mlt", learning_rate=1e-3),
        cell(shuffled, size="mlt", framing="shuffled", learning_rate=1e-3),
        cell([None], task="facts", size="mlt", facts=[50], learning_rate=1e-3),
    ], ignore_index=True)  # fmt: skip
    return study.optimisation_result(mlt, over_training(mlt), widths, over_training(LADDER))


@pytest.mark.parametrize(
    ("best", "file", "shuffled", "effect", "verdicts"),
    [
        (1, [4, 1, 3], [4, 4, 4], -0.25, ["contradicted", "supported", "undecided"]),
        (2, [4, 0, 3], [4, 0, 3], 0.0, ["undecided", "undecided", "supported"]),  # at least as many
        (2, [0, 0, 0], [1, 1, 1], 0.0, ["undecided", "contradicted", "supported"]),
        (1, [3, 3, 3], [1, 1, 1], -0.25, ["contradicted", "supported", "contradicted"]),
    ],
)
def test_the_best_rate_is_of_lowest_loss_and_mlt_s_answers_decide_the_rest(
    best: int, file: list[int], shuffled: list[int], effect: float, verdicts: list[str]
) -> None:
    claims = answered(file, shuffled, best).claims[:3]
    assert claims[0].effect.mean == effect
    assert [claim.verdict for claim in claims] == verdicts


def test_sizes_are_compared_when_they_know_as_much() -> None:
    result = answered([4, 4, 4], [4, 3, 4])
    (table,) = result.more_displays.values()
    rows = table.set_index(["framing", "size"])
    assert rows["held-out"].to_dict() == {
        ("file", "small"): "7/8", ("file", "large"): "1/12", ("file", "mlt"): "12/12",
        ("shuffled", "large"): "12/12", ("shuffled", "mlt"): "11/12",
    }  # fmt: skip
    assert rows.loc[("file", "small"), ["models", "seen"]].tolist() == [2, "392/392"]
    explored = [claim for claim in result.claims if claim.origin == "explored"]
    assert [(claim.effect.mean, claim.null, claim.verdict) for claim in explored] == [
        (pytest.approx(1 / 12), 1.0, "supported"), (1.0, 0.75, "contradicted")
    ]  # fmt: skip
    names = {trace.name for trace in result.figures["optimisation"]().data}
    assert {"rate 0.001, file", "rate 0.01, file", "rate 0.001, shuffled"} <= names

"""Window, exposure and second task are told apart by conditions that differ in one of them."""

import pandas as pd
import pytest
import window as study
from planted_tables import cell

from tbtt_interp.results import Result


def answered(alone: int, long: int, matched: int, joint: int) -> Result:
    """So many of four are answered under each of the conditions."""
    models = pd.concat([
        cell([right] * 4, window=window, batch=batch, steps=12_000, run=str(batch))
        for right, window, batch in ((alone, 9, 882), (long, 24, 576), (matched, 24, 307))
    ])  # fmt: skip
    ladder = pd.concat([
        cell([4] * 8, steps=30_000),
        cell([joint] * 4, task="joint", window=24, batch=576, steps=12_000, facts=[9] * 4),
        cell([0] * 4, task="joint", framing="line", facts=[9] * 4),
    ])  # fmt: skip
    return study.window_result(models.reset_index(drop=True), ladder.reset_index(drop=True))


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ((4, 0, 2, 0), ["supported"] * 3),
        ((1, 4, 1, 4), ["contradicted", "undecided", "contradicted"]),
    ],
)
def test_each_effect_is_the_difference_of_two_conditions_and_claimed_by_it(answers, verdicts):
    result = answered(*answers)
    effects = result.tables["window-effects"].groupby("effect")["value"].mean()
    alone, long, matched, joint = (right / 4 for right in answers)
    expected = [matched - alone, joint - matched, long - matched]
    assert effects[["window", "second task", "exposure"]].tolist() == expected
    assert effects["joint minus alone"] == expected[0] + expected[1]
    window = result.claims[1].effect
    assert (window.mean, window.n) == (expected[0], 8)
    assert window.low <= window.mean <= window.high and window.low < window.high
    assert [claim.verdict for claim in result.claims] == verdicts
    assert result.figures["window"]().data


def test_the_table_has_exposure_and_counts_equations_alone() -> None:
    display = answered(4, 2, 3, 0).display.set_index("trained on")
    exposure = {"arithmetic, window 9": "95", "joint, window 24": "88",
                "arithmetic, window 24, exposed as on joint": "88"}  # fmt: skip
    assert display.loc[list(exposure), "exposure"].to_dict() == exposure
    assert display.loc["joint, window 24", "seen"] == "784/784"
    assert display.loc[study.LADDER, "held-out"] == "16/16"  # seeds of joint

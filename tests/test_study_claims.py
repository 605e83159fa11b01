"""Differences are paired by seed, claims rest on them, and curves show every model."""

import pandas as pd
import pytest
from scipy import stats
from sweeps import by_seed, check_one_each, claim_over_models, interval_note

from tbtt_interp.errors import TbttError
from tbtt_interp.results import Claim

TABLE = pd.DataFrame({
    "framing": ["file"] * 3 + ["line"] * 3, "seed": [0, 1, 2, 2, 1, 7], "size": "small",
    "held_out_accuracy": [0.0, 0.25, 0.5, 0.75, 1.0, 1.0],
})  # fmt: skip


def claim(values: pd.Series) -> Claim:
    return claim_over_models(
        values, text="It is so.", unit="of all", null=0.0, null_name="no difference"
    )


def test_differences_are_paired_by_seed_and_lone_seeds_are_left_out() -> None:
    found = claim(by_seed(TABLE, framing="line") - by_seed(TABLE, framing="file"))
    effects = [1.0 - 0.25, 0.75 - 0.5]
    assert (found.effect.n, found.effect.mean) == (2, pytest.approx(sum(effects) / 2))
    bounds = stats.ttest_1samp(effects, 0).confidence_interval()
    assert (found.effect.low, found.effect.high) == pytest.approx(tuple(bounds))
    assert found.verdict == "undecided", "two pairs decide nothing"


def test_a_claim_without_models_is_not_measured() -> None:
    assert by_seed(TABLE, "loss", framing="file").empty
    found = claim(by_seed(TABLE, framing="shuffled"))
    assert found.verdict == "undecided" and "Not measured" in found.measured


def test_a_seed_twice_in_a_cell_is_an_error() -> None:
    table = pd.DataFrame({"run": ["a", "b", "b"], "size": ["small"] * 3, "seed": [0, 0, 1]})
    message = r"seed 0 occurs twice in one cell \(a and b\): give a folder with the runs of one sw"
    with pytest.raises(TbttError, match=message):
        check_one_each(table, ["size"])


def test_what_few_models_show_is_the_sign_test_s_least_p() -> None:
    note = interval_note([claim(pd.Series([0.25] * 8))])
    assert "has 8 models" in note and f"p = {0.5**8:.3f}" in note

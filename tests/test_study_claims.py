"""Claims of studies rest on differences paired by seed, or on counts of models."""

import importlib

import pandas as pd
import pytest
from scipy import stats
from sweeps import by_seed, claim_over_models, counts_by_model, interval_note, study_result

from tbtt_interp.results import Claim

TABLE = pd.DataFrame({
    "framing": ["file"] * 3 + ["line"] * 3, "seed": [0, 1, 2, 2, 1, 7], "size": "small",
    "held_out_accuracy": [0.0, 0.25, 0.5, 0.75, 1.0, 1.0],
})  # fmt: skip


def claim(values: pd.Series) -> Claim:
    return claim_over_models(values, text="", unit="of all", null=0.0, null_name="no difference")


def test_differences_are_paired_by_seed_and_lone_seeds_are_left_out() -> None:
    effect = claim(by_seed(TABLE, framing="line") - by_seed(TABLE, framing="file")).effect
    effects = [1.0 - 0.25, 0.75 - 0.5]
    bounds = stats.ttest_1samp(effects, 0).confidence_interval()
    assert (effect.n, effect.mean) == (2, pytest.approx(sum(effects) / 2))
    assert (effect.low, effect.high) == pytest.approx(tuple(bounds))


def test_the_note_says_how_few_models_a_claim_has() -> None:
    assert "has 8 models" in interval_note([claim(pd.Series([0.25] * 8)), claim(pd.Series([]))])


def test_counts_are_of_the_models_that_were_asked() -> None:
    table = TABLE.assign(held_out_right=[0, 1, 2, 3, 4, 4], held_out_of=[4, 4, 4, 4, 0, None],
                         knows_all=[0.0, 1, 1, 0, None, 1])  # fmt: skip
    assert counts_by_model(table, framing="line") == [(3, 4)]
    assert counts_by_model(table, "knows_all") == [(0, 1), (1, 1), (1, 1), (0, 1), (1, 1)]
    assert counts_by_model(table, "seen") == []


@pytest.mark.parametrize("name", ["ladder", "window", "atlas", "size", "forecast", "forgetting"])
def test_no_claim_on_a_shipped_table_has_an_interval_without_width(name: str) -> None:
    study = importlib.import_module(name)
    claims = study_result(getattr(study, f"{name}_result"), study.READS).claims
    measured = [claim for claim in claims if claim.effect.n]
    assert measured and all(claim.effect.low < claim.effect.high for claim in measured)

"""The mixed model: planted effects come back, and nulls stay null."""

import mixed_model as study
import numpy as np
import pandas as pd
import pytest
from planted_tables import (
    by_rule,
    fitted_slopes,
    held_out_answers,
    planted_shares,
)
from scipy import stats

from tbtt_interp.errors import TbttError
from tbtt_interp.train.sweep import read_sweep

SHARES = planted_shares(slope=-0.1, by_slope=0.06, by_operator=0.1, by_seed=0.08, seed=1)


@pytest.fixture(scope="module")
def fitted() -> tuple[pd.DataFrame, pd.DataFrame]:
    return study.mixed_model(SHARES)


def test_the_mixed_model_is_the_mean_of_pairs_own_slopes_where_all_is_balanced(fitted) -> None:
    own = fitted_slopes(SHARES)
    oracle = stats.ttest_1samp(own, 0).confidence_interval()
    found = fitted[0].set_index("term").loc["doublings"]
    assert found["effect"] == pytest.approx(np.mean(own), abs=1e-6)
    # variances come by iteration
    assert tuple(found[["low", "high"]]) == pytest.approx(tuple(oracle), abs=5e-4)


def test_the_mixed_model_recovers_planted_effects_and_deviations(fitted) -> None:
    fixed, deviations = fitted
    fixed, sd = fixed.set_index("term"), deviations.set_index("between")["sd"]
    for term, planted_effect in (("doublings", -0.1), ("addition", 0.1), ("equal", 0.0)):
        assert fixed.loc[term, "low"] < planted_effect < fixed.loc[term, "high"], term
    assert not {"gone", "rim"} & set(fixed.index), "what does not vary has no effect"
    # four standard errors of a deviation over 55 pairs are some four tenths of it
    for between, planted_sd in (("pairs", 0.3), ("doubling of width, by pair", 0.06),
                                ("operator, by pair", 0.1), ("seeds of a pair", 0.08)):  # fmt: skip
        assert sd[between] == pytest.approx(planted_sd, rel=0.4), between
    assert sd["shares of a model"] == pytest.approx(0.1, rel=0.2)


def test_the_mixed_model_finds_its_optimum_where_variances_are_zero() -> None:
    """Gradient methods stop on their way there and have no interval, or one that is too wide."""
    shares = planted_shares(pairs=30, seeds=3, by_operator=0.1, noise=0.15, seed=0)
    fixed, deviations = study.mixed_model(shares)
    own = stats.ttest_1samp(fitted_slopes(shares), 0).confidence_interval()
    found = fixed.set_index("term").loc["doublings"]
    assert found["high"] - found["low"] == pytest.approx(own.high - own.low, rel=0.05)
    sd = deviations.set_index("between")["sd"]
    assert sd["seeds of a pair"] < 0.03 and sd["doubling of width, by pair"] < 0.03


def test_a_model_that_cannot_be_fitted_says_what_it_needs() -> None:
    needs = "needs 10 pairs, two sizes and answers that differ, got"
    with pytest.raises(TbttError, match=f"{needs} 5 pairs and 3 sizes: train more of the atlas"):
        study.mixed_model(planted_shares(pairs=5))
    with pytest.raises(TbttError, match=f"{needs} 55 pairs"):
        study.mixed_model(planted_shares().assign(share=1.0))


def test_planted_effects_are_what_the_claims_come_to() -> None:
    result = study.mixed_result(held_out_answers(by_rule))
    size, addition, rim = result.claims
    assert size.text == read_sweep("atlas").expected[0]
    assert [claim.verdict for claim in result.claims] == ["supported"] * 3
    assert size.effect.mean == pytest.approx(-0.1, abs=0.03)
    assert addition.effect.mean == pytest.approx(0.2, abs=0.06)
    assert rim.effect.mean == pytest.approx(-0.4, abs=0.1)
    assert result.figures["mixed-effects"]().data

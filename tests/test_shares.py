"""Intervals of shares cover the mean as often as they say."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from tbtt_interp.shares import difference_of_shares, share_over_models

SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
CORRELATIONS = (0.0, 0.3, 0.6, 0.95)  # of one model's answers
DRAWS = 300


def drawn(share: float, correlation: float, models: int, of: int, seed: int) -> np.ndarray:
    """Right answers of models, of so many prompts each: draw, model."""
    rng, size = np.random.default_rng(seed), (DRAWS, models)
    if correlation == 0:
        return rng.binomial(of, share, size)
    total = (1 - correlation) / correlation
    return rng.binomial(of, rng.beta(share * total, (1 - share) * total, size))


def coverage(models: int, of: int) -> np.ndarray:
    """How often the interval has the true mean share in it: share, correlation."""
    interval = cache(lambda *rights: share_over_models([(right, of) for right in rights]))
    table = np.zeros((len(SHARES), len(CORRELATIONS)))
    for i, share in enumerate(SHARES):
        for j, correlation in enumerate(CORRELATIONS):
            for row in np.sort(drawn(share, correlation, models, of, 10 * i + j)).tolist():
                table[i, j] += interval(*row).low <= share <= interval(*row).high
    return table / DRAWS


@pytest.mark.parametrize(
    ("models", "of", "least"), [(3, 4, 0.75), (5, 40, 0.88), (8, 4, 0.85), (16, 4, 0.9)]
)
def test_the_rule_covers_the_mean(models: int, of: int, least: float) -> None:
    """The least over shares and correlations, and the mean; a draw's error is about 0.013."""
    found = coverage(models, of)
    assert found.min() >= least and found.mean() >= 0.93


@pytest.mark.parametrize("counts", [[(0, 4)] * 4, [(4, 4)] * 16, [(2, 4)] * 8, [(1, 1)]])
def test_an_interval_always_has_a_width_and_its_mean(counts: Sequence[tuple[int, int]]) -> None:
    found = share_over_models(counts)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.high - found.low > 0.03 and found.n == len(counts)
    mirrored = share_over_models([(of - right, of) for right, of in counts])
    assert mirrored.low == pytest.approx(1 - found.high, abs=0.003)


def test_a_difference_is_that_of_the_means_and_reverses() -> None:
    first, second = [(0, 4), (1, 4), (0, 4)] * 2, [(3, 4), (4, 4), (2, 4)] * 2
    found, back = difference_of_shares(first, second), difference_of_shares(second, first)
    assert found.mean == pytest.approx(8 / 12) and found.n == 12
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.006)
    assert 0 < found.low < 0.6 and back.high < 0
    same = difference_of_shares(first, first)
    assert same.low < 0 < same.high


def test_of_nothing_nothing_is_known() -> None:
    assert math.isnan(share_over_models([]).mean)
    assert math.isnan(difference_of_shares([(0, 0)], [(1, 2)]).low)


def test_differences_cover_too() -> None:
    hits = 0
    for k in range(200):
        one, other = (drawn(p, 0.3, 8, 4, 1_000 + k)[k] for p in (0.1, 0.5))
        found = difference_of_shares([(int(x), 4) for x in one], [(int(x), 4) for x in other])
        hits += found.low <= 0.4 <= found.high
    assert hits >= 180

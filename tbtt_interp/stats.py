"""Rates that know their counts, and intervals whose unit is the trained model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share that knows its counts.

    >>> Rate(hits=3, total=4)
    3/4
    >>> Rate(hits=3, total=4).value
    0.75
    """

    hits: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.total:
            raise TbttError(f"a rate needs 0 ≤ hits ≤ total, got {self.hits} of {self.total}")

    @property
    def value(self) -> float:
        """The share, in [0, 1]; nan of nothing."""
        return self.hits / self.total if self.total else math.nan

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(hits=self.hits + other.hits, total=self.total + other.total)

    def __repr__(self) -> str:
        return f"{self.hits}/{self.total}"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over models and the interval it came with; nan bounds where there is one model."""

    mean: float
    low: float
    high: float

    def format(self, digits: int = 2) -> str:
        """For a table.

        >>> Interval(mean=0.5, low=0.25, high=0.75).format()
        '0.50 [0.25, 0.75]'
        """
        if math.isnan(self.low) or self.low == self.high:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def interval_over_seeds(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 9_999, seed: int = 0
) -> Interval:
    """The mean over models and its percentile-bootstrap interval, resampling models.

    The model is the unit: the equations inside one are not independent of each other. With
    fewer than about eight models the interval is too narrow; it says how much these models
    differ, no more.

    Args:
        values: one number a model.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    >>> interval_over_seeds([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    import numpy as np

    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        raise TbttError("an interval over models needs at least one model, got none")
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    drawn = np.random.default_rng(seed).choice(sample, (resamples, sample.size)).mean(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(mean=mean, low=float(low), high=float(high))


def t_interval(
    values: Sequence[float],
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """The mean over models and Student's interval, which few models do not make too narrow.

    Resampling three or four models takes nothing for something one time in four or five; this, one
    in twenty, where what models differ by is near normal. Models that do not differ leave no width.

    Args:
        values: one number a model.
        bounds: what a mean can be, such as 0 and 1 of shares; the interval is cut there.
    Source: Student, The Probable Error of a Mean, Biometrika 6 (1908).

    >>> t_interval([1.0, 2.0, 3.0]).format()
    '2.00 [-0.48, 4.48]'
    """
    import numpy as np
    from scipy import stats

    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        raise TbttError("an interval over models needs at least one model, got none")
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    away = float(stats.sem(sample) * stats.t.ppf((1 + confidence) / 2, sample.size - 1))
    return Interval(mean=mean, low=max(mean - away, bounds[0]), high=min(mean + away, bounds[1]))


def crossed_intervals(
    totals: "np.ndarray",
    weights: "np.ndarray",
    *,
    confidence: float = 0.95,
    resamples: int = 999,
    seed: int = 0,
) -> list[Interval]:
    """Ratios of sums over models and items, with models and items both resampled.

    The same items are asked of every model, so both are drawn anew, each as a whole: an item with
    all its models, a model with all its items. With one model, items alone are.

    Args:
        totals, weights: `[cell, seed, item]`; of each cell the ratio is the sum of its totals over
            the sum of its weights, nan where that is 0.
    Returns:
        an interval a cell.
    Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007).

    >>> import numpy as np
    >>> crossed_intervals(np.ones((1, 2, 3)), np.full((1, 2, 3), 2.0))
    [Interval(mean=0.5, low=0.5, high=0.5)]
    """
    import numpy as np

    _, seeds, items = totals.shape
    generator = np.random.default_rng(seed)
    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    drawn_items = generator.multinomial(items, np.full(items, 1 / items), size=resamples)
    sums = [
        np.einsum("csr,rs->cr", np.asarray(x, float) @ drawn_items.T, drawn_seeds)
        for x in (totals, weights)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = totals.sum((1, 2), dtype=float) / weights.sum((1, 2), dtype=float)
        ratios = np.where(sums[1] != 0, sums[0] / sums[1], np.nan)
    tail = (1 - confidence) / 2
    found = []
    for mean, row in zip(means, ratios, strict=True):
        known = row[np.isfinite(row)]
        alone = seeds * items == 1 or known.size == 0 or not np.isfinite(mean)
        low, high = (math.nan, math.nan) if alone else np.quantile(known, [tail, 1 - tail])
        found.append(Interval(mean=float(mean), low=float(low), high=float(high)))
    return found

"""The difference between two groups of models, paired by seed where both have the same ones."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.stats import Interval, t_interval


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The second group's mean less the first's.

    Attributes:
        models: that it is over, of both groups together.
        pairs: of models with one seed; 0 where the groups have other seeds.
    """

    interval: Interval
    models: int
    pairs: int

    @property
    def is_told_apart(self) -> bool:
        """Whether the interval leaves 0 out; without an interval nothing is."""
        return self.interval.low > 0 or self.interval.high < 0


def difference_over_seeds(first: pd.Series, second: pd.Series) -> Difference:
    """How much larger the second's mean is, with its 95 % interval.

    Models of one seed share what the seed decides, such as the order of their file, so that where
    two seeds or more are shared, the difference is over these alone, seed by seed, with Student's
    interval. Elsewhere it is that of two groups, with Welch's.

    Args:
        first, second: a value a model, by its seed.
    Raises:
        TbttError: if a group is empty, or has a seed twice.
    Source: Welch, The Generalization of "Student's" Problem, Biometrika 34 (1947).

    >>> a, b = pd.Series([0.0, 1.0], [0, 1]), pd.Series([0.5, 1.5, 9.0], [0, 1, 2])
    >>> difference_over_seeds(a, b)
    Difference(interval=Interval(mean=0.5, low=0.5, high=0.5), models=4, pairs=2)
    """
    from scipy.stats import ttest_ind

    first, second = first.dropna().astype(float), second.dropna().astype(float)
    if first.empty or second.empty:
        raise TbttError("a difference needs a model on either side, got none on one")
    if not (first.index.is_unique and second.index.is_unique):
        raise TbttError("a difference needs one value a seed on either side, got one seed twice")
    shared = first.index.intersection(second.index)
    if len(shared) > 1:
        interval = t_interval((second[shared] - first[shared]).tolist())
        return Difference(interval=interval, models=2 * len(shared), pairs=len(shared))
    mean = float(second.mean() - first.mean())
    if min(len(first), len(second)) == 1:  # one model says nothing of how models differ
        low = high = np.nan
    elif first.nunique() == second.nunique() == 1:
        low = high = mean
    else:
        low, high = ttest_ind(second, first, equal_var=False).confidence_interval()
    return Difference(
        interval=Interval(mean=mean, low=float(low), high=float(high)),
        models=len(first) + len(second), pairs=0,
    )  # fmt: skip

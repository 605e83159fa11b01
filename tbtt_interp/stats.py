"""Means over trained models with Student's intervals, and differences of models.

The model is the unit everywhere: the prompts that one model answers are not independent of each
other. Every interval in this package comes from `ratios_over_models`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike

Bounds = tuple[float, float]
ANY: Bounds = (-math.inf, math.inf)
SHARE: Bounds = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over models with its 95 % interval; the bounds are nan where there is one model.

    Attributes:
        n: models that the mean is over; of a difference all models, or pairs where they are paired.
        pairs: of a difference, pairs of models with one seed; 0 where the seeds are others.
    """

    mean: float
    low: float
    high: float
    n: int = 0
    pairs: int = 0

    @classmethod
    def of_row(cls, row: Mapping[Any, Any], value: str) -> "Interval":
        """The interval of a column in one row of a table that `summarize` made."""
        n = row.get("n_models", math.nan)
        return cls(mean=row[value], low=row[f"{value}_low"], high=row[f"{value}_high"],
                   n=0 if math.isnan(n) else int(n))  # fmt: skip

    def format(self, digits: int = 2, *, sign: str = "") -> str:
        """The mean and its interval as text; with sign "+", positive numbers have theirs, too.

        >>> Interval(mean=0.5, low=0.25, high=0.75, n=8).format()
        '0.50 [0.25, 0.75]'
        """
        spec = f"{sign}.{digits}f"
        if math.isnan(self.low) or self.low == self.high:
            return f"{self.mean:{spec}}"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


UNMEASURED = Interval(mean=math.nan, low=math.nan, high=math.nan)


class Intervals(NamedTuple):
    """Means over models with their intervals, for many quantities at once."""

    mean: "np.ndarray"
    low: "np.ndarray"
    high: "np.ndarray"
    n: "np.ndarray"


def ratios_over_models(
    totals: "ArrayLike", weights: "ArrayLike", *, bounds: Bounds = ANY
) -> Intervals:
    """Ratios of sums over models with Student's 95 % intervals, for many quantities at once.

    With equal weights the ratio is the mean over models, and the interval is Student's for a mean.
    Otherwise it is Student's for the linearised ratio estimator.

    Args:
        totals, weights: models on the last axis. A model of weight 0, or with nan, is left out.
        bounds: values that the ratio can have, such as 0 and 1 for a share; intervals end there.
    Source: Student, The Probable Error of a Mean, Biometrika 6 (1908); Cochran, Sampling Techniques
        (1977), section 6.4, for ratios.

    >>> found = ratios_over_models([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]], [[1, 1, 1], [1, 2, 3]])
    >>> found.mean.tolist(), found.low.round(2).tolist(), found.n.tolist()
    ([2.0, 2.0], [-0.48, 2.0], [3, 3])
    """
    import numpy as np
    from scipy import stats

    totals, weights = np.broadcast_arrays(np.asarray(totals, float), np.asarray(weights, float))
    valid = np.isfinite(totals) & np.isfinite(weights) & (weights != 0)
    totals, weights = np.where(valid, totals, 0.0), np.where(valid, weights, 0.0)
    n, weight = valid.sum(-1), weights.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(weight != 0, totals.sum(-1) / weight, np.nan)
        rest = np.where(valid, totals - ratio[..., None] * weights, 0.0) * (n / weight)[..., None]
        error = np.sqrt((rest**2).sum(-1) / (n - 1) / n)
    half = error * stats.t.ppf(0.975, np.maximum(n - 1, 1))
    low, high = (np.where(n > 1, ratio + sign * half, np.nan) for sign in (-1, 1))
    return Intervals(ratio, np.maximum(low, bounds[0]), np.minimum(high, bounds[1]), n)


def mean_over_models(
    values: "Sequence[float] | np.ndarray | pd.Series", *, bounds: Bounds = ANY
) -> Interval:
    """The mean over models with Student's 95 % interval; all nan where no model has a value.

    Student's interval holds its level with three or four models, where the percentile bootstrap is
    too narrow. Models that do not differ leave an interval without width.

    Args:
        values: one number per model; nan where a model has none.
        bounds: values that the mean can have, such as 0 and 1 for a share; the interval ends there.

    >>> mean_over_models([1.0, 2.0, 3.0]).format()
    '2.00 [-0.48, 4.48]'
    """
    import numpy as np

    mean, low, high, n = ratios_over_models(np.asarray(values, float), 1.0, bounds=bounds)
    return Interval(mean=float(mean), low=float(low), high=float(high), n=int(n))


def summarize(
    table: "pd.DataFrame",
    by: Sequence[str],
    values: Sequence[str],
    *,
    weights: str | None = None,
    bounds: Bounds = ANY,
) -> "pd.DataFrame":
    """Means over models of some columns, with `_low` and `_high` beside each, and `n_models`.

    Args:
        table: long form, with a column `seed` and at most one row per group and seed.
        by: columns that name a group; groups keep their order.
        weights: a column that models are weighted by, such as a count; None weights them alike.
    Returns:
        one row per group.
    Raises:
        TbttError: if a seed is in a group twice.

    >>> import pandas as pd
    >>> scores = pd.DataFrame({"site": "z", "seed": [0, 1, 2], "accuracy": [0.5, 0.75, 1.0]})
    >>> summarize(scores, ["site"], ["accuracy"], bounds=SHARE).round(2).to_dict("records")
    [{'site': 'z', 'accuracy': 0.75, 'accuracy_low': 0.13, 'accuracy_high': 1.0, 'n_models': 3}]
    """
    import numpy as np
    import pandas as pd

    groups = table.groupby(list(by), sort=False, dropna=False)
    number, seed = groups.ngroup().to_numpy(), pd.factorize(table["seed"])[0]
    if table.assign(_group=number).duplicated(["_group", "seed"]).any():
        raise TbttError(f"a seed has two rows for one {', '.join(by)}: give one row per model")
    summary = table.loc[~pd.Series(number).duplicated().to_numpy(), list(by)].reset_index(drop=True)

    def grid(column: "pd.Series") -> "np.ndarray":
        found = np.full((groups.ngroups, seed.max(initial=-1) + 1), np.nan)
        found[number, seed] = column.to_numpy(float)
        return found

    n = None
    for name in values:
        weight = np.ones(1) if weights is None else grid(table[weights])
        found = ratios_over_models(grid(table[name]) * weight, weight, bounds=bounds)
        summary[name], summary[f"{name}_low"], summary[f"{name}_high"], *_ = found
        n = found.n if n is None else n.clip(found.n)
    return summary.assign(n_models=n)


def difference_over_models(
    first: "pd.Series", second: "pd.Series", *, bounds: Bounds = ANY
) -> Interval:
    """The second group's mean minus the first's, with its 95 % interval.

    Models of one seed share what the seed decides, such as the order of their file. Where two
    seeds or more are shared, the difference is over these alone, paired by seed, with Student's
    interval. Elsewhere the interval is Welch's for two groups.

    Args:
        first, second: one value per model, indexed by seed.
        bounds: values that the difference can have; the interval ends there.
    Raises:
        TbttError: if a group is empty, or has a seed twice.
    Source: Welch, The Generalization of "Student's" Problem, Biometrika 34 (1947).

    >>> import pandas as pd
    >>> a, b = pd.Series([0.0, 1.0], [0, 1]), pd.Series([0.5, 1.5, 9.0], [0, 1, 2])
    >>> difference_over_models(a, b)
    Interval(mean=0.5, low=0.5, high=0.5, n=2, pairs=2)
    """
    from scipy.stats import ttest_ind

    first, second = first.dropna().astype(float), second.dropna().astype(float)
    if first.empty or second.empty:
        raise TbttError("a difference needs at least one model in each group, got none in one")
    if not (first.index.is_unique and second.index.is_unique):
        raise TbttError("a difference needs one value per seed in each group, got one seed twice")
    shared = first.index.intersection(second.index)
    if len(shared) > 1:
        paired = mean_over_models(second[shared] - first[shared], bounds=bounds)
        return replace(paired, pairs=paired.n)
    mean = float(second.mean() - first.mean())
    if min(len(first), len(second)) == 1:  # one model says nothing about how models differ
        low = high = math.nan
    elif first.nunique() == second.nunique() == 1:
        low = high = mean
    else:
        low, high = ttest_ind(second, first, equal_var=False).confidence_interval()
    low, high = max(float(low), bounds[0]), min(float(high), bounds[1])
    return Interval(mean=mean, low=low, high=high, n=len(first) + len(second))


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for their number; nan stays nan and does not count.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    corrected, least = list(ps), 0.0
    for done, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - done) * p))
        corrected[place] = least
    return corrected

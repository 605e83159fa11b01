"""Shares of prompts that models answer: intervals of the mean share, and of differences.

A model's answers are not independent of each other, so its count is beta-binomial. Student's
interval fails for such counts: where all models answer 0 of 4 it has no width, and at shares near
0 or 1 it covers the mean far too seldom (tests/test_shares.py has the table).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tbtt_interp.errors import TbttError
from tbtt_interp.stats import SHARE, UNMEASURED, Interval, summarize

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from jaxtyping import Float

Counts = Sequence[tuple[int, int]]  # of each model: right answers, and prompts
SHARES, CORRELATIONS = 400, 20  # points of the grid of mean shares and of correlations
TAIL = 0.025


def share_over_models(counts: Counts) -> Interval:
    """The share of all prompts that models answer, with its 95 % interval.

    The interval is the beta-binomial's, with uniform priors of the mean share and of the
    correlation of one model's answers. It always has a width. Models without prompts are left out.
    Source: Skellam, J. Roy. Statist. Soc. B 10 (1948), for the distribution.

    >>> share_over_models([(0, 4)] * 8).format()
    '0.00 [0.00, 0.25]'
    """
    counts = [(right, total) for right, total in counts if total]
    if not counts:
        return UNMEASURED
    density = _posterior(counts)
    mean = sum(right for right, _ in counts) / sum(total for _, total in counts)
    low, high = _bounds(density, 0.0)
    return Interval(mean=mean, low=min(low, mean), high=max(high, mean), n=len(counts))


def summarize_shares(
    table: "pd.DataFrame", by: Sequence[str], values: Sequence[str], *, of: str
) -> "pd.DataFrame":
    """Means over models of shares, as `summarize` has them, with intervals that have a width.

    Intervals are Student's, but the beta-binomial's where models do not differ.

    Args:
        of: the column with the number of prompts that a model's shares are of.

    >>> import pandas as pd
    >>> scores = pd.DataFrame({"site": "z", "seed": range(8), "accuracy": 0.0, "n_prompts": 4})
    >>> found = summarize_shares(scores, ["site"], ["accuracy"], of="n_prompts")
    >>> found.to_dict("records")[0]["accuracy_high"].__round__(4)
    0.2525
    """
    summary = summarize(table, by, values, bounds=SHARE)
    number = table.groupby(list(by), sort=False, dropna=False).ngroup()
    for value in values:
        ends = [f"{value}_low", f"{value}_high"]
        for k in summary.index[summary[ends[0]] == summary[ends[1]]]:
            rows = table.loc[number == k, [value, of]].dropna().to_numpy()
            found = share_over_models([(round(share * n), int(n)) for share, n in rows])
            summary.loc[k, ends] = found.low, found.high
    return summary


def difference_of_shares(first: Counts, second: Counts) -> Interval:
    """The second group's share minus the first's, with the 95 % interval of independent groups.

    >>> difference_of_shares([(0, 4)] * 8, [(4, 4), (3, 4)] * 4).format(sign="+")
    '+0.88 [+0.51, +0.91]'
    """
    import numpy as np

    one, other = share_over_models(first), share_over_models(second)
    if not (one.n and other.n):
        return UNMEASURED
    density = np.convolve(_posterior(list(second)), _posterior(list(first))[::-1])
    low, high = _bounds(density, -1.0)
    mean = other.mean - one.mean
    return Interval(mean=mean, low=min(low, mean), high=max(high, mean), n=one.n + other.n)


def _bounds(density: "Float[np.ndarray, ' point']", start: float) -> tuple[float, float]:
    """The values that 2.5 % of a density on points 1 / SHARES apart lie below, and above."""
    below = density.cumsum()
    low = float((below < TAIL).sum()) / SHARES
    high = float((below < 1 - TAIL).sum() + 1) / SHARES
    shift = start + (0.5 / SHARES if start else 0.0)
    return max(start, low + shift), min(1.0, high + shift)


def _posterior(counts: Counts) -> "Float[np.ndarray, ' share']":
    """The density of the mean share on the grid's points."""
    import numpy as np

    total = sum(_log_likelihood(right, of) for right, of in counts if of)
    weights = np.exp(total - np.max(total)).sum(1)
    return weights / weights.sum()


@lru_cache(maxsize=1_024)
def _log_likelihood(right: int, of: int) -> "Float[np.ndarray, 'share correlation']":
    """The beta-binomial's log-probability of a count, up to a constant of the count."""
    import numpy as np
    from scipy.special import betaln

    if not 0 <= right <= of:
        raise TbttError(f"a share needs 0 ≤ right answers ≤ prompts, got {right} of {of}")
    share = (np.arange(SHARES) + 0.5) / SHARES
    correlation = (np.arange(CORRELATIONS) + 0.5) / CORRELATIONS
    size = (1 - correlation) / correlation
    a, b = share[:, None] * size, (1 - share[:, None]) * size
    return betaln(a + right, b + of - right) - betaln(a, b)

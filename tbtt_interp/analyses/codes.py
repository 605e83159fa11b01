"""How the vectors that stand for ordered values lie: measures of a code, and of two.

A code is a vector for each value, or many such, `[*draw, value, d]`; every measure is of the code
about its mean.
"""

import numpy as np
from einops import einsum
from jaxtyping import Float


def centred(code: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw value d"]:
    """A code about its mean."""
    return code - code.mean(-2, keepdims=True)


def number_line(
    code: Float[np.ndarray, "*draw value d"], values: Float[np.ndarray, " value"]
) -> Float[np.ndarray, "*draw"] | float:
    """The share of a code's variance that is linear in the value: the R² of one line in space.

    Of a code in random order it is 1 / (values - 1) on average.

    >>> digits = np.arange(10.0)
    >>> round(float(number_line(np.stack([3 * digits, 1 - digits], -1), digits)), 6)
    1.0
    """
    x, y = values - values.mean(), centred(code)
    along = einsum(x, y, "value, ... value d -> ... d")
    return (along**2).sum(-1) / (x @ x) / (y**2).sum((-2, -1))


def spectrum(code: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw frequency"]:
    """Shares of a code's variance at each frequency over the values, from 1 turn to the most.

    >>> turn = 2 * np.pi * np.arange(10) / 10
    >>> spectrum(np.stack([np.cos(2 * turn), np.sin(2 * turn)], -1)).round(6) + 0
    array([0., 1., 0., 0., 0.])
    """
    count = code.shape[-2]
    power = (np.abs(np.fft.rfft(centred(code), axis=-2)) ** 2).sum(-1)[..., 1:]
    power[..., : (count - 1) // 2] *= 2  # all but the highest of an even count stand for two
    return power / power.sum(-1, keepdims=True)


def explained(code: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw component"]:
    """Shares of a code's variance along its principal components."""
    variances = np.linalg.svd(centred(code), compute_uv=False) ** 2
    return variances / variances.sum(-1, keepdims=True)


def effective_rank(code: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw"] | float:
    """How many directions a code takes, counted by how evenly its variance is spread over them.

    The exponential of the entropy of `explained`.
    Source: Roy and Vetterli 2007, The effective rank; there of singular values, here of variances.

    >>> round(float(effective_rank(np.eye(4))), 6)
    3.0
    """
    shares = explained(code)
    return np.exp(-(shares * np.log(np.maximum(shares, 1e-30))).sum(-1))


def distances(code: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw value other"]:
    """Euclidean distances between values."""
    products = einsum(code, code, "... value d, ... other d -> ... value other")
    squares = np.diagonal(products, axis1=-2, axis2=-1)
    return np.sqrt(np.maximum(squares[..., None] + squares[..., None, :] - 2 * products, 0))


def distance_order(
    code: Float[np.ndarray, "*draw value d"], values: Float[np.ndarray, " value"]
) -> Float[np.ndarray, "*draw"] | float:
    """Spearman's correlation of distances in a code with differences of the values."""
    from scipy.stats import rankdata

    pairs = np.triu_indices(len(values), 1)
    found = rankdata(distances(centred(code))[..., *pairs].round(12), axis=-1)
    known = rankdata(np.abs(values[:, None] - values)[pairs])
    x, y = known - known.mean(), found - found.mean(-1, keepdims=True)
    return (x * y).sum(-1) / np.sqrt((x**2).sum() * (y**2).sum(-1))


def alignment(
    a: Float[np.ndarray, "*#draw value d"], b: Float[np.ndarray, "*#draw value d"]
) -> Float[np.ndarray, "..."] | float:
    """The cosine of two codes as single vectors: 1 is one code twice, -1 a code and its negative.

    It is the mean cosine of equal values' vectors, weighted by their lengths.
    """
    a, b = centred(a), centred(b)
    sizes = (a**2).sum((-2, -1)) * (b**2).sum((-2, -1))
    return (a * b).sum((-2, -1)) / np.sqrt(sizes)


def cka(
    a: Float[np.ndarray, "*#draw value d_a"], b: Float[np.ndarray, "*#draw value d_b"]
) -> Float[np.ndarray, "..."] | float:
    """Linear centred kernel alignment: whether two codes have one shape, turned in any way.

    Of few values in many dimensions it is high for any two codes: read it beside its null.
    Source: Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, eq. 3.
    """
    of = "... value d, ... other d -> ... value other"
    k, l = (einsum(centred(x), centred(x), of) for x in (a, b))  # noqa: E741
    norms = [np.sqrt((x**2).sum((-2, -1))) for x in (k, l)]
    return (k * l).sum((-2, -1)) / norms[0] / norms[1]

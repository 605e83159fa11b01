"""Representations of ordered values: one vector per value, and measures of their geometry.

A representation is `[value, d]`; measures take many at once, as `[*draw, value, d]`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from einops import einsum
from jaxtyping import Float

from tbtt_interp.activations import cached
from tbtt_interp.analyses.operand_grid import cells, operand_grids
from tbtt_interp.errors import TbttError
from tbtt_interp.prompts import PromptSet

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

FEWEST_VALUES = 4  # of which an order means anything
EMBEDDINGS = "hook_embed"
SITES = ("hook_attn_out", "hook_resid_mid", "hook_resid_post")


@dataclass(frozen=True, kw_only=True)
class Representation:
    """A vector for each value of an operand, at a site, under an operator (embeddings: none)."""

    site: str
    operator: str
    operand: str
    values: Float[np.ndarray, " value"]
    vectors: Float[np.ndarray, "value d"]

    @property
    def name(self) -> str:
        """The operand and its operator, as in `b of a-b`."""
        return f"{self.operand} of a{self.operator}b" if self.operator else self.operand


def operand_representations(model: "HookedTransformer", prompts: PromptSet) -> list[Representation]:
    """Operand values' embeddings, where each is one token, and main effects on activations.

    A main effect is a mean over the other operand and over all prompts, held out or not, centred.
    Activations are each layer's attention output and streams at the prompt's last position.

    Raises:
        TbttError: if there is no grid of operands, or an operand has no ordered values.
    """
    operands = prompts.require_grids()
    every = {value for pair in operands.values() for values in pair for value in values}
    fewest = min(len(values) for pair in operands.values() for values in pair)
    if fewest < FEWEST_VALUES or not all(isinstance(value, int | float) for value in every):
        raise TbttError(
            f"the operands here have no order: geometry needs at least {FEWEST_VALUES} numbers as "
            "values of a and of b"
        )
    digits, found = sorted(every), []
    tokens = [prompts.vocabulary.encode(str(value)) for value in digits]
    if all(len(token) == 1 for token in tokens):
        rows = model.W_E[[token[0] for token in tokens]].detach().double().cpu().numpy()
        found.append(Representation(site=EMBEDDINGS, operator="", operand="digits",
                                    values=np.array(digits, float), vectors=rows))  # fmt: skip
    names = [f"blocks.{layer}.{site}" for layer in range(model.cfg.n_layers) for site in SITES]
    names = [name for name in names if name in model.hook_dict]
    equations, sizes = operand_grids(prompts)
    batch = equations.batch().first_tokens()
    cache = cached(model, batch.tokens, names)[1]
    for site in names:
        last = batch.at_answers(cache[site]).double().cpu()
        for operator, grid in cells(last, sizes).items():
            x = (grid - grid.mean((0, 1))).numpy()
            for operand, values, axis in zip("ab", operands[operator], (1, 0), strict=True):
                found.append(Representation(
                    site=site, operator=operator, operand=operand,
                    values=np.array(values, float), vectors=x.mean(axis),
                ))  # fmt: skip
    return found


def centred(x: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw value d"]:
    """Vectors minus their mean."""
    return x - x.mean(-2, keepdims=True)


def number_line(
    x: Float[np.ndarray, "*draw value d"], values: Float[np.ndarray, " value"]
) -> Float[np.ndarray, "*draw"] | float:
    """The share of variance that is linear in the value: the R² of one line in space.

    With permuted values it is 1 / (values - 1) on average.

    >>> digits = np.arange(10.0)
    >>> round(float(number_line(np.stack([3 * digits, 1 - digits], -1), digits)), 6)
    1.0
    """
    v, y = values - values.mean(), centred(x)
    along = einsum(v, y, "value, ... value d -> ... d")
    return (along**2).sum(-1) / (v @ v) / (y**2).sum((-2, -1))


def spectrum(x: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw frequency"]:
    """Shares of variance at each frequency over the values, from 1 turn to the most.

    >>> turn = 2 * np.pi * np.arange(10) / 10
    >>> spectrum(np.stack([np.cos(2 * turn), np.sin(2 * turn)], -1)).round(6) + 0
    array([0., 1., 0., 0., 0.])
    """
    power = (np.abs(np.fft.rfft(centred(x), axis=-2)) ** 2).sum(-1)[..., 1:]
    power[..., : (x.shape[-2] - 1) // 2] *= 2  # all but the highest of an even count are two
    return power / power.sum(-1, keepdims=True)


def explained_variance(
    x: Float[np.ndarray, "*draw value d"],
) -> Float[np.ndarray, "*draw component"]:
    """Shares of variance along the principal components."""
    variances = np.linalg.svd(centred(x), compute_uv=False) ** 2
    return variances / variances.sum(-1, keepdims=True)


def effective_rank(x: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw"] | float:
    """The exponential of the entropy of `explained_variance`: a number of directions.

    Source: Roy and Vetterli 2007, The effective rank; there of singular values, here of variances.

    >>> round(float(effective_rank(np.eye(4))), 6)
    3.0
    """
    shares = explained_variance(x)
    return np.exp(-(shares * np.log(np.maximum(shares, 1e-30))).sum(-1))


def distances(x: Float[np.ndarray, "*draw value d"]) -> Float[np.ndarray, "*draw value other"]:
    """Euclidean distances between values."""
    return np.linalg.norm(x[..., None, :] - x[..., None, :, :], axis=-1)


def distance_order(
    x: Float[np.ndarray, "*draw value d"], values: Float[np.ndarray, " value"]
) -> Float[np.ndarray, "*draw"] | float:
    """Spearman's correlation of distances between vectors with differences between values."""
    from scipy.stats import rankdata

    pairs = np.triu_indices(len(values), 1)
    ranks = rankdata(distances(centred(x))[..., *pairs].round(12), axis=-1)
    known = rankdata(np.abs(values[:, None] - values)[pairs])
    v, y = known - known.mean(), ranks - ranks.mean(-1, keepdims=True)
    return (v * y).sum(-1) / np.sqrt((v**2).sum() * (y**2).sum(-1))


def alignment(
    a: Float[np.ndarray, "*#draw value d"], b: Float[np.ndarray, "*#draw value d"]
) -> Float[np.ndarray, "..."] | float:
    """The cosine of two representations as single vectors: 1 is equal, -1 is opposite."""
    a, b = centred(a), centred(b)
    return (a * b).sum((-2, -1)) / np.sqrt((a**2).sum((-2, -1)) * (b**2).sum((-2, -1)))


def cka(
    a: Float[np.ndarray, "*#draw value d_a"], b: Float[np.ndarray, "*#draw value d_b"]
) -> Float[np.ndarray, "..."] | float:
    """Linear centred kernel alignment: whether two representations are equal up to a rotation.

    With few values in many dimensions it is high for any two: compare it with its null.
    Source: Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, eq. 3.
    """
    pattern = "... value d, ... other d -> ... value other"
    k, l = (einsum(centred(x), centred(x), pattern) for x in (a, b))  # noqa: E741
    norms = [np.sqrt((x**2).sum((-2, -1))) for x in (k, l)]
    return (k * l).sum((-2, -1)) / norms[0] / norms[1]

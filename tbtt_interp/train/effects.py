"""How a recipe's interventions act on models in training.

Their numbers are made by elementary arithmetic, so that they are the same bits on every machine.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.kernel import Projection
from tbtt_interp.metrics import Row
from tbtt_interp.model import Parameters, Shape, is_matrix, normal_numbers, parameter_shapes
from tbtt_interp.tasks import Vocabulary
from tbtt_interp.tasks.task import permutation, random_bits
from tbtt_interp.train.changes import Changes

DIGITS = "0123456789"
CURVE = 1.2  # radians of the arc per 4.5 digits
FITTED = 0.99  # share of the seen prompts right, from which a model counts as fitted
ORDER, AXES = 0xD161, 3  # salt of random digit orders; Philox key of random directions
SINE_TERMS = 12  # of the sine's series, exact to the last bit to pi/2


def sine(angle: float) -> float:
    """The sine of an angle up to pi/2 by elementary arithmetic, the same on every machine."""
    total = 0.0
    for k in range(SINE_TERMS, -1, -1):
        total = total * (-angle * angle) + 1 / math.factorial(2 * k + 1)
    return angle * total


def orthonormal(count: int, width: int, seed: int) -> Float[np.ndarray, "count width"]:
    """Random orthonormal directions, the same bits on every machine.

    Gram and Schmidt's method, twice for precision, with correctly rounded sums.
    """
    if count > width:
        raise TbttError(
            f"{count} orthogonal directions need as many channels, the model has {width}"
        )
    found: list[Float[np.ndarray, " width"]] = []
    for vector in normal_numbers(seed, count * width, AXES).reshape(count, width):
        rest = vector
        for _ in range(2):
            for unit in found:
                rest = rest - math.fsum(rest * unit) * unit
        found.append(rest / math.sqrt(math.fsum(rest * rest)))
    return np.array(found)


def digit_code(digits: str) -> Float[np.ndarray, "digit dimension"]:
    """The ten digits on a line, on an arc, or orthogonal to each other."""
    places = [(digit - 4.5) / 4.5 for digit in range(10)]
    if digits == "line":
        return np.array(places)[:, None]
    if digits == "arc":
        quarter = math.pi / 2
        angles = [CURVE * place for place in places]
        return np.array([(sine(angle), sine(quarter - abs(angle))) for angle in angles])
    return np.eye(10)


def second_differences(order: Sequence[int]) -> Float[np.ndarray, "digit digit"]:
    """DᵀD of the second differences D of rows taken in this order."""
    differences = np.zeros((8, 10))
    for k in range(8):
        differences[k, [order[k], order[k + 1], order[k + 2]]] = 1, -2, 1
    return differences.T @ differences


def rows_of(changes: Changes, vocabulary: Vocabulary) -> Int[np.ndarray, " row"]:
    """The rows of W_E that a code or its control confines."""
    characters = list(vocabulary.characters)
    if changes.digits != "rank" or changes.rows == "digits":
        if absent := [digit for digit in DIGITS if digit not in characters]:
            raise TbttError(f"the task has no digit {absent[0]}: changes.digits needs all ten")
        return np.array([characters.index(digit) for digit in DIGITS])
    others = [k for k, character in enumerate(characters) if character not in DIGITS]
    return np.array(others if changes.rows == "others" else range(len(characters)))


def projection_of(
    changes: Changes, vocabulary: Vocabulary, d_model: int, seed: int,
    grafted: Float[np.ndarray, "digit channel"] | None = None,
) -> Projection | None:  # fmt: skip
    """The map of one model's rows after each step; None if the recipe does not map rows.

    `grafted` has the digits' rows of another model, at most as wide.
    """
    code, smooth = changes.digits, changes.smooth
    if code == "free" and not smooth:
        return None
    rows = rows_of(changes, vocabulary)
    count = len(rows)
    left, by_rate, right = np.eye(count), np.zeros((count, count)), np.eye(d_model)
    constant, order = np.zeros((count, d_model)), list(range(10))
    if changes.order == "random":
        order = permutation(10, random_bits(seed, ORDER))
    if code == "rank":
        if changes.rank > d_model:
            raise TbttError(f"changes.rank is {changes.rank}, the model has {d_model} channels")
        axes = np.eye(d_model)[: changes.rank]
        if changes.axes == "random":
            axes = orthonormal(changes.rank, d_model, seed)
        right = np.array([[math.fsum(x * y) for y in axes.T] for x in axes.T])
    elif code != "free":
        values = digit_code(code) if grafted is None else grafted
        directions = orthonormal(values.shape[1], d_model, seed)
        size = changes.scale if grafted is None else 1.0
        mapped = [[size * math.fsum(x * y) for y in directions.T] for x in values]
        constant[order] = mapped
        left = np.zeros_like(left)
    if smooth:
        by_rate = -smooth * second_differences(order)
    return Projection(rows, left, by_rate, right, constant)


def project(weights: Parameters, maps: Sequence[Projection], rate: float) -> None:
    """Applies each model's map to its embedding, in torch and in place."""
    for stacked, of in zip(weights["embed.W_E"].detach(), maps, strict=True):
        left, right, constant = (
            torch.from_numpy(x).to(stacked)
            for x in (of.left + rate * of.left_by_rate, of.right, of.constant)
        )
        mapped = _product(_product(left, stacked[of.rows]), right)
        stacked[of.rows] = mapped + constant


def _product(x: Float[Tensor, "row inner"], y: Float[Tensor, "inner column"]) -> Tensor:
    """A product of matrices, summed term by term: the same bits on every machine."""
    return functools.reduce(torch.add, (x[:, k : k + 1] * y[k] for k in range(len(y))))


def rate_factors(changes: Changes, shape: Shape) -> dict[str, float]:
    """The factor of the learning rate of each parameter."""
    groups = {"embed": changes.rate_embed, "pos_embed": changes.rate_embed}
    inner = {"attn": changes.rate_attention, "mlp": changes.rate_mlp}
    factors = {}
    for name in parameter_shapes(shape):
        first, *rest = name.split(".")
        factors[name] = groups.get(first, inner.get(rest[1], 1.0) if len(rest) > 1 else 1.0)
    return factors


def scaled(parameters: Parameters, changes: Changes) -> Parameters:
    """Initial parameters with their matrices scaled."""
    factor = changes.initial_scale
    return {n: x * factor if is_matrix(n) else x for n, x in parameters.items()}


def norm_of(parameters: Parameters, model: int) -> float:
    """The norm of all of one model's parameters; the sum is rounded once."""
    flat = torch.cat([x[model].flatten() for x in parameters.values()]).double()
    return math.sqrt(math.fsum(flat.square().tolist()))


def is_fitted(row: Row) -> bool:
    """Whether an evaluation of a model has enough of the seen prompts right."""
    seen = [counts for name, counts in row.items() if name.startswith("seen_")]
    total = sum(total for _, total in seen)
    return total > 0 and sum(right for right, _ in seen) >= FITTED * total

"""Operand grids: every equation a operator b, and activations over them."""

import numpy as np
from jaxtyping import Int

from tbtt_interp.prompts import PromptSet


def example_grids(prompts: PromptSet) -> dict[str, Int[np.ndarray, "a b"]]:
    """For each operator that has all its equations, the example number of each equation.

    Raises:
        TbttError: if there is no grid of operands.
    """
    number = {(e.labels.get("operator"), e.labels.get("a"), e.labels.get("b")): k
              for k, e in enumerate(prompts.examples)}  # fmt: skip
    return {
        operator: np.array([[number[operator, x, y] for y in b] for x in a])
        for operator, (a, b) in prompts.require_grids().items()
    }

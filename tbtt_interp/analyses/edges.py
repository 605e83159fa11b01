"""Edges of attention cut, drawn at random, and patterns replaced."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def cut(
    pattern: Float[Tensor, "row head query key"],
    hook: object,
    *,
    head: int,
    edges: Bool[Tensor, "row query key"],
) -> Float[Tensor, "row head query key"]:
    """A hook that takes edges away; the rest of the query's attention is scaled up to one.

    Where nothing is left, all of it stays away.
    """
    pattern = pattern.clone()
    kept = pattern[:, head] * ~edges
    pattern[:, head] = kept / kept.sum(-1, keepdim=True).clamp(min=1e-9)
    return pattern


def replace_pattern(
    pattern: Float[Tensor, "row head query key"],
    hook: object,
    *,
    head: int,
    by: Float[Tensor, "row query key"],
) -> Float[Tensor, "row head query key"]:
    """A hook that puts another pattern in place of one head's."""
    pattern = pattern.clone()
    pattern[:, head] = by
    return pattern


def random_edges(
    edges: Bool[Tensor, "row query key"], generator: np.random.Generator
) -> Bool[Tensor, "row query key"]:
    """For each query as many other keys before it, or its own, as it loses by these edges.

    Fewer where there are not so many others.
    """
    size = edges.shape[-1]
    others = torch.ones(size, size, dtype=torch.bool).tril() & ~edges
    order = torch.from_numpy(generator.random(edges.shape)).masked_fill(~others, torch.inf)
    rank = order.argsort(-1).argsort(-1)
    return (rank < edges.sum(-1, keepdim=True)) & others


def even_pattern(size: int) -> Float[Tensor, "query key"]:
    """Attention that is the same on every key before a query and its own."""
    seen = torch.ones(size, size).tril()
    return seen / seen.sum(-1, keepdim=True)

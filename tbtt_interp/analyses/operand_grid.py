"""Operand grids: every equation a operator b, and a model's activations over them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import cached, split_head, unknown_site
from tbtt_interp.interventions import Location
from tbtt_interp.prompts import PromptBatch, PromptSet

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

LOGITS = "logits"  # minus their mean over the vocabulary, which decides nothing
LAYER_SITES = (
    "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out",
    "hook_resid_post",
)  # fmt: skip
NO_VECTORS = ("hook_pattern", "hook_attn_scores")  # of a pair of positions, not of one
GridSizes = Mapping[str, tuple[int, int]]


def operand_grids(prompts: PromptSet) -> tuple[PromptSet, GridSizes]:
    """The equations of complete grids alone, and how many values a and b have, by operator.

    Equations are ordered by operator, then a, then b.

    Raises:
        TbttError: if there is no grid of operands.
    """
    number = {(e.labels.get("operator"), e.labels.get("a"), e.labels.get("b")): k
              for k, e in enumerate(prompts.examples)}  # fmt: skip
    grids = prompts.require_grids()
    chosen = [number[o, x, y] for o, (a, b) in grids.items() for x in a for y in b]
    equations = dataclasses.replace(
        prompts, examples=tuple(prompts.examples[k] for k in chosen),
        held_out=prompts.held_out[chosen],
    )  # fmt: skip
    return equations, {operator: (len(a), len(b)) for operator, (a, b) in grids.items()}


def answer_groups(equations: PromptSet, batch: PromptBatch) -> list[Int[Tensor, " answer"]]:
    """The numbers of the answer tokens, by operator and position in the answer."""
    operators = [equations.examples[k].labels["operator"] for k in batch.answer_example.tolist()]
    keys = list(zip(operators, batch.place_in_answer.tolist(), strict=True))
    of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    number = torch.tensor([of[key] for key in keys])
    return [(number == k).nonzero().squeeze(1) for k in range(len(of))]


def cells(
    values: Float[Tensor, "equation d"], sizes: GridSizes
) -> dict[str, Float[Tensor, "a b d"]]:
    """Values of all equations as one grid per operator."""
    parts = values.split([a * b for a, b in sizes.values()])
    return {o: part.unflatten(0, sizes[o]) for o, part in zip(sizes, parts, strict=True)}


def grid_sites(model: "HookedTransformer", sites: Sequence[str] | None = None) -> list[str]:
    """These sites, with a number behind for one head, or those of LAYER_SITES and the logits.

    Raises:
        TbttError: if one is unknown, or has no vector for each position.
    """
    cache = cached(model, torch.zeros(1, 1, dtype=torch.long), list(model.hook_dict))[1]
    hooks = {name: value.ndim for name, value in cache.items() if not name.endswith(NO_VECTORS)}
    if sites is None:
        layers = range(model.cfg.n_layers)
        every = (f"blocks.{layer}.{site}" for layer in layers for site in LAYER_SITES)
        return [*(site for site in every if site in hooks), LOGITS]
    heads = range(model.cfg.n_heads)
    known = [LOGITS, *hooks, *(f"{hook}.{k}" for hook, n in hooks.items() if n == 4 for k in heads)]
    for site in sites:
        if site not in known:
            raise unknown_site(site, known)
    return list(sites)


def read_sites(
    model: "HookedTransformer", batch: PromptBatch, sites: Sequence[str]
) -> dict[str, Float[Tensor, "row pos d"]]:
    """A vector per position at each site, and the logits."""
    logits, cache = cached(
        model, batch.tokens, sorted({split_head(s)[0] for s in sites} - {LOGITS})
    )
    found = {LOGITS: (logits - logits.mean(-1, keepdim=True)).cpu()}
    for site in set(sites) - {LOGITS}:
        found[site] = Location.of(site).read(cache).flatten(2).cpu()
    return found

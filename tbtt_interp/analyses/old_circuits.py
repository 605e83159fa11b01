"""Circuits: what the strongest edges alone answer, beside as many drawn at random."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from tbtt_interp.analyses.findings import Tell, silent
from tbtt_interp.analyses.old_graph import (
    Edge,
    difference,
    edge_hooks,
    edges_of,
    outputs_of,
    split_inputs,
)
from tbtt_interp.analyses.old_pairs import Pairs
from tbtt_interp.analyses.parts import Arrays
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions
from tbtt_interp.old_interventions import logits_of
from tbtt_interp.stats import mean_over_models

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

RANDOM = 10  # circuits drawn for each size


def circuits_table(
    subject: Subject, pairs: Pairs, effects: Arrays, *, tell: Tell = silent, seed: int = 0
) -> pd.DataFrame:
    """What the strongest edges alone answer: every other edge carries the corrupted run.

    Edges are ranked by their exact effect on half of the pairs, by clean example, and asked on the
    others. The null is as many edges drawn at random.

    Args:
        effects: as `edge_effects` has them.
    Returns:
        a row a number of `edges`, of the `all` there are: `faithful`, the share of the logit
        difference that is left, with `low`, `high` over models; `random`, its mean over drawn
        circuits and `random_most`, the most of them, each averaged over models; `right` and `of`,
        characters answered right, all models together, and `right_random`, on average.
    Source: faithfulness and its null, Shi et al. 2024.
    """
    generator = np.random.default_rng((seed, 0xC1))
    names = np.unique(pairs.clean)
    if len(names) < 2:
        raise TbttError(
            "a circuit needs two clean prompts at least, one to rank edges on and one to ask: "
            "give more pairs"
        )
    ranked_on = np.isin(pairs.clean, generator.permutation(names)[: len(names) // 2])
    second = pairs.take(np.flatnonzero(~ranked_on))
    clean, corrupt = (second.questions(x) for x in (second.clean, second.corrupt))
    edges = edges_of(subject.models[0], pairs.questions(pairs.corrupt))  # as the effects are
    powers = [m * 2**n for n in range(12) for m in (1, 3) if m * 2**n < len(edges)]
    sizes = sorted({0, *powers, len(edges)})
    rows = []
    for k, name in enumerate(subject.seeds):
        model = subject.models[k]
        effect = effects["exact"][k, 0, : len(edges)][:, ranked_on].sum(1)
        order = np.argsort(-np.abs(effect))
        bounds = [difference(model, q, second.wrong).sum() for q in (corrupt, clean)]
        with split_inputs(model):
            donor = outputs_of(model, corrupt)
            for size in sizes:
                drawn = [generator.permutation(len(edges))[:size] for _ in range(RANDOM)]
                if size in (0, len(edges)):
                    drawn = [order[:size]]
                found = [
                    _answered(model, clean, donor, second, edges, set(kept.tolist()))
                    for kept in (order[:size], *drawn)
                ]
                share = [float((x - bounds[0]) / (bounds[1] - bounds[0])) for x, _ in found]
                rows.append({
                    "seed": name, "edges": size, "all": len(edges), "faithful": share[0],
                    "random": float(np.mean(share[1:])), "random_most": max(share[1:]),
                    "right": found[0][1], "of": len(clean.target),
                    "right_random": float(np.mean([right for _, right in found[1:]])),
                })  # fmt: skip
        tell(k + 1, len(subject.seeds))
    found = []
    for size, some in pd.DataFrame(rows).groupby("edges"):
        interval = mean_over_models(some["faithful"].tolist())
        means = some[["random", "random_most"]].mean().to_dict()
        sums = some[["right", "of", "right_random"]].sum().to_dict()
        found.append({"edges": size, "all": some["all"].iloc[0], "faithful": interval.mean,
                      "low": interval.low, "high": interval.high, **means, **sums})  # fmt: skip
    return pd.DataFrame(found)


def _answered(
    model: "HookedTransformer",
    clean: Questions,
    donor: dict[str, Tensor],
    pairs: Pairs,
    edges: Sequence[Edge],
    kept: set[int],
) -> tuple[Tensor, int]:
    """Summed logit difference of a circuit alone, and the characters that it gets right."""
    cut = [edge for number, edge in enumerate(edges) if number not in kept]
    logits = logits_of(model, clean, edge_hooks(model, clean, donor, cut))
    right = logits.gather(1, clean.target[:, None]) - logits.gather(1, pairs.wrong[:, None])
    return right.sum(), int((logits.argmax(1) == clean.target).sum())

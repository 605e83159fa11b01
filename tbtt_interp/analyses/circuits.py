"""Fast approximations of what an edge does, and circuits: what the strongest edges alone answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.analyses.graph import (
    EMBED,
    Edge,
    Outputs,
    at_position,
    edge_hooks,
    edges_of,
    logit_differences,
    receivers_of,
    sender_outputs,
    senders_of,
)
from tbtt_interp.analyses.pairs import Pairs
from tbtt_interp.analyses.patching import answer_scores
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import answer_logits, gradients, split_inputs
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.seeds import Arrays
from tbtt_interp.stats import ratios_over_models

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

STEPS = 5  # of the integral, as Hanna et al. 2024 take
RANDOM = 10  # random circuits of each size


def edge_attributions(
    model: "HookedTransformer",
    batch: PromptBatch,
    corrupted_tokens: Int[Tensor, " answer"],
    source: Outputs,
    own: Outputs,
    edges: Sequence[Edge],
    *,
    steps: int = 1,
) -> Float[Tensor, "edge row"]:
    """How far each edge moves the summed logit difference of each row, to first order.

    It is the source's output minus the run's own, times the gradient of the logit difference with
    respect to what the receiver reads. Goes inside `split_inputs`.

    Args:
        batch: of the run that is patched.
        own: what the senders of the unchanged run write.
        steps: 1 takes the gradient at the unchanged run (attribution patching, Nanda 2023; edges,
            Syed et al. 2023). More take its mean at so many embeddings on the straight line to the
            source's (EAP-IG, Hanna et al. 2024).
    """
    receivers, embed = receivers_of(model), senders_of(model)[EMBED].hook
    names = list(dict.fromkeys(receivers[edge.receiver].hook for edge in edges))

    def score(logits: Tensor) -> Tensor:
        at_answers = batch.at_answers(logits)
        return answer_scores(at_answers, batch.answer_token, corrupted_tokens)[0].sum()

    slopes = {name: torch.zeros(()) for name in names}
    for step in range(1, steps + 1) if steps > 1 else [0]:
        to_source = (embed, lambda values, share=step / steps: values.lerp(source[EMBED], share))
        for name, slope in gradients(model, batch.tokens, names, score, [to_source]).items():
            slopes[name] = slopes[name] + slope / steps
    rows = []
    for edge in edges:
        hook, head, _ = receivers[edge.receiver]
        slope = slopes[hook] if head is None else slopes[hook][:, :, head]
        along = ((source[edge.sender] - own[edge.sender]) * slope).sum(-1)
        rows.append((along * at_position(batch, edge.pos)).sum(1))
    return torch.stack(rows).double()


def circuit_sizes(n_edges: int) -> list[int]:
    """Numbers of edges that circuits keep: none, powers of two and three times these, and all.

    >>> circuit_sizes(10)
    [0, 1, 2, 3, 4, 6, 8, 10]
    """
    powers = (m * 2**n for n in range(12) for m in (1, 3))
    return sorted({0, *(size for size in powers if size < n_edges), n_edges})


def circuit_scores(
    model: "HookedTransformer",
    prompts: PromptSet,
    pairs: Pairs,
    exact: Float[np.ndarray, "edge pair"],
    seed: int = 0,
) -> Arrays:
    """What the strongest edges alone answer, when every other edge carries the corrupted run.

    Edges are ranked by their exact effects on the pairs of half of the clean prompts, and circuits
    are scored on the others. The null is as many edges drawn at random.

    Args:
        exact: what each edge restores, as `path_effects` returns it.
    Returns:
        For each size of `circuit_sizes`: `faithfulness`, the share of the logit difference that
        the circuit keeps; `random` and `random_most`, the mean and the greatest of RANDOM random
        circuits; `right`, the answer tokens that the circuit predicts; `right_random`, their mean
        over random circuits; and `of`, all answer tokens.
    Raises:
        TbttError: if there is only one clean prompt.
    Source: faithfulness and its null, Shi et al. 2024.
    """
    names = np.unique(pairs.clean)
    if len(names) < 2:
        raise TbttError(
            "a circuit needs two clean prompts at least, one to rank edges on and one to ask: "
            "give more pairs"
        )
    halves = np.random.default_rng((seed, 0xC1)).permutation(names)
    ranks_edges = np.isin(pairs.clean, halves[: len(names) // 2])
    scored = pairs.take(np.flatnonzero(~ranks_edges))
    clean, corrupted = scored.batch(scored.clean), scored.batch(scored.corrupted)
    edges = edges_of(model, pairs.batch(pairs.corrupted))  # the edges that `exact` is of
    order = np.argsort(-np.abs(exact[:, ranks_edges].sum(1)))
    low, high = (
        logit_differences(model, batch, scored.corrupted_tokens).sum()
        for batch in (corrupted, clean)
    )
    generator, found = prompts.random(seed, 0xC1), []
    with split_inputs(model):
        source = sender_outputs(model, corrupted)

        def answers(kept: Int[np.ndarray, " kept"]) -> tuple[float, int]:
            cut = [edges[k] for k in np.setdiff1d(np.arange(len(edges)), kept)]
            logits = answer_logits(model, clean, edge_hooks(model, clean, source, cut))
            scores = answer_scores(logits, clean.answer_token, scored.corrupted_tokens)
            is_right = logits.argmax(1) == clean.answer_token
            return float((scores[0].sum() - low) / (high - low)), int(is_right.sum())

        for size in circuit_sizes(len(edges)):
            kept, right = answers(order[:size])
            drawn = [generator.permutation(len(edges))[:size] for _ in range(RANDOM)]
            is_whole = size in (0, len(edges))
            kept_random, right_random = zip(
                *([(kept, right)] if is_whole else map(answers, drawn)), strict=True
            )
            found.append({
                "faithfulness": kept, "random": np.mean(kept_random),
                "random_most": max(kept_random), "right": right, "of": len(clean.answer_token),
                "right_random": np.mean(right_random),
            })  # fmt: skip
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def circuits_table(scores: Arrays, n_edges: int) -> pd.DataFrame:
    """`circuit_scores` of every model as one row per size of a circuit.

    Args:
        scores: [model, size].
    Returns:
        `edges`, of the `all` that there are; `faithfulness` with its interval, `random` and
        `random_most`, means over models; `right`, `of` and `right_random`, sums over models.
    """
    mean, low, high, n = ratios_over_models(scores["faithfulness"].T, np.ones(1))
    return pd.DataFrame({
        "edges": circuit_sizes(n_edges), "all": n_edges, "faithfulness": mean,
        "faithfulness_low": low, "faithfulness_high": high,
        "random": scores["random"].mean(0), "random_most": scores["random_most"].mean(0),
        "right": scores["right"].sum(0), "of": scores["of"].sum(0),
        "right_random": scores["right_random"].sum(0), "n_models": n,
    })  # fmt: skip

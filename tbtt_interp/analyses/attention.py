"""Attention by token role, and what answers lose after attention knockout.

An attention weight alone does not show that the weight is used. Beside each weight stands what the
answers lose when the same attention is knocked out, and when as much other attention is.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from tbtt_interp import interventions
from tbtt_interp.analyses import heads
from tbtt_interp.analyses.ablation import scored
from tbtt_interp.analyses.heads import DRAWS, N_HEADS_DRAWN
from tbtt_interp.analyses.token_roles import batches_by_context
from tbtt_interp.interventions import knock_out_attention
from tbtt_interp.plots import heatmaps
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import MANY_PARAMETERS, Models, over_seeds, summarize_over_seeds
from tbtt_interp.shares import summarize_shares
from tbtt_interp.stats import SHARE, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

    from tbtt_interp.seeds import ModelsLike
    from tbtt_interp.tasks import Prompts

FEW = 64  # examples for models beyond MANY_PARAMETERS
BY = ["context", "layer", "head", "query", "key"]
DROPS = ["logprob_drop", "accuracy_drop", "logprob_drop_random", "accuracy_drop_random"]
PANELS = {
    "weight": "attention", "accuracy_drop": "accuracy lost after knockout",
    "accuracy_drop_random": "the same, random keys",
}  # fmt: skip


def drops_with_hooks(
    model: "HookedTransformer",
    batch: PromptBatch,
    seen: Bool[np.ndarray, " example"],
    hooks: Sequence[interventions.Hook],
) -> pd.DataFrame:
    """What seen answers lose with each of some hooks made by itself, all at one hook point.

    Returns:
        one row per hook: `logprob_drop`, nats per whole answer; `accuracy_drop`, the share of
        right answers that are lost, nan where no answer is right; and `n_right`, their number.
    """
    edits = [lambda pattern: pattern, *(change for _, change in hooks)]
    logits = interventions.logits_with_edits(model, batch, hooks[0][0], edits)
    (nats, is_right), *after = (scored(batch, one) for one in logits)
    was_right, rows = is_right & seen, []
    for changed, still_right in after:
        lost = (~still_right[was_right]).mean() if was_right.any() else math.nan
        rows.append((float((nats - changed)[seen].mean()), lost, was_right.sum()))
    return pd.DataFrame(rows, columns=[*DROPS[:2], "n_right"])


def attention_by_role(
    model: "HookedTransformer", prompts: PromptSet, *, seed: int = 0
) -> pd.DataFrame:
    """Each head's attention from where the answer is predicted, by the roles of query and key.

    Returns:
        one row per context, layer, head, query role and key role: `weight`, the attention's mean
        over queries, and `uniform`, the same of uniform attention.
    """
    rows = []
    for roles in batches_by_context(prompts, seed):
        uniform = interventions.uniform_attention(roles.batch.tokens.shape[1])
        for head, pattern in heads.head_patterns(model, roles.batch.tokens).items():
            for query, key, pairs, n_queries in roles.query_key_pairs():
                weights = (float((p * pairs).sum()) / n_queries for p in (pattern, uniform))
                rows.append((roles.context, *head, query, key, *weights))
    return pd.DataFrame(rows, columns=[*BY, "weight", "uniform"])


def knockouts_by_role(
    model: "HookedTransformer", prompts: PromptSet, *, seed: int = 0
) -> pd.DataFrame:
    """What answers lose after one head's attention between two token roles is knocked out.

    A knockout is made in all prompts at once; the rest of a query's attention is scaled up to 1.

    Returns:
        one row per context, layer, head, query role and key role: `logprob_drop`, nats per seen
        answer; `accuracy_drop`, the share of right seen answers that are lost; both as `_random`,
        with as many other keys knocked out, the mean of DRAWS draws; and `n_right`.
    Source: attention knockout, Geva et al. 2023, section 3.
    """
    rows, generator = [], prompts.random(seed, 0xA7)
    for roles in batches_by_context(prompts, seed):
        for layer, head in product(range(model.cfg.n_layers), range(model.cfg.n_heads)):
            groups, hooks = [], []
            for query, key, pairs, _ in roles.query_key_pairs():
                groups.append((roles.context, layer, head, query, key))
                drawn = (interventions.random_pairs(pairs, generator) for _ in range(DRAWS))
                hooks += [knock_out_attention(layer, head, one) for one in (pairs, *drawn)]
            drops = drops_with_hooks(model, roles.batch, prompts.seen, hooks)
            n_right = int(drops.pop("n_right").iloc[0])
            grid = drops.to_numpy().reshape(len(groups), -1, 2)
            rows += [(*group, *own, *np.mean(random, 0), n_right)
                     for group, (own, *random) in zip(groups, grid, strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=[*BY, *DROPS, "n_right"])


def attention_knockout(
    models: "ModelsLike", *, prompts: "Prompts | None" = None, encoder: Any = None,
    step: int | None = None, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """What answers lose after each head's attention between two token roles is knocked out.

    Args:
        models, prompts, encoder, step: as in `Models.of`. Beyond MANY_PARAMETERS, FEW prompts are
            drawn at random.
    Returns:
        One row per context, layer, head, query and key role, as in `knockouts_by_role`, with means
        and intervals over models; beside them the attention's `weight`, that of `uniform`
        attention, and that of `untrained` models.
    Source: attention knockout, Geva et al. 2023, section 3.
    """
    chosen = Models.of(models, step, prompts=prompts, encoder=encoder)
    return attention_summary(sampled(chosen), seed=seed)[1]


def sampled(models: Models) -> Models:
    """The models with all of their prompts, or with FEW where they are large."""
    if models.n_parameters <= MANY_PARAMETERS:
        return models
    order = np.random.default_rng(0).permutation(len(models.shared_prompts))
    return models.with_examples(np.sort(order[:FEW]).tolist())


def attention_summary(models: Models | Run, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`attention_by_role` and `knockouts_by_role` of every seed, and their means over models.

    Returns:
        one row per seed and group; and one row per group with intervals, and the untrained models'
        mean weight as `untrained`.
    """
    weights, means = summarize_over_seeds(
        models, attention_by_role, seed=seed, by=BY, values=["weight", "uniform"], bounds=SHARE,
        untrained="weight",
    )  # fmt: skip
    drops = over_seeds(models, knockouts_by_role, seed=seed)
    means = means.drop(columns="n_models").merge(summarize_drops(drops, BY), on=BY)
    return weights.merge(drops, on=["seed", *BY]), means


def summarize_drops(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over models of the drops, where intervals of a share have a width."""
    of_nats = summarize(table, by, DROPS[::2]).drop(columns="n_models")
    return of_nats.merge(summarize_shares(table, by, DROPS[1::2], of="n_right"), on=by)


def attention_claims(summary: pd.DataFrame) -> list[Claim]:
    """Per query, the key with the largest knockout drop, from `attention_summary`."""
    known = summary[summary["accuracy_drop"].notna()]
    most = known.groupby(["context", "query"], sort=False)["accuracy_drop"].idxmax()
    return [
        Claim.of_row(
            row, "accuracy_drop", {"accuracy_drop_random": "without attention to random keys"},
            text=f"{row['context']}: without attention from {row['query']} to {row['key']} in head "
            f"{row['layer']}.{row['head']}, models lose", unit="of the right seen answers",
        )
        for row in known.loc[most].to_dict("records")
    ]  # fmt: skip


def analyse_attention(
    run_or_models: Models | Run, *, examples: Sequence[int] | None = None, seed: int = 0
) -> Result:
    """Attention by token role with knockouts, kinds of heads, QK and OV circuits.

    Args:
        examples: by number; None is all, or FEW drawn at random beyond MANY_PARAMETERS.
        seed: of preceding lines, random keys and texts.
    """
    models = Models.of(run_or_models)
    few = sampled(models) if examples is None else models.with_examples(examples)
    table, summary = attention_summary(few, seed=seed)
    by_seed, scores = summarize_over_seeds(
        models, heads.head_scores, by=heads.BY, values=heads.SCORES, untrained="score", seed=seed
    )
    circuits = heads.circuits_table(models)
    display = summary[(summary["weight"] > 0.01) | (summary["accuracy_drop"] > 0.01)]
    # a terminal's line ends before the last two
    numbers = ["weight", "uniform", "untrained", *sorted(DROPS)]
    return Result(
        name="attention",
        tables={
            "attention": summary, "attention-by-seed": table, "scores": scores,
            "scores-by-seed": by_seed, "circuits": circuits,
        },
        display=display[BY].join(display[numbers].map("{:.2f}".format)),
        figures={
            "attention": partial(plot_attention, summary),
            "qk-circuits": partial(heads.plot_circuits, circuits, "QK"),
            "ov-circuits": partial(heads.plot_circuits, circuits, "OV"),
        },
        claims=[*attention_claims(summary), *heads.head_claims(scores)],
        notes=[
            "Weight: attention from the positions that predict the answer, by the key's role. "
            "Uniform: the same weight for every key. Untrained: the model before training.",
            "Drops after knockout: nats of log-probability per seen answer, and the share of right "
            f"seen answers that are lost. Random: as many other keys, mean of {DRAWS} draws.",
            "A claim is about the key with the largest drop. That key was chosen on these models; "
            "its null was not.",
        ],
    )  # fmt: skip


def plot_attention(summary: pd.DataFrame) -> "Figure":
    """By query and key role: the attention, the accuracy lost after knockout, and its null."""
    drawn = list(summary.groupby(["context", "layer", "head"], sort=False))[:N_HEADS_DRAWN]
    drawn.sort(key=lambda item: -item[1]["key"].nunique())  # the first has every key, in order
    table = pd.concat([
        rows.assign(panel=f"{context}, head {layer}.{head}<br>{words}", share=rows[column])
        for (context, layer, head), rows in drawn for column, words in PANELS.items()
    ])  # fmt: skip
    return heatmaps(
        table, row="query", column="key", value="share", title="share", panel="panel",
        hover=["weight_low", "weight_high", "uniform", "untrained", "logprob_drop",
               "logprob_drop_random", "accuracy_drop_low", "accuracy_drop_high"],
        axes=("query", "key"),
    )  # fmt: skip

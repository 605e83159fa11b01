"""Attention by token role, and what answers lose after attention knockout.

An attention weight alone does not show that the weight is used. Beside each weight stands what the
answers lose when the same attention is knocked out, and when as much other attention is.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp import interventions
from tbtt_interp.analyses import heads
from tbtt_interp.analyses.token_roles import RoleBatch, batches_by_context
from tbtt_interp.interventions import knock_out_attention
from tbtt_interp.plots import heatmaps
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import MANY_PARAMETERS, Models, over_seeds, summarize_over_seeds
from tbtt_interp.stats import SHARE, Interval, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

DRAWS = 5  # random draws of query-key pairs for each knockout
FEW = 64  # examples for models beyond MANY_PARAMETERS
BY = ["context", "layer", "head", "query", "key"]
DROPS = ["logprob_drop", "accuracy_drop", "logprob_drop_random", "accuracy_drop_random"]
PANELS = {
    "weight": "attention", "accuracy_drop": "accuracy lost after knockout",
    "accuracy_drop_random": "the same, random keys",
}  # fmt: skip
N_HEADS_DRAWN = 6


def drops_with_hooks(
    model: "HookedTransformer",
    batch: PromptBatch,
    seen: Bool[np.ndarray, " example"],
    hooks: Sequence[interventions.Hook],
) -> pd.DataFrame:
    """What seen answers lose with each of some hooks made by itself, all at one hook point.

    Returns:
        one row per hook: `logprob_drop`, nats per whole answer, and `accuracy_drop`, the share of
        right answers that are lost; nan where no answer is right.
    """

    def answers(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
        nats, margins = batch.answer_logprobs(logits), batch.margins(logits[None])[0]
        return nats.numpy(), margins.numpy() > 0

    edits = [lambda pattern: pattern, *(change for _, change in hooks)]
    logits = interventions.logits_with_edits(model, batch, hooks[0][0], edits)
    (nats, is_right), *after = (answers(one.double().cpu()) for one in logits)
    was_right, rows = is_right & seen, []
    for changed, still_right in after:
        lost = (~still_right[was_right]).mean() if was_right.any() else math.nan
        rows.append((float((nats - changed)[seen].mean()), lost))
    return pd.DataFrame(rows, columns=DROPS[:2])


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
        answer; `accuracy_drop`, the share of right seen answers that are lost; and both as
        `_random`, with as many other keys knocked out, the mean of DRAWS draws.
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
            drops = drops_with_hooks(model, roles.batch, prompts.seen, hooks).to_numpy()
            drops = drops.reshape(len(groups), -1, 2)
            rows += [(*group, *own, *np.mean(random, 0))
                     for group, (own, *random) in zip(groups, drops, strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=[*BY, *DROPS])


def mean_pattern(
    pattern: Float[Tensor, "row query key"], batch: PromptBatch
) -> Float[Tensor, "row query key"]:
    """For each row the mean over unpadded rows whose prompts end at the same position."""
    present = (torch.arange(pattern.shape[1]) < batch.lengths[:, None]).to(pattern)
    end = F.one_hot(batch.last_prompt_pos).to(pattern)
    sums = einsum(end, present, pattern, "row end, row query, row query key -> end query key")
    counts = einsum(end, present, "row end, row query -> end query").clamp(min=1)
    return (sums / counts[..., None])[batch.last_prompt_pos]


def pattern_replacements(
    model: "HookedTransformer", prompts: PromptSet, *, seed: int = 0
) -> pd.DataFrame:
    """What answers lose when a head's whole pattern is replaced, for prompts by themselves.

    Returns:
        one row per layer, head and `replacement` (its mean over prompts, uniform attention, or the
        pattern of another example): `logprob_drop` and `accuracy_drop`, see `drops_with_hooks`.
    """
    batch, tables = RoleBatch.of(prompts).batch, []
    uniform = interventions.uniform_attention(batch.tokens.shape[1])
    source = interventions.source_rows([""] * len(batch.tokens), batch, prompts.random(seed))
    source = torch.where(source < 0, torch.arange(len(source)), source)
    for (layer, head), pattern in heads.head_patterns(model, batch.tokens).items():
        replacements = {
            "mean pattern": mean_pattern(pattern, batch),
            "uniform attention": uniform.expand_as(pattern),
            "another example's": pattern[source],
        }
        hooks = [interventions.replace_pattern(layer, head, new) for new in replacements.values()]
        drops = drops_with_hooks(model, batch, prompts.seen, hooks)
        names = {"layer": layer, "head": head, "replacement": list(replacements)}
        tables.append(pd.DataFrame(names).join(drops))
    return pd.concat(tables, ignore_index=True)


def attention_by_prompt(model: "HookedTransformer", prompts: PromptSet) -> pd.DataFrame:
    """Each head's attention in each prompt, from the positions that predict the answer's tokens.

    Returns:
        one row per layer, head, `prompt`, query and key position: the roles `query` and `key`, and
        `weight`.
    """
    roles, tables = RoleBatch.of(prompts), []
    batch, keys = roles.batch, torch.arange(roles.roles.shape[1])
    answer, key = (keys <= batch.answer_pos[:, None]).nonzero(as_tuple=True)
    row, query = batch.answer_row[answer], batch.answer_pos[answer]
    names = np.array([example.prompt for example in prompts.examples], dtype=object)
    for (layer, head), pattern in heads.head_patterns(model, batch.tokens).items():
        tables.append(pd.DataFrame({
            "layer": layer, "head": head, "prompt": names[batch.answer_example[answer]],
            "query": roles.roles[row, query], "key": roles.roles[row, key],
            "weight": pattern[row, query, key].double().numpy(),
        }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


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
    """Means over models of the drops, where intervals of a share end at 0 and 1."""
    nats, shares = ([n for n in names if n in table] for names in (DROPS[::2], DROPS[1::2]))
    of_nats = summarize(table, by, nats).drop(columns="n_models")
    return of_nats.merge(summarize(table, by, shares, bounds=SHARE), on=by)


def attention_claims(summary: pd.DataFrame, replaced: pd.DataFrame) -> list[Claim]:
    """Per query, the key with the largest knockout drop; per head, its pattern's effect.

    Both tables are means over models: of `attention_summary`, and of `pattern_replacements`.
    """
    known = summary[summary["accuracy_drop"].notna()]
    most = known.groupby(["context", "query"], sort=False)["accuracy_drop"].idxmax()
    claims = [
        Claim(
            text=f"{row['context']}: without attention from {row['query']} to {row['key']} in head "
            f"{row['layer']}.{row['head']}, models lose",
            effect=Interval.of_row(row, "accuracy_drop"), unit="of the right seen answers",
            null=row["accuracy_drop_random"], null_name="without attention to random keys",
        )
        for row in known.loc[most].to_dict("records")
    ]  # fmt: skip
    for (layer, head), rows in replaced.groupby(["layer", "head"], sort=False):
        of = rows.set_index("replacement").to_dict("index")
        if not math.isnan(of["mean pattern"]["accuracy_drop"]):
            claims.append(Claim(
                text=f"With the mean pattern in head {layer}.{head}, models lose",
                effect=Interval.of_row(of["mean pattern"], "accuracy_drop"),
                unit="of the right seen answers", direction="different",
                null=of["another example's"]["accuracy_drop"],
                null_name="with the pattern of another example",
            ))  # fmt: skip
    return claims


def analyse_attention(
    run_or_models: Models | Run, *, examples: Sequence[int] | None = None, seed: int = 0
) -> Result:
    """Attention by token role with knockouts, replaced patterns, kinds of heads, QK and OV.

    Args:
        examples: by number; None is all, or FEW drawn at random beyond MANY_PARAMETERS.
        seed: of preceding lines, random keys and texts.
    """
    models = Models.of(run_or_models)
    if examples is None and models.n_parameters > MANY_PARAMETERS:
        order = np.random.default_rng(0).permutation(len(models.shared_prompts))
        examples = np.sort(order[:FEW]).tolist()
    sampled = models if examples is None else models.with_examples(examples)
    table, summary = attention_summary(sampled, seed=seed)
    replaced = over_seeds(sampled, pattern_replacements, seed=seed)
    by_replacement = summarize_drops(replaced, ["layer", "head", "replacement"])
    by_seed, scores = summarize_over_seeds(
        models, heads.head_scores, by=heads.BY, values=heads.SCORES, untrained="score", seed=seed
    )
    circuits = heads.circuits_table(models)
    display = summary[(summary["weight"] > 0.01) | (summary["accuracy_drop"] > 0.01)]
    numbers = ["weight", "uniform", "untrained", *DROPS]
    return Result(
        name="attention",
        tables={
            "attention": summary, "attention-by-seed": table, "replaced": by_replacement,
            "replaced-by-seed": replaced, "scores": scores, "scores-by-seed": by_seed,
            "circuits": circuits, "patterns": over_seeds(sampled, attention_by_prompt),
        },
        display=display[BY].join(display[numbers].map("{:.2f}".format)),
        figures={
            "attention": partial(plot_attention, summary),
            "qk-circuits": partial(heads.plot_circuits, circuits, "QK"),
            "ov-circuits": partial(heads.plot_circuits, circuits, "OV"),
        },
        claims=[*attention_claims(summary, by_replacement), *heads.head_claims(scores)],
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

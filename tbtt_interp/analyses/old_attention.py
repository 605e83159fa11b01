"""Where heads look, by what stands there, and what answers lose when they may not."""

from collections.abc import Hashable, Sequence
from functools import partial
from math import nan
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp import figures
from tbtt_interp.analyses.edges import cut, even_pattern, random_edges, replace_pattern
from tbtt_interp.analyses.findings import Finding, Result, Tell, silent
from tbtt_interp.analyses.old_ablation import answers_in, mean_by_place, row_donors
from tbtt_interp.analyses.old_contexts import Context, contexts_of
from tbtt_interp.analyses.old_heads import circuit_matrices, head_scores, scores_findings
from tbtt_interp.analyses.old_pairs import FEW, MANY_PARAMETERS
from tbtt_interp.analyses.parts import Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.runs import Run
from tbtt_interp.stats import Interval, mean_over_models

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

DRAWS = 5  # edges drawn at random for each that is cut
Answers = tuple[np.ndarray, np.ndarray]  # log-probability of each whole answer, and its margin


def _answers_with(
    model: "HookedTransformer", context: Context, hooks: Sequence[tuple[str, object]]
) -> Answers:
    with torch.no_grad():
        logits = model.run_with_hooks(context.questions.tokens, fwd_hooks=list(hooks))  # pyright: ignore
    return answers_in(torch.as_tensor(logits), context.questions)


def _lost(before: Answers, after: Answers, seen: np.ndarray) -> dict[str, float]:
    """Nats of log-probability a whole answer, and the share of right answers lost; seen ones."""
    was_right = (before[1] > 0) & seen
    flipped = ((after[1] <= 0) & was_right).sum() / max(1, was_right.sum())
    return {
        "lost": float((before[0] - after[0])[seen].mean()),
        "flipped": float(flipped) if was_right.any() else float("nan"),
    }


def _model_rows(
    subject: Subject, k: int, examples: Sequence[int], seed: int
) -> list[dict[Hashable, object]]:
    """One model's rows of `attention_table`."""
    rows: list[dict[Hashable, object]] = []
    model = subject.models[k]
    seen = ~subject.held_out[k][list(examples)]
    sites = [f"blocks.{layer}.attn.hook_pattern" for layer in range(subject.layers)]
    generator = np.random.default_rng((seed, k, 0xA7))
    for context in contexts_of(subject, k, examples, seed):
        tokens = context.questions.tokens
        before = _answers_with(model, context, [])
        asked = context.asked()
        caches = [
            other.run_with_cache(tokens, names_filter=sites)[1]
            for other in (model, *subject.untrained[k : k + 1])
        ]
        even = even_pattern(tokens.shape[1]).expand(len(tokens), -1, -1)
        for layer, site in enumerate(sites):
            for head in range(subject.heads):
                patterns = [cache[site][:, head].detach() for cache in caches]
                patterns = [patterns[0], even, *patterns[1:]]
                for query in context.names(asked):
                    at = context.here(query) & asked
                    for key in context.names():
                        edges = at[:, :, None] & context.here(key)[:, None, :]
                        edges &= torch.ones_like(edges[0]).tril()
                        if not edges.any():
                            continue
                        weights = [float((p * edges).sum() / at.sum()) for p in patterns]
                        row: dict[Hashable, object] = {
                            "seed": subject.seeds[k], "context": context.name, "layer": layer,
                            "head": head, "query": query, "key": key, "weight": weights[0],
                            "even": weights[1],
                            "untrained": weights[2] if len(weights) > 2 else float("nan"),
                        }  # fmt: skip
                        after = _answers_with(
                            model, context, [(site, partial(cut, head=head, edges=edges))]
                        )
                        random = [
                            _lost(before, _answers_with(model, context, [
                                (site, partial(cut, head=head,
                                               edges=random_edges(edges, generator)))
                            ]), seen)
                            for _ in range(DRAWS)
                        ]  # fmt: skip
                        means = pd.DataFrame(random).mean().add_suffix("_random").to_dict()
                        rows.append(row | _lost(before, after, seen) | means)
    return rows


def attention_table(
    subject: Subject,
    examples: Sequence[int] | None = None,
    *,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """Each head's attention by role of query and key, and what is lost when that edge is cut.

    Queries are those where a character of the answer is asked. An edge is cut there alone, in all
    examples at once; the rest of the query's attention is scaled up.

    Args:
        examples: by number; None is all, of larger models FEW.
        seed: of the lines before, and of random edges.
    Returns:
        a row a seed, `context`, layer, head, `query` and `key` role: `weight`, the attention's
        mean over examples, beside that of `even` attention and of the model `untrained`; `lost`,
        nats of log-probability a seen answer, and `flipped`, the share of right seen answers that
        are not right any more; the same for as many other keys drawn at random, `lost_random` and
        `flipped_random`, the mean of DRAWS.
    """
    examples = chosen_examples(subject) if examples is None else examples
    parts, rows = parts or Parts(), []
    for k, name in enumerate(subject.seeds):
        columns = parts.get(
            f"attention-{name}",
            lambda k=k: _columns(pd.DataFrame(_model_rows(subject, k, examples, seed))),
        )
        rows.append(pd.DataFrame(columns))
        tell(k + 1, len(subject.seeds))
    return pd.concat(rows, ignore_index=True)


def _columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    texts = table.select_dtypes("number").columns
    return {str(n): table[n].to_numpy(None if n in texts else str) for n in table.columns}


def chosen_examples(subject: Subject) -> list[int]:
    """All examples, or FEW drawn at random where models are large."""
    everything = len(subject.examples)
    large = sum(p.numel() for p in subject.models[0].parameters()) > MANY_PARAMETERS
    drawn = np.random.default_rng(0).permutation(everything)[: FEW if large else everything]
    return np.sort(drawn).tolist()


def mean_pattern(
    pattern: Float[Tensor, "row query key"], end: Int[Tensor, " row"], length: Int[Tensor, " row"]
) -> Float[Tensor, "row query key"]:
    """Each row's mean over those whose prompts end at the same place, so that keys align, too."""
    means = torch.zeros_like(pattern)
    for place in end.unique():
        rows = end == place
        means[rows] = mean_by_place(pattern[rows], end[rows], length[rows])
    return means


def replaced_table(
    subject: Subject, examples: Sequence[int] | None = None, *, seed: int = 0
) -> pd.DataFrame:
    """What is lost when a head's whole pattern is replaced, after prompts by themselves.

    Returns:
        a row a seed, layer, head and pattern `by` which it is replaced: its mean over examples,
        even attention, or another example's; `lost` and `flipped` as in `attention_table`.
    """
    examples = chosen_examples(subject) if examples is None else examples
    rows = []
    for k, model in enumerate(subject.models):
        seen = ~subject.held_out[k][list(examples)]
        context = contexts_of(subject, k, examples, seed)[0]
        questions = context.questions
        before = _answers_with(model, context, [])
        donors = row_donors(
            [""] * len(questions.of_row), questions, np.random.default_rng((seed, k))
        )
        donors = torch.where(donors < 0, torch.arange(len(donors)), donors)
        for layer in range(subject.layers):
            site = f"blocks.{layer}.attn.hook_pattern"
            with torch.no_grad():
                pattern = model.run_with_cache(questions.tokens, names_filter=site)[1][site]
            for head in range(subject.heads):
                mine = pattern[:, head]
                patterns = {
                    "its mean": mean_pattern(mine, questions.end, questions.lengths),
                    "even attention": even_pattern(mine.shape[-1]).expand_as(mine),
                    "another example's": mine[donors],
                }
                for by, values in patterns.items():
                    hook = (site, partial(replace_pattern, head=head, by=values))
                    lost = _lost(before, _answers_with(model, context, [hook]), seen)
                    rows.append({"seed": subject.seeds[k], "layer": layer, "head": head,
                                 "by": by} | lost)  # fmt: skip
    return pd.DataFrame(rows)


def patterns_table(subject: Subject, examples: Sequence[int] | None = None) -> pd.DataFrame:
    """Each head's attention prompt by prompt, where the answer's characters are asked.

    Returns:
        a row a seed, layer, head, `prompt`, `query` and `key` role: `weight`.
    """
    examples = chosen_examples(subject) if examples is None else examples
    found = []
    for k, model in enumerate(subject.models):
        context = contexts_of(subject, k, examples)[0]
        questions = context.questions
        sites = [f"blocks.{layer}.attn.hook_pattern" for layer in range(subject.layers)]
        with torch.no_grad():
            cache = model.run_with_cache(questions.tokens, names_filter=sites)[1]
        prompts = [subject.examples[examples[n]].prompt for n in questions.example.tolist()]
        rows, queries = questions.row.tolist(), questions.pos.tolist()
        for layer, site in enumerate(sites):
            weights = cache[site][questions.row, :, questions.pos].double().numpy()
            for n, (row, query) in enumerate(zip(rows, queries, strict=True)):
                for head in range(subject.heads):
                    found += [
                        {"seed": subject.seeds[k], "layer": layer, "head": head,
                         "prompt": prompts[n], "query": context.roles[row][query],
                         "key": context.roles[row][key], "weight": weights[n, head, key]}
                        for key in range(query + 1)
                    ]  # fmt: skip
    return pd.DataFrame(found)


def summary_of(table: pd.DataFrame) -> pd.DataFrame:
    """Of `attention_table` the means over models, with the intervals of `weight` and `flipped`."""
    rows = []
    where = ["context", "layer", "head", "query", "key"]
    for place, some in table.groupby(where, sort=False):
        row = dict(zip(where, place, strict=True))
        row |= some.select_dtypes("number").drop(columns=["seed", "layer", "head"]).mean().to_dict()
        for name in ("weight", "flipped"):
            known = some[name].dropna().tolist()
            of = mean_over_models(known) if known else Interval(mean=nan, low=nan, high=nan)
            row |= {f"{name}_low": of.low, f"{name}_high": of.high}
        rows.append(row)
    return pd.DataFrame(rows)


def attention_findings(summary: pd.DataFrame, replaced: pd.DataFrame) -> list[Finding]:
    """Of each context and query the key most needed, and what the pattern is worth."""
    found = []
    needed = summary.dropna(subset="flipped")
    for (context, query), some in needed.groupby(["context", "query"], sort=False):
        row = some.sort_values("flipped").iloc[-1]
        found.append(
            Finding(
                what=f"{context}: without the edge from {query} to {row['key']} of head "
                f"{row['layer']}.{row['head']} models lose",
                effect=Interval(
                    mean=row["flipped"], low=row["flipped_low"], high=row["flipped_high"]
                ),
                null=row["flipped_random"],
                null_is="as many other keys, at random",
                of="seen answers",
            )
        )
    for (layer, head), some in replaced.groupby(["layer", "head"], sort=False):
        by = {str(by): rows["flipped"].dropna().tolist() for by, rows in some.groupby("by")}
        if not by["its mean"]:
            continue
        found.append(
            Finding(
                what=f"head {layer}.{head} with its mean pattern loses",
                effect=mean_over_models(by["its mean"]),
                null=float(np.mean(by["another example's"])),
                null_is="with another example's pattern",
                of="seen answers",
            )
        )
    return found


def analyse_attention(
    subject: Subject | Run,
    examples: Sequence[int] | None = None,
    *,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Result:
    """Attention by role, each edge beside what cutting it costs; QK and OV; kinds of heads.

    Args:
        examples: by number; None is all, of larger models FEW.
    """
    subject = Subject.of(subject)
    table = attention_table(subject, examples, parts=parts, tell=tell, seed=seed)
    summary = summary_of(table)
    replaced = replaced_table(subject, examples, seed=seed)
    scores = head_scores(subject, seed=seed)
    matrices = circuit_matrices(subject)
    numbers = ["weight", "even", "untrained", "lost", "lost_random", "flipped", "flipped_random"]
    shown = summary[["context", "layer", "head", "query", "key", *numbers]]
    shown = shown[(shown["weight"] > 0.01) | (shown["flipped"] > 0.01)]
    return Result(
        name="attention",
        tables={
            "attention": summary, "attention-by-seed": table, "replaced": replaced,
            "scores": scores, "circuits": matrices, "patterns": patterns_table(subject, examples),
        },
        shown=shown.assign(**{n: shown[n].map("{:.2f}".format) for n in numbers}),
        figures={
            "attention": partial(figures.attention, summary),
            "circuits": partial(figures.qk_and_ov, matrices),
        },
        findings=[*attention_findings(summary, replaced), *scores_findings(scores)],
        notes=[
            "Weight: attention from where a character is asked, by what stands at the key; even: "
            "the same on all keys; untrained: of the model before training.",
            "Lost: nats of log-probability a seen answer without that edge; flipped: the share of "
            "right seen answers that are not right any more; random: as many other keys cut, mean "
            f"of {DRAWS}.",
            "What is found is the key that costs most, chosen on these data; its null is not.",
        ],
    )  # fmt: skip

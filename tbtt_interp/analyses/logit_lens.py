"""The logit lens: what each residual stream predicts when it is read as the last one is.

Source: nostalgebraist 2020, interpreting GPT: the logit lens.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import cached
from tbtt_interp.plots import curves, short_site
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim
from tbtt_interp.seeds import Models, summarize_over_seeds
from tbtt_interp.shares import summarize_shares

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

    from tbtt_interp.seeds import ModelsLike
    from tbtt_interp.tasks import Prompts

METRICS = ("accuracy", "log-probability", "logit difference")
WHOLE = "answer"  # all of an answer's tokens together


def residual_streams(model: "HookedTransformer") -> list[str]:
    """The residual stream before the first layer, and in the middle and at the end of each."""
    names = ["blocks.0.hook_resid_pre"]
    for layer in range(model.cfg.n_layers):
        names += [f"blocks.{layer}.hook_resid_{part}" for part in ("mid", "post")]
    return [name for name in names if name in model.hook_dict]  # a model without MLPs has no mid


def lens_scores(
    logits: Float[Tensor, "answer d_vocab"],
    target: Int[Tensor, " answer"],
    place: Int[Tensor, " answer"],
) -> Float[Tensor, "2 metric answer"]:
    """How well logits predict their own answer tokens, and those of others at the same place.

    Returns:
        accuracy (0 or 1), log-probability in nats, and the right logit minus the best other one.
        First for each token's own logits; then, as the null, the mean over the logits of every
        other token at the same place of its answer, nan where there is no other.

    >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    >>> lens_scores(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 0]))[:, 0]
    tensor([[1.0000, 1.0000, 1.0000],
            [0.0000, 0.5000, 0.5000]])
    """
    known, column = target.unique(return_inverse=True)
    first, second = logits.topk(2).values.split(1, -1)
    of_known = logits[:, known]
    margin = of_known - torch.where(of_known == first, second, first)
    scores = torch.stack([(margin > 0).to(margin), logits.log_softmax(-1)[:, known], margin])
    at = F.one_hot(place).to(scores)
    totals = einsum(scores, at, "metric answer known, answer place -> metric place known")
    own = scores[:, torch.arange(len(target)), column]
    others = (totals[:, place, column] - own) / (at.sum(0)[place] - 1)
    return torch.stack([own, others])


def lens_by_role(model: "HookedTransformer", prompts: PromptSet) -> pd.DataFrame:
    """What each residual stream predicts through the last LayerNorm and the unembedding.

    Returns:
        one row per split, role of the answer token (`answer` is all together), stream and metric:
        `value`, a mean over answer tokens, in the metric's unit (a share or nats); `mismatched`,
        the same read from another example's stream at the same place of its answer; `n_answers`,
        answer tokens.
    """
    batch, streams = prompts.batch(), residual_streams(model)
    final_norm = getattr(model, "ln_final", torch.nn.Identity())
    cache = cached(model, batch.tokens, streams)[1]
    with torch.no_grad():
        x = torch.stack([batch.at_answers(cache[stream]) for stream in streams])
        logits = model.unembed(final_norm(x)).double().cpu()
    answers = pd.DataFrame({
        "split": np.where(prompts.held_out, "held out", "seen")[batch.answer_example.numpy()],
        "role": [role for k in range(len(prompts)) for role in prompts.answer_roles(k)],
    })  # fmt: skip
    scores = (lens_scores(x, batch.answer_token, batch.place_in_answer).numpy() for x in logits)
    table = pd.concat([
        answers.assign(stream=stream, metric=metric, value=own, mismatched=others)
        for stream, of_stream in zip(streams, scores, strict=True)
        for metric, own, others in zip(METRICS, *of_stream, strict=True)
    ], ignore_index=True)  # fmt: skip
    table = pd.concat([table, table.assign(role=WHOLE)], ignore_index=True)
    groups = table.groupby(["split", "role", "stream", "metric"], sort=False)
    means = groups[["value", "mismatched"]].mean()
    return means.assign(n_answers=groups.size()).reset_index()


def logit_lens(
    models: "ModelsLike", *, prompts: "Prompts | None" = None, encoder: Any = None,
    step: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """What each residual stream predicts, as a mean over models, compared with two nulls.

    Args:
        models, prompts, encoder, step: as in `Models.of`.
    Returns:
        One row per group of `lens_by_role`, with intervals; `untrained`, the untrained models'.
    """
    by, values = ["split", "role", "stream", "metric"], ["value", "mismatched"]
    table, lens = summarize_over_seeds(
        Models.of(models, step, prompts=prompts, encoder=encoder), lens_by_role,
        by=by, values=values, weights="n_answers", untrained="value",
    )  # fmt: skip
    is_share, ends = table["metric"] == METRICS[0], ["value_low", "value_high"]
    shares = summarize_shares(table[is_share], by, ["value"], of="n_answers")
    lens.loc[lens["metric"] == METRICS[0], ends] = shares[ends].to_numpy()
    return lens


def lens_claims(summary: pd.DataFrame) -> list[Claim]:
    """Accuracy on whole answers of each stream but the last, which is the model's output."""
    of_answer = summary[(summary["role"] == WHOLE) & (summary["metric"] == "accuracy")]
    return [
        Claim.of_row(
            row, "value", {"mismatched": "another example's stream", "untrained": "untrained"},
            text=f"Read at {row['stream']}, the right token comes first for",
            unit=f"of the {row['split']} answer tokens",
        )
        for row in of_answer[of_answer["stream"] != summary["stream"].iloc[-1]].to_dict("records")
    ]  # fmt: skip


def plot_logit_lens(summary: pd.DataFrame, metric: str = "accuracy") -> "Figure":
    """How well each stream predicts the answer, by the token's role, with both nulls dotted."""
    rows = summary[summary["metric"] == metric]
    unit = "share of answer tokens" if metric == "accuracy" else "nats"
    figure = curves(
        rows.assign(stream=rows["stream"].map(short_site)),
        x="stream", y="value", by="split", panel="role",
        titles=("residual stream", f"{metric}, {unit}"),
        nulls={"mismatched": "another example's stream", "untrained": "untrained model"},
    )  # fmt: skip
    return figure.update_xaxes(tickangle=-60)

"""The logit lens: every stream read as if it were the last, beside other streams read so.

Source: nostalgebraist 2020, interpreting GPT: the logit lens.
"""

from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.analyses.characters import WHOLE, Characters, last_norm, means
from tbtt_interp.analyses.findings import Finding, Tell, nearest_null, silent
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.stats import Interval

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

METRICS = ("right", "log-probability", "logit difference")


def streams_of(model: "HookedTransformer") -> list[str]:
    """The residual stream before the first layer, and in the middle and at the end of each."""
    names = ["blocks.0.hook_resid_pre"]
    for layer in range(model.cfg.n_layers):
        names += [f"blocks.{layer}.hook_resid_{part}" for part in ("mid", "post")]
    return [name for name in names if name in model.hook_dict]  # not all have a middle


def lens_scores(
    logits: Float[Tensor, "character d_vocab"],
    target: Int[Tensor, " character"],
    place: Int[Tensor, " character"],
) -> Float[Tensor, "2 metric character"]:
    """How well logits say their own characters, and those of others in their place.

    Returns:
        whether the right character is first, its log-probability in nats, and its logit minus the
        best other one's: in its own logits and, the null, in those of every other character at the
        same place of its answer, on average; nan where there is no other.

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
    totals = einsum(scores, at, "metric character known, character place -> metric place known")
    own = scores[:, torch.arange(len(target)), column]
    others = (totals[:, place, column] - own) / (at.sum(0)[place] - 1)
    return torch.stack([own, others])


def lens(
    model: "HookedTransformer", characters: Characters
) -> Float[Tensor, "2 stream metric character"]:
    """Every stream through the last LayerNorm and the unembedding; see `lens_scores`."""
    streams = streams_of(model)
    found: list[Tensor] = []
    for some, _, cache in characters.read(model, streams):
        at = torch.arange(len(some)), characters.questions.pos[some]
        with torch.no_grad():
            x = torch.stack([cache[stream][at] for stream in streams])
            found.append(model.unembed(last_norm(model)(x)).double().cpu())
    target, place = characters.questions.target, characters.place
    return torch.stack([lens_scores(x, target, place) for x in torch.cat(found, 1)], 1)


def _sums(subject: Subject, k: int, characters: Characters) -> Arrays:
    """One model's, by stream, metric, role and example."""
    own, others = lens(subject.models[k], characters).numpy()
    untrained = np.full_like(own, np.nan)
    if subject.untrained:
        untrained = lens(subject.untrained[k], characters)[0].numpy()
    found = {"own": own, "others": np.nan_to_num(others), "untrained": untrained}
    return {name: characters.by_role(values) for name, values in found.items()}


def lens_table(
    subject: Subject,
    *,
    characters: Characters | None = None,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """What each stream says of the answer, character by character.

    Returns:
        a row a split, role (`answer` is all characters), stream and metric: `value`, a mean over
        characters (`right` is a share, the others nats), `low`, `high`, over models and examples,
        `mismatched` (read from another example's stream at the same place of its answer),
        `untrained`, and `characters` of each model.
    """
    characters = characters or Characters.of(subject)
    parts = parts or Parts()
    found: list[Arrays] = []
    for k, name in enumerate(subject.seeds):
        found.append(parts.get(f"lens-{name}", partial(_sums, subject, k, characters)))
        tell(k + 1, len(subject.models))
    in_place = characters.place.bincount()[characters.place].numpy()
    has_others = characters.by_role((in_place > 1).astype(float))
    streams = streams_of(subject.models[0])
    rows = []
    for group in characters.groups():
        others = group.of([has_others])[0] * (group.count > 0)
        value, low, high = means(group.of([part["own"] for part in found]), group.count, seed=seed)
        mismatched, *_ = means(group.of([part["others"] for part in found]), others, resamples=1)
        untrained, *_ = means(
            group.of([part["untrained"] for part in found]), group.count, resamples=1
        )
        for cell, (stream, metric) in enumerate(product(streams, METRICS)):
            rows.append({
                "split": group.split, "character": group.role, "stream": stream, "metric": metric,
                "value": value[cell], "low": low[cell], "high": high[cell],
                "mismatched": mismatched[cell], "untrained": untrained[cell],
                "characters": group.characters,
            })  # fmt: skip
    return pd.DataFrame(rows)


def lens_findings(table: pd.DataFrame) -> list[Finding]:
    """Of each stream but the last, which is the model's own answer, how often it is right."""
    of_answer = table[(table["character"] == WHOLE) & (table["metric"] == "right")]
    last = table["stream"].iloc[-1]
    found = []
    for row in of_answer[of_answer["stream"] != last].to_dict("records"):
        nulls = {"another example's stream": row["mismatched"],
                 "the untrained model": row["untrained"]}  # fmt: skip
        null, null_is = nearest_null(row["value"], nulls)
        found.append(
            Finding(
                what=f"read at {row['stream']}, the right character is first for",
                effect=Interval(mean=row["value"], low=row["low"], high=row["high"]),
                null=null,
                null_is=null_is,
                of=f"the characters {row['split']}",
            )
        )
    return found

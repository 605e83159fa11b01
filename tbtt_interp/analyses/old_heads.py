"""What heads are in themselves: QK and OV circuits over tokens, and known kinds of attention.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; the detection
patterns are TransformerLens's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.head_detector import (
    get_induction_head_detection_pattern,
    get_previous_token_head_detection_pattern,
)

from tbtt_interp.analyses.edges import cut, even_pattern, random_edges
from tbtt_interp.analyses.findings import Finding
from tbtt_interp.analyses.subject import NAMES, Subject
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import Vocabulary

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

WINDOWS = 200  # texts that heads are scored on
DRAWS = 5


def used_tokens(subject: Subject) -> list[int]:
    """The tokens that the examples have, in order."""
    return sorted({t for prompt, answer in subject.tokens for t in (*prompt, *answer)})


def token_names(subject: Subject, tokens: Sequence[int]) -> list[str]:
    """How tokens are shown: their characters, or their numbers."""
    if not isinstance(subject.vocabulary, Vocabulary):
        return [str(token) for token in tokens]
    return [NAMES.get(c, c) for c in subject.vocabulary.decode(tokens)]


def qk_circuit(
    model: "HookedTransformer", layer: int, head: int, tokens: Sequence[int]
) -> Float[Tensor, "query key"]:
    """The attention score of each token as a query with each as a key, positions left out."""
    block = model.blocks[layer]
    x = _read(model.W_E[list(tokens)], block.ln1)  # pyright: ignore
    queries = x @ model.W_Q[layer, head] + model.b_Q[layer, head]
    keys = x @ model.W_K[layer, head] + model.b_K[layer, head]
    return queries @ keys.T / model.cfg.d_head**0.5


def ov_circuit(
    model: "HookedTransformer", layer: int, head: int, tokens: Sequence[int]
) -> Float[Tensor, "source logit"]:
    """What a head that looks at a token alone adds to each token's logit, positions left out.

    Up to the final LayerNorm's scale, which depends on the rest; centred over tokens, since a
    constant changes no probability.
    """
    x = _read(model.W_E[list(tokens)], model.blocks[layer].ln1)  # pyright: ignore
    written = x @ model.W_V[layer, head] @ model.W_O[layer, head]
    written = written - written.mean(-1, keepdim=True)
    scale = getattr(getattr(model, "ln_final", None), "w", 1.0)
    logits = (written * scale) @ model.W_U[:, list(tokens)]  # pyright: ignore
    return logits - logits.mean(-1, keepdim=True)


def _read(x: Float[Tensor, "row d_model"], norm: torch.nn.Module) -> Float[Tensor, "row d_model"]:
    """What a block's own LayerNorm, of whatever kind, makes of each row by itself."""
    return norm(x[:, None])[:, 0]


def copying(ov: Float[Tensor, "token token"]) -> float:
    """How much a head raises the very token it looks at: eigenvalues' sum over their sizes' sum.

    >>> copying(torch.eye(3)), copying(-torch.eye(3))
    (1.0, -1.0)
    """
    values = torch.linalg.eigvals(ov.double())
    size = values.abs().sum()
    return float(values.real.sum() / size) if size > 0 else 0.0


def circuit_matrices(subject: Subject) -> pd.DataFrame:
    """Token by token QK and OV circuits of every head, of the tokens that the examples have.

    Returns:
        a row a seed, layer, head, `circuit` (QK or OV), `row` and `column` token: `value`, and
        `untrained`, the standard deviation of that circuit's values before training.
    """
    kinds: dict[str, Callable[..., Tensor]] = {"QK": qk_circuit, "OV": ov_circuit}
    tokens = used_tokens(subject)
    names = token_names(subject, tokens)
    rows, columns = np.indices((len(tokens), len(tokens)))
    found = []
    for k, layer, head in product(range(len(subject.models)), *_heads(subject)):
        for kind, circuit in kinds.items():
            with torch.no_grad():
                values = circuit(subject.models[k], layer, head, tokens)
                before = [circuit(m, layer, head, tokens) for m in subject.untrained[k : k + 1]]
            found.append(pd.DataFrame({
                "seed": subject.seeds[k], "layer": layer, "head": head, "circuit": kind,
                "row": [names[i] for i in rows.ravel()],
                "column": [names[i] for i in columns.ravel()],
                "value": values.double().numpy().ravel(),
                "untrained": float(before[0].std()) if before else np.nan,
            }))  # fmt: skip
    return pd.concat(found, ignore_index=True)


def _heads(subject: Subject) -> tuple[range, range]:
    return range(subject.layers), range(subject.heads)


def texts_of(subject: Subject, k: int, seed: int = 0) -> Int[Tensor, "row pos"]:
    """Texts such as a model was trained on: windows of its file, whole lines, or prompts answered.

    All are as long as the context, or as the shortest of them.
    """
    run, generator = subject.run, np.random.default_rng((seed, k, 0x7E))
    if run is None:
        lines = [[*prompt, *answer] for prompt, answer in subject.tokens]
    else:
        task, order = subject.files[k]
        file = task.file(order)
        if run.config.framing == "line":
            lines = [subject.vocabulary.encode(line) for line in file]
        else:
            text = subject.vocabulary.encode("".join(file))
            starts = generator.integers(len(text) - subject.n_ctx, size=WINDOWS)
            lines = [text[start : start + subject.n_ctx] for start in starts]
    length = min(subject.n_ctx, *map(len, lines))
    chosen = generator.permutation(len(lines))[:WINDOWS]
    return torch.tensor([lines[n][:length] for n in chosen])


def kinds_of_attention(
    tokens: Int[Tensor, "row pos"], newline: int | None
) -> dict[str, Bool[Tensor, "row query key"]]:
    """For each known kind of head, which keys it would look at.

    Previous token: the one before. Induction: the one after an earlier occurrence of the query's
    own. Previous line: all of the line before the query's own, where lines are in the text.
    """
    found = {
        "previous token": torch.stack(
            [get_previous_token_head_detection_pattern(row[None]) for row in tokens]
        ),
        "induction": torch.stack(
            [get_induction_head_detection_pattern(row[None]) for row in tokens]
        ),
    }
    masks = {kind: values > 0 for kind, values in found.items()}
    if newline is not None:
        ends = (tokens == newline).long()
        line = ends.cumsum(1) - ends  # a newline ends its own line
        masks["previous line"] = line[:, None, :] == line[:, :, None] - 1
    return {kind: mask for kind, mask in masks.items() if mask.any()}


def head_scores(subject: Subject, *, seed: int = 0) -> pd.DataFrame:
    """How much each head is of a known kind, and what prediction loses without those edges.

    Returns:
        a row a seed, layer, head and `kind`: `score`, the attention on such keys, its mean over
        queries that have any, beside `even` attention and the model `untrained`; `lost`, nats a
        character of the texts themselves when these edges are cut, and `lost_random`, when as many
        others are. A kind `copying` has the OV circuit's eigenvalue score alone.
    """
    rows = []
    newline = subject.vocabulary.encode("\n") if _has_lines(subject) else [None]
    used = used_tokens(subject)
    for k, model in enumerate(subject.models):
        tokens = texts_of(subject, k, seed)
        kinds = kinds_of_attention(tokens, newline[0])
        generator = np.random.default_rng((seed, k))
        sites = [f"blocks.{layer}.attn.hook_pattern" for layer in range(subject.layers)]
        with torch.no_grad():
            caches = [m.run_with_cache(tokens, names_filter=sites)[1]
                      for m in (model, *subject.untrained[k : k + 1])]  # fmt: skip
        before = _loss(model, tokens, [])
        for layer, head in product(*_heads(subject)):
            base = {"seed": subject.seeds[k], "layer": layer, "head": head}
            patterns = [cache[sites[layer]][:, head] for cache in caches]
            for kind, edges in kinds.items():
                scores = [
                    _mass(pattern, edges)
                    for pattern in (*patterns[:1], even_pattern(tokens.shape[1]), *patterns[1:])
                ]
                hooks = [
                    [(sites[layer], partial(cut, head=head, edges=cut_edges))]
                    for cut_edges in (edges, *(random_edges(edges, generator)
                                               for _ in range(DRAWS)))
                ]  # fmt: skip
                lost = [_loss(model, tokens, hook) - before for hook in hooks]
                rows.append(base | {
                    "kind": kind, "score": scores[0], "even": scores[1],
                    "untrained": scores[2] if len(scores) > 2 else np.nan,
                    "lost": lost[0], "lost_random": float(np.mean(lost[1:])),
                })  # fmt: skip
            with torch.no_grad():
                score, *early = (copying(ov_circuit(m, layer, head, used))
                                 for m in (model, *subject.untrained[k : k + 1]))  # fmt: skip
            rows.append(base | {"kind": "copying", "score": score,
                                "untrained": early[0] if early else np.nan})  # fmt: skip
    return pd.DataFrame(rows)


def _has_lines(subject: Subject) -> bool:
    return subject.run is not None and subject.run.config.framing != "line"


def _mass(pattern: Float[Tensor, "*row query key"], edges: Bool[Tensor, "row query key"]) -> float:
    """Attention on these keys, its mean over the queries that have any."""
    on = (pattern * edges).sum(-1)
    return float(on[edges.any(-1)].mean())


def _loss(
    model: "HookedTransformer",
    tokens: Int[Tensor, "row pos"],
    hooks: Sequence[tuple[str, object]],
) -> float:
    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=list(hooks))  # pyright: ignore
    return float(F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))


def scores_findings(scores: pd.DataFrame) -> list[Finding]:
    """Of each kind the head that is most of it, beside even attention."""
    found = []
    for kind, some in scores.dropna(subset="even").groupby("kind", sort=False):
        mean = some.groupby(["layer", "head"])[["score", "even"]].mean()
        layer, head = mean["score"].idxmax()  # pyright: ignore
        mine = some[(some["layer"] == layer) & (some["head"] == head)]
        found.append(
            Finding(
                what=f"head {layer}.{head}, of all most like a {kind} head, puts",
                effect=mean_over_models(mine["score"].tolist()),
                null=float(mine["even"].mean()),
                null_is="even attention",
                of="its attention there",
            )
        )
    return found

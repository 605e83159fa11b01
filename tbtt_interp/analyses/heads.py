"""QK and OV circuits over tokens, and how much each head is of a known kind.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits. The detection
patterns are TransformerLens'.
"""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp import interventions
from tbtt_interp.activations import cached
from tbtt_interp.plots import heatmaps
from tbtt_interp.prompts import VISIBLE, PromptSet
from tbtt_interp.results import Claim
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds, over_untrained
from tbtt_interp.tasks import Vocabulary

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import FactoredMatrix, HookedTransformer

N_TEXTS = 200  # texts that heads are scored on
DRAWS = 5  # random draws of query-key pairs for each knockout
N_HEADS_DRAWN = 6
BY = ["layer", "head", "kind"]
SCORES = ["score", "uniform", "loss_increase", "loss_increase_random"]
AXES = {"QK": ("query token", "key token"), "OV": ("source token", "logit of")}


def head_patterns(
    model: "HookedTransformer", tokens: Int[Tensor, "row pos"]
) -> dict[tuple[int, int], Float[Tensor, "row query key"]]:
    """The attention pattern of each head, by layer and head."""
    from transformer_lens.utilities.components_utils import get_act_name

    hooks = [get_act_name("pattern", layer) for layer in range(model.cfg.n_layers)]
    cache = cached(model, tokens, hooks)[1]
    return {(layer, head): cache[hook][:, head].cpu()
            for layer, hook in enumerate(hooks) for head in range(model.cfg.n_heads)}  # fmt: skip


def used_tokens(prompts: PromptSet) -> list[int]:
    """The tokens of the prompts and answers, in order."""
    return sorted({t for prompt, answer in prompts.tokens for t in (*prompt, *answer)})


def token_names(prompts: PromptSet, tokens: Sequence[int]) -> list[str]:
    """Tokens as text: their characters, or their numbers."""
    if not isinstance(prompts.vocabulary, Vocabulary):
        return [str(token) for token in tokens]
    return [VISIBLE.get(c, c) for c in prompts.vocabulary.decode(tokens)]


def qk_circuit(
    model: "HookedTransformer", layer: int, head: int, tokens: Sequence[int]
) -> "FactoredMatrix":
    """The attention score of each token as a query with each as a key, without positions."""
    from transformer_lens import FactoredMatrix

    x = _normed_embedding(model, layer, tokens)
    queries = x @ model.W_Q[layer, head] + model.b_Q[layer, head]
    keys = x @ model.W_K[layer, head] + model.b_K[layer, head]
    return FactoredMatrix(queries, keys.T / model.cfg.d_head**0.5)


def ov_circuit(
    model: "HookedTransformer", layer: int, head: int, tokens: Sequence[int]
) -> "FactoredMatrix":
    """What a head that attends to a token alone adds to each token's logit, without positions.

    Exact up to the final LayerNorm's scale, which depends on the other heads and MLPs. Centred over
    tokens, since a constant changes no probability.
    """
    gain = getattr(getattr(model, "ln_final", None), "w", torch.ones(model.cfg.d_model))
    read_out = gain[:, None] * model.W_U[:, list(tokens)]
    read_out = read_out - read_out.mean(0)  # LayerNorm subtracts the mean over dimensions
    read_out = read_out - read_out.mean(1, keepdim=True)
    return _normed_embedding(model, layer, tokens) @ model.OV[layer, head] @ read_out


def _normed_embedding(
    model: "HookedTransformer", layer: int, tokens: Sequence[int]
) -> Float[Tensor, "token d_model"]:
    """Each token's embedding after a block's own LayerNorm, of whatever kind."""
    return model.blocks[layer].ln1(model.W_E[list(tokens), None])[:, 0]  # pyright: ignore


def copying_score(ov: "FactoredMatrix") -> float:
    """How much a head raises the logit of the token it attends to, from -1 to 1.

    The sum of the OV circuit's eigenvalues over the sum of their sizes.

    >>> from transformer_lens import FactoredMatrix
    >>> eye = torch.eye(3)
    >>> copying_score(FactoredMatrix(eye, eye)), copying_score(FactoredMatrix(eye, -eye))
    (1.0, -1.0)
    """
    values = ov.eigenvalues
    size = values.abs().sum()
    return float(values.real.sum() / size) if size > 0 else 0.0


def circuit_matrices(model: "HookedTransformer", prompts: PromptSet) -> pd.DataFrame:
    """QK and OV circuits of every head, over the tokens that the prompts and answers have.

    Returns:
        one row per layer, head, `circuit` (QK or OV), `row` and `column` token: `value`, in
        attention score or in logits.
    """
    tokens, tables = used_tokens(prompts), []
    names = np.array(token_names(prompts, tokens), dtype=object)
    row, column = np.indices((len(tokens), len(tokens))).reshape(2, -1)
    for layer, head in product(range(model.cfg.n_layers), range(model.cfg.n_heads)):
        for kind, circuit in (("QK", qk_circuit), ("OV", ov_circuit)):
            with torch.no_grad():
                values = torch.as_tensor(circuit(model, layer, head, tokens).AB).double().cpu()
            tables.append(pd.DataFrame({
                "layer": layer, "head": head, "circuit": kind, "row": names[row],
                "column": names[column], "value": values.flatten(),
            }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def circuits_table(models: Models | Run) -> pd.DataFrame:
    """`circuit_matrices` of every seed; `untrained` is a circuit's standard deviation there."""
    table, untrained = (each(models, circuit_matrices) for each in (over_seeds, over_untrained))
    if untrained is None:
        return table.assign(untrained=np.nan)
    circuit = untrained.groupby(["seed", "layer", "head", "circuit"])["value"]
    return table.assign(untrained=circuit.transform("std"))


def training_texts(prompts: PromptSet, seed: int = 0) -> Int[Tensor, "row pos"]:
    """Texts as the model was trained on: windows of its file, whole lines, or answered prompts.

    All are as long as the context, or as the shortest of them.
    """
    training, generator = prompts.training, prompts.random(seed, 0x7E)
    if training is None:
        texts = [[*prompt, *answer] for prompt, answer in prompts.tokens]
    elif training.framing == "line":
        texts = [training.vocabulary.encode(line) for line in training.lines]
    else:
        starts = generator.integers(len(training.text) - prompts.n_ctx, size=N_TEXTS)
        texts = [training.text[start : start + prompts.n_ctx].tolist() for start in starts]
    length = min(prompts.n_ctx, *map(len, texts))
    chosen = generator.permutation(len(texts))[:N_TEXTS]
    return torch.tensor([texts[n][:length] for n in chosen])


def detection_patterns(
    tokens: Int[Tensor, "row pos"], newline: int | None
) -> dict[str, Bool[Tensor, "row query key"]]:
    """For each known kind of head, the keys that it would attend to.

    Previous token: the key before the query. Induction: the key after an earlier occurrence of the
    query's token. Previous line: every key of the line before the query's own.

    Args:
        newline: the token that ends a line; None where texts have no lines.
    """
    from transformer_lens import head_detector

    known = {
        "previous token": head_detector.get_previous_token_head_detection_pattern,
        "induction": head_detector.get_induction_head_detection_pattern,
    }
    masks = {
        kind: torch.stack([pattern(row[None]) for row in tokens]) > 0
        for kind, pattern in known.items()
    }
    if newline is not None:
        ends = (tokens == newline).long()
        line = ends.cumsum(1) - ends  # a newline ends its own line
        masks["previous line"] = line[:, None, :] == line[:, :, None] - 1
    return {kind: mask for kind, mask in masks.items() if mask.any()}


def head_scores(
    model: "HookedTransformer", prompts: PromptSet, *, seed: int = 0, knockouts: bool = True
) -> pd.DataFrame:
    """How much each head is of each known kind, and the loss without that attention.

    Returns:
        one row per layer, head and `kind`: `score`, the attention on the keys of that kind, its
        mean over queries that have any; `uniform`, the same of uniform attention; `loss_increase`,
        nats per token of the texts after that attention is knocked out; `loss_increase_random`,
        with as many other keys, the mean of DRAWS draws; both nan without `knockouts`. `copying`
        has its `copying_score` alone.
    """
    tokens, training = training_texts(prompts, seed), prompts.training
    has_lines = training is not None and training.framing != "line"
    kinds = detection_patterns(tokens, prompts.vocabulary.encode("\n")[0] if has_lines else None)
    generator, used, rows = prompts.random(seed), used_tokens(prompts), []
    uniform = interventions.uniform_attention(tokens.shape[1])

    def loss(*hooks: interventions.Hook) -> float:
        logits = interventions.run_with(model, tokens, hooks)[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()

    before = loss()
    for (layer, head), pattern in head_patterns(model, tokens).items():
        for kind, mask in kinds.items():
            on = ((p * mask).sum(-1)[mask.any(-1)].mean().item() for p in (pattern, uniform))
            increases = np.full(1 + DRAWS, np.nan)
            if knockouts:
                draws = (interventions.random_pairs(mask, generator) for _ in range(DRAWS))
                hooks = (interventions.knock_out_attention(layer, head, m) for m in (mask, *draws))
                increases = np.array([loss(hook) - before for hook in hooks])
            rows.append((layer, head, kind, *on, increases[0], increases[1:].mean()))
        with torch.no_grad():
            score = copying_score(ov_circuit(model, layer, head, used))
        rows.append((layer, head, "copying", score, *[np.nan] * 3))
    return pd.DataFrame(rows, columns=[*BY, *SCORES])


def head_claims(summary: pd.DataFrame) -> list[Claim]:
    """The head with the highest score of each kind; the null is uniform attention."""
    known = summary[summary["uniform"].notna()]
    best = known.loc[known.groupby("kind", sort=False)["score"].idxmax()]
    return [
        Claim.of_row(
            row, "score", {"uniform": "uniform attention"}, unit="of its attention on such keys",
            text=f"{row['kind'].capitalize()} attention is highest in head {row['layer']}."
            f"{row['head']}, which puts",
        )
        for row in best.to_dict("records")
    ]  # fmt: skip


def plot_circuits(matrices: pd.DataFrame, kind: str) -> "Figure":
    """The first model's QK or OV circuits: a panel per head."""
    is_first = matrices["seed"] == matrices["seed"].iloc[0]
    rows = matrices[is_first & (matrices["circuit"] == kind)]
    panel = f"{kind}, head " + rows["layer"].astype(str) + "." + rows["head"].astype(str)
    drawn = list(dict.fromkeys(panel))[:N_HEADS_DRAWN]
    return heatmaps(
        rows.assign(panel=panel)[panel.isin(drawn)], row="row", column="column", value="value",
        title="score" if kind == "QK" else "logit", panel="panel", across=2, signed=True,
        bounds=None, text=False, axes=AXES[kind],
    )  # fmt: skip

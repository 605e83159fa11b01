"""Models whose circuits or knowledge are known, since they are written by hand; random models."""

import math
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from tbtt_interp.model import Shape, hooked_transformer, initial_parameters, parameter_shapes
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import Models
from tbtt_interp.tasks import Example, Vocabulary, load_task
from tbtt_interp.tasks.entropy import IndependentLines

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

TASK = load_task("arithmetic")
VOCABULARY = TASK.vocabulary
DIGITS = "0123456789"
PLACES = 9


def models_of(
    *models: "HookedTransformer", examples: Sequence[Example] = TASK.examples, name: str = "models"
) -> Models:
    """Models of the equations, for `over_seeds`."""
    return Models.of_models(models, examples, VOCABULARY, name=name)


def prompts_of(examples: Sequence[Example] = TASK.examples) -> PromptSet:
    return PromptSet.of(examples, VOCABULARY, n_ctx=PLACES)


def shape_of(
    layers: int = 1, heads: int = 1, d_model: int = 14, d_mlp: int = 14, *, bias: bool = False
) -> Shape:
    """The shape of a model of the equations."""
    return Shape(layers=layers, heads=heads, d_model=d_model, d_mlp=d_mlp, n_ctx=PLACES,
                 d_vocab=len(VOCABULARY), bias=bias)  # fmt: skip


def random_model(shape: Shape) -> "HookedTransformer":
    """Far from where training begins: nothing is small, no scale is 1, no bias is 0."""
    chance = torch.Generator().manual_seed(0)
    model = hooked_transformer(
        {
            name: x * 10 + 0.5 * torch.randn(x.shape, generator=chance) * (x.ndim == 1)
            for name, x in initial_parameters(shape, seed=0).items()
        },
        shape,
    )
    for name, x in model.named_parameters():
        if shape.bias and name.rpartition(".")[2].startswith("b"):
            x.data = torch.randn(x.shape, generator=chance)
    return model


def random_transformer(**settings: object) -> "HookedTransformer":
    """A small model of another architecture, which TransformerLens 4 cannot hold."""
    pytest.importorskip("transformer_lens.HookedTransformer", reason="TransformerLens 4 has none")
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    known = {"n_layers": 2, "d_model": 24, "n_heads": 4, "n_ctx": PLACES, "d_mlp": 10,
             "d_vocab": len(VOCABULARY), "act_fn": "gelu", "normalization_type": "LN",
             "device": "cpu"}  # fmt: skip
    known |= settings
    config = HookedTransformerConfig(**{"d_head": known["d_model"] // known["n_heads"], **known})
    model = HookedTransformer(config, move_to_device=False)
    chance = torch.Generator().manual_seed(1)
    for x in model.parameters():
        x.data = 0.5 * torch.randn(x.shape, generator=chance)
    return model.eval()


def copying_model() -> "HookedTransformer":
    """Two heads: head 0 copies the operand b to "=", where it is answered; head 1 does nothing.

    Channels: one for each token, one for each position. At "=" (position 4) head 0 looks at b
    (position 3) alone, and writes the digit that stands there into the digits' own channels.
    """
    tokens = len(VOCABULARY)
    shape = shape_of(heads=2, d_model=tokens + PLACES, d_mlp=4)
    p = {name: torch.zeros(size) for name, size in parameter_shapes(shape).items()}
    for norm in ("blocks.0.ln1.w", "blocks.0.ln2.w", "ln_final.w"):
        p[norm] += 1
    p["embed.W_E"][:, :tokens] = torch.eye(tokens)
    p["pos_embed.W_pos"][:, tokens:] = torch.eye(PLACES)
    digits = [VOCABULARY.index[c] for c in DIGITS]
    for channel, token in enumerate(digits):
        p["blocks.0.attn.W_V"][0, token, channel] = 1
        p["blocks.0.attn.W_O"][0, channel, token] = 2
    p["blocks.0.attn.W_Q"][0, tokens + 4, 12] = 10
    p["blocks.0.attn.W_K"][0, tokens + 3, 12] = 10
    return hooked_transformer({name: x.double() for name, x in p.items()}, shape)


def copying_models() -> Models:
    """The model that copies, and equations whose answer is b."""
    examples = [
        Example.of(f"<{a}+{b}=", f"{b}>", {"a": a, "operator": "+", "b": b})
        for a in range(10)
        for b in range(10)
    ]
    return models_of(copying_model(), examples=examples, name="copying")


class Reader:
    """Predicts as one who knows every line and, if so asked, which follows which in this file."""

    def __init__(
        self, lines: Sequence[str], vocabulary: Vocabulary, n_ctx: int, *, knows_order: bool
    ) -> None:
        self.cfg = SimpleNamespace(n_ctx=n_ctx, n_layers=1, n_heads=1)
        self.vocabulary, self.source = vocabulary, IndependentLines(tuple(lines), n_ctx + 1)
        text = "".join(lines) if knows_order else ""
        ends = range(1, n_ctx + 2)
        self.counts = Counter(text[k : k + n] for k in range(len(text)) for n in ends)

    def log_likelihoods(self, read: str) -> Tensor:
        """Of each character after these, up to a constant."""
        nats = [self._log_likelihood(read, c) for c in self.vocabulary.characters]
        return torch.tensor(nats, dtype=torch.double)

    def _log_likelihood(self, read: str, character: str) -> float:
        if self.counts[read]:
            count = self.counts[read + character]
            return math.log(count) if count else -60.0
        try:
            return self.source.log_probability(read + character)
        except ValueError:  # no line goes on like that
            return -60.0

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits at every position."""
        texts = [self.vocabulary.decode(row) for row in tokens.tolist()]
        places = range(1, tokens.shape[1] + 1)
        rows = [torch.stack([self.log_likelihoods(text[:n]) for n in places]) for text in texts]
        return torch.stack(rows)

    def run_with_hooks(self, tokens: Tensor, fwd_hooks: list) -> Tensor:
        """Logits at the last position, which is all that is asked for."""
        logits = torch.zeros(*tokens.shape, len(self.vocabulary), dtype=torch.double)
        for row, read in zip(logits, tokens.tolist(), strict=True):
            row[-1] = self.log_likelihoods(self.vocabulary.decode(read))
        return logits

"""Models whose circuits or knowledge are known, since they are written by hand; random models."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from tbtt_interp.calibration import design as channels
from tbtt_interp.calibration.plants import copies
from tbtt_interp.model import Shape, hooked_transformer, initial_parameters
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import Models
from tbtt_interp.tasks import Example, Vocabulary, load_task
from tbtt_interp.tasks.entropy import IndependentLines

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

TASK = load_task("arithmetic")
VOCABULARY = TASK.vocabulary
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


def copying_models() -> Models:
    """A model whose head 0 copies the operand b to "=", where it is answered; head 1 is idle.

    As the plant "copied operand", but without noise and in double precision: what has no effect
    has exactly none.
    """
    design = channels.Design.of(dataclasses.replace(channels.SHAPE, heads=2))
    design.attend(0, 0, channels.AT_END, channels.AT_B)
    design.move(0, 0, channels.TOKEN, channels.ANSWER)
    weights = design.in_random_basis(np.random.default_rng(0), noise=0.0)
    model = hooked_transformer({name: x.double() for name, x in weights.items()}, design.shape)
    examples = channels.equations(copies(1))
    return Models.of_models([model], examples, channels.VOCABULARY, name="copying")


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

"""nanoGPT by hand, from its description, and answers read one forward pass a character."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tbtt_interp.model import Shape
from tbtt_interp.tasks import Example, Vocabulary

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


class Norm(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weight
        return scaled if self.bias is None else scaled + self.bias


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.c_attn = nn.Linear(shape.d_model, 3 * shape.d_model, bias=shape.bias)
        self.c_proj = nn.Linear(shape.d_model, shape.d_model, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, pos, width = x.shape
        split = (batch, pos, self.heads, width // self.heads)
        q, k, v = (part.view(split).transpose(1, 2) for part in self.c_attn(x).split(width, 2))
        scores = q @ k.transpose(2, 3) / math.sqrt(width // self.heads)
        past = torch.tril(torch.ones(pos, pos, dtype=torch.bool))
        weights = torch.softmax(torch.where(past, scores, -math.inf), -1)
        return self.c_proj((weights @ v).transpose(1, 2).reshape(batch, pos, width))


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln_1, self.attn = Norm(shape.d_model, shape.bias), Attention(shape)
        self.ln_2 = Norm(shape.d_model, shape.bias)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(shape.d_model, shape.d_mlp, bias=shape.bias),
                "c_proj": nn.Linear(shape.d_mlp, shape.d_model, bias=shape.bias),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        hidden = self.mlp["c_fc"](self.ln_2(x))
        gelu = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return x + self.mlp["c_proj"](gelu)


class NanoGPT(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(shape.d_vocab, shape.d_model),
                "wpe": nn.Embedding(shape.n_ctx, shape.d_model),
                "h": nn.ModuleList(Block(shape) for _ in range(shape.layers)),
                "ln_f": Norm(shape.d_model, shape.bias),
            }
        )
        self.lm_head = nn.Linear(shape.d_model, shape.d_vocab, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.transformer["wte"](tokens) + self.transformer["wpe"].weight[: tokens.shape[1]]
        for block in self.transformer["h"]:  # pyright: ignore[reportGeneralTypeIssues]
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten(), ignore_index=-100)


def next_logits(model: "HookedTransformer", vocabulary: Vocabulary, text: str) -> Tensor:
    """What follows a text, of which the model reads what its window holds, and nothing after."""
    tokens = vocabulary.encode(text)[-model.cfg.n_ctx :]
    with torch.no_grad():
        return model(torch.tensor([tokens]))[0, -1]


def answer_logits(
    model: "HookedTransformer", vocabulary: Vocabulary, examples: Sequence[Example]
) -> Tensor:
    """A row for each character of each answer."""
    texts = [e.prompt + e.answer[:k] for e in examples for k in range(len(e.answer))]
    return torch.stack([next_logits(model, vocabulary, text) for text in texts])


def answer_tokens(vocabulary: Vocabulary, examples: Sequence[Example]) -> list[int]:
    return [token for example in examples for token in vocabulary.encode(example.answer)]


def logit_differences(logits: Tensor, targets: Sequence[int]) -> list[float]:
    """The right character's logit minus the best wrong one's."""
    return [
        float(row[t] - max(x for k, x in enumerate(row.tolist()) if k != t))
        for row, t in zip(logits, targets, strict=True)
    ]

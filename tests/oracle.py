"""nanoGPT by hand, from its description: the oracle for architecture, tying and training step."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tbtt_interp.model import Shape


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

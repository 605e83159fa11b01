"""A transformer written by hand in channels of its own, then put into a random basis.

A design has one channel fewer than the model. A random isometry maps its channels to directions
that have mean 0, so that LayerNorm only scales them. Heads and neurons get random bases and orders,
and every weight gets noise. None of this changes the mechanism, and no channel shows it any more.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.model import Parameters, Shape, parameter_shapes
from tbtt_interp.tasks import Example, Task
from tbtt_interp.tasks.arithmetic import equation_labels

VALUES = "0123456789ABCDEFGHI"  # answers of one token: 0 to 18
CONTEXT = 9
TOKEN, A, B, ANSWER = slice(0, 10), slice(10, 20), slice(20, 30), slice(30, 49)
AT_A, AT_B, AT_END, ONE, LINE, BIT = range(49, 55)
CHANNELS = 55
BALLAST = 8.0  # of the constant channel, which keeps LayerNorm's scale nearly constant
GAIN = math.sqrt((CHANNELS + 1) / (BALLAST**2 + 3))  # of LayerNorm, with three more channels of 1
FOCUS = 12.0  # of queries and keys: attention elsewhere is about exp(-30)
STEEP = 6.0  # of neurons: a half above or below their threshold is on or off
ON = 3.0  # what a neuron of the table writes when it is on: gelu(STEEP / 2)
SHARPNESS = 8.0  # nats of logit per unit of an answer's channel, about
NOISE = 0.02  # standard deviation added to every weight
PLACES = (1, 3, 4)  # of a, b and "=" in a prompt


def equations(answers: Int[np.ndarray, "a b"]) -> tuple[Example, ...]:
    """The hundred sums `<a+b=`, with these answers, the sums' labels and the parity of a + b.

    >>> equations(np.add.outer(range(10), range(10)))[98].line
    '<9+8=H\\n'
    """
    return tuple(
        Example.of(f"<{a}+{b}=", VALUES[int(answers[a, b])],
                   {**equation_labels(a, "+", b), "parity": (a + b) % 2 == 1})
        for a in range(10) for b in range(10)
    )  # fmt: skip


SUMS = np.add.outer(np.arange(10), np.arange(10))
VOCABULARY = Task.of("planted", equations(SUMS), window=CONTEXT, batch=1).vocabulary
SHAPE = Shape(layers=1, heads=4, d_model=CHANNELS + 1, d_mlp=100, n_ctx=CONTEXT,
              d_vocab=len(VOCABULARY), tied=False)  # fmt: skip
DIGITS = VOCABULARY.encode(VALUES[:10])
ANSWERS = VOCABULARY.encode(VALUES)


@dataclass(frozen=True)
class Design:
    """The weights of a model in the design's channels, to be filled in."""

    shape: Shape
    weights: Parameters

    @classmethod
    def of(cls, shape: Shape = SHAPE, places: tuple[int, int, int] = PLACES) -> "Design":
        """Nothing but one-hot digits, flags at the positions of a, b and the end, and a readout.

        Args:
            places: the positions of the first operand, the second, and where answers are predicted.
        """
        sizes = parameter_shapes(shape)
        wide, narrow = CHANNELS + 1, CHANNELS
        weights = {
            name: torch.ones(size) if len(size) == 1
            else torch.zeros([narrow if n == wide else n for n in size])
            for name, size in sizes.items()
        }  # fmt: skip
        design = cls(shape, weights)
        weights["embed.W_E"][DIGITS, TOKEN] = torch.eye(10)
        weights["pos_embed.W_pos"][:, ONE] = BALLAST
        for place, channel in zip(places, (AT_A, AT_B, AT_END), strict=True):
            weights["pos_embed.W_pos"][place, channel] = 1
        design.unembedding[ANSWER, ANSWERS] = SHARPNESS * torch.eye(len(ANSWERS))
        return design

    @property
    def unembedding(self) -> Float[Tensor, "channel d_vocab"]:
        """What reads each token's logit."""
        return self.weights["unembed.W_U"]

    def attend(self, layer: int, head: int, query: int, key: int) -> None:
        """Makes a head attend from positions with one flag to those with another."""
        self.weights[f"blocks.{layer}.attn.W_Q"][head, query, 0] = FOCUS
        self.weights[f"blocks.{layer}.attn.W_K"][head, key, 0] = FOCUS

    def move(
        self, layer: int, head: int, read: "Float[Tensor, 'channel rank'] | slice | int",
        write: "slice | int", size: float = 1.0,
    ) -> None:  # fmt: skip
        """Makes a head write what it reads there, times a size; it may move several things."""
        value = self.weights[f"blocks.{layer}.attn.W_V"][head]
        directions = read if isinstance(read, Tensor) else torch.eye(CHANNELS)[:, read]
        directions = directions.reshape(CHANNELS, -1)
        used, rank = int(value.any(0).sum()), directions.shape[1]
        value[:, used : used + rank] = directions
        self.write(layer, head, write, size, range(used, used + rank))

    def write(
        self, layer: int, head: int, write: "slice | int", size: float = 1.0,
        read: range = range(10),
    ) -> None:  # fmt: skip
        """Makes a head write some channels of its z to the stream, times a size."""
        channels = range(CHANNELS)[write] if isinstance(write, slice) else [write]
        out = self.weights[f"blocks.{layer}.attn.W_O"][head]
        for k, channel in zip(read, channels, strict=False):
            out[k, channel] = size / GAIN

    def neuron(
        self, number: int, reads: dict[int, float], write: dict[int, float], layer: int = 0
    ) -> None:
        """Makes a neuron write if channels with these weights sum to 2, and not if to 1 or less.

        Args:
            write: by channel, in units of the stream.
        """
        for channel, weight in reads.items():
            self.weights[f"blocks.{layer}.mlp.W_in"][channel, number] = STEEP * weight / GAIN
        self.weights[f"blocks.{layer}.mlp.W_in"][ONE, number] = -1.5 * STEEP / GAIN / BALLAST
        for channel, value in write.items():
            self.weights[f"blocks.{layer}.mlp.W_out"][number, channel] = value / ON

    def table(self, write: "dict[tuple[int, int], dict[int, float]]", layer: int = 0) -> None:
        """A neuron for each pair of one-hot digits in A and B, and what each writes."""
        for number, ((a, b), values) in enumerate(write.items()):
            self.neuron(number, {A.start + a: 1.0, B.start + b: 1.0}, values, layer)

    def in_random_basis(
        self, random: np.random.Generator, heads: "np.ndarray | None" = None, noise: float = NOISE
    ) -> Parameters:
        """The model's parameters, with noise, in a basis drawn at random.

        Args:
            heads: an order of each layer's heads; None keeps theirs.
        """
        shape = self.shape

        def orthonormal(n: int, d: int) -> Tensor:
            return torch.from_numpy(np.linalg.qr(random.standard_normal((d, n)))[0].T).float()

        mean_free = random.standard_normal((shape.d_model, CHANNELS))
        frame = torch.from_numpy(np.linalg.qr(mean_free - mean_free.mean(0))[0].T).float()
        w = dict(self.weights)
        order = list(range(shape.heads)) if heads is None else heads.tolist()
        for name in ("embed.W_E", "pos_embed.W_pos"):
            w[name] = w[name] @ frame
        w["unembed.W_U"] = frame.T @ w["unembed.W_U"]
        for block in (f"blocks.{layer}" for layer in range(shape.layers)):
            keys, values = (
                torch.stack([orthonormal(shape.d_head, shape.d_head) for _ in order]) for _ in "kv"
            )
            for role, turn in (("Q", keys), ("K", keys), ("V", values)):
                w[f"{block}.attn.W_{role}"] = frame.T @ (w[f"{block}.attn.W_{role}"] @ turn)[order]
            w[f"{block}.attn.W_O"] = (values.mT @ w[f"{block}.attn.W_O"])[order] @ frame
            neurons = random.permutation(shape.d_mlp).tolist()
            w[f"{block}.mlp.W_in"] = frame.T @ w[f"{block}.mlp.W_in"][:, neurons]
            w[f"{block}.mlp.W_out"] = w[f"{block}.mlp.W_out"][neurons] @ frame
        constant = torch.outer(frame[ONE], frame[ONE])  # noise there would be an offset

        def noisy(name: str, x: Tensor) -> Tensor:
            added = noise * torch.from_numpy(random.standard_normal(x.shape)).float()
            reads = name.endswith(("W_Q", "W_K", "W_V", "W_in", "W_U"))
            return x + (added - constant @ added if reads else added)

        return {name: noisy(name, x) if x.ndim > 1 else x for name, x in w.items()}

"""Planted models: what is in them is known, since they are written by hand; and nulls.

A plant is a function of an effect size and a seed. It gives models of the paper's architecture and
the truth about them. They differ from the paper's in three ways. Their unembedding is not tied,
since none of these mechanisms can be read by the transposed embedding. Some have no MLP, or two
layers. Their answers are one token, 0 to 18.

    >>> planted = PLANTS["copied operand"].draw(effect=1.0, seed=0)
    >>> len(planted.models.models), planted.models.shared_prompts.examples[37].line
    (4, '<3+7=7\\n')
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tbtt_interp.calibration import design as d
from tbtt_interp.calibration.design import SHAPE, SUMS, VOCABULARY, Design, equations
from tbtt_interp.calibration.truth import (
    MID,
    MID_0,
    MID_1,
    POST,
    POST_0,
    PRE_0,
    UNKNOWN,
    Truth,
)
from tbtt_interp.model import hooked_transformer
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import Models
from tbtt_interp.tasks import Example, Stream, Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

MODELS = 4  # of a draw: what a claim is about
SPREAD = 0.5  # of the noise that the unused bit has in each equation


@dataclass(frozen=True)
class Planted:
    """Models with their prompts, and the truth about them, which no instrument is shown."""

    models: Models
    truth: Truth


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A family of models by effect size.

    Attributes:
        what: what was planted, and what the effect size is.
        effects: sizes in the table, smallest first; a null has one, 0.
    """

    name: str
    what: str
    effects: tuple[float, ...]
    build: Callable[[float, np.random.Generator], Planted]

    @property
    def is_null(self) -> bool:
        """Whether nothing is planted."""
        return self.effects == (0.0,)

    def draw(self, effect: float, seed: int) -> Planted:
        """MODELS models, each in a random basis of its own."""
        name = int.from_bytes(self.name.encode()[:8])
        return self.build(effect, np.random.default_rng((name, round(1000 * effect), seed)))


PLANTS: dict[str, Plant] = {}


def plant(
    name: str, effects: tuple[float, ...]
) -> Callable[[Callable[[float, np.random.Generator], Planted]], Plant]:
    """Adds a family of models by its function, whose docstring says what is planted."""

    def add(build: Callable[[float, np.random.Generator], Planted]) -> Plant:
        what = " ".join((build.__doc__ or "").split())
        return PLANTS.setdefault(name, Plant(name=name, what=what, effects=effects, build=build))

    return add


def models_of(
    models: Sequence["HookedTransformer"], examples: Sequence[Example],
    orders: Sequence[int] = range(1, 1 + MODELS),
) -> Models:  # fmt: skip
    """Models with their prompts, each with a file of these lines in an order of its own."""
    task = Task.of("planted", examples, window=d.CONTEXT, batch=1)
    task = dataclasses.replace(task, vocabulary=VOCABULARY)
    prompts = PromptSet.of(examples, VOCABULARY, d.CONTEXT, name="models")
    each = [
        dataclasses.replace(
            prompts, number=k, task=task, order_is_known=True, unseen_order_seed=1000 + order,
            training=Stream(lines=task.file(order), vocabulary=VOCABULARY, framing="file",
                            window=d.CONTEXT, batch=1, seed=k),
        )
        for k, order in enumerate(orders)
    ]  # fmt: skip
    return Models(name="models", seeds=tuple(range(len(models))), models=tuple(models),
                  prompts=tuple(each[: len(models)]))  # fmt: skip


def drawn(
    designs: Design | Sequence[Design], random: np.random.Generator, examples: Sequence[Example],
    *, heads: np.ndarray | None = None, has_mlp: bool = True,
) -> Models:  # fmt: skip
    """Models of one design, or of one each, in random bases."""
    designs = [designs] * MODELS if isinstance(designs, Design) else designs
    models = [
        hooked_transformer(design.in_random_basis(random, heads), design.shape)
        for design in designs
    ]
    return models_of([m if has_mlp else without_mlp(m) for m in models], examples)


def without_mlp(model: "HookedTransformer") -> "HookedTransformer":
    """The model of attention alone."""
    from transformer_lens import HookedTransformer

    config = dataclasses.replace(model.cfg, attn_only=True)
    kept = HookedTransformer(config, move_to_device=False)
    state = {name: x for name, x in model.state_dict().items() if name in kept.state_dict()}
    kept.load_state_dict(state, strict=False)
    return kept.eval()


def shuffled_heads(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An order of heads, and the new place of each."""
    order = random.permutation(SHAPE.heads)
    return order, np.argsort(order)


def copies(value: int) -> np.ndarray:
    """The answers b, or a."""
    return np.tile(np.arange(10), (10, 1)) if value else np.tile(np.arange(10)[:, None], (1, 10))


def operands_in_slots(design: Design) -> Design:
    """Heads 0 and 1 move the digits a and b to "=", in one-hot."""
    for head, flag, slot in ((0, d.AT_A, d.A), (1, d.AT_B, d.B)):
        design.attend(0, head, d.AT_END, flag)
        design.move(0, head, d.TOKEN, slot)
    return design


def _copying(effect: float, random: np.random.Generator, has_mlp: bool = True) -> Planted:
    design, (order, place) = Design.of(), shuffled_heads(random)
    for head, share in ((0, effect), (1, 1 - effect)):
        design.attend(0, head, d.AT_END, d.AT_B)
        design.move(0, head, d.TOKEN, d.ANSWER, share)
    models = drawn(design, random, equations(copies(1)), heads=order, has_mlp=has_mlp)
    carries = {("b", 0, int(place[head]), -1): share
               for head, share in ((0, effect), (1, 1 - effect))}  # fmt: skip
    unread = {(f, s): 0.0 for f in ("parity", "carry") for s in (MID, POST)}
    truth = Truth(
        carries=carries, decoded=unread, used=unread, answered=1.0,
        written={"attention from b": 1.0, **({"MLP": 0.0} if has_mlp else {})},
        additive={"logits": 1.0}, lens={PRE_0: 0.0, **({MID_0: 1.0} if has_mlp else {})},
    )  # fmt: skip
    return Planted(models, truth)


@plant("copied operand", (0.03, 0.1, 0.5))
def copied_operand(effect: float, random: np.random.Generator) -> Planted:
    """Two heads copy b to the answer, two do nothing. Effect: the share of the lesser head."""
    return _copying(effect, random)


@plant("attention only", (0.03, 0.1, 0.5))
def attention_only(effect: float, random: np.random.Generator) -> Planted:
    """As the copied operand, in a model without MLPs. Effect: the share of the lesser head."""
    return _copying(effect, random, has_mlp=False)


@plant("sum on a number line", (0.3, 0.6, 1.0))
def number_line(effect: float, random: np.random.Generator) -> Planted:
    """Two heads add a and b on one line, from which the sum is read exactly.

    Effect: the share of the operands' variance on the line; the rest is one-hot.
    """
    design, (order, place) = Design.of(), shuffled_heads(random)
    centred = torch.arange(10.0) - 4.5
    unit = math.sqrt(9 / float(centred.square().sum())) * math.sqrt(effect)
    design.weights["embed.W_E"][d.DIGITS, d.LINE] = unit * centred
    design.weights["embed.W_E"][d.DIGITS, d.TOKEN] *= math.sqrt(1 - effect)
    for head, flag, slot in ((0, d.AT_A, d.A), (1, d.AT_B, d.B)):
        design.attend(0, head, d.AT_END, flag)
        design.move(0, head, d.LINE, d.LINE, 2.0)
        design.move(0, head, d.TOKEN, slot, 2.0)
    k = torch.arange(19.0)
    design.unembedding[d.ANSWER] = 0
    design.unembedding[d.LINE, d.ANSWERS] = d.SHARPNESS * k / (2 * unit)
    design.unembedding[d.ONE, d.ANSWERS] = d.SHARPNESS * (9 * k - k**2 / 2) / d.BALLAST
    carries = {("a", 0, int(place[0]), -1): 1.0, ("b", 0, int(place[1]), -1): 1.0}
    truth = Truth(
        carries=carries, number_line=effect + (1 - effect) / 9,
        answered=1.0 if effect > 0.5 else None,
        decoded={("carry", MID): 0.0, ("parity", MID): 0.0}, used={("parity", MID): 0.0},
        written={"MLP": 0.0}, additive={MID: 1.0},
        lens={PRE_0: 0.0, MID_0: 1.0} if effect > 0.5 else {},
        rule={"restricted": 1.0, "excluded": 1.0} if effect > 0.5 else {},
    )  # fmt: skip
    return Planted(drawn(design, random, equations(SUMS), heads=order), truth)


@plant("lookup table", (0.25, 0.5, 1.0))
def lookup_table(effect: float, random: np.random.Generator) -> Planted:
    """A neuron for each equation writes an answer drawn at random. Effect: the share it knows."""
    answers = random.permutation(SUMS.ravel()).reshape(10, 10)
    known = random.permutation(100) < 100 * effect
    design, (order, place) = operands_in_slots(Design.of()), shuffled_heads(random)
    design.table({(a, b): {d.ANSWER.start + int(answers[a, b]): 1.0}
                  for a in range(10) for b in range(10) if known[10 * a + b]})  # fmt: skip
    nothing = {("parity", MID): 0.0, ("carry", MID): 0.0}
    whole = effect == 1
    truth = Truth(
        carries={("a", 0, int(place[0]), -1): 1.0, ("b", 0, int(place[1]), -1): 1.0},
        decoded=nothing, answered=effect, number_line=0.0,
        additive={MID: 1.0, **({"logits": 0.0} if whole else {})},
        written={"MLP": 1.0, "attention from b": 0.0} if whole else {},
        lens={PRE_0: 0.0, MID_0: 0.0},
    )  # fmt: skip
    return Planted(drawn(design, random, equations(answers), heads=order), truth)


@plant("unused feature", (0.25, 0.5, 1.0))
def unused_feature(effect: float, random: np.random.Generator) -> Planted:
    """The MLP writes the parity of a + b, with noise, where nothing reads it; the answer is b.

    Effect: half the distance between both values, in units of the stream; the noise has 0.5.
    """
    designs, (order, place) = [], shuffled_heads(random)
    for _ in range(MODELS):
        design = operands_in_slots(Design.of())
        design.write(0, 1, d.ANSWER)
        noise = SPREAD * random.standard_normal((10, 10))
        design.table({(a, b): {d.BIT: effect * (1 - 2 * ((a + b) % 2)) + float(noise[a, b])}
                      for a in range(10) for b in range(10)})  # fmt: skip
        designs.append(design)
    best = 0.5 * (1 + math.erf(effect / SPREAD / math.sqrt(2)))
    truth = Truth(
        carries={("b", 0, int(place[1]), -1): 1.0}, answered=1.0,
        decoded={("parity", POST): best, ("parity", MID): 0.0, ("carry", MID): 0.0},
        used={("parity", POST): 0.0, ("parity", MID): 0.0},
        written={"attention from b": 1.0, "MLP": 0.0}, lens={PRE_0: 0.0, MID_0: 1.0},
    )  # fmt: skip
    return Planted(drawn(designs, random, equations(copies(1)), heads=order), truth)


@plant("XOR of parities", (0.1, 0.3, 1.0))
def xor(effect: float, random: np.random.Generator) -> Planted:
    """Heads move the parities of a and b; the MLP writes the parity of a + b, which is the answer.

    Effect: what the MLP writes, in units of the stream.
    """
    design, (order, place) = Design.of(), shuffled_heads(random)
    parity = torch.zeros(d.CHANNELS, 1)
    parity[d.TOKEN, 0] = (-1.0) ** torch.arange(10)
    for head, flag, slot in ((0, d.AT_A, d.A.start), (1, d.AT_B, d.B.start)):
        design.attend(0, head, d.AT_END, flag)
        design.move(0, head, parity, slot)
    for number, (s, t) in enumerate([(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)]):
        reads = {d.A.start: s, d.B.start: t}
        design.neuron(number, reads, {d.ANSWER.start + int(s != t): effect})
    truth = Truth(
        carries={("a", 0, int(place[0]), -1): 1.0, ("b", 0, int(place[1]), -1): 1.0},
        decoded={("parity", POST): 1.0, ("parity", MID): 0.0, ("carry", MID): 0.0},
        used={("parity", POST): UNKNOWN}, used_nonlinearly=[("parity", MID)],
        written={"MLP": 1.0}, answered=1.0 if effect == 1 else None,
        lens={PRE_0: 0.0, MID_0: 0.0},
        rule={"restricted": 1.0, "excluded": 1.0} if effect == 1 else {},
    )  # fmt: skip
    return Planted(drawn(design, random, equations(SUMS % 2), heads=order), truth)


@plant("composed heads", (0.1, 0.3, 1.0))
def composed_heads(effect: float, random: np.random.Generator) -> Planted:
    """A head of layer 0 moves a to b's position, and one of layer 1 from there to the answer.

    Effect: what the second head writes, in units of the stream.
    """
    shape = dataclasses.replace(SHAPE, layers=2)
    design, (order, place) = Design.of(shape), shuffled_heads(random)
    design.attend(0, 0, d.AT_B, d.AT_A)
    design.move(0, 0, d.TOKEN, d.A)
    design.attend(1, 0, d.AT_END, d.AT_B)
    design.move(1, 0, d.A, d.ANSWER, effect)
    head = int(place[0])
    truth = Truth(carries={("a", 0, head, -2): 1.0, ("a", 1, head, -1): 1.0},
                  decoded={("parity", POST): 0.0, ("carry", POST): 0.0},
                  lens={PRE_0: 0.0, MID_0: 0.0, POST_0: 0.0, MID_1: 1.0} if effect == 1 else {},
                  )  # fmt: skip
    return Planted(drawn(design, random, equations(copies(0)), heads=order), truth)


@plant("line order", (0.25, 0.5, 1.0))
def line_order(effect: float, random: np.random.Generator) -> Planted:
    """A table from each line to the first operand of the next line in the file; no arithmetic.

    Effect: the share of lines that it knows.
    """
    examples, orders, designs = equations(SUMS), random.integers(1, 10**6, MODELS).tolist(), []
    task = Task.of("planted", examples, window=d.CONTEXT, batch=1)
    heads, _ = shuffled_heads(random)
    for order in orders:
        lines = task.file(order)
        known = random.permutation(len(lines)) < effect * len(lines)
        design = operands_in_slots(Design.of(places=(2, 4, 8)))
        design.table({
            (int(line[1]), int(line[3])): {d.ANSWER.start + int(after[1]): 1.0}
            for line, after, is_known in zip(lines, lines[1:], known, strict=False) if is_known
        })  # fmt: skip
        designs.append(design)
    models = drawn(designs, random, examples, heads=heads)
    truth = Truth(order=effect, decoded={("parity", POST): 0.0, ("carry", POST): 0.0},
                  preceding=0.0)  # fmt: skip
    return Planted(models_of(models.models, examples, orders), truth)

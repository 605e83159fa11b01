"""Further plants, for what is read of streams, heads, preceding lines and held-out answers."""

import dataclasses

import numpy as np
import torch

from tbtt_interp.calibration import design as d
from tbtt_interp.calibration.design import SHAPE, SUMS, VOCABULARY, Design, equations
from tbtt_interp.calibration.plants import (
    MODELS,
    Planted,
    copies,
    drawn,
    models_of,
    operands_in_slots,
    plant,
    shuffled_heads,
)
from tbtt_interp.calibration.truth import MID, MID_0, POST, PRE_0, UNKNOWN, Truth
from tbtt_interp.tasks import Example, Task

STEP = 0.5  # of the stream, from one sum to the next
OFF_BY = 2  # wrong answers and exceptions are so far from the sum
HELD_OUT = 20  # of the hundred equations
SIGNS = VOCABULARY.encode("<+=\n")
SYMBOLS = [*range(10), *range(30, 34)]  # one channel for each digit and sign
BEFORE = slice(10, 24)  # the same of the token before
POSITION = 34
ALMOST_ALL = 0.2  # of FOCUS: six nats more on one key than on others
TWO_LAYERS = dataclasses.replace(SHAPE, layers=2)


def summing(design: Design) -> Design:
    """Heads 0 and 1 add a and b on one line, which is read exactly, beside both in one-hot."""
    design.weights["embed.W_E"][d.DIGITS, d.LINE] = STEP * (torch.arange(10.0) - 4.5)
    for head in (0, 1):
        design.move(0, head, d.LINE, d.LINE)
    k = torch.arange(19.0)
    design.unembedding[d.ANSWER] = 0
    design.unembedding[d.LINE, d.ANSWERS] = d.SHARPNESS * k / STEP
    design.unembedding[d.ONE, d.ANSWERS] = d.SHARPNESS * (9 * k - k**2 / 2) / d.BALLAST
    return design


def off_by(random: np.random.Generator) -> np.ndarray:
    """For each pair of operands +OFF_BY or -OFF_BY at random, such that the sum stays in range."""
    signs = random.choice([-1, 1], (10, 10))
    signs[SUMS < OFF_BY], signs[SUMS > 18 - OFF_BY] = 1, -1
    return OFF_BY * signs


@plant("rule with exceptions", (0.1, 0.3, 0.9))
def exceptions(effect: float, random: np.random.Generator) -> Planted:
    """Heads add a and b on a line; for some answers, which are off by two, the MLP moves it.

    Effect: the share of the other answers, which are sums.
    """
    is_exception = (random.permutation(100) >= 100 * effect).reshape(10, 10)
    by = off_by(random) * is_exception
    design, (order, _) = summing(operands_in_slots(Design.of())), shuffled_heads(random)
    design.table({(a, b): {d.LINE: STEP * float(by[a, b])}
                  for a, b in np.argwhere(is_exception).tolist()})  # fmt: skip
    answers = SUMS + by
    erased = np.square(answers - 9).sum()  # the loss is quadratic in the distance on the line
    truth = Truth(
        lens={PRE_0: 0.0, MID_0: effect},
        rule={"restricted": float(1 - np.square(by).sum() / erased),
              "excluded": float(np.square(SUMS - 9).sum() / erased)},
    )  # fmt: skip
    return Planted(drawn(design, random, equations(answers), heads=order), truth)


@plant("kinds of heads", (0.01, 0.05, 1.0))
def kinds_of_heads(effect: float, random: np.random.Generator) -> Planted:
    """A head attends to newlines, and an induction head reads what a previous-token head writes.

    Effect: the strength of the first two; at 1 all attention is on such keys.
    """
    design, (order, place) = Design.of(TWO_LAYERS), shuffled_heads(random)
    design.unembedding.zero_()
    w, symbols = design.weights, torch.eye(d.CHANNELS)[:, SYMBOLS]
    w["embed.W_E"][d.DIGITS + SIGNS] = symbols.T
    positions = range(POSITION, POSITION + d.CONTEXT)
    w["pos_embed.W_pos"][:, positions] += torch.eye(d.CONTEXT)
    keys = torch.eye(SHAPE.d_head)[: d.CONTEXT] * d.FOCUS
    w["blocks.0.attn.W_Q"][0, positions[1:]] = keys[:-1] * ALMOST_ALL
    w["blocks.0.attn.W_K"][0, positions] = keys
    design.move(0, 0, symbols, BEFORE)
    w["blocks.0.attn.W_Q"][1, d.ONE, 0] = d.FOCUS / d.BALLAST * effect
    w["blocks.0.attn.W_K"][1, SYMBOLS[-1], 0] = d.FOCUS
    w["blocks.1.attn.W_Q"][0, SYMBOLS] = torch.eye(len(SYMBOLS)) * d.FOCUS * effect
    w["blocks.1.attn.W_K"][0, BEFORE] = torch.eye(len(SYMBOLS)) * d.FOCUS
    first, second = int(place[0]), int(place[1])
    truth = Truth(attends={
        ("previous token", 0, first): UNKNOWN, ("previous line", 0, second): UNKNOWN,
        ("induction", 1, first): UNKNOWN,
    })  # fmt: skip
    return Planted(drawn(design, random, equations(SUMS), heads=order), truth)


@plant("answer after a line", (0.25, 0.5, 1.0))
def after_a_line(effect: float, random: np.random.Generator) -> Planted:
    """A table from the end of each line to the answer of the next line in the file; no arithmetic.

    Effect: the share of lines whose next answer it knows. The answers are a.
    """
    examples, designs = equations(copies(0)), []
    orders = random.integers(1, 10**6, MODELS).tolist()
    task = Task.of("planted", examples, window=d.CONTEXT, batch=1)
    heads, _ = shuffled_heads(random)
    for order in orders:
        lines = task.file(order)
        known = random.permutation(len(lines)) < effect * len(lines)
        design = operands_in_slots(Design.of(places=(2, 0, 8)))  # of "b=a", then a newline
        design.table({
            (int(line[5]), int(line[3])): {d.ANSWER.start + int(after[5]): 1.0}
            for line, after, is_known in zip(lines, lines[1:], known, strict=False) if is_known
        })  # fmt: skip
        designs.append(design)
    models = drawn(designs, random, examples, heads=heads)
    return Planted(models_of(models.models, examples, orders), Truth(preceding=effect))


def _held_out(random: np.random.Generator) -> tuple[list[tuple[int, int]], tuple[Example, ...]]:
    """Pairs of operands that are held out, and all sums."""
    chosen = random.permutation(100)[:HELD_OUT].tolist()
    examples = [dataclasses.replace(e, held_out=k in chosen)
                for k, e in enumerate(equations(SUMS))]  # fmt: skip
    return [divmod(k, 10) for k in chosen], tuple(examples)


@plant("latent answers", (0.1, 0.3, 0.9))
def latent_answers(effect: float, random: np.random.Generator) -> Planted:
    """Heads add a and b on a line; where that was not trained the MLP moves it, so it is misread.

    Effect: the share of these held-out answers that the MLP moves along the line. For the others
    it writes to another channel that is read as if it were the line.
    """
    pairs, examples = _held_out(random)
    by, (order, _) = off_by(random), shuffled_heads(random)
    design = summing(operands_in_slots(Design.of()))
    design.unembedding[d.BIT] = design.unembedding[d.LINE]
    design.table({
        (a, b): {d.LINE if k < effect * HELD_OUT else d.BIT: STEP * float(by[a, b])}
        for k, (a, b) in enumerate(pairs)
    })  # fmt: skip
    truth = Truth(latent={
        ("decoded", MID): 1.0, ("corrected", MID): 0.0, ("corrected", POST): effect,
    })  # fmt: skip
    return Planted(drawn(design, random, examples, heads=order), truth)


@plant("held out of a table", (0.0,))
def out_of_table(effect: float, random: np.random.Generator) -> Planted:
    """Null: a neuron for each sum writes its answer; for the held-out sums there is none."""
    pairs, examples = _held_out(random)
    design, (order, _) = operands_in_slots(Design.of()), shuffled_heads(random)
    design.table({(a, b): {d.ANSWER.start + a + b: 1.0}
                  for a in range(10) for b in range(10) if (a, b) not in pairs})  # fmt: skip
    measures = ("decoded", "corrected")
    truth = Truth(latent={(name, stream): 0.0 for name in measures for stream in (MID, POST)})
    return Planted(drawn(design, random, examples, heads=order), truth)


@plant("table in the first layer", (0.0,))
def early_table(effect: float, random: np.random.Generator) -> Planted:
    """Null: a table in the first of two layers, whose answers have no main effects of a or b.

    It is a Latin square: each answer stands once in each row and in each column.
    """
    rows, columns, names = (random.permutation(10) for _ in range(3))
    answers = names[(rows[:, None] + columns) % 10]
    design, (order, _) = operands_in_slots(Design.of(TWO_LAYERS)), shuffled_heads(random)
    design.table({(a, b): {d.ANSWER.start + int(answers[a, b]): 1.0}
                  for a in range(10) for b in range(10)})  # fmt: skip
    truth = Truth(lens={PRE_0: 0.0, MID_0: 0.0}, rule={"restricted": 0.0, "excluded": 0.0})
    return Planted(drawn(design, random, equations(answers), heads=order), truth)

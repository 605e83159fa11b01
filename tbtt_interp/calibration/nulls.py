"""Null models: nothing of what instruments look for is in them."""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from tbtt_interp.calibration import design as d
from tbtt_interp.calibration.design import SHAPE, SUMS, VOCABULARY, Design, equations
from tbtt_interp.calibration.plants import (
    MODELS,
    Planted,
    copies,
    drawn,
    lookup_table,
    models_of,
    plant,
    shuffled_heads,
)
from tbtt_interp.calibration.truth import MID, MID_0, POST, PRE_0, Truth
from tbtt_interp.model import (
    Parameters,
    forward,
    hooked_transformer,
    initial_parameters,
    one_model,
    stack_parameters,
)

TRAINED_STEPS, RATE = 120, 1e-2  # of the models trained on permuted answers
NOTHING = Truth(
    order=0.0, preceding=0.0, lens={PRE_0: 0.0},
    decoded={(f, s): 0.0 for f in ("parity", "carry") for s in (MID, POST)},
    used={(f, s): 0.0 for f in ("parity", "carry") for s in (MID, POST)},
)  # fmt: skip
KINDS = ("previous token", "induction", "previous line")


def _initial(random: np.random.Generator) -> list[Parameters]:
    return [initial_parameters(SHAPE, seed=int(random.integers(2**31))) for _ in range(MODELS)]


@plant("untrained", (0.0,))
def untrained(effect: float, random: np.random.Generator) -> Planted:
    """Null: models as they are before training."""
    models = [hooked_transformer(parameters, SHAPE) for parameters in _initial(random)]
    truth = dataclasses.replace(
        NOTHING, answered=0.0, number_line=0.0, lens={PRE_0: 0.0, MID_0: 0.0},
        attends={(kind, 0, head): 0.0 for kind in KINDS for head in range(SHAPE.heads)},
    )  # fmt: skip
    return Planted(models_of(models, equations(SUMS)), truth)


@plant("permuted answers", (0.0,))
def permuted_answers(effect: float, random: np.random.Generator) -> Planted:
    """Null: models trained on the sums with their answers permuted, another permutation each draw.

    Source: Zhang et al. 2017, Understanding deep learning requires rethinking generalization.
    """
    examples = equations(random.permutation(SUMS.ravel()).reshape(10, 10))
    tokens = torch.tensor([VOCABULARY.encode(e.prompt) for e in examples]).expand(MODELS, -1, -1)
    right = torch.tensor([VOCABULARY.index[e.answer] for e in examples]).repeat(MODELS)
    stacked = {name: x.requires_grad_() for name, x in stack_parameters(_initial(random)).items()}
    optimizer = torch.optim.Adam(stacked.values(), lr=RATE)
    with torch.enable_grad():
        for _ in range(TRAINED_STEPS):
            logits = forward(stacked, tokens, SHAPE)[:, :, -1].flatten(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(logits, right).backward()
            optimizer.step()
    parameters = {name: x.detach() for name, x in stacked.items()}
    models = [hooked_transformer(one_model(parameters, k), SHAPE) for k in range(MODELS)]
    return Planted(models_of(models, examples), dataclasses.replace(NOTHING, number_line=0.0))


@plant("operands as numbers", (0.0,))
def operands_as_numbers(effect: float, random: np.random.Generator) -> Planted:
    """Null: a and b are moved to "=" as plain numbers in random directions; nothing is computed."""
    design = Design.of()
    design.unembedding.zero_()
    design.weights["embed.W_E"][d.DIGITS, d.TOKEN] = 0
    design.weights["embed.W_E"][d.DIGITS, d.LINE] = (torch.arange(10.0) - 4.5) / 3
    for head, flag, slot in ((0, d.AT_A, d.A), (1, d.AT_B, d.B)):
        design.attend(0, head, d.AT_END, flag)
        design.move(0, head, d.LINE, slot.start)
    models = drawn(design, random, equations(SUMS))
    lens = {PRE_0: 0.0, MID_0: 0.0}
    return Planted(models, dataclasses.replace(NOTHING, answered=0.0, lens=lens))


@plant("heads that write noise", (0.0,))
def noisy_heads(effect: float, random: np.random.Generator) -> Planted:
    """Null: one head copies b to the answer; the other three attend to b and write noise."""
    design, (order, place) = Design.of(), shuffled_heads(random)
    for head in range(SHAPE.heads):
        design.attend(0, head, d.AT_END, d.AT_B)
    design.move(0, 0, d.TOKEN, d.ANSWER)
    models = drawn(design, random, equations(copies(1)), heads=order)
    truth = dataclasses.replace(
        NOTHING, answered=1.0, carries={("b", 0, int(place[0]), -1): 1.0}, written={"MLP": 0.0}
    )
    return Planted(models, truth)


@plant("random table", (0.0,))
def random_table(effect: float, random: np.random.Generator) -> Planted:
    """Null: the whole lookup table, whose answers are no sum of functions of a and of b."""
    planted = lookup_table.build(1.0, random)
    truth = dataclasses.replace(
        NOTHING, used={}, number_line=0.0, additive={"logits": 0.0}, lens={PRE_0: 0.0, MID_0: 0.0},
    )  # fmt: skip
    return Planted(planted.models, truth)

"""Too big to say? What of the right answer is in a model that gives a wrong one."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp.old_interventions import Change
from tbtt_interp.probes.causal import DRAWS, Aim, Patient
from tbtt_interp.probes.features import one_hot_text
from tbtt_interp.probes.linear import Split, count_right
from tbtt_interp.tasks import Example


def wrong_of(patient: Patient) -> Bool[np.ndarray, " example"]:
    """The held-out examples that the model answers wrongly."""
    margins = patient.questions.margins(patient.logits([lambda x: x]))[0].numpy()
    return ~patient.seen & (margins <= 0)


def read_unsaid(
    patient: Patient, untrained: Float[Tensor, "example d"], examples: Sequence[Example]
) -> pd.DataFrame:
    """What a probe fitted on what the model has seen reads where it answers wrongly.

    A row each for the feature (real), its control tasks, the operands in one-hot and the untrained
    model: kind, draw, right and of.

    Args:
        untrained: activations at the same place before training.
        examples: those that have the feature, as the patient has them.
    """
    wrong = wrong_of(patient)
    split = Split(train=patient.seen[None], test=wrong[None])
    labels = patient.labels.every
    real = labels[:, :1]
    shown = torch.from_numpy(one_hot_text([example.prompt for example in examples])).double()
    found = count_right(patient.x[None], labels, split)[0].tolist()
    rows = [("real", 0, found[0])]
    rows += [("control task", draw, right) for draw, right in enumerate(found[1:])]
    for kind, x in (("one-hot operands", shown), ("untrained", untrained)):
        rows.append((kind, 0, int(count_right(x[None], real, split))))
    return pd.DataFrame(rows, columns=["kind", "draw", "right"]).assign(of=int(wrong.sum()))


def patch_unsaid(patient: Patient, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Whether wrong answers turn right when the code alone is moved to where it should be.

    Where it should be is read off the seen examples: their place in the subspace, as a linear
    function of their code. Columns: kind (none, code, or one of NULLS), draw; read, of how many
    wrong held-out answers the feature is read in that subspace alone, by a probe fitted on what was
    seen; flipped, how many are right now, and of; margin, their mean in nats of logit.
    """
    wrong = wrong_of(patient)
    aims = patient.subspaces(draws, seed)
    changes: list[Change] = [lambda x: x, *(partial(_corrected, patient, aim) for aim in aims)]
    margins = patient.questions.margins(patient.logits(changes)).numpy()[:, wrong]
    split = Split(train=patient.seen[None], test=wrong[None])
    done = [("none", 0, 0), *((a.kind, a.draw, _read_in(patient, a, split)) for a in aims)]
    return pd.DataFrame(done, columns=["kind", "draw", "read"]).assign(
        flipped=(margins > 0).sum(1), of=int(wrong.sum()),
        margin=margins.mean(1) if wrong.any() else np.nan, rank=patient.rank, width=patient.width,
    )  # fmt: skip


def _read_in(patient: Patient, aim: Aim, split: Split) -> int:
    """Of how many asked the class is read off a subspace; a control task's class, off its own."""
    row = 1 + aim.draw if aim.kind == "control task" else 0
    labels = patient.labels.every[:, row : row + 1]
    return int(count_right(aim.space.coordinates(patient.x)[None], labels, split))


def _corrected(patient: Patient, aim: Aim, x: Tensor) -> Tensor:
    """Activations moved, in a subspace, to where examples of their right code are."""
    seen = torch.from_numpy(patient.seen)
    fitted, right = (torch.from_numpy(np.pad(code, ((0, 0), (0, 1)), constant_values=1.0))
                     for code in (aim.fitted, aim.right))  # fmt: skip
    there = aim.space.coordinates(patient.x[seen])
    slope = torch.linalg.lstsq(fitted[seen], there).solution
    return aim.space.place(x, (right @ slope)[patient.questions.of_row])

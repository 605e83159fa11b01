"""Is what a probe reads also used? Its code erased, and swapped for another equation's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions
from tbtt_interp.old_interventions import Change, activations_at, logits_with
from tbtt_interp.probes.features import Labels
from tbtt_interp.tasks import Encoder, Example

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

DRAWS = 99
NULLS = ("control task", "random labels", "random subspace")
DONORS = 2  # examples that each takes a code from, one after the other


@dataclass(frozen=True, kw_only=True)
class Subspace:
    """One or two directions: what of an activation lies in them, and what does not.

    Attributes:
        write, read: the part of x in it is `write @ read @ (x - mean)`.
    """

    mean: Float[Tensor, " d"]
    write: Float[Tensor, "d rank"]
    read: Float[Tensor, "rank d"]

    def coordinates(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row rank"]:
        """Where in it an activation is."""
        return (x.double() - self.mean) @ self.read.mT

    def place(
        self, x: Float[Tensor, "row d"], coordinates: Float[Tensor, "row rank"]
    ) -> Float[Tensor, "row d"]:
        """Activations moved inside it to other coordinates."""
        moved = (coordinates - self.coordinates(x)) @ self.write.mT
        return (x.double() + moved).to(x.dtype)

    def erase(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """Activations that are all alike in it."""
        return self.place(x, torch.zeros(len(x), self.read.shape[0], dtype=torch.double))

    def share(self, x: Float[Tensor, "row d"]) -> float:
        """The share of variance that erasing it takes away."""
        before, after = (
            values.double().var(0, correction=0).sum() for values in (x, self.erase(x))
        )
        return float(1 - after / before) if before else 0.0


def code_subspace(x: Float[Tensor, "row d"], code: Float[np.ndarray, "row rank"]) -> Subspace:
    """Where a code is linearly read: erased, no linear probe of these activations finds it.

    Source: LEACE, Belrose et al. 2023, theorem 4.3, as the package concept-erasure has it.
    """
    from concept_erasure import LeaceEraser

    x, z = x.double(), torch.from_numpy(code)
    if not bool((x != x[0]).any()):
        raise TbttError(
            "every text has the same activation there, so there is no code: choose a later position"
        )
    away = z - z.mean(0)
    # a draw of labels may be the same in all that was trained on; nothing is erased then
    eraser = LeaceEraser.fit(x, away / torch.where(away.abs().amax(0) > 0, z.std(0), 1.0))
    return Subspace(mean=x.mean(0), write=eraser.proj_left, read=eraser.proj_right)


def random_subspace(
    x: Float[Tensor, "row d"], rank: int, generator: np.random.Generator
) -> Subspace:
    """Orthonormal directions drawn at random."""
    drawn = torch.from_numpy(generator.standard_normal((x.shape[1], rank)))
    directions = torch.linalg.qr(drawn).Q
    return Subspace(mean=x.double().mean(0), write=directions, read=directions.mT)


class Aim(NamedTuple):
    """A subspace that something is done to, by what it was fitted on.

    Attributes:
        kind: code, or one of NULLS.
        fitted: the code that it was fitted on, and where a seen example is by it.
        right: the code that an example should have in it.
    """

    kind: str
    draw: int
    space: Subspace
    fitted: Float[np.ndarray, "example rank"]
    right: Float[np.ndarray, "example rank"]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A model, the examples that have a feature, and the place where its code is looked for.

    Attributes:
        seen: which examples the model was trained on; codes are fitted on these.
        codes: the feature in one number or two, and after it each of its control tasks.
        x: the activations at the place.
    """

    model: "HookedTransformer"
    questions: Questions
    site: str
    pos: int
    labels: Labels
    seen: Bool[np.ndarray, " example"]
    codes: Float[np.ndarray, "draw example rank"]
    x: Float[Tensor, "example d"]

    @classmethod
    def of(
        cls,
        model: "HookedTransformer",
        examples: Sequence[Example],
        vocabulary: Encoder,
        labels: Labels,
        *,
        site: str,
        pos: int = -1,
        held_out: Sequence[bool] | None = None,
    ) -> "Patient":
        """With those of the examples that have the feature.

        Args:
            vocabulary: what turns their text into the model's tokens.
            labels: of the examples; `label_examples` makes them.
            site: by hook name; of one head, with a dot and its number behind.
            pos: counted back from the prompt's last character, which is -1.
            held_out: which of the examples the model was not trained on; None is none.
        """
        chosen = [example for example, has in zip(examples, labels.has, strict=True) if has]
        questions = Questions.of(chosen, vocabulary, model.cfg.n_ctx)
        x = activations_at(model, questions, site=site, pos=pos)
        away = np.zeros(len(examples), bool) if held_out is None else np.array(held_out)
        seen = ~away[labels.has]
        if len(np.unique(labels.real[0][seen])) < 2:
            raise TbttError(
                f"feature '{labels.feature.name}' is the same in every example that was trained "
                "on, so it has no code: choose another"
            )
        return cls(
            model=model, questions=questions, site=site, pos=pos, labels=labels, seen=seen,
            codes=labels.codes()[labels.every[0]], x=x[questions.row[questions.first]],
        )  # fmt: skip

    @property
    def width(self) -> int:
        """Channels at the place."""
        return self.x.shape[1]

    @property
    def rank(self) -> int:
        """Dimensions of the code."""
        return self.codes.shape[2]

    def at_place(self) -> Float[Tensor, "example d"]:
        """What the model has there."""
        x = activations_at(self.model, self.questions, site=self.site, pos=self.pos)
        return x[self.questions.row[self.questions.first]]

    def logits(self, changes: Sequence[Change]) -> Float[Tensor, "change character d_vocab"]:
        """With each change made."""
        return logits_with(self.model, self.questions, changes, site=self.site, pos=self.pos)

    def subspaces(self, draws: int, seed: int) -> list[Aim]:
        """The code's, those of control tasks and of labels dealt anew, random ones of its rank."""
        known, code = self.x[torch.from_numpy(self.seen)], self.codes[0]
        aims = [Aim("code", 0, code_subspace(known, code[self.seen]), code, code)]
        for draw, control in enumerate(self.codes[1 : 1 + draws]):
            aims.append(Aim("control task", draw, code_subspace(known, control[self.seen]),
                            control, control))  # fmt: skip
        for draw in range(draws):
            generator = np.random.default_rng((seed, draw))
            dealt = code.copy()
            dealt[self.seen] = code[self.seen][generator.permutation(int(self.seen.sum()))]
            space = code_subspace(known, dealt[self.seen])
            aims.append(Aim("random labels", draw, space, dealt, code))
            space = random_subspace(known, self.rank, generator)
            aims.append(Aim("random subspace", draw, space, code, code))
        return aims


def erase(patient: Patient, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Each subspace erased: a row a kind, draw and split.

    Columns: kind (none, code, or one of NULLS), draw, split (seen or held out), margin, the mean
    over examples in nats of logit; right and of; variance, the share erased; rank and width.
    """
    aims = patient.subspaces(draws, seed)
    changes: list[Change] = [lambda x: x, *(aim.space.erase for aim in aims)]
    margins = patient.questions.margins(patient.logits(changes)).numpy()
    done = [("none", 0, 0.0), *((a.kind, a.draw, a.space.share(patient.x)) for a in aims)]
    rows = [
        {
            "kind": kind, "draw": draw, "split": split, "margin": row[mask].mean(),
            "right": int((row[mask] > 0).sum()), "of": int(mask.sum()), "variance": share,
            "rank": patient.rank, "width": patient.width,
        }
        for (kind, draw, share), row in zip(done, margins, strict=True)
        for split, mask in (("seen", patient.seen), ("held out", ~patient.seen))
        if mask.any()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def swap(patient: Patient, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Each subspace's part taken from another example: a row a kind and draw.

    Givers are seen examples of another code whose answer begins with another character. Columns:
    kind (none, whole, code, or one of NULLS), draw; followed, how often the model's first character
    is the giver's, and of; shift, the change of the logit of the giver's first character against
    the taker's own, in nats; rank and width.
    """
    questions = patient.questions.beginnings()
    first = questions.target.numpy()
    takers, givers = _pairs(patient, first, seed)
    aims = patient.subspaces(draws, seed)
    done = [("none", 0), ("whole", 0), *((aim.kind, aim.draw) for aim in aims)]
    followed, shift = np.zeros(len(done)), np.zeros(len(done))
    for turn in range(DONORS):
        giver = np.arange(len(first))
        giver[takers] = givers[:, turn]
        given = patient.x[torch.from_numpy(giver)]
        changes: list[Change] = [
            lambda x: x,
            partial(_instead, given),
            *(partial(_moved, aim.space, aim.space.coordinates(given)) for aim in aims),
        ]
        logits = logits_with(
            patient.model, questions, changes, site=patient.site, pos=patient.pos
        ).numpy()[:, takers]
        mine, theirs = first[takers], first[givers[:, turn]]
        followed += (logits.argmax(-1) == theirs).sum(-1)
        row = np.arange(len(takers))
        difference = logits[:, row, theirs] - logits[:, row, mine]
        shift += (difference - difference[0]).sum(-1)
    count = DONORS * len(takers)
    return pd.DataFrame(done, columns=["kind", "draw"]).assign(
        followed=followed.astype(int), of=count, shift=shift / count,
        rank=patient.rank, width=patient.width,
    )  # fmt: skip


def _instead(given: Tensor, x: Tensor) -> Tensor:
    return given


def _moved(space: Subspace, coordinates: Tensor, x: Tensor) -> Tensor:
    return space.place(x, coordinates)


def _pairs(
    patient: Patient, first: Int[np.ndarray, " example"], seed: int
) -> tuple[Int[np.ndarray, " taker"], Int[np.ndarray, "taker donor"]]:
    """Who takes a code, and from whom."""
    generator = np.random.default_rng((seed, 0x5A9))
    code = patient.codes[0]
    found = {
        taker: np.flatnonzero((code != code[taker]).any(1) & (first != first[taker]) & patient.seen)
        for taker in range(len(first))
    }
    givers = {k: generator.choice(v, DONORS) for k, v in found.items() if len(v)}
    if not givers:
        raise TbttError("no two examples differ both in the code and in their first character")
    return np.array(list(givers)), np.array(list(givers.values()))

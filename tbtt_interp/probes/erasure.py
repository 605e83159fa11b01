"""A feature's code erased, interchanged, and corrected: whether what is decodable is used.

A feature's code is its value as one number, or as a point on a circle for digits. Subspaces are
fitted on examples that the model was trained on, and compared with three nulls of equal rank: the
codes of control tasks, of permuted labels, and random directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp.activations import cached
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import (
    Change,
    Location,
    answer_logits,
    check_location,
    edit,
    index_of,
    logits_with_edits,
)
from tbtt_interp.probes.features import Labels, find_features, label_examples, one_hot_text
from tbtt_interp.probes.linear import Split, count_correct
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.seeds import Arrays

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

DRAWS = 99  # of each null
NULLS = ("control task", "permuted labels", "random subspace")
SOURCES = 2  # examples that each base takes a code from, one after the other
SMALLEST = 0.01  # singular value of a standardised code that counts


@dataclass(frozen=True, kw_only=True)
class Subspace:
    """A few directions: the part of x in them is `write @ read @ (x - mean)`."""

    mean: Float[Tensor, " d"]
    write: Float[Tensor, "d rank"]
    read: Float[Tensor, "rank d"]

    def coordinates(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row rank"]:
        """The coordinates of activations in the subspace."""
        return (x.double() - self.mean) @ self.read.mT

    def place(
        self, x: Float[Tensor, "row d"], coordinates: Float[Tensor, "row rank"]
    ) -> Float[Tensor, "row d"]:
        """Activations with other coordinates in the subspace, and else unchanged."""
        moved = (coordinates - self.coordinates(x)) @ self.write.mT
        return (x.double() + moved).to(x.dtype)

    def erase(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """Activations with the mean coordinates in the subspace."""
        return self.place(x, torch.zeros(len(x), len(self.read), dtype=torch.double))


def leace(x: Float[Tensor, "row d"], code: Float[np.ndarray, "row rank"]) -> Subspace:
    """The subspace without which no linear probe predicts a code better than a constant.

    Among all such erasers LEACE changes the activations least. As in the package concept-erasure,
    the covariance is shrunk towards a multiple of the identity, and codes are standardised.

    Raises:
        TbttError: if all activations are the same.
    Source: Belrose et al. 2023, theorem 4.3; shrinkage, Bodnar et al. 2014, arXiv 1308.2608.
    """
    x, z = x.double(), torch.from_numpy(code).double()
    if not bool((x != x[0]).any()):
        raise TbttError(
            "every text has the same activation there, so there is no code: choose a later position"
        )
    n, width = x.shape
    x_centred, z_centred = x - x.mean(0), z - z.mean(0)
    # permuted labels may be the same for all examples; such a code has nothing to erase
    z_centred = z_centred / torch.where(z_centred.abs().amax(0) > 0, z.std(0), 1.0)
    covariance = x_centred.mT @ x_centred / n
    trace = covariance.trace()
    shrinkage = trace**2 / n / (covariance.square().sum() - trace**2 / width)
    isotropic = trace / width * torch.eye(width, dtype=torch.double)
    covariance = torch.lerp(covariance, isotropic, shrinkage.clamp(max=1))
    variances, axes = torch.linalg.eigh(covariance)
    whiten = axes * variances.rsqrt() @ axes.mT
    directions, strength, _ = torch.linalg.svd(
        whiten @ x_centred.mT @ z_centred / (n - 1), full_matrices=False
    )
    directions = directions * (strength > SMALLEST)
    unwhiten = axes * variances.sqrt() @ axes.mT
    return Subspace(mean=x.mean(0), write=unwhiten @ directions, read=directions.mT @ whiten)


def random_subspace(
    x: Float[Tensor, "row d"], rank: int, generator: np.random.Generator
) -> Subspace:
    """Orthonormal random directions."""
    drawn = torch.from_numpy(generator.standard_normal((x.shape[1], rank)))
    directions = torch.linalg.qr(drawn).Q
    return Subspace(mean=x.double().mean(0), write=directions, read=directions.mT)


class SubspaceDraw(NamedTuple):
    """A subspace to erase or interchange: the code's own, or one draw of a null.

    Attributes:
        kind: code, or one of NULLS.
        fitted: the code that the subspace was fitted on.
        right: the code that each example should have in the subspace.
    """

    kind: str
    draw: int
    space: Subspace
    fitted: Float[np.ndarray, "example rank"]
    right: Float[np.ndarray, "example rank"]


@dataclass(frozen=True, kw_only=True)
class LabelledActivations:
    """A model's activations at one location, for the examples that have a feature.

    Attributes:
        seen: which of these examples the model was trained on.
        codes: the code of the feature, and after it of each control task.
        x: the activations.
        draws: of each null; `seed` is that of the draws.
    """

    model: "HookedTransformer"
    prompts: PromptSet
    batch: PromptBatch
    location: Location
    labels: Labels
    seen: Bool[np.ndarray, " example"]
    codes: Float[np.ndarray, "code example rank"]
    x: Float[Tensor, "example d"]
    draws: int
    seed: int

    @classmethod
    def of(
        cls, model: "HookedTransformer", prompts: PromptSet, feature: str, site: str, *,
        pos: int = -1, draws: int = DRAWS, seed: int = 0,
    ) -> "LabelledActivations":  # fmt: skip
        """The activations at a site, where a number at its end is a head.

        Args:
            pos: counted from the prompt's last token, which is -1.
        Raises:
            TbttError: if the feature has no code of one or two numbers, or only one class, or if
                there is no such site or position.
        """
        found = find_features([feature], prompts.examples)[0]
        labels = label_examples(found, prompts.examples, controls=draws, seed=seed)
        batch, location = prompts.batch(np.flatnonzero(labels.has).tolist()), Location.of(site, pos)
        check_location(model, location, batch)
        seen = prompts.seen[labels.has]
        if len(np.unique(labels.real[0][seen])) < 2:
            raise TbttError(
                f"feature '{feature}' is the same in every example that was trained on, so it has "
                "no code: choose another"
            )
        values = cached(model, batch.tokens, [location.hook])[1][location.hook].cpu()
        x = values[index_of(location, batch, values)]  # pyright: ignore
        return cls(
            model=model, prompts=prompts, batch=batch, location=location, labels=labels, seen=seen,
            codes=labels.codes[labels.of_model(0)], x=x[batch.answer_row[batch.first_answers]],
            draws=draws, seed=seed,
        )  # fmt: skip

    @cached_property
    def subspaces(self) -> list[SubspaceDraw]:
        """The code's own subspace, and the draws of each null."""
        x, code, seen = self.x[torch.from_numpy(self.seen)], self.codes[0], self.seen
        found = [SubspaceDraw("code", 0, leace(x, code[seen]), code, code)]
        for draw, control in enumerate(self.codes[1:]):
            found.append(SubspaceDraw(NULLS[0], draw, leace(x, control[seen]), control, control))
        for draw in range(self.draws):
            generator, permuted = np.random.default_rng((self.seed, draw)), code.copy()
            permuted[seen] = generator.permutation(code[seen])
            found.append(SubspaceDraw(NULLS[1], draw, leace(x, permuted[seen]), permuted, code))
            space = random_subspace(x, code.shape[1], generator)
            found.append(SubspaceDraw(NULLS[2], draw, space, code, code))
        return found

    def logits(
        self, changes: Sequence[Change], batch: PromptBatch
    ) -> Float[Tensor, "change answer d_vocab"]:
        """Logits without a change of the activations, and with each change made by itself."""
        edits = [edit(self.location, change, batch)[1] for change in (lambda x: x, *changes)]
        logits = logits_with_edits(self.model, batch, self.location.hook, edits)
        return torch.stack([one.cpu() for one in logits])

    def margins(self, changes: Sequence[Change]) -> Float[np.ndarray, "change example"]:
        """The smallest margin of each answer without a change, and with each of them."""
        return self.batch.margins(self.logits(changes, self.batch)).numpy()

    def effects(
        self, measure: str, values: np.ndarray, kinds: Sequence[tuple[str, int]] | None = None,
        **columns: object,
    ) -> pd.DataFrame:  # fmt: skip
        """One row per kind and draw; None are those of the subspaces."""
        kinds = [draw[:2] for draw in self.subspaces] if kinds is None else kinds
        return pd.DataFrame(kinds, columns=["kind", "draw"]).assign(
            measure=measure, value=values, rank=self.codes.shape[2], width=self.x.shape[1],
            **columns,  # pyright: ignore
        )  # fmt: skip


def erase(data: LabelledActivations) -> pd.DataFrame:
    """How much margins drop when each subspace is erased.

    Returns:
        one row per measure ("margin drop" of seen examples, "margin drop, held out"), kind (code,
        or one of NULLS) and draw: value, the mean over examples, in nats of logit; variance, the
        share that is erased.
    """
    erasers = [draw.space.erase for draw in data.subspaces]
    margins = data.margins(erasers)
    after = torch.stack([data.x, *(eraser(data.x) for eraser in erasers)]).double()
    after = after.var(1, correction=0).sum(-1).numpy()
    splits = {"margin drop": data.seen, "margin drop, held out": ~data.seen}
    return pd.concat([
        data.effects(name, (margins[0] - margins[1:])[:, mask].mean(1),
                     variance=1 - after[1:] / after[0])
        for name, mask in splits.items() if mask.any()
    ])  # fmt: skip


def interchange(data: LabelledActivations) -> pd.DataFrame:
    """How answers change when each subspace's part of the activation is a source example's.

    Sources are seen examples with another code, whose answer begins with another token than the
    base's.

    Returns:
        one row per measure, kind (code, whole activation, or one of NULLS) and draw: value, of
        "answer follows" the rise of the share of pairs that answer the source's first token, of
        "logit shift" the mean rise of its logit over that of the base's, in nats.
    Source: interchange interventions, Geiger et al. 2021.
    """
    batch, code = data.batch.first_tokens(), data.codes[0]
    generator, first = np.random.default_rng((data.seed, 0x5A9)), batch.answer_token.numpy()
    possible = [np.flatnonzero((code != own).any(1) & (first != token) & data.seen)
                for own, token in zip(code, first, strict=True)]  # fmt: skip
    bases = np.array([base for base, rows in enumerate(possible) if len(rows)], dtype=int)
    if not len(bases):
        raise TbttError("no two examples differ both in the code and in their first character")
    sources = np.array([generator.choice(possible[base], SOURCES) for base in bases])
    follows, shift, row = [], [], np.arange(len(bases))
    for source in sources.T:
        index = np.arange(len(first))
        index[bases] = source
        x = data.x[torch.from_numpy(index)]
        placed = [partial(draw.space.place, coordinates=draw.space.coordinates(x))
                  for draw in data.subspaces]  # fmt: skip
        logits = data.logits([*placed, lambda old, x=x: x], batch).numpy()[:, bases]
        follows.append((logits.argmax(-1) == first[source]).mean(-1))
        shift.append((logits[:, row, first[source]] - logits[:, row, first[bases]]).mean(-1))
    kinds = [*(draw[:2] for draw in data.subspaces), ("whole", 0)]
    return pd.concat([
        data.effects(name, np.mean(values, 0)[1:] - np.mean(values, 0)[0], kinds)
        for name, values in {"answer follows": follows, "logit shift": shift}.items()
    ])  # fmt: skip


def wrong_answers(model: "HookedTransformer", prompts: PromptSet) -> Arrays:
    """Which examples are held out and answered wrongly: `wrong`, one per example."""
    batch = prompts.batch()
    margins = batch.margins(answer_logits(model, batch)[None])[0].numpy()
    return {"wrong": prompts.held_out & (margins <= 0)}


def decode_wrong(data: LabelledActivations, wrong: Bool[np.ndarray, " example"]) -> pd.DataFrame:
    """Labels that a probe fitted on seen examples predicts where the answer is wrong.

    Args:
        wrong: which of the examples that have the feature are held out and answered wrongly.
    Returns:
        one row per kind (code, control task, one hot) and draw of the measure "decoded": value,
        how many labels; `of` so many wrong answers.
    """
    split, labels = Split.of(data.seen, wrong), data.labels.of_model(0)
    examples = zip(data.prompts.examples, data.labels.has, strict=True)
    one_hot = torch.from_numpy(one_hot_text([e.prompt for e, has in examples if has])).double()
    correct = count_correct(data.x, labels, split), count_correct(one_hot, labels[:1], split)
    kinds = [("code", 0), *((NULLS[0], k) for k in range(len(labels) - 1)), ("one hot", 0)]
    return data.effects("decoded", np.concatenate(correct), kinds, of=int(wrong.sum()))


def correct_wrong(data: LabelledActivations, wrong: Bool[np.ndarray, " example"]) -> pd.DataFrame:
    """Wrong answers that become right when the code alone is moved to where it should be.

    Where it should be is a linear function of the code, fitted on seen examples.

    Returns:
        one row per measure, kind (code, or one of NULLS) and draw: value, of "corrected" how many
        of the wrong answers become right, of "decoded in code" how many labels a probe predicts
        from the subspace's coordinates; `of` so many wrong answers.
    """
    split, labels = Split.of(data.seen, wrong), data.labels.of_model(0)
    seen, changes, decoded = torch.from_numpy(data.seen), [], []
    for kind, number, space, *codes in data.subspaces:
        fitted, right = (torch.from_numpy(np.pad(code, ((0, 0), (0, 1)), constant_values=1.0))
                         for code in codes)  # fmt: skip
        coordinates = space.coordinates(data.x)
        slope = torch.linalg.lstsq(fitted[seen], coordinates[seen]).solution
        moved = (right @ slope)[data.batch.row_example]
        changes.append(partial(space.place, coordinates=moved))
        own = labels[[1 + number if kind == NULLS[0] else 0]]
        decoded.append(count_correct(coordinates, own, split).item())
    corrected = (data.margins(changes)[1:, wrong] > 0).sum(1)
    counts = {"corrected": corrected, "decoded in code": np.array(decoded)}
    return pd.concat([data.effects(*one, of=int(wrong.sum())) for one in counts.items()])

"""A feature's code erased, interchanged, and corrected: whether what is decodable is used.

A feature's code is its value as one number, or as a point on a circle for digits. Subspaces are
fitted on examples that the model was trained on, and compared with three nulls of equal rank: the
codes of control tasks, of permuted labels, and random directions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp import interventions
from tbtt_interp.activations import cached
from tbtt_interp.errors import TbttError
from tbtt_interp.probes.features import Feature, find_features, one_hot_text
from tbtt_interp.probes.labels import Labels, label_examples
from tbtt_interp.probes.linear import Split, count_correct
from tbtt_interp.prompts import PromptBatch, PromptSet

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

DRAWS = 99  # of each null
NULLS = ("control task", "permuted labels", "random subspace")
THRESHOLDS = "other threshold"  # of the feature's quantity; too few for a p-value
SOURCES = 2  # examples that each base takes a code from, one after the other
SMALLEST = 0.01  # singular value of a standardised code that counts


@dataclass(frozen=True)
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
        return (x.double() + (coordinates - self.coordinates(x)) @ self.write.mT).to(x.dtype)

    def erase(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """Activations with the mean coordinates in the subspace."""
        return self.place(x, torch.zeros(len(x), len(self.read), dtype=torch.double))


def leace(x: Float[Tensor, "row d"], *codes: Float[np.ndarray, "row rank"]) -> list[Subspace]:
    """For each code, the subspace without which no linear probe predicts it better than a constant.

    Among all such erasers LEACE changes the activations least. As in the package concept-erasure,
    the covariance is shrunk towards a multiple of the identity, and codes are standardised.

    Source: Belrose et al. 2023, theorem 4.3; shrinkage, Bodnar et al. 2014, arXiv 1308.2608.
    """
    if not bool((x != x[0]).any()):
        raise TbttError(
            "every text has the same activation there, so there is no code: choose a later position"
        )
    (n, width), mean, z = x.shape, x.double().mean(0), torch.from_numpy(np.array(codes)).double()
    x, z = x.double() - mean, z - z.mean(1, keepdim=True)
    # permuted labels may be the same for all examples; such a code has nothing to erase
    z = z / torch.where(z.abs().amax(1) > 0, z.std(1), 1.0)[:, None]
    covariance = x.mT @ x / n
    trace = covariance.trace()
    shrinkage = trace**2 / n / (covariance.square().sum() - trace**2 / width)
    isotropic = trace / width * torch.eye(width, dtype=torch.double)
    variances, axes = torch.linalg.eigh(covariance.lerp(isotropic, shrinkage.clamp(max=1)))
    whiten, unwhiten = axes * variances.rsqrt() @ axes.mT, axes * variances.sqrt() @ axes.mT
    directions, strength, _ = torch.linalg.svd(whiten @ x.mT @ z / (n - 1), full_matrices=False)
    directions = directions * (strength > SMALLEST)[:, None]
    return [Subspace(mean, unwhiten @ one, one.mT @ whiten) for one in directions]


def random_subspace(
    x: Float[Tensor, "row d"], rank: int, generator: np.random.Generator
) -> Subspace:
    """Orthonormal random directions."""
    drawn = torch.from_numpy(generator.standard_normal((x.shape[1], rank)))
    directions = torch.linalg.qr(drawn).Q
    return Subspace(x.double().mean(0), directions, directions.mT)


class SubspaceDraw(NamedTuple):
    """A subspace to erase or interchange: the code's own, or one draw of a null."""

    kind: str  # code, one of NULLS, or THRESHOLDS
    draw: int
    space: Subspace
    fitted: Float[np.ndarray, "example rank"]  # the code that the subspace was fitted on
    right: Float[np.ndarray, "example rank"]  # the code that each example should have in it


@dataclass(frozen=True, kw_only=True)
class LabelledActivations:
    """A model's activations at one location, for the examples that have a feature."""

    model: "HookedTransformer"
    prompts: PromptSet
    batch: PromptBatch
    location: interventions.Location
    labels: Labels
    seen: Bool[np.ndarray, " example"]  # whether the model was trained on it
    codes: Float[np.ndarray, "code example rank"]  # row 0: the feature's; below: the control tasks'
    x: Float[Tensor, "example d"]
    draws: int  # of each null
    seed: int  # of the draws

    @classmethod
    def of(
        cls, model: "HookedTransformer", prompts: PromptSet, feature: str | Feature, site: str, *,
        pos: int = -1, draws: int = DRAWS, seed: int = 0,
    ) -> "LabelledActivations":  # fmt: skip
        """Activations and codes of a feature, at a hook name or, as in `hook_z.0`, one head of it.

        Args:
            pos: counted from the prompt's last token, which is -1.
        """
        (found,) = find_features(feature, prompts.examples)
        labels = label_examples(found, prompts.examples, controls=draws, seed=seed)
        batch = prompts.batch(np.flatnonzero(labels.has).tolist())
        location, seen = interventions.Location.of(site, pos), prompts.seen[labels.has]
        interventions.check_location(model, location, batch)
        if len(np.unique(labels.real[0][seen])) < 2:
            raise TbttError(
                f"feature '{found.name}' is the same in every example that was trained on, so it "
                "has no code: choose another"
            )
        values = cached(model, batch.tokens, [location.hook])[1][location.hook].cpu()
        x = values[interventions.index_of(location, batch, values)]  # pyright: ignore
        return cls(
            model=model, prompts=prompts, batch=batch, location=location, labels=labels, seen=seen,
            codes=labels.codes[labels.of_model(0)], x=x[batch.answer_row[batch.first_answers]],
            draws=draws, seed=seed,
        )  # fmt: skip

    @cached_property
    def subspaces(self) -> list[SubspaceDraw]:
        """The code's own subspace, and the draws of each null."""
        x, code, seen = self.x[torch.from_numpy(self.seen)], self.codes[0], self.seen
        fits: list[Any] = [(NULLS[0], k, own, own) for k, own in enumerate(self.codes[1:])]
        fits, random = [("code", 0, code, code), *fits], []
        for draw in range(self.draws):
            generator, permuted = np.random.default_rng((self.seed, draw)), code.copy()
            permuted[seen] = generator.permutation(code[seen])
            fits.append((NULLS[1], draw, permuted, code))
            space = random_subspace(x, code.shape[1], generator)
            random.append(SubspaceDraw(NULLS[2], draw, space, code, code))
        others = () if self.labels.thresholds is None else self.labels.thresholds
        for draw, reached in enumerate(others):  # as numbers 0 and 1, as the feature's own classes
            own = self.labels.codes[reached]
            if len(np.unique(reached[seen])) > 1:
                fits.append((THRESHOLDS, draw, own, own))
        spaces = leace(x, *(fitted[seen] for _, _, fitted, _ in fits))
        return [
            SubspaceDraw(kind, draw, space, *codes)
            for (kind, draw, *codes), space in zip(fits, spaces, strict=True)
        ] + random

    def logits(
        self, changes: Sequence[interventions.Change], batch: PromptBatch
    ) -> Float[Tensor, "change answer d_vocab"]:
        """Logits without a change of the activations, and with each change made by itself."""
        edits = [interventions.edit(self.location, change, batch)[1]
                 for change in (lambda x: x, *changes)]  # fmt: skip
        logits = interventions.logits_with_edits(self.model, batch, self.location.hook, edits)
        return torch.stack([one.cpu() for one in logits])

    def margins(
        self, changes: Sequence[interventions.Change], batch: PromptBatch | None = None
    ) -> Float[np.ndarray, "change example"]:
        """The smallest margin of each answer without a change, and with each of them."""
        batch = self.batch if batch is None else batch
        return batch.margins(self.logits(changes, batch)).numpy()

    def effects(
        self, measures: Mapping[str, Any], kinds: Sequence[tuple[str, int]] = (), **columns: Any
    ) -> pd.DataFrame:
        """One row per measure, kind and draw; kinds are by default those of the subspaces."""
        kinds = kinds or [draw[:2] for draw in self.subspaces]
        table = pd.DataFrame(kinds, columns=["kind", "draw"])
        columns |= {"rank": self.codes.shape[2], "width": self.x.shape[1]}
        return pd.concat([table.assign(measure=name, value=values, **columns)
                          for name, values in measures.items()])  # fmt: skip


def erase(data: LabelledActivations) -> pd.DataFrame:
    """How much margins drop when each subspace is erased.

    Returns:
        one row per measure ("margin drop" of seen examples, "margin drop, held out"), kind (code,
        or one of NULLS) and draw: value, the mean over examples, in nats of logit; variance, the
        share that is erased.
    """

    def variance(x: Tensor) -> float:
        return x.double().var(0, correction=0).sum().item()

    changes = [draw.space.erase for draw in data.subspaces]
    before, *after = data.margins(changes)
    erased = [1 - variance(change(data.x)) / variance(data.x) for change in changes]
    splits = {"margin drop": data.seen, "margin drop, held out": ~data.seen}
    drops = {name: (before - after)[:, x].mean(1) for name, x in splits.items() if x.any()}
    return data.effects(drops, variance=erased)


def interchange_effects(data: LabelledActivations) -> pd.DataFrame:
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
    possible = (code[:, None] != code).any(-1) & (first[:, None] != first) & data.seen
    bases = np.flatnonzero(possible.any(1))
    if not len(bases):
        raise TbttError("no two examples differ both in the code and in their first character")
    sources = [generator.choice(np.flatnonzero(row), SOURCES) for row in possible[bases]]
    rises, row = [], np.arange(len(bases))
    for source in np.transpose(sources):
        index = np.arange(len(first))
        index[bases] = source
        x = data.x[torch.from_numpy(index)]
        placed = [partial(draw.space.place, coordinates=draw.space.coordinates(x))
                  for draw in data.subspaces]  # fmt: skip
        logits = data.logits([*placed, lambda old, x=x: x], batch).numpy()[:, bases]
        shift = logits[:, row, first[source]] - logits[:, row, first[bases]]
        found = np.stack([(logits.argmax(-1) == first[source]).mean(-1), shift.mean(-1)])
        rises.append(found[:, 1:] - found[:, :1])
    kinds = [*(draw[:2] for draw in data.subspaces), ("whole", 0)]
    follows, shift = np.mean(rises, 0)
    return data.effects({"answer follows": follows, "logit shift": shift}, kinds)


def decode_wrong(data: LabelledActivations, wrong: Bool[np.ndarray, " example"]) -> pd.DataFrame:
    """Labels that a probe fitted on seen examples predicts where the answer is wrong.

    Args:
        wrong: which of the examples that have the feature are held out and answered wrongly.
    Returns:
        one row per kind (code, control task, one hot, neighbours) and draw: value, how many labels
        of `of`. Neighbours, of an ordinal feature: a third of the predictions that are right or off
        by one class, which is what a probe of the magnitude alone gets right.
    """
    split, labels = Split(data.seen[None], wrong[None]), data.labels.of_model(0)
    prompts = [data.prompts.examples[k].prompt for k in np.flatnonzero(data.labels.has)]
    one_hot = torch.from_numpy(one_hot_text(prompts)).double()
    correct = [*count_correct(data.x, labels, split), *count_correct(one_hot, labels[:1], split)]
    kinds = [("code", 0), *((NULLS[0], k) for k in range(len(labels) - 1)), ("one hot", 0)]
    if data.labels.feature.is_ordinal:
        shifted = [np.where(wrong, labels[0] + k, labels[0]) for k in (-1, 0, 1)]
        classes = len(data.labels.classes)  # a class beyond the last, for what has no neighbour
        off = [np.where((row < 0) | (row >= classes), classes, row) for row in shifted]
        near = [count_correct(data.x, row[None], split).item() for row in off]
        correct.append(sum(near) / 3)
        kinds.append(("neighbours", 0))
    return data.effects({"decoded": correct}, kinds, of=int(wrong.sum()))


def correct_wrong(data: LabelledActivations, wrong: Bool[np.ndarray, " example"]) -> pd.DataFrame:
    """Wrong answers that become right when only the code is set to its predicted coordinates.

    These coordinates are a linear function of the right code, fitted on seen examples.

    Returns:
        one row per measure, kind (code, or one of NULLS) and draw, with `value` of `of`. Measure
        "corrected" counts wrong answers that become right, "decoded in code" labels that a probe
        predicts from the subspace's coordinates.
    """
    split, labels = Split(data.seen[None], wrong[None]), data.labels.of_model(0)
    seen, moved, decoded = torch.from_numpy(data.seen), [], []
    for kind, draw, space, *codes in data.subspaces:
        fitted, right = (torch.from_numpy(np.insert(code, 0, 1.0, axis=1)) for code in codes)
        coordinates = space.coordinates(data.x)
        slope = torch.linalg.lstsq(fitted[seen], coordinates[seen]).solution
        moved.append((right @ slope)[torch.from_numpy(wrong)])
        if kind == THRESHOLDS:
            own = data.labels.thresholds[[draw]]  # pyright: ignore
        else:
            own = labels[[1 + draw if kind == NULLS[0] else 0]]
        decoded.append(count_correct(coordinates, own, split).item())
    corrected = np.zeros(len(moved), int)
    if wrong.any():
        batch = data.prompts.batch(np.flatnonzero(data.labels.has)[wrong].tolist())
        changes = [partial(draw.space.place, coordinates=coordinates[batch.row_example])
                   for draw, coordinates in zip(data.subspaces, moved, strict=True)]  # fmt: skip
        corrected = (data.margins(changes, batch)[1:] > 0).sum(1)
    counts = {"corrected": corrected, "decoded in code": decoded}
    return data.effects(counts, of=int(wrong.sum()))

"""A feature's code erased, interchanged, and corrected: whether what is decodable is used.

A feature's code is its value as one number, or as a point on a circle for digits. Subspaces are
fitted on examples that the model was trained on, and compared with three nulls of equal rank: the
codes of control tasks, of permuted labels, and random directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
from tbtt_interp.over_seeds import Arrays
from tbtt_interp.probes.features import Labels, find_features, label_examples, one_hot_text
from tbtt_interp.probes.linear import Split, count_correct
from tbtt_interp.prompts import PromptBatch, PromptSet

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
    """

    model: "HookedTransformer"
    prompts: PromptSet
    batch: PromptBatch
    location: Location
    labels: Labels
    seen: Bool[np.ndarray, " example"]
    codes: Float[np.ndarray, "draw example rank"]
    x: Float[Tensor, "example d"]

    @classmethod
    def of(
        cls, model: "HookedTransformer", prompts: PromptSet, feature: str, site: str, *,
        pos: int = -1, draws: int = DRAWS, seed: int = 0,
    ) -> "LabelledActivations":  # fmt: skip
        """The activations at a site, where a number at its end is a head.

        Args:
            pos: counted from the prompt's last token, which is -1.
            draws: control tasks; `seed` is that of their labels.
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
        rows = batch.answer_row[batch.first_answers]
        return cls(
            model=model, prompts=prompts, batch=batch, location=location, labels=labels, seen=seen,
            codes=labels.codes[labels.of_model(0)],
            x=values[index_of(location, batch, values)][rows],  # pyright: ignore
        )  # fmt: skip

    def logits(
        self, changes: Sequence[Change], batch: PromptBatch
    ) -> Float[Tensor, "change answer d_vocab"]:
        """Logits without a change of the activations, and with each change made by itself."""
        edits = [edit(self.location, change, batch)[1] for change in (lambda x: x, *changes)]
        logits = logits_with_edits(self.model, batch, self.location.hook, edits)
        return torch.stack([one.cpu() for one in logits])

    def subspaces(self, draws: int = DRAWS, seed: int = 0) -> list[SubspaceDraw]:
        """The code's own subspace, and draws of each null."""
        x, code, seen = self.x[torch.from_numpy(self.seen)], self.codes[0], self.seen
        found = [SubspaceDraw("code", 0, leace(x, code[seen]), code, code)]
        for draw, control in enumerate(self.codes[1 : 1 + draws]):
            found.append(SubspaceDraw(NULLS[0], draw, leace(x, control[seen]), control, control))
        for draw in range(draws):
            generator = np.random.default_rng((seed, draw))
            permuted = code.copy()
            permuted[seen] = generator.permutation(code[seen])
            found.append(SubspaceDraw(NULLS[1], draw, leace(x, permuted[seen]), permuted, code))
            space = random_subspace(x, code.shape[1], generator)
            found.append(SubspaceDraw(NULLS[2], draw, space, code, code))
        return found

    def table(self, draws: Sequence[tuple[str, int]], **columns: object) -> pd.DataFrame:
        """One row per kind and draw, with the dimensions of the code and of the activations."""
        table = pd.DataFrame(draws, columns=["kind", "draw"]).assign(**columns)  # pyright: ignore
        return table.assign(rank=self.codes.shape[2], width=self.x.shape[1])


def erase(data: LabelledActivations, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Margins after each subspace is erased.

    Returns:
        one row per kind (none, code, or one of NULLS), draw and split (seen, held out): margin, the
        mean over examples of each answer's smallest margin, in nats of logit; `correct` of `of`
        examples; variance, the share that is erased.
    """
    spaces = data.subspaces(draws, seed)
    logits = data.logits([draw.space.erase for draw in spaces], data.batch)
    margins = data.batch.margins(logits).numpy()
    kinds = [("none", 0), *(draw[:2] for draw in spaces)]
    after = torch.stack([data.x, *(draw.space.erase(data.x) for draw in spaces)]).double()
    after = after.var(1, correction=0).sum(-1).numpy()
    splits = {"seen": data.seen, "held out": ~data.seen}
    return pd.concat([
        data.table(kinds, split=split, margin=margins[:, mask].mean(1), of=int(mask.sum()),
                   correct=(margins[:, mask] > 0).sum(1), variance=1 - after / after[0])
        for split, mask in splits.items() if mask.any()
    ])  # fmt: skip


def interchange(data: LabelledActivations, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Answers after each subspace's part of the activation is taken from a source example.

    Sources are seen examples with another code, whose answer begins with another token than the
    base's.

    Returns:
        one row per kind (none, whole, code, or one of NULLS) and draw: `followed` of `of` pairs
        answer the source's first token; shift, the mean rise of that logit over the base's, in
        nats.
    Source: interchange interventions, Geiger et al. 2021.
    """
    batch, spaces = data.batch.first_tokens(), data.subspaces(draws, seed)
    generator, first, code = (
        np.random.default_rng((seed, 0x5A9)), batch.answer_token.numpy(), data.codes[0]
    )  # fmt: skip
    possible = [np.flatnonzero((code != own).any(1) & (first != token) & data.seen)
                for own, token in zip(code, first, strict=True)]  # fmt: skip
    bases = np.array([base for base, rows in enumerate(possible) if len(rows)], dtype=int)
    if not len(bases):
        raise TbttError("no two examples differ both in the code and in their first character")
    sources = np.array([generator.choice(possible[base], SOURCES) for base in bases])
    kinds = [("none", 0), ("whole", 0), *(draw[:2] for draw in spaces)]
    followed, shift, row = np.zeros(len(kinds), int), np.zeros(len(kinds)), np.arange(len(bases))
    for source in sources.T:
        index = np.arange(len(first))
        index[bases] = source
        x = data.x[torch.from_numpy(index)]
        placed = [partial(d.space.place, coordinates=d.space.coordinates(x)) for d in spaces]
        logits = data.logits([lambda old, x=x: x, *placed], batch).numpy()[:, bases]
        followed += (logits.argmax(-1) == first[source]).sum(-1)
        difference = logits[:, row, first[source]] - logits[:, row, first[bases]]
        shift += (difference - difference[0]).sum(-1)
    return data.table(kinds, followed=followed, of=sources.size, shift=shift / sources.size)


def wrong_answers(model: "HookedTransformer", prompts: PromptSet) -> Arrays:
    """Which examples are held out and answered wrongly: `wrong`, one per example."""
    batch = prompts.batch()
    margins = batch.margins(answer_logits(model, batch)[None])[0].numpy()
    return {"wrong": prompts.held_out & (margins <= 0)}


def decode_wrong(
    data: LabelledActivations, wrong: Bool[np.ndarray, " example"], *, draws: int = DRAWS,
) -> pd.DataFrame:  # fmt: skip
    """Labels that a probe fitted on seen examples predicts where the answer is wrong.

    Args:
        wrong: which of the examples that have the feature are held out and answered wrongly.
    Returns:
        one row per kind (code, control task, one hot) and draw: `decoded` of `of`.
    """
    split, labels = Split.of(data.seen, wrong), data.labels.of_model(0)
    examples = zip(data.prompts.examples, data.labels.has, strict=True)
    one_hot = torch.from_numpy(one_hot_text([e.prompt for e, has in examples if has])).double()
    decoded = [*count_correct(data.x, labels[: 1 + draws], split),
               *count_correct(one_hot, labels[:1], split)]  # fmt: skip
    kinds = [("code", 0), *((NULLS[0], k) for k in range(len(decoded) - 2)), ("one hot", 0)]
    return data.table(kinds, decoded=decoded, of=int(wrong.sum()))


def correct_wrong(
    data: LabelledActivations, wrong: Bool[np.ndarray, " example"], *, draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Wrong answers that become right when the code alone is moved to where it should be.

    Where it should be is a linear function of the code, fitted on seen examples.

    Returns:
        one row per kind (none, code, or one of NULLS) and draw: `corrected` of `of` wrong answers;
        `decoded`, how many labels a probe of the subspace's coordinates predicts.
    """
    split, labels = Split.of(data.seen, wrong), data.labels.of_model(0)
    seen, spaces = torch.from_numpy(data.seen), data.subspaces(draws, seed)
    changes, decoded = [], [0]
    for kind, number, space, *codes in spaces:
        fitted, right = (torch.from_numpy(np.pad(code, ((0, 0), (0, 1)), constant_values=1.0))
                         for code in codes)  # fmt: skip
        coordinates = space.coordinates(data.x)
        slope = torch.linalg.lstsq(fitted[seen], coordinates[seen]).solution
        moved = (right @ slope)[data.batch.row_example]
        changes.append(partial(space.place, coordinates=moved))
        own = labels[[1 + number if kind == NULLS[0] else 0]]
        decoded.append(count_correct(coordinates, own, split).item())
    margins = data.batch.margins(data.logits(changes, data.batch)).numpy()[:, wrong]
    kinds = [("none", 0), *(draw[:2] for draw in spaces)]
    corrected = (margins > 0).sum(1)
    return data.table(kinds, decoded=decoded, corrected=corrected, of=int(wrong.sum()))

"""The characters that answers are made of: sums by role, by split, over models and examples."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.analyses.subject import Subject, in_reading_order
from tbtt_interp.evaluate import TOKENS_AT_ONCE, Questions
from tbtt_interp.stats import crossed_intervals

if TYPE_CHECKING:
    from transformer_lens import ActivationCache, HookedTransformer

WHOLE = "answer"  # all of an answer's characters together
SPLITS = ("seen", "held out")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Characters of one role and one split.

    Attributes:
        number: the role's, among all roles.
        count: how many each model is asked in each example.
    """

    split: str
    role: str
    number: int
    count: Int[np.ndarray, "seed example"]

    @property
    def characters(self) -> int:
        """Of one model."""
        return round(self.count.sum() / len(self.count))

    def of(
        self, sums: Sequence[Float[np.ndarray, "*cells role example"]]
    ) -> Float[np.ndarray, "cell seed example"]:
        """Of each model's sums by role, those of this group's characters."""
        values = np.stack([x[..., self.number, :] for x in sums], -2)
        return values.reshape(-1, *values.shape[-2:]) * (self.count > 0)


@dataclass(frozen=True, kw_only=True)
class Characters:
    """Every character of every answer, asked with the right ones before it fed in.

    Attributes:
        roles: their names; the last is `answer`, all together.
        role: of each character the number of its role.
        place: how many of the answer's characters come before it.
    """

    questions: Questions
    roles: tuple[str, ...]
    role: Int[np.ndarray, " character"]
    place: Int[Tensor, " character"]
    held_out: Bool[np.ndarray, "seed example"]

    @classmethod
    def of(cls, subject: Subject) -> "Characters":
        """Those of a subject's examples."""
        said = [subject.roles(k) for k in range(len(subject.examples))]
        roles = in_reading_order(role for answer in said for role in answer)
        return cls(
            questions=Questions.of_tokens(subject.tokens, subject.n_ctx),
            roles=(*roles, WHOLE),
            role=np.array([roles.index(role) for answer in said for role in answer]),
            place=torch.cat([torch.arange(len(answer)) for answer in said]),
            held_out=subject.held_out,
        )

    def __len__(self) -> int:
        return len(self.role)

    def read(
        self, model: "HookedTransformer", sites: Sequence[str]
    ) -> Iterator[tuple[Int[Tensor, " some"], Tensor, "ActivationCache"]]:
        """A model's logits and activations, each character in a row of its own, some at a time."""
        each = max(1, TOKENS_AT_ONCE // 8 // self.questions.tokens.shape[1])
        for some in torch.arange(len(self)).split(each):
            tokens = self.questions.tokens[self.questions.row[some]]
            with torch.no_grad():
                logits, cache = model.run_with_cache(tokens, names_filter=list(sites))
            yield some, logits[torch.arange(len(some)), self.questions.pos[some]], cache  # pyright: ignore

    def by_role(
        self, values: Float[np.ndarray, "*cells character"]
    ) -> Float[np.ndarray, "*cells role example"]:
        """Sums over the characters of one role in one example; the last role is all."""
        examples, number = len(self.questions.fits), self.questions.example.numpy()
        sums = np.zeros((len(self.roles), examples, *values.shape[:-1]))
        np.add.at(sums, (self.role, number), np.moveaxis(values, -1, 0))
        sums[-1] = sums.sum(0)
        return np.moveaxis(sums, (0, 1), (-2, -1))

    def groups(self, seeds: Sequence[int] | None = None) -> list[Group]:
        """Every split and role that has characters.

        Args:
            seeds: of which models, by their places; None is all.
        """
        count = self.by_role(np.ones(len(self))).astype(int)
        held_out = self.held_out if seeds is None else self.held_out[list(seeds)]
        found = [
            Group(split=split, role=role, number=number, count=count[number] * mask)
            for split, mask in zip(SPLITS, (~held_out, held_out), strict=True)
            for number, role in enumerate(self.roles)
        ]
        return [group for group in found if group.count.any()]


def means(
    values: Float[np.ndarray, "cell seed example"],
    weights: Float[np.ndarray, "seed example"] | Int[np.ndarray, "seed example"],
    *,
    resamples: int = 999,
    seed: int = 0,
) -> Float[np.ndarray, "3 cell"]:
    """Ratios of sums and their intervals, over models; rows mean, low, high."""
    every = np.broadcast_to(weights, values.shape)
    found = crossed_intervals(values, every, resamples=resamples, seed=seed)
    return np.array([(interval.mean, interval.low, interval.high) for interval in found]).T


def in_double(model: "HookedTransformer") -> "HookedTransformer":
    """A copy that computes in double precision."""
    return copy.deepcopy(model).to(torch.float64, print_details=False)


def last_norm(model: "HookedTransformer") -> torch.nn.Module:
    """What stands between the last stream and the unembedding; it may be nothing."""
    return getattr(model, "ln_final", torch.nn.Identity())

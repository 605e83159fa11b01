"""Clean and corrupted prompts: ordered pairs that differ in one thing, and other donors."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions

VARIED = ("a", "operator", "b", "country")  # the labels of our tasks that say what is asked


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of a clean and a corrupted prompt, by the numbers of their examples.

    Attributes:
        changed: the one thing that is different in each.
        left_out: pairs that could not be used, by why.
    """

    subject: Subject
    clean: Int[np.ndarray, " pair"]
    corrupt: Int[np.ndarray, " pair"]
    changed: tuple[str, ...]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.clean)

    def take(self, places: Int[np.ndarray, " some"]) -> "Pairs":
        """Some of them."""
        return dataclasses.replace(
            self, clean=self.clean[places], corrupt=self.corrupt[places],
            changed=tuple(self.changed[k] for k in places),
        )  # fmt: skip

    def sample(self, count: int, seed: int) -> "Pairs":
        """So many of them, drawn at random; all, if there are no more."""
        if count >= len(self):
            return self
        drawn = np.random.default_rng(seed).choice(len(self), count, replace=False)
        return self.take(np.sort(drawn))

    def notes(self) -> list[str]:
        """What a reader of a table over these pairs has to know."""
        notes = [
            "The clean answer's own beginning is fed in before each character; where the answers "
            "differ in length they are scored up to the first end of either."
        ]
        notes += [f"Left out: {n:,} pairs with {why}." for why, n in self.left_out.items()]
        longest = max(len(self.subject.tokens[k][0]) for k in {*self.clean, *self.corrupt})
        if longest > self.subject.n_ctx:
            notes.append(
                f"The longest prompts have {longest} tokens and the context {self.subject.n_ctx}: "
                "they lose their left end."
            )
        return notes

    @cached_property
    def scored(self) -> Int[np.ndarray, " pair"]:
        """Characters of the clean answer that are scored: up to the first end of either."""
        answers = [len(answer) for _, answer in self.subject.tokens]
        ends = zip(self.clean, self.corrupt, strict=True)
        return np.array([min(answers[clean], answers[corrupt]) for clean, corrupt in ends])

    @cached_property
    def roles(self) -> list[str]:
        """Of each scored character, pair after pair, what it is in the clean answer."""
        known = [self.subject.roles(example) for example in range(len(self.subject.examples))]
        ends = zip(self.clean, self.scored, strict=True)
        return [role for clean, end in ends for role in known[clean][:end]]

    def questions(self, prompts: Int[np.ndarray, " pair"]) -> Questions:
        """The clean answers, as far as they are scored, asked of these examples' prompts.

        Whatever the prompt, what is fed in before a character is the clean answer's beginning, so
        that runs differ in their prompts alone.
        """
        tokens = self.subject.tokens
        asked = [
            (tokens[prompt][0], tokens[clean][1][:end])
            for prompt, clean, end in zip(prompts, self.clean, self.scored, strict=True)
        ]
        return Questions.of_tokens(asked, self.subject.n_ctx)

    @cached_property
    def wrong(self) -> Int[Tensor, " character"]:
        """The corrupted answers' tokens where the clean ones are asked."""
        ends = zip(self.corrupt, self.scored, strict=True)
        return torch.tensor([t for k, end in ends for t in self.subject.tokens[k][1][:end]])


def one_pair(subject: Subject, clean: str, corrupt: str) -> Pairs:
    """The pair of two prompts as a person types them.

    Raises:
        TbttError: if a prompt is unknown, they are the same, do not align, or have one answer.
    """
    first, second = subject.find(clean), subject.find(corrupt)
    a, b = subject.examples[first], subject.examples[second]
    lengths = [len(subject.tokens[k][0]) for k in (first, second)]
    if lengths[0] != lengths[1]:
        raise TbttError(
            f"clean prompt {a.prompt!r} has {lengths[0]} tokens and corrupted prompt "
            f"{b.prompt!r} has {lengths[1]}: give two of equal length, so that positions align"
        )
    if first == second or a.answer == b.answer:
        raise TbttError(
            f"clean prompt {a.prompt!r} and corrupted prompt {b.prompt!r} have the same answer, "
            f"{a.answer!r}: give two that differ, since the logit difference is between answers"
        )
    changed = [name for name in VARIED if a.labels.get(name) != b.labels.get(name)]
    return Pairs(
        subject=subject, clean=np.array([first]), corrupt=np.array([second]),
        changed=(" and ".join(changed) or "prompt",), left_out={},
    )  # fmt: skip


def ordered_pairs(subject: Subject, varied: Sequence[str] | None = None) -> Pairs:
    """Every ordered pair of examples that differ in exactly one of some labels.

    Left out, and counted, are pairs whose prompts are not equally long, and pairs with one answer.

    Args:
        varied: the labels; None is those of our own tasks that are there.
    Raises:
        TbttError: if there is no such pair.
    """
    known = {name for example in subject.examples for name in example.labels}
    names = [n for n in VARIED if n in known] if varied is None else list(varied)
    left_out = {"prompts that do not align": 0, "one answer for both": 0}
    found: list[tuple[int, int, str]] = []
    for i, clean in enumerate(subject.examples):
        for j, corrupt in enumerate(subject.examples):
            differing = [n for n in names if clean.labels.get(n) != corrupt.labels.get(n)]
            both = clean.labels.keys() & corrupt.labels.keys()
            if len(differing) != 1 or differing[0] not in both:
                continue
            if len(subject.tokens[i][0]) != len(subject.tokens[j][0]):
                left_out["prompts that do not align"] += 1
            elif clean.answer == corrupt.answer:
                left_out["one answer for both"] += 1
            else:
                found.append((i, j, differing[0]))
    if not found:
        raise TbttError(
            "no two examples differ in one label and align: patching needs labels such as a, "
            "operator and b, and prompts of equal length"
        )
    clean, corrupt, changed = zip(*found, strict=True)
    return Pairs(
        subject=subject, clean=np.array(clean), corrupt=np.array(corrupt),
        changed=changed, left_out={why: n for why, n in left_out.items() if n},
    )  # fmt: skip


MANY_PARAMETERS = 1_000_000
FEW = 64  # pairs that are patched in models beyond that


def chosen_pairs(
    subject: Subject,
    clean: str | None = None,
    corrupt: str | None = None,
    *,
    held_out: str | None = None,
    count: int | None = None,
    few: int = FEW,
    seed: int = 0,
) -> Pairs:
    """One pair that is named, or all of the grid, or some.

    Args:
        held_out: operands such as 5,7; only pairs whose clean equation is of these, and was held
            out from every model.
        count: so many, drawn at random; None is all, and `few` where models are large.
    """
    if clean is not None and corrupt is not None:
        return one_pair(subject, clean, corrupt)
    pairs = ordered_pairs(subject)
    if held_out is not None:
        a, _, b = held_out.partition(",")
        if not (a.isdecimal() and b.isdecimal()):
            raise TbttError(f"held-out pair {held_out!r} must be two operands, as in 5,7")
        mine = np.flatnonzero(subject.held_out_pair((int(a), int(b))).all(axis=0))
        pairs = pairs.take(np.flatnonzero(np.isin(pairs.clean, mine)))
        if not len(pairs):
            raise TbttError(
                f"pair {held_out} is not held out from every model of {subject.name}: "
                "leave --held-out out"
            )
    size = sum(p.numel() for p in subject.models[0].parameters())
    if count is None and size > MANY_PARAMETERS:
        count = few
    return pairs if count is None else pairs.sample(count, seed)


def donors(
    pairs: Pairs, kind: str, of: Int[np.ndarray, " pair"], seed: int
) -> Int[np.ndarray, " pair"]:
    """For each pair another example to take activations from, -1 where there is none.

    Args:
        kind: `same answer`, one that has the answer of the example here given; or `random`, any.
            Neither is of the pair itself, and their prompts align with the pair's.
    """
    generator = np.random.default_rng((seed, 0xD0))
    lengths = np.array([len(prompt) for prompt, _ in pairs.subject.tokens])
    answers = np.array([example.answer for example in pairs.subject.examples])
    chosen = np.full(len(pairs), -1)
    for k, (clean, corrupt) in enumerate(zip(pairs.clean, pairs.corrupt, strict=True)):
        allowed = lengths == lengths[clean]
        if kind == "same answer":
            allowed &= answers == answers[of[k]]
        allowed[[clean, corrupt]] = False
        if (places := allowed.nonzero()[0]).size:
            chosen[k] = generator.choice(places)
    return chosen

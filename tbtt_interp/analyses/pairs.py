"""Pairs of a clean and a corrupted prompt that differ in one thing, and null sources."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import draw_sources
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.seeds import MANY_PARAMETERS, Models
from tbtt_interp.tasks.task import varied_labels

FEW = 64  # pairs that are patched in models of many parameters
SOURCES = ("pair", "same answer", "random")  # the pair's other prompt, and two nulls


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of a clean and a corrupted prompt, by the numbers of their examples."""

    prompts: PromptSet
    clean: Int[np.ndarray, " pair"]
    corrupted: Int[np.ndarray, " pair"]
    changed: tuple[str, ...]  # the label that differs
    left_out: dict[str, int]  # counts of the pairs that could not be used, by reason

    def __len__(self) -> int:
        return len(self.clean)

    def take(self, numbers: Int[np.ndarray, " chosen"]) -> "Pairs":
        """The pairs with these numbers."""
        return dataclasses.replace(
            self, clean=self.clean[numbers], corrupted=self.corrupted[numbers],
            changed=tuple(self.changed[k] for k in numbers),
        )  # fmt: skip

    def sample(self, count: int, seed: int) -> "Pairs":
        """A random sample of so many pairs; all pairs, if there are no more."""
        if count >= len(self):
            return self
        drawn = np.random.default_rng(seed).choice(len(self), count, replace=False)
        return self.take(np.sort(drawn))

    def by_change(self) -> dict[str, Int[np.ndarray, " chosen"]]:
        """The numbers of the pairs that differ in each label."""
        changed = np.array(self.changed)
        return {label: np.flatnonzero(changed == label) for label in dict.fromkeys(self.changed)}

    def shared_by_random(self, seed: int) -> float:
        """The share of scored tokens that a random source's answer has at the same place.

        There a random source may restore the answer without any fault of the null.
        """
        source, is_known = self.source_examples("random", self.corrupted, seed)
        tokens = self.prompts.tokens
        same = [
            tokens[other][1][k : k + 1] == tokens[clean][1][k : k + 1]
            for other, clean, n, known in zip(source, self.clean, self.n_scored, is_known,
                                              strict=True)
            if known for k in range(n)
        ]  # fmt: skip
        return float(np.mean(same)) if same else 0.0

    def notes(self) -> list[str]:
        """How answers are scored, which pairs are left out, and whether prompts are cut."""
        notes = [
            "Each answer token is predicted after the clean answer's own beginning. Where the "
            "answers differ in length, they are scored up to the end of the shorter one."
        ]
        notes += [f"Left out: {n:,} pairs with {reason}." for reason, n in self.left_out.items()]
        longest = max(len(self.prompts.tokens[k][0]) for k in {*self.clean, *self.corrupted})
        if longest > self.prompts.n_ctx:
            notes.append(
                f"The longest prompts have {longest} tokens and the context {self.prompts.n_ctx}: "
                "they lose their left end."
            )
        return notes

    @cached_property
    def n_scored(self) -> Int[np.ndarray, " pair"]:
        """Tokens of each clean answer that are scored: up to the end of the shorter answer."""
        lengths = np.array([len(answer) for _, answer in self.prompts.tokens])
        return np.minimum(lengths[self.clean], lengths[self.corrupted])

    @cached_property
    def roles(self) -> list[str]:
        """The role of each scored token in its clean answer, pair after pair."""
        scored = zip(self.clean.tolist(), self.n_scored, strict=True)
        return [role for k, n in scored for role in self.prompts.answer_roles(k)[:n]]

    def batch(self, examples: Int[np.ndarray, " pair"]) -> PromptBatch:
        """The scored part of the clean answers, teacher-forced after these examples' prompts.

        Runs differ in their prompts alone: the clean answer's beginning is fed in after each.
        """
        tokens, ends = self.prompts.tokens, zip(examples, self.clean, self.n_scored, strict=True)
        return PromptBatch.of_tokens(
            [(tokens[k][0], tokens[clean][1][:n]) for k, clean, n in ends], self.prompts.n_ctx
        )

    @cached_property
    def corrupted_tokens(self) -> Int[Tensor, " answer"]:
        """The corrupted answers' tokens at the positions of the scored clean tokens."""
        scored = zip(self.corrupted, self.n_scored, strict=True)
        return torch.tensor([t for k, n in scored for t in self.prompts.tokens[k][1][:n]])

    def source_examples(
        self, kind: str, base: Int[np.ndarray, " pair"], seed: int
    ) -> tuple[Int[np.ndarray, " pair"], Bool[np.ndarray, " pair"]]:
        """For each pair, the source example of the activations, and whether it has one.

        Args:
            kind: one of SOURCES. `same answer` draws among examples with the base's answer,
                `random` among all; both leave out the pair, and prompts of another length.
            base: the pairs' clean or corrupted examples; returned where there is no source.
        """
        if kind == "pair":
            return np.where(base == self.clean, self.corrupted, self.clean), base >= 0
        lengths = np.array([len(prompt) for prompt, _ in self.prompts.tokens])
        answers = np.array([example.answer for example in self.prompts.examples])
        is_allowed = lengths == lengths[self.clean][:, None]
        if kind == "same answer":
            is_allowed &= answers == answers[base][:, None]
        for own in (self.clean, self.corrupted):
            is_allowed[np.arange(len(self)), own] = False
        source = draw_sources(is_allowed, np.random.default_rng((seed, 0xD0)))
        return np.where(source < 0, base, source), source >= 0


def one_pair(prompts: PromptSet, clean: str, corrupted: str) -> Pairs:
    """The pair of two prompts as a person types them.

    Raises:
        TbttError: if a prompt is unknown, they are the same, do not align, or have one answer.
    """
    first, second = prompts.find(clean), prompts.find(corrupted)
    a, b = prompts.examples[first], prompts.examples[second]
    lengths = [len(prompts.tokens[k][0]) for k in (first, second)]
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
    names = varied_labels(prompts.examples)
    changed = [name for name in names if a.labels.get(name) != b.labels.get(name)]
    return Pairs(
        prompts=prompts, clean=np.array([first]), corrupted=np.array([second]),
        changed=(" and ".join(changed) or "prompt",), left_out={},
    )  # fmt: skip


def ordered_pairs(prompts: PromptSet, varied: Sequence[str] | None = None) -> Pairs:
    """Every ordered pair of examples that differ in exactly one of the varied labels.

    Pairs whose prompts differ in length or whose answers are equal are counted and left out.

    Args:
        varied: the labels; None is those that prompts spell out, see `varied_labels`.
    """
    names = list(varied_labels(prompts.examples) if varied is None else varied)
    labels = np.array([[e.labels.get(n) for n in names] for e in prompts.examples], dtype=object)
    is_known = np.array([[n in e.labels for n in names] for e in prompts.examples])
    differs = labels[:, None] != labels  # [clean, corrupted, label]
    is_one = (differs.sum(-1) == 1) & (differs & is_known[:, None] & is_known).any(-1)
    lengths = np.array([len(prompt) for prompt, _ in prompts.tokens])
    answers = np.array([example.answer for example in prompts.examples])
    is_aligned, is_same = lengths[:, None] == lengths, answers[:, None] == answers
    left_out = {"prompts that do not align": is_one & ~is_aligned,
                "one answer for both": is_one & is_aligned & is_same}  # fmt: skip
    clean, corrupted = np.nonzero(is_one & is_aligned & ~is_same)
    if not len(clean):
        raise TbttError(
            "no two examples differ in one label and align: patching needs labels such as a, "
            "operator and b, and prompts of equal length"
        )
    return Pairs(
        prompts=prompts, clean=clean, corrupted=corrupted,
        changed=tuple(names[k] for k in differs[clean, corrupted].argmax(-1)),
        left_out={reason: int(mask.sum()) for reason, mask in left_out.items() if mask.any()},
    )  # fmt: skip


def chosen_pairs(
    models: Models, clean: str | None = None, corrupted: str | None = None, *,
    held_out: str | None = None, count: int | None = None, few: int = FEW, seed: int = 0,
) -> Pairs:  # fmt: skip
    """One pair by its prompts, all ordered pairs, or a random sample of them.

    Args:
        held_out: two operands, as in 5,7; only pairs whose clean equation has them and was held
            out from every model.
        count: of the sample; None is all pairs, and `few` in models of many parameters.
    """
    if clean is not None and corrupted is not None:
        return one_pair(models.shared_prompts, clean, corrupted)
    pairs = ordered_pairs(models.shared_prompts)
    if held_out is not None:
        a, _, b = held_out.partition(",")
        if not (a.isdecimal() and b.isdecimal()):
            raise TbttError(f"held-out pair {held_out!r} must be two operands, as in 5,7")
        common = dataclasses.replace(
            models.shared_prompts, name=f"every model of {models.name}",
            held_out=np.all([prompts.held_out for prompts in models.prompts], axis=0),
        )  # fmt: skip
        is_chosen = common.held_out_pair((int(a), int(b)))[pairs.clean]
        pairs = pairs.take(np.flatnonzero(is_chosen))
    if count is None and models.n_parameters > MANY_PARAMETERS:
        count = few
    return pairs if count is None else pairs.sample(count, seed)

"""Prompts with the role of each token, by themselves and after the preceding line of their file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from tbtt_interp.prompts import VISIBLE, PromptBatch, PromptSet
from tbtt_interp.tasks import Example

MOST_NUMBERED = 4  # answers of more tokens have one role, "answer"
PROMPT, AFTER_LINE = "prompt", "after a line"  # the contexts
PRECEDING_LINE, NEWLINE = "previous line", "newline"


def label_positions(example: Example, names: Sequence[str]) -> dict[int, str]:
    """The positions where these labels begin in a prompt, searched from left to right.

    >>> from tbtt_interp.tasks.arithmetic import equation
    >>> label_positions(equation(3, "-", 3), ["a", "operator", "b"])
    {1: 'a', 2: 'operator', 3: 'b'}
    """
    found, at = {}, 0
    for name in names:
        value = str(example.labels.get(name, ""))
        if value and (pos := example.prompt.find(value, at)) >= 0:
            found[pos] = name
            at = pos + len(value)
    return found


def prompt_roles(example: Example, names: Sequence[str]) -> list[str]:
    """The role of each character of a prompt: a label's name, or the text between labels.

    >>> from tbtt_interp.tasks.arithmetic import equation
    >>> prompt_roles(equation(3, "-", 4), ["a", "operator", "b"])
    ['<', 'a', 'operator', 'b', '=']
    """
    prompt, roles = example.prompt, []
    for pos, name in {**label_positions(example, names), len(prompt): ""}.items():
        between = prompt[len(roles) : pos]
        roles += ["".join(VISIBLE.get(c, c) for c in between)] * len(between)
        roles += [name] * len(str(example.labels.get(name, "")))
    return roles


@dataclass(frozen=True, kw_only=True)
class RoleBatch:
    """Prompts with teacher-forced answers, and the role of each of their tokens.

    Attributes:
        context: what stands before the prompts.
        roles: empty where a row is padded.
    """

    context: str
    batch: PromptBatch
    roles: Shaped[np.ndarray, "row pos"]

    @classmethod
    def of(
        cls, prompts: PromptSet, preceding: Sequence[str] | None = None, context: str = PROMPT
    ) -> "RoleBatch":
        """The prompts of a set, each after a text of its own."""
        longest = max(len(answer) for _, answer in prompts.tokens)
        roles = []
        for k, (prompt, answer) in enumerate(prompts.tokens):
            text = preceding[k] if preceding else ""
            roles.append([NEWLINE if c == "\n" else PRECEDING_LINE for c in text])
            roles[k] += (
                prompt_roles(prompts.examples[k], prompts.varied)
                if prompts.has_characters
                else ["prompt"] * len(prompt)
            )
            roles[k] += [f"answer {n + 1}" if longest <= MOST_NUMBERED else "answer"
                         for n in range(len(answer))]  # fmt: skip
        batch = prompts.batch(after=preceding)
        of_row = np.full(batch.tokens.shape, "", dtype=object)
        ends = zip(batch.row_example, batch.last_prompt_pos, batch.lengths, strict=True)
        for row, (example, end, length) in enumerate(ends):
            answer = prompts.tokens[example][1]
            first = len(roles[example]) - len(answer) - 1 - end  # what is before is cut off
            of_row[row, :length] = roles[example][first : first + length]
        return cls(context=context, batch=batch, roles=of_row)

    def mask(self, role: str) -> Bool[Tensor, "row pos"]:
        """The positions of a role."""
        return torch.from_numpy(self.roles == role)

    def in_order(self, mask: Bool[Tensor, "row pos"] | None = None) -> list[str]:
        """The roles in the order of the text; only those of some positions."""
        first: dict[str, int] = {}
        known = (self.roles != "") if mask is None else (self.roles != "") & mask.numpy()
        for row, pos in zip(*np.nonzero(known), strict=True):
            first.setdefault(str(self.roles[row, pos]), pos - int(self.batch.last_prompt_pos[row]))
        return sorted(first, key=lambda role: first[role])

    def query_key_pairs(self) -> Iterator[tuple[str, str, Bool[Tensor, "row query key"], int]]:
        """Each query role and key role, its visible pairs of positions, and how many queries.

        Queries are the positions whose logits predict a token of an answer.
        """
        is_asked = torch.zeros(self.batch.tokens.shape, dtype=torch.bool)
        is_asked[self.batch.answer_row, self.batch.answer_pos] = True
        visible = torch.ones(self.roles.shape[1], self.roles.shape[1], dtype=torch.bool).tril()
        for query, key in product(self.in_order(is_asked), self.in_order()):
            is_query = is_asked & self.mask(query)
            pairs = is_query[:, :, None] & self.mask(key)[:, None, :] & visible
            if pairs.any():
                yield query, key, pairs, int(is_query.sum())


def batches_by_context(prompts: PromptSet, seed: int = 0) -> list[RoleBatch]:
    """The prompts by themselves; and, for a model whose windows span lines, after a line's end.

    The line is the preceding one in the model's own file. A prompt that follows no line there comes
    after a line drawn at random.
    """
    alone, training = RoleBatch.of(prompts), prompts.training
    if training is None or training.framing == "line":
        return [alone]
    preceding = {line: before for before, line in pairwise(training.lines)}
    generator, texts = prompts.random(seed), []
    for example in prompts.examples:
        line = preceding.get(example.line, str(generator.choice(training.lines)))
        room = prompts.n_ctx - len(example.prompt)
        texts.append(line[-room:] if room > 0 else "")
    return [alone, RoleBatch.of(prompts, texts, AFTER_LINE)] if any(texts) else [alone]

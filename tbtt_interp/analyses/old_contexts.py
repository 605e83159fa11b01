"""Rows to read with a role for every token: prompts by themselves, and after a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from tbtt_interp.analyses.old_pairs import VARIED
from tbtt_interp.analyses.subject import NAMES, Subject
from tbtt_interp.evaluate import Questions
from tbtt_interp.tasks import Example

NUMBERED = 4  # the most characters of answers that are told apart
ALONE, AFTER = "prompt", "after a line"
BEFORE, NEWLINE = "previous line", "newline"


def prompt_roles(example: Example) -> list[str]:
    """What each character of a prompt is: a label's name, or the text between labels.

    >>> from tbtt_interp.tasks.arithmetic import equation
    >>> prompt_roles(equation(3, "-", 4))
    ['<', 'a', 'operator', 'b', '=']
    """
    prompt, roles, start = example.prompt, [], 0
    for name in (n for n in VARIED if n in example.labels):
        value = str(example.labels[name])
        at = prompt.find(value, start)
        if at >= 0:
            roles += _between(prompt[start:at]) + [name] * len(value)
            start = at + len(value)
    return roles + _between(prompt[start:])


def _numbered(length: int, longest: int) -> list[str]:
    """An answer's characters, by number where the longest answer has few."""
    return [f"answer {n + 1}" if longest <= NUMBERED else "answer" for n in range(length)]


def _between(text: str) -> list[str]:
    shown = "".join(NAMES.get(c, c) for c in text)
    return [shown] * len(text)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Questions, and what each token of their rows is.

    Attributes:
        roles: by row and position; empty where a row is padded.
    """

    name: str
    questions: Questions
    roles: tuple[tuple[str, ...], ...]

    def here(self, role: str) -> Bool[Tensor, "row pos"]:
        """Where that role is."""
        return torch.tensor([[each == role for each in row] for row in self.roles])

    def asked(self) -> Bool[Tensor, "row pos"]:
        """Where a character is asked."""
        found = torch.zeros(self.questions.tokens.shape, dtype=torch.bool)
        found[self.questions.row, self.questions.pos] = True
        return found

    def names(self, where: Bool[Tensor, "row pos"] | None = None) -> list[str]:
        """The roles there are, in the order of the text; only of some places."""
        first: dict[str, float] = {}
        for k, row in enumerate(self.roles):
            for pos, role in enumerate(row):
                if role and (where is None or bool(where[k, pos])):
                    first.setdefault(role, pos - int(self.questions.end[k]))
        return sorted(first, key=lambda role: first[role])


def context(subject: Subject, name: str, before: Sequence[str], examples: Sequence[int]) -> Context:
    """Examples after some text each, which may be empty."""
    encode = subject.vocabulary.encode
    asked, known = [], []
    longest = max(len(subject.tokens[k][1]) for k in examples)
    for text, k in zip(before, examples, strict=True):
        prompt, answer = subject.tokens[k]
        asked.append((encode(text) + prompt, answer))
        roles = [NEWLINE if c == "\n" else BEFORE for c in text]
        own = prompt_roles(subject.examples[k])
        roles += own if subject.has_characters else ["prompt"] * len(prompt)
        known.append(roles + _numbered(len(answer), longest))
    questions = Questions.of_tokens(asked, subject.n_ctx)
    width = questions.tokens.shape[1]
    rows = []
    for example, end, length in zip(
        questions.of_row.tolist(), questions.end.tolist(), questions.lengths.tolist(), strict=True
    ):
        shift = len(asked[example][0]) - 1 - end
        row = known[example][shift : shift + length]
        rows.append((*row, *[""] * (width - len(row))))
    return Context(name=name, questions=questions, roles=tuple(rows))


def contexts_of(subject: Subject, k: int, examples: Sequence[int], seed: int = 0) -> list[Context]:
    """Prompts by themselves; and, of a run whose windows span lines, after the end of a line.

    The line is the one before in the model's own file; a line drawn at random where there is none.
    """
    found = [context(subject, ALONE, [""] * len(examples), examples)]
    run = subject.run
    if run is None or run.config.framing == "line":
        return found
    task, order = subject.files[k]
    file = task.file(order)
    previous = {line: before for before, line in pairwise(file)}
    generator = np.random.default_rng((seed, k))
    texts = []
    for number in examples:
        example = subject.examples[number]
        line = previous.get(example.line, str(generator.choice(file)))
        room = subject.n_ctx - len(example.prompt)
        texts.append(line[-room:] if room > 0 else "")
    return [*found, context(subject, AFTER, texts, examples)] if any(texts) else found

"""What a task is: labelled lines in sections, a vocabulary, and a split into seen and held out."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError

Label = int | float | str | bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """One line of a corpus: what the model is asked, what it should answer, and what is true of it.

    >>> example = Example(line="<3+4=7> \\n", prompt="<3+4=", answer="7>", group="addition")
    >>> example.held_out
    False
    """

    line: str  # as it stands in the file, newline included
    prompt: str  # the line's beginning
    answer: str  # what follows the prompt, terminator included
    group: str  # what it is counted under: addition, subtraction, facts, …
    held_out: bool = False
    labels: Mapping[str, Label] = field(default_factory=dict)

    @classmethod
    def of(
        cls, prompt: str, answer: str, labels: Mapping[str, Label], *, held_out: bool = False
    ) -> "Example":
        """One of your own, as a line by itself.

        >>> Example.of("ab:", "a", {"in order": True}).line
        'ab:a\\n'
        """
        return cls(
            line=f"{prompt}{answer}\n", prompt=prompt, answer=answer, group="lines",
            held_out=held_out, labels=labels,
        )  # fmt: skip

    def __post_init__(self) -> None:
        is_begun = self.line.startswith(self.prompt + self.answer)
        if not (is_begun and self.prompt and self.answer):
            raise TbttError(
                f"line {self.line!r} should begin with its prompt {self.prompt!r} "
                f"and then its answer {self.answer!r}, neither of them empty"
            )
        if self.line.find("\n") != len(self.line) - 1:
            raise TbttError(f"line {self.line!r} should end in its only newline")


@runtime_checkable
class Encoder(Protocol):
    """What turns text into tokens: a Vocabulary, or a tokenizer of another model."""

    def encode(self, text: str) -> list[int]:
        """Text to tokens."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """A character for each token, in code point order as nanoGPT numbers them.

    >>> vocabulary = Vocabulary.of(["<1+2=3>\\n"])
    >>> vocabulary.decode(vocabulary.encode("3+2"))
    '3+2'
    """

    characters: str

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """All characters of some texts, sorted."""
        return cls("".join(sorted(set().union(*texts))))

    @cached_property
    def index(self) -> dict[str, int]:
        """The token of each character."""
        return {character: token for token, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Text to tokens.

        Raises:
            TbttError: naming the characters that are no tokens.
        """
        strange = sorted(set(text) - self.index.keys())
        if strange:
            raise TbttError(
                f"{text!r} has {', '.join(map(repr, strange))}, which this model has no token for: "
                f"its characters are {self.characters!r}"
            )
        return [self.index[character] for character in text]

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens to text."""
        return "".join(self.characters[token] for token in tokens)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A corpus with labels and a split. Sections keep their places when the lines are reordered.

    The examples include the held-out ones; `lines` and `file` have only what is trained on.
    """

    name: str
    sections: tuple[tuple[Example, ...], ...]
    window: int  # characters of context, in the framings that cut windows from the file
    batch: int  # windows a step, as published
    vocabulary: Vocabulary
    order_is_given: bool = False  # a user's own file has an order of its own

    def __post_init__(self) -> None:
        if not self.lines:
            raise TbttError(
                f"task '{self.name}' has every line held out, so there is none to train on: "
                "hold out fewer"
            )
        counts = Counter(example.line for example in self.examples)
        if twice := next((line for line, count in counts.items() if count > 1), None):
            raise TbttError(f"task '{self.name}' has the line {twice!r} twice: keep one of them")

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """Every labelled line, held out or not, in an order that no seed changes."""
        return tuple(example for section in self.sections for example in section)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The lines that are trained on."""
        return tuple(example.line for example in self.examples if not example.held_out)

    @cached_property
    def longest(self) -> int:
        """Characters of the longest line, newline included: the window of the `line` framing."""
        return max(len(example.line) for example in self.examples)

    @cached_property
    def terminators(self) -> frozenset[str]:
        """The characters that end an answer."""
        return frozenset(example.answer[-1] for example in self.examples)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """What examples are counted under, in order of appearance."""
        return tuple(dict.fromkeys(example.group for example in self.examples))

    def file(self, order_seed: int | None) -> tuple[str, ...]:
        """The training lines in the order of one file: a permutation within each section.

        Args:
            order_seed: which permutation; None keeps the lines as they stand.
        """
        return tuple(self._ordered(order_seed))

    def _ordered(self, order_seed: int | None) -> Iterator[str]:
        generator = None if order_seed is None else np.random.default_rng((order_seed, 0x0DE))
        for section in self.sections:
            lines = [example.line for example in section if not example.held_out]
            order = range(len(lines)) if generator is None else generator.permutation(len(lines))
            yield from (lines[i] for i in order)

    def prompts(self, *, held_out: bool | None = None) -> pd.DataFrame:
        """Labelled prompts, a row each: prompt, answer, group, held_out and every label.

        Args:
            held_out: only the held-out ones, only the seen ones, or (None) all.
        """
        chosen = [e for e in self.examples if held_out is None or e.held_out == held_out]
        own = ("prompt", "answer", "group", "held_out")
        return pd.DataFrame([{k: getattr(e, k) for k in own} | dict(e.labels) for e in chosen])

    def complete_prompt(self, text: str) -> str:
        """What a person typed, as the corpus would write it: 3+4 becomes <3+4=.

        A prompt that is already the corpus's own, or like no prompt in it, stays as it is.
        """
        known = {example.prompt for example in self.examples}
        equation = re.fullmatch(r"<?(\d+[+-]\d+)=?", text)
        if text not in known and equation and "<" in self.vocabulary.index:
            return f"<{equation[1]}="
        variants = (text, f"{text} ", f"Capital of {text} is ")
        return next((variant for variant in variants if variant in known), text)

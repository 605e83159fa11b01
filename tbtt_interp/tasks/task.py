"""Tasks: labelled lines in sections, a vocabulary, and a split into seen and held out."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError, brief

Label = int | float | str | bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """One line of a corpus: a prompt, its answer, and labels of both."""

    line: str  # as in the file, newline included
    prompt: str  # the line's beginning
    answer: str  # the rest, terminator included
    group: str  # for counts: addition, subtraction, facts, …
    held_out: bool = False
    labels: Mapping[str, Label] = field(default_factory=dict)

    @classmethod
    def of(
        cls, prompt: str, answer: str, labels: Mapping[str, Label] | None = None, *,
        group: str = "lines", held_out: bool = False, width: int = 0,
    ) -> "Example":  # fmt: skip
        """An example whose line is its prompt and its answer, padded to a width by blanks.

        >>> Example.of("ab:", "a", {"in order": True}).line
        'ab:a\\n'
        """
        line = (prompt + answer).removesuffix("\n").ljust(width) + "\n"
        return cls(line=line, prompt=prompt, answer=answer, group=group, held_out=held_out,
                   labels=labels or {})  # fmt: skip

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
    """Turns text into tokens: a Vocabulary, or the tokenizer of another model."""

    def encode(self, text: str) -> list[int]: ...  # noqa: D102


@dataclass(frozen=True)
class TokenizerEncoder:
    """The tokenizer of any library as an Encoder, without tokens for a beginning or an end."""

    tokenizer: Any

    def encode(self, text: str) -> list[int]:
        """Text to tokens."""
        try:  # transformers and tokenizers would add them
            found = self.tokenizer.encode(text, add_special_tokens=False)
        except TypeError:
            found = self.tokenizer.encode(text)
        return [int(token) for token in getattr(found, "ids", found)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens to text."""
        return self.tokenizer.decode(list(tokens))


@dataclass(frozen=True)
class Vocabulary:
    """One character per token, in code point order as nanoGPT numbers them.

    >>> vocabulary = Vocabulary.of(["<1+2=3>\\n"])
    >>> vocabulary.decode(vocabulary.encode("3+2"))
    '3+2'
    """

    characters: str

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """The characters of some texts, sorted."""
        return cls("".join(sorted(set().union(*texts))))

    @cached_property
    def index(self) -> dict[str, int]:
        """The token of each character."""
        return {character: token for token, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Text to tokens; raises a TbttError that names characters without a token."""
        strange = sorted(set(text) - self.index.keys())
        if strange:
            which = ", ".join(map(repr, strange[:9]))
            raise TbttError(
                f"{brief(text)} has {which}, which this model has no token for: "
                f"its characters are {self.characters[:200]!r}"
            )
        return [self.index[character] for character in text]

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens to text."""
        return "".join(self.characters[token] for token in tokens)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A corpus with labels and a split. Sections keep their places when the lines are reordered."""

    name: str
    sections: tuple[tuple[Example, ...], ...]  # held-out examples included
    window: int  # characters of context, in the framings that cut windows from the file
    batch: int  # windows per step, as published
    vocabulary: Vocabulary
    order_is_given: bool = False  # whether the lines have an order of their own, as a user's file
    operands: tuple[int, ...] = ()  # values of the labels a and b, whose pairs can be held out
    operators: tuple[str, ...] = ()
    # a short form, as a regular expression, and the whole prompt
    short_forms: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls, name: str, *sections: Sequence[Example], window: int, batch: int, **fields: Any
    ) -> "Task":
        """A task, with further fields, whose vocabulary is the characters of its lines."""
        vocabulary = Vocabulary.of(e.line for section in sections for e in section)
        return cls(name=name, sections=tuple(map(tuple, sections)), window=window, batch=batch,
                   vocabulary=vocabulary, **fields)  # fmt: skip

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
        """The training lines."""
        return tuple(example.line for example in self.examples if not example.held_out)

    @cached_property
    def terminators(self) -> frozenset[str]:
        """The characters that end an answer."""
        return frozenset(example.answer[-1] for example in self.examples)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The examples' groups, in order of appearance."""
        return tuple(dict.fromkeys(example.group for example in self.examples))

    @cached_property
    def varied(self) -> tuple[str, ...]:
        """The labels that prompts spell out; see `varied_labels`."""
        return varied_labels(self.examples)

    def file(self, order_seed: int | None) -> tuple[str, ...]:
        """The training lines, permuted within each section; None keeps them as they stand."""
        bits = None if order_seed is None else random_bits(order_seed, 0x0DE)
        lines: list[str] = []
        for section in self.sections:
            seen = [example.line for example in section if not example.held_out]
            order = range(len(seen)) if bits is None else permutation(len(seen), bits)
            lines += (seen[k] for k in order)
        return tuple(lines)

    def with_permuted_answers(self, seed: int) -> "Task":
        """This task with the answers of each group permuted among its prompts: a table, no rule.

        Of the labels, those that the prompts spell out are kept.
        """
        bits = random_bits(seed, 0xA25)
        answers = {
            group: [e.answer for e in self.examples if e.group == group] for group in self.groups
        }
        drawn = {
            group: iter([of[k] for k in permutation(len(of), bits)])
            for group, of in answers.items()
        }

        def permuted(example: Example) -> Example:
            labels = {name: example.labels[name] for name in self.varied}
            return Example.of(
                example.prompt, next(drawn[example.group]), labels, group=example.group,
                held_out=example.held_out, width=len(example.line) - 1,
            )  # fmt: skip

        sections = tuple(tuple(map(permuted, section)) for section in self.sections)
        return replace(self, sections=sections)

    def prompts(self, *, held_out: bool | None = None) -> pd.DataFrame:
        """One row per labelled prompt: prompt, answer, group, held_out and every label."""
        chosen = [e for e in self.examples if held_out is None or e.held_out == held_out]
        own = ("prompt", "answer", "group", "held_out")
        return pd.DataFrame([{k: getattr(e, k) for k in own} | dict(e.labels) for e in chosen])

    def complete_prompt(self, text: str) -> str:
        """The prompt that a short form stands for, as 3+4 or 3 + 4 for <3+4=; or the text itself.

        A prompt without the signs at its ends is such a form, too.
        """
        known = {example.prompt for example in self.examples}
        bare = {re.sub(r"^\W+|\W+$", "", prompt): prompt for prompt in known}
        for written in (text, "".join(text.split())):
            if variant := next((v for v in (written, f"{written} ") if v in known), None):
                return variant
            if written in bare:
                return bare[written]
            matches = ((re.fullmatch(short, written), whole) for short, whole in self.short_forms)
            if found := next((match.expand(whole) for match, whole in matches if match), None):
                return found
        return text


Prompts = str | Task | pd.DataFrame | Iterable[str | Example | tuple[Any, ...]]


def examples_of(prompts: Prompts) -> tuple[Example, ...]:
    """Labelled prompts as examples.

    Args:
        prompts: examples; tuples of a prompt, its answer and, if there are any, labels; a task; or
            a table with the columns of `Task.prompts`.

    >>> examples_of([("ab:", "a", {"in order": True})])[0].labels
    {'in order': True}
    """
    if isinstance(prompts, Task):
        return prompts.examples
    if isinstance(prompts, pd.DataFrame):
        if missing := {"prompt", "answer"} - {*prompts.columns}:
            raise TbttError(f"the table of prompts has no column {min(missing)}: it needs both")
        rows = prompts.to_dict("records")
        known = [{str(k): v for k, v in row.items() if not pd.isna(v)} for row in rows]
        return tuple(
            Example.of(of.pop("prompt"), of.pop("answer"), group=of.pop("group", "lines"),
                       held_out=bool(of.pop("held_out", False)), labels=of)
            for of in known
        )  # fmt: skip
    several: list[Any] = list(prompts)
    if any(isinstance(e, str) for e in several):
        raise TbttError("a text needs an answer beside it: give texts alone, or tuples of both")
    return tuple(e if isinstance(e, Example) else Example.of(*e) for e in several)


def random_bits(*key: int) -> Iterator[int]:
    """Random 32-bit integers, without end, the same in every version of numpy.

    The raw numbers of a bit generator never change; those of `Generator` methods may (NEP 19).
    """
    generator = np.random.PCG64(np.random.SeedSequence(key))
    while True:
        number = int(generator.random_raw())
        yield number & 0xFFFFFFFF
        yield number >> 32


def permutation(length: int, bits: Iterator[int]) -> list[int]:
    """The numbers below `length` in random order: Fisher and Yates' shuffle.

    >>> permutation(5, random_bits(0))
    [2, 4, 3, 0, 1]
    """
    order = list(range(length))
    for last in range(length - 1, 0, -1):
        below = (number & (1 << last.bit_length()) - 1 for number in bits)
        chosen = next(number for number in below if number <= last)
        order[last], order[chosen] = order[chosen], order[last]
    return order


def varied_labels(examples: Iterable[Example]) -> tuple[str, ...]:
    """The labels whose value stands in the prompt of every example that has them.

    Such labels are the inputs; other labels give the answer or its properties.
    """
    spelled: dict[str, bool] = {}
    for example in examples:
        for name, label in example.labels.items():
            spelled[name] = spelled.get(name, True) and str(label) in example.prompt
    return tuple(name for name, is_spelled in spelled.items() if is_spelled)

"""What an analysis is made of: models of one shape, and the labelled examples they are asked."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from tbtt_interp.activations import untrained_models
from tbtt_interp.errors import TbttError, listed
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Encoder, Example, Stream, Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

NAMES = {"\n": "⏎", " ": "␣"}  # how a character is shown that would not be seen


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Models and their examples: a run's, or anyone's.

    Attributes:
        held_out: by seed, which examples that model was not trained on.
        run: where the models come from, for what only a run knows: its files and its training.
    """

    name: str
    models: tuple["HookedTransformer", ...]
    seeds: tuple[int, ...]
    examples: tuple[Example, ...]
    vocabulary: Encoder
    held_out: Bool[np.ndarray, "seed example"]
    run: Run | None = None

    @classmethod
    def of(cls, given: "Subject | Run") -> "Subject":
        """A run as a subject, at its last checkpoint; a subject is one already."""
        return given if isinstance(given, Subject) else cls.of_run(given)

    @classmethod
    def of_run(cls, run: Run, step: int | None = None) -> "Subject":
        """Every seed of a run, on the examples of its task.

        Args:
            step: of a kept checkpoint; None is the last.
        """
        return cls(
            name=f"{run.folder} at step {max(run.checkpoints) if step is None else step:,}"
            if run.checkpoints
            else str(run.folder),
            models=tuple(run.model(seed, step) for seed in run.seeds),
            seeds=run.seeds,
            examples=run.tasks[0].examples,
            vocabulary=run.tasks[0].vocabulary,
            held_out=np.array([[e.held_out for e in task.examples] for task in run.tasks]),
            run=run,
        )

    @classmethod
    def of_models(
        cls,
        models: Sequence["HookedTransformer"],
        examples: Sequence[Example],
        vocabulary: Encoder,
        *,
        name: str = "models",
    ) -> "Subject":
        """Models of your own, all of one shape, and your own labelled prompts.

        Args:
            vocabulary: what turns your text into the models' tokens.
        """
        if not models or not examples:
            raise TbttError("an analysis needs a model and an example at least, got none")
        held_out = np.array([[example.held_out for example in examples]] * len(models))
        return cls(
            name=name, models=tuple(models), seeds=tuple(range(len(models))),
            examples=tuple(examples), vocabulary=vocabulary, held_out=held_out,
        )  # fmt: skip

    @property
    def n_ctx(self) -> int:
        """Tokens of context."""
        return self.models[0].cfg.n_ctx

    @property
    def layers(self) -> int:
        """Layers of each model."""
        return self.models[0].cfg.n_layers

    @property
    def heads(self) -> int:
        """Heads of each layer."""
        return self.models[0].cfg.n_heads

    @cached_property
    def untrained(self) -> tuple["HookedTransformer", ...]:
        """Each seed's model as it was before training; none for models that come without a run."""
        if self.run is None:
            return ()
        every = dict(zip(self.run.seeds, untrained_models(self.run), strict=True))
        return tuple(every[seed] for seed in self.seeds)

    @property
    def files(self) -> list[tuple[Task, int | None]]:
        """Each model's task, and the order of the lines in its file; of a run's models alone."""
        if self.run is None:
            raise TbttError(
                f"{self.name} come without a run, so what they were trained on is unknown"
            )
        places = [self.run.seed_index(seed) for seed in self.seeds]
        return [(self.run.tasks[k], self.run.config.order_seeds[k]) for k in places]

    @cached_property
    def tokens(self) -> tuple[tuple[list[int], list[int]], ...]:
        """Of each example its prompt's tokens and its answer's."""
        encode = self.vocabulary.encode
        return tuple((encode(e.prompt), encode(e.answer)) for e in self.examples)

    @property
    def has_characters(self) -> bool:
        """Whether each character is a token."""
        texts = [e.prompt + e.answer for e in self.examples]
        return all(
            len(text) == len(prompt) + len(answer)
            for text, (prompt, answer) in zip(texts, self.tokens, strict=True)
        )

    def roles(self, example: int) -> list[str]:
        """What each token of an answer is; see `character_roles`."""
        if self.has_characters:
            return character_roles(self.examples[example])
        return [f"token {k + 1}" for k in range(len(self.tokens[example][1]))]

    def place_names(self, first: int, last: int) -> dict[int, str]:
        """What stands at each position, counted from the prompts' last; see `place_names`."""
        if self.has_characters:
            return place_names(self.examples, first, last)
        return {pos: str(pos) for pos in range(first, last + 1)}

    @property
    def title(self) -> str:
        """For a table's head."""
        count = len(self.models)
        return f"{self.name}, {count} model{'s' if count > 1 else ''}"

    def find(self, prompt: str) -> int:
        """The example that a prompt, as a person types it, is of.

        Raises:
            TbttError: if it has characters that are no tokens, or is no prompt of these examples.
        """
        text = prompt if self.run is None else self.run.tasks[0].complete_prompt(prompt)
        self.vocabulary.encode(text)
        prompts = [example.prompt for example in self.examples]
        if text not in prompts:
            raise TbttError(
                f"prompt {text!r} has no known answer: give one of the task's own, such as "
                f"{prompts[0]!r} or {prompts[-1]!r}"
            )
        return prompts.index(text)

    def streams(self) -> list[Stream]:
        """Each model's training windows; `reference()` is all of them.

        Raises:
            TbttError: if the models come without a run.
        """
        if self.run is None:
            raise TbttError(
                f"what {self.name} were trained on is not known: give a run, which has its windows"
            )
        config = self.run.config
        places = [self.run.seed_index(seed) for seed in self.seeds]
        return [
            Stream(
                lines=self.run.tasks[k].file(config.order_seeds[k]),
                vocabulary=self.run.tasks[k].vocabulary, framing=config.framing,
                window=self.n_ctx, batch=None if config.framing == "line" else 1, seed=seed,
            )
            for k, seed in zip(places, self.seeds, strict=True)
        ]  # fmt: skip

    def take(self, count: int) -> "Subject":
        """The first so many models."""
        return dataclasses.replace(
            self, models=self.models[:count], seeds=self.seeds[:count],
            held_out=self.held_out[:count],
        )  # fmt: skip

    def each(self) -> list["Subject"]:
        """One subject a model."""
        return [
            dataclasses.replace(
                self, models=(model,), seeds=(seed,), held_out=self.held_out[k : k + 1]
            )
            for k, (model, seed) in enumerate(zip(self.models, self.seeds, strict=True))
        ]

    def grid(self) -> dict[str, tuple[list[int], list[int]]]:
        """By operator, its operands: where the examples are equations of two operands, all there.

        Raises:
            TbttError: if they are not.
        """
        found: dict[str, tuple[list[int], list[int]]] = {}
        keyed = {(e.labels.get("operator"), e.labels.get("a"), e.labels.get("b"))
                 for e in self.examples if {"operator", "a", "b"} <= e.labels.keys()}  # fmt: skip
        for operator in dict.fromkeys(str(o) for o, _, _ in sorted(keyed, key=str)):
            a = sorted({a for o, a, _ in keyed if o == operator})  # pyright: ignore
            b = sorted({b for o, _, b in keyed if o == operator})  # pyright: ignore
            if len(a) * len(b) == sum(o == operator for o, _, _ in keyed):
                found[operator] = (a, b)
        if not found:
            raise TbttError(
                "there is no grid of operands here: this analysis needs examples with the labels "
                "a, operator and b, every a with every b, as the task arithmetic has them"
            )
        return found

    @property
    def has_grid(self) -> bool:
        """Whether the examples are equations of two operands, every one with every other."""
        try:
            return bool(self.grid())
        except TbttError:
            return False

    def held_out_pair(self, pair: tuple[int, int]) -> Bool[np.ndarray, "seed example"]:
        """Which examples are of a pair of operands that each model was not trained on.

        Raises:
            TbttError: if no model holds it out, naming those that are.
        """
        of_pair = np.array([
            sorted((e.labels.get("a", -1), e.labels.get("b", -1))) == sorted(pair)  # pyright: ignore
            for e in self.examples
        ])  # fmt: skip
        chosen = self.held_out & of_pair
        if not chosen.any():
            pairs = {
                tuple(sorted((e.labels["a"], e.labels["b"])))  # pyright: ignore
                for e, column in zip(self.examples, self.held_out.T, strict=True)
                if column.any() and {"a", "b"} <= e.labels.keys()
            }
            known = listed(f"{a},{b}" for a, b in sorted(pairs)) if pairs else "none"
            raise TbttError(
                f"pair {pair[0]},{pair[1]} is not held out in {self.name}: those that are: {known}"
            )
        return chosen


def place_names(examples: Sequence[Example], first: int, last: int) -> dict[int, str]:
    """What stands at each position of some prompts, counted from the last character, which is -1.

    Where all have the same character it is that, with its number if it is there twice; where it is
    a label's value it is the label's name, and elsewhere the number. 0 and more is of the answer.

    >>> from tbtt_interp.tasks import load_task
    >>> place_names(load_task("arithmetic").examples, -5, 1)
    {-5: '<', -4: 'a', -3: 'operator', -2: 'b', -1: '=', 0: 'answer 1', 1: 'answer 2'}
    """
    names = {}
    for pos in range(first, last + 1):
        if pos >= 0:
            names[pos] = f"answer {pos + 1}"
            continue
        said = [e.prompt[pos] if -pos <= len(e.prompt) else "" for e in examples]
        labels = (
            label for label in examples[0].labels
            if all(str(e.labels.get(label)) == c for e, c in zip(examples, said, strict=True))
        )  # fmt: skip
        if len(set(said)) == 1:
            names[pos] = NAMES.get(said[0], said[0])
        else:
            names[pos] = next(labels, str(pos))
    counts = Counter(names.values())
    return {pos: name if counts[name] == 1 else f"{name} {pos}" for pos, name in names.items()}


def character_roles(example: Example) -> list[str]:
    """What each character of an answer is: sign, tens, units and terminator, or its number.

    >>> from tbtt_interp.tasks.arithmetic import equation
    >>> character_roles(equation(3, "-", 4)), character_roles(equation(8, "+", 4))
    (['sign', 'units', 'terminator'], ['tens', 'units', 'terminator'])
    """
    *said, _ = example.answer
    if "units" in example.labels:
        digits = [c for c in said if c.isdecimal()]
        places = ["units", "tens", "hundreds", "thousands"][: len(digits)][::-1]
        names = ["sign"] * (len(said) - len(digits)) + places
    else:
        names = [f"character {k + 1}" for k in range(len(said))]
    return [*names, "terminator"]


def in_reading_order(roles: Iterable[str]) -> list[str]:
    """Each role once: a sign, digits from the greatest, others by their number, the terminator.

    >>> in_reading_order(["units", "terminator", "sign", "units", "character 10", "character 9"])
    ['sign', 'units', 'character 9', 'character 10', 'terminator']
    """
    known = ("sign", "thousands", "hundreds", "tens", "units")

    def place(role: str) -> tuple[int, int]:
        if role in known:
            return 0, known.index(role)
        return (2, 0) if role == "terminator" else (1, int(role.rpartition(" ")[2]))

    return sorted(set(roles), key=place)

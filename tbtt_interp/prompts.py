"""Labelled prompts: of one model, as tokens with teacher-forced answers, and by role.

A `PromptSet` has the prompts of one model: which it was trained on, and the file it was trained
on. A `PromptBatch` has prompts and answers as rows of tokens, and the positions whose logits
predict an answer's tokens.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.errors import TbttError, listed
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Encoder, Example, Stream, Task
from tbtt_interp.tasks.task import varied_labels

VISIBLE = {"\n": "⏎", " ": "␣"}  # signs for characters that would not be seen
PLACES = ("units", "tens", "hundreds", "thousands")  # of an answer's digits, from the last


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """Prompts with teacher-forced answers, as rows of tokens padded on the right.

    A prompt that does not fit the context with its answer loses its left end, token by token as
    the answer grows, as in nanoGPT; it then has one row per token of its answer.

    Attributes:
        last_prompt_pos: position of the prompt's last token in each row.
        row_example: example of each row.
        answer_row, answer_pos, answer_token, answer_example: for each token of each answer, the
            row and position whose logits predict it, the right token, and its example.
        fits: whether each example fits the context.
    """

    tokens: Int[Tensor, "row pos"]
    last_prompt_pos: Int[Tensor, " row"]
    row_example: Int[Tensor, " row"]
    answer_row: Int[Tensor, " answer"]
    answer_pos: Int[Tensor, " answer"]
    answer_token: Int[Tensor, " answer"]
    answer_example: Int[Tensor, " answer"]
    fits: Bool[np.ndarray, " example"]

    @classmethod
    def of(cls, examples: Sequence[Example], vocabulary: Encoder, n_ctx: int) -> "PromptBatch":
        """The batch of some labelled examples."""
        encode = vocabulary.encode
        return cls.of_tokens([(encode(e.prompt), encode(e.answer)) for e in examples], n_ctx)

    @classmethod
    def of_tokens(
        cls, prompts_and_answers: Sequence[tuple[list[int], list[int]]], n_ctx: int
    ) -> "PromptBatch":
        """The batch of some prompts' and answers' tokens."""
        rows: list[list[int]] = []
        ends: list[tuple[int, int]] = []
        answers: list[tuple[int, int, int, int]] = []
        fits = []
        for number, (prompt, answer) in enumerate(prompts_and_answers):
            tokens = prompt + answer
            fits.append(len(tokens) - 1 <= n_ctx)
            end = len(prompt) - 1
            if fits[-1]:
                rows.append(tokens[:-1])
                ends.append((end, number))
            for at in range(len(prompt), len(tokens)):
                if not fits[-1]:
                    rows.append(tokens[:at][-n_ctx:])
                    ends.append((end - max(0, at - n_ctx), number))
                answers.append((len(rows) - 1, min(at, n_ctx) - 1, tokens[at], number))
        longest = max(map(len, rows))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        row, pos, token, example = torch.tensor(answers).unbind(1)
        end, row_example = torch.tensor(ends).unbind(1)
        return cls(
            tokens=padded, last_prompt_pos=end, row_example=row_example, answer_row=row,
            answer_pos=pos, answer_token=token, answer_example=example, fits=np.array(fits),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.fits)

    @property
    def first_answers(self) -> Int[Tensor, " example"]:
        """Index of the first answer token of each example."""
        return torch.searchsorted(self.answer_example.contiguous(), torch.arange(len(self)))

    @cached_property
    def place_in_answer(self) -> Int[Tensor, " answer"]:
        """How many tokens of its answer stand before each answer token."""
        return torch.arange(len(self.answer_row)) - self.first_answers[self.answer_example]

    @property
    def lengths(self) -> Int[Tensor, " row"]:
        """Tokens of each row up to the last whose logits are read; what follows is padding."""
        nothing = torch.zeros_like(self.last_prompt_pos)
        return nothing.scatter_reduce(0, self.answer_row, self.answer_pos + 1, "amax")

    def first_tokens(self) -> "PromptBatch":
        """The prompts by themselves, whose last positions predict the answers' first tokens."""
        first = self.first_answers
        rows = self.answer_row[first]
        end = self.last_prompt_pos[rows]
        return dataclasses.replace(
            self, tokens=self.tokens[rows, : int(self.last_prompt_pos.max()) + 1],
            last_prompt_pos=end, row_example=self.row_example[rows],
            answer_row=torch.arange(len(rows)), answer_pos=end,
            answer_token=self.answer_token[first], answer_example=self.answer_example[first],
        )  # fmt: skip

    def at_answers(self, values: Float[Tensor, "row pos ..."]) -> Float[Tensor, "answer ..."]:
        """Values at the positions whose logits predict the answers' tokens."""
        return values[self.answer_row, self.answer_pos]

    def margins(
        self, logits: Float[Tensor, "seed answer d_vocab"]
    ) -> Float[Tensor, "seed example"]:
        """Smallest margin within each answer: right token's logit minus the best wrong one's."""
        target = self.answer_token.to(logits.device).expand(len(logits), -1)[..., None]
        right = logits.gather(-1, target).squeeze(-1)
        wrong = logits.scatter(-1, target, -torch.inf).amax(-1)
        margins = torch.full((len(logits), len(self)), torch.inf, device=logits.device)
        example = self.answer_example.to(logits.device).expand(len(logits), -1)
        return margins.to(right.dtype).scatter_reduce(1, example, right - wrong, "amin")

    def answer_logprobs(self, logits: Float[Tensor, "answer d_vocab"]) -> Float[Tensor, " example"]:
        """Log-probability of each whole answer, in nats, teacher-forced."""
        right = logits.log_softmax(-1).gather(1, self.answer_token[:, None]).squeeze(1)
        return self.sum_by_example(right)

    def sum_by_example(self, values: Float[Tensor, " answer"]) -> Float[Tensor, " example"]:
        """Sums over each answer's tokens."""
        return torch.zeros(len(self)).to(values).index_add(0, self.answer_example, values)


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """The labelled prompts of one model, and its training data.

    Attributes:
        held_out: which examples the model was not trained on.
        number: the model's place among the models that are read; random draws start from it.
        task: the task that the examples come from; None for prompts of your own.
        training: the windows that the model was trained on; None where they are not known.
        unseen_order_seed: gives an order of the task's lines that no model of the run has seen.
        order_is_known: whether `training` has the lines in the order of the model's own file.
    """

    examples: tuple[Example, ...]
    vocabulary: Encoder
    n_ctx: int
    held_out: Bool[np.ndarray, " example"]
    name: str = "models"
    number: int = 0
    task: Task | None = None
    training: Stream | None = None
    unseen_order_seed: int = 0
    order_is_known: bool = False

    @classmethod
    def of(
        cls, examples: Sequence[Example], vocabulary: Encoder, n_ctx: int, *, name: str = "models"
    ) -> "PromptSet":
        """Prompts of your own, for a model of n_ctx tokens of context."""
        if not examples:
            raise TbttError("an analysis needs at least one example, got none")
        held_out = np.array([example.held_out for example in examples])
        return cls(examples=tuple(examples), vocabulary=vocabulary, n_ctx=n_ctx,
                   held_out=held_out, name=name)  # fmt: skip

    @classmethod
    def of_seed(cls, run: Run, seed: int) -> "PromptSet":
        """The prompts of one seed of a run: its task's, with its own held-out pairs and file."""
        config, index = run.config, run.seed_index(seed)
        task, known = run.tasks[index], [order for order in config.order_seeds if order is not None]
        training = Stream(
            lines=task.file(config.order_seeds[index]), vocabulary=task.vocabulary,
            framing=config.framing, window=run.shape.n_ctx, seed=seed,
            batch=None if config.framing == "line" else 1,
        )  # fmt: skip
        return cls(
            examples=task.examples, vocabulary=task.vocabulary, n_ctx=run.shape.n_ctx,
            held_out=np.array([example.held_out for example in task.examples]),
            name=str(run.folder), number=index, task=task, training=training,
            unseen_order_seed=1 + max(known, default=0) + index,
            order_is_known=config.recipe is not None or task.order_is_given,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def seen(self) -> Bool[np.ndarray, " example"]:
        """Which examples the model was trained on."""
        return ~self.held_out

    @property
    def splits(self) -> dict[str, Bool[np.ndarray, " example"]]:
        """The examples of the splits `seen` and `held out`, as far as there are any."""
        both = {"seen": self.seen, "held out": self.held_out}
        return {name: mask for name, mask in both.items() if mask.any()}

    @cached_property
    def varied(self) -> tuple[str, ...]:
        """The labels that prompts spell out; see `tasks.task.varied_labels`."""
        return varied_labels(self.examples) if self.task is None else self.task.varied

    @cached_property
    def tokens(self) -> tuple[tuple[list[int], list[int]], ...]:
        """The tokens of each example's prompt and answer."""
        encode = self.vocabulary.encode
        return tuple((encode(e.prompt), encode(e.answer)) for e in self.examples)

    def batch(
        self, examples: Iterable[int] | None = None, after: Iterable[str] | None = None
    ) -> PromptBatch:
        """The prompts and answers as a batch; of some examples by number, each after a text."""
        chosen = self.tokens if examples is None else [self.tokens[k] for k in examples]
        if after is not None:
            pairs = zip(map(self.vocabulary.encode, after), chosen, strict=True)
            chosen = [(text + prompt, answer) for text, (prompt, answer) in pairs]
        return PromptBatch.of_tokens(chosen, self.n_ctx)

    @cached_property
    def has_characters(self) -> bool:
        """Whether each character is a token."""
        texts = (e.prompt + e.answer for e in self.examples)
        return all(
            len(text) == len(prompt) + len(answer)
            for text, (prompt, answer) in zip(texts, self.tokens, strict=True)
        )

    def answer_roles(self, example: int) -> list[str]:
        """The role of each token of an answer; see `answer_roles`."""
        if self.has_characters:
            return answer_roles(self.examples[example])
        return [f"token {k + 1}" for k in range(len(self.tokens[example][1]))]

    def position_names(self, first: int, last: int) -> dict[int, str]:
        """A name for each position, counted from the prompts' last, -1; see `position_names`."""
        if self.has_characters:
            return position_names(self.examples, first, last)
        return {pos: str(pos) for pos in range(first, last + 1)}

    def find(self, prompt: str) -> int:
        """The number of the example with this prompt, also by its short form, as 3+4.

        Raises:
            TbttError: if the prompt has characters without a token, or is not of these examples.
        """
        text = prompt if self.task is None else self.task.complete_prompt(prompt)
        self.vocabulary.encode(text)
        prompts = [example.prompt for example in self.examples]
        if text not in prompts:
            raise TbttError(
                f"prompt {text!r} has no known answer: give one of the task's own, such as "
                f"{prompts[0]!r} or {prompts[-1]!r}"
            )
        return prompts.index(text)

    @cached_property
    def operand_grids(self) -> dict[str, tuple[list[int], list[int]]]:
        """For each operator that has every a with every b, the values of a and of b."""
        pairs: dict[str, set[Any]] = {}
        for labels in (example.labels for example in self.examples):
            if {"operator", "a", "b"} <= labels.keys():
                pairs.setdefault(str(labels["operator"]), set()).add((labels["a"], labels["b"]))
        values = {o: [sorted(set(x)) for x in zip(*pairs[o], strict=True)] for o in sorted(pairs)}
        return {o: (a, b) for o, (a, b) in values.items() if len(a) * len(b) == len(pairs[o])}

    def require_grids(self) -> dict[str, tuple[list[int], list[int]]]:
        """`operand_grids`; raises a TbttError if there is none."""
        if not self.operand_grids:
            raise TbttError(
                "there is no grid of operands here: this analysis needs examples with the labels "
                "a, operator and b, every a with every b, as the task arithmetic has them"
            )
        return self.operand_grids

    def held_out_pair(self, pair: tuple[int, int]) -> Bool[np.ndarray, " example"]:
        """Which held-out examples have this pair of operands, in either order.

        Raises:
            TbttError: if there is none, naming the pairs that are held out.
        """
        pairs: list[Any] = [{e.labels.get("a"), e.labels.get("b")} for e in self.examples]
        chosen = self.held_out & np.array([operands == set(pair) for operands in pairs])
        if not chosen.any():
            known = {(min(operands), max(operands))
                     for operands, is_held_out in zip(pairs, self.held_out, strict=True)
                     if is_held_out and None not in operands}  # fmt: skip
            names = listed(f"{a},{b}" for a, b in sorted(known)) if known else "none"
            raise TbttError(
                f"pair {pair[0]},{pair[1]} is not held out in {self.name}: those that are: {names}"
            )
        return chosen

    def require_training(self) -> Stream:
        """The windows that the model was trained on; raises a TbttError if they are not known."""
        if self.training is None:
            raise TbttError(
                f"what {self.name} were trained on is not known: give a run, which has its windows"
            )
        return self.training

    def random(self, *keys: int) -> np.random.Generator:
        """A generator of this model's random draws: the first key, its number, the other keys."""
        return np.random.default_rng((keys[0], self.number, *keys[1:]))


def answer_roles(example: Example) -> list[str]:
    """The role of each character of an answer: sign, tens, units and terminator, or its number.

    >>> from tbtt_interp.tasks.arithmetic import equation
    >>> answer_roles(equation(3, "-", 4)), answer_roles(equation(8, "+", 4))
    (['sign', 'units', 'terminator'], ['tens', 'units', 'terminator'])
    """
    *characters, _ = example.answer
    if "units" in example.labels:
        digits = [c for c in characters if c.isdecimal()]
        names = ["sign"] * (len(characters) - len(digits)) + [*PLACES[: len(digits)][::-1]]
    else:
        names = [f"character {k + 1}" for k in range(len(characters))]
    return [*names, "terminator"]


def in_reading_order(roles: Iterable[str]) -> list[str]:
    """Each role once: a sign, digits from the greatest, others by number, the terminator.

    >>> in_reading_order(["units", "terminator", "sign", "units", "character 10", "character 9"])
    ['sign', 'units', 'character 9', 'character 10', 'terminator']
    """
    first = ["sign", *PLACES[::-1]]
    order = {role: place for place, role in enumerate(first, -len(first))}
    order["terminator"] = 10**9  # other roles are placed by their number
    return sorted(set(roles), key=lambda r: order[r] if r in order else int(r.rpartition(" ")[2]))


def position_names(examples: Sequence[Example], first: int, last: int) -> dict[int, str]:
    """A name for each position of some prompts, counted from the last character, which is -1.

    The character itself where all prompts share it, with its position if it is there twice; the
    label's name where it is a label's value; the position elsewhere. From 0 on it is the answer.

    >>> from tbtt_interp.tasks import load_task
    >>> position_names(load_task("arithmetic").examples, -5, 1)
    {-5: '<', -4: 'a', -3: 'operator', -2: 'b', -1: '=', 0: 'answer 1', 1: 'answer 2'}
    """
    names = {}
    for pos in range(first, last + 1):
        if pos >= 0:
            names[pos] = f"answer {pos + 1}"
            continue
        characters = [e.prompt[pos] if -pos <= len(e.prompt) else "" for e in examples]
        labels = (
            label for label in examples[0].labels
            if all(str(e.labels.get(label)) == c for e, c in zip(examples, characters, strict=True))
        )  # fmt: skip
        if len(set(characters)) == 1:
            names[pos] = VISIBLE.get(characters[0], characters[0])
        else:
            names[pos] = next(labels, str(pos))
    counts = Counter(names.values())
    return {pos: name if counts[name] == 1 else f"{name} {pos}" for pos, name in names.items()}

"""What a model answers: exact match and margins by group, its loss, and greedy completions."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.model import Shape, forward
from tbtt_interp.stats import Rate
from tbtt_interp.tasks import Encoder, Example, Stream, Task, Vocabulary
from tbtt_interp.tasks.windows import NOTHING, stack

TOKENS_AT_ONCE = 32_768  # of all models, in a forward pass without gradients


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Prompts and answers as rows to read and places in them where a character is answered.

    A prompt that does not fit the context with its answer loses its left end, character by
    character as the answer grows, as in nanoGPT.

    Attributes:
        end: where in each row its prompt's last character stands.
        of_row: each row's example.
        row, pos, target, example: of each character that is asked.
    """

    tokens: Int[Tensor, "row pos"]
    end: Int[Tensor, " row"]
    of_row: Int[Tensor, " row"]
    row: Int[Tensor, " character"]
    pos: Int[Tensor, " character"]
    target: Int[Tensor, " character"]
    example: Int[Tensor, " character"]
    fits: Bool[np.ndarray, " example"]

    @classmethod
    def of(cls, examples: Sequence[Example], vocabulary: Encoder, n_ctx: int) -> "Questions":
        """The questions that these examples put to a model of this context."""
        asked = [(vocabulary.encode(e.prompt), vocabulary.encode(e.answer)) for e in examples]
        return cls.of_tokens(asked, n_ctx)

    @classmethod
    def of_tokens(
        cls, prompts_and_answers: Sequence[tuple[list[int], list[int]]], n_ctx: int
    ) -> "Questions":
        """The same from tokens: of each example its prompt's, and its answer's."""
        rows: list[list[int]] = []
        places: list[tuple[int, int]] = []
        asked: list[tuple[int, int, int, int]] = []
        fits = []
        for number, (prompt, answer) in enumerate(prompts_and_answers):
            tokens = prompt + answer
            fits.append(len(tokens) - 1 <= n_ctx)
            end = len(prompt) - 1
            if fits[-1]:
                rows.append(tokens[:-1])
                places.append((end, number))
            for at in range(len(prompt), len(tokens)):
                if not fits[-1]:
                    rows.append(tokens[:at][-n_ctx:])
                    places.append((end - max(0, at - n_ctx), number))
                pos = min(at, n_ctx) - 1
                asked.append((len(rows) - 1, pos, tokens[at], number))
        longest = max(map(len, rows))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        row, pos, target, number = torch.tensor(asked).unbind(1)
        end, of_row = torch.tensor(places).unbind(1)
        return cls(
            tokens=padded, end=end, of_row=of_row, row=row, pos=pos, target=target,
            example=number, fits=np.array(fits),
        )  # fmt: skip

    @property
    def first(self) -> Int[Tensor, " example"]:
        """Which of the asked characters is the first of each example's answer."""
        return torch.searchsorted(self.example.contiguous(), torch.arange(len(self.fits)))

    @property
    def lengths(self) -> Int[Tensor, " row"]:
        """Tokens of each row up to the last that is asked; what is behind is padding."""
        nothing = torch.zeros_like(self.end)
        return nothing.scatter_reduce(0, self.row, self.pos + 1, "amax")

    def beginnings(self) -> "Questions":
        """The first characters of the answers alone, asked of the prompts alone."""
        rows = self.row[self.first]
        return dataclasses.replace(
            self, tokens=self.tokens[rows, : int(self.end.max()) + 1], end=self.end[rows],
            of_row=self.of_row[rows], row=torch.arange(len(rows)), pos=self.end[rows],
            target=self.target[self.first], example=self.example[self.first],
        )  # fmt: skip

    def margins(
        self, logits: Float[Tensor, "seed character d_vocab"]
    ) -> Float[Tensor, "seed example"]:
        """The smallest, over an answer's characters, of the right logit minus the best wrong one.

        Args:
            logits: where a character is asked.
        """
        target = self.target.to(logits.device).expand(len(logits), -1)[..., None]
        right = logits.gather(-1, target).squeeze(-1)
        wrong = logits.scatter(-1, target, -torch.inf).amax(-1)
        margins = torch.full((len(logits), len(self.fits)), torch.inf, device=logits.device)
        example = self.example.to(logits.device).expand(len(logits), -1)
        return margins.to(right.dtype).scatter_reduce(1, example, right - wrong, "amin")


def answer_margins(
    stacked: Mapping[str, Tensor], shape: Shape, questions: Questions
) -> Float[Tensor, "seed example"]:
    """How clearly each model answers each question, in nats of logit; positive is right.

    The smallest, over the answer's characters with the right ones fed in, of the right logit minus
    the best wrong one. The greedy completion is the answer, terminator included, exactly if this is
    positive: as long as every character so far is right, greedy decoding reads what is fed in here.
    """
    device = stacked["embed.W_E"].device
    seeds = len(stacked["embed.W_E"])
    tokens = questions.tokens.to(device).expand(seeds, -1, -1)
    logits = torch.cat(list(_in_parts(stacked, tokens, shape)), dim=1)
    return questions.margins(logits[:, questions.row, questions.pos]).cpu()


def _in_parts(stacked: Mapping[str, Tensor], tokens: Tensor, shape: Shape) -> Iterator[Tensor]:
    rows = max(1, TOKENS_AT_ONCE // tokens.shape[-1] // tokens.shape[0])
    with torch.no_grad():
        for part in tokens.split(rows, dim=1):
            yield forward(stacked, part, shape)


def reference_loss(
    stacked: Mapping[str, Tensor], shape: Shape, streams: Sequence[Stream]
) -> list[float]:
    """Each model's loss on all its windows, in nats per predicted character, as its floors are."""
    device = stacked["embed.W_E"].device
    windows = stack([stream.reference() for stream in streams])
    tokens, targets = (torch.from_numpy(x).to(device) for x in (windows.tokens, windows.targets))
    total = torch.zeros(len(streams), dtype=torch.float64)
    start = 0
    for logits in _in_parts(stacked, tokens, shape):
        part = targets[:, start : start + logits.shape[1]]
        start += logits.shape[1]
        nats = F.cross_entropy(
            logits.flatten(0, 2), part.flatten(), ignore_index=NOTHING, reduction="none"
        )
        total += nats.view(len(streams), -1).cpu().double().sum(1)
    return (total / (targets != NOTHING).flatten(1).sum(1).cpu()).tolist()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Every model's margin on every example of its task.

    Attributes:
        tasks: one a model; they share their examples and may differ in which are held out.
        seeds: the models' seeds.
    """

    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]
    margins: Float[np.ndarray, "seed example"]
    fits: Bool[np.ndarray, " example"]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row an example and seed: prompt, answer, group, held_out, margin, right, fits."""
        parts = []
        for seed, task, margins in zip(self.seeds, self.tasks, self.margins, strict=True):
            prompts = task.prompts()[["prompt", "answer", "group", "held_out"]]
            parts.append(prompts.assign(seed=seed, margin=margins, fits=self.fits))
        table = pd.concat(parts, ignore_index=True)
        return table.assign(right=table["margin"] > 0)

    def counts(self) -> list[dict[str, Rate]]:
        """Per model, right of all by group: `seen_` and the group's name, and `held_out`.

        Every model has every group that any of them has examples of.
        """
        groups = [self._groups(task) for task in self.tasks]
        names = [name for name in groups[0] if any(mine[name].any() for mine in groups)]
        return [
            {
                name: Rate(hits=int((margins[mine[name]] > 0).sum()), total=int(mine[name].sum()))
                for name in names
            }
            for mine, margins in zip(groups, self.margins, strict=True)
        ]

    def smallest_margins(self) -> list[dict[str, float]]:
        """Per model, the smallest margin over the seen examples and over the held-out ones."""
        found = []
        for task, margins in zip(self.tasks, self.margins, strict=True):
            held_out = np.array([example.held_out for example in task.examples])
            sides = {"seen": ~held_out, "held_out": held_out}
            found.append({k: float(margins[v].min()) for k, v in sides.items() if v.any()})
        return found

    @staticmethod
    def _groups(task: Task) -> dict[str, Bool[np.ndarray, " example"]]:
        group = np.array([example.group for example in task.examples])
        held_out = np.array([example.held_out for example in task.examples])
        groups = {f"seen_{name}": (group == name) & ~held_out for name in task.groups}
        return groups | {"held_out": held_out}


def evaluate_models(
    stacked: Mapping[str, Tensor], shape: Shape, tasks: Sequence[Task], seeds: Sequence[int]
) -> Evaluation:
    """Greedy, exact match up to the terminator, in the parameters' own precision.

    Args:
        stacked: parameters with a leading seed axis.
        tasks: one a model.
    """
    first = tasks[0]
    questions = Questions.of(first.examples, first.vocabulary, shape.n_ctx)
    margins = answer_margins(stacked, shape, questions).numpy()
    return Evaluation(tasks=tuple(tasks), seeds=tuple(seeds), margins=margins, fits=questions.fits)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What one model says after a prompt, and how sure it is of each character."""

    text: str
    probabilities: tuple[float, ...]
    ended: bool  # whether it came to a terminator


def complete(
    stacked: Mapping[str, Tensor],
    shape: Shape,
    prompt: str,
    vocabulary: Vocabulary,
    terminators: frozenset[str],
    *,
    limit: int = 32,
) -> list[Completion]:
    """Each model's greedy completion, up to and including its first terminator.

    Args:
        prompt: in the corpus's own words; beyond the context its left end is lost.
        limit: characters after which a completion that has not ended is cut.
    Raises:
        TbttError: if the prompt is empty or has characters that are no tokens.
    """
    if not prompt:
        raise TbttError("the prompt is empty: give one, such as 3+4=")
    seeds = len(stacked["embed.W_E"])
    start = torch.tensor(vocabulary.encode(prompt), device=stacked["embed.W_E"].device)
    tokens = start.expand(seeds, 1, -1)
    texts = [""] * seeds
    chosen: list[Tensor] = []
    certainty: list[Tensor] = []
    for _ in range(limit):
        with torch.no_grad():
            logits = forward(stacked, tokens[..., -shape.n_ctx :], shape)[:, 0, -1]
        probability, token = logits.softmax(-1).max(-1)
        chosen.append(token)
        certainty.append(probability)
        tokens = torch.cat([tokens, token[:, None, None]], -1)
        texts = [vocabulary.decode(row) for row in torch.stack(chosen, 1).tolist()]
        if all(terminators & set(text) for text in texts):
            break
    completions = []
    for text, probabilities in zip(texts, torch.stack(certainty, 1).tolist(), strict=True):
        end = next((i + 1 for i, c in enumerate(text) if c in terminators), None)
        completions.append(
            Completion(
                text=text[:end], probabilities=tuple(probabilities[:end]), ended=end is not None
            )
        )
    return completions

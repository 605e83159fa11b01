"""Exact match and margins by group, losses, and greedy completions, of many models at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.kernel import Kernel, KernelError, flatten
from tbtt_interp.metrics import Row
from tbtt_interp.model import Parameters, Shape, forward
from tbtt_interp.prompts import PromptBatch
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Stream, Task, Vocabulary
from tbtt_interp.tasks.windows import NOTHING, stack

TOKENS_AT_ONCE = 32_768  # of all models, in a forward pass without gradients


def answer_margins(
    stacked: Parameters, shape: Shape, batch: PromptBatch, kernel: Kernel | None = None
) -> Float[Tensor, "seed example"]:
    """How clearly each model answers each prompt, in nats of logit; positive is right.

    The margin is the right logit minus the best wrong one, at its smallest over the answer's
    characters, with the right ones fed in. Greedy decoding gives exactly this answer, terminator
    included, if the margin is positive: while every character is right, it reads what is fed here.
    """
    weights = stacked["embed.W_E"]
    tokens = batch.tokens.to(weights.device).expand(len(weights), -1, -1)
    if kernel is None:
        logits = torch.cat(list(_forward_in_parts(stacked, tokens, shape)), dim=1)
    else:
        logits = torch.from_numpy(kernel.logits(flatten(stacked, shape), tokens.numpy()))
    return batch.margins(logits[:, batch.answer_row, batch.answer_pos]).cpu()


def _forward_in_parts(stacked: Parameters, tokens: Tensor, shape: Shape) -> Iterator[Tensor]:
    rows = max(1, TOKENS_AT_ONCE // tokens.shape[-1] // tokens.shape[0])
    with torch.no_grad():
        for part in tokens.split(rows, dim=1):
            yield forward(stacked, part, shape)


def reference_loss(
    stacked: Parameters, shape: Shape, streams: Sequence[Stream], kernel: Kernel | None = None
) -> list[float]:
    """Each model's loss on all its windows, in nats per predicted character, as its floors are."""
    windows = stack([stream.reference() for stream in streams])
    if kernel is not None:
        rows = np.concatenate([windows.tokens[..., :1], windows.targets], -1)
        return kernel.losses(flatten(stacked, shape), rows, windows.weights()).tolist()
    device = stacked["embed.W_E"].device
    tokens, targets = (torch.from_numpy(x).to(device) for x in (windows.tokens, windows.targets))
    total = torch.zeros(len(streams), dtype=torch.float64)
    start = 0
    for logits in _forward_in_parts(stacked, tokens, shape):
        part = targets[:, start : start + logits.shape[1]].flatten()
        start += logits.shape[1]
        nats = F.cross_entropy(logits.flatten(0, 2), part, ignore_index=NOTHING, reduction="none")
        total += nats.view(len(streams), -1).cpu().double().sum(1)
    return (total / (targets != NOTHING).flatten(1).sum(1).cpu()).tolist()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The margin of every model on every example of its task."""

    tasks: tuple[Task, ...]  # they share their examples and may differ in which are held out
    seeds: tuple[int, ...]
    margins: Float[np.ndarray, "seed example"]
    fits: Bool[np.ndarray, " example"]  # whether each example fits the context

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per seed and example: prompt, answer, group, held_out, margin, right, fits."""
        parts = []
        for seed, task, margins in zip(self.seeds, self.tasks, self.margins, strict=True):
            prompts = task.prompts()[["prompt", "answer", "group", "held_out"]]
            parts.append(prompts.assign(seed=seed, margin=margins, fits=self.fits))
        table = pd.concat(parts, ignore_index=True)
        return table.assign(right=table["margin"] > 0)

    @cached_property
    def held_out(self) -> Bool[np.ndarray, "seed example"]:
        """Which examples each model was not trained on."""
        return np.array([[example.held_out for example in task.examples] for task in self.tasks])

    @cached_property
    def groups(self) -> dict[str, Bool[np.ndarray, "seed example"]]:
        """Which examples each model is counted on: `seen_` and a group's name, and `held_out`.

        Every model has every group that any of them has examples of.
        """
        group = np.array([example.group for example in self.tasks[0].examples])
        masks = {f"seen_{name}": (group == name) & ~self.held_out for name in self.tasks[0].groups}
        masks["held_out"] = self.held_out
        return {name: mask for name, mask in masks.items() if mask.any()}

    @cached_property
    def diverged(self) -> Bool[np.ndarray, " seed"]:
        """Which models have a margin that is no finite number."""
        return np.array(~np.isfinite(self.margins[:, self.fits]).all(1))

    def counts(self) -> list[dict[str, tuple[int, int]]]:
        """Per model, how many examples of each group are right, and of how many; see `groups`.

        A diverged model has no answers, neither right nor wrong: its counts are 0 of 0.
        """
        return [
            {name: (0, 0) if self.diverged[k]
             else (int((row[mask[k]] > 0).sum()), int(mask[k].sum()))
             for name, mask in self.groups.items()}
            for k, row in enumerate(self.margins)
        ]  # fmt: skip

    def rows(self) -> list[Row]:
        """Each model's seed, counts and smallest margins, as written to metrics.jsonl."""
        splits = {"seen": ~self.held_out, "held_out": self.held_out}
        return [
            {"seed": seed}
            | {name: list(right_of) for name, right_of in counts.items()}
            | {f"margin_{name}": float(self.margins[k][mask[k]].min())
               for name, mask in splits.items() if mask[k].any() and not self.diverged[k]}
            for k, (seed, counts) in enumerate(zip(self.seeds, self.counts(), strict=True))
        ]  # fmt: skip


def evaluate_models(
    stacked: Parameters, shape: Shape, tasks: Sequence[Task], seeds: Sequence[int],
    kernel: Kernel | None = None,
) -> Evaluation:  # fmt: skip
    """The greedy, exact match up to the terminator, in the parameters' own precision."""
    margins, fits = [], np.array([])
    answers = [tuple(example.answer for example in task.examples) for task in tasks]
    for own in dict.fromkeys(answers):  # one set, unless answers are permuted per model
        chosen = [model for model, of in enumerate(answers) if of == own]
        task = tasks[chosen[0]]
        batch = PromptBatch.of(task.examples, task.vocabulary, shape.n_ctx)
        some = {name: value[chosen] for name, value in stacked.items()}
        margins += zip(chosen, answer_margins(some, shape, batch, kernel).numpy(), strict=True)
        fits = batch.fits
    rows = np.stack([row for _, row in sorted(margins, key=itemgetter(0))])
    return Evaluation(tasks=tuple(tasks), seeds=tuple(seeds), margins=rows, fits=fits)


def evaluate_run(run: Run, step: int | None = None) -> Evaluation:
    """The evaluation of a run's models, at a kept checkpoint; None is the last.

    Diverged models are left out.

    Raises:
        TbttError: if all have diverged.
    """
    seeds, kernel = run.sound_seeds(step), run_kernel(run)
    chosen = [run.seed_index(seed) for seed in seeds]
    stacked = {name: value[chosen] for name, value in run.parameters(step).items()}
    return evaluate_models(stacked, run.shape, [run.tasks[k] for k in chosen], seeds, kernel)


def run_kernel(run: Run) -> Kernel | None:
    """The kernel that trained a run; with it, margins have the same bits as in training.

    None if torch trained the run or no kernel can be compiled; torch then computes margins.
    """
    if not run.config.environment.get("compiled"):
        return None
    try:
        return Kernel(run.shape)
    except KernelError:
        return None


class Completion(NamedTuple):
    """A model's continuation of a prompt, and the probability of each of its characters."""

    text: str
    probabilities: tuple[float, ...]
    ended: bool  # whether it came to a terminator


def complete(
    stacked: Parameters, shape: Shape, prompt: str, vocabulary: Vocabulary,
    terminators: frozenset[str], *, limit: int = 32,
) -> list[Completion]:  # fmt: skip
    """Each model's greedy completion, up to and including its first terminator.

    A prompt longer than the context is cut on the left. A completion ends after `limit`
    characters.
    """
    if not prompt:
        raise TbttError("the prompt is empty: give one, such as 3+4=")
    weights = stacked["embed.W_E"]
    start = torch.tensor(vocabulary.encode(prompt), device=weights.device)
    tokens = start.expand(len(weights), 1, -1)
    texts, probabilities = [""] * len(weights), []
    while len(probabilities) < limit and not all(terminators & set(text) for text in texts):
        with torch.no_grad():
            logits = forward(stacked, tokens[..., -shape.n_ctx :], shape)[:, 0, -1]
        probability, token = logits.softmax(-1).max(-1)
        probabilities.append(probability)
        tokens = torch.cat([tokens, token[:, None, None]], -1)
        texts = [vocabulary.decode(row) for row in tokens[:, 0, len(start) :].tolist()]
    completions = []
    for text, row in zip(texts, torch.stack(probabilities, 1).tolist(), strict=True):
        end = next((k + 1 for k, c in enumerate(text) if c in terminators), None)
        completions.append(Completion(text[:end], tuple(row[:end]), end is not None))
    return completions

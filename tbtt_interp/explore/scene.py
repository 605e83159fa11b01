"""What one pane's model says to the prompt, as it is and with its edges cut."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tbtt_interp.errors import TbttError
from tbtt_interp.explore.asking import (
    HooksAt,
    Said,
    changed,
    cutting,
    margin_of,
    say,
    shown_tokens,
)
from tbtt_interp.explore.catalogue import Catalogue, Opened, Which
from tbtt_interp.explore.state import Edge, Pane
from tbtt_interp.interventions import answer_logits
from tbtt_interp.prompts import PromptBatch
from tbtt_interp.runs import Run
from tbtt_interp.stats import Rate
from tbtt_interp.tasks import Example, Task


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A model, a prompt, and the answer.

    Attributes:
        task: of this very model: what it was trained on, and what was held out from it.
        known: the example that the prompt is of; None for a prompt of the person's own.
        said, before: the answer with the edges cut, and without.
        margin, margin_before: of the right answer where it is known, else of what was said, in
            nats of logit; the right one is said exactly if it is positive.
    """

    which: Which
    opened: Opened
    run: Run
    task: Task
    text: str
    cuts: tuple[Edge, ...]
    known: Example | None
    said: Said
    before: Said
    margin: float
    margin_before: float

    @property
    def names(self) -> list[str]:
        """Every token of the text, prompt and answer, as it is shown."""
        return shown_tokens(self.task.vocabulary, self.said.tokens)

    @property
    def window(self) -> tuple[tuple[int, ...], int]:
        """The tokens that are shown as read, and where they start in the text; see `Said`."""
        return self.said.window(self.run.shape.n_ctx)

    @property
    def read_names(self) -> list[str]:
        """The window's tokens, as they are shown."""
        tokens, start = self.window
        return self.names[start : start + len(tokens)]

    @property
    def later(self) -> str:
        """The end of the answer that is said from windows that have slid on; mostly nothing."""
        tokens, start = self.window
        return "".join(self.names[start + len(tokens) + 1 :])

    @property
    def lost(self) -> int:
        """How many of the prompt's characters fall off its left end before an answer begins."""
        return max(0, self.said.asked - self.run.shape.n_ctx)

    def answer(self, said: Said) -> str:
        """What was said, as text."""
        return self.task.vocabulary.decode(said.answer)


def scene_of(catalogue: Catalogue, pane: Pane, prompt: str) -> Scene:
    """What a pane shows of a prompt.

    Raises:
        TbttError: if the model is gone, or the prompt is empty or has characters that are no
            tokens.
    """
    which = catalogue.which(pane.run, pane.seed, pane.step)
    run = catalogue.run(which.run)
    return _scene(which, catalogue.open(which), run, prompt, pane.cuts)


@lru_cache(maxsize=256)
def _scene(which: Which, opened: Opened, run: Run, prompt: str, cuts: tuple[Edge, ...]) -> Scene:
    task = run.tasks[run.seed_index(which.seed)]
    text = task.complete_prompt(prompt)
    if not text:
        raise TbttError("the prompt is empty: type one, such as " + task.examples[0].prompt)
    tokens = task.vocabulary.encode(text)
    known = next((e for e in task.examples if e.prompt == text), None)
    ends = frozenset(task.vocabulary.encode("".join(sorted(task.terminators))))
    answers: list[tuple[Said, float]] = []
    for hooks_at in (_cut(cuts), _cut(()))[: 2 if cuts else 1]:
        with changed(opened, ()) as model:
            said = say(model, tokens, ends, hooks_at)
            margin = said.margin
            if known is not None:
                right = task.vocabulary.encode(known.answer)
                margin = margin_of(model, tokens, right, hooks_at)
        answers.append((said, margin))
    (said, margin), (before, margin_before) = answers[0], answers[-1]
    return Scene(
        which=which, opened=opened, run=run, task=task, text=text, cuts=cuts, known=known,
        said=said, before=before, margin=margin, margin_before=margin_before,
    )  # fmt: skip


def _cut(edges: tuple[Edge, ...]) -> HooksAt:
    return lambda start, end: cutting(edges, start)


@lru_cache(maxsize=64)
def batch_of(run: Run) -> PromptBatch:
    """Every example of a run's task as a question; they are the same whatever is held out."""
    task = run.tasks[0]
    return PromptBatch.of(task.examples, task.vocabulary, run.shape.n_ctx)


@lru_cache(maxsize=512)
def count_right(opened: Opened, run: Run, place: int, cuts: tuple[Edge, ...]) -> Mapping[str, Rate]:
    """Of all examples how many this model answers, seen and held out, with its edges cut.

    Raises:
        TbttError: if edges are cut and not all examples fit the window: they slide in it then.
    """
    batch = batch_of(run)
    if cuts and not batch.fits.all():
        raise TbttError(
            "some prompts are longer than the window with their answers, so that edges do not "
            "stand at one place in all of them"
        )
    with changed(opened, cuts) as model:
        margins = batch.margins(answer_logits(model, batch)[None])[0].numpy()
    held_out = np.array([example.held_out for example in run.tasks[place].examples])
    sides = {"seen": ~held_out, "held out": held_out}
    return {
        side: Rate(hits=int((margins[mask] > 0).sum()), total=int(mask.sum()))
        for side, mask in sides.items()
        if mask.any()
    }

"""Progress on standard error: a bar on a terminal, a few lines elsewhere, as in a notebook."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tbtt_interp.errors import printable
from tbtt_interp.metrics import Row
from tbtt_interp.train.stacks import TrainingCallback

LINES = 10  # per training, without a terminal


class ProgressBar(TrainingCallback):
    """The progress of a training: steps, loss, seen and held-out accuracy, time left.

    Pass it to `train_models` as its callback. Without a terminal it prints about ten lines.

    Attributes:
        bar: the rich progress bar; as a context it is taken away when training is interrupted.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)  # no terminal in a notebook
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=20),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TextColumn("{task.fields[figures]}"), TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.job = self.bar.add_task("training", total=None, figures="", visible=False)
        self.steps, self.printed = 0, -1

    def on_message(self, message: str) -> None:
        """Prints a message above the bar."""
        text = printable(message, keep="\n")
        if self.console.is_terminal:
            self.console.print(text, soft_wrap=True, markup=False)
        else:
            print(text, file=sys.stderr)

    def on_start(self, step: int, steps: int) -> None:
        """Shows the bar."""
        self.steps = steps
        self.bar.reset(self.job, total=steps, completed=step, visible=True)
        self.bar.start()  # nothing without a terminal
        if step:
            self.on_message(f"Resuming at step {step:,}.")

    def on_step(self, step: int) -> None:
        """Moves the bar."""
        self.bar.update(self.job, completed=step)
        if step == self.steps:
            self.bar.stop()

    def on_evaluation(self, line: Row) -> None:
        """Updates the figures beside the bar; prints a tenth of them without a terminal."""
        self.bar.update(self.job, figures=describe(line))
        tenth = line["step"] * LINES // self.steps
        if not self.console.is_terminal and tenth > self.printed:
            self.printed = tenth
            self.on_message(f"step {line['step']:,}/{self.steps:,}  {describe(line)}")


def describe(line: Row) -> str:
    """The mean loss and the accuracy of all models at one evaluation, in a few words.

    >>> describe({"step": 10, "seeds": [{"loss": 0.7, "seen_facts": [9, 10], "held_out": [1, 4]}]})
    'loss 0.700 · seen 90 % · held-out 1/4'
    """
    rows = line["seeds"]
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    words = [f"loss {sum(losses) / len(losses):.3f}" if losses else "every model diverged"]
    if 0 < len(losses) < len(rows):
        words.append(f"{len(rows) - len(losses)} of {len(rows)} models diverged")
    seen = [v for row in rows for k, v in row.items() if k.startswith("seen_")]
    held_out = [row["held_out"] for row in rows if "held_out" in row]
    if total := sum(total for _, total in seen):
        words.append(f"seen {100 * sum(hits for hits, _ in seen) / total:.0f} %")
    if held_out and losses:
        words.append(f"held-out {sum(h for h, _ in held_out)}/{sum(t for _, t in held_out)}")
    return " · ".join(words)

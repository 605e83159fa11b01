"""A training's progress on standard error: a bar on a terminal, lines where there is none."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tbtt_interp.runs import Row
from tbtt_interp.train.training import Watcher

LINES = 10  # in all, where there is no terminal to draw a bar on


class ProgressBar(Watcher):
    """Watches a training: step, loss, seen and held-out accuracy, time left."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TextColumn("{task.fields[found]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.job = self.bar.add_task("training", total=None, found="", visible=False)
        self.steps = 0
        self.printed = -1

    def __enter__(self) -> "ProgressBar":
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def said(self, message: str) -> None:
        """Something to know, once."""
        self.console.print(message, soft_wrap=True, markup=False)

    def started(self, step: int, steps: int) -> None:
        """Training begins, or goes on."""
        self.steps = steps
        self.bar.reset(self.job, total=steps, completed=step, visible=True)
        if step:
            self.said(f"Going on from step {step:,}.")

    def stepped(self, step: int) -> None:
        """A step is done."""
        self.bar.update(self.job, completed=step)

    def evaluated(self, line: Row) -> None:
        """There are new figures."""
        found = describe(line)
        self.bar.update(self.job, found=found)
        tenth = line["step"] * LINES // self.steps
        if not self.console.is_terminal and tenth > self.printed:
            self.printed = tenth
            self.said(f"step {line['step']:,}/{self.steps:,}  {found}")


def describe(line: Row) -> str:
    """An evaluation of all models in a few words.

    >>> describe({"step": 10, "seeds": [{"loss": 0.7, "seen_facts": [9, 10], "held_out": [1, 4]}]})
    'loss 0.700 · seen 90 % · held-out 1/4'
    """
    rows = line["seeds"]
    words = [f"loss {sum(row['loss'] for row in rows) / len(rows):.3f}"]
    seen = [v for row in rows for k, v in row.items() if k.startswith("seen_")]
    held_out = [row["held_out"] for row in rows if "held_out" in row]
    if seen:
        share = sum(hits for hits, _ in seen) / sum(total for _, total in seen)
        words.append(f"seen {100 * share:.0f} %")
    if held_out:
        words.append(f"held-out {sum(h for h, _ in held_out)}/{sum(t for _, t in held_out)}")
    return " · ".join(words)

"""Texts that show a line, or the one before it, to several lengths: what order memory can be asked.

A window of the framings `file` and `shuffled` begins anywhere in a line, so their models have met
such texts; those of framing `line` have not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np
from jaxtyping import Int

from tbtt_interp.errors import TbttError
from tbtt_interp.probes.features import Feature, Labels, number_classes
from tbtt_interp.probes.linear import Split, grouped_folds
from tbtt_interp.tasks import Example, Task

LENGTHS = 4  # to which the line before is shown


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Texts, of which line each is, and to what length it is shown."""

    texts: tuple[str, ...]
    examples: tuple[Example, ...]
    length: Int[np.ndarray, " text"]

    @property
    def line(self) -> Int[np.ndarray, " text"]:
        """A number for each line."""
        return np.unique([e.line for e in self.examples], return_inverse=True)[1]

    def folds(self) -> Split:
        """Each length is asked by those who have learned from the others."""
        lengths = len(np.unique(self.length))
        return grouped_folds(self.length, folds=min(lengths, 5))


def opening(lines: Sequence[str]) -> str:
    """What all lines begin with.

    >>> opening(["<1+2=3>", "<1-2=-1>"]), opening(["<1+2=3>", "Capital of"])
    ('<1', '')
    """
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*lines, strict=False))
    return "".join(column[0] for column in columns)


def shortened_prompts(task: Task, window: int) -> Contexts:
    """Each prompt with what all lines open with lost from the left, a character at a time.

    >>> from tbtt_interp.tasks import load_task
    >>> shortened_prompts(load_task("facts"), window=24).texts[:3]
    ('France is ', ' France is ', 'f France is ')
    """
    asked = [example for example in task.examples if "country" in example.labels]
    begun = opening([example.line for example in asked])
    rests = [example.prompt.removeprefix(begun) for example in asked]
    most = min(len(begun), window - max(map(len, rests), default=window))
    shown = [(example, rest, n) for example, rest in zip(asked, rests, strict=True)
             for n in range(most + 1)]  # fmt: skip
    return Contexts(
        texts=tuple(begun[len(begun) - n :] + rest for _, rest, n in shown),
        examples=tuple(example for example, _, _ in shown),
        length=np.array([n for _, _, n in shown], dtype=int),
    )


def lines_before(task: Task, window: int) -> Contexts:
    """The end of each line, shown to several lengths, and what the next line opens with.

    With the order of the file in mind one knows from here how the next line goes on; without, no.

    >>> from tbtt_interp.tasks import load_task
    >>> lines_before(load_task("arithmetic"), window=9).texts[:4]
    ('=0> \\n<', '0=0> \\n<', '+0=0> \\n<', '0+0=0> \\n<')
    """
    begun = opening(task.lines)
    seen = [example for example in task.examples if not example.held_out]
    most = min(window - len(begun), *(len(example.line) for example in seen))
    lengths = range(max(1, most - LENGTHS + 1), most + 1)
    shown = [(example, n) for example in seen for n in lengths]
    return Contexts(
        texts=tuple(example.line[len(example.line) - n :] + begun for example, n in shown),
        examples=tuple(example for example, _ in shown),
        length=np.array([n for _, n in shown], dtype=int),
    )


def label_next(
    feature: Feature,
    before: Contexts,
    files: Sequence[Sequence[Example]],
    *,
    controls: int,
    seed: int = 0,
) -> Labels:
    """A feature of the line that comes next in each seed's file.

    A control task is the same in a file of another random order.

    Args:
        files: the lines as each seed's file has them.
    """
    follower = [{e.line: after for e, after in pairwise(file)} for file in files]
    said = [
        [feature.of(after[e.line]) if e.line in after else None for e in before.examples]
        for after in follower
    ]
    has = np.array([None not in column for column in zip(*said, strict=True)])
    if not has.any():
        raise TbttError(f"feature '{feature.name}' is of no line that comes next in every file")
    kept = [[x for x in row if x is not None] for row in
            [[x for x, there in zip(row, has, strict=True) if there] for row in said]]  # fmt: skip
    classes, real = number_classes(kept)
    lines = before.line[has]
    names, first, place = np.unique(lines, return_index=True, return_inverse=True)
    drawn = [
        real[0][first][np.random.default_rng((seed, draw)).permutation(len(names))][place]
        for draw in range(controls if len(classes) < len(names) else 0)
    ]
    return Labels(
        feature=feature,
        has=has,
        classes=classes,
        real=real,
        controls=np.array(drawn, dtype=int).reshape(len(drawn), len(lines)),
    )

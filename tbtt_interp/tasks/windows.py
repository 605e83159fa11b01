"""Training windows: lines cut from one file, cut from fresh orders, or one line at a time.

The framings separate what a model learns of the lines from what it learns of their order. A window
is `window` characters to read and, shifted by one, `window` characters to predict.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64

from tbtt_interp.bounds import CELLS, FRAMINGS
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.tasks.task import Task, Vocabulary

NOTHING = -100  # a target that is not counted, as in torch's cross-entropy
DRAWS, REFERENCE = 0, 1  # Philox key: purpose of the draws


class Windows(NamedTuple):
    """Distinct windows of a batch, and how often each was drawn.

    Computing a window's loss once and counting it twice gives the same mean as computing it twice;
    of 882 windows drawn from the file, some 190 are repetitions.
    """

    tokens: Int[np.ndarray, "*seed batch pos"]  # characters to read
    targets: Int[np.ndarray, "*seed batch pos"]  # to predict; NOTHING where there is none
    counts: Int[np.ndarray, "*seed batch"]

    def weights(self) -> Float[np.ndarray, "*seed batch"]:
        """The weight of each window's summed loss in the mean over all predicted characters."""
        characters = (self.targets != NOTHING).sum(-1)
        return self.counts / (self.counts * characters).sum(-1, keepdims=True)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The training data of one model: its windows at each step.

    Windows depend on the seed and the step alone, so a model that is resumed or trained in a stack
    gets the same windows. `file` cuts windows at uniformly random offsets of the ordered lines;
    `shuffled` cuts them from lines drawn afresh for each window; `line` gives whole lines, each
    with a context of its own. Between the last two: `aligned` windows are of fresh lines and begin
    with a line; `cut` ones are of one line and begin anywhere in it.
    """

    lines: tuple[str, ...]
    vocabulary: Vocabulary
    framing: str
    window: int
    batch: int | None  # windows per step; None is every line once (framing line only)
    seed: int

    def __post_init__(self) -> None:
        check_cells(self.lines, self.framing, self.window, self.batch)
        if self.framing == "file" and len(self.text) <= self.window:
            raise TbttError(
                f"a window of {self.window} characters does not fit a file of {len(self.text)}: "
                "give a smaller window or more lines"
            )

    @cached_property
    def text(self) -> Int[np.ndarray, " char"]:
        """The file's tokens."""
        return np.array(self.vocabulary.encode("".join(self.lines)))

    @cached_property
    def padded(self) -> Int[np.ndarray, "line char"]:
        """The tokens of each line, padded with NOTHING."""
        longest = max(self.window + 1, *map(len, self.lines))
        padded = np.full((len(self.lines), longest), NOTHING)
        for row, line in zip(padded, self.lines, strict=True):
            row[: len(line)] = self.vocabulary.encode(line)
        return padded

    @cached_property
    def _all(self) -> Int[np.ndarray, "row pos_and_next"]:
        """Every window once: at each offset of the file, or each line."""
        if self.framing == "file":
            offsets = np.arange(len(self.text) - self.window)
            return self.text[offsets[:, None] + np.arange(self.window + 1)]
        if self.framing == "aligned":
            return self._aligned()
        if self.framing == "cut":
            pieces = [line[k:] for line in self.lines for k in range(len(line) - 1)]
            return replace(self, framing="line", lines=tuple(pieces))._all
        return self.padded[:, : self.window + 1]

    def _aligned(self) -> Int[np.ndarray, "row pos_and_next"]:
        """A window from the beginning of each line on, with each next line."""
        shortest = min(map(len, self.lines))
        if self.window + 1 > 2 * shortest:
            raise TbttError(
                f"framing aligned has windows of up to two lines: give one of at most "
                f"{2 * shortest - 1} characters, got {self.window}"
            )
        counts = Counter((one + other)[: self.window + 1]
                         for one in self.lines for other in self.lines)  # fmt: skip
        alike = len(set(counts.values())) == 1
        texts = sorted(counts) if alike else sorted(counts.elements())
        return np.array([self.vocabulary.encode(text) for text in texts])

    @cached_property
    def windows(self) -> Int[np.ndarray, "row pos_and_next"]:
        """Every window once, sorted by tokens, so that shared prefixes are adjacent."""
        return self._all[np.lexsort(self._all.T[::-1])]

    def draw(self, step: int) -> Windows:
        """The windows of one step; the compiled kernel draws the same ones."""
        if self.batch is None:
            return _read_and_predict(self.windows)
        if self.framing == "shuffled":
            return self._fresh(step, self.batch, DRAWS)
        everything = len(self.windows)
        numbers = _below(self._random(step, DRAWS, self.batch), everything)
        drawn = np.bincount(numbers, minlength=everything)
        distinct = drawn.nonzero()[0]
        return _read_and_predict(self.windows[distinct])._replace(counts=drawn[distinct])

    def reference(self) -> Windows:
        """The windows of reported losses: each offset of the file, each line, or fresh draws."""
        if self.framing == "shuffled":
            return self._fresh(0, len(self.text), REFERENCE)
        return _read_and_predict(self._all)

    def _random(self, step: int, purpose: int, count: int) -> UInt64[np.ndarray, " draw"]:
        """Random 32-bit integers from a counter-based generator: no draw depends on another."""
        generator = np.random.Philox(key=[self.seed, purpose], counter=[0, step, 0, 0])
        return generator.random_raw(count) >> np.uint64(32)

    def _fresh(self, step: int, batch: int, purpose: int) -> Windows:
        """Windows of an endless file of lines drawn independently, at a uniformly random offset."""
        lengths = np.array([len(line) for line in self.lines])
        more = 1 + self.window // int(lengths.min())
        random = self._random(step, purpose, batch * (1 + more)).reshape(batch, 1 + more)
        # a random offset falls into a line in proportion to its length
        position = _below(random[:, 0], len(self.text))
        rows = _below(random, len(self.lines))
        ends = lengths.cumsum()
        rows[:, 0] = ends.searchsorted(position, side="right")
        offset = position - (ends - lengths)[rows[:, 0]]
        column = offset[:, None] + np.arange(self.window + 1)
        starts = lengths[rows].cumsum(1)
        which = (column[:, :, None] >= starts[:, None, :]).sum(-1)
        before = np.take_along_axis(np.pad(starts, ((0, 0), (1, 0))), which, 1)
        return _read_and_predict(self.padded[np.take_along_axis(rows, which, 1), column - before])


def _below(random: UInt64[np.ndarray, "*size"], limit: int) -> Int[np.ndarray, "*size"]:
    """Integers below a limit from random 32-bit integers, uniform up to limit / 2^32."""
    return (random * np.uint64(limit) >> np.uint64(32)).astype(int)


def _read_and_predict(windows: Int[np.ndarray, "batch pos_and_next"]) -> Windows:
    tokens, targets = windows[:, :-1], windows[:, 1:]
    once = np.ones(len(windows), dtype=int)
    return Windows(np.where(tokens == NOTHING, 0, tokens), targets, once)


def stack(windows: Sequence[Windows]) -> Windows:
    """Windows of several models along a leading seed axis; padded rows have count 0."""
    longest = max(len(one.tokens) for one in windows)
    size = (len(windows), longest, windows[0].tokens.shape[1])
    stacked = Windows(np.zeros(size, int), np.full(size, NOTHING), np.zeros(size[:2], int))
    for one, *rows in zip(windows, *stacked, strict=True):
        for array, row in zip(one, rows, strict=True):
            row[: len(array)] = array
    return stacked


def check_cells(lines: Sequence[str], framing: str, window: int, batch: int | None) -> None:
    """Raises a TbttError where the tables of a framing's windows would not fit into memory."""
    lengths = [len(line) for line in lines] or [1]
    characters, longest = sum(lengths), max(*lengths, window + 1)
    cells = {
        "file": characters * (window + 1), "line": len(lines) * longest,
        "shuffled": characters * (window + 1) * (2 + window // min(lengths)),
        "aligned": 8 * len(lines) ** 2 * (window + 1), "cut": characters * longest,
    }[framing]  # fmt: skip
    if (cells := max(cells, (batch or 0) * (window + 1))) > CELLS:
        raise TbttError(
            f"framing {framing} of {len(lines):,} lines with a window of {window:,} characters and "
            f"{batch or len(lines):,} windows a step needs tables of {cells:,} cells, of which at "
            f"most {CELLS:,} are allowed: give a smaller window, fewer lines or a smaller batch"
        )


def window_of(task: Task, framing: str, window: int | None = None) -> int:
    """The context of a model of this task and framing, unless a recipe gives another."""
    if framing not in FRAMINGS:
        raise unknown("framing", framing, FRAMINGS)
    longest = max(len(example.line) for example in task.examples)
    if framing == "line" and window is not None and window < longest:
        raise TbttError(
            f"window {window} is shorter than the longest line of task '{task.name}', {longest} "
            "characters, which framing line needs whole: leave the window out"
        )
    default = longest if framing == "line" else task.window
    return default if window is None else window

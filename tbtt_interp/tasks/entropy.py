"""Entropy floors: the lowest loss that knowledge of the lines, or of their order, allows.

Floors are exact and in nats per predicted character. A model whose loss is below the line-entropy
floor has memorized part of the line order, if only, on joint, that facts follow equations.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from operator import itemgetter

import numpy as np

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.tasks.windows import FRAMINGS, Stream


@dataclass(frozen=True, kw_only=True)
class Floors:
    """The lowest losses of three models, in nats per predicted character."""

    order: float  # the model knows the file's line order; on the windows of the file
    # the line-entropy floor: it knows every line and not their order; on the same windows (for
    # framings without a file's order, on their own windows)
    lines: float
    line: float  # it knows every line, and each window is one whole line


def entropy_floors(lines: Sequence[str], *, framing: str, window: int) -> Floors:
    """The three floors for lines in their file's order.

    Args:
        lines: the training lines, each ending in its only newline, in the order of the file.
        framing: the windows that the floor `lines` is computed on; for line, those of the file.

    >>> floors = entropy_floors(["ab\\n", "cd\\n"], framing="file", window=3)
    >>> round(floors.line, 3)  # the first character, which is given, decides the line
    0.0
    """
    if framing not in FRAMINGS:
        raise unknown("framing", framing, FRAMINGS)
    if not lines:
        raise TbttError("entropy floors need at least one line, got none")
    text = "".join(lines)
    window = min(window, len(text) - 1)
    windows = [text[i : i + window + 1] for i in range(len(text) - window)]
    source = IndependentLines(tuple(lines), window + 1)
    if framing == "shuffled":
        known = source.entropy(window)
    elif framing == "aligned":
        known = source.entropy_from_a_beginning(window)
    elif framing == "cut":
        known = prefix_entropy([x[k : k + window + 1] for x in lines for k in range(len(x) - 1)])
    else:
        known = source.cross_entropy(windows)
    return Floors(order=prefix_entropy(windows), lines=known, line=prefix_entropy(lines))


def prefix_entropy(strings: Sequence[str]) -> float:
    """Nats per character of equally likely strings, each read from its given first character on.

    >>> round(prefix_entropy(["aa", "ab"]), 3) == round(math.log(2), 3)
    True
    """
    beginnings = Counter(string[0] for string in strings)
    whole = Counter(strings)
    nats = sum(math.log(beginnings[string[0]] / whole[string]) for string in strings)
    return nats / sum(len(string) - 1 for string in strings)


class IndependentLines:
    """An endless file of lines drawn uniformly and independently, read from any offset."""

    def __init__(self, lines: tuple[str, ...], longest: int) -> None:
        self.lines = lines
        self.characters = sum(map(len, lines))
        ends = sorted(line[i : i + longest] for line in lines for i in range(len(line)))
        self.pieces = cache(partial(count_beginnings, ends))  # occurrences of a piece of a line
        self.beginnings = cache(partial(count_beginnings, sorted(lines)))
        self.expected = [0.0]

    def log_probability(self, string: str) -> float:
        """Log-probability of this string at a uniformly random offset, in nats."""
        # up to the first newline a piece of any line, then whole lines and the beginning of one
        first, *rest = re.findall(r"[^\n]*\n|[^\n]+", string)
        nats = math.log(self.pieces(first) / self.characters)
        return nats + sum(math.log(self.beginnings(s) / len(self.lines)) for s in rest)

    def cross_entropy(self, windows: Sequence[str]) -> float:
        """Nats per character on these windows; the first character of each is given."""
        nats = sum(self.log_probability(w[0]) - self.log_probability(w) for w in windows)
        return nats / sum(len(w) - 1 for w in windows)

    def entropy(self, window: int) -> float:
        """Nats per character on its own windows: the expectation of `cross_entropy`."""
        total = first = 0.0
        for line in self.lines:
            for i in range(len(line)):
                piece = line[i : i + window + 1]
                total -= math.log(self.pieces(piece) / self.characters)
                if piece[-1] == "\n":
                    total += self._from_a_beginning(window + 1 - len(piece))
                first -= math.log(self.pieces(piece[0]) / self.characters)
        return (total - first) / self.characters / window

    def entropy_from_a_beginning(self, window: int) -> float:
        """Nats per character of windows that begin with a line; the first character is given."""
        return (self._from_a_beginning(window + 1) - self._from_a_beginning(1)) / window

    def _from_a_beginning(self, length: int) -> float:
        """Expected nats of that many characters from the beginning of a line on."""
        for n in range(len(self.expected), length + 1):  # not recursive: lines may be short
            self.expected.append(sum(
                self.expected[max(0, n - len(line))]
                - math.log(self.beginnings(line[:n]) / len(self.lines))
                for line in self.lines
            ) / len(self.lines))  # fmt: skip
        return self.expected[length]


def count_beginnings(texts: Sequence[str], beginning: str) -> int:
    """How many of some sorted texts start with a beginning.

    >>> count_beginnings(["ab", "abc", "b"], "ab")
    2
    """
    cut = itemgetter(slice(len(beginning)))
    return bisect_right(texts, beginning, key=cut) - bisect_left(texts, beginning, key=cut)


def stream_floors(stream: Stream) -> Floors:
    """The floors of a model's own data, on the windows that its loss is reported on."""
    floors = entropy_floors(stream.lines, framing=stream.framing, window=stream.window)
    if stream.framing != "shuffled":  # whose loss is on a sample of fresh windows
        return floors
    tokens, targets, _ = stream.reference()
    rows = np.concatenate([tokens, targets[:, -1:]], 1).tolist()
    source = IndependentLines(stream.lines, stream.window + 1)
    windows = [stream.vocabulary.decode(row) for row in rows]
    return replace(floors, lines=source.cross_entropy(windows))

"""The lowest loss that knowledge of the lines, and of their order, allows: exact, from the corpus.

A model whose loss is below the floor of "knows every line" has memorized something of which line
follows which, if only, on joint, that equations follow equations and facts follow facts. All floors
are in nats per predicted character.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.tasks.windows import FRAMINGS, Stream


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Entropy floors, in nats per predicted character, lowest knowledge last.

    Attributes:
        order: knows the file's order, on the windows of the file.
        lines: knows every line and not their order, on the same windows (for `shuffled`, on windows
            of lines drawn afresh).
        line: knows every line and is given one at a time, its context reset at each.
    """

    order: float
    lines: float
    line: float


def entropy_floors(lines: Sequence[str], *, framing: str, window: int) -> Floors:
    """The three floors for lines in their file's order.

    `order` counts prefixes over the windows of the file, at every offset. `lines` scores the same
    windows by the exact predictive that knows every line, draws lines independently and
    marginalises the unknown offset. `line` counts prefixes over whole lines.

    Args:
        lines: the training lines, each ending in its only newline, in the order of the file.
        framing: file, shuffled or line; it decides which windows `lines` speaks of.
        window: characters a window. For framing line the file's windows are as wide as the file
            allows, up to that many.

    >>> floors = entropy_floors(["ab\\n", "cd\\n"], framing="file", window=3)
    >>> round(floors.line, 3)  # nothing to tell once the first character is read
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
    known = source.entropy(window) if framing == "shuffled" else source.cross_entropy(windows)
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
    """An endless file whose every line is drawn uniformly and independently, read from anywhere.

    Args:
        longest: characters of the longest string that it will be asked for.
    """

    def __init__(self, lines: tuple[str, ...], longest: int) -> None:
        self.lines = lines
        self.characters = sum(map(len, lines))
        self.pieces = Counter(
            line[i:j]
            for line in lines
            for i in range(len(line))
            for j in range(i + 1, min(len(line), i + longest) + 1)
        )
        self.beginnings = Counter(line[:j] for line in lines for j in range(1, len(line) + 1))
        self.expected = {0: 0.0}

    def log_probability(self, string: str) -> float:
        """Of reading this string at a uniformly random place, in nats.

        Up to the first newline the string is a piece of one line, at any of its places in any line;
        from there on it is whole lines and the beginning of one.
        """
        first, *rest = re.findall(r"[^\n]*\n|[^\n]+", string)
        nats = math.log(self.pieces[first] / self.characters)
        return nats + sum(math.log(self.beginnings[s] / len(self.lines)) for s in rest)

    def cross_entropy(self, windows: Sequence[str]) -> float:
        """Nats per character on these windows, each read from its given first character on."""
        nats = sum(self.log_probability(w[0]) - self.log_probability(w) for w in windows)
        return nats / sum(len(w) - 1 for w in windows)

    def entropy(self, window: int) -> float:
        """Nats per character on its own windows: the expectation of the cross-entropy."""
        total = first = 0.0
        for line in self.lines:
            for i in range(len(line)):
                piece = line[i : i + window + 1]
                total -= math.log(self.pieces[piece] / self.characters)
                if piece[-1] == "\n":
                    total += self._from_a_beginning(window + 1 - len(piece))
                first -= math.log(self.pieces[piece[0]] / self.characters)
        return (total - first) / self.characters / window

    def _from_a_beginning(self, length: int) -> float:
        """Expected nats of that many characters from the beginning of a line on."""
        if length not in self.expected:
            self.expected[length] = sum(
                self._from_a_beginning(max(0, length - len(line)))
                - math.log(self.beginnings[line[:length]] / len(self.lines))
                for line in self.lines
            ) / len(self.lines)
        return self.expected[length]


def stream_floors(stream: Stream) -> Floors:
    """The floors of a model's own data, on the windows that its loss is reported on.

    Fresh windows cannot be listed, so the loss of framing shuffled is that on a sample of them; the
    floor of the lines is then on that same sample, whose luck it shares.
    """
    floors = entropy_floors(stream.lines, framing=stream.framing, window=stream.window)
    if stream.framing != "shuffled":
        return floors
    tokens, targets, _ = stream.reference()
    windows = [
        stream.vocabulary.decode([*read, predicted[-1]])
        for read, predicted in zip(tokens.tolist(), targets.tolist(), strict=True)
    ]
    source = IndependentLines(stream.lines, stream.window + 1)
    return replace(floors, lines=source.cross_entropy(windows))

"""Entropy floors, against published figures and against brute force on small corpora."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tbtt_interp.errors import TbttError
from tbtt_interp.tasks import Stream, entropy_floors, load_task
from tbtt_interp.tasks.entropy import stream_floors
from tbtt_interp.tasks.windows import NOTHING

LINES = st.lists(st.text("ab", min_size=1, max_size=3), min_size=2, max_size=4, unique=True).map(
    lambda words: tuple(f"{word}\n" for word in words)
)


def test_floors_of_arithmetic_to_three_decimals() -> None:
    floors = entropy_floors(load_task("arithmetic").file(0), framing="file", window=9)
    assert [round(x, 3) for x in (floors.order, floors.lines, floors.line)] == [0.531, 0.767, 0.66]


@pytest.mark.parametrize(
    ("name", "window", "published"),
    [("arithmetic", 9, 0.532), ("facts", 24, 0.179), ("joint", 24, 0.196)],
)
def test_the_lowest_published_loss_is_just_above_the_floor_of_the_order(name, window, published):
    """Losses of the paper's best runs: below what the lines allow, at what their order allows."""
    floors = entropy_floors(load_task(name).file(0), framing="file", window=window)
    assert floors.order - 1e-3 < published < floors.order + 3e-3
    assert published < floors.lines


def stationary(lines: tuple[str, ...], string: str) -> float:
    """The probability of a string at a random place of endless independent lines."""

    def chance(left: str, string: str) -> float:
        """Where this is left of the present line."""
        if not string:
            return 1.0
        if not left:
            return sum(chance(line, string) for line in lines) / len(lines)
        return chance(left[1:], string[1:]) if left[0] == string[0] else 0.0

    places = [line[i:] for line in lines for i in range(len(line))]
    return sum(chance(place, string) for place in places) / len(places)


@given(lines=LINES, window=st.integers(1, 5))
def test_the_floor_of_the_lines_is_that_of_following_every_line(lines, window):
    text = "".join(lines)
    assume(len(text) > window)
    windows = [text[i : i + window + 1] for i in range(len(text) - window)]
    nats = sum(math.log(stationary(lines, w[0]) / stationary(lines, w)) for w in windows)
    floors = entropy_floors(lines, framing="file", window=window)
    assert floors.lines == pytest.approx(nats / len(windows) / window)


@settings(max_examples=40)
@given(lines=LINES, window=st.integers(1, 5))
def test_the_floor_of_shuffled_is_the_entropy_of_all_windows(lines, window):
    assume(len("".join(lines)) > window)
    strings = ("".join(s) for s in itertools.product("ab\n", repeat=window + 1))
    nats = 0.0
    for string in strings:
        probability = stationary(lines, string)
        if probability:
            nats += probability * math.log(stationary(lines, string[0]) / probability)
    floors = entropy_floors(lines, framing="shuffled", window=window)
    assert floors.lines == pytest.approx(nats / window)


@given(lines=LINES, window=st.integers(1, 6))
def test_the_floor_of_the_order_is_the_conditional_entropy_of_each_character(lines, window):
    text = "".join(lines)
    assume(len(text) > window)
    offsets = range(len(text) - window)
    nats = 0.0
    for length in range(1, window + 1):
        for i in offsets:
            same = [j for j in offsets if text[j : j + length] == text[i : i + length]]
            right = sum(text[j + length] == text[i + length] for j in same)
            nats -= math.log(right / len(same))
    floors = entropy_floors(lines, framing="file", window=window)
    assert floors.order == pytest.approx(nats / len(offsets) / window)
    assert floors.order <= floors.lines + 1e-12, "who knows more is surprised less"


def test_the_floor_of_fresh_windows_is_on_the_windows_of_the_loss() -> None:
    """Their luck is shared: what knows the lines alone has exactly that loss on them."""
    task = load_task("arithmetic")
    stream = Stream(lines=task.file(0), vocabulary=task.vocabulary, framing="shuffled",
                    window=9, batch=1, seed=0)  # fmt: skip
    floors = stream_floors(stream)
    expected = entropy_floors(stream.lines, framing="shuffled", window=9)
    assert (floors.order, floors.line) == (expected.order, expected.line)
    assert floors.lines == pytest.approx(expected.lines, abs=0.02)
    assert floors.lines != expected.lines


def test_floors_of_nothing_are_refused() -> None:
    with pytest.raises(TbttError, match="entropy floors need at least one line, got none"):
        entropy_floors([], framing="file", window=9)


@pytest.mark.parametrize(("framing", "window"), [("aligned", 9), ("aligned", 15), ("cut", 9)])
def test_floors_of_single_and_aligned_lines_are_those_of_counting_all_windows(framing, window):
    task = load_task("arithmetic")
    stream = Stream(lines=task.file(0), vocabulary=task.vocabulary, framing=framing, window=window,
                    batch=882, seed=0)  # fmt: skip
    tokens, targets, _ = stream.reference()
    rows = [tuple(row[row != NOTHING].tolist())
            for row in np.concatenate([tokens[:, :1], targets], 1)]  # fmt: skip
    begun = Counter(row[:k] for row in rows for k in range(1, len(row) + 1))
    nats = sum(math.log(begun[row[:k]] / begun[row[: k + 1]])
               for row in rows for k in range(1, len(row)))  # fmt: skip
    expected = pytest.approx(nats / sum(len(row) - 1 for row in rows))
    assert entropy_floors(stream.lines, framing=framing, window=window).lines == expected
    assert stream_floors(stream).lines == expected

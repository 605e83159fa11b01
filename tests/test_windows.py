"""What models are given to read: windows of the file, of fresh lines, or whole lines."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from tbtt_interp.errors import TbttError
from tbtt_interp.tasks import FRAMINGS, Stream, Vocabulary, load_task
from tbtt_interp.tasks.windows import NOTHING, Windows, stack, window_of

LINES = st.lists(st.text("abc", min_size=1, max_size=6), min_size=2, max_size=6, unique=True).map(
    lambda words: tuple(f"{word}\n" for word in words)
)


def stream(lines: tuple[str, ...], framing: str, window: int, batch: int | None, seed=0) -> Stream:
    return Stream(lines=lines, vocabulary=Vocabulary.of(lines), framing=framing, window=window,
                  batch=batch, seed=seed)  # fmt: skip


def texts(stream: Stream, windows: Windows) -> list[str]:
    """Windows as text, each as often as it was drawn, the last predicted character included."""
    whole = np.concatenate([windows.tokens[:, :1], windows.targets], 1)
    characters = dict(enumerate(stream.vocabulary.characters)) | {NOTHING: ""}
    rows = whole.repeat(windows.counts, 0).tolist()
    return ["".join(characters[token] for token in row) for row in rows]


@given(lines=LINES, window=st.integers(1, 8), seed=st.integers(0, 99))
def test_file_windows_are_cut_from_the_file(lines: tuple[str, ...], window: int, seed: int) -> None:
    text = "".join(lines)
    if len(text) <= window:
        return
    file = stream(lines, "file", window, 5, seed)
    assert all(piece in text for piece in texts(file, file.draw(seed)))
    everything = texts(file, file.reference())
    assert everything == [text[i : i + window + 1] for i in range(len(text) - window)]


def test_file_windows_are_drawn_from_every_offset_alike() -> None:
    file = stream(load_task("arithmetic").file(0), "file", 9, 882)
    drawn = Counter(p for step in range(60) for p in texts(file, file.draw(step)))
    expected = Counter(texts(file, file.reference()))
    assert set(drawn) == set(expected)
    scale = sum(drawn.values()) / sum(expected.values())
    pairs = [(drawn[piece], expected[piece] * scale) for piece in expected]
    assert chisquare(*zip(*pairs, strict=True)).pvalue > 1e-4


@given(lines=LINES, window=st.integers(1, 12), seed=st.integers(0, 99))
def test_cut_windows_are_ends_of_lines(lines: tuple[str, ...], window: int, seed: int) -> None:
    cut = stream(lines, "cut", window, 7, seed)
    pieces = [line[k : k + window + 1] for line in lines for k in range(len(line) - 1)]
    assert sorted(texts(cut, cut.reference())) == sorted(pieces)
    assert set(texts(cut, cut.draw(seed))) <= set(pieces)


def test_aligned_windows_begin_with_a_line_and_go_on_with_any() -> None:
    lines = load_task("arithmetic").lines[:20]
    for window, rows in ((9, 20), (17, 20 * 20)):
        aligned = stream(lines, "aligned", window, 882)
        assert len(aligned.windows) == rows
        pairs = {(one + other)[: window + 1] for one in lines for other in lines}
        assert pairs == set(texts(aligned, aligned.reference()))
    with pytest.raises(TbttError, match="of at most 17 characters, got 18"):
        _ = stream(lines, "aligned", 18, 882).windows


@given(lines=LINES, window=st.integers(1, 20), seed=st.integers(0, 99))
def test_shuffled_windows_are_the_end_of_a_line_whole_lines_and_the_beginning_of_one(
    lines: tuple[str, ...], window: int, seed: int
) -> None:
    fresh = stream(lines, "shuffled", window, 5, seed)
    for piece in texts(fresh, fresh.draw(seed)):
        assert len(piece) == window + 1
        first, *rest = piece.splitlines(keepends=True)
        *whole, last = rest or [""]
        assert any(first in line for line in lines)
        assert all(line in lines for line in whole)
        assert any(line.startswith(last) for line in lines)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_shuffled_windows_favour_no_order(seed: int) -> None:
    """Which line follows which is uniform, whatever the order of the file."""
    lines = tuple(f"{letter}{letter}\n" for letter in "abcde")
    fresh = stream(lines, "shuffled", 5, 2_000, seed)
    follows = Counter()
    for piece in texts(fresh, fresh.draw(0)):
        at = piece.index("\n")
        if at in (1, 2):
            follows[piece[at - 1], piece[at + 1]] += 1
    counts = [follows[a, b] for a in "abcde" for b in "abcde"]
    assert chisquare(counts).pvalue > 1e-6


def test_shuffled_windows_begin_anywhere_alike() -> None:
    fresh = stream(("a\n", "bcdefg\n"), "shuffled", 3, 20_000)
    first = Counter(piece[0] for piece in texts(fresh, fresh.draw(0)))
    assert chisquare([first[c] for c in "abcdefg"]).pvalue > 1e-4
    assert first["\n"] / 20_000 == pytest.approx(2 / 9, abs=0.015)


@given(lines=LINES)
def test_line_windows_are_whole_lines_and_nothing_after_them(lines: tuple[str, ...]) -> None:
    whole = stream(lines, "line", 8, None)
    tokens, targets, _ = whole.reference()
    assert sorted(texts(whole, whole.draw(0))) == sorted(texts(whole, whole.reference()))
    for line, read, predicted in zip(lines, tokens, targets, strict=True):
        encoded, n = whole.vocabulary.encode(line), len(line) - 1
        assert (read[:n].tolist(), predicted[:n].tolist()) == (encoded[:-1], encoded[1:])
        assert (predicted[n:] == NOTHING).all()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_step_s_windows_depend_on_seed_and_step_alone(framing: str) -> None:
    lines = load_task("arithmetic").file(0)
    one, again, other = (stream(lines, framing, 9, 20, seed) for seed in (0, 0, 1))
    one.draw(0)
    assert np.array_equal(one.draw(7)[0], again.draw(7)[0])
    assert not np.array_equal(one.draw(7)[0], one.draw(8)[0])
    assert not np.array_equal(one.draw(7)[0], other.draw(7)[0])


@pytest.mark.parametrize("framing", ["file", "line"])
def test_a_batch_is_computed_once_a_window_and_weighs_as_if_it_were_not(framing: str) -> None:
    """Also stacked with another, beside which the smaller has rows that count for nothing."""
    text = load_task("arithmetic").file(0)
    stacked = stack([stream(text, framing, 9, batch).draw(0) for batch in (30, 882)])
    assert stacked.counts.sum(1).tolist() == [30, 882] and stacked.counts.shape[1] < 882
    nats = np.random.default_rng(0).random(stacked.targets.shape) * (stacked.targets != NOTHING)
    found = (nats.sum(2) * stacked.weights()).sum(1)
    for k, counts in enumerate(stacked.counts):
        every = stacked.targets[k].repeat(counts, 0) != NOTHING
        assert found[k] == pytest.approx(nats[k].repeat(counts, 0).sum() / every.sum())


def test_framings_that_cannot_be() -> None:
    lines = ("ab\n", "cd\n")
    with pytest.raises(TbttError, match="a window of 6 characters does not fit a file of 6"):
        stream(lines, "file", 6, 2)
    facts = load_task("facts")
    assert window_of(facts, "line") == 41 == max(map(len, facts.lines))
    with pytest.raises(TbttError, match=r"framing 'shufled' is unknown \(did you mean 'shuffled'"):
        window_of(facts, "shufled")
    with pytest.raises(TbttError, match="window 9 is shorter than the longest line of task 'f"):
        window_of(facts, "line", 9)

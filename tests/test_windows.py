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
    whole = np.concatenate([windows.tokens, windows.targets[:, -1:]], 1)
    return [stream.vocabulary.decode(row) for row in whole.repeat(windows.counts, 0).tolist()]


def texts_padded(stream: Stream, windows: Windows) -> list[str]:
    """As `texts`, with a null character where there is none."""
    whole = np.concatenate([windows.tokens[:, :1], windows.targets], 1)
    characters = dict(enumerate(stream.vocabulary.characters)) | {NOTHING: "\0"}
    return ["".join(map(characters.get, row)) for row in whole.repeat(windows.counts, 0).tolist()]


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
    everything = [text.rstrip("\0") for text in texts_padded(cut, cut.reference())]
    assert sorted(everything) == sorted(pieces)
    assert set(texts_padded(cut, cut.draw(seed))) <= set(texts_padded(cut, cut.reference()))


def test_aligned_windows_begin_with_a_line_and_go_on_with_any() -> None:
    lines = load_task("arithmetic").lines
    for window, rows in ((9, 196), (17, 196 * 196)):
        aligned = stream(lines, "aligned", window, 882)
        assert len(aligned.windows) == rows
        pairs = {(one + other)[: window + 1] for one in lines[:9] for other in lines}
        assert pairs <= set(texts(aligned, aligned.reference()))
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
    lines = ("a\n", "bcdefg\n")
    fresh = stream(lines, "shuffled", 3, 20_000)
    first = Counter(piece[0] for piece in texts(fresh, fresh.draw(0)))
    assert chisquare([first[c] for c in "abcdefg"]).pvalue > 1e-4
    assert first["\n"] / 20_000 == pytest.approx(2 / 9, abs=0.015)


@given(lines=LINES)
def test_line_windows_are_whole_lines_and_nothing_after_them(lines: tuple[str, ...]) -> None:
    whole = stream(lines, "line", 8, None)
    tokens, targets, _ = whole.reference()
    assert sorted(map(tuple, whole.draw(0).tokens)) == sorted(map(tuple, tokens))
    for line, read, predicted in zip(lines, tokens, targets, strict=True):
        encoded = whole.vocabulary.encode(line)
        assert read[: len(line) - 1].tolist() == encoded[:-1]
        assert predicted[: len(line) - 1].tolist() == encoded[1:]
        assert (predicted[len(line) - 1 :] == NOTHING).all()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_step_s_windows_depend_on_seed_and_step_alone(framing: str) -> None:
    lines = load_task("arithmetic").file(0)
    one, again, other = (stream(lines, framing, 9, 20, seed) for seed in (0, 0, 1))
    one.draw(0)
    assert np.array_equal(one.draw(7)[0], again.draw(7)[0])
    assert not np.array_equal(one.draw(7)[0], one.draw(8)[0])
    assert not np.array_equal(one.draw(7)[0], other.draw(7)[0])


def test_a_stack_of_unequal_batches_has_rows_that_count_for_nothing() -> None:
    tasks = [load_task("arithmetic", held_out=[pair]) for pair in ((5, 7), (5, 5))]
    windows = [stream(task.file(0), "line", 9, None).draw(0) for task in tasks]
    tokens, targets, counts = stacked = stack(windows)
    assert tokens.shape == targets.shape == (2, 198, 9)
    assert ((targets[0] != NOTHING).sum(), (targets[1] != NOTHING).sum()) == (196 * 8, 198 * 8)
    assert counts.sum(1).tolist() == [196, 198]
    weights = stacked.weights()
    assert np.allclose(weights[0], [1 / (196 * 8)] * 196 + [0, 0])
    assert np.allclose(weights[1], 1 / (198 * 8))


@pytest.mark.parametrize("framing", ["file", "line"])
def test_a_batch_is_computed_once_a_window_and_weighs_as_if_it_were_not(framing: str) -> None:
    text = load_task("arithmetic").file(0)
    windows = stream(text, framing, 9, 882).draw(0)
    assert windows.counts.sum() == 882
    distinct = np.concatenate([windows.tokens, windows.targets], 1)
    assert len(distinct) < 882 and (framing == "file" or len(np.unique(distinct, axis=0)) <= 196)
    nats = np.random.default_rng(0).random(windows.targets.shape)
    nats[windows.targets == NOTHING] = 0
    every = windows.targets.repeat(windows.counts, 0) != NOTHING
    mean = nats.repeat(windows.counts, 0).sum() / every.sum()
    assert (nats.sum(1) * windows.weights()).sum() == pytest.approx(mean)


@pytest.mark.parametrize(("name", "longest"), [("arithmetic", 9), ("facts", 41), ("joint", 41)])
def test_line_framing_has_a_window_as_long_as_the_longest_line(name: str, longest: int) -> None:
    assert window_of(load_task(name), "line") == longest == max(map(len, load_task(name).lines))


def test_framings_that_cannot_be() -> None:
    lines = ("ab\n", "cd\n")
    with pytest.raises(TbttError, match="a window of 6 characters does not fit a file of 6"):
        stream(lines, "file", 6, 2)
    facts = load_task("facts")
    with pytest.raises(TbttError, match=r"framing 'shufled' is unknown \(did you mean 'shuffled'"):
        window_of(facts, "shufled")
    with pytest.raises(TbttError, match="window 9 is shorter than the longest line of task 'f"):
        window_of(facts, "line", 9)

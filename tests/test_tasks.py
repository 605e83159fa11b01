"""What a task promises: published corpora, true labels, disjoint splits, orders of one's own."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbtt_interp.errors import TbttError
from tbtt_interp.tasks import entropy_floors, load_task
from tbtt_interp.tasks.arithmetic import operand_grid
from tbtt_interp.tasks.corpus import read_corpus, write_corpus
from tbtt_interp.tasks.task import permutation, random_bits

PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)


@pytest.mark.parametrize(
    ("name", "lines", "characters", "window", "batch"),
    [("arithmetic", 196, 17, 9, 882), ("facts", 50, 51, 24, 576), ("joint", 246, 66, 24, 576)],
)
def test_corpora_have_the_published_sizes(name, lines, characters, window, batch):
    task = load_task(name)
    assert (len(task.lines), len(task.vocabulary)) == (lines, characters)
    assert (task.window, task.batch) == (window, batch)


def test_orders_are_numpy_s_by_its_algorithm_of_2026():
    """So that runs trained before keep their files, whatever numpy does to its own."""
    for length in (0, 1, 2, 196):
        drawn = np.random.default_rng((length, 0x0DE)).permutation(length)
        assert permutation(length, random_bits(length, 0x0DE)) == drawn.tolist()
    text = "".join(load_task("joint").file(3)).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == "9fe29d8ca3b6a464"


@given(text=st.text(alphabet=load_task("joint").vocabulary.characters))
def test_decoding_undoes_encoding(text):
    vocabulary = load_task("joint").vocabulary
    assert vocabulary.decode(vocabulary.encode(text)) == text


@settings(max_examples=40)
@given(pairs=PAIRS)
def test_seen_and_held_out_are_disjoint_and_complete(pairs):
    task = load_task("arithmetic", held_out=pairs)
    equations = {(a, b, o): f"<{a}{o}{b}={eval(f'{a}{o}{b}')}>".ljust(8) + "\n"
                 for a in range(10) for b in range(10) for o in "+-"}  # fmt: skip
    held_out = {line for (a, b, _), line in equations.items() if {(a, b), (b, a)} & set(pairs)}
    assert {e.line for e in task.examples if e.held_out} == held_out
    assert set(task.lines) == set(equations.values()) - held_out


def test_labels_are_what_python_computes():
    for example in load_task("arithmetic").examples:
        labels = example.labels
        a, operator, b = (labels[name] for name in ("a", "operator", "b"))
        value = eval(f"{a}{operator}{b}")
        assert example.prompt == f"<{a}{operator}{b}="
        assert example.answer == f"{value}>"
        assert labels["value"] == value
        assert labels["characters"] == str(value)
        assert labels["sign"] * labels["magnitude"] == value
        assert 10 * labels["tens"] + labels["units"] == abs(value)
        if operator == "+":
            assert labels["carry"] == (len(str(value)) == 2) and "borrow" not in labels
        else:
            assert labels["borrow"] == str(value).startswith("-") and "carry" not in labels


def test_every_seed_has_a_file_order_of_its_own_within_the_sections():
    task = load_task("joint")
    files = [task.file(seed) for seed in range(5)]
    assert len(set(files)) == 5
    assert task.file(3) == files[3]
    for file in files:
        assert sorted(file) == sorted(task.lines)
        assert {len(line) for line in file[:196]} == {9}, "equations come first"


@pytest.mark.parametrize(
    ("typed", "prompt"),
    [("Capital of France is", "Capital of France is "), ("France", "Capital of France is "),
     ("<3+4", "<3+4="), ("3 + 4", "<3+4="), ("12-7=", "<12-7="), ("Capital of ", "Capital of ")],
)  # fmt: skip
def test_what_a_person_types_becomes_the_corpus_s_own_words(typed, prompt):
    assert load_task("joint").complete_prompt(typed) == prompt


def test_a_grid_beyond_nine_says_what_was_taught():
    taught = load_task("arithmetic").examples
    groups = [e.group for e in operand_grid(0, 19, taught)]
    assert {g: groups.count(g) for g in groups} == {"seen": 196, "held out": 4, "beyond 9": 600}


def corpus(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_plain_lines_are_asked_from_their_shortest_own_beginning():
    task = load_task(corpus("pets.txt", "a cat\na cow\n\na dog"))
    assert [(e.prompt, e.answer) for e in task.examples] == [
        ("a ca", "t\n"), ("a co", "w\n"), ("a d", "og\n")]  # fmt: skip


def test_a_line_ends_at_its_newline_and_nowhere_else():
    """Not at the line separators that str.splitlines knows, nor at a byte order mark."""
    task = load_task(corpus("odd.txt", "\ufeffa\u2028b=1\nc\x0bd=2\n"))
    assert [e.line for e in task.examples] == ["a\u2028b=1\n", "c\x0bd=2\n"]
    floors = entropy_floors(task.file(None), framing="file", window=5)
    assert 0 <= floors.order <= floors.lines


def test_a_table_brings_labels_and_a_held_out_column():
    header = "prompt\tanswer\theld_out\tgroup\tdouble\tword\n"
    text = header + "1+1=\t2\tno\tsums\t1\tone\n1+2=\t3\tyes\tsums\t0\t\n"
    task = read_corpus(Path(corpus("sums.tsv", text)))
    first, second = task.examples
    assert (first.line, first.group, first.held_out) == ("1+1=2\n", "sums", False)
    assert second.held_out and task.lines == ("1+1=2\n",)
    assert dict(first.labels) == {"double": 1, "word": "one"}
    assert dict(second.labels) == {"double": 0}
    assert (task.window, task.batch) == (11, 1_257)  # two lines, less one; as much as of facts
    assert [task.complete_prompt(x) for x in ("1+1", "1 + 2 =", "3+4")] == ["1+1=", "1+2=", "3+4"]
    write_corpus(task, Path("again.tsv"))
    assert read_corpus(Path("again.tsv")).examples == task.examples


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "prompt\tresult\n1\t2\n", "has no column answer: a table needs prompt and"),
        ("a.csv", "prompt,answer,held_out\n1,2,maybe\n", "line 2: held_out is 'maybe', must be"),
        ("a.csv", 'prompt,answer\n1,2\n1,2,3,4\n', "line 3 has not as many cells as the header"),
        ("a.txt", "\n\n", "is empty: give a text file of one example per line"),
        ("a.csv", "prompt,answer\n1,2\n1,3\n", "gives '1' two answers, '2' and '3': keep one of"),
        ("a.txt", "one\ntwo\none\n", "has the line 'one\\\\n' twice: keep one of them"),
    ],
)  # fmt: skip
def test_a_corpus_that_cannot_be_used_says_why(name, text, message):
    with pytest.raises(TbttError, match=message):
        load_task(corpus(name, text))


def test_a_corpus_that_is_not_there_or_no_text_says_so():
    with pytest.raises(TbttError, match=r"corpus lines\.txt is not there"):
        load_task("lines.txt")
    Path("lines").mkdir()
    with pytest.raises(TbttError, match="task lines is a folder: give a file of lines"):
        load_task("lines")
    Path("a.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(TbttError, match=r"a\.txt cannot be read .*: give a UTF-8 text file"):
        load_task("a.txt")

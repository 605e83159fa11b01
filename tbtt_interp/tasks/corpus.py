"""A user's own corpus: a text file of lines, or a table of prompts, answers and labels."""

import csv
import io
import re
from itertools import pairwise
from pathlib import Path

from tbtt_interp.bounds import CELLS, CORPUS, WINDOW
from tbtt_interp.errors import TbttError
from tbtt_interp.tasks.arithmetic import SHORT_FORM
from tbtt_interp.tasks.task import Example, Label, Task

TABLES = {".tsv": "\t", ".csv": ","}
BATCH = 24 * 576  # characters in a step, as in the paper's facts
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


def read_corpus(path: Path) -> Task:
    """A task from a file, whose windows have room for two of its lines.

    A table (.tsv or .csv, with a header) has the columns prompt and answer, and may have held_out
    (true or false), group (what the line is counted under) and any labels. Any other file is read
    as plain lines: a line's prompt is then its shortest beginning that no other line shares, and
    its answer is the rest.
    """
    try:
        if (size := path.stat().st_size) > CORPUS:
            raise TbttError(
                f"corpus {path} has {size:,} bytes, of which at most {CORPUS:,} are read: give "
                "fewer lines"
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TbttError(
            f"corpus {path} cannot be read ({error}): give a UTF-8 text file of lines, "
            "or a .tsv or .csv with the columns prompt and answer"
        ) from error
    if not text.strip():
        raise TbttError(f"corpus {path} is empty: give a text file of one example per line")
    read = _from_table if path.suffix.lower() in TABLES else _from_lines
    examples = read(path, text)
    longest = max(len(example.line) for example in examples)
    if (cells := len(examples) * longest) > CELLS:
        raise TbttError(
            f"corpus {path} has {len(examples):,} lines and one of {longest:,} characters: as a "
            f"table {cells:,} cells, of which at most {CELLS:,} are allowed; shorten the long lines"
        )
    window = min(2 * longest, sum(len(example.line) for example in examples) - 1, WINDOW)
    batch = max(1, round(BATCH / window))
    has_equations = any(re.fullmatch(r"<\d+[+-]\d+=", example.prompt) for example in examples)
    return Task.of(
        path.stem, examples, window=window, batch=batch, order_is_given=True,
        short_forms=(SHORT_FORM,) if has_equations else (),
    )  # fmt: skip


def check_answers(path: Path, task: Task) -> None:
    """Raises a TbttError if a corpus gives one prompt two answers."""
    answers: dict[str, str] = {}
    for example in task.examples:
        other = answers.setdefault(example.prompt, example.answer)
        if other != example.answer:
            raise TbttError(
                f"corpus {path} gives {example.prompt!r} two answers, {other.strip()!r} and "
                f"{example.answer.strip()!r}: keep one of these lines"
            )


def write_corpus(task: Task, path: Path) -> None:
    """A task's examples as a table that `read_corpus` reads back."""
    task.prompts().assign(answer=lambda table: table["answer"].str.removesuffix("\n")).to_csv(
        path, sep="\t", index=False
    )


def _from_table(path: Path, text: str) -> tuple[Example, ...]:
    reader = csv.DictReader(io.StringIO(text), delimiter=TABLES[path.suffix.lower()])
    try:
        names = reader.fieldnames or []
    except csv.Error as error:
        raise TbttError(f"corpus {path} has no header ({error}): mend its first line") from error
    if missing := [n for n in ("prompt", "answer") if n not in names]:
        raise TbttError(
            f"corpus {path} has no column {missing[0]}: a table needs prompt and answer, "
            "and may have held_out, group and any labels"
        )
    try:
        examples = tuple(_example(path, reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise TbttError(
            f"corpus {path}, line {reader.line_num}: {error}; mend that line"
        ) from error
    if not examples:
        raise TbttError(f"corpus {path} has a header and no rows: give one example per row")
    return examples


def _example(path: Path, line: int, row: dict[str | None, str | None]) -> Example:
    where = f"corpus {path}, line {line}"
    if None in row or None in row.values():
        raise TbttError(f"{where} has not as many cells as the header: mend that line")
    cells = {str(name): str(cell) for name, cell in row.items()}
    held_out = cells.pop("held_out", "").strip().lower()
    if held_out not in TRUTH:
        raise TbttError(f"{where}: held_out is {held_out!r}, must be true or false")
    prompt, answer, group = cells.pop("prompt"), cells.pop("answer"), cells.pop("group", "lines")
    try:
        labels = {name: _value(cell) for name, cell in cells.items() if cell}
        return Example.of(prompt, f"{answer}\n", labels, group=group, held_out=TRUTH[held_out])
    except TbttError as error:
        raise TbttError(f"{where}: {error}") from error


def _value(cell: str) -> Label:
    """A label as the simplest type that it can be.

    >>> _value("7"), _value("0.5"), _value("north")
    (7, 0.5, 'north')
    """
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _from_lines(path: Path, text: str) -> tuple[Example, ...]:
    lines = [f"{line}\n" for line in text.split("\n") if line.strip()]
    ends = _own_beginnings(lines)
    return tuple(Example.of(x[: ends[x]], x[ends[x] :]) for x in lines)


def _own_beginnings(lines: list[str]) -> dict[str, int]:
    """The length of each line's shortest beginning that no other line has.

    In sorted order, no line shares more with a line than one of its two neighbours does.
    """
    ordered = sorted(set(lines))
    shared = [next((k for k, (x, y) in enumerate(zip(*pair, strict=False)) if x != y), 0)
              for pair in pairwise(ordered)]  # fmt: skip
    most = map(max, [0, *shared], [*shared, 0])
    return {line: max(1, min(n + 1, len(line) - 1)) for line, n in zip(ordered, most, strict=True)}

"""A user's own corpus: a text file of lines, or a table of prompts, answers and labels."""

import io
from pathlib import Path

import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.tasks.task import Example, Label, Task, Vocabulary

TABLES = {".tsv": "\t", ".csv": ","}
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


def read_corpus(path: Path, *, window: int = 24, batch: int = 576) -> Task:
    """A task from a file.

    A table (.tsv or .csv, with a header) has the columns prompt and answer, and may have held_out
    (true or false), group (what the line is counted under) and any labels. Any other file is read
    as plain lines: a line's prompt is then its shortest beginning that no other line shares, and
    its answer the rest.

    Args:
        window, batch: characters a window and windows a step, unless the recipe says otherwise.
    Raises:
        TbttError: if the file cannot be read as text, has no lines, or the same line twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TbttError(
            f"corpus {path} cannot be read ({error}): give a UTF-8 text file of lines, "
            "or a .tsv or .csv with the columns prompt and answer"
        ) from error
    is_table = path.suffix.lower() in TABLES
    examples = _from_table(path, text) if is_table else _from_lines(path, text)
    return Task(
        name=path.stem,
        sections=(examples,),
        window=window,
        batch=batch,
        vocabulary=Vocabulary.of(example.line for example in examples),
        order_is_given=True,
    )


def write_corpus(task: Task, path: Path) -> None:
    """A task's examples as a table that `read_corpus` reads back."""
    task.prompts().assign(answer=lambda table: table["answer"].str.removesuffix("\n")).to_csv(
        path, sep="\t", index=False
    )


def _from_table(path: Path, text: str) -> tuple[Example, ...]:
    separator = TABLES[path.suffix.lower()]
    try:
        table = pd.read_csv(io.StringIO(text), sep=separator, keep_default_na=False)
        # a prompt or an answer is text, even where a column of them looks like numbers
        raw = pd.read_csv(io.StringIO(text), sep=separator, keep_default_na=False, dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise TbttError(f"corpus {path} is not a table ({error}): mend that line") from error
    if missing := [name for name in ("prompt", "answer") if name not in table]:
        raise TbttError(
            f"corpus {path} has no column {missing[0]}: a table needs prompt and answer, "
            "and may have held_out, group and any labels"
        )
    names = [str(name) for name in table if name not in ("prompt", "answer", "held_out", "group")]
    examples = []
    for row, (_, strings) in enumerate(raw.iterrows()):
        held_out = str(strings.get("held_out", "")).strip().lower()
        if held_out not in TRUTH:
            raise TbttError(
                f"corpus {path}, row {row + 2}: held_out is {held_out!r}, must be true or false"
            )
        labels: dict[str, Label] = {
            name: value.item() if hasattr(value := table[name].iloc[row], "item") else value
            for name in names
            if strings[name] != ""
        }
        examples.append(
            Example(
                line=f"{strings['prompt']}{strings['answer']}\n",
                prompt=strings["prompt"],
                answer=f"{strings['answer']}\n",
                group=str(strings.get("group", "lines")),
                held_out=TRUTH[held_out],
                labels=labels,
            )
        )
    return tuple(examples)


def _from_lines(path: Path, text: str) -> tuple[Example, ...]:
    lines = [f"{line}\n" for line in text.splitlines() if line.strip()]
    if not lines:
        raise TbttError(f"corpus {path} has no lines: give a text file of one example a line")
    prompts = [_shortest_own_beginning(line, lines) for line in lines]
    return tuple(
        Example(line=line, prompt=prompt, answer=line[len(prompt) :], group="lines")
        for line, prompt in zip(lines, prompts, strict=True)
    )


def _shortest_own_beginning(line: str, lines: list[str]) -> str:
    others = [other for other in lines if other != line]
    for end in range(1, len(line) - 1):
        if not any(other.startswith(line[:end]) for other in others):
            return line[:end]
    return line[:-1]

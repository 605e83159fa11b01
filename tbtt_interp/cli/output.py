"""Options that commands share, and their output: readable tables, or the same rows as JSON."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tbtt_interp.errors import TbttError, printable

if TYPE_CHECKING:
    import pandas as pd

    from tbtt_interp.runs import Run

AsJson = Annotated[
    bool, Option("--json", help="Only the table's rows, as JSON on standard output.")
]
Runs = Annotated[
    list[Path] | None,
    Argument(
        metavar="[RUN]...",
        help="Runs, or folders with runs below them. [the models that come with the package]",
    ),
]
RUN = "A run's folder, or a name that `tbtt models` lists"
RunFolder = Annotated[Path, Argument(metavar="RUN", help=f"{RUN}.")]
Step = Annotated[int | None, Option(help="A kept checkpoint's training step. [the last]")]
LINE = 100  # characters that a table may take


def print_json(rows: "pd.DataFrame | Sequence[Mapping[str, object]]") -> None:
    """Prints a table's rows, or plain data, as JSON; a number that is absent is null."""
    plain = rows if isinstance(rows, Sequence) else json.loads(rows.to_json(orient="records"))
    print(json.dumps(plain, indent=1))


def print_table(
    headers: Iterable[object], rows: Iterable[Iterable[object]], *, title: str = "",
    notes: Sequence[str] = (), rule_before_last: int = 0,
) -> None:  # fmt: skip
    """Prints a table, as wide as its cells need, with notes below it.

    Args:
        rule_before_last: how many of the last rows stand below a line.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for header in headers:
        table.add_column(
            printable(str(header), keep="\n"),
            justify="right" if table.columns else "left",
            no_wrap=True,
        )
    table.columns[-1].no_wrap = False
    rows = list(rows)
    for number, row in enumerate(rows, 1):
        table.add_row(
            *(printable(str(cell), keep="\n") for cell in row),
            end_section=number == len(rows) - rule_before_last,
        )
    # never cut a number: where the terminal is narrower than the table, it wraps the lines itself
    console = Console(width=1_000, soft_wrap=True, highlight=False, markup=False, emoji=False)
    if title:
        console.print(printable(title))
    console.print(table)
    for note in notes:
        console.print(printable(note, keep="\n"))


def fitted(
    headers: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[Sequence[str]], list[str]]:
    """A table's first columns, as many as `print_table` sets in LINE characters.

    Headers of several words take two lines where that saves space. A table is left whole where not
    even its first three columns fit.

    Returns:
        the headers and the rows of these columns; the headers of the others.

    >>> headers, rows, left_out = fitted(["name", "of b", "a", "c"], [["x", "1", "2", "y" * 99]])
    >>> headers[1] == "of\\nb", rows, left_out
    (True, [['x', '1', '2']], ['c'])
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(headers)
    cells = [max(map(len, column), default=0) for column in columns]
    if sum(2 + max(pair) for pair in zip(cells, map(len, headers), strict=True)) <= LINE:
        return list(headers), list(rows), []
    wrapped = [header if len(header) <= width else header.replace(" ", "\n", 1)
               for header, width in zip(headers, cells, strict=True)]  # fmt: skip
    lines = [max(map(len, header.split("\n"))) for header in wrapped]
    widths = [2 + max(pair) for pair in zip(cells, lines, strict=True)]
    shown = sum(total <= LINE for total in accumulate(widths))
    shown = shown if shown >= 3 else len(headers)
    return wrapped[:shown], [row[:shown] for row in rows], list(headers[shown:])


def name_diverged(run: "Run", step: int | None = None) -> None:
    """Says on standard error which models of a run are left out, since they diverged."""
    if run.sound_seeds(step) != run.seeds and (text := run.divergence(step)):
        print(f"{run.folder}: {text}", file=sys.stderr)


def check_new(out: Path) -> None:
    """Checks, before any work is done, that a new file can be written; else a TbttError."""
    if out.exists():
        raise TbttError(f"{out} exists: nothing was written; give another --out FILE")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise TbttError(f"{out} cannot be written into {out.parent}: give another --out FILE")

"""Options that commands share, and their output: readable tables, or the same rows as JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    import pandas as pd

AsJson = Annotated[
    bool, typer.Option("--json", help="Only the table's rows, as JSON on standard output.")
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, or a name that `tbtt models` lists.")
]
Step = Annotated[int | None, typer.Option(help="A kept checkpoint's step. [the last]")]


def print_json(table: "pd.DataFrame") -> None:
    """Prints a table's rows as JSON; a number that is absent is null."""
    print_json_rows(json.loads(table.to_json(orient="records")))


def print_json_rows(rows: Sequence[Mapping[str, object]]) -> None:
    """Prints rows of plain data as JSON."""
    print(json.dumps(rows, indent=1, ensure_ascii=False))


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    notes: Sequence[str] = (),
    rule_before_last: int = 0,
) -> None:
    """Prints a table, as wide as its cells need, with notes below it.

    Args:
        rule_before_last: how many of the last rows stand below a line.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column, header in enumerate(headers):
        is_last = column == len(headers) - 1
        table.add_column(header, justify="left" if column == 0 else "right", no_wrap=not is_last)
    for number, row in enumerate(rows):
        table.add_row(*row, end_section=number == len(rows) - rule_before_last - 1)
    # never cut a number: where the terminal is narrower than the table, it wraps the lines itself
    console = Console(width=1_000, soft_wrap=True, highlight=False, markup=False, emoji=False)
    if title:
        console.print(title)
    console.print(table)
    for note in notes:
        console.print(note)


def check_new(out: Path) -> None:
    """Checks, before any work is done, that a new file can be written; else a TbttError."""
    if out.exists():
        raise TbttError(f"{out} exists: nothing was written; give another --out FILE")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise TbttError(f"{out} cannot be written into {out.parent}: give another --out FILE")

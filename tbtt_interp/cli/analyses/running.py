"""What the analyses' commands share: options, progress, what is printed and what is written."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.output import print_json, print_table, progress
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject

Out = Annotated[
    Path | None,
    typer.Option(
        help="A folder for tables (CSV, JSON) and figures (HTML, PNG); an interrupted analysis "
        "keeps its finished parts there."
    ),
]
SAID = 10  # findings on the screen; all are in the files
Sites = Annotated[list[str] | None, typer.Option(help="A hook point, repeatable. [all]")]


def run_analysis(
    run_folder: Path,
    step: int | None,
    out: Path | None,
    as_json: bool,
    compute: "Callable[[Subject, Parts, Tell], Result]",
    settings: dict[str, object],
) -> None:
    """Computes with a progress bar, keeps parts, prints what was found and writes the files.

    Args:
        settings: the options that decide what the parts are.
    """
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject
    from tbtt_interp.runs import load_run

    draft = None if out is None else out / "parts"
    if out is not None and out.exists() and not (out / "parts" / "settings.json").is_file():
        raise TbttError(f"{out} exists: nothing was written; give another --out FOLDER")
    subject = Subject.of_run(load_run(run_folder), step)
    parts = Parts(draft, settings | {"of": subject.name})
    with progress("analysing") as tell, _kept(draft):
        result = compute(subject, parts, tell)
    notes = list(result.notes)
    if out is not None:
        notes += _write(result, out)
    if as_json:
        print_json(next(iter(result.tables.values())))
        return
    rows = [[str(x) for x in row] for row in result.shown.itertuples(index=False)]
    print_table([str(c) for c in result.shown.columns], rows, title=subject.title, notes=notes)
    if ranked := result.ranked():
        more = f", {SAID} of {len(ranked)}" if len(ranked) > SAID else ""
        print(f"\nFound, furthest from its null first{more}:")
    for finding in ranked[:SAID]:
        print(finding)


@contextmanager
def _kept(draft: Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interruption:
        kept = (
            "give --out FOLDER to keep finished parts"
            if draft is None
            else f"finished parts are in {draft}: the same command goes on from there"
        )
        print(f"interrupted; {kept}", file=sys.stderr)
        raise typer.Exit(130) from interruption


def _write(result: "Result", out: Path) -> list[str]:
    """Every table and figure; what could not be drawn is said."""
    import shutil

    from tbtt_interp import figures
    from tbtt_interp.runs import write_whole

    said: list[str] = []
    tables = {**result.tables, "findings": result.findings_table()}
    for name, table in tables.items():
        write_whole(out / f"{name}.csv", table.to_csv(index=False).encode())
        write_whole(out / f"{name}.json", table.to_json(orient="records", indent=1).encode())
    for name, draw in result.figures.items():
        figure = draw()
        figures.save(figure, out / f"{name}.html")
        try:
            if not said:
                figures.save(figure, out / f"{name}.png")
        except TbttError as error:
            said.append(f"No PNG: {error}")
    shutil.rmtree(out / "parts")
    return said

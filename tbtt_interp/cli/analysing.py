"""`tbtt analyses NAME RUN`: what moves the answer, through which parts, and how it is laid out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson, print_json, print_table, progress
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject

analyses = typer.Typer(
    help="What moves an answer, through which parts, and how the task is laid out in the weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
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
        words = (
            "give --out FOLDER to keep finished parts"
            if draft is None
            else (f"finished parts are in {draft}: the same command goes on from there")
        )
        raise KeyboardInterrupt(words) from interruption


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


@analyses.command("patching")
def patching_command(
    run_folder: RunFolder,
    clean: Annotated[
        str | None, typer.Option(help="One pair alone: the clean prompt, as in 3+4.")
    ] = None,
    corrupt: Annotated[str | None, typer.Option(help="Its corrupted prompt, as in 3+9.")] = None,
    held_out: Annotated[
        str | None,
        typer.Option(help="Only clean equations of this pair that was held out, as in 5,7."),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(help="So many pairs, drawn at random. [all; 64 beyond a million parameters]"),
    ] = None,
    site: Sites = None,
    step: Step = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Put one activation of a run into another's: which, and where, decides the answer?

    tbtt analyses patching runs/arithmetic-medium-file

    tbtt analyses patching runs/arithmetic-medium-file --clean "3+4" --corrupt "3+9"
    """
    if (clean is None) != (corrupt is None):
        raise TbttError("--clean and --corrupt go together: give both, or neither for all pairs")
    if clean is not None and (held_out or pairs):
        raise TbttError("--clean and --corrupt name one pair: leave out --held-out and --pairs")
    if pairs is not None and pairs < 1:
        raise TbttError(f"pairs must be at least 1, got {pairs}")

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.pairs import chosen_pairs
        from tbtt_interp.analyses.patching import analyse_patching

        chosen = chosen_pairs(subject, clean, corrupt, held_out=held_out, count=pairs)
        return analyse_patching(subject, chosen, sites=site, parts=parts, tell=tell)

    settings = {"clean": clean, "corrupt": corrupt, "held_out": held_out, "pairs": pairs,
                "site": site}  # fmt: skip
    run_analysis(run_folder, step, out, as_json, compute, settings)

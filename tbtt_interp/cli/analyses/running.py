"""What the analyses' commands share: options, progress, what is printed and what is written."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
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
    from tbtt_interp.runs import Run

Out = Annotated[
    Path | None,
    typer.Option(
        help="A folder for tables (CSV, JSON) and figures (HTML, PNG); an interrupted analysis "
        "keeps its finished parts there."
    ),
]
Sites = Annotated[list[str] | None, typer.Option(help="A hook point, repeatable. [all]")]
OverSteps = Annotated[
    bool, typer.Option("--over-steps", help="At every kept checkpoint: findings over training.")
]


def run_analysis(
    run_folder: Path,
    step: int | None,
    over_steps: bool,
    out: Path | None,
    as_json: bool,
    compute: "Callable[[Subject, Parts, Tell], Result]",
    settings: dict[str, object],
) -> None:
    """Computes with a progress bar, keeps parts, prints what was found and writes the files.

    Args:
        settings: the options that decide what the parts are.
    """
    from tbtt_interp.runs import load_run

    if over_steps and step is not None:
        raise TbttError("--over-steps reads every checkpoint: leave out --step")
    draft = None if out is None else out / "parts"
    if out is not None and out.exists() and not any((out / "parts").glob("*/settings.json")):
        raise TbttError(f"{out} exists: nothing was written; give another --out FOLDER")
    run = load_run(run_folder)
    steps = sorted(run.checkpoints) if over_steps else [step]
    with progress("analysing") as tell, _kept(draft):
        result = _results(run, steps, draft, compute, settings, tell)
    notes = list(result.notes)
    if out is not None:
        notes += _write(result, out)
    if as_json:
        print_json(next(iter(result.tables.values())))
        return
    rows = [[str(x) for x in row] for row in result.shown.itertuples(index=False)]
    headers = [str(c).replace("_", " ") for c in result.shown.columns]
    at = "" if over_steps else f" at step {max(run.checkpoints) if step is None else step:,}"
    count = f"{len(run.seeds)} model{'s' if len(run.seeds) > 1 else ''}"
    print_table(headers, rows, title=f"{run_folder}{at}, {count}", notes=notes)
    ranked = [] if over_steps else result.ranked()
    if ranked:
        more = f", {result.said} of {len(ranked)}" if len(ranked) > result.said else ""
        print(f"\nFound, furthest from its null first{more}:")
    for finding in ranked[: result.said]:
        print(finding)


def _results(
    run: "Run", steps: "Sequence[int | None]", draft: Path | None,
    compute: "Callable[[Subject, Parts, Tell], Result]", settings: dict[str, object], tell: "Tell",
) -> "Result":  # fmt: skip
    from tbtt_interp.analyses.findings import over_steps
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject
    from tbtt_interp.runs import versions

    found = {}
    for number, step in enumerate(steps):
        subject = Subject.of_run(run, step)
        folder = None if draft is None else draft / f"step-{step}"
        read = run.checkpoints[max(run.checkpoints) if step is None else step].read_bytes()
        key = {"of": str(run.folder.resolve()), "models": hashlib.sha256(read).hexdigest()}
        parts = Parts(folder, settings | key | versions())

        def told(done: int, of: int, before: int = number) -> None:
            tell(before * of + done, len(steps) * of)

        found[step] = compute(subject, parts, told)
    return over_steps(found) if len(steps) > 1 else found[steps[0]]


@contextmanager
def _kept(draft: Path | None) -> Iterator[None]:
    is_new = draft is not None and not draft.exists()
    try:
        yield
    except TbttError:
        if draft is not None and is_new:  # nothing was asked that could be, so nothing is left
            shutil.rmtree(draft.parent, ignore_errors=True)
        raise
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

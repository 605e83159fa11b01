"""`tbtt report` and `tbtt compare`: one page about a folder of runs, and two runs side by side."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from tbtt_interp.cli.output import AsJson, RunFolder, Runs, check_new, print_json, print_table
from tbtt_interp.errors import printable


def report_command(
    runs: Runs = None,
    out: Annotated[Path, Option(help="The page to write.")] = Path("report.html"),
    only: Annotated[
        list[str] | None, Option(help="A section by its name, repeatable. [all]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page about runs, with a verdict for every claim.

    tbtt report --out report.html

    tbtt report runs/arithmetic-small-file runs/arithmetic-large-file

    Without runs, the models that come with the package are reported; the page about the paper's
    own sweeps is built by the study `python analyses/paper.py`.

    With --json the claims are printed, and no page is written.
    """
    from tbtt_interp.files import write_new
    from tbtt_interp.report.build import build_report
    from tbtt_interp.report.page import render

    if not as_json:
        check_new(out)
    report = build_report(runs or [], only=only or [])
    table = report.claims_table()
    if as_json:
        print_json(table)
    else:
        write_new(out, render(report).encode())
        rows = [[section.name, f"{section.seconds:.0f} s", section.verdicts, section.reason]
                for section in report.sections]  # fmt: skip
        plural = "s" if len(report.runs) > 1 else ""
        title = (f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(table)} claims of "
                 f"{len(report.runs)} run{plural}")  # fmt: skip
        print_table(["section", "took", "claims", "not built"], rows, title=title)
    for name, reason in report.problems.items():
        print(printable(f"left out, {name}: {reason}"), file=sys.stderr)


def compare_command(
    first: RunFolder,
    second: Annotated[Path, Argument(metavar="OTHER", help="Another run's folder.")],
    out: Annotated[Path | None, Option(help="Also write the table, as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set two runs side by side, paired by seed where they share seeds.

    tbtt compare runs/arithmetic-large-file runs/arithmetic-large-line
    """
    from tbtt_interp.compare import compare_runs
    from tbtt_interp.files import write_new
    from tbtt_interp.runs import load_run

    if out is not None:
        check_new(out)
    result = compare_runs(load_run(first), load_run(second))
    table = result.tables["comparison"]
    if out is not None:
        write_new(out, table.to_csv(index=False).encode())
    if as_json:
        print_json(table)
        return
    notes = ["", *result.summary, *(["", *result.notes] if result.notes else [])]
    print_table(result.display, result.display.to_numpy(), notes=notes)

"""`tbtt analyses geometry`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.analyses.running import Out, OverSteps, run_analysis
from tbtt_interp.cli.answers import Step
from tbtt_interp.cli.output import AsJson
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def geometry_command(
    run_folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A run's folder or a name that `tbtt models` lists; several to compare.",
        ),
    ],
    dimensions: Annotated[
        int, typer.Option(help="What wider codes are projected on, so that sizes compare.")
    ] = 14,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """How are operands laid out: as a number line, in circles, one code for both?

    tbtt analyses geometry runs/arithmetic-medium-file

    tbtt analyses geometry runs/arithmetic-medium-file runs/arithmetic-large-file --out out/
    """
    if over_steps and len(run_folders) > 1:
        raise TbttError("--over-steps reads one run: leave out the others")

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.geometry import analyse_geometry
        from tbtt_interp.analyses.subject import Subject
        from tbtt_interp.runs import load_run

        others = [Subject.of_run(load_run(folder), step) for folder in run_folders[1:]]
        return analyse_geometry(subject, *others, dimensions=dimensions, parts=parts, tell=tell)

    settings = {"analysis": "geometry", "runs": run_folders, "dimensions": dimensions}
    run_analysis(run_folders[0], step, over_steps, out, as_json, compute, settings)

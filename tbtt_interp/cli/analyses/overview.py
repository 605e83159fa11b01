"""`tbtt analyses overview`."""

from typing import TYPE_CHECKING

from tbtt_interp.cli.analyses.running import Out, OverSteps, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def overview_command(
    run_folder: RunFolder,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Run every analysis at quick settings and rank what was found by distance from its null.

    tbtt analyses overview runs/arithmetic-medium-file
    """

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.overview import analyse_overview

        return analyse_overview(subject, parts=parts, tell=tell)

    run_analysis(run_folder, step, over_steps, out, as_json, compute, {"analysis": "overview"})

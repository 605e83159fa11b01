"""`tbtt analyses attribution`."""

from typing import TYPE_CHECKING

from tbtt_interp.cli.analyses.running import Out, OverSteps, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def attribution_command(
    run_folder: RunFolder,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Which parts write the answer, and from which stream on can it be read?

    tbtt analyses attribution runs/arithmetic-medium-file --out out/
    """

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.attribution import analyse_attribution

        return analyse_attribution(subject, parts=parts, tell=tell)

    run_analysis(run_folder, step, over_steps, out, as_json, compute, {"analysis": "attribution"})

"""`tbtt analyses attention`."""

from typing import TYPE_CHECKING

from tbtt_interp.cli.analyses.running import Out, OverSteps, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def attention_command(
    run_folder: RunFolder,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Where do heads look, what is it worth, and what would they say of what they see?

    tbtt analyses attention runs/arithmetic-medium-file
    """

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.attention import analyse_attention

        return analyse_attention(subject, parts=parts, tell=tell)

    run_analysis(run_folder, step, over_steps, out, as_json, compute, {"analysis": "attention"})

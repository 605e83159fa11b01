"""`tbtt analyses order`."""

from typing import TYPE_CHECKING

from tbtt_interp.cli.analyses.running import Out, OverSteps, Sites, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def order_command(
    run_folder: RunFolder,
    site: Sites = None,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """What was memorized that is not the task: which line follows which, and what does it do?

    tbtt analyses order runs/arithmetic-large-file --out out/

    tbtt analyses order runs/arithmetic-mlt-file --site blocks.0.attn.hook_z
    """

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.order import analyse_order

        return analyse_order(subject, sites=site, parts=parts, tell=tell)

    run_analysis(
        run_folder, step, over_steps, out, as_json, compute, {"analysis": "order", "site": site}
    )

"""`tbtt analyses memorization`."""

from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.analyses.running import Out, OverSteps, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def memorization_command(
    run_folder: RunFolder,
    site: Annotated[
        str | None,
        typer.Option(
            help="Where a rule's directions are kept or left out. [the last hook_resid_mid]"
        ),
    ] = None,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """How much of a run's answers is memorized? Several meters, beside the literature's figures.

    Bits stored of the answers and of the order of the lines, the local learning coefficient, and
    the loss with a rule's directions alone or without them. Of models that each hold out their own
    pair, as --recipe influence trains them, the influence of every pair on every other, too.

    tbtt analyses memorization runs/arithmetic-medium-file

    tbtt train --recipe influence && tbtt analyses memorization runs/arithmetic-small-line-influence
    """

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.memorization import analyse_memorization

        return analyse_memorization(subject, site=site, parts=parts, tell=tell)

    run_analysis(
        run_folder,
        step,
        over_steps,
        out,
        as_json,
        compute,
        {"analysis": "memorization", "site": site},
    )

"""`tbtt analyses additivity`."""

from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.analyses.running import Out, OverSteps, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def additivity_command(
    run_folder: RunFolder,
    site: Annotated[
        list[str] | None,
        typer.Option(
            help="A hook point, with .0 behind for its first head, or logits; repeatable. "
            "[z, streams and MLPs of each layer, and logits]"
        ),
    ] = None,
    position: Annotated[
        list[int] | None,
        typer.Option(help="Counted back from the prompt's last character, -1; repeatable. [-1]"),
    ] = None,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Is it a rule or a table: how much of what a model holds is f(a) + g(b), and what does it do?

    tbtt analyses additivity runs/arithmetic-medium-file

    tbtt analyses additivity runs/arithmetic-medium-file --position -2 --position -1 --out out/
    """

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.additivity import analyse_additivity

        return analyse_additivity(
            subject, sites=site, positions=position or (-1,), parts=parts, tell=tell
        )

    settings = {"analysis": "additivity", "site": site, "position": position}
    run_analysis(run_folder, step, over_steps, out, as_json, compute, settings)

"""`tbtt analyses paths`."""

from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.analyses.running import Out, OverSteps, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def paths_command(
    run_folder: RunFolder,
    pairs: Annotated[
        int | None,
        typer.Option(help="So many pairs, drawn at random. [all; 16 beyond a million parameters]"),
    ] = None,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Along which edges and paths does what differs reach the answer, and which suffice?

    tbtt analyses paths runs/arithmetic-medium-file
    """
    if pairs is not None and pairs < 4:
        raise TbttError(f"pairs must be at least 4, half of them to rank edges on, got {pairs}")

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.old_pairs import chosen_pairs
        from tbtt_interp.analyses.old_paths import FEW, analyse_paths

        chosen = chosen_pairs(subject, count=pairs, few=FEW)
        return analyse_paths(subject, chosen, parts=parts, tell=tell)

    run_analysis(
        run_folder, step, over_steps, out, as_json, compute, {"analysis": "paths", "pairs": pairs}
    )

"""`tbtt analyses patching`."""

from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.analyses.running import Out, OverSteps, Sites, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def patching_command(
    run_folder: RunFolder,
    clean: Annotated[
        str | None, typer.Option(help="One pair alone: the clean prompt, as in 3+4.")
    ] = None,
    corrupt: Annotated[str | None, typer.Option(help="Its corrupted prompt, as in 3+9.")] = None,
    held_out: Annotated[
        str | None,
        typer.Option(help="Only clean equations of this pair that was held out, as in 5,7."),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(help="So many pairs, drawn at random. [all; 64 beyond a million parameters]"),
    ] = None,
    site: Sites = None,
    step: Step = None,
    over_steps: OverSteps = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Put one activation of a run into another's: which, and where, decides the answer?

    tbtt analyses patching runs/arithmetic-medium-file

    tbtt analyses patching runs/arithmetic-medium-file --clean "3+4" --corrupt "3+9"
    """
    if (clean is None) != (corrupt is None):
        raise TbttError("--clean and --corrupt go together: give both, or neither for all pairs")
    if clean is not None and (held_out or pairs):
        raise TbttError("--clean and --corrupt name one pair: leave out --held-out and --pairs")
    if pairs is not None and pairs < 1:
        raise TbttError(f"pairs must be at least 1, got {pairs}")

    def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
        from tbtt_interp.analyses.pairs import chosen_pairs
        from tbtt_interp.analyses.patching import analyse_patching

        chosen = chosen_pairs(subject, clean, corrupt, held_out=held_out, count=pairs)
        return analyse_patching(
            subject, chosen, sites=site, ablate=clean is None, parts=parts, tell=tell
        )

    settings = {
        "analysis": "patching", "clean": clean, "corrupt": corrupt, "held_out": held_out,
        "pairs": pairs, "site": site,
    }  # fmt: skip
    run_analysis(run_folder, step, over_steps, out, as_json, compute, settings)

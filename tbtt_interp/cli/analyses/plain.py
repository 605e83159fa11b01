"""The analyses' commands that have no options of their own."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from tbtt_interp.cli.analyses.running import Out, OverSteps, run_analysis
from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson

if TYPE_CHECKING:
    from tbtt_interp.analyses.findings import Result, Tell
    from tbtt_interp.analyses.parts import Parts
    from tbtt_interp.analyses.subject import Subject


def plain_command(name: str, question: str) -> Callable[..., None]:
    """The command of an analysis by its name, with the question that it answers as its help."""

    def command(
        run_folder: RunFolder,
        step: Step = None,
        over_steps: OverSteps = False,
        out: Out = None,
        as_json: AsJson = False,
    ) -> None:
        def compute(subject: "Subject", parts: "Parts", tell: "Tell") -> "Result":
            analyse = getattr(import_module(f"tbtt_interp.analyses.{name}"), f"analyse_{name}")
            return analyse(subject, parts=parts, tell=tell)

        run_analysis(run_folder, step, over_steps, out, as_json, compute, {"analysis": name})

    command.__doc__ = f"{question}\n\ntbtt analyses {name} runs/arithmetic-medium-file"
    return command

"""`tbtt analyses NAME RUN`: what moves the answer, through which parts, and how it is laid out."""

import typer

from tbtt_interp.analyses.registry import ANALYSES
from tbtt_interp.cli.analyses.plain import plain_command

COMMANDS = {
    "overview": plain_command(
        "overview", "Run every analysis at quick settings and rank what was found beside its null."
    ),
}
analyses = typer.Typer(
    help="What moves an answer, through which parts, and how the task is laid out in the weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for name, command in COMMANDS.items():
    if name not in ANALYSES:
        analyses.command(name)(command)

"""`tbtt analyses NAME RUN`: what moves the answer, through which parts, and how it is laid out."""

import typer

from tbtt_interp.cli.analyses.additivity import additivity_command
from tbtt_interp.cli.analyses.attention import attention_command
from tbtt_interp.cli.analyses.attribution import attribution_command
from tbtt_interp.cli.analyses.geometry import geometry_command
from tbtt_interp.cli.analyses.memorization import memorization_command
from tbtt_interp.cli.analyses.order import order_command
from tbtt_interp.cli.analyses.overview import overview_command
from tbtt_interp.cli.analyses.patching import patching_command
from tbtt_interp.cli.analyses.paths import paths_command

analyses = typer.Typer(
    help="What moves an answer, through which parts, and how the task is laid out in the weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
analyses.command("overview")(overview_command)
analyses.command("patching")(patching_command)
analyses.command("paths")(paths_command)
analyses.command("attention")(attention_command)
analyses.command("attribution")(attribution_command)
analyses.command("geometry")(geometry_command)
analyses.command("additivity")(additivity_command)
analyses.command("order")(order_command)
analyses.command("memorization")(memorization_command)

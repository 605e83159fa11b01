"""The command lines: `tbtt` and its subcommands, also reached as `python -m tbtt_interp.train`.

A mistake in what was asked is one line on standard error and exit status 2.
"""

import sys
from collections.abc import Sequence

import typer
from typer import TyperException

from tbtt_interp.cli.analyses import analyses
from tbtt_interp.cli.answers import ask_command, evaluate_command, runs_command
from tbtt_interp.cli.exchange import export_command, import_command
from tbtt_interp.cli.exploring import explore_command
from tbtt_interp.cli.models import models_command
from tbtt_interp.cli.probing import probes_command
from tbtt_interp.cli.registered import add_commands
from tbtt_interp.cli.reporting import compare_command, report_command
from tbtt_interp.cli.sweeping import sweep_command
from tbtt_interp.cli.training import train_command
from tbtt_interp.errors import TbttError

app = typer.Typer(
    help="When does a model learn the rule, and when does it memorize?",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("train")(train_command)
app.command("sweep")(sweep_command)
app.command("runs")(runs_command)
app.command("models")(models_command)
app.command("evaluate")(evaluate_command)
app.command("ask")(ask_command)
app.command("probes")(probes_command)
add_commands(analyses)
app.add_typer(analyses, name="analyses")
app.command("explore")(explore_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("import")(import_command)
app.command("export")(export_command)


def main(arguments: Sequence[str] | None = None, *, program: str = "tbtt") -> int:
    """Runs a command and returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    add_commands(analyses)  # those that were registered since this module was imported
    try:
        status = app(arguments, prog_name=program, standalone_mode=False)
    except (TbttError, TyperException) as error:
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        one_line = " ".join(message.split())
        print(f"error: {one_line}" if one_line else "", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


def command() -> None:
    """The console script."""
    sys.exit(main())

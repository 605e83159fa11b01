"""The command lines: `tbtt` and its subcommands, also reached as `python -m tbtt_interp.train`.

A user error is one line on standard error, with exit status 2.
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any

import typer
import typer.core
from typer import Option, TyperException

from tbtt_interp.cli.calibrating import calibrate_command
from tbtt_interp.cli.exploring import explore_command
from tbtt_interp.cli.probing import probes_command
from tbtt_interp.cli.registered import add_commands, analyses
from tbtt_interp.cli.reporting import compare_command, report_command
from tbtt_interp.cli.runs import (
    ask_command,
    evaluate_command,
    export_command,
    import_command,
    models_command,
    runs_command,
)
from tbtt_interp.cli.sweeping import sweep_command
from tbtt_interp.cli.training import train_command, verify_command
from tbtt_interp.errors import TbttError, brief, printable
from tbtt_interp.threads import use_one_thread
from tbtt_interp.versions import __version__

GROUPS = {
    "Train": ("train", "sweep", "verify"),
    "Look": ("runs", "models", "evaluate", "ask", "explore"),
    "Explain": ("probes", "analyses", "compare", "report", "calibrate"),
    "Share": ("import", "export"),
}


class Grouped(typer.core.TyperGroup):
    """The commands under what they are for, with one whole line each."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the groups instead of one list."""
        for group, names in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name, self.commands[name].short_help) for name in names])


app = typer.Typer(
    cls=Grouped,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
COMMANDS = {
    "train": train_command, "sweep": sweep_command, "runs": runs_command,
    "models": models_command, "evaluate": evaluate_command, "ask": ask_command,
    "probes": probes_command, "analyses": analyses, "explore": explore_command,
    "compare": compare_command, "report": report_command, "import": import_command,
    "export": export_command, "verify": verify_command, "calibrate": calibrate_command,
}  # fmt: skip
MANY_THREADS = ("train", "sweep", "verify")
for name, command in COMMANDS.items():
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, short_help=command.info.help)
    else:  # the whole first line, where typer would cut it
        app.command(name, short_help=(command.__doc__ or "").splitlines()[0])(command)
add_commands()


def print_version(is_asked: bool) -> bool:
    """Prints the version and ends, where it is asked for."""
    if is_asked:
        print(f"tbtt_interp {__version__}")
        raise typer.Exit
    return is_asked


@app.callback()
def options(
    version: Annotated[
        bool,
        Option("--version", callback=print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """When does a model learn the rule, and when does it memorize?"""


def main(arguments: Sequence[str] | None = None, *, program: str = "tbtt") -> int:
    """Runs a command and returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] and arguments[0] not in MANY_THREADS:
        use_one_thread()
    add_commands()  # those that were registered since this module was imported
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # codes for what the locale cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(arguments, prog_name=program, standalone_mode=False)
    except (TbttError, TyperException, OSError, UnicodeError) as error:
        one_line = " ".join(printable(_message(error), keep="\n\t").split())
        print(f"error: {one_line}" if one_line else "", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


def _message(error: Exception) -> str:
    if isinstance(error, TyperException):
        return error.format_message()
    if isinstance(error, UnicodeEncodeError):
        name = brief(error.object)
        return f"{name} cannot be a file's name in this locale: set PYTHONUTF8=1, or rename it"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written ({error.strerror}): give another path"
    return str(error)


def command_line() -> None:
    """The console script."""
    sys.exit(main())

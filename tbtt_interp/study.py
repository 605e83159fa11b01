"""The arguments of a study: a script of cells about one question, made to be changed."""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tbtt_interp import plots
from tbtt_interp.errors import TbttError
from tbtt_interp.threads import use_one_thread

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def study_arguments(*default: str, most: int | None = 1) -> tuple[list[Path], list[Path]]:
    """The runs that the study is given, and the files that its figure is written to.

    A notebook has no arguments of its own, so both are the defaults there. After this call an error
    of this package ends the script as it ends a command: in one line, with exit status 2. Torch and
    BLAS compute on one thread, as in a command.

    Args:
        default: the runs if none is given: folders, or names that `tbtt models` lists.
        most: how many runs the study takes; None is any number.
    Raises:
        TbttError: if more runs are given.
    """
    sys.excepthook = _end_as_a_command
    use_one_thread()
    words = [] if "ipykernel" in sys.modules else sys.argv[1:]
    paths = [Path(word) for word in words]
    files = [path for path in paths if path.suffix in plots.SUFFIXES and not path.is_dir()]
    runs = [path for path in paths if path not in files]
    if most is not None and len(runs) > most:
        raise TbttError(
            f"this study is about {most} run and got {len(runs)}: {' '.join(map(str, runs))}; "
            f"figures end in {', '.join(plots.SUFFIXES)}"
        )
    return runs or [Path(word) for word in default], files


def save_figure(figure: "Figure", files: Iterable[Path], title: str, of: str) -> None:
    """Writes a study's figure to files, with a title, and below it what models it shows."""
    for file in files:
        plots.save(figure, file, title=title, of=of)


def _end_as_a_command(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not isinstance(error, TbttError):
        sys.__excepthook__(kind, error, trace)
        return
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    raise SystemExit(2)

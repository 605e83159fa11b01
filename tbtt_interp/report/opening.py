"""The runs that a report is of: those that can be read, and why the others cannot."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tbtt_interp import runs
from tbtt_interp.errors import TbttError
from tbtt_interp.pretrained.models import OVER_TRAINING
from tbtt_interp.runs import Run, find_runs, load_run
from tbtt_interp.tables import check_whole


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Runs that can be read, and by name why others cannot."""

    runs: tuple[Run, ...]
    problems: dict[str, str]


def shipped_places() -> list[Path]:
    """The folders of the models that come with the package, all models at their last step.

    Raises:
        TbttError: if none do.
    """
    shipped = runs.shipped_runs()
    found = [folder for name, folder in shipped.items() if not name.endswith(OVER_TRAINING)]
    if not found:
        raise TbttError(
            "no models come with this package: give runs, as in tbtt report runs/ladder, which "
            "tbtt sweep ladder trains"
        )
    return found


def open_runs(places: Sequence[Path]) -> Opened:
    """Runs, and all runs below folders that are none; each is read once, to see that it can be.

    A run that is given twice is one. Of packed models, one over its training is among those of its
    name already, so that below a folder it is passed by.

    Raises:
        TbttError: if none can be read.
    """
    found, problems, seen = [], {}, set()
    for place in places:
        inside = place.is_dir() and not (place / "config.json").is_file()
        folders = _once(find_runs(place)) if inside else [place]
        if not folders:
            problems[str(place)] = f"{place} has no run in it"
        for folder in folders:
            try:
                run = load_run(folder)
                if run.folder.resolve() not in seen:
                    seen.add(run.folder.resolve())
                    found.append(checked(run))
            except TbttError as error:
                problems[str(folder)] = str(error)
    if not found:
        raise TbttError(
            f"there is no run to report on: {'; '.join(problems.values()) or 'none was given'}"
        )
    return Opened(runs=tuple(found), problems=problems)


def _once(folders: Sequence[Path]) -> list[Path]:
    """Folders without those of models that are beside them, too."""
    doubles = {folder.with_name(folder.name + OVER_TRAINING) for folder in folders}
    return [folder for folder in folders if folder not in doubles]


def checked(run: Run) -> Run:
    """The run, if it is finished and all there.

    Raises:
        TbttError: if its training is not over, or a file of it is damaged.
    """
    check_whole(run)
    run.parameters()
    return run

"""The runs that a page shows, by name, and the checkpoints that are kept of each."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tbtt_interp.errors import TbttError, guess
from tbtt_interp.pretrained.models import OVER_TRAINING
from tbtt_interp.runs import Run, find_runs, load_run, shipped_runs

HOW = (
    "train some, as in python -m tbtt_interp.train --size medium, and open them, as in "
    "python -m tbtt_interp.explore runs/arithmetic-medium-file"
)


class Catalogue:
    """Runs by name. A name is all that an address can say, so that no other file is ever opened."""

    def __init__(self, folders: dict[str, Path], problems: dict[str, str] | None = None) -> None:
        self.folders = folders
        self.problems = problems or {}

    @classmethod
    def of(cls, places: Sequence[Path] = ()) -> "Catalogue":
        """Runs, and all runs below folders that are none; with none, the models that ship.

        Raises:
            TbttError: if there is no run, or none that can be read.
        """
        folders: dict[str, Path] = {}
        problems: dict[str, str] = {}
        if not places:
            folders = shipped_runs()
            if not folders:
                raise TbttError(f"no models come with this package yet: {HOW}")
        for place in places:
            is_run = (place / "config.json").is_file()
            inside = find_runs(place) if place.is_dir() and not is_run else []
            for folder in inside:
                folders[str(folder)] = folder
            if not inside:
                try:
                    folders[str(place)] = folder = load_run(place).folder
                    if (twin := folder.with_name(folder.name + OVER_TRAINING)).is_dir():
                        folders[str(place) + OVER_TRAINING] = twin
                except TbttError as error:
                    problems[str(place)] = str(error)
        for name, folder in list(folders.items()):
            try:
                run = load_run(folder)
                if run.tasks and run.shape and not run.checkpoints:
                    raise TbttError(f"{name} has no checkpoint yet: {run.resuming}")
            except TbttError as error:
                problems[name] = str(error)
                del folders[name]
        if not folders:
            raise TbttError(f"there is no run to explore: {'; '.join(problems.values())}; {HOW}")
        return cls(_shortened(folders), problems)

    @property
    def names(self) -> list[str]:
        """The runs that one chooses from; a model over its training is at its run's seed."""
        return [n for n in self.folders if n.removesuffix(OVER_TRAINING) not in self.folders
                or not n.endswith(OVER_TRAINING)]  # fmt: skip

    def run(self, name: str) -> Run:
        """A run by its name, as it is on disk now.

        Raises:
            TbttError: if there is none of that name, or it is gone or damaged.
        """
        if name not in self.folders:
            raise TbttError(
                f"run '{name}' is not open here{guess(name, self.names)}: choose from the list, or "
                "give it to tbtt explore"
            )
        return self._read(name)

    def _read(self, name: str) -> Run:
        folder = self.folders[name]
        config = stamp_of(folder / "config.json")
        kept = folder / "checkpoints"
        return _run(folder, config, stamp_of(kept) if kept.is_dir() else None)

    def steps(self, name: str) -> dict[int, Run]:
        """By step that is kept, the run that has it: of all seeds, or of one over its training."""
        run, twin = self.run(name), name + OVER_TRAINING
        found = dict.fromkeys(run.checkpoints, run)
        if twin in self.folders and {*run.seeds} & {*(over := self._read(twin)).seeds}:
            found = dict.fromkeys(over.checkpoints, over) | found
        return dict(sorted(found.items()))


def _shortened(folders: dict[str, Path]) -> dict[str, Path]:
    """The folders by their own names, where no two have the same."""
    last = [folder.name for folder in folders.values()]
    if len(set(last)) < len(last):
        return folders
    return dict(zip(last, folders.values(), strict=True))


def stamp_of(path: Path) -> tuple[int, int]:
    """What tells a file from another in its place."""
    try:
        found = path.stat()
    except OSError as error:
        raise TbttError(f"{path} is gone: restore it, or open another run") from error
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=256)
def _run(folder: Path, config: tuple[int, int], kept: tuple[int, int] | None) -> Run:
    """A run as it was when its configuration and its list of checkpoints were last changed."""
    return load_run(folder)

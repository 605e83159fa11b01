"""Whether a folder holds a run of a recipe already, or something else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run, load_run
from tbtt_interp.train.recipe import Recipe


def existing_run(recipe: Recipe, folder: Path, *, resume: bool) -> Run | None:
    """The run of this recipe that a folder holds already, if any.

    Raises:
        TbttError: if it is of another recipe, or unfinished and not to be resumed.
    """
    if not (folder / "config.json").is_file():
        return None
    run = load_run(folder)
    theirs, ours = run.config.recipe, plain(recipe.as_table())
    if theirs is None:
        raise TbttError(f"{folder} holds an imported model: give another --out FOLDER")
    if theirs != ours:
        different = _difference(theirs, ours)
        raise TbttError(
            f"{folder} holds a run made with another recipe ({different}): "
            "give another --out FOLDER, or the same settings"
        )
    same = [
        mine.examples == theirs.examples
        for mine, theirs in zip(recipe.tasks(), run.tasks, strict=True)
    ]
    if not all(same):
        raise TbttError(
            f"{recipe.task} has changed since {folder} was begun with it: restore it, or give "
            "another --out FOLDER"
        )
    if not run.is_complete and not resume:
        raise TbttError(
            f"{folder} holds an unfinished run of this recipe: add --resume to go on with it, "
            "or give another --out FOLDER"
        )
    return run


def plain(value: Any) -> Any:
    """Data as it comes back from JSON: tuples as lists."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    for key, here in ours.items():
        there = theirs.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            if there != here:
                return _difference(there, here)
        elif there != here:
            return f"{key} is {there!r} there and {here!r} here"
    return "it has other keys"

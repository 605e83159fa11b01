"""Finished parts of a long analysis, kept so that an interrupted one goes on where it was."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tbtt_interp.errors import TbttError
from tbtt_interp.runs import write_json, write_whole

Arrays = dict[str, np.ndarray]


class Parts:
    """Arrays by name, each computed once: in memory, or in a folder that survives an interruption.

    Args:
        folder: where they are kept; None keeps none.
        settings: all that decides what they are; a folder of other settings is refused.
    """

    def __init__(
        self, folder: Path | None = None, settings: Mapping[str, object] | None = None
    ) -> None:
        self.folder = folder
        if folder is None:
            return
        plain = json.loads(json.dumps(settings or {}, default=str))
        path = folder / "settings.json"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, plain)
        elif (known := json.loads(path.read_text(encoding="utf-8"))) != plain:
            other = [key for key in {**known, **plain} if known.get(key) != plain.get(key)]
            raise TbttError(
                f"{folder} has parts of another analysis (other {', '.join(other)}): nothing was "
                "written; finish that one with its own options, or give another --out FOLDER"
            )

    def inside(self, name: str) -> "Parts":
        """Parts of one among several analyses, by its name."""
        return Parts(None if self.folder is None else self.folder / name)

    def get(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """A part, computed if it is not there yet."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{name}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return dict(kept)
        arrays = compute()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_whole(path, buffer.getvalue())
        return arrays

"""Whether a run's files are those that training wrote: the hashes in them, written and checked.

`summary.json` lists the SHA-256 of a finished run's files, and has one of its own. A file of
tensors has its run, its step and the hash of its tensors in its metadata. Runs trained before these
hashes existed are not checked.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tbtt_interp.bounds import JSON
from tbtt_interp.errors import TbttError
from tbtt_interp.files import AGAIN, file_hashes, weights_hash, write_json

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]


def identity(
    recipe: Mapping[str, Any] | None, seeds: Sequence[int], step: int,
    tensors: "dict[str, Tensor]",
) -> Row:  # fmt: skip
    """What a file of tensors says of itself: step, seeds, SHA-256 of the tensors and the recipe."""
    text = json.dumps(recipe, sort_keys=True).encode()
    return {"step": step, "seeds": list(seeds), "weights": weights_hash(tensors),
            "recipe": hashlib.sha256(text).hexdigest()}  # fmt: skip


def check_identity(path: Path, known: Row, expected: Row) -> None:
    """Raises a TbttError unless a file's metadata are of the run and step that `identity` says."""
    for key, own in expected.items():
        if key != "weights" and known.get(key, own) != own:
            raise TbttError(f"{path} is not this run's (it has another {key}): {AGAIN}")


def write_summary(folder: Path, summary: Row, tensors: "dict[str, Tensor]") -> None:
    """Writes summary.json, with the hashes of the final tensors, of every file, and its own."""
    summary = summary | {"weights": weights_hash(tensors), "files": file_hashes(folder)}
    write_json(folder / "summary.json", summary | {"summary": _summary_hash(summary)})


def read_summary(folder: Path) -> Row:
    """The content of summary.json; raises a TbttError where it is damaged."""
    _, summary = read_json(folder / "summary.json")
    if isinstance(summary, dict) and isinstance(summary.get("files", {}), dict):
        expected = _summary_hash(summary)
        if summary.get("summary", expected) == expected:
            return summary
    raise damaged_summary(folder)


def damaged_summary(folder: Path) -> TbttError:
    """The error for a summary.json that is not as it was written."""
    path = folder / "summary.json"
    then = f"delete it, and tbtt train --resume {folder} writes it again"
    return TbttError(f"{path} is damaged: restore it from a copy, or {then}")


def _summary_hash(summary: Row) -> str:
    """SHA-256 of a summary without the seconds it took, which differ between the same runs."""
    rest = {key: value for key, value in summary.items() if key not in ("seconds", "summary")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_hash(path: Path, content: bytes | str | None, folder: Path | None = None) -> None:
    """Raises a TbttError unless a file of a finished run is the one that training wrote.

    Args:
        content: the file's bytes, or their SHA-256; None where there is no file.
        folder: the run's; None is the file's own.
    """
    folder = folder or path.parent
    if not (folder / "summary.json").is_file():
        return
    expected = read_summary(folder).get("files", {}).get(str(path.relative_to(folder)))
    found = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else content
    if expected not in (None, found):
        why = "its SHA-256 is not that in summary.json" if content is not None else "it is gone"
        raise TbttError(f"{path} is not as training wrote it ({why}): {AGAIN}")


def check_none_lost(folder: Path) -> None:
    """Raises a TbttError where a file of a finished run is gone."""
    listed = read_summary(folder).get("files", {}) if (folder / "summary.json").is_file() else {}
    for name in listed:
        if not (folder / name).is_file():
            check_hash(folder / name, None, folder)


def read_json(path: Path) -> tuple[bytes, Any]:
    """A file's bytes, and what they say; raises a TbttError where they are no JSON."""
    try:
        if (size := path.stat().st_size) > JSON:
            raise ValueError(f"it has {size:,} bytes, of which at most {JSON:,} are read")
        content = path.read_bytes()
        return content, json.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TbttError(f"{path} is damaged ({error}): restore it from a copy") from error

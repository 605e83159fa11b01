"""Files: written whole or not at all, read with errors that name them, and hashed."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from torch import Tensor

AGAIN = "restore it from a copy, or delete the run's folder and train it again"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that a user named, and refuses where it exists."""
    if path.exists():
        raise TbttError(f"{path} exists: nothing was written; give another name")
    write_whole(path, content)


def write_json(path: Path, value: object) -> None:
    """Writes JSON, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_tensors(
    path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, Any] | None = None
) -> None:
    """Writes tensors as safetensors, whole or not at all, with metadata as one JSON text."""
    from safetensors.torch import save

    path.parent.mkdir(exist_ok=True)
    contiguous = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    # several entries would stand in a random order
    write_whole(path, save(contiguous, metadata and {"tbtt_interp": json.dumps(metadata)}))


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of a run's files, by path: all but summary.json and the model card."""
    paths = [path for pattern in ("con*.json", "corpus.tsv", "metrics.jsonl", "checkpoints/step-*")
             for path in sorted(folder.glob(pattern))]  # fmt: skip
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Reads safetensors; raises a TbttError where the file is damaged or truncated."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise TbttError(f"{path} is damaged or truncated ({error}): {AGAIN}") from error


def weights_hash(tensors: "dict[str, Tensor]") -> str:
    """SHA-256 of tensors' names, shapes and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].numpy(force=True)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def unwritable(path: Path, error: OSError) -> TbttError:
    """The error for a file or folder that cannot be written."""
    reason = error.strerror or error
    return TbttError(f"{path} cannot be written ({reason}): give another --out FOLDER")

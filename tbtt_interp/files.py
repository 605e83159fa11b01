"""Files: written whole or not at all, read with errors that name them, and hashed."""

import errno
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from torch import Tensor

WAIT = 5  # seconds for another training to let go of a folder
# what reading a hostile file may raise
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
AGAIN = "restore it from a copy, or delete the run's folder and train it again"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all, so that it outlasts a power cut."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    sync_folder(path.parent)


def user_cache() -> Path:
    """The folder for what can be made again: `$XDG_CACHE_HOME/tbtt_interp`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tbtt_interp"


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Writes a new folder, whole or not at all: `fill` puts files into it before it appears."""
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)  # of a writing that was killed
    try:
        draft.mkdir(parents=True)
        fill(draft)
        os.replace(draft, folder)
        sync_folder(folder.parent)
    except (OSError, TbttError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise unwritable(folder, error) if isinstance(error, OSError) else error from error


def sync_folder(folder: Path) -> None:
    """Makes a folder's list of names outlast a power cut, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Keeps a folder, which need not exist, for this process; the hold ends with the process.

    Raises a TbttError where another process has it, or nothing can be written beside it.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    path = folder.resolve().parent / f".{folder.resolve().name}.lock"
    new = [parent for parent in path.parents if not parent.exists()]
    end = time.monotonic() + WAIT
    try:
        while True:
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
            file, is_held = open(path, "a+", encoding="utf-8"), False  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_held = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
            except BlockingIOError:
                if time.monotonic() > end:
                    file.seek(0)
                    who = file.read().strip() or "another process"
                    raise TbttError(
                        f"{folder} is being trained by {who}: wait for its end, stop it, or give "
                        "another --out FOLDER"
                    ) from None
                time.sleep(0.1)
            finally:
                if not is_held:
                    file.close()
            if is_held:
                break
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        for parent in new:  # as it was, if nothing came of it
            with suppress(OSError):
                parent.rmdir()


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

    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
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
    return read_with_metadata(path)[0]


def read_with_metadata(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any], str]":
    """Tensors, what `write_tensors` put beside them, and the file's SHA-256.

    Raises a TbttError where the file cannot be read, or its tensors have another hash than it says.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = dict(json.loads(header.get("__metadata__", {}).get("tbtt_interp", "{}")))
    except (SafetensorError, *UNREADABLE) as error:
        raise TbttError(f"{path} is damaged or truncated ({error}): {AGAIN}") from error
    if metadata.get("weights", expected := weights_hash(tensors)) != expected:
        what = f"{path} is damaged (its tensors do not have the SHA-256 in its metadata)"
        raise TbttError(f"{what}: {AGAIN}")
    return tensors, metadata, hashlib.sha256(content).hexdigest()


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors by their names, without reading the tensors.

    Raises a TbttError where the file is damaged, or has tensors that are not float32.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            kinds = {name: stored.get_dtype() for name, stored in slices.items()}
            shapes = {name: tuple(stored.get_shape()) for name, stored in slices.items()}
    except (SafetensorError, *UNREADABLE) as error:
        raise TbttError(f"{path} is damaged or truncated ({error}): {AGAIN}") from error
    if strange := [f"{name} of {kind}" for name, kind in kinds.items() if kind != "F32"]:
        raise TbttError(f"{path} has {strange[0]}, and parameters are of F32: {AGAIN}")
    return shapes


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
    reason, then = error.strerror or error, "give another --out FOLDER"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        then = "make room and repeat the command; tbtt train --resume FOLDER continues a training"
    return TbttError(f"{path} cannot be written ({reason}): {then}")

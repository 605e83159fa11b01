"""Runs on a model hub, each as a folder with its card.

Only JSON, safetensors and text are fetched, whatever else a repository holds.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from tbtt_interp.errors import TbttError
from tbtt_interp.pretrained.card import model_card
from tbtt_interp.runs import Run, load_run

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FETCHED = ["config.json", "metrics.jsonl", "summary.json", "corpus.tsv", "README.md",
           "checkpoints/step-*.safetensors"]  # fmt: skip


def push_pretrained(run: Run | str | Path, repo_id: str, *, private: bool = False) -> str:
    """The address of a finished run once it is uploaded, with its checkpoints and a card.

    Args:
        run: or its folder, or the name of one that comes with the package.
        repo_id: "owner/name", made if it is not there; you must be logged in (`hf auth login`).
    """
    run = run if isinstance(run, Run) else load_run(run)
    card = model_card(run, repo_id.rpartition("/")[2])
    with TemporaryDirectory() as folder:
        for path in (path for pattern in FETCHED for path in run.folder.glob(pattern)):
            copy = Path(folder) / path.relative_to(run.folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        with _hub() as hub:
            hub.create_repo(repo_id, private=private, exist_ok=True)
            hub.upload_folder(
                repo_id=repo_id, folder_path=folder,
                commit_message=f"Upload {len(run.seeds)} models of {run.config.size}",
                delete_patterns=FETCHED,  # of an earlier upload: a checkpoint would join this run's
            )  # fmt: skip
            return f"{hub.endpoint}/{repo_id}"


def load_from_hub(repo_id: str, *, revision: str | None = None) -> Run:
    """A run from a model hub at a branch, tag or commit, kept in huggingface_hub's cache."""
    with _hub() as hub:
        folder = hub.snapshot_download(repo_id, revision=revision, allow_patterns=FETCHED)
    return load_run(str(folder))


@contextmanager
def _hub() -> "Iterator[HfApi]":
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise TbttError(
            "a model hub needs huggingface_hub, which is not installed: "
            "pip install 'tbtt_interp[hub]'"
        ) from error
    # a lost connection is an error of the library below, a base class of the hub's own error
    lost = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    try:
        yield HfApi()
    except (*lost, OSError, HFValidationError) as error:
        reason = " ".join(str(error).split())
        raise TbttError(f"the model hub refused or was not reached: {reason}") from error

"""Runs on a model hub, each as a folder with its card, or as models for transformers.

Only JSON, safetensors and text are fetched, whatever else a repository holds.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from tbtt_interp.errors import TbttError, brief, folder_word, unknown
from tbtt_interp.files import user_cache
from tbtt_interp.pretrained.card import model_card
from tbtt_interp.pretrained.gpt2 import WEIGHTS, export_huggingface, import_huggingface
from tbtt_interp.runs import Run, load_run

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FETCHED = ["config.json", "metrics.jsonl", "summary.json", "corpus.tsv", "README.md",
           "checkpoints/step-*.safetensors"]  # fmt: skip
GPT2 = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        WEIGHTS]  # fmt: skip
FETCHED += [place + name for name in GPT2 for place in ("", "seed-*/")]  # a * matches folders, too


def push_pretrained(
    run: Run | str | Path, repo_id: str, *, to: str = "tbtt_interp",
    steps: Iterable[int] | None = None, private: bool = False,
) -> str:  # fmt: skip
    """The address of a finished run once it is uploaded, with its checkpoints and a card.

    Args:
        run: or its folder, or the name of one that comes with the package.
        repo_id: "owner/name", made if it is not there; you must be logged in (`hf auth login`).
        to: tbtt_interp is the run as it is; huggingface is a GPT2LMHeadModel per seed.
        steps: of the models for transformers; None is the last.
    """
    run = run if isinstance(run, Run) else load_run(run)
    name = repo_id.rpartition("/")[2]
    if to not in ("tbtt_interp", "huggingface"):
        raise unknown("format", to, ["tbtt_interp", "huggingface"])
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / folder_word(name or "model")
        if to == "huggingface":
            export_huggingface(run, folder, steps=None if steps is None else list(steps))
        else:
            _copy_run(run, folder, model_card(run, name))
        with _hub(repo_id) as hub:
            hub.create_repo(repo_id, private=private, exist_ok=True)
            hub.upload_folder(
                repo_id=repo_id, folder_path=folder,
                commit_message=f"Upload {len(run.seeds)} models of {run.config.size}",
                delete_patterns=FETCHED,  # of an earlier upload: a checkpoint would join this run's
            )  # fmt: skip
            return f"{hub.endpoint}/{repo_id}"


def _copy_run(run: Run, folder: Path, card: str) -> None:
    """Copies what is fetched of a run, with a new card."""
    for path in (path for pattern in FETCHED for path in run.folder.glob(pattern)):
        copy = folder / path.relative_to(run.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (folder / "README.md").write_text(card, encoding="utf-8")


def load_from_hub(repo_id: str, *, revision: str | None = None, task: str | None = None) -> Run:
    """A run from a model hub at a branch, tag or commit, kept in a cache.

    Args:
        repo_id: "owner/name" of a run, or of models for transformers, which are imported.
        task: of models that do not name theirs; see `import_huggingface`.
    """
    with _hub(repo_id) as hub:
        found = hub.snapshot_download(repo_id, revision=revision, allow_patterns=FETCHED)
    folder = Path(found)
    if (folder / "checkpoints").is_dir():
        return load_run(folder)
    words = map(folder_word, (repo_id, folder.name, task or "own"))
    imported = user_cache() / "hub" / "--".join(words)
    if not imported.is_dir():
        imported.parent.mkdir(parents=True, exist_ok=True)
        import_huggingface(folder, imported, task=task)
    return load_run(imported)


@contextmanager
def _hub(repo_id: str) -> "Iterator[HfApi]":
    """The hub's client, whose errors become one line each."""
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
        raise TbttError(
            f"the model hub refused {brief(repo_id)} or was not reached: check the name "
            f"(owner/name), the connection and your login (hf auth login); it says: {reason}"
        ) from error

"""A run goes to a model hub and comes back, and nothing else comes with it."""

import shutil
import sys
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects, validate_repo_id
from tiny import contents

import tbtt_interp as tbtt
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import load_run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """huggingface_hub's functions by their own signatures, on folders here."""
    root = tmp_path / "hub"

    def create_repo(_: HfApi, repo_id: str, *, exist_ok: bool, private: bool) -> None:
        (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(
        _: HfApi, *, repo_id: str, folder_path: Path, delete_patterns: list[str] | None = None, **__
    ) -> None:
        stale = delete_patterns or []
        for name in filter_repo_objects(contents(root / repo_id), allow_patterns=stale):
            (root / repo_id / name).unlink()
        shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def snapshot_download(
        _: HfApi, repo_id: str, *, revision: str | None, allow_patterns: list[str]
    ) -> str:
        validate_repo_id(repo_id)
        if not (root / repo_id).is_dir():
            raise FileNotFoundError(f"404: no\nrepository {repo_id}")
        found = contents(root / repo_id)
        for name in filter_repo_objects(found, allow_patterns=allow_patterns):
            path = tmp_path / "cache" / repo_id / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(found[name])
        return str(tmp_path / "cache" / repo_id)

    for fake in (create_repo, upload_folder, snapshot_download):
        real = getattr(HfApi, fake.__name__)
        monkeypatch.setattr(HfApi, fake.__name__, create_autospec(real, side_effect=fake))
    return root


def test_a_run_goes_to_a_hub_and_comes_back(file_run, hub):
    assert tbtt.push_pretrained(file_run.folder, "me/small").endswith("/me/small")
    run = tbtt.load_from_hub("me/small")
    assert (run.config, run.summary()) == (file_run.config, file_run.summary())
    assert run.checkpoints.keys() == file_run.checkpoints.keys()
    assert run.folder != file_run.folder and not (run.folder / "resume").exists()
    for step in run.checkpoints:
        for name, stacked in file_run.parameters(step).items():
            assert torch.equal(run.parameters(step)[name], stacked)
    assert "# small\n" in (run.folder / "README.md").read_text()


def test_a_run_that_was_fetched_is_pushed_as_it_is(file_run, hub):
    tbtt.push_pretrained(file_run, "me/small")
    first = contents(hub / "me/small")
    tbtt.push_pretrained(tbtt.load_from_hub("me/small"), "you/small")
    assert contents(hub / "you/small") == first


def test_only_data_is_fetched_and_what_is_stale_goes(file_run, hub):
    tbtt.push_pretrained(file_run, "me/small")
    (hub / "me/small/ckpt.pt").write_bytes(b"a pickle")
    (hub / "me/small/checkpoints/step-009999.safetensors").write_bytes(b"of an earlier upload")
    (hub / "me/small/corpus.tsv").write_bytes(b"of another task")
    tbtt.push_pretrained(file_run, "me/small")
    run = tbtt.load_from_hub("me/small")
    assert run.checkpoints.keys() == file_run.checkpoints.keys()
    assert {path.suffix for path in run.folder.rglob("*") if path.is_file()} == {
        ".json", ".jsonl", ".safetensors", ".md"
    }  # fmt: skip


def test_what_the_hub_refuses_is_one_line(file_run, hub, tmp_path):
    reason = "the model hub refused or was not reached: 404: no repository me/none"
    with pytest.raises(TbttError, match=reason):
        tbtt.load_from_hub("me/none")
    with pytest.raises(TbttError, match="Repo id must"):
        tbtt.load_from_hub("no name//")
    shutil.copytree(file_run.folder, tmp_path / "cut-off")
    (tmp_path / "cut-off/summary.json").unlink()
    with pytest.raises(TbttError, match="is not finished"):
        tbtt.push_pretrained(load_run(tmp_path / "cut-off"), "me/cut-off")
    assert not hub.exists()


def test_without_its_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(TbttError, match=r"is not installed: pip install 'tbtt_interp\[hub\]'"):
        tbtt.load_from_hub("me/none")

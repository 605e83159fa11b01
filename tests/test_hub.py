"""A run goes to a model hub on loopback and comes back, and nothing else comes with it."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Files, hub_on_loopback
from transformers import AutoModelForCausalLM

import tbtt_interp as tbtt
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run, load_run


@pytest.fixture
def repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Files]]:
    with hub_on_loopback() as (address, files):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_nobody")
        yield files


def assert_same_weights(run: Run, again: Run) -> None:
    assert again.checkpoints.keys() == run.checkpoints.keys()
    for step in run.checkpoints:
        ours, theirs = run.parameters(step), again.parameters(step)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_comes_back_as_it_was_without_what_is_no_data_or_stale(
    file_run, repositories, tmp_path
):
    tbtt.push_pretrained(file_run, "me/small")
    first = dict(repositories["me/small"])
    for name in ("ckpt.pt", "checkpoints/step-009999.safetensors", "corpus.tsv"):
        repositories["me/small"][name] = b"a pickle, or of an earlier upload"
    assert tbtt.push_pretrained(file_run.folder, "me/small").endswith("/me/small")
    run = tbtt.load_from_hub("me/small")
    assert_same_weights(file_run, run)
    assert (run.config, run.summary()) == (file_run.config, file_run.summary())
    assert run.folder != file_run.folder and not (run.folder / "resume").exists()
    assert "# small\n" in (run.folder / "README.md").read_text()
    assert {path.suffix for path in run.folder.rglob("*") if path.is_file()} == {
        ".json", ".jsonl", ".safetensors", ".md"
    }  # fmt: skip
    tbtt.push_pretrained(run, "you/small")  # what was fetched is pushed as it is
    assert repositories["you/small"] == first


def test_a_run_goes_as_models_for_transformers(repositories, tmp_path):
    run = tbtt.load_run("arithmetic-small-line")
    for to in ("tbtt_interp", "huggingface"):
        tbtt.push_pretrained(run, "me/small", to=to)
    assert not any(name.startswith("checkpoints/") for name in repositories["me/small"])
    again = tbtt.load_from_hub("me/small")
    assert (again.seeds, again.task.name) == (run.seeds, "arithmetic")
    assert_same_weights(run, again)
    commit = again.config.environment["imported_from"]
    model = AutoModelForCausalLM.from_pretrained(
        f"{tmp_path}/hub/models--me--small/snapshots/{commit}", subfolder="seed-1"
    )
    assert torch.equal(model.transformer.wte.weight.detach(), run.parameters()["embed.W_E"][1])


def test_what_the_hub_or_the_command_refuses_is_one_line(file_run, repositories, monkeypatch):
    for name, message in (
        ("me/none", r"the model hub refused 'me/none' .*: check the name \(owner/name\)"),
        ("no name//", "it says: Repo id must"),
    ):  # fmt: skip
        with pytest.raises(TbttError, match=message) as caught:
            tbtt.load_from_hub(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(TbttError, match="format 'onnx' is unknown"):
        tbtt.push_pretrained(file_run, "me/small", to="onnx")
    shutil.copytree(file_run.folder, "cut-off")
    Path("cut-off/summary.json").unlink()
    with pytest.raises(TbttError, match="is not finished"):
        tbtt.push_pretrained(load_run("cut-off"), "me/cut-off")
    assert not repositories
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(TbttError, match=r"is not installed: pip install 'tbtt_interp\[hub\]'"):
        tbtt.load_from_hub("me/none")

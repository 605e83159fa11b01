"""A killed run resumes to the same bits; a run that cannot resume is refused with its reason."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import short, untimed

from tbtt_interp import runs
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import load_run
from tbtt_interp.train import training
from tbtt_interp.train.recipe import recorded_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback
from tbtt_interp.train.training import train_models


class Killed(BaseException):
    """As final as a signal: nothing catches it."""


class Deadly(TrainingCallback):
    """The process is gone at this step, or at the first that is told after it."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, step: int) -> None:
        if step >= self.at:
            raise Killed


@pytest.fixture(autouse=True)
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is saved at every evaluation, however long that takes."""
    monkeypatch.setattr(training, "SAVING", math.inf)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    os.chdir(tmp_path_factory.mktemp("whole"))
    return untimed(train_models(short(), "run").folder)


@pytest.fixture
def killed() -> None:
    """A run that is gone at step 10, between two evaluations."""
    with pytest.raises(Killed):
        train_models(short(), "run", callback=Deadly(10), runtime=Runtime(threads=1))


WRITES = 23  # files that a short run writes or replaces, the folder itself included


def dying(at: int, moment: str) -> Callable[[Path, Path], None]:
    """os.replace, but for one call, before or after which the process is gone."""
    count, replace = itertools.count(1), os.replace

    def replace_or_die(source: Path, target: Path) -> None:
        is_last = next(count) == at
        if not (is_last and moment == "before"):
            replace(source, target)
        if is_last:
            raise Killed

    return replace_or_die


@pytest.mark.parametrize(
    ("write", "moment"), [*((k, "before") for k in range(1, WRITES + 1)), (WRITES, "after")]
)
def test_killed_at_any_file_a_resumed_run_is_the_same_to_the_bit(
    write: int, moment: str, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(runs.os, "replace", dying(write, moment))
        train_models(short(), "run")
    assert Path("run/summary.json").exists() == (moment == "after")
    train_models(short(), "run", resume=True)
    assert untimed(Path("run")) == uninterrupted
    assert not Path("run/resume").exists()
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_a_compiled_run_goes_on_in_its_own_bits_alone(killed, monkeypatch) -> None:
    def refused(message: str, **runtime: bool) -> None:
        with pytest.raises(TbttError, match=message):
            train_models(short(), "run", resume=True, runtime=Runtime(**runtime))

    refused("started by the compiled kernel, on the CPU, and must continue so", compiled=False)
    with monkeypatch.context() as patched:
        patched.setenv("CXX", "/no/such/compiler")
        refused("which cannot be built here: install a C")
    path = Path("run/config.json")
    config = json.loads(path.read_text())
    config["environment"] |= {"bits": None}
    path.write_text(json.dumps(config))
    refused("started by a version that gives other weights")


def test_a_killed_process_goes_on_from_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """With a real SIGKILL, through the command line."""
    command = ["train", "--size", "small", "--framing", "line", "--seeds", "1", "--steps", "300",
               "--no-compile", "--threads", "1", "--out", "killed"]  # fmt: skip
    module = [sys.executable, "-m", "tbtt_interp"]
    process = subprocess.Popen([*module, *command], stderr=subprocess.DEVNULL)
    metrics = Path("killed/metrics.jsonl")
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None, "it has ended by itself"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = load_run("killed")
    assert not run.is_complete
    assert main(["train", "--resume", "killed"]) == 0
    assert "Resuming at step" in capsys.readouterr().err
    recipe = recorded_recipe(run.config.recipe or {})
    whole = train_models(recipe, "whole", runtime=Runtime(threads=1, compiled=False))
    assert untimed(run.folder) == untimed(whole.folder)


def test_a_finished_run_is_not_trained_again() -> None:
    folder = train_models(short(), "run").folder
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for resume in (False, True):
        assert train_models(short(), "run", resume=resume, callback=Deadly(1)).is_complete
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps


@pytest.mark.usefixtures("by_torch")
def test_a_corpus_that_changed_is_not_mixed_with_its_run(tmp_path: Path) -> None:
    corpus = tmp_path / "lines.txt"
    corpus.write_text("a=1\nb=2\nc=3\n")
    recipe = short(task=str(corpus))
    assert train_models(recipe, "run").is_complete
    corpus.write_text("a=1\nb=2\nc=2\n")
    with pytest.raises(TbttError, match=r"lines\.txt has changed since the run in run started"):
        train_models(recipe, "run", resume=True)


def test_what_cannot_be_trained_on_is_named(killed: None) -> None:
    def refused(message: str) -> None:
        with pytest.raises(TbttError, match=message):
            train_models(short(), "run", resume=True)

    config, metrics = Path("run/config.json"), Path("run/metrics.jsonl")
    for path, altered in (
        (config, config.read_text().replace('"threads": 1', '"threads": 7')),
        (metrics, metrics.read_text().replace('"margin_seen": -', '"margin_seen": ')),
    ):
        whole = path.read_text()
        path.write_text(altered)
        refused(rf"{path.name} is not as it was when training saved step 9")
        path.write_text(whole)
    checkpoint = Path("run/checkpoints/step-000004.safetensors")
    checkpoint.write_bytes(Path("run/checkpoints/step-000008.safetensors").read_bytes())
    refused(r"step-000004\.safetensors is not this run's")
    checkpoint.unlink()
    refused("run has lost its checkpoint of step 4: restore it from")


@pytest.mark.parametrize(
    ("slots", "start", "then"),
    [
        (["state"], 8, "from the state of step 8."), (["previous"], 9, "from the state of step 9."),
        (["state", "previous"], 0, "Training begins again."), ([], 9, ""),
    ],
)  # fmt: skip
def test_a_damaged_state_costs_steps_and_no_bit(slots, start, then, uninterrupted, killed) -> None:
    for slot in slots:
        path = Path(f"run/resume/{slot}.safetensors")
        path.write_bytes(path.read_bytes()[:500])
    messages, starts, callback = [], [], TrainingCallback()
    callback.on_message = messages.append
    callback.on_start = lambda step, steps: starts.append(step)
    train_models(short(), "run", resume=True, callback=callback)
    assert untimed(Path("run")) == uninterrupted
    assert starts == [start]
    assert len(messages) == bool(slots)
    for message in messages:
        assert f"{slots[0]}.safetensors is" in message and message.endswith(then)


def test_two_trainings_do_not_share_a_folder(monkeypatch) -> None:
    monkeypatch.setattr("tbtt_interp.files.WAIT", 0)
    who = f"run is being trained by process {os.getpid()} on "

    class Watching(TrainingCallback):
        def on_step(self, step: int) -> None:
            with pytest.raises(TbttError, match=who):
                train_models(short(), "run", resume=step > 3)

    assert train_models(short(), "run", callback=Watching()).is_complete
    assert not Path(".run.lock").exists()


def test_torch_resumes_on_other_terms_with_a_warning() -> None:
    runtime = Runtime(threads=1, compiled=False)
    with pytest.raises(Killed):
        train_models(short(), "run", callback=Deadly(10), runtime=runtime)
    messages, callback = [], TrainingCallback()
    callback.on_message = messages.append
    train_models(short(), "run", resume=True, callback=callback, runtime=Runtime(threads=2))
    assert any("started on another device, with other threads" in m for m in messages)

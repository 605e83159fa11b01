"""A killed run resumes to the same bits; a run that cannot resume is refused with its reason."""

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
from tiny import short

from tbtt_interp import runs
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import load_run
from tbtt_interp.train import training
from tbtt_interp.train.training import Runtime, TrainingCallback, train_models


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run, but for the seconds it took."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    summary = json.loads(found["summary.json"])
    return found | {"summary.json": json.dumps(summary | {"seconds": 0}).encode()}


class Killed(BaseException):
    """As final as a signal: nothing catches it."""


class Deadly(TrainingCallback):
    """The process is gone at this step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, step: int) -> None:
        if step == self.at:
            raise Killed


@pytest.fixture(autouse=True)
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is saved at every evaluation, however long that takes."""
    monkeypatch.setattr(training, "SAVING", math.inf)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    os.chdir(folder)
    return contents(train_models(short(), "run").folder)


WRITES = 18  # files that a short run writes or replaces, the folder itself included


def dying(at: int, moment: str) -> Callable[[Path, Path], None]:
    """os.replace, but for one call, before or after which the process is gone."""
    count = 0
    replace = os.replace

    def replace_or_die(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count == at and moment == "before":
            raise Killed
        replace(source, target)
        if count == at:
            raise Killed

    return replace_or_die


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_killed_at_any_file_a_resumed_run_is_the_same_to_the_bit(
    write: int, moment: str, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(runs.os, "replace", dying(write, moment))
        train_models(short(), "run")
    is_over = Path("run/summary.json").exists()
    assert is_over == (write == WRITES and moment == "after")
    train_models(short(), "run", resume=True)
    assert contents(Path("run")) == uninterrupted
    assert not Path("run/resume").exists()
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_a_short_run_writes_as_many_files_as_are_killed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.os, "replace", dying(WRITES + 1, "before"))
    assert train_models(short(), "run").is_complete


@pytest.mark.parametrize("step", [1, 5, 12])
def test_killed_between_files_a_resumed_run_is_the_same_to_the_bit(
    step: int, uninterrupted: dict[str, bytes]
) -> None:
    for _ in range(2):  # the second time it dies on resuming, too
        with pytest.raises(Killed):
            train_models(short(), "run", resume=True, callback=Deadly(step))
    train_models(short(), "run", resume=True)
    assert contents(Path("run")) == uninterrupted


def test_a_compiled_run_resumes_to_the_same_bit_on_other_threads() -> None:
    whole = train_models(short(), "whole", runtime=Runtime(compiled=True, threads=2))
    assert whole.config.environment["compiled"] is True

    with pytest.raises(Killed):
        train_models(short(), "run", callback=Deadly(8), runtime=Runtime(compiled=True, threads=1))
    resumed = train_models(short(), "run", resume=True, runtime=Runtime(threads=2))
    ours, theirs = (contents(run.folder) for run in (resumed, whole))
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"config.json"}:  # which names the threads
        assert ours[name] == theirs[name], name


def test_a_killed_process_goes_on_from_where_it_was(tmp_path: Path) -> None:
    """With a real SIGKILL, through the command line."""
    command = [sys.executable, "-m", "tbtt_interp.train", "--size", "small", "--framing", "line",
               "--seeds", "1", "--steps", "600", "--no-compile", "--threads", "1"]  # fmt: skip
    process = subprocess.Popen([*command, "--out", "killed"], stderr=subprocess.DEVNULL)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    for _ in range(600):
        if metrics.is_file() and len(metrics.read_text().splitlines()) > 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not load_run("killed").is_complete
    again = subprocess.run(
        [*command, "--out", "killed", "--resume"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "Resuming at step" in again.stderr
    subprocess.run([*command, "--out", "whole"], check=True, capture_output=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_finished_run_is_not_trained_again() -> None:
    folder = train_models(short(), "run").folder
    before = contents(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    for resume in (False, True):
        assert train_models(short(), "run", resume=resume, callback=Deadly(1)).is_complete
    assert contents(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps


def test_a_corpus_that_changed_is_not_mixed_with_its_run(tmp_path: Path) -> None:
    corpus = tmp_path / "lines.txt"
    corpus.write_text("a=1\nb=2\nc=3\n")
    recipe = short(task=str(corpus))
    train_models(recipe, "run")
    assert train_models(recipe, "run").is_complete
    corpus.write_text("a=1\nb=2\nc=2\n")
    with pytest.raises(TbttError, match=r"lines\.txt has changed since the run in run started"):
        train_models(recipe, "run", resume=True)


def test_metrics_with_a_hole_are_not_trained_on() -> None:
    with pytest.raises(Killed):
        train_models(short(), "run", callback=Deadly(10))
    metrics = Path("run/metrics.jsonl")
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(TbttError, match=r"metrics\.jsonl lacks the evaluation at step 9"):
        train_models(short(), "run", resume=True)


def test_resuming_on_other_terms_gives_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    callback = TrainingCallback()
    monkeypatch.setattr(callback, "on_message", messages.append)
    with pytest.raises(Killed):
        train_models(short(), "run", callback=Deadly(7), runtime=Runtime(threads=1))
    train_models(short(), "run", resume=True, callback=callback, runtime=Runtime(threads=2))
    assert any("started on another device, with other threads" in m for m in messages)


def test_a_damaged_resume_state_is_named() -> None:
    with pytest.raises(Killed):
        train_models(short(), "run", callback=Deadly(7))
    state = Path("run/resume/state.safetensors")
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(TbttError, match=r"state\.safetensors is damaged or truncated"):
        train_models(short(), "run", resume=True)

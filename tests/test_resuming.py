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
from tiny import contents, short

from tbtt_interp import runs
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import load_run
from tbtt_interp.train import training
from tbtt_interp.train.recipe import recorded_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback
from tbtt_interp.train.training import train_models


def untimed(folder: Path) -> dict[str, bytes]:
    """Every file of a run, but for the seconds it took."""
    found = contents(folder)
    summary = json.loads(found["summary.json"]) | {"seconds": 0}
    return found | {"summary.json": json.dumps(summary).encode()}


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


@pytest.mark.parametrize("write", range(1, WRITES + 1))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_file_a_resumed_run_is_the_same_to_the_bit(
    write: int, moment: str, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(runs.os, "replace", dying(write, moment))
        train_models(short(), "run")
    is_over = Path("run/summary.json").exists()
    assert is_over == (write == WRITES and moment == "after")
    train_models(short(), "run", resume=True)
    assert untimed(Path("run")) == uninterrupted
    assert not Path("run/resume").exists()
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("step", [1, 5, 12])
def test_killed_between_files_a_resumed_run_is_the_same_to_the_bit(step, uninterrupted):
    for _ in range(2):  # the second time it dies on resuming, too
        with pytest.raises(Killed):
            train_models(short(), "run", resume=True, callback=Deadly(step))
    train_models(short(), "run", resume=True)
    assert untimed(Path("run")) == uninterrupted


@pytest.mark.parametrize(
    ("environment", "runtime", "reason"),
    [
        ({"bits": None}, {}, "started by a version that gives other weights"),
        (
            {},
            {"compiled": False},
            "started by the compiled kernel, on the CPU, and must continue so",
        ),
    ],
)
def test_a_compiled_run_goes_on_in_its_own_bits_alone(environment, runtime, reason, killed) -> None:
    path = Path("run/config.json")
    config = json.loads(path.read_text())
    config["environment"] |= environment
    path.write_text(json.dumps(config))
    with pytest.raises(TbttError, match=reason):
        train_models(short(), "run", resume=True, runtime=Runtime(**runtime))


def test_a_killed_process_goes_on_from_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """With a real SIGKILL, through the command line."""
    command = ["train", "--size", "small", "--framing", "line", "--seeds", "1", "--steps", "300",
               "--no-compile", "--threads", "1", "--out", "killed"]  # fmt: skip
    module = [sys.executable, "-m", "tbtt_interp"]
    process = subprocess.Popen([*module, *command], stderr=subprocess.DEVNULL)
    metrics = Path("killed/metrics.jsonl")
    end = time.monotonic() + 60
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 3):
        assert time.monotonic() < end, "this has not happened"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = load_run("killed")
    assert not run.is_complete
    assert main([*command, "--resume"]) == 0
    assert "Resuming at step" in capsys.readouterr().err
    recipe = recorded_recipe(run.config.recipe or {})
    whole = train_models(recipe, "whole", runtime=Runtime(threads=1, compiled=False))
    assert untimed(run.folder) == untimed(whole.folder)


def test_a_finished_run_is_not_trained_again() -> None:
    folder = train_models(short(), "run").folder
    before = untimed(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for resume in (False, True):
        assert train_models(short(), "run", resume=resume, callback=Deadly(1)).is_complete
    assert untimed(folder) == before
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
    metrics = Path("run/metrics.jsonl")
    whole = metrics.read_text()
    metrics.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(
        TbttError, match=r"metrics\.jsonl is not as it was when training saved step 9"
    ):
        train_models(short(), "run", resume=True)
    metrics.write_text(whole)
    checkpoint = Path("run/checkpoints/step-000004.safetensors")
    checkpoint.write_bytes(Path("run/checkpoints/step-000008.safetensors").read_bytes())
    with pytest.raises(TbttError, match=r"step-000004\.safetensors is not this run's"):
        train_models(short(), "run", resume=True)
    checkpoint.unlink()
    with pytest.raises(TbttError, match="run has lost its checkpoint of step 4: restore it from"):
        train_models(short(), "run", resume=True)


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 4]) + content[-8:]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:500], "flipped": flipped, "empty": lambda content: b"",
    "another run's": lambda content: Path("other/resume/state.safetensors").read_bytes(),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("slots", [("state",), ("previous",), ("state", "previous")])
def test_a_damaged_state_costs_steps_and_no_bit(
    damage: str, slots: tuple[str, ...], uninterrupted: dict[str, bytes]
) -> None:
    with pytest.raises(Killed):
        train_models(short(), "run", callback=Deadly(10))
    if damage == "another run's":
        with pytest.raises(Killed):
            train_models(short(first_seed=5), "other", callback=Deadly(10))
    for slot in slots:
        path = Path(f"run/resume/{slot}.safetensors")
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    messages: list[str] = []
    callback, starts = TrainingCallback(), []
    callback.on_message = messages.append
    callback.on_start = lambda step, steps: starts.append(step)
    train_models(short(), "run", resume=True, callback=callback)
    assert untimed(Path("run")) == uninterrupted
    assert starts == [{"state": 8, "previous": 9}[slots[0]] if len(slots) == 1 else 0]
    (message,) = messages
    assert f"{slots[0]}.safetensors is" in message
    then = "Training begins again." if len(slots) > 1 else f"from the state of step {starts[0]}."
    assert message.endswith(then)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_figures_that_were_altered_before_a_resume_are_refused(name: str, killed: None) -> None:
    path = Path("run") / name
    old = {"config.json": b'"threads": 1', "metrics.jsonl": b'"margin_seen": '}[name]
    new = {"config.json": b'"threads": 7', "metrics.jsonl": b'"margin_seen": 1'}[name]
    altered = path.read_bytes().replace(b'"margin_seen": -', b'"margin_seen": ')
    path.write_bytes(altered.replace(old, new))
    with pytest.raises(TbttError, match=rf"{name} is not as it was when training saved step 9"):
        train_models(short(), "run", resume=True)


def test_two_trainings_do_not_share_a_folder(monkeypatch, capsys) -> None:
    monkeypatch.setattr("tbtt_interp.files.WAIT", 0)
    second: list[str] = []

    class Watching(TrainingCallback):
        def on_step(self, step: int) -> None:
            if not second:
                for resume in (False, True):
                    with pytest.raises(TbttError) as caught:
                        train_models(short(), "run", resume=resume)
                    second.append(str(caught.value))

    train_models(short(), "run", callback=Watching())
    who = f"run is being trained by process {os.getpid()} on "
    assert [text.startswith(who) for text in second] == [True, True]
    assert not Path(".run.lock").exists()
    code = "import sys, time; from pathlib import Path; from tbtt_interp.files import sole_owner\n"
    code += "with sole_owner(Path('other')):\n    print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"held\n"
    with pytest.raises(TbttError, match=f"other is being trained by process {process.pid} on"):
        train_models(short(), "other")
    process.kill()
    process.wait()
    assert Path(".other.lock").exists(), "which a dead owner does not hold"
    assert train_models(short(), "other").is_complete
    assert not Path(".other.lock").exists()


def test_a_compiled_run_is_not_ended_by_torch(killed, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(TbttError, match="which cannot be built here: install a C"):
        train_models(short(), "run", resume=True)


def test_torch_resumes_on_other_terms_with_a_warning(monkeypatch) -> None:
    with pytest.raises(Killed):
        runtime = Runtime(threads=1, compiled=False)
        train_models(short(), "run", callback=Deadly(10), runtime=runtime)
    messages: list[str] = []
    callback = TrainingCallback()
    monkeypatch.setattr(callback, "on_message", messages.append)
    train_models(short(), "run", resume=True, callback=callback, runtime=Runtime(threads=2))
    assert any("started on another device, with other threads" in m for m in messages)

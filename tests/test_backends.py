"""Sweeps through real processes, killed, interrupted and spread out: the table stays the same."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
from dask.distributed import Client

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.models import sweep_tables
from tbtt_interp.runs import load_run, read_metrics
from tbtt_interp.train import backends
from tbtt_interp.train.backends import run_sweep
from tbtt_interp.train.sweep import Sweep, read_sweep
from tbtt_interp.train.training import Machine, train_models

RECIPE = """
framing = "line"
[model]
size = "small"
[training]
steps = 160
warmup = 10
decay_until = 160
evaluate_every = 20
checkpoint_every = 0
"""
SWEEP = """
[[grid]]
recipe = "short.toml"
learning_rate = [1e-3, 3e-3, 1e-2]
held_out = [[[5, 7]], [[9, 9]]]
seeds = 1
"""
PATIENCE = 120  # seconds that a slow machine may take to get to what a test waits for


def three_stacks() -> Sweep:
    """Three runs of two models each, of a few seconds."""
    Path("short.toml").write_text(RECIPE, encoding="utf-8")
    Path("three.toml").write_text(SWEEP, encoding="utf-8")
    return read_sweep("three.toml")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    """The sweep's tables, of runs that were trained here one by one."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for stack in three_stacks().stacks:
            train_models(stack.recipe, folder / "out" / stack.name, machine=Machine(threads=1))
    return list(sweep_tables("three", folder / "out"))


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a run has one thread, here as there: another number of them changes last bits."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)


def assert_same(folder: Path, undisturbed: list[pd.DataFrame]) -> None:
    for ours, theirs in zip(sweep_tables("three", folder), undisturbed, strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def until(happens: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "this has not happened"
        time.sleep(0.05)


def at_work(folder: Path) -> list[Path]:
    """Runs that have come some way, and not to their end."""
    runs = [path.parent for path in folder.glob("*/metrics.jsonl")]
    runs = [run for run in runs if not (run / "summary.json").exists()]
    return [run for run in runs if len(read_metrics(run)) > 2]


def pool(parent: int) -> list[psutil.Process]:
    """The processes of a loky pool."""
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if any("popen_loky" in word for word in child.cmdline())]


def test_a_worker_killed_in_the_middle_costs_a_restart_and_no_bit(
    undisturbed: list[pd.DataFrame],
) -> None:
    killed: list[int] = []

    def kill() -> None:
        until(lambda: at_work(Path("out")))
        victim = pool(os.getpid())[0]
        killed.append(victim.pid)
        victim.kill()

    sweep = three_stacks()
    killer = Thread(target=kill)
    killer.start()
    problems = run_sweep(sweep, Path("out"), workers=2)
    killer.join()
    assert problems == {}
    assert killed
    assert_same(Path("out"), undisturbed)
    assert pool(os.getpid()) == [], "none outlives its sweep"


def test_ctrl_c_says_how_to_go_on_and_leaves_nobody_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    three_stacks()
    command = [sys.executable, "-m", "tbtt_interp", "sweep", "three.toml", "--out", "out"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,  # so that the signal goes to all of them, as from a terminal
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    until(lambda: at_work(Path("out")))
    left_over = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert psutil.wait_procs(left_over, timeout=PATIENCE)[1] == []
    assert not Path("out/.sweep").exists()
    done = {path.parent: path.stat().st_mtime_ns for path in Path("out").glob("*/summary.json")}
    assert len(done) < 3
    assert main(["sweep", "three.toml", "--out", "out", "--workers", "2"]) == 0
    assert "6 of 6 cells done." in capsys.readouterr().out
    for folder, stamp in done.items():
        assert (folder / "summary.json").stat().st_mtime_ns == stamp


def test_a_sweep_that_is_killed_leaves_nobody_behind() -> None:
    three_stacks()
    command = [sys.executable, "-m", "tbtt_interp", "sweep", "three.toml", "--out", "out"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until(lambda: at_work(Path("out")))
    left_over = pool(process.pid)
    process.kill()
    process.wait()
    assert left_over and psutil.wait_procs(left_over, timeout=20)[1] == []


@contextmanager
def cluster(workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and workers, each a process, on the loopback alone; its address, and they."""
    own = ["--host", "127.0.0.1", "--no-dashboard"]
    dask = [sys.executable, "-m", "dask"]
    started: list[subprocess.Popen[bytes]] = []
    found = Path("scheduler.json")

    def start(*command: str) -> None:
        started.append(subprocess.Popen([*dask, *command], stderr=subprocess.DEVNULL))

    try:
        start("scheduler", *own, "--port", "0", "--scheduler-file", str(found))
        until(lambda: found.exists() and found.read_text().endswith("}"))
        address = json.loads(found.read_text())["address"]
        for _ in range(workers):
            start("worker", address, *own, "--nthreads", "1", "--no-nanny",
                  "--local-directory", "dask")  # fmt: skip
        yield address, started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_dask_workers_train_the_same_table_though_one_is_killed(
    undisturbed: list[pd.DataFrame],
) -> None:
    sweep = three_stacks()
    with cluster(workers=2) as (address, workers):
        assert address.startswith("tcp://127.0.0.1:")
        told: dict[str, str] = {}

        def kill() -> None:
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=PATIENCE)
                processes = client.run(os.getpid)
                until(lambda: at_work(Path("out")))
                busy = next(worker for worker, tasks in client.processing().items() if tasks)
                os.kill(processes[busy], signal.SIGKILL)

        killer = Thread(target=kill)
        killer.start()
        problems = run_sweep(
            sweep, Path("out"), backend="dask", address=address, told=told.__setitem__
        )
        killer.join()
        assert sorted([worker.poll() or 0 for worker in workers]) == [-signal.SIGKILL, 0]
    assert problems == {}
    assert told == {stack.name: "done" for stack in sweep.stacks}
    assert_same(Path("out"), undisturbed)


def test_a_dask_that_does_not_answer_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "ANSWER", 1)
    three_stacks()
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        command = ["sweep", "three.toml", "--backend", "dask", "--address", address]
        assert main(command) == 2
        err = capsys.readouterr().err
        assert f"no Dask scheduler answers at {address}" in err
        assert len(err.splitlines()) == 1


def test_ray_is_asked_for_what_its_documentation_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against a stand-in with the few calls that are made: ray itself is not run."""
    calls: list[tuple[str, Any]] = []
    threads = ThreadPoolExecutor(1)

    class RemoteFunction:
        def __init__(self, function: Callable[..., Any]) -> None:
            self.function = function

        def options(self, **options: Any) -> "RemoteFunction":
            calls.append(("options", options))
            return self

        def remote(self, *arguments: Any) -> Any:
            return SimpleNamespace(future=lambda: threads.submit(self.function, *arguments))

    def init(address: str | None = None) -> None:
        calls.append(("init", address))
        if address == "ray://nowhere":
            raise ConnectionError("nobody")

    ray = SimpleNamespace(
        init=init, remote=RemoteFunction, cluster_resources=lambda: {"CPU": 2.0},
        shutdown=lambda: calls.append(("shutdown", None)),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", ray)
    Path("two.toml").write_text("[[grid]]\nsize = ['small', 'medium']\nsteps = 2\nseeds = 1")
    sweep = read_sweep("two.toml")
    with pytest.raises(TbttError, match="no Ray cluster answers at ray://nowhere"):
        run_sweep(sweep, Path("out"), backend="ray", address="ray://nowhere")
    calls.clear()
    assert run_sweep(sweep, Path("out"), backend="ray") == {}
    assert calls == [("init", None), ("options", {"max_retries": 3}), ("shutdown", None)]
    assert all(load_run(Path("out") / stack.name).is_complete for stack in sweep.stacks)

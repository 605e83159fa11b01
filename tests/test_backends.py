"""Sweeps through real processes, killed, interrupted and spread out: the table stays the same."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread

import pandas as pd
import psutil
import pytest
from dask.distributed import Client

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import read_metrics
from tbtt_interp.sweep_tables import TABLES, sweep_table
from tbtt_interp.train import backends
from tbtt_interp.train.backends import Executor, run_sweep
from tbtt_interp.train.sweep import Sweep, read_sweep
from tbtt_interp.train.training import Runtime, train_models

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


def three_jobs() -> Sweep:
    """Three jobs of two models each, of a few seconds."""
    Path("short.toml").write_text(RECIPE, encoding="utf-8")
    Path("three.toml").write_text(SWEEP, encoding="utf-8")
    return read_sweep("three.toml")


def tables(folder: Path) -> list[pd.DataFrame]:
    return [sweep_table("three", which, folder) for which in TABLES]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    """The sweep's tables, of runs that were trained here one by one."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for job in three_jobs().jobs:
            train_models(job.recipe, folder / "out" / job.name, runtime=Runtime(threads=1))
    return tables(folder / "out")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a run has one thread, here as there: another number of them changes last bits."""
    monkeypatch.setattr("loky.cpu_count", lambda: 2)


def assert_same(folder: Path, undisturbed: list[pd.DataFrame]) -> None:
    for ours, theirs in zip(tables(folder), undisturbed, strict=True):
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

    sweep = three_jobs()
    killer = Thread(target=kill)
    killer.start()
    failures = run_sweep(sweep, Path("out"), executor=Executor(workers=2))
    killer.join()
    assert failures == {}
    assert killed
    assert_same(Path("out"), undisturbed)
    assert pool(os.getpid()) == [], "none outlives its sweep"


def test_a_job_whose_workers_keep_dying_is_given_up() -> None:
    with backends._loky(1) as run:
        with pytest.raises(TbttError, match="its worker died 3 times"):
            run(partial(os._exit, 1))
        assert run(partial(str, 3)) == "3", "and no other is"


def test_ctrl_c_says_how_to_go_on_and_leaves_nobody_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    three_jobs()
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
    assert err.splitlines()[-1] == "interrupted; the same command continues"
    assert psutil.wait_procs(left_over, timeout=PATIENCE)[1] == []
    assert not Path("out/.sweep").exists()
    done = {path.parent: path.stat().st_mtime_ns for path in Path("out").glob("*/summary.json")}
    assert len(done) < 3
    assert main(["sweep", "three.toml", "--out", "out", "--workers", "2"]) == 0
    assert "6 of 6 cells done." in capsys.readouterr().out
    for folder, stamp in done.items():
        assert (folder / "summary.json").stat().st_mtime_ns == stamp


def test_a_sweep_that_is_killed_leaves_nobody_behind() -> None:
    three_jobs()
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
    sweep = three_jobs()
    with cluster(workers=2) as (address, workers):
        assert address.startswith("tcp://127.0.0.1:")
        messages: dict[str, str] = {}

        def kill() -> None:
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=PATIENCE)
                processes = client.run(os.getpid)
                until(lambda: at_work(Path("out")))
                busy = next(worker for worker, tasks in client.processing().items() if tasks)
                os.kill(processes[busy], signal.SIGKILL)

        killer = Thread(target=kill)
        killer.start()
        executor = Executor(backend="dask", address=address)
        failures = run_sweep(
            sweep, Path("out"), executor=executor, on_finished=messages.__setitem__
        )
        killer.join()
        assert sorted([worker.poll() or 0 for worker in workers]) == [-signal.SIGKILL, 0]
    assert failures == {}
    assert messages == {job.name: "done" for job in sweep.jobs}
    assert_same(Path("out"), undisturbed)


def test_a_dask_that_does_not_answer_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "ANSWER", 1)
    three_jobs()
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        command = ["sweep", "three.toml", "--backend", "dask", "--address", address]
        assert main(command) == 2
        err = capsys.readouterr().err
        assert f"no Dask scheduler answers at {address}" in err
        assert len(err.splitlines()) == 1

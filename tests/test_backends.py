"""Sweeps through real processes, killed, interrupted and spread out: the table stays the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread

import pandas as pd
import psutil
import pytest
from dask.distributed import Client, LocalCluster
from sweeps import OF_A_LADDER, sweep_table
from tiny import train_here

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.metrics import read_metrics
from tbtt_interp.train import backends
from tbtt_interp.train.backends import run_sweep
from tbtt_interp.train.stacks import Runtime
from tbtt_interp.train.sweep import Sweep, read_sweep
from tbtt_interp.train.training import train_models

RECIPE = """
framing = "line"
[model]
size = "small"
[training]
steps = 120
warmup = 10
decay_until = 120
evaluate_every = 15
checkpoint_every = 0
"""
SWEEP = """
[[grid]]
recipe = "short.toml"
learning_rate = [1e-3, 1e-2]
held_out = [[[5, 7]], [[9, 9]]]
seeds = 1
"""
PATIENCE = 120  # seconds that a slow machine may take to get to what a test waits for
COMMAND = ["sweep", "two.toml", "--out", "out"]


def two_jobs() -> Sweep:
    """Two jobs of two models each, of a few seconds."""
    Path("short.toml").write_text(RECIPE, encoding="utf-8")
    Path("two.toml").write_text(SWEEP, encoding="utf-8")
    return read_sweep("two.toml")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    """The sweep's tables, of runs that were trained here one by one."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for job in two_jobs().jobs:
            train_models(job.recipe, folder / job.name, runtime=Runtime(threads=1))
    return [sweep_table("two", which, folder) for which in OF_A_LADDER]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a run has one thread, here as there: another number of them changes last bits."""
    monkeypatch.setattr("loky.cpu_count", lambda: 2)


def assert_same(undisturbed: list[pd.DataFrame]) -> None:
    for which, theirs in zip(OF_A_LADDER, undisturbed, strict=True):
        pd.testing.assert_frame_equal(
            sweep_table("two", which, Path("out")), theirs, check_exact=True
        )


def until(happens: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "this has not happened"
        time.sleep(0.05)


def at_work() -> list[Path]:
    """Runs that have come some way, and not to their end."""
    runs = [path.parent for path in Path("out").glob("*/metrics.jsonl")]
    return [r for r in runs if not (r / "summary.json").exists() and len(read_metrics(r)) > 2]


def pool(parent: int) -> list[psutil.Process]:
    """The processes of a loky pool."""
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if any("popen_loky" in word for word in child.cmdline())]


def test_a_worker_killed_in_the_middle_costs_a_restart_and_no_bit(undisturbed):
    killed: list[int] = []

    def kill() -> None:
        until(at_work)
        victim = pool(os.getpid())[0]
        killed.append(victim.pid)
        victim.kill()

    killer = Thread(target=kill)
    killer.start()
    assert run_sweep(two_jobs(), Path("out"), workers=2) == {}
    killer.join()
    assert killed
    assert_same(undisturbed)
    assert pool(os.getpid()) == [], "none outlives its sweep"


def test_a_job_whose_workers_keep_dying_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "DEATHS", 2)
    with backends._loky(1) as run:
        with pytest.raises(TbttError, match="its worker died 2 times"):
            run(partial(os._exit, 1))
        assert run(partial(str, 3)) == "3", "and no other is"


def test_a_sweep_that_is_killed_or_interrupted_leaves_nobody_behind_and_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_jobs()
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-m", "tbtt_interp", *COMMAND],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            start_new_session=True,  # so that Ctrl-C goes to all of them, as from a terminal
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip
        until(lambda process=process: at_work() and pool(process.pid))
        left_over = psutil.Process(process.pid).children(recursive=True)
        if number == signal.SIGKILL:
            process.kill()
            process.wait()
        else:
            os.killpg(process.pid, number)
            err = process.communicate(timeout=PATIENCE)[1]
            assert process.returncode == 130 and "Traceback" not in err
            assert err.splitlines()[-1] == "interrupted; the same command continues"
            assert not Path("out/.sweep").exists()
        assert left_over and psutil.wait_procs(left_over, timeout=PATIENCE)[1] == []
    done = {path.parent: path.stat().st_mtime_ns for path in Path("out").glob("*/summary.json")}
    assert len(done) < 2
    train_here(monkeypatch)
    assert main(COMMAND) == 0
    assert "4 of 4 cells done." in capsys.readouterr().out
    for folder, stamp in done.items():
        assert (folder / "summary.json").stat().st_mtime_ns == stamp


def test_dask_workers_train_the_same_table_though_one_is_killed(undisturbed):
    sweep, messages, killed = two_jobs(), {}, []
    own = {"host": "127.0.0.1", "dashboard_address": None, "local_directory": "dask"}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **own) as cluster:
        address = cluster.scheduler_address

        def kill() -> None:
            with Client(address, set_as_default=False) as client:
                processes = client.run(os.getpid)
                until(at_work)
                busy = next(worker for worker, tasks in client.processing().items() if tasks)
                os.kill(processes[busy], signal.SIGKILL)
                killed.append(busy)

        killer = Thread(target=kill)
        killer.start()
        on_finished = messages.__setitem__
        assert run_sweep(sweep, Path("out"), address=address, on_finished=on_finished) == {}
        killer.join()
    assert killed and messages == {job.name: "done" for job in sweep.jobs}
    assert_same(undisturbed)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_dask_that_does_not_answer_is_said(address: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(backends, "ANSWER", 1)
    two_jobs()
    assert main([*COMMAND, "--address", address]) == 2
    err = capsys.readouterr().err
    assert f"no Dask scheduler answers at {address}" in err and len(err.splitlines()) == 1

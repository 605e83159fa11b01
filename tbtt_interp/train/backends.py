"""Backends of sweeps: processes of this machine (loky), or a running Dask cluster.

A job's result is its run on disk, so workers on other machines must share the sweep's folder.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from tbtt_interp.errors import TbttError
from tbtt_interp.files import write_whole
from tbtt_interp.train.recipe import Recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback
from tbtt_interp.train.sweep import Job, Sweep
from tbtt_interp.train.training import train_models

DEATHS = 3  # worker processes that die at a job before the job is given up
ANSWER = 10  # seconds that a scheduler may take to answer, and its workers to appear
POLL = 5  # seconds between reports of progress
CHECK_EVERY = 1  # seconds between a worker's checks that its sweep still runs
Task = Callable[[], str]
Owner = tuple[Path, str]  # a file, and its content while the sweep runs


def check_executor(workers: int | None, address: str | None) -> None:
    """Raises a TbttError where a sweep cannot run so."""
    if workers is not None and workers < 1:
        raise TbttError(f"workers must be at least 1, got {workers}")
    if address is not None and not find_spec("distributed"):
        raise TbttError("--address needs Dask, which is not here: pip install 'tbtt_interp[sweep]'")


def run_sweep(
    sweep: Sweep, folder: Path, *, workers: int | None = None, address: str | None = None,
    on_finished: Callable[[str, str], None] = lambda name, message: None,
    on_progress: Callable[[float], None] = lambda hours: None,
) -> dict[str, str]:  # fmt: skip
    """Trains every unfinished job of a sweep, each into its own folder below this one.

    Args:
        workers: jobs at once; None is one per core, or what the cluster takes.
        address: of the scheduler of a Dask cluster; None is this machine.
        on_finished: gets a job's name and how it ended.
        on_progress: gets the estimated hours of training left, every few seconds.
    Returns:
        the reason of each failure by the job's name.
    """
    from loky import cpu_count

    check_executor(workers, address)
    failures: dict[str, str] = {}
    unfinished: list[Job] = []

    def finish(job: Job, problem: str, message: str = "") -> None:
        if problem:
            failures[job.name] = problem
        on_finished(job.name, problem or f"done. {message}".strip(" ."))

    for job in sweep.jobs:
        done, problem = job.progress(folder)
        if problem:
            finish(job, problem)
        elif done < 1:
            unfinished.append(job)
    if not unfinished:
        return failures
    slots = workers or (len(unfinished) if address else cpu_count())
    slots = min(slots, len(unfinished))
    threads = 1 if address else max(1, cpu_count() // slots)
    start = _dask(address) if address else _loky(threads)
    with _owned(folder) as owner, ThreadPoolExecutor(slots) as pool, start as run:
        futures = {}
        for job in sorted(unfinished, key=lambda job: -job.hours):
            path = str(folder.resolve() / job.name)
            task = partial(_train_job, job.recipe, path, owner, threads)
            futures[pool.submit(run, task)] = job
        while futures:
            for future in wait(futures, timeout=POLL, return_when="FIRST_COMPLETED").done:
                job, error = futures.pop(future), future.exception()
                done, problem = job.progress(folder)
                if isinstance(error, TbttError):
                    problem = str(error)
                elif error is not None:
                    logging.getLogger(__name__).error("A job failed.", exc_info=error)
                    problem = " ".join(f"{type(error).__name__}: {error}".split())
                elif done < 1 and not problem:
                    problem = "the worker's run is not here: workers need a disk that all share"
                finish(job, problem, "" if error else future.result())
            on_progress(sum(job.hours * (1 - job.progress(folder)[0]) for job in futures.values()))
    return failures


class _JobCallback(TrainingCallback):
    """Keeps a training's messages, and stops the training once its sweep has ended."""

    def __init__(self, owner: Owner) -> None:
        self.owner, self.checked = owner, time.monotonic()
        self.messages: list[str] = []

    def on_message(self, message: str) -> None:
        self.messages.append(message)

    def on_step(self, step: int) -> None:
        if time.monotonic() - self.checked >= CHECK_EVERY:
            self.checked = time.monotonic()
            if not _owns(*self.owner):
                raise TbttError("stopped: the sweep was interrupted, or started again elsewhere")


def _train_job(recipe: Recipe, folder: str, owner: Owner, threads: int) -> str:
    """Trains a job, in a worker; returns the messages of its training."""
    callback = _JobCallback(owner)
    train_models(recipe, folder, resume=True, runtime=Runtime(threads=threads), callback=callback)
    return " ".join(callback.messages)


def _owns(path: Path, token: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == token


@contextmanager
def _owned(folder: Path) -> Iterator[Owner]:
    """Marks a folder as this sweep's; jobs of any other sweep in it stop."""
    path, token = folder.resolve() / ".sweep", uuid4().hex
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"{folder} cannot be made ({error.strerror})"
        raise TbttError(f"{what}: give another --out") from error
    write_whole(path, token.encode())
    try:
        yield path, token
    finally:
        if _owns(path, token):
            path.unlink()


@contextmanager
def _loky(threads: int) -> Iterator[Callable[[Task], str]]:
    """Runs each task in a process of its own, so that a death is charged to one job alone."""
    from loky import ProcessPoolExecutor

    start = partial(ProcessPoolExecutor, 1, env={"OMP_NUM_THREADS": str(threads)},
                    initializer=_end_with, initargs=(os.getpid(),))  # fmt: skip
    pools: list[ProcessPoolExecutor] = []
    is_over = Event()

    def run(task: Task) -> str:
        for _ in range(DEATHS):
            pools.append(pool := start())
            try:
                if not is_over.is_set():
                    return pool.submit(task).result()
            except BrokenExecutor:
                continue
            finally:
                pool.shutdown(kill_workers=True)
        raise TbttError(f"its worker died {DEATHS} times")

    try:
        yield run
    finally:
        is_over.set()
        for pool in pools:
            pool.shutdown(kill_workers=True)


def _end_with(parent: int) -> None:
    """Makes a worker ignore Ctrl-C, which its sweep handles, and end when its sweep is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_EVERY)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=watch, daemon=True).start()


@contextmanager
def _dask(address: str) -> Iterator[Callable[[Task], str]]:
    """Runs tasks on a Dask cluster, which itself restarts the task of a worker that dies."""
    from dask.distributed import Client

    try:
        client = Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = f"no Dask scheduler answers at {address} ({error})"
        raise TbttError(f"{reason}: start one by dask scheduler") from error

    def run(task: Task) -> str:
        try:
            return client.submit(task, pure=False).result()
        except CancelledError as error:
            raise TbttError("cancelled: the Dask scheduler has gone, or was restarted") from error

    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER)
        except TimeoutError as error:
            then = f"start some by dask worker {address} --nthreads 1"
            raise TbttError(f"the Dask scheduler at {address} has no workers: {then}") from error
        yield run

"""Where a sweep's stacks are trained: processes of this machine, or an engine that is there.

A stack is a task, and what comes back of it is its run on disk; so workers of other machines need
the sweep's folder on a disk that all share. Every engine gives a future of a task, which carries
what went wrong with it: joblib's loky here, and Dask's and Ray's own. (joblib's Dask backend waits
for ever, in 1.6, when Dask gives a task up; its Ray backend tells of nothing before all is done.)
Ray was not run here: its calls are held to its documentation, by a stand-in in the tests.
"""

import logging
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.runs import write_whole
from tbtt_interp.train.recipe import Recipe
from tbtt_interp.train.sweep import Stack, Sweep, stack_progress

DEATHS = 3  # of workers that were at a stack, before it is given up
ANSWER = 10  # seconds that a scheduler may take to answer, and its workers to come
LOOK = 5  # seconds between looks at how many workers there are
OWNED = 1  # seconds between a task's looks at whether its sweep is still on

Told = Callable[[str, str], None]
Tasks = Callable[..., "Future[str]"]  # takes a function and its arguments
Owner = tuple[str, str]  # a file and what it says while the sweep is on


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What takes tasks.

    Attributes:
        slots: how many tasks it works on at once, now.
        threads: of the processor, for each.
    """

    submit: Tasks
    slots: Callable[[], int]
    threads: int = 1


def run_sweep(
    sweep: Sweep,
    folder: Path,
    *,
    workers: int | None = None,
    backend: str = "loky",
    address: str | None = None,
    told: Told = lambda name, words: None,
) -> dict[str, str]:
    """Trains what of a sweep is not trained yet, each stack into its own folder below this one.

    Args:
        workers: stacks at once; here each has its share of the cores, and None is one a core.
        backend: loky, dask or ray.
        address: of Dask's or Ray's scheduler; for Ray, None starts one here.
        told: called when a stack is done or has failed, with its name and what there is to say.
    Returns:
        why stacks failed, by name; the others are trained.
    Raises:
        TbttError: if there is no such backend, or nobody answers at its address.
    """
    start = engine_of(backend, address, workers, stacks=len(sweep.stacks))
    problems: dict[str, str] = {}
    left: dict[str, Stack] = {}
    for stack in sweep.stacks:
        progress = stack_progress(stack, folder)
        if progress.problem:
            problems[stack.name] = progress.problem
            told(stack.name, progress.problem)
        elif progress.steps < stack.recipe.training.steps:
            left[stack.name] = stack
    deaths: Counter[str] = Counter()

    def finished(stack: Stack, future: "Future[str]") -> None:
        error = _error(future)
        deaths[stack.name] += isinstance(error, BrokenExecutor)
        if isinstance(error, BrokenExecutor) and deaths[stack.name] < DEATHS:
            return
        del left[stack.name]
        problem = _reason(error, deaths[stack.name]) if error else _absence(stack, folder, backend)
        if problem:
            problems[stack.name] = problem
        told(stack.name, problem or " ".join(["done.", future.result()]).strip(" ."))

    if not left:
        return problems
    with _owned(folder) as owner:
        while left:
            # here a worker's death loses all that were at work, and does not say whose it was: a
            # stack that has been among them time and again goes alone, so that no other is blamed
            suspects = [stack for stack in left.values() if deaths[stack.name] >= DEATHS - 1]
            with start() as engine:
                _train_all(suspects[:1] or list(left.values()), folder, engine, owner, finished)
    return problems


def _train_all(
    stacks: Sequence[Stack],
    folder: Path,
    engine: Engine,
    owner: Owner,
    finished: Callable[[Stack, "Future[str]"], None],
) -> None:
    """Hands out stacks as there are slots, the longest first, until a death breaks the engine."""
    waiting = deque(sorted(stacks, key=lambda stack: -stack.hours))
    running: dict[Future[str], Stack] = {}
    while waiting or running:
        try:
            while waiting and len(running) < engine.slots():
                path = str(folder.resolve() / waiting[0].name)
                task = partial(_train_stack, waiting[0].recipe, path, owner, engine.threads)
                running[engine.submit(task)] = waiting[0]
                waiting.popleft()
        except BrokenExecutor:  # the futures of those at work say so, too
            waiting.clear()
        for future in wait(running, timeout=LOOK, return_when=FIRST_COMPLETED).done:
            if isinstance(_error(future), BrokenExecutor):
                waiting.clear()
            finished(running.pop(future), future)


def _error(future: "Future[str]") -> BaseException | None:
    if future.cancelled():
        return TbttError("its task was cancelled: the scheduler has gone, or was restarted")
    return future.exception()


def _reason(error: BaseException, deaths: int) -> str:
    """Why a stack failed, in a line; what nobody has foreseen is logged whole."""
    if isinstance(error, BrokenExecutor):
        return f"its worker died {deaths} times, the last time alone"
    cause = getattr(error, "cause", None) or error  # Ray has the traceback for a message
    if isinstance(cause, TbttError):
        return str(cause)
    logging.getLogger(__name__).error("A stack failed.", exc_info=error)
    return " ".join(f"{type(cause).__name__}: {cause}".split())


def _absence(stack: Stack, folder: Path, backend: str) -> str:
    """What is wrong with a run that is said to be trained, if anything."""
    progress = stack_progress(stack, folder)
    if progress.problem or progress.steps == stack.recipe.training.steps:
        return progress.problem
    return f"{backend} says it is trained, but it is not here: workers need a disk that all share"


def _train_stack(recipe: Recipe, folder: str, owner: Owner, threads: int) -> str:
    """The task: returns what the training had to say."""
    from tbtt_interp.train.training import Machine, Watcher, train_models

    class Overseer(Watcher):
        """Ends a task that outlived its sweep, as on another machine nothing else does."""

        def __init__(self) -> None:
            self.words: list[str] = []
            self.looked = time.monotonic()

        def said(self, message: str) -> None:
            self.words.append(message)

        def stepped(self, step: int) -> None:
            if time.monotonic() - self.looked < OWNED:
                return
            self.looked = time.monotonic()
            if not _is_on(owner):
                raise TbttError("stopped: the sweep was interrupted, or begun anew elsewhere")

    overseer = Overseer()
    train_models(recipe, folder, resume=True, machine=Machine(threads=threads), watcher=overseer)
    return " ".join(overseer.words)


def _is_on(owner: Owner) -> bool:
    path, token = owner
    try:
        return Path(path).read_text(encoding="utf-8") == token
    except OSError:
        return False


@contextmanager
def _owned(folder: Path) -> Iterator[Owner]:
    """Marks a folder as this sweep's for a while; the tasks of any other one there end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TbttError(
            f"{folder} cannot be made ({error.strerror}): give another --out"
        ) from error
    owner = str(folder.resolve() / ".sweep"), uuid4().hex
    write_whole(Path(owner[0]), owner[1].encode())
    try:
        yield owner
    finally:
        if _is_on(owner):
            Path(owner[0]).unlink()


def engine_of(
    backend: str, address: str | None, workers: int | None, *, stacks: int
) -> Callable[[], AbstractContextManager[Engine]]:
    """A backend's engine, to be started, and again after a worker's death.

    Raises:
        TbttError: if there is no such backend, or it cannot be had in this way.
    """
    if workers is not None and workers < 1:
        raise TbttError(f"workers must be at least 1, got {workers}")
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if backend == "loky":
        if address is not None:
            raise TbttError("backend loky is this machine and has no --address: give dask or ray")
        return partial(_here, workers, stacks)
    if backend == "dask" and address is None:
        raise TbttError("backend dask needs --address, of its scheduler, as in tcp://10.0.0.1:8786")
    try:
        import_module(BACKENDS[backend])
    except ImportError as error:
        raise TbttError(
            f"backend {backend} is not installed: pip install 'tbtt_interp[{backend}]'"
        ) from error
    return partial(_dask if backend == "dask" else _ray, address, workers)


BACKENDS = {"loky": "joblib", "dask": "dask.distributed", "ray": "ray"}


@contextmanager
def _here(workers: int | None, stacks: int) -> Iterator[Engine]:
    from joblib import cpu_count
    from joblib.externals.loky import ProcessPoolExecutor

    slots = min(workers or cpu_count(), stacks)
    threads = max(1, cpu_count() // slots)
    executor = ProcessPoolExecutor(
        max_workers=slots,
        env={"OMP_NUM_THREADS": str(threads)},
        initializer=_attend,
        initargs=(os.getpid(),),
    )
    try:
        yield Engine(submit=executor.submit, slots=lambda: slots, threads=threads)
    finally:
        executor.shutdown(kill_workers=True)


def _attend(parent: int) -> None:
    """Makes a process of this machine leave its end to its sweep: to Ctrl-C there, and its death.

    A terminal's Ctrl-C comes to all, and one ends it. But one that is killed ends nobody, and its
    processes would train on, and then wait for ever.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(OWNED)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=watch, daemon=True).start()


@contextmanager
def _dask(address: str, workers: int | None) -> Iterator[Engine]:
    from dask.distributed import Client

    try:
        client: Any = Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise TbttError(
            f"no Dask scheduler answers at {address} ({error}): start one by dask scheduler"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER)
        except TimeoutError as error:
            raise TbttError(
                f"the Dask scheduler at {address} has no workers: start some by dask worker "
                f"{address} --nthreads 1"
            ) from error
        tasks = client.get_executor(pure=False)

        def slots() -> int:  # as many as there are now; where all have gone, one waits for more
            try:
                here = max(1, sum(client.nthreads().values()))
            except OSError as error:
                raise TbttError(
                    f"the Dask scheduler at {address} has gone ({error}): start it again, and the "
                    "same command goes on from here"
                ) from error
            return min(workers or here, here)

        yield Engine(submit=tasks.submit, slots=slots)


@contextmanager
def _ray(address: str | None, workers: int | None) -> Iterator[Engine]:
    ray = import_module("ray")
    try:
        ray.init(address=address)
    except (ConnectionError, ValueError) as error:
        raise TbttError(f"no Ray cluster answers at {address} ({error}): start one") from error
    task = ray.remote(_call).options(max_retries=DEATHS)

    def slots() -> int:
        here = max(1, int(ray.cluster_resources().get("CPU", 1)))
        return min(workers or here, here)

    try:
        yield Engine(submit=lambda function: task.remote(function).future(), slots=slots)
    finally:
        ray.shutdown()


def _call(function: Callable[[], str]) -> str:
    return function()

"""Where a sweep's stacks are trained: processes of this machine, or an engine that is there.

All through joblib: loky here, Dask or Ray past one machine. A run on disk is what comes back, so
workers of other machines need the folder on a disk that all share.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.train.recipe import Recipe
from tbtt_interp.train.sweep import Stack, Sweep, steps_done
from tbtt_interp.train.training import Machine, train_models

BACKENDS = ("loky", "dask", "ray")
RESTARTS = 3  # of a stack whose worker died, before it is given up

Outcome = tuple[str, str]  # a stack's name and why it failed; empty where it did not
Told = Callable[[str, str], None]


def run_sweep(
    sweep: Sweep,
    folder: Path,
    *,
    workers: int | None = None,
    backend: str = "loky",
    address: str | None = None,
    told: Told = lambda name, problem: None,
) -> dict[str, str]:
    """Trains what of a sweep is not trained yet, each stack into its own folder below this one.

    Args:
        workers: processes, each on its share of the cores; None is one a core.
        address: of Dask's or Ray's scheduler; for Ray, None starts or finds one here.
        told: called when a stack is done, with its name and why it failed, if so.
    Returns:
        why stacks failed, by name; the others are trained.
    """
    if workers is not None and workers < 1:
        raise TbttError(f"workers must be at least 1, got {workers}")
    left = {s.name: s for s in sweep.stacks if steps_done(s, folder) < s.recipe.training.steps}
    problems: dict[str, str] = {}
    died = dict.fromkeys(left, 0)
    folder.mkdir(parents=True, exist_ok=True)
    with _engine(backend, address, workers) as jobs:
        while left:
            try:
                for name, failure in _outcomes(list(left.values()), folder, jobs, backend):
                    del left[name]
                    problem = failure or _absent(folder / name, backend)
                    if problem:
                        problems[name] = problem
                    told(name, problem)
            except _dead(backend) as error:
                # joblib does not say whose worker it was: of all that were begun it may have been
                for name in [name for name in left if (folder / name / "config.json").is_file()]:
                    died[name] += 1
                    if died[name] >= RESTARTS:
                        del left[name]
                        words = str(error).split("\n")[0].rstrip(". ")
                        problems[name] = f"its worker died {died[name]} times ({words})"
                        told(name, problems[name])
    return problems


def _outcomes(stacks: Sequence[Stack], folder: Path, jobs: int, backend: str) -> Iterator[Outcome]:
    """Names and failures, as they come: the longest stacks are begun first."""
    from tbtt_interp.train.cost import estimated_hours

    threads = max(1, (os.cpu_count() or 1) // jobs) if backend == "loky" else 1
    order = sorted(stacks, key=lambda stack: -estimated_hours(stack.recipe))
    train = joblib.delayed(partial(_train_stack, threads=threads))
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    return parallel(train(s.name, s.recipe, str(folder.resolve() / s.name)) for s in order)


def _train_stack(name: str, recipe: Recipe, folder: str, *, threads: int) -> Outcome:
    try:
        train_models(recipe, folder, resume=True, machine=Machine(threads=threads))
    except Exception as error:  # whatever it is, it is this stack's and not the sweep's
        return name, " ".join(str(error).split()) or type(error).__name__
    return name, ""


def _absent(folder: Path, backend: str) -> str:
    if (folder / "summary.json").is_file():
        return ""
    return f"{backend} says it is trained, but it is not here: workers need a disk that is shared"


@contextmanager
def _engine(backend: str, address: str | None, workers: int | None) -> Iterator[int]:
    """Joblib's backend, and how many stacks it trains at once."""
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if address and backend == "loky":
        raise TbttError("backend loky is this machine's and takes no --address: give dask or ray")
    with _IN[backend](address) as options, joblib.parallel_config(backend=backend, **options):
        yield workers or joblib.effective_n_jobs(-1)


@contextmanager
def _here(address: str | None) -> Iterator[dict[str, Any]]:
    yield {}


@contextmanager
def _dask(address: str | None) -> Iterator[dict[str, Any]]:
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise TbttError("backend dask is not installed: pip install 'tbtt_interp[dask]'") from error
    if address is None:
        raise TbttError("backend dask needs --address, of its scheduler, as in tcp://10.0.0.1:8786")
    try:
        client = Client(address, timeout="10s", set_as_default=True)
    except (OSError, ValueError) as error:
        raise TbttError(f"no Dask scheduler answers at {address} ({error}): start one") from error
    with client:
        yield {}


@contextmanager
def _ray(address: str | None) -> Iterator[dict[str, Any]]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise TbttError("backend ray is not installed: pip install 'tbtt_interp[ray]'") from error
    ray.init(address=address, ignore_reinit_error=True)
    register_ray()
    yield {}


_IN = {"loky": _here, "dask": _dask, "ray": _ray}


def _dead(backend: str) -> tuple[type[BaseException], ...]:
    """What joblib raises when a worker has died."""
    if backend == "dask":
        from dask.distributed import KilledWorker

        return (KilledWorker,)
    return (TerminatedWorkerError,)

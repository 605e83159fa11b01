"""The time of a training step with denormal floats exact, and with denormals as 0.

    python tests/benchmarks/denormals.py

Repeats the last step of the shipped models, with the same weights and windows, in turns: once with
denormals computed exactly, and once with denormals as 0, as training has them.
"""

import argparse
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from unittest import mock

import torch

from tbtt_interp.cli.output import print_table
from tbtt_interp.model import Parameters
from tbtt_interp.runs import load_run
from tbtt_interp.train import step as step_module
from tbtt_interp.train.kernel import Kernel
from tbtt_interp.train.recipe import recorded_recipe
from tbtt_interp.train.training import model_shape, model_streams

WARMUP = 20  # steps, in which Adam's averages fill


def timed(model: step_module.ModelStack, step: int, exact: bool) -> float:
    """Seconds of a step."""
    plain: AbstractContextManager[object] = (
        mock.patch.object(step_module, "denormals_as_zero", nullcontext) if exact else nullcontext()
    )
    with plain:
        started = time.perf_counter()
        model.step(step)
        return time.perf_counter() - started


def row(name: str, steps: int) -> list[str]:
    run = load_run(name)
    assert run.config.recipe is not None
    recipe = recorded_recipe(run.config.recipe)
    tasks = run.tasks
    shape = model_shape(recipe, tasks[0])
    kernel = Kernel(shape, torch.float32)

    def trained() -> Parameters:
        return {key: value.clone() for key, value in run.parameters().items()}

    exact, flushed = (
        step_module.ModelStack(
            trained(), shape, recipe.training, model_streams(recipe, tasks),
            device=torch.device("cpu"), kernel=kernel,
        )
        for _ in range(2)
    )  # fmt: skip
    times: dict[bool, list[float]] = {True: [], False: []}
    last = recipe.training.steps - 1
    for _ in range(WARMUP + steps):
        for model in (exact, flushed):
            times[model is exact].append(timed(model, last, exact=model is exact))
    slow, fast = (1_000 * statistics.median(times[key][WARMUP:]) for key in (True, False))
    return [name, str(len(run.seeds)), f"{slow:.1f}", f"{fast:.1f}", f"{slow / fast:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", default=[
        f"arithmetic-{size}-{framing}" for framing in ("file", "line")
        for size in ("small", "medium", "large")
    ], help="folders of runs, or names that tbtt models lists")  # fmt: skip
    parser.add_argument("--steps", type=int, default=40, help="timed, each way")
    asked = parser.parse_args()
    head = ["run", "models", "ms a step, exact", "ms, as zero", "times faster"]
    print_table(head, [row(name, asked.steps) for name in asked.runs])


if __name__ == "__main__":
    main()

"""The time of training steps, commands and analyses, as tables and as JSON.

    python tests/benchmarks/speed.py --out speed.json

Times compare only within one run on one machine, so compared things are measured in turns. Training
is compared with other ways to train the same models (rivals.py) and with the machine's matrix
products; commands and analyses are compared with this project's own limits.
"""

import argparse
import dataclasses
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rivals import Batch, Step, drawn, hooked_transformer_loop, jax_vmap, torch_func, train

from tbtt_interp.activations import record
from tbtt_interp.analyses.pairs import ordered_pairs
from tbtt_interp.analyses.patching import patching_table
from tbtt_interp.cli.output import print_table
from tbtt_interp.evaluate import evaluate_models
from tbtt_interp.kernel import flatten
from tbtt_interp.model import Shape, hooked_transformer, is_matrix, one_model, parameter_shapes
from tbtt_interp.seeds import Models
from tbtt_interp.threads import processor
from tbtt_interp.train.recipe import Recipe, resolve_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback, new_stack
from tbtt_interp.train.step import ModelStack, keep_freed_memory
from tbtt_interp.train.training import train_models
from tbtt_interp.versions import versions

Row = dict[str, Any]
Waited = tuple[str, float, float | None]  # what for, how long, and the limit
# size, framing, models: the least speed relative to the HookedTransformer loop, and the least share
# of the rate of a matrix product
TRAINING = {
    ("small", "file", 16): (6, 0.18),
    ("medium", "file", 16): (4, 0.32),
    ("large", "file", 16): (2.5, 0.50),
    ("mlt", "file", 1): (1, 0.60),
    **{(size, "line", 16): (None, None) for size in ("small", "medium", "large")},
}
COMMANDS = ("train", "runs", "evaluate", "ask", "probes", "import", "export")
MODULE = [sys.executable, "-m", "tbtt_interp"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
HOOKED, FUNC, JAX = RIVALS = "HookedTransformer", "torch.func", "JAX"
AT_ONCE = 5  # steps in one call


def seconds(action: Callable[[], object], times: int = 1) -> float:
    """The median duration of an action."""
    return statistics.median(timeit.repeat(action, gc.enable, repeat=times, number=1))


def operations(shape: Shape, windows: int) -> float:
    """Of one step of one model: 6 per matrix parameter and token, and attention's own.

    Positions are looked up, not multiplied; the tied embedding is multiplied once, to read out.
    Attention's are 12 · d_model · pos per layer and token, as if it looked ahead, too.
    """
    tokens = windows * shape.n_ctx
    sizes = {name: math.prod(size) for name, size in parameter_shapes(shape).items()}
    matrices = sum(n for name, n in sizes.items() if is_matrix(name) and "pos_embed" not in name)
    return tokens * (6 * matrices + 12 * shape.layers * shape.d_model * shape.n_ctx)


def in_turns(
    actions: Mapping[Any, Callable[[int, int], object]], rounds: int, at_once: int
) -> dict[Any, float]:
    """The median duration of a step of each, so many in a call; the first round warms up."""
    taken = {name: [] for name in actions}
    for done in range(at_once, at_once * (rounds + 2), at_once):
        for name, action in actions.items():
            taken[name].append(seconds(partial(action, done, done + at_once)) / at_once)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def stack_of(recipe: Recipe) -> ModelStack:
    """The stack as train_models makes it."""
    return new_stack(recipe, Runtime(), TrainingCallback())


def published(size: str, framing: str, seeds: int) -> ModelStack:
    """The published training without warm-up, so that a few steps change a model."""
    flags = {"model.size": size, "framing": framing, "seeds": seeds, "training.warmup": 0}
    return stack_of(resolve_recipe("paper", flags))


def check_alike(stack: ModelStack, rivals: dict[str, Step], batches: list[Batch]) -> None:
    """Trains by a few steps and checks that all have the same losses, before each.

    A HookedTransformer trains more parameters, so that only its first loss is the same.
    """
    for step, (windows, rate) in enumerate(batches):
        rows = np.concatenate([windows.tokens[..., :1], windows.targets], -1)
        flat = flatten(stack.parameters, stack.shape)
        ours = stack.kernel and stack.kernel.losses(flat, rows, windows.weights())
        stack.advance(step, step + 1)
        for name, rival in rivals.items():
            theirs = rival(windows, rate)
            if ours is not None and (step == 0 or name != HOOKED):
                apart = np.abs(theirs - ours[: len(theirs)]).max()
                assert apart < 1e-3, f"losses of {name} at step {step} are {apart} nats apart"


def training_row(size: str, framing: str, seeds: int, *, rounds: int) -> Row:
    """A step of ours and of its rivals, and a matrix product, in turns."""
    stack = published(size, framing, seeds)
    at_once = 1 if size == "mlt" else AT_ONCE
    batches = drawn(stack, at_once * (rounds + 2))
    start = {name: p.detach().clone() for name, p in stack.parameters.items()}
    case = start, stack.shape, stack.training
    rivals = {HOOKED: hooked_transformer_loop(*case)}
    if size != "mlt":
        rivals[FUNC] = torch_func(*case, compiled=rounds > 1)
        rivals |= {JAX: step} if (step := jax_vmap(*case)) else {}
    check_alike(stack, rivals, batches[:at_once])
    a, b = torch.randn(2, 2_048, 2_048)
    loops = {name: partial(train, rival, batches) for name, rival in rivals.items()}
    products = {"product": lambda start, until: [a @ b for _ in range(start, until)]}
    took = in_turns({"ours": stack.advance, **loops, **products}, rounds, at_once)
    step = {name: took[name] / (1 if name == HOOKED else seeds) for name in ("ours", *rivals)}
    windows = int(batches[0][0].counts[0].sum())
    distinct = statistics.mean(np.count_nonzero(batch.counts) / seeds for batch, _ in batches)
    rate, best = operations(stack.shape, windows) / step["ours"], 2 * 2_048**3 / took["product"]
    faster, share = TRAINING.get((size, framing, seeds), (None, None))
    return {
        "size": size, "framing": framing, "models": seeds,
        "milliseconds": {name: 1e3 * taken for name, taken in step.items()},
        "times_faster": {n: step[n] / step["ours"] if n in step else None for n in RIVALS},
        "times_faster_wanted": faster, "gigaflops": rate / 1e9, "matrix_gigaflops": best / 1e9,
        "share": rate / best, "share_wanted": share,
        "share_computed": rate / best * distinct / windows,
    }  # fmt: skip


def cost_per_model(size: str, framing: str, numbers: list[int], rounds: int) -> list[Waited]:
    """Milliseconds of a step of one model among few and among many, in turns."""
    stacks = {n: published(size, framing, n) for n in numbers}
    took = in_turns({n: stack.advance for n, stack in stacks.items()}, rounds, AT_ONCE)
    what = f"{size} on {framing}: cost per model and step, ms"
    return [(f"{n:,} {what}", 1e3 * taken / n, None) for n, taken in took.items()]


def python(code: str) -> list[float]:
    """The numbers that a fresh interpreter prints."""
    command = [sys.executable, "-c", f"import time; t = time.time(); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def first_command(*more: str) -> Waited:
    """Seconds of the README's first command once installed, no kernel kept."""
    command = ["train", "--size", "medium", *more]
    with tempfile.TemporaryDirectory() as folder:
        call, fresh = [*MODULE, *command], os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
        taken = seconds(lambda: subprocess.run(call, cwd=folder, env=fresh, check=True, **QUIET))
    return f"tbtt {' '.join(command)}, nothing compiled", taken, None


def two_at_once(command: str, times: int) -> Waited:
    """The time of two equal commands side by side, divided by that of one alone."""

    def run(copies: int) -> None:
        call = [*MODULE, *command.split()]
        running = [subprocess.Popen(call, **QUIET) for _ in range(copies)]
        assert [process.wait() for process in running] == [0] * copies, command

    turns = [(seconds(lambda: run(1)), seconds(lambda: run(2))) for _ in range(times)]
    one, two = map(statistics.median, zip(*turns, strict=True))
    return f"tbtt {command}, two at once, times one alone", two / one, 2.2


def process_rows(size: str, seeds: int, times: int) -> list[Waited]:
    """Seconds that new processes take, and the memory of one, with their limits."""
    imports = "import tbtt_interp; print(time.time() - t)"
    imported = statistics.median(python(imports)[0] for _ in range(times))
    calls = [[*MODULE, name, "--help"] for name in COMMANDS[: 1 if times == 1 else None]]
    slowest = max(
        seconds(partial(subprocess.run, call, check=True, **QUIET), times) for call in calls
    )
    cases = [("import tbtt_interp", imported, 0.3), ("the slowest --help", slowest, 0.5)]
    train = [*MODULE, *f"train --size {size} --seeds {seeds} --steps 1 --compile".split()]
    with tempfile.TemporaryDirectory() as folder:
        fresh = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
        for state, limit in {"nothing": 45.0, "all": 15.0}.items():
            started = time.perf_counter()
            command = [*train, "--out", f"{folder}/{state}"]
            _, status, usage = os.wait4(subprocess.Popen(command, env=fresh, **QUIET).pid, 0)
            assert status == 0, command
            taken = time.perf_counter() - started
            cases.append((f"train, a step and its report, {state} compiled", taken, limit))
        lens, loaded = python(
            "import transformer_lens; print(time.time() - t); t = time.time();"
            f"import torch, tbtt_interp; model = tbtt_interp.load_run('{folder}/all').model();"
            "model(torch.zeros(1, 9, dtype=torch.long)); print(time.time() - t)"
        )
    return [
        *cases,
        ("import transformer_lens, in a process of its own", lens, None),
        (f"load_run and a forward pass of {size}, TransformerLens imported", loaded, 3),
        (f"most memory in training {seeds} of {size}, gigabytes", usage.ru_maxrss * 1_024 / 1e9, 4),
    ]


def computing_rows(size: str, seeds: int, times: int) -> list[Waited]:
    """Seconds that computations in a session take, with their limits."""
    recipe = resolve_recipe("quick", {"model.size": size, "seeds": seeds})
    tasks, stack = recipe.tasks(), stack_of(recipe)
    stacked, shape = stack.parameters, stack.shape
    examples, vocabulary = tasks[0].examples, tasks[0].vocabulary
    encoded = [vocabulary.encode(e.prompt + e.answer) + [0] * 9 for e in examples]
    tokens = torch.tensor([row[:9] for row in encoded])

    def models() -> list[Any]:
        return [hooked_transformer(one_model(stacked, k), shape) for k in range(seeds)]

    first = Models.of_models(models()[:1], examples, vocabulary)
    pairs = ordered_pairs(first.shared_prompts)
    pairs = pairs.sample(10, seed=0) if times == 1 else pairs
    return [
        (f"activations of {len(tokens)} equations at every site, {seeds} of {size}",
         seconds(lambda: record(models(), tokens), times), 2),
        (f"evaluation of {seeds} of {size}",
         seconds(lambda: evaluate_models(stacked, shape, tasks, recipe.seed_list), times), 1),
        (f"patching {len(pairs):,} pairs at every site, both ways, 1 of {size}",
         seconds(lambda: patching_table(first, pairs)), 60),
    ]  # fmt: skip


def evaluation_share(size: str, seeds: int, steps: int) -> Waited:
    """The share of a training that evaluating and saving take."""
    recipe = resolve_recipe("quick", {"model.size": size, "seeds": seeds})
    training = dataclasses.replace(recipe.training, steps=steps)  # evaluated as often as ever
    recipe = dataclasses.replace(recipe, training=training)
    kind, began, taken = type(stack_of(recipe)), [], []
    advance, callback = kind.advance, TrainingCallback()
    callback.on_start = lambda step, steps: began.append(time.perf_counter())

    def timed(stack: ModelStack, start: int, until: int) -> None:
        taken.append(seconds(lambda: advance(stack, start, until)))

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(kind, "advance", timed):
        train_models(recipe, Path(folder) / "run", callback=callback)
        whole = time.perf_counter() - began[0]
    what = f"share of training {seeds} of {size} on file that is not steps"
    return what, 1 - sum(taken) / whole, 0.05


def show(results: Row) -> None:
    """The tables."""
    where = results["machine"]
    print(f"{where['processor']}, {where['threads']} threads, torch {where['versions']['torch']}\n")

    def cell(value: float | None, shown: str) -> str:
        return "" if value is None else shown.format(value)

    def rival(row: Row, name: str) -> list[str]:
        taken, times = row["milliseconds"].get(name), row["times_faster"][name]
        return [cell(taken, "{:,.2f}"), cell(times, "{:.1f}")]

    print_table(
        ["training", "framing", "models", "ms", "HT ms", "faster", "wanted", "func ms", "faster",
         "JAX ms", "faster", "GFLOP/s", "share", "wanted", "computed"],
        [
            [r["size"], r["framing"], r["models"], f"{r['milliseconds']['ours']:,.2f}",
             *rival(r, HOOKED), cell(r["times_faster_wanted"], "≥ {:g}"), *rival(r, FUNC),
             *rival(r, JAX), f"{r['gigaflops']:.0f}", f"{r['share']:.0%}",
             cell(r["share_wanted"], "≥ {:.0%}"), f"{r['share_computed']:.0%}"]
            for r in results["training"]
        ],
        notes=[
            f"ms: a step of one model among so many, {AT_ONCE} in a call. The rivals' windows are "
            "drawn before.\nHT: a step of one HookedTransformer, eager. func: torch.func, vmap and "
            "torch.compile. JAX: vmap and jit.",
            *["jax is not installed."] * (JAX not in results["training"][0]["milliseconds"]),
            "share: of the rate of a 2,048 by 2,048 product, counting every window drawn; "
            "computed: counting a window once, however often it was drawn.\n",
        ],
    )  # fmt: skip
    print_table(
        ["waiting for", "measured", "limit"],
        [[r["what"], f"{r['measured']:.2f}", cell(r["limit"], "{:g}")] for r in results["waiting"]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    options = parser.parse_args()
    keep_freed_memory()
    if options.quick:
        os.environ.setdefault("CXXFLAGS", "-O1")  # a kernel in half the time
        waiting = process_rows("small", 2, 1)
        waiting += [first_command("--steps", "1", "--seeds", "1"), two_at_once("--help", 1)]
        training = [training_row("small", "file", 2, rounds=1)]
        waiting += computing_rows("small", 2, 1) + cost_per_model("small", "file", [2, 3], 1)
        waiting += [evaluation_share("small", 2, 20)]
    else:  # first, while this process is small: the memory of one begun counts from its parent's
        waiting = process_rows("large", 16, 3)
        waiting += [first_command(), two_at_once("analyses attention arithmetic-medium-file", 3)]
        training = [training_row(*case, rounds=2 if case[0] == "mlt" else 9) for case in TRAINING]
        waiting += computing_rows("large", 16, 3)
        waiting += cost_per_model("small", "line", [16, 64, 1_000], 9)
        waiting += [evaluation_share("small", 16, 1_000), evaluation_share("large", 16, 500)]
    rows = [dict(zip(("what", "measured", "limit"), row, strict=True)) for row in waiting]
    machine = {"processor": processor(), "threads": torch.get_num_threads(), "versions": versions()}
    results = {"machine": machine, "training": training, "waiting": rows}
    show(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The time of training steps, commands and analyses, as tables and as JSON.

    python tests/benchmarks/speed.py --out speed.json

Times compare only within one run on one machine, so compared things are measured in turns. Training
is compared with a plain loop over one HookedTransformer and with the machine's matrix products;
commands and analyses are compared with this project's own limits.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from tbtt_interp.activations import record
from tbtt_interp.analyses.pairs import ordered_pairs
from tbtt_interp.analyses.patching import patching_table
from tbtt_interp.cli.output import print_table
from tbtt_interp.evaluate import evaluate_models
from tbtt_interp.model import (
    Shape,
    hooked_transformer,
    initial_parameters,
    is_matrix,
    one_model,
    parameter_shapes,
    stack_parameters,
)
from tbtt_interp.runs import versions
from tbtt_interp.seeds import Models
from tbtt_interp.train.kernel import _Loss, flatten
from tbtt_interp.train.recipe import Recipe, resolve_recipe
from tbtt_interp.train.step import ModelStack, clip_each, keep_freed_memory
from tbtt_interp.train.training import (
    Runtime,
    TrainingCallback,
    _model_stack,
    model_shape,
    model_streams,
    train_models,
)

Row = dict[str, Any]
# size, framing, models: the least speed relative to a HookedTransformer, and the least share of the
# rate of a matrix product
TRAINING = {
    ("small", "file", 16): (6, 0.18),
    ("medium", "file", 16): (4, 0.32),
    ("large", "file", 16): (2.5, 0.50),
    ("mlt", "file", 1): (1, 0.60),
    ("small", "line", 16): (None, None),
    ("large", "line", 16): (None, None),
}
COMMANDS = ("train", "runs", "evaluate", "ask", "probes", "import", "export")


def seconds(action: Callable[[], object], times: int = 1) -> float:
    """The median duration of an action."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def operations(shape: Shape, windows: int) -> float:
    """Of one step of one model: 6 per matrix parameter and token, and attention's own.

    Positions are looked up, not multiplied; the tied embedding is multiplied once, to read out.
    Attention's are 12 · d_model · pos per layer and token, as if it looked ahead, too.
    """
    tokens = windows * shape.n_ctx
    sizes = {name: math.prod(size) for name, size in parameter_shapes(shape).items()}
    matrices = sum(n for name, n in sizes.items() if is_matrix(name) and "pos_embed" not in name)
    return tokens * (6 * matrices + 12 * shape.layers * shape.d_model * shape.n_ctx)


def matrix_rate() -> float:
    """Operations a second in a float32 product of 2,048 by 2,048: what torch can do at its best."""
    a, b = torch.randn(2, 2_048, 2_048)
    a @ b
    return 2 * 2_048**3 / seconds(lambda: a @ b, 5)


def stack_of(recipe: Recipe) -> ModelStack:
    """The stack as train_models makes it."""
    return _model_stack(recipe, Runtime(), TrainingCallback())


def plain_loop(recipe: Recipe, shape: Shape) -> Callable[[], object]:
    """One step of one HookedTransformer on the same batch: eager, AdamW, clipped."""
    model = hooked_transformer(initial_parameters(shape, seed=0), shape).train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
    stream = model_streams(recipe, recipe.tasks())[0]
    steps = iter(range(1_000_000))

    def step() -> None:
        tokens, targets, counts = map(torch.from_numpy, stream.draw(next(steps)))
        tokens, targets = (x.repeat_interleave(counts, 0) for x in (tokens, targets))
        optimizer.zero_grad()
        logits = model(tokens)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def training_row(size: str, framing: str, seeds: int, *, rounds: int) -> Row:
    """A step of ours and of the plain loop, and a matrix product, in turns."""
    flags = {"model.size": size, "framing": framing, "seeds": seeds}
    recipe = resolve_recipe("paper", flags)
    stack = stack_of(recipe)
    threads = torch.get_num_threads()
    steps = iter(range(1_000_000))
    plain = plain_loop(recipe, stack.shape)
    turns = 1 if size == "mlt" else 5
    ours, theirs, rates = [], [], []
    for turn in range(rounds + 1):
        if stack.kernel:
            torch.set_num_threads(1)  # as train_models does
        own = seconds(lambda: stack.step(next(steps)), turns)
        torch.set_num_threads(threads)
        other = seconds(plain, turns)
        if turn:  # the first warms up
            ours.append(own / seeds)
            theirs.append(other)
            rates.append(matrix_rate())
    step, hooked, best = map(statistics.median, (ours, theirs, rates))
    windows = int(stack.streams[0].draw(0).counts.sum())
    distinct = statistics.mean(len(s.draw(k).tokens) for s in stack.streams for k in range(9))
    rate = operations(stack.shape, windows) / step
    times, share = TRAINING[size, framing, seeds] if seeds > 2 or size == "mlt" else (None, None)
    return {
        "size": size, "framing": framing, "models": seeds, "milliseconds": 1e3 * step,
        "hooked_transformer_milliseconds": 1e3 * hooked, "times_faster": hooked / step,
        "times_faster_wanted": times, "gigaflops": rate / 1e9, "matrix_gigaflops": best / 1e9,
        "share": rate / best, "share_wanted": share,
        "share_computed": rate / best * distinct / windows,
    }  # fmt: skip


def python(code: str) -> list[float]:
    """The numbers that a fresh interpreter prints."""
    command = [sys.executable, "-c", f"import time; t = time.time(); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def step_rows(size: str, seeds: int, times: int) -> list[Row]:
    """Where a step goes: milliseconds of each part, of all models together."""
    recipe = resolve_recipe("paper", {"model.size": size, "seeds": seeds})
    stack = stack_of(recipe)
    kernel = stack.kernel
    assert kernel is not None
    streams, parameters = stack.streams, list(stack.parameters.values())
    drawn = [stream.draw(0) for stream in streams]
    windows = stack._windows(drawn)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    flat = flatten(stack.parameters, stack.shape)
    gradient = torch.randn_like(flat)

    def compute() -> None:
        _Loss.apply(flat.detach().requires_grad_(), *windows, kernel._call, kernel.threads)

    stack.step(0)
    parts = {
        "drawing windows": lambda: [stream.draw(1) for stream in streams],
        "stacking them": lambda: stack._windows(drawn),
        "folding LayerNorms": lambda: flatten(stack.parameters, stack.shape),
        "loss and gradient, in the kernel": compute,
        "unfolding the gradient": lambda: flat.backward(gradient, retain_graph=True),
        "clipping": lambda: clip_each(parameters, 1.0),
        "AdamW": stack.optimizer.step,
        "a whole step": lambda: stack.step(1),
    }
    rows = [
        {"what": f"{what}, {seeds} of {size}", "milliseconds": 1e3 * seconds(part, times)}
        for what, part in parts.items()
    ]
    torch.set_num_threads(threads)
    return rows


def process_rows(size: str, seeds: int, times: int) -> list[Row]:
    """Seconds that new processes take, and the memory of one, with their limits."""
    module = [sys.executable, "-m", "tbtt_interp"]

    def help_of(command: str) -> float:
        call = [*module, command, "--help"]
        return seconds(lambda: subprocess.run(call, check=True, capture_output=True), times)

    imported = statistics.median(
        python("import tbtt_interp; print(time.time() - t)")[0] for _ in range(times)
    )
    slowest = max(map(help_of, COMMANDS[:1] if times == 1 else COMMANDS))
    cases = [("import tbtt_interp", imported, 0.3), ("the slowest --help", slowest, 0.5)]
    train = [*module, *f"train --size {size} --seeds {seeds} --steps 1 --compile".split()]
    with tempfile.TemporaryDirectory() as folder:
        fresh = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
        for state, limit in {"nothing": 45.0, "all": 15.0}.items():
            started = time.perf_counter()
            command = [*train, "--out", f"{folder}/{state}"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            _, status, usage = os.wait4(subprocess.Popen(command, env=fresh, **quiet).pid, 0)
            assert status == 0, command
            taken = time.perf_counter() - started
            cases.append((f"train, a step and its report, {state} compiled", taken, limit))
        lens, loaded = python(
            "import transformer_lens; print(time.time() - t); t = time.time();"
            f"import torch, tbtt_interp; model = tbtt_interp.load_run('{folder}/all').model();"
            "model(torch.zeros(1, 9, dtype=torch.long)); print(time.time() - t)"
        )
    cases += [
        ("import transformer_lens, in a process of its own", lens, None),
        (f"load_run and a forward pass of {size}, TransformerLens imported", loaded, 3),
        (f"most memory in training {seeds} of {size}, gigabytes", usage.ru_maxrss * 1_024 / 1e9, 4),
    ]
    return [{"what": what, "measured": taken, "limit": limit} for what, taken, limit in cases]


def computing_rows(size: str, seeds: int, times: int) -> list[Row]:
    """Seconds that computations in a session take, with their limits."""
    recipe = resolve_recipe("quick", {"model.size": size, "seeds": seeds})
    tasks = recipe.tasks()
    shape = model_shape(recipe, tasks[0])
    stacked = stack_parameters([initial_parameters(shape, seed=s) for s in recipe.seed_list])
    examples, vocabulary = tasks[0].examples, tasks[0].vocabulary
    encoded = [vocabulary.encode(e.prompt + e.answer) + [0] * 9 for e in examples]
    tokens = torch.tensor([row[:9] for row in encoded])

    def activations() -> None:
        each = [hooked_transformer(one_model(stacked, k), shape) for k in range(seeds)]
        record(each, tokens)

    def evaluate() -> None:
        evaluate_models(stacked, shape, tasks, recipe.seed_list)

    model = hooked_transformer(one_model(stacked, 0), shape)
    models = Models.of_models([model], examples, vocabulary)
    pairs = ordered_pairs(models.shared_prompts)
    pairs = pairs.sample(10, seed=0) if times == 1 else pairs
    cases = (
        (f"activations of {len(tokens)} equations at every site, {seeds} of {size}",
         seconds(activations, times), 2),
        (f"evaluation of {seeds} of {size}", seconds(evaluate, times), 1),
        (f"patching {len(pairs):,} pairs at every site, both ways, 1 of {size}",
         seconds(lambda: patching_table(models, pairs)), 60),
    )  # fmt: skip
    return [{"what": what, "measured": taken, "limit": limit} for what, taken, limit in cases]


def evaluation_share(size: str, framing: str, seeds: int, steps: int) -> Row:
    """The share of a training that evaluating and saving take."""
    began, starts, ends = [], [], []
    step, callback = ModelStack.step, TrainingCallback()
    callback.on_start = lambda step, steps: began.append(time.perf_counter())

    def timed(stack: ModelStack, number: int) -> object:
        starts.append(time.perf_counter())
        loss = step(stack, number)
        ends.append(time.perf_counter())
        return loss

    recipe = resolve_recipe("quick", {"model.size": size, "framing": framing, "seeds": seeds})
    training = dataclasses.replace(recipe.training, steps=steps)  # evaluated as often as ever
    recipe = dataclasses.replace(recipe, training=training)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(ModelStack, "step", timed):
        train_models(recipe, Path(folder) / "run", callback=callback)
        whole = time.perf_counter() - began[0]
    what = f"share of training {seeds} of {size} on {framing} that is not steps"
    return {"what": what, "measured": 1 - (sum(ends) - sum(starts)) / whole, "limit": 0.05}


def machine() -> Row:
    """The processor, threads and versions of this machine."""
    model = platform.processor() or platform.machine()
    if (path := Path("/proc/cpuinfo")).is_file():
        lines = [line for line in path.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    return {"processor": model, "threads": torch.get_num_threads(), "versions": versions()}


def show(results: Row) -> None:
    """The tables."""
    where = results["machine"]
    print(f"{where['processor']}, {where['threads']} threads, torch {where['versions']['torch']}\n")

    def wanted(value: float | None, shown: str) -> str:
        return "" if value is None else f"≥ {value:{shown}}"

    print_table(
        ["training", "framing", "models", "ms", "HT ms", "faster", "wanted", "GFLOP/s",
         "share", "wanted", "computed"],
        [
            [r["size"], r["framing"], str(r["models"]), f"{r['milliseconds']:,.2f}",
             f"{r['hooked_transformer_milliseconds']:,.1f}", f"{r['times_faster']:.1f}",
             wanted(r["times_faster_wanted"], "g"), f"{r['gigaflops']:.0f}", f"{r['share']:.0%}",
             wanted(r["share_wanted"], ".0%"), f"{r['share_computed']:.0%}"]
            for r in results["training"]
        ],
        notes=[
            "ms: a step of one model among so many. HT ms: a step of one HookedTransformer, eager.",
            "share: of the rate of a 2,048 by 2,048 product, counting every window drawn; "
            "computed: counting a window once, however often it was drawn.\n",
        ],
    )  # fmt: skip
    print_table(
        ["a step's parts", "ms"],
        [[r["what"], f"{r['milliseconds']:.2f}"] for r in results["step"]],
        notes=[""],
    )
    print_table(
        ["waiting for", "measured", "limit"],
        [
            [r["what"], f"{r['measured']:.2f}", "" if r["limit"] is None else f"{r['limit']:g}"]
            for r in results["waiting"]
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    options = parser.parse_args()
    keep_freed_memory()
    if options.quick:
        training = [training_row("small", "file", 2, rounds=1)]
        steps = step_rows("small", 2, 1)
        waiting = process_rows("small", 2, 1) + computing_rows("small", 2, 1)
        waiting.append(evaluation_share("small", "line", 2, 20))
    else:
        training = [training_row(*case, rounds=2 if case[0] == "mlt" else 9) for case in TRAINING]
        steps = step_rows("small", 16, 30) + step_rows("large", 16, 10)
        waiting = process_rows("large", 16, 3) + computing_rows("large", 16, 3)
        waiting += [
            evaluation_share("small", "file", 16, 1_000),
            evaluation_share("large", "file", 16, 500),
        ]
    results = {"machine": machine(), "training": training, "step": steps, "waiting": waiting}
    show(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

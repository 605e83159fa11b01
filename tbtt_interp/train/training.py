"""Training: from a recipe to a run on disk, in steps, evaluations and saves; resumable anywhere."""

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tbtt_interp import files, runs
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_models
from tbtt_interp.kernel import BITS, is_suited, source_hash
from tbtt_interp.runs import Row, Run, RunConfig, load_run
from tbtt_interp.tasks import Floors
from tbtt_interp.tasks.entropy import stream_floors
from tbtt_interp.train.recipe import Recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback, begin, new_stack, threads_of_torch
from tbtt_interp.train.step import ModelStack

LATE = 5 / 6  # evaluations after this fraction of training are late
SAVING = 0.05  # the fraction of training time that saving between checkpoints may take


def train_models(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, runtime: Runtime | None = None,
    callback: TrainingCallback | None = None,
) -> Run:  # fmt: skip
    """The run of a recipe's models, trained side by side into a folder.

    A finished run is returned as it is. With `resume`, an unfinished run continues, and ends in the
    same bits as an uninterrupted run: on any machine, if it is compiled, else on the same one. A
    folder that holds something else is refused before anything is written.
    """
    folder = Path(folder)
    callback = callback or TrainingCallback()
    runtime = runtime or Runtime()
    run = existing_run(recipe, folder, resume=resume)
    if run is None:
        runs.check_free(folder)
    elif run.is_complete:
        shutil.rmtree(run.folder / "resume", ignore_errors=True)  # left by a kill at the very end
        return run
    else:
        runtime = _resumed_runtime(runtime, run, callback)
    with threads_of_torch(runtime.threads):
        stack = new_stack(recipe, runtime, callback)
        if run is not None and run.config.environment["compiled"] and stack.kernel is None:
            what = f"{folder} was started by the compiled kernel, which cannot be built here"
            raise TbttError(f"{what}: install a C++ compiler, or give another --out FOLDER")
        floors = [stream_floors(stream) for stream in stack.streams]
        begin(stack, recipe, callback, resumed=run is not None and _resume_path(folder).is_file())
        # a second thread of torch would spin between the short operations of narrow models
        narrow = is_suited(stack.shape) and (stack.kernel or runtime.threads is None)
        with threads_of_torch(1 if narrow else None):
            run = run or _create(recipe, folder, stack)
            _train(run, stack, floors, callback)
    return run


def existing_run(recipe: Recipe, folder: Path, *, resume: bool) -> Run | None:
    """This recipe's run in a folder, or None; raises a TbttError at another recipe's run."""
    if not (folder / "config.json").is_file():
        return None
    run = load_run(folder)
    stored, wanted = run.config.recipe, json.loads(json.dumps(recipe.table()))
    if stored is None:
        raise TbttError(f"{folder} holds an imported model: give another --out FOLDER")
    if stored != wanted:
        what = f"a run made with another recipe ({_difference(stored, wanted)})"
        raise TbttError(f"{folder} holds {what}: give another --out FOLDER, or the same settings")
    if [task.examples for task in run.tasks] != [task.examples for task in recipe.tasks()]:
        what = f"{recipe.task} has changed since the run in {folder} started"
        raise TbttError(f"{what}: restore it, or give another --out FOLDER")
    if not run.is_complete and not resume:
        then = "add --resume to continue it, or give another --out FOLDER"
        raise TbttError(f"{folder} holds an unfinished run of this recipe: {then}")
    return run


def _difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first setting that differs, in words."""
    for key, value in wanted.items():
        old = stored.get(key)
        if old != value and isinstance(value, dict) and isinstance(old, dict):
            return _difference(old, value)
        if old != value:
            return f"{key} is {old!r} there and {value!r} here"
    return "it has other keys"


def _resumed_runtime(requested: Runtime, run: Run, callback: TrainingCallback) -> Runtime:
    """The runtime a run started on, with the user's overrides; warns where bits may differ."""
    started = run.config.environment
    settings = {key: started[key] for key in vars(requested) if key in started}
    given = {key: value for key, value in vars(requested).items() if value is not None}
    runtime = Runtime(**settings | given)
    if started.get("bits") != BITS:
        what = f"{run.folder} was started by a version that gives other weights"
        raise TbttError(f"{what}: train it again with another --out FOLDER")
    if started["compiled"]:
        if given.get("compiled") is False or runtime.device != "cpu":
            what = f"{run.folder} was started by the compiled kernel, on the CPU"
            raise TbttError(f"{what}, and must continue so: drop --no-compile and --device")
        return dataclasses.replace(runtime, threads=requested.threads)
    if vars(runtime) != settings or runs.versions() != run.config.versions:
        callback.on_message(
            "This run started on another device, with other threads, or under other versions: "
            "its last bits may differ from those of an uninterrupted run."
        )
    return dataclasses.replace(runtime, compiled=False)


def _resume_path(folder: Path) -> Path:
    return folder / "resume" / "state.safetensors"


def _create(recipe: Recipe, folder: Path, stack: ModelStack) -> Run:
    task = recipe.tasks()[0]
    config = RunConfig(
        task=recipe.task, framing=recipe.framing, size=recipe.model.size, shape=vars(stack.shape),
        vocabulary=task.vocabulary.characters, seeds=recipe.seed_list,
        held_out=recipe.held_out_sets, steps=recipe.training.steps,
        recipe=recipe.table(), versions=runs.versions(), answer_seeds=recipe.answer_seeds,
        order_seeds=tuple(recipe.order_seed(seed, task) for seed in recipe.seed_list),
        environment=_environment(stack),
    )  # fmt: skip
    return runs.create_run(folder, config, task)


def _environment(stack: ModelStack) -> dict[str, object]:
    """Where a run is trained, and what decides its bits."""
    compiled = stack.kernel is not None
    device = next(iter(stack.parameters.values())).device.type
    threads = stack.kernel.threads if stack.kernel else torch.get_num_threads()
    environment = {"device": device, "threads": threads, "compiled": compiled,
                   "processor": runs.processor(), "bits": BITS}  # fmt: skip
    if stack.kernel is not None:
        environment |= {"kernel": source_hash(), "compiler": stack.kernel.compiler}
    return environment


def _train(
    run: Run, stack: ModelStack, floors: Sequence[Floors], callback: TrainingCallback
) -> None:
    training, first = stack.training, stack.first_step
    state_path = _resume_path(run.folder)
    done, seconds = first, 0.0
    lines: list[Row] = []
    if state_path.is_file():
        state = files.read_tensors(state_path)
        done, seconds = int(state.pop("step")), float(state.pop("seconds"))
        stack.restore(state)
        lines = [line for line in runs.read_metrics(run.folder) if line["step"] <= done]
        due = range(0, done + 1, training.evaluate_every)
        expected = {first, *(k for k in due if k > first),
                    *({done} & {training.steps})}  # fmt: skip
        if missing := expected - {line["step"] for line in lines}:
            what = f"{run.folder / 'metrics.jsonl'} lacks the evaluation at step {min(missing)}"
            raise TbttError(f"{what}: {files.AGAIN}")
    callback.on_start(done, training.steps)
    started = time.monotonic() - seconds
    last_saved, saving_took = started, 0.0

    def is_due(every: int) -> bool:
        return done == training.steps or (every > 0 and done % every == 0)

    def evaluate() -> None:
        lines.append({"step": done, "seeds": _evaluation(run, stack)})
        runs.write_metrics(run.folder, lines)
        callback.on_evaluation(lines[-1])

    def save() -> None:
        nonlocal last_saved, saving_took
        now = time.monotonic()
        if done in training.keep_states:
            files.write_tensors(runs.state_path(run.folder, done), stack.state())
        if is_due(training.checkpoint_every) or done in training.keep_states or 0 < done == first:
            runs.write_checkpoint(run.folder, run.config, done, stack.parameters)
        elif saving_took > SAVING * (now - last_saved):
            return
        if done > first:
            progress = {"step": done, "seconds": time.monotonic() - started}
            state = {key: torch.tensor(value) for key, value in progress.items()}
            files.write_tensors(state_path, stack.state() | state)
        last_saved = time.monotonic()
        saving_took = last_saved - now

    if done == first:
        evaluate()
        save()
    for step in stack.steps(done, training.steps):
        done = step
        callback.on_step(done)
        if is_due(training.evaluate_every):
            evaluate()
        if (
            any(map(is_due, (training.evaluate_every, training.checkpoint_every)))
            or done in training.keep_states
        ):
            save()
    run.__dict__.pop("checkpoints", None)  # cached before the last one was written
    summary = _summary(run, floors, lines, time.monotonic() - started)
    runs.write_summary(run.folder, summary, stack.parameters)
    shutil.rmtree(state_path.parent, ignore_errors=True)


def _evaluation(run: Run, stack: ModelStack) -> list[Row]:
    """One row per model, as metrics.jsonl has it."""
    weights = {name: p.detach() for name, p in stack.parameters.items()}
    rows = evaluate_models(weights, run.shape, run.tasks, run.seeds, stack.kernel).rows()
    losses = zip(run.seeds, stack.reference_loss(), rows, strict=True)
    return [{"seed": seed, "loss": loss} | row for seed, loss, row in losses]


def _summary(run: Run, floors: Sequence[Floors], lines: Sequence[Row], seconds: float) -> Row:
    late = [line["seeds"] for line in lines if line["step"] > LATE * run.config.steps]
    seeds = [
        row | {"floors": vars(floor)} | _late_counts([rows[k] for rows in late])
        for k, (row, floor) in enumerate(zip(lines[-1]["seeds"], floors, strict=True))
    ]
    return {"steps": run.config.steps, "seconds": round(seconds, 1), "seeds": seeds}


def _late_counts(rows: Sequence[Row]) -> Row:
    """The number of a model's late evaluations with every seen, or every held-out, answer right."""
    late = {}
    for name, start in {"late_seen": "seen_", "late_held_out": "held_out"}.items():
        counts = [[v for k, v in row.items() if k.startswith(start) and v[1]] for row in rows]
        if all(counts):
            right = sum(all(hits == total for hits, total in pairs) for pairs in counts)
            late[name] = [right, len(rows)]
    return late

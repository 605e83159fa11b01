"""Training: from a recipe to a run on disk, in steps, evaluations and saves; resumable anywhere."""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tbtt_interp import files, runs
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_models
from tbtt_interp.integrity import write_summary
from tbtt_interp.kernel import BITS, is_suited, source_hash
from tbtt_interp.metrics import Row, write_metrics
from tbtt_interp.runs import Run, RunConfig, load_run
from tbtt_interp.tasks import Floors
from tbtt_interp.tasks.entropy import stream_floors
from tbtt_interp.threads import processor
from tbtt_interp.train.recipe import Recipe
from tbtt_interp.train.saved import Saved, newest_saved, write_newest, write_state
from tbtt_interp.train.source import own_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback, begin, new_stack, threads_of_torch
from tbtt_interp.train.step import ModelStack
from tbtt_interp.versions import versions

LATE = 5 / 6  # evaluations after this fraction of training are late
SAVING = 0.05  # the fraction of training time that saving between checkpoints may take


def train_models(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, runtime: Runtime | None = None,
    callback: TrainingCallback | None = None,
) -> Run:  # fmt: skip
    """The run of a recipe's models, trained side by side into a folder.

    A finished run is returned as it is. With `resume`, an unfinished run continues, and ends in the
    same bits as an uninterrupted run: on any machine, if it is compiled, else on the same one.
    Where its newest state is damaged, it continues from an older one, or begins again.

    Raises:
        TbttError: if the folder holds something else, a damaged file, or a training of another
            process; nothing is written then.
    """
    folder = Path(folder)
    callback = callback or TrainingCallback()
    run = existing_run(recipe, folder, resume=resume)
    if run is None:
        runs.check_free(folder)
    if run is None or not run.is_complete:
        with files.sole_owner(folder):
            run = _trained(recipe, folder, runtime or Runtime(), callback)
    shutil.rmtree(run.folder / "resume", ignore_errors=True)  # or left by a kill at the very end
    return run


def _trained(recipe: Recipe, folder: Path, runtime: Runtime, callback: TrainingCallback) -> Run:
    """The run once it is trained to its end, from where it is."""
    run = existing_run(recipe, folder, resume=True)  # another process may have been at it
    if run is not None and run.is_complete:
        return run
    if run is not None:
        runtime = _resumed_runtime(runtime, run, callback)
    with threads_of_torch(runtime.threads):
        stack = new_stack(recipe, runtime, callback)
        if run is not None and run.config.environment["compiled"] and stack.kernel is None:
            what = f"{folder} was started by the compiled kernel, which cannot be built here"
            raise TbttError(f"{what}: install a C++ compiler, or give another --out FOLDER")
        floors = [stream_floors(stream) for stream in stack.streams]
        config = _config(recipe, stack)
        if run is not None:
            if recipe.task == str(folder / "corpus.tsv"):  # it keeps the name of its own lines
                named = {"task": run.config.task}
                config = dataclasses.replace(config, **named, recipe={**recipe.table(), **named})
            _check_config(run, config)
        saved = None if run is None else newest_saved(run, stack, callback)
        begin(stack, recipe, callback, resumed=saved is not None)
        # a second thread of torch would spin between the short operations of narrow models
        narrow = is_suited(stack.shape) and (stack.kernel or runtime.threads is None)
        with threads_of_torch(1 if narrow else None):
            if run is None:
                run = runs.create_run(folder, config, recipe.tasks()[0])
            elif saved is None:  # all of it is computed here and now
                files.write_json(folder / "config.json", config.table())
                run = load_run(folder)
            _train(run, stack, floors, callback, saved)
    return run


def existing_run(recipe: Recipe, folder: Path, *, resume: bool) -> Run | None:
    """This recipe's run in a folder, or None; raises a TbttError at another recipe's run."""
    if not (folder / "config.json").is_file():
        return None
    run = load_run(folder)
    stored, wanted = run.config.recipe, json.loads(json.dumps(recipe.table()))
    if stored is None:
        raise TbttError(f"{folder} holds an imported model: give another --out FOLDER")
    if wanted == own_recipe(stored, folder):
        wanted = stored
    if stored != wanted:
        what = f"a run made with another recipe ({_difference(stored, wanted)})"
        raise TbttError(f"{folder} holds {what}: give another --out FOLDER, or the same settings")
    if [task.examples for task in run.tasks] != [task.examples for task in recipe.tasks()]:
        what = f"{recipe.task} has changed since the run in {folder} started"
        raise TbttError(f"{what}: restore it, or give another --out FOLDER")
    if not run.is_complete and not resume:
        with files.sole_owner(folder):  # who trains it now is the better reason
            pass
        then = f"--resume {folder} continues it; or give another --out FOLDER"
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
    if not {"device", "threads", "compiled"} <= started.keys():
        raise TbttError(f"{run.folder / 'config.json'} lacks what it was started on: {files.AGAIN}")
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
    if vars(runtime) != settings or versions() != run.config.versions:
        callback.on_message(
            "This run started on another device, with other threads, or under other versions: "
            "its last bits may differ from those of an uninterrupted run."
        )
    return dataclasses.replace(runtime, compiled=False)


def _config(recipe: Recipe, stack: ModelStack) -> RunConfig:
    task = recipe.tasks()[0]
    return RunConfig(
        task=recipe.task, framing=recipe.framing, size=recipe.model.size, shape=vars(stack.shape),
        vocabulary=task.vocabulary.characters, seeds=recipe.seed_list,
        held_out=recipe.held_out_sets, steps=recipe.training.steps,
        recipe=recipe.table(), versions=versions(), answer_seeds=recipe.answer_seeds,
        order_seeds=tuple(recipe.order_seed(seed, task) for seed in recipe.seed_list),
        environment=_environment(stack),
    )  # fmt: skip


def _check_config(run: Run, wanted: RunConfig) -> None:
    """Checks that a run's configuration is what its recipe gives, wherever it is trained."""
    stored, own = (json.loads(json.dumps(config.table())) for config in (run.config, wanted))
    here = {key: stored[key] for key in ("environment", "versions")}
    if stored != own | here:
        what = f"{run.folder / 'config.json'} is damaged ({_difference(stored, own | here)})"
        raise TbttError(f"{what}: {files.AGAIN}")


def _environment(stack: ModelStack) -> dict[str, object]:
    """Where a run is trained, and what decides its bits."""
    compiled = stack.kernel is not None
    device = next(iter(stack.parameters.values())).device.type
    threads = stack.kernel.threads if stack.kernel else torch.get_num_threads()
    environment = {"device": device, "threads": threads, "compiled": compiled,
                   "processor": processor(), "bits": BITS}  # fmt: skip
    if stack.kernel is not None:
        environment |= {"kernel": source_hash(), "compiler": stack.kernel.compiler}
    return environment


def _train(
    run: Run, stack: ModelStack, floors: Sequence[Floors], callback: TrainingCallback,
    saved: Saved | None,
) -> None:  # fmt: skip
    training, first = stack.training, stack.first_step
    done, seconds = first, 0.0
    lines: list[Row] = []
    if saved is not None:
        done, seconds, lines = saved.step, saved.seconds, list(saved.lines)
        stack.restore(saved.state)
    callback.on_start(done, training.steps)
    started = time.monotonic() - seconds
    last_saved, saving_took = started, 0.0

    def is_due(every: int) -> bool:
        return done == training.steps or (every > 0 and done % every == 0)

    def evaluate() -> None:
        before = lines[-1]["seeds"] if lines else []
        lines.append({"step": done, "seeds": _evaluation(run, stack, done, before)})
        for row in lines[-1]["seeds"]:
            if row.get("diverged") == done:
                callback.on_message(
                    f"Seed {row['seed']} diverged by step {done:,}: its loss is no finite number. "
                    "It is left out of every mean; a lower learning rate may train it."
                )
        write_metrics(run.folder, lines)
        callback.on_evaluation(lines[-1])

    def save() -> None:
        nonlocal last_saved, saving_took
        now = time.monotonic()
        if done in training.keep_states:
            write_state(runs.state_path(run.folder, done), run, done, stack.state(), lines)
        if is_due(training.checkpoint_every) or done in training.keep_states or 0 < done == first:
            runs.write_checkpoint(run.folder, run.config, done, stack.parameters)
        elif saving_took > SAVING * (now - last_saved):
            return
        if done > first:
            write_newest(run, done, stack.state(), lines, time.monotonic() - started)
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
    write_summary(run.folder, summary, stack.parameters)


def _evaluation(run: Run, stack: ModelStack, step: int, before: Sequence[Row]) -> list[Row]:
    """One row per model, as metrics.jsonl has it.

    The row of a diverged model has no loss and no margins, counts of 0 of 0, and `diverged`: the
    step of the evaluation that found it so.
    """
    weights = {name: p.detach() for name, p in stack.parameters.items()}
    evaluation = evaluate_models(weights, run.shape, run.tasks, run.seeds, stack.kernel)
    known, rows = {row["seed"]: row["diverged"] for row in before if "diverged" in row}, []
    for row, loss, diverged in zip(
        evaluation.rows(), stack.reference_loss(), evaluation.diverged.tolist(), strict=True
    ):
        seed = row["seed"]
        if diverged or seed in known or not math.isfinite(loss):
            none = {key: [0, 0] for key, value in row.items() if isinstance(value, list)}
            rows.append({"seed": seed, "loss": None} | none | {"diverged": known.get(seed, step)})
        else:
            rows.append({"seed": seed, "loss": loss} | row)
    return rows


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

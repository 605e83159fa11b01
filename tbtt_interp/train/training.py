"""From a recipe to a run on disk: the loop of steps, evaluations and saves, resumable anywhere."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_models
from tbtt_interp.model import Shape, initial_parameters, stack_parameters
from tbtt_interp.runs import (
    Row,
    Run,
    RunConfig,
    check_free,
    checkpoint_path,
    create_run,
    read_metrics,
    read_tensors,
    versions,
    write_json,
    write_metrics,
    write_tensors,
)
from tbtt_interp.tasks import Floors, Stream, Task
from tbtt_interp.tasks.entropy import stream_floors
from tbtt_interp.train.engine import Engine, is_worth_compiling, keep_freed_memory, pick_device
from tbtt_interp.train.existing import existing_run
from tbtt_interp.train.kernel import Kernel, KernelError, is_suited
from tbtt_interp.train.recipe import Recipe, TrainingRecipe

LATE = 5 / 6  # evaluations after this share of training are late
SAVING = 0.05  # of training's time that saving a state between checkpoints may take


class Watcher:
    """What is told of a training as it goes; this one says nothing."""

    def said(self, message: str) -> None:
        """Something to know, once."""

    def started(self, step: int, steps: int) -> None:
        """Training begins, or goes on, at this step of so many."""

    def stepped(self, step: int) -> None:
        """So many steps are done."""

    def evaluated(self, line: Row) -> None:
        """There are new figures: a line of metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a training runs on: it may change the last bits of the weights, nothing else.

    Attributes:
        device: cpu, cuda or mps; None is the processor, or where a resumed run was trained.
        threads: of the processor; None leaves torch's own choice.
        compiled: whether to compile the step; None compiles where that pays.
    """

    device: str | None = None
    threads: int | None = None
    compiled: bool | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= 1_024:
            raise TbttError(f"threads must be from 1 to 1024, got {self.threads}")
        if self.device is not None:
            pick_device(self.device)


def train_models(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    machine: Machine | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Trains a recipe's models side by side into a run folder.

    A run that is finished is not trained again but returned. One that was cut off goes on with
    `resume`, and ends in the same bits as if it had not been, on the same machine.

    Raises:
        TbttError: before anything is written, if the folder has something else in it, or a run of
            another recipe, or an unfinished run and `resume` is not given.
    """
    folder = Path(folder)
    watcher = watcher or Watcher()
    machine = machine or Machine()
    tasks = recipe.tasks()
    run = existing_run(recipe, folder, resume=resume)
    if run is None:
        check_free(folder)
    elif run.is_complete:
        shutil.rmtree(run.folder / "resume", ignore_errors=True)  # if it was killed at the very end
        return run
    else:
        machine = _same_machine(machine, run, watcher)
    with _threads(machine.threads):
        engine = _engine(recipe, tasks, machine, watcher)
        floors = [stream_floors(stream) for stream in engine.streams]
        if run is None:
            run = _create(recipe, tasks, folder, engine)
        # torch's idle threads spin for a while, on the cores that the kernel computes on
        with _threads(1 if engine.kernel else None):
            _train(run, recipe, engine, floors, watcher)
    return run


def _same_machine(asked: Machine, run: Run, watcher: Watcher) -> Machine:
    """What a run was begun on, but for what is asked otherwise, which is said."""
    began = run.config.environment
    machine = Machine(
        device=asked.device or began["device"],
        threads=asked.threads or began["threads"],
        compiled=began["compiled"] if asked.compiled is None else asked.compiled,
    )
    if vars(machine) != began or versions() != run.config.versions:
        watcher.said(
            "This run was begun on another device, with other threads, or under other versions, "
            "so its last bits may differ from those of an uninterrupted one."
        )
    return machine


def model_shape(recipe: Recipe, task: Task) -> Shape:
    """The shape of a recipe's models on its task."""
    model = recipe.model
    return Shape(
        layers=model.layers,
        heads=model.heads,
        d_model=model.d_model,
        d_mlp=model.d_mlp,
        bias=model.bias,
        n_ctx=recipe.training.window,
        d_vocab=len(task.vocabulary),
    )


def model_streams(recipe: Recipe, tasks: Sequence[Task]) -> list[Stream]:
    """Each model's own training data."""
    batch = recipe.training.batch
    return [
        Stream(
            lines=task.file(recipe.order_seed(seed, task)),
            vocabulary=task.vocabulary,
            framing=recipe.framing,
            window=recipe.training.window,
            batch=batch if isinstance(batch, int) else None,
            seed=seed,
        )
        for seed, task in zip(recipe.seed_list, tasks, strict=True)
    ]


def _engine(recipe: Recipe, tasks: Sequence[Task], machine: Machine, watcher: Watcher) -> Engine:
    """An engine that has been seen to work: compiled where asked and possible."""
    device = pick_device(machine.device or "cpu")
    keep_freed_memory()
    shape = model_shape(recipe, tasks[0])
    streams = model_streams(recipe, tasks)
    parameters = stack_parameters([initial_parameters(shape, seed=s) for s in recipe.seed_list])
    compiled = machine.compiled
    if compiled is None:
        windows = max(len(stream.reference().tokens) for stream in streams)
        compiled = is_worth_compiling(shape, recipe.training, windows, recipe.seeds)
    kernel = None
    if machine.compiled and not is_suited(shape, device):
        watcher.said("Not compiled: at this width, or on this device, torch is as fast.")
    elif compiled and is_suited(shape, device):
        try:
            kernel = Kernel(shape, parameters["embed.W_E"].dtype)
        except KernelError as error:
            watcher.said(f"Not compiled, so training will be several times slower: {error}")
    return Engine(parameters, shape, recipe.training, streams, device=device, kernel=kernel)


def _create(recipe: Recipe, tasks: Sequence[Task], folder: Path, engine: Engine) -> Run:
    task = tasks[0]
    config = RunConfig(
        task=recipe.task,
        framing=recipe.framing,
        size=recipe.model.size,
        shape=vars(engine.shape),
        vocabulary=task.vocabulary.characters,
        seeds=recipe.seed_list,
        held_out=recipe.held_out_each or (recipe.held_out,) * recipe.seeds,
        order_seeds=tuple(recipe.order_seed(seed, task) for seed in recipe.seed_list),
        steps=recipe.training.steps,
        recipe=recipe.as_table(),
        environment={
            "device": engine.device.type,
            "threads": torch.get_num_threads(),
            "compiled": engine.kernel is not None,
        },
        versions=versions(),
    )
    return create_run(folder, config, task)


def _train(
    run: Run, recipe: Recipe, engine: Engine, floors: Sequence[Floors], watcher: Watcher
) -> None:
    training = recipe.training
    saved = run.folder / "resume" / "state.safetensors"
    done, seconds = 0, 0.0
    lines: list[Row] = []
    if saved.is_file():
        state = read_tensors(saved)
        done, seconds = int(state.pop("step")), float(state.pop("seconds"))
        engine.restore(state)
        lines = [line for line in read_metrics(run.folder) if line["step"] <= done]
        _check_whole(run, lines, done, training)
    watcher.started(done, training.steps)
    started = time.monotonic() - seconds
    last_saved, saving_takes = started, 0.0

    def is_due(every: int) -> bool:
        return done == training.steps or (every > 0 and done % every == 0)

    def record() -> None:
        lines.append({"step": done, "seeds": _evaluation(run, engine)})
        write_metrics(run.folder, lines)
        watcher.evaluated(lines[-1])

    def save() -> None:
        nonlocal last_saved, saving_takes
        now = time.monotonic()
        if not is_due(training.checkpoint_every) and saving_takes > SAVING * (now - last_saved):
            return
        if is_due(training.checkpoint_every):
            path = checkpoint_path(run.folder, done)
            write_tensors(path, engine.parameters)
        if done > 0:
            progress = {
                "step": torch.tensor(done),
                "seconds": torch.tensor(time.monotonic() - started),
            }
            write_tensors(saved, engine.state() | progress)
        last_saved = time.monotonic()
        saving_takes = last_saved - now

    if done == 0:
        record()
        save()
    while done < training.steps:
        engine.step(done)
        done += 1
        watcher.stepped(done)
        if is_due(training.evaluate_every):
            record()
        if is_due(training.evaluate_every) or is_due(training.checkpoint_every):
            save()
    summary = _summary(run, floors, lines, time.monotonic() - started)
    run.__dict__.pop("checkpoints", None)
    write_json(run.folder / "summary.json", summary)
    shutil.rmtree(saved.parent, ignore_errors=True)


def _evaluation(run: Run, engine: Engine) -> list[Row]:
    """One row a model, as metrics.jsonl has it."""
    weights = {name: p.detach() for name, p in engine.parameters.items()}
    losses = engine.reference_loss()
    evaluation = evaluate_models(weights, run.shape, run.tasks, run.seeds)
    rows = zip(run.seeds, losses, evaluation.counts(), evaluation.smallest_margins(), strict=True)
    return [
        {"seed": seed, "loss": loss}
        | {name: [rate.hits, rate.total] for name, rate in counts.items()}
        | {f"margin_{side}": margin for side, margin in margins.items()}
        for seed, loss, counts, margins in rows
    ]


def _summary(run: Run, floors: Sequence[Floors], lines: Sequence[Row], seconds: float) -> Row:
    late = [line for line in lines if line["step"] > LATE * run.config.steps]
    return {
        "steps": run.config.steps,
        "seconds": round(seconds, 1),
        "seeds": [
            row | {"floors": vars(floor)} | _late([line["seeds"][k] for line in late])
            for k, (row, floor) in enumerate(zip(lines[-1]["seeds"], floors, strict=True))
        ],
    }


def _late(rows: Sequence[Row]) -> Row:
    """Of one model's late evaluations, at how many all seen and all held-out answers are right."""
    sides = {"late_seen": "seen_", "late_held_out": "held_out"}
    found = {}
    for name, start in sides.items():
        counts = [[v for k, v in row.items() if k.startswith(start) and v[1]] for row in rows]
        if all(counts):
            right = sum(all(hits == total for hits, total in pairs) for pairs in counts)
            found[name] = [right, len(rows)]
    return found


def _check_whole(run: Run, lines: Sequence[Row], done: int, training: TrainingRecipe) -> None:
    expected = {*range(0, done + 1, training.evaluate_every)}
    expected |= {done} if done == training.steps else set()
    if missing := expected - {line["step"] for line in lines}:
        raise TbttError(
            f"{run.folder / 'metrics.jsonl'} lacks the evaluation at step {min(missing)}: restore "
            "the file from a copy, or delete the run's folder and train it again"
        )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

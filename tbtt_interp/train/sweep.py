"""Sweeps: grids of recipes in one TOML file, and the jobs that train their cells.

A cell is one point of a grid: a size, a task, a framing, held-out pairs, a learning rate and so on,
with its seeds. Cells that differ only in their held-out pairs train side by side, as one job.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

from tbtt_interp.errors import TbttError, brief, folder_word, is_folder_name, unknown
from tbtt_interp.metrics import read_metrics
from tbtt_interp.model import count_parameters
from tbtt_interp.runs import check_free
from tbtt_interp.tables import check_whole
from tbtt_interp.tasks.arithmetic import pairs_text
from tbtt_interp.train.recipe import SCHEMA, Recipe, Table, read_toml, resolve_recipe
from tbtt_interp.train.stacks import model_shape
from tbtt_interp.train.training import existing_run

NO_AXES = ("base", "summary", "model", "training", "changes", "held_out_each")
# The keys of a grid: those of recipes, by their last words, and of changes as they are
AXES = {
    key if key.startswith("changes.") else key.rpartition(".")[2]: key
    for key in (*SCHEMA, "steps")
    if not key.startswith("sizes") and key not in NO_AXES
}
OWN = ("recipe", "name")  # of a grid: the recipe that it changes, and a word for its jobs' names
IN_EVERY_NAME = ("task", "size", "framing")
EVERY_PAIR = "every pair"  # as `held_out`: each operand pair of the task in turn
MODELS = 64  # trained side by side at most; a cell is never split
# Fitted to the processor time of two cores, small to mlt, on every framing; other programs come on
# top. Estimates are within a factor of 1.5 of all measurements.
RATE = 2.4e11  # floating-point operations per second of two cores in matrix products
ACTIVATION = 1.9e-9  # seconds per channel, layer and token: LayerNorm, softmax, GELU, memory
STEP = 4e-5  # seconds per model and step, whatever its size: windows, optimizer, clipping


def estimated_hours(recipe: Recipe) -> float:
    """Estimated hours of two CPU cores that a recipe's training takes.

    A forked run without the optimizer's state is trained to its fork first, which counts.

    >>> round(estimated_hours(resolve_recipe("paper", {"model.size": "large", "seeds": 16})), 1)
    0.7
    """
    task, training = recipe.tasks()[0], recipe.training
    shape = model_shape(recipe, task)
    layers, d, window = shape.layers, shape.d_model, training.window
    windows = training.batch if isinstance(training.batch, int) else len(task.lines)
    # 6 operations per weight and character, those of the one-hot embedding and readout included
    weights = layers * (4 * d**2 + 2 * d * shape.d_mlp) + 2 * d * shape.d_vocab
    operations = 6 * weights + 12 * layers * d * window  # and of attention
    step = STEP + windows * window * (operations / RATE + ACTIVATION * d * layers)
    origin = recipe.sources.get("from")
    steps = training.steps - (origin.step if origin and origin.has_state else 0)
    return step * steps * recipe.seeds / 3_600


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep: the cells that train side by side, and the name of the run's folder."""

    name: str
    recipe: Recipe
    hands: int = 0  # models that the pairs were dealt to, in a cell where each has its own

    def cells(self) -> list[tuple[str, int]]:
        """Each cell's held-out pairs and its number of models."""
        sets = self.recipe.held_out_sets
        if self.hands:
            return [(f"all pairs, in {self.hands} hands", len(sets))]
        return [(pairs_text(held_out), sets.count(held_out)) for held_out in dict.fromkeys(sets)]

    @property
    def gigabytes(self) -> float:
        """The size of the job's checkpoints."""
        training, shape = self.recipe.training, model_shape(self.recipe, self.recipe.tasks()[0])
        kept = training.steps // training.checkpoint_every if training.checkpoint_every else 0
        return 4e-9 * (kept + 2) * count_parameters(shape) * self.recipe.seeds

    @cached_property
    def hours(self) -> float:
        """Estimated hours of two CPU cores."""
        return estimated_hours(self.recipe)

    def progress(self, folder: Path) -> tuple[float, str]:
        """The fraction of the job that is trained, and the reason if it cannot be trained."""
        path, steps = folder / self.name, self.recipe.training.steps
        try:
            run = existing_run(self.recipe, path, resume=True)
            if run is None:
                check_free(path)
            elif run.is_complete:
                check_whole(run)
                return 1.0, ""
            lines = read_metrics(path)
            return (min(lines[-1]["step"], steps - 1) / steps if lines else 0.0), ""
        except TbttError as error:
            return 0.0, str(error)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A comparison of two jobs' held-out shares that was named before the run, with its bounds."""

    sweep: str  # whose jobs it compares
    account: str  # the explanation that it tests
    claim: str  # what holds if the second job's share is higher
    first: str
    second: str
    read: str = "end"  # or "fit" or "later"; analyses/measures.py says when these are
    supports: float = 0.0  # the interval of the difference above this supports the claim
    refutes: float = 0.1  # and below this refutes it


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep's file, resolved."""

    name: str
    summary: str
    expected: tuple[str, ...]  # hypotheses with measures and thresholds, written before the run
    jobs: tuple[Job, ...]
    contrasts: tuple[Contrast, ...] = ()

    def only(self, pattern: str) -> "Sweep":
        """The sweep with the jobs whose names match a pattern, as in "*-line-*".

        Raises:
            TbttError: if none does.
        """
        jobs = tuple(job for job in self.jobs if fnmatchcase(job.name, pattern))
        if not jobs:
            what = f"no job of sweep {self.name} is called like '{pattern}'"
            raise TbttError(f"{what}: its first is {self.jobs[0].name}; --dry-run lists all")
        return dataclasses.replace(self, jobs=jobs)


def read_sweep(source: str) -> Sweep:
    """A sweep by its name, or by the path of a TOML file, with every cell resolved and checked.

    >>> len(read_sweep("atlas").jobs[0].cells())
    16
    """
    path, table = read_toml("sweep", source, "sweeps")
    where, keys = f"sweep {path.name}", ["summary", "expected", "defaults", "grid", "contrast"]
    if strange := table.keys() - keys:
        raise unknown(f"{where} key", min(strange), keys)
    grids, expected = table.get("grid"), table.get("expected", [])
    summary, defaults = table.get("summary", ""), table.get("defaults", {})
    if not isinstance(grids, list) or {*map(type, grids)} != {dict}:
        raise TbttError(f"{where} has no [[grid]]: give one or more, as train/sweeps has")
    if not isinstance(defaults, dict):
        raise TbttError(f"{where} key defaults must be a table: [defaults], with keys of a grid")
    if not isinstance(expected, list) or {*map(type, expected)} - {str}:
        raise TbttError(f"{where} key expected must be a list of texts")
    if not isinstance(summary, str):
        raise TbttError(f"{where} key summary must be a text")
    jobs = tuple(
        job for grid in grids for job in _jobs(_flat(defaults) | _flat(grid), f"{where} grid")
    )
    names = [job.name for job in jobs]
    if double := {name for name in names if names.count(name) > 1}:
        raise TbttError(f"{where} has two jobs called {min(double)}: give each grid a name")
    contrasts = tuple(
        _contrast(row | {"sweep": path.stem}, names, where) for row in table.get("contrast", [])
    )
    return Sweep(name=path.stem, summary=summary, expected=tuple(expected), jobs=jobs,
                 contrasts=contrasts)  # fmt: skip


def _contrast(table: Table, jobs: Sequence[str], where: str) -> Contrast:
    try:
        contrast = Contrast(**table)
    except TypeError as error:
        raise TbttError(f"{where} has a contrast that is not valid ({error})") from error
    for name in (contrast.first, contrast.second):
        if name not in jobs:
            raise unknown(f"{where} contrast's job", name, jobs)
    if contrast.read not in ("fit", "later", "end"):
        raise unknown(f"{where} contrast's read", contrast.read, ["fit", "later", "end"])
    return contrast


def _flat(grid: Table) -> Table:
    """A grid's keys, those of `changes` among them."""
    changes = {f"changes.{key}": value for key, value in grid.get("changes", {}).items()}
    return {key: value for key, value in grid.items() if key != "changes"} | changes


def _jobs(grid: Table, where: str) -> Iterator[Job]:
    if strange := grid.keys() - AXES.keys() - set(OWN):
        raise unknown(f"{where} key", min(strange), [*OWN, *AXES])
    source, name = str(grid.get("recipe", "paper")), grid.get("name", "")
    if not isinstance(name, str) or (name and not is_folder_name(name)):
        raise TbttError(f"{where} key name must be a word for folders' names, got {brief(name)}")
    axes = {key: value if isinstance(value, list) else [value] for key, value in grid.items()
            if key in AXES and key != "held_out"}  # fmt: skip
    if empty := [key for key, values in axes.items() if not values]:
        raise TbttError(f"{where} key {empty[0]} is empty: give a value, or a list of values")
    varied = [key for key in axes if len(axes[key]) > 1 and key not in IN_EVERY_NAME]
    for values in product(*axes.values()):
        flags: dict[str, Any] = {AXES[k]: v for k, v in zip(axes, values, strict=True)}
        sets = _held_out_sets(grid.get("held_out"), where)
        if sets == [EVERY_PAIR]:
            operands = resolve_recipe(source, flags).tasks()[0].operands
            pairs = combinations_with_replacement(operands, 2)
            sets = [[list(pair)] for pair in pairs] or [[]]
        cells = [resolve_recipe(source, flags | {"held_out": pairs}) for pairs in sets]
        if len({cell.held_out for cell in cells}) < len(cells):
            raise TbttError(f"{where} key held_out has the same pairs twice: give each set once")
        first = cells[0]
        words = [folder_word(Path(first.task).stem), first.model.size, first.framing]
        words += [f"{key.split('.')[-1].replace('_', '-')}-{folder_word(flags[AXES[key]])}"
                  for key in varied]  # fmt: skip
        words += [name] if name else []
        at_once = max(1, MODELS // first.seeds)
        starts = range(0, len(cells), at_once)
        for number, start in enumerate(starts, 1):
            part = [f"part-{number}-of-{len(starts)}"] if len(starts) > 1 else []
            recipe, beside = first, cells[start : start + at_once]
            if len(cells) > 1:  # side by side, each cell with seeds of its own
                recipe = dataclasses.replace(
                    beside[0], seeds=first.seeds * len(beside),
                    held_out_each=tuple(c.held_out for c in beside for _ in range(c.seeds)),
                    first_seed=first.first_seed + start * first.seeds,
                )  # fmt: skip
            hands = flags.get("deal_pairs", 0)
            yield Job(name="-".join([*words, *part]), recipe=recipe, hands=hands)


def _held_out_sets(value: object, where: str) -> list[Any]:
    """The sets of held-out pairs that a grid lists; one set, or EVERY_PAIR, is a list of one."""
    if isinstance(value, str) and value != EVERY_PAIR:
        raise unknown(f"{where} key held_out", value, [EVERY_PAIR], "or give operand pairs")
    sets = value if isinstance(value, list) else []
    is_nested = any(isinstance(x, list) for pairs in sets if isinstance(pairs, list) for x in pairs)
    return sets if is_nested else [value]


def sweep_rows(sweep: Sweep, folder: Path) -> list[Table]:
    """A row per cell: its settings, the fraction done, and the hours of two cores left."""
    rows = []
    for job in sweep.jobs:
        recipe, (done, problem) = job.recipe, job.progress(folder)
        for held_out, models in job.cells():
            rows.append({
                "run": job.name, "task": Path(recipe.task).stem, "size": recipe.model.size,
                "framing": recipe.framing, "held_out": held_out, "models": models,
                "steps": recipe.training.steps, "learning_rate": recipe.training.learning_rate,
                "weight_decay": recipe.training.weight_decay, "done": done,
                "hours_left": job.hours * models / recipe.seeds * (1 - done), "problem": problem,
            })  # fmt: skip
    return rows

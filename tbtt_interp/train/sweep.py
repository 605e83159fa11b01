"""A sweep: grids of recipes in one TOML file, and the stacks of models that train its cells.

A cell is one point of a grid: a size, a task, a framing, what is held out, a learning rate and so
on, with its seeds. Cells that differ only in what they hold out train side by side, as one run.
"""

import dataclasses
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.listing import check_whole
from tbtt_interp.runs import check_free, read_metrics
from tbtt_interp.tasks.arithmetic import Pair
from tbtt_interp.train.cost import estimated_hours
from tbtt_interp.train.existing import existing_run
from tbtt_interp.train.recipe import Recipe, Table
from tbtt_interp.train.resolve import recipes_folder, resolve_recipe

# What a grid may set: the options of `tbtt train`, and a few keys of its recipes.
AXES = {
    "size": "model.size", "task": "task", "framing": "framing", "held_out": "held_out",
    "seeds": "seeds", "first_seed": "first_seed", "corpus_seed": "corpus_seed",
    "same_file": "same_file", "steps": "steps", "batch": "training.batch",
    "window": "training.window", "learning_rate": "training.learning_rate",
    "weight_decay": "training.weight_decay", "checkpoint_every": "training.checkpoint_every",
}  # fmt: skip
OWN = ("recipe", "name")  # of a grid: the recipe that it changes, and a word for its cells' names
NAMED = ("task", "size", "framing")  # have their place in every cell's name
EVERY_PAIR = "every pair"  # of `held_out`: each of the 55 in turn
MODELS = 64  # that train side by side at most; a cell is never split


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The cells that train side by side, in one run folder.

    Attributes:
        name: the folder's.
    """

    name: str
    recipe: Recipe

    def cells(self) -> list[tuple[tuple[Pair, ...], int]]:
        """What each cell holds out, and how many models it has."""
        sets = self.recipe.held_out_each or (self.recipe.held_out,) * self.recipe.seeds
        return [(held_out, sets.count(held_out)) for held_out in dict.fromkeys(sets)]

    @cached_property
    def hours(self) -> float:
        """Of two CPU cores, estimated."""
        return estimated_hours(self.recipe)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep's file says.

    Attributes:
        expected: hypotheses with their measures and thresholds, written before the run.
    """

    name: str
    summary: str
    expected: tuple[str, ...]
    stacks: tuple[Stack, ...]


def sweep_names() -> list[str]:
    """The sweeps that come with the package."""
    return sorted(path.stem for path in (recipes_folder() / "sweeps").glob("*.toml"))


def read_sweep(source: str) -> Sweep:
    """A sweep, every cell resolved and checked.

    Args:
        source: the name of a sweep that comes with the package, or the path of a TOML file.
    Raises:
        TbttError: on an unknown key or value, or cells of one name.

    >>> len(read_sweep("atlas").stacks[0].cells())
    16
    """
    if source in sweep_names():
        path = recipes_folder() / "sweeps" / f"{source}.toml"
    elif Path(source).is_file():
        path = Path(source)
    else:
        raise unknown("sweep", source, sweep_names(), "or give the path of a TOML file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TbttError(f"sweep {path} is not readable TOML: {error}") from error
    if strange := table.keys() - {"summary", "expected", "grid"}:
        raise unknown(f"sweep {path.name} key", min(strange), ["summary", "expected", "grid"])
    grids, expected = table.get("grid"), table.get("expected", [])
    if (
        not isinstance(grids, list)
        or not all(isinstance(grid, dict) for grid in grids)
        or not grids
    ):
        raise TbttError(f"sweep {path.name} has no [[grid]]: give one or more, as train/sweeps has")
    if not isinstance(expected, list) or not all(isinstance(text, str) for text in expected):
        raise TbttError(f"sweep {path.name} key expected must be a list of texts")
    if not isinstance(table.get("summary", ""), str):
        raise TbttError(f"sweep {path.name} key summary must be a text")
    stacks = [stack for grid in grids for stack in _stacks(grid, f"sweep {path.name} grid")]
    names = [stack.name for stack in stacks]
    if double := {name for name in names if names.count(name) > 1}:
        raise TbttError(
            f"sweep {path.name} has two cells called {min(double)}: give their grids a name each"
        )
    return Sweep(
        name=path.stem,
        summary=table.get("summary", ""),
        expected=tuple(expected),
        stacks=tuple(stacks),
    )


def _stacks(grid: Table, where: str) -> Iterator[Stack]:
    if strange := grid.keys() - AXES.keys() - set(OWN):
        raise unknown(f"{where} key", min(strange), [*OWN, *AXES])
    name = grid.get("name", "")
    if not isinstance(name, str) or Path(name).name != name or not name.isprintable():
        raise TbttError(f"{where} key name must be a word for folders' names, got {name!r}")
    axes = {key: _values(key, value, where) for key, value in grid.items() if key in AXES}
    held_out = axes.pop("held_out", [None])
    for values in product(*axes.values()):
        flags: dict[str, Any] = dict(zip(axes, values, strict=True))
        cells = [_recipe(grid, flags, pairs) for pairs in held_out]
        if len({cell.held_out for cell in cells}) < len(cells):
            raise TbttError(f"{where} key held_out has the same pairs twice: give each set once")
        recipe = cells[0]
        several = [key for key in axes if len(axes[key]) > 1 and key not in NAMED]
        words = [
            Path(recipe.task).stem,
            recipe.model.size,
            recipe.framing,
            *(f"{key.replace('_', '-')}-{flags[key]}" for key in several),
            *([name] if name else []),
        ]
        at_once = max(1, MODELS // recipe.seeds)
        parts = range(0, len(cells), at_once)
        for number, start in enumerate(parts, 1):
            part = [f"part-{number}-of-{len(parts)}"] if len(parts) > 1 else []
            if len(cells) > 1:
                recipe = _side_by_side(cells[start : start + at_once], start)
            yield Stack(name="-".join([*words, *part]), recipe=recipe)


def _values(key: str, value: object, where: str) -> list[Any]:
    """What an axis goes through: a list's items, or the one value that there is."""
    if key == "held_out":
        if value == EVERY_PAIR:
            return [[list(pair)] for pair in combinations_with_replacement(range(10), 2)]
        if isinstance(value, str):
            raise unknown(f"{where} key held_out", value, [EVERY_PAIR], "or give operand pairs")
        is_axis = isinstance(value, list) and any(
            isinstance(pair, list) and any(isinstance(x, list) for x in pair) for pair in value
        )
        return list(value) if is_axis and isinstance(value, list) else [value]
    values = value if isinstance(value, list) else [value]
    if not values:
        raise TbttError(f"{where} key {key} is empty: give a value, or a list of some")
    return values


def _recipe(grid: Table, flags: dict[str, Any], held_out: object) -> Recipe:
    given = {AXES[key]: value for key, value in flags.items()}
    return resolve_recipe(str(grid.get("recipe", "paper")), given | {"held_out": held_out})


def _side_by_side(cells: Sequence[Recipe], start: int) -> Recipe:
    """One recipe for cells that differ in what they hold out, each with seeds of its own.

    Args:
        start: how many cells have taken their seeds before these.
    """
    first = cells[0]
    return dataclasses.replace(
        first,
        held_out_each=tuple(cell.held_out for cell in cells for _ in range(cell.seeds)),
        seeds=first.seeds * len(cells),
        first_seed=first.first_seed + start * first.seeds,
    )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stack is.

    Attributes:
        steps: at its latest evaluation, or all when it is complete.
        problem: what keeps it from being trained where it is to be, if anything.
    """

    steps: int = 0
    problem: str = ""


def stack_progress(stack: Stack, folder: Path) -> Progress:
    """How far a stack's run below a folder is, and whether it is this stack's run at all."""
    path = folder / stack.name
    try:
        run = existing_run(stack.recipe, path, resume=True)
        if run is None:
            check_free(path)
        elif run.is_complete:
            check_whole(run)
        return Progress(steps=steps_done(stack, folder))
    except TbttError as error:
        return Progress(problem=str(error))


def steps_done(stack: Stack, folder: Path) -> int:
    """The same of a run that is known to be the stack's, read off its own files alone."""
    if (folder / stack.name / "summary.json").is_file():
        return stack.recipe.training.steps
    lines = read_metrics(folder / stack.name)
    return min(int(lines[-1]["step"]), stack.recipe.training.steps - 1) if lines else 0


def sweep_rows(sweep: Sweep, folder: Path) -> list[Table]:
    """A row a cell: what it is, how far it is, what is left of it to do.

    Keys: `run`, `task`, `size`, `framing`, `held_out` ("5,7"), `models`, `steps`, `learning_rate`,
    `weight_decay`; `done`, a share; `hours_left`, of two CPU cores, estimated; `problem`.
    """
    rows = []
    for stack in sweep.stacks:
        recipe, progress = stack.recipe, stack_progress(stack, folder)
        done = progress.steps / recipe.training.steps
        for held_out, models in stack.cells():
            share = models / recipe.seeds * (1 - done)
            rows.append({
                "run": stack.name, "task": Path(recipe.task).stem, "size": recipe.model.size,
                "framing": recipe.framing, "held_out": pairs_text(held_out), "models": models,
                "steps": recipe.training.steps, "learning_rate": recipe.training.learning_rate,
                "weight_decay": recipe.training.weight_decay, "done": done,
                "hours_left": stack.hours * share, "problem": progress.problem,
            })  # fmt: skip
    return rows


def pairs_text(pairs: tuple[Pair, ...]) -> str:
    """Held-out pairs as tables have them.

    >>> pairs_text(((5, 7), (9, 9)))
    '5,7 9,9'
    """
    return " ".join(f"{a},{b}" for a, b in pairs)

"""Training recipes: TOML read, merged with its base, its size and its task, checked and frozen."""

import dataclasses
import math
import os
import re
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from tbtt_interp import bounds
from tbtt_interp.bounds import check_whole
from tbtt_interp.errors import TbttError, brief, is_folder_name, listed, unknown
from tbtt_interp.tasks import Task, load_task
from tbtt_interp.tasks.arithmetic import Pair, as_pairs
from tbtt_interp.tasks.task import permutation, random_bits
from tbtt_interp.tasks.windows import window_of
from tbtt_interp.train.changes import Changes
from tbtt_interp.train.source import Source, find_sources, forked_table

Table = dict[str, Any]
SIZES: dict[str, Table] = {
    "small": {"layers": 1, "heads": 1, "d_model": 14, "d_mlp": 14},
    "medium": {"layers": 1, "heads": 1, "d_model": 28, "d_mlp": 28},
    "large": {"layers": 1, "heads": 1, "d_model": 56, "d_mlp": 56},
    "mlt": {"layers": 6, "heads": 6, "d_model": 384, "d_mlp": 1536},
}
ALIASES = {"n14": "small", "n28": "medium", "n56": "large", "MLT": "mlt"}
SHAPE_NAME = "L{layers}H{heads}D{d_model}M{d_mlp}"  # the name of a size that has no other
SHAPE = re.compile("L{0}H{0}D{0}M{0}".format(r"(\d{1,9})"))
STABLE = 2 / 16  # of rate times smooth: 2 over the largest eigenvalue of second differences
ROOT = "paper"  # the base of every other recipe
TYPE_NAMES: dict[Any, str] = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false",
    dict: "a table", list: "a list",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The shape of the models, before the task decides vocabulary and context."""

    size: str
    layers: int
    heads: int
    d_model: int
    d_mlp: int
    bias: bool = False
    tied: bool = True  # whether the unembedding is the embedding transposed

    def __post_init__(self) -> None:
        if not is_folder_name(self.size):
            raise TbttError(f"model.size must be a word for folders' names, got {brief(self.size)}")
        for name in SIZES["small"]:
            check_whole(f"model.{name}", getattr(self, name), 1, bounds.SIZES[name])


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The optimization: AdamW with warm-up and cosine decay, gradients clipped per model."""

    steps: int
    batch: int | str  # windows per step; "all" is every line once (framing line only)
    window: int
    learning_rate: float
    min_learning_rate: float
    warmup: int
    decay_until: int
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    clip: float
    evaluate_every: int
    checkpoint_every: int  # 0 keeps the last step alone
    keep_states: tuple[int, ...] = ()  # steps whose optimizer state is kept, to fork from

    def __post_init__(self) -> None:
        def check(names: str, is_allowed: Callable[[Any], bool], allowed: str) -> None:
            for name in names.split():
                if not is_allowed(value := getattr(self, name)):
                    raise TbttError(f"training.{name} must be {allowed}, got {value!r}")

        check_whole("training.window", self.window, 1, bounds.WINDOW)
        least = {"steps": 1, "evaluate_every": 1, "warmup": 0, "decay_until": 0,
                 "checkpoint_every": 0}  # fmt: skip
        for name, low in least.items():
            check_whole(f"training.{name}", getattr(self, name), low, bounds.STEPS)
        check("batch", lambda x: x == "all" or (isinstance(x, int) and x >= 1),
              "a number of windows, at least 1, or 'all'")  # fmt: skip
        check("learning_rate epsilon clip", lambda x: 0 < x < math.inf, "above 0")
        check("min_learning_rate weight_decay", lambda x: 0 <= x < math.inf, "0 or more")
        check("beta1 beta2", lambda x: 0 <= x < 1, "in [0, 1)")
        for name, limit in (("min_learning_rate", "learning_rate"), ("warmup", "decay_until")):
            low, high = getattr(self, name), getattr(self, limit)
            if low > high:
                what = f"training.{name} is {low} and training.{limit} is {high}"
                raise TbttError(f"{what}: give a {name} of at most {limit}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a run trains, resolved and checked."""

    name: str
    task: str
    framing: str
    held_out: tuple[Pair, ...]
    held_out_each: tuple[tuple[Pair, ...], ...]  # one set per model, where models differ
    seeds: int
    first_seed: int
    corpus_seed: int
    same_file: bool
    model: ModelRecipe
    training: TrainingRecipe
    changes: Changes = field(default_factory=Changes)
    sources: Mapping[str, Source] = field(default_factory=dict)  # by key: from, graft, donor

    def __post_init__(self) -> None:
        check_whole("seeds", self.seeds, 1, bounds.MODELS)
        for name in ("first_seed", "corpus_seed"):
            if not 0 <= getattr(self, name) < 2**31:
                raise TbttError(f"{name} must be from 0 to 2^31 - 1, got {getattr(self, name)}")
        if self.held_out_each and len(self.held_out_each) != self.seeds:
            what = f"held_out_each has {len(self.held_out_each)} sets for {self.seeds} seeds"
            raise TbttError(f"{what}: give one set of pairs per seed, or held_out for all")
        if self.training.steps <= self.first_step:
            what = f"the run would go on from step {self.first_step:,} of {self.training.steps:,}"
            raise TbttError(f"{what}: give an earlier --step, or more training.steps")
        if self.changes.answers == "permuted" and self.task != "arithmetic":
            raise TbttError("changes.answers 'permuted' is for task arithmetic: leave it out here")
        if (most := STABLE / self.training.learning_rate) < self.changes.smooth:
            what = (
                f"changes.smooth is {self.changes.smooth}, which overshoots at this learning rate"
            )
            raise TbttError(f"{what}: give at most {most:.3g}")
        if self.training.batch == "all" and self.framing != "line":
            raise TbttError(
                f"training.batch 'all' is for framing line, where it means every line once: with "
                f"framing {self.framing} give a number of windows"
            )

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The models' seeds."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def held_out_sets(self) -> tuple[tuple[Pair, ...], ...]:
        """The pairs that each model holds out."""
        return self.held_out_each or (self.held_out,) * self.seeds

    def tasks(self) -> tuple[Task, ...]:
        """Each model's task."""
        known = {pairs: load_task(self.task, held_out=pairs) for pairs in set(self.held_out_sets)}
        tasks = [known[pairs] for pairs in self.held_out_sets]
        if seeds := self.answer_seeds:
            tasks = [t.with_permuted_answers(s) for t, s in zip(tasks, seeds, strict=True)]
        return tuple(tasks)

    @property
    def answer_seeds(self) -> tuple[int, ...] | None:
        """The seeds of permuted answers, one per model; None where answers are true."""
        return self.seed_list if self.changes.answers == "permuted" else None

    @property
    def first_step(self) -> int:
        """The step from which a forked run goes on; 0 for one that starts anew."""
        return self.sources["from"].step if "from" in self.sources else 0

    def table(self) -> Table:
        """The recipe as plain data, without keys that change nothing."""
        table = dataclasses.asdict(self)
        table["changes"] = self.changes.table()
        for key in ("changes", "sources"):
            if not table[key]:
                del table[key]
        if self.model.tied:
            del table["model"]["tied"]
        if not self.training.keep_states:
            del table["training"]["keep_states"]
        return table

    def order_seed(self, seed: int, task: Task) -> int | None:
        """The seed of a model's line order; None keeps the lines as they stand."""
        if not self.same_file:
            return self.corpus_seed + seed
        return None if task.order_is_given else self.corpus_seed


def _schema() -> dict[str, tuple[type, ...]]:
    """The keys that a recipe's TOML may have, and the types of each."""
    schema: dict[str, tuple[type, ...]] = {}
    sections = {"": Recipe, "model.": ModelRecipe, "training.": TrainingRecipe,
                "changes.": Changes}  # fmt: skip
    sections |= {f"sizes.{size}.training.": TrainingRecipe for size in SIZES}
    for section, kind in sections.items():
        hints = typing.get_type_hints(kind)
        schema |= {section + key: typing.get_args(hint) or (hint,) for key, hint in hints.items()}
        schema[section[:-1]] = (dict,)
    schema |= dict.fromkeys(("sizes", *(f"sizes.{size}" for size in SIZES)), (dict,))
    schema |= {"held_out": (list,), "held_out_each": (list,), "base": (str,), "summary": (str,),
               "deal_pairs": (int,), "from": (str,)}  # fmt: skip
    schema |= {key: (list,) for key in schema if key.endswith("keep_states")}
    return {key: kinds for key, kinds in schema.items() if key not in ("", "name", "sources")}


SCHEMA = _schema()


def recipes_folder() -> Path:
    """The folder of recipes: beside this module once installed, train/ in the repository."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "train"


def recipe_names(folder: str = "") -> list[str]:
    """The recipes that come with the package, or with folder "sweeps" its sweeps."""
    return sorted(path.stem for path in (recipes_folder() / folder).glob("*.toml"))


def read_toml(kind: str, source: str, folder: str = "") -> tuple[Path, Table]:
    """The path and table of a recipe or sweep, given by its name or by the path of a file."""
    names = recipe_names(folder)
    path = recipes_folder() / folder / f"{source}.toml" if source in names else Path(source)
    if not os.path.isfile(path):  # false, not an error, for a name too long for a path
        raise unknown(kind, source, names, "or give the path of a TOML file")
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TbttError(f"{kind} {path} is not readable TOML: {error}") from error


def resolve_recipe(source: str, flags: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe with its base, its size's own values, the task's defaults and the flags applied.

    Args:
        source: the name of a recipe that comes with the package, or the path of a TOML file.
        flags: options of the command line, by the recipe's keys, dotted for those of a table
            (`training.weight_decay`); None is not given. `steps` scales the schedule,
            but for the parts of it that are given.

    >>> recipe = resolve_recipe("quick", {"model.size": "n14", "training.weight_decay": 0.1})
    >>> recipe.model.d_model, recipe.training.window, recipe.training.weight_decay
    (14, 9, 0.1)
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    origin = Source.of(given.pop("from"), given.pop("from_step", None)) if "from" in given else None
    over: Table = {}
    for key, value in given.items():
        *section, last = ("training", "steps") if key == "steps" else key.split(".")
        (over.setdefault(section[0], {}) if section else over)[last] = value
    _check(over, "recipe flag")
    if origin is None:
        name, table = _read(source)
        _apply_size(table, over.get("model", {}).pop("size", None))
    else:
        name, table = forked_table(origin, given)
    training = table["training"]
    if rate := given.get("training.learning_rate"):  # the lowest rate scales with it
        training["min_learning_rate"] *= rate / training["learning_rate"]
    steps = over["training"].pop("steps") if "steps" in given else None
    table = _merged(table, over)
    if steps is not None:  # the same schedule, stretched or shrunk
        training, scaled = table["training"], ("warmup", "decay_until", "evaluate_every",
                                               "checkpoint_every")  # fmt: skip
        for key in scaled:
            if training[key] > 0 and f"training.{key}" not in given:
                training[key] = max(1, training[key] * steps // training["steps"])
        training["steps"] = steps
    if "held_out" in given:
        table |= {"held_out_each": [], "deal_pairs": 0}
    if origin is None:
        _apply_task(table, pairs_given="held_out" in given)
    find_sources(table)
    table.pop("summary", None)
    recipe = recorded_recipe(table | {"name": name})
    recipe.tasks()  # raises on a pair that the task does not have, or if no lines are left
    return recipe


def recorded_recipe(table: Mapping[str, Any]) -> Recipe:
    """The recipe in a run's config.json, with which the run can be trained again.

    >>> import json
    >>> recipe = resolve_recipe("quick", {"model.size": "small"})
    >>> recorded_recipe(json.loads(json.dumps(recipe.table()))) == recipe
    True
    """
    try:
        training = _with_floats(table["training"], TrainingRecipe)
        changes = _with_floats(table.get("changes", {}), Changes)
        training["keep_states"] = tuple(map(int, training.get("keep_states", ())))
        each = tuple(as_pairs(pairs, "held_out_each") for pairs in table["held_out_each"])
        return Recipe(**{
            **table, "held_out": as_pairs(table["held_out"], "held_out"), "held_out_each": each,
            "model": ModelRecipe(**table["model"]), "training": TrainingRecipe(**training),
            "changes": Changes(**changes),
            "sources": {key: Source(**source) for key, source in table.get("sources", {}).items()},
        })  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TbttError(f"the recipe has a value of the wrong kind ({error}): mend it") from error


def _with_floats(table: Mapping[str, Any], kind: type) -> Table:
    floats = {name for name, hint in typing.get_type_hints(kind).items() if hint is float}
    return {key: float(value) if key in floats else value for key, value in table.items()}


def _read(source: str) -> tuple[str, Table]:
    """A recipe's name, and its checked table merged over its base's."""
    path, table = read_toml("recipe", source)
    _check(table, f"recipe {path.name}")
    base = table.pop("base", None if source == ROOT else ROOT)
    if base is None:
        return path.stem, table
    if base not in recipe_names():
        raise unknown("base recipe", base, recipe_names())
    below = _read(base)[1]
    own = table.get("training", {})
    for of_size in below["sizes"].values():  # the recipe's own values win over its base's sizes
        of_size["training"] = {k: v for k, v in of_size["training"].items() if k not in own}
    return path.stem, _merged(below, table)


def _merged(base: Table, over: Table) -> Table:
    both = base.keys() & over.keys()
    deep = {k: _merged(base[k], over[k]) for k in both if isinstance(base[k], dict)}
    return base | over | deep


def _apply_size(table: Table, flag: str | None) -> None:
    """Fills in a size's numbers, and what the recipe changes for that size."""
    model, keys = table["model"], SIZES["small"].keys()
    size = ALIASES.get(flag or model["size"], flag or model["size"])
    own = {} if flag else {key: model[key] for key in keys & model.keys()}
    if shape := SHAPE.fullmatch(size):
        own = dict(zip(SIZES["small"], map(int, shape.groups()), strict=True))
    if size not in SIZES and len(own) < len(keys):
        raise unknown("size", size, SIZES, "or give --recipe FILE")
    table["training"] |= table.pop("sizes").get(size, {}).get("training", {})
    named = SIZES.get(size, own)
    if named | own != named:  # the size keeps its name only with its own numbers
        size = SHAPE_NAME.format(**named | own)
    model |= named | own | {"size": size}


def _apply_task(table: Table, *, pairs_given: bool) -> None:
    """Fills in what depends on the task: window, batch, and which pairs are held out.

    With `deal_pairs` the operand pairs are divided at random among that many models, `seeds` times;
    each model holds out its part.
    """
    task, training = load_task(table["task"], held_out=()), table["training"]
    training["window"] = window_of(task, table["framing"], training.get("window"))
    training.setdefault("batch", "all" if table["framing"] == "line" else task.batch)
    check_whole("seeds", table["seeds"], 1, bounds.MODELS)
    n_parts, pairs = table.pop("deal_pairs"), list(combinations_with_replacement(task.operands, 2))
    if not pairs:
        table["held_out"] = []
        if pairs_given or n_parts or table["held_out_each"]:
            raise TbttError(
                f"task '{table['task']}' has no operand pairs to hold out: leave --held-out out, "
                "or mark lines of your own corpus in its held_out column"
            )
    if not n_parts:
        return
    if not 1 < n_parts <= len(pairs):
        then = f"give 2 to {len(pairs)}, the number of models that divide the pairs, or 0 for none"
        raise TbttError(f"deal_pairs is {n_parts}: {then}")
    table["held_out_each"] = []
    for k in range(table["seeds"]):
        bits = random_bits(table["corpus_seed"], table["first_seed"] + k, 0xDEA1)
        parts = np.array_split(permutation(len(pairs), bits), n_parts)
        table["held_out_each"] += sorted([list(pairs[p]) for p in sorted(part)] for part in parts)
    table["seeds"] = len(table["held_out_each"])


def _check(table: Table, where: str, prefix: str = "") -> None:
    """Raises on an unknown key or a wrong type, naming the file, before anything is merged."""
    for key, value in table.items():
        name = prefix + key
        if name not in SCHEMA:
            allowed = [k for k in SCHEMA if re.fullmatch(re.escape(prefix) + "[^.]+", k)]
            raise unknown(f"{where} key", name, sorted(allowed))
        kinds = SCHEMA[name]
        if type(value) not in kinds and not (float in kinds and type(value) is int):
            words = listed(TYPE_NAMES[kind] for kind in kinds)
            raise TbttError(f"{where} key {name} must be {words}, got {brief(value)}")
        if isinstance(value, dict):
            _check(value, where, f"{name}.")
        for pairs in {"held_out": [value], "held_out_each": value}.get(name, []):
            as_pairs(pairs, f"{where} key {name}")

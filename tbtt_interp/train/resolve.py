"""From a recipe's TOML to the recipe: its base, its size, its task and the command line applied."""

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from tbtt_interp.errors import TbttError, listed, unknown
from tbtt_interp.tasks import load_task
from tbtt_interp.tasks.arithmetic import Pair
from tbtt_interp.tasks.windows import window_of
from tbtt_interp.train.recipe import ModelRecipe, Recipe, Table, TrainingRecipe

SIZES: dict[str, Table] = {
    "small": {"layers": 1, "heads": 1, "d_model": 14, "d_mlp": 14},
    "medium": {"layers": 1, "heads": 1, "d_model": 28, "d_mlp": 28},
    "large": {"layers": 1, "heads": 1, "d_model": 56, "d_mlp": 56},
    "mlt": {"layers": 6, "heads": 6, "d_model": 384, "d_mlp": 1536},
}
ALIASES = {"n14": "small", "n28": "medium", "n56": "large", "MLT": "mlt"}
SHAPE_NAME = "L{layers}H{heads}D{d_model}M{d_mlp}"  # of a size that has no name of its own
SHAPE = re.compile(r"L(\d+)H(\d+)D(\d+)M(\d+)")
ROOT = "paper"  # the recipe that every other one is a change of
PARTS: dict[str, type] = {"model": ModelRecipe, "training": TrainingRecipe}
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}


def recipes_folder() -> Path:
    """Where the recipes are: beside this module once installed, under train/ in the repository."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "train"


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def resolve_recipe(source: str, flags: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe with its base, its size's own values, the task's defaults and the flags applied.

    Args:
        source: the name of a recipe that comes with the package, or the path of a TOML file.
        flags: what the command line says, by the recipe's keys, dotted for those of a table
            (`training.weight_decay`); None where it says nothing. `steps` scales the schedule.
    Raises:
        TbttError: on an unknown key, a wrong type, or values that do not go together.

    >>> recipe = resolve_recipe("quick", {"model.size": "n14", "training.weight_decay": 0.1})
    >>> recipe.model.d_model, recipe.training.window, recipe.training.weight_decay
    (14, 9, 0.1)
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    steps = given.pop("steps", None)
    asked: Table = {} if steps is None else {"training": {"steps": steps}}
    for key, value in given.items():
        part, _, last = key.rpartition(".")
        (asked.setdefault(part, {}) if part else asked)[last] = value
    _check(asked, "recipe flag")
    name, table = _read(source)
    _apply_size(table, given)
    if rate := given.get("training.learning_rate"):  # its floor scales with it
        training = table["training"]
        training["min_learning_rate"] *= rate / training["learning_rate"]
    for key, value in given.items():
        _put(table, key, value)
    if "held_out" in given:
        table |= {"held_out_each": [], "deal_pairs": 0}
    _apply_deal(table)
    _apply_task(table, pairs_given="held_out" in given)
    table.pop("summary")
    recipe = _build(table | {"name": name})
    if steps is not None:
        recipe = dataclasses.replace(recipe, training=_in_steps(recipe.training, steps))
    if recipe.training.batch == "all" and recipe.framing != "line":
        raise TbttError(
            f"training.batch 'all' is for framing line, where it means every line once: with "
            f"framing {recipe.framing} give a number of windows"
        )
    recipe.tasks()  # a held-out pair that is none, or leaves no lines, is an error here
    return recipe


def _read(source: str) -> tuple[str, Table]:
    """A recipe's name, and its table over its base's, keys and types checked."""
    if source in recipe_names():
        path = recipes_folder() / f"{source}.toml"
    elif Path(source).is_file():
        path = Path(source)
    else:
        raise unknown("recipe", source, recipe_names(), "or give the path of a TOML file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TbttError(f"recipe {path} is not readable TOML: {error}") from error
    _check(table, f"recipe {path.name}")
    base = table.pop("base", None if source == ROOT else ROOT)
    if base is None:
        return path.stem, table
    if base not in recipe_names():
        raise unknown("base recipe", base, recipe_names())
    under = _read(base)[1]
    for own in under["sizes"].values():  # what a recipe says outright beats its base's sizes
        for part in own:
            own[part] = {k: v for k, v in own[part].items() if k not in table.get(part, {})}
    return path.stem, _merged(under, table)


def _merged(base: Table, over: Table) -> Table:
    both = base.keys() & over.keys()
    deep = {k: _merged(base[k], over[k]) for k in both if isinstance(base[k], dict)}
    return base | over | deep


def _put(table: Table, key: str, value: object) -> None:
    *path, last = key.split(".")
    for part in path:
        table = table[part]
    table[last] = value


def _apply_size(table: Table, given: Table) -> None:
    """Fills in a size's numbers, and what the recipe changes for it."""
    model = table["model"]
    is_asked = "model.size" in given
    size = str(given.pop("model.size", model["size"]))
    size = ALIASES.get(size, size)
    if shape := SHAPE.fullmatch(size):
        model |= dict(zip(SIZES["small"], map(int, shape.groups()), strict=True))
        is_asked = False
    numbers = {} if is_asked else {k: model[k] for k in SIZES["small"].keys() & model.keys()}
    if size not in SIZES and len(numbers) < len(SIZES["small"]):
        raise unknown("size", size, SIZES, "or give --recipe FILE")
    for part, values in table.pop("sizes").get(size, {}).items():
        table[part] |= values
    named = SIZES.get(size, numbers)
    numbers = named | numbers
    if numbers != named:  # a size's name is for its own numbers alone
        size = SHAPE_NAME.format(**numbers)
    model |= numbers | {"size": size}


def _apply_deal(table: Table) -> None:
    """Where pairs are dealt to models, each of which holds out its hand, says who has which.

    `seeds` are deals then, of all pairs among `deal_pairs` models; by 55, each has one pair.
    """
    hands = table.pop("deal_pairs")
    pairs = [list(pair) for pair in combinations_with_replacement(range(10), 2)]
    if not hands:
        return
    if not 1 < hands <= len(pairs):
        raise TbttError(
            f"deal_pairs is {hands}: deal the {len(pairs)} pairs to 2 to {len(pairs)} models, "
            "or 0 to deal none"
        )
    table["held_out_each"] = []
    for deal in range(table["seeds"]):
        chance = np.random.default_rng((table["corpus_seed"], table["first_seed"] + deal, 0xDEA1))
        dealt = np.array_split(chance.permutation(len(pairs)), hands)
        table["held_out_each"] += sorted([pairs[k] for k in sorted(hand)] for hand in dealt)
    table["seeds"] = len(table["held_out_each"])


def _apply_task(table: Table, *, pairs_given: bool) -> None:
    """Fills in what depends on the task: window, batch, and which pairs can be held out."""
    task = load_task(table["task"], held_out=())
    if not task.operands:
        if pairs_given or table["held_out_each"]:
            raise TbttError(
                f"task '{table['task']}' has no operand pairs to hold out: leave --held-out out, "
                "or mark lines of your own corpus in its held_out column"
            )
        table["held_out"] = []
    training = table["training"]
    training["window"] = window_of(task, table["framing"], training.get("window"))
    training.setdefault("batch", "all" if table["framing"] == "line" else task.batch)


def _in_steps(training: TrainingRecipe, steps: int) -> TrainingRecipe:
    """The same schedule in another number of steps."""
    scaled = {
        key: max(1, getattr(training, key) * steps // training.steps)
        for key in ("warmup", "decay_until", "evaluate_every", "checkpoint_every")
        if getattr(training, key) > 0
    }
    return dataclasses.replace(training, steps=steps, **scaled)


def _check(table: Table, where: str) -> None:
    """Catches what is misspelled or of a wrong type where it was written, before it is merged."""
    own = {"base": str, "summary": str, "sizes": dict, "deal_pairs": int}
    _check_values(Recipe, {k: v for k, v in table.items() if k not in own}, where, "", own)
    for key, kind in own.items():
        if type(table.get(key, kind())) is not kind:
            raise TbttError(f"{where} key {key} must be {WORDS.get(kind, 'a table')}")
    for size, parts in {"": table, **table.get("sizes", {})}.items():
        if size not in {"", *SIZES}:
            raise unknown(f"{where} size", size, SIZES)
        prefix = f"sizes.{size}." if size else ""
        if not isinstance(parts, dict):
            raise TbttError(f"{where} key {prefix[:-1]} must be a table, got {parts!r}")
        if size and (strange := parts.keys() - {"training"}):
            raise unknown(f"{where} key", prefix + min(strange), [prefix + "training"])
        for key in PARTS.keys() & parts.keys():
            if not isinstance(parts[key], dict):
                raise TbttError(f"{where} key {prefix}{key} must be a table, got {parts[key]!r}")
            _check_values(PARTS[key], parts[key], where, f"{prefix}{key}.")


def _check_values(
    kind: type, table: Table, where: str, prefix: str, also: Iterable[str] = ()
) -> None:
    hints = typing.get_type_hints(kind)
    for key, value in table.items():
        if key not in hints or key == "name":
            allowed = sorted({*hints, *also} - {"name"})
            raise unknown(f"{where} key", f"{prefix}{key}", [f"{prefix}{k}" for k in allowed])
        hint = hints[key]
        types_ = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        simple = [t for t in types_ if t in WORDS]
        is_right = type(value) in simple or (float in simple and type(value) is int)
        if simple and not is_right:
            words = listed(WORDS[t] for t in simple)
            raise TbttError(f"{where} key {prefix}{key} must be {words}, got {value!r}")
    if kind is Recipe:
        _pairs(table.get("held_out", []), f"{where} key held_out")
        each = table.get("held_out_each", [])
        if not isinstance(each, list):
            raise TbttError(f"{where} key held_out_each must be a list of lists of operand pairs")
        for pairs in each:
            _pairs(pairs, f"{where} key held_out_each")


def recorded_recipe(table: Mapping[str, Any]) -> Recipe:
    """The recipe that a run's config.json holds, to train it again.

    >>> import json
    >>> recipe = resolve_recipe("quick", {"model.size": "small"})
    >>> recorded_recipe(json.loads(json.dumps(recipe.as_table()))) == recipe
    True
    """
    return _build(dict(table))


def _build(table: Table) -> Recipe:
    floats = {field.name for field in dataclasses.fields(TrainingRecipe) if field.type is float}
    training: Table = {k: float(v) if k in floats else v for k, v in table["training"].items()}
    parts = {
        "held_out": _pairs(table["held_out"], "held_out"),
        "held_out_each": tuple(_pairs(x, "held_out_each") for x in table["held_out_each"]),
        "model": ModelRecipe(**table["model"]),
        "training": TrainingRecipe(**training),
    }
    return Recipe(**table | parts)


def _pairs(value: object, where: str) -> tuple[Pair, ...]:
    """Operand pairs as plain data to the recipe's own form, the smaller operand first."""
    pairs: set[Pair] = set()
    for pair in value if isinstance(value, list) else [None]:
        match pair:
            case [int(a), int(b)] if bool not in (type(a), type(b)):
                pairs.add((min(a, b), max(a, b)))
            case _:
                raise TbttError(
                    f"{where} must be a list of operand pairs, as in [[5, 7]], got {value!r}"
                )
    return tuple(sorted(pairs))

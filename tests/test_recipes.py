"""Recipes resolve to what they say, and a mistake in one is named where it stands."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tbtt_interp.errors import TbttError
from tbtt_interp.train.recipe import recipe_names, recipes_folder, resolve_recipe


def test_every_recipe_resolves_and_says_what_it_is_for() -> None:
    assert recipe_names() == ["grokking", "influence", "mlt-cpu", "paper", "paper-wd", "quick"]
    for name in recipe_names():
        assert resolve_recipe(name).name == name
        table = tomllib.loads((recipes_folder() / f"{name}.toml").read_text())
        assert table["summary"].endswith(".")


PUBLISHED = {
    "steps": 30_000, "warmup": 2_000, "decay_until": 25_000, "learning_rate": 1e-2,
    "min_learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "batch": 882,
    "window": 9, "evaluate_every": 250, "weight_decay": 0.0, "clip": 1.0,
}  # fmt: skip
MLT = {"learning_rate": 1e-5, "min_learning_rate": 1e-6, "weight_decay": 0.1}
LONGER = {"batch": 576, "window": 24}


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        *[("paper", {"model.size": size}, PUBLISHED) for size in ("small", "medium", "large")],
        ("paper-wd", {"model.size": "large"}, {"weight_decay": 0.1, "learning_rate": 1e-2}),
        *[(name, {"model.size": "mlt"}, MLT) for name in ("paper", "paper-wd")],
        ("grokking", {}, {"learning_rate": 1e-6, "steps": 10**7, "decay_until": 10**7}),
        *[("paper", {"task": task}, LONGER) for task in ("facts", "joint")],
        ("quick", {"framing": "line", "task": "joint"}, {"batch": "all", "window": 41}),
        ("mlt-cpu", {"framing": "line"}, {"batch": 128}),
        ("paper", {"steps": 6_000}, {"steps": 6_000, "warmup": 400, "decay_until": 5_000,
                                     "evaluate_every": 50}),
        ("quick", {"training.learning_rate": 1e-3}, {"min_learning_rate": 1e-5}),
    ],
)  # fmt: skip
def test_models_are_trained_as_published_or_as_asked(name, flags, expected) -> None:
    training = resolve_recipe(name, flags).training
    assert {key: getattr(training, key) for key in expected} == pytest.approx(expected)


def written(text: str) -> str:
    Path("mine.toml").write_text(text)
    return "mine.toml"


def test_a_recipe_of_one_s_own_beats_its_base_s_sizes_and_flags_beat_both() -> None:
    text = 'base = "paper"\n[model]\nsize = "mlt"\n[training]\nlearning_rate = 3e-4'
    training = resolve_recipe(written(text)).training
    assert (training.learning_rate, training.weight_decay, training.steps) == (3e-4, 0.1, 30_000)
    flags = {"training.learning_rate": 1e-3, "training.weight_decay": 0.0, "model.size": "medium"}
    recipe = resolve_recipe("mine.toml", flags)
    assert (recipe.training.learning_rate, recipe.training.weight_decay) == (1e-3, 0.0)
    assert (recipe.name, recipe.model.d_model) == ("mine", 28)


def test_held_out_pairs_are_unordered_and_counted_once() -> None:
    flags = {"held_out": [[7, 5], [5, 7], [9, 9]]}
    assert resolve_recipe("quick", flags).held_out == ((5, 7), (9, 9))


def test_pairs_are_dealt_to_models_that_hold_them_out() -> None:
    every = sorted((a, b) for b in range(10) for a in range(b + 1))
    recipe = resolve_recipe("influence", {"seeds": 2})
    assert recipe.seeds == len(recipe.held_out_each) == 10
    for deal in (recipe.held_out_each[:5], recipe.held_out_each[5:]):
        assert sorted(pair for hand in deal for pair in hand) == every
        assert {len(hand) for hand in deal} == {11}
    assert set(recipe.held_out_each[:5]) != set(recipe.held_out_each[5:])
    alone = resolve_recipe(written("base = 'influence'\ndeal_pairs = 55"), {"seeds": 1})
    assert list(alone.held_out_each) == [(pair,) for pair in every]
    one_pair = resolve_recipe("influence", {"seeds": 3, "held_out": [[5, 7]]})
    assert (one_pair.seeds, one_pair.held_out_each) == (3, ())


def test_a_size_has_a_name_an_alias_or_its_numbers() -> None:
    assert resolve_recipe("quick", {"model.size": "n56"}).model.size == "large"
    model = resolve_recipe("quick", {"model.size": "L2H4D32M64"}).model
    numbers = (model.layers, model.heads, model.d_model, model.d_mlp)
    assert (model.size, numbers) == ("L2H4D32M64", (2, 4, 32, 64))
    text = "[model]\nlayers = 1\nheads = 1\nd_model = 4\nd_mlp = 4"
    assert resolve_recipe(written(text)).model.size == "L1H1D4M4", "the base's name is not its own"
    assert resolve_recipe(written(f'{text}\nsize = "tiny"')).model.size == "tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deal_pairs = 56", "deal_pairs is 56: give 2 to 55, the number of models"),
        ("sedes = 3", "recipe mine.toml key 'sedes' is unknown (did you mean 'seeds'?): choose"),
        ("[training]\nstep = 3", "key 'training.step' is unknown (did you mean 'training.steps'?)"),
        ("[training]\nsteps = 'many'", "key training.steps must be a whole number, got 'many'"),
        ("[training]\nclip = true", "key training.clip must be a number, got True"),
        ("model = 3", "key model must be a table, got 3"),
        ("base = 'papers'", "base recipe 'papers' is unknown (did you mean 'paper'?)"),
        ("held_out = [[5]]", "held_out must be a list of operand pairs, as in [[5, 7]], got [[5]]"),
        ("held_out_each = [[[5, 7]]]", "held_out_each has 1 sets for 4 seeds: give one set"),
        ("held_out = [[5, 12]]", "held-out pair 5,12 is not of this task: give two operands"),
        ("[training]\nwarmup = 30_000", "warmup is 30000 and training.decay_until is 25000: give"),
        ("[sizes.mdeium.training]\nclip = 1.0", "'sizes.mdeium' is unknown (did you mean 'sizes.m"),
        ("[training]\nlearning_rate = inf", "training.learning_rate must be above 0, got inf"),
        ("[training]\nbeta2 = 1.5", "training.beta2 must be in [0, 1), got 1.5"),
        ("[training]\nbatch = 'some'", "training.batch must be a number of windows, at least"),
        ("not toml", "recipe mine.toml is not readable TOML"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_recipe_is_named(text: str, message: str) -> None:
    with pytest.raises(TbttError, match=re.escape(message)):
        resolve_recipe(written(text))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model.size": "smal"}, "size 'smal' is unknown (did you mean 'small'?): choose small, "
         "medium, large or mlt, or give --recipe FILE"),
        ({"framing": "lines"}, "framing 'lines' is unknown (did you mean 'line'?): choose file, "
         "shuffled, line, aligned or cut"),
        ({"steps": 0}, "training.steps must be at least 1, got 0"),
        ({"first_seed": -1}, "first_seed must be from 0 to 2^31 - 1, got -1"),
        ({"task": "facts", "held_out": [[5, 7]]}, "task 'facts' has no operand pairs to hold out"),
        ({"held_out": [[a, b] for a in range(10) for b in range(10)]}, "every line held out"),
        ({"training.setps": 3}, "recipe flag key 'training.setps' is unknown (did you mean"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_flag_is_named(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(TbttError, match=re.escape(message)):
        resolve_recipe("quick", flags)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(TbttError, match=r"'papper' is unknown \(did you mean 'paper'\?\): choose"):
        resolve_recipe("papper")

"""A grid resolves to the jobs that it describes, and a mistake in one is named."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny import sweep_file

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.train.recipe import recipe_names, resolve_recipe
from tbtt_interp.train.sweep import MODELS, estimated_hours, read_sweep


def grid(text: str) -> list[Any]:
    return list(read_sweep(sweep_file("[[grid]]\n" + text)).jobs)


def test_axes_are_multiplied_and_scalars_are_not() -> None:
    jobs = grid("size = ['small', 'large']\nlearning_rate = [1e-3, 1e-2]\nweight_decay = 0.1\n")
    assert [job.name for job in jobs] == [
        "arithmetic-small-file-learning-rate-0.001", "arithmetic-small-file-learning-rate-0.01",
        "arithmetic-large-file-learning-rate-0.001", "arithmetic-large-file-learning-rate-0.01",
    ]  # fmt: skip
    assert [job.recipe.model.d_model for job in jobs] == [14, 14, 56, 56]
    assert {job.recipe.training.weight_decay for job in jobs} == {0.1}
    floors = [job.recipe.training.min_learning_rate for job in jobs]
    assert floors == pytest.approx([1e-5, 1e-4] * 2), "the schedule scales with its rate"


def test_a_cell_of_a_grid_is_the_recipe_that_the_same_options_resolve_to() -> None:
    (job,) = grid("recipe = 'quick'\nsize = 'n28'\nframing = 'shuffled'\nsteps = 100\nseeds = 3")
    flags = {"model.size": "medium", "framing": "shuffled", "steps": 100, "seeds": 3}
    assert job.recipe == resolve_recipe("quick", flags)


def test_cells_that_differ_in_what_they_hold_out_train_as_one_run() -> None:
    (job,) = grid("held_out = [[[5, 7]], [], [[9, 9], [0, 1]]]\nseeds = 2\nfirst_seed = 10")
    assert job.name == "arithmetic-medium-file"
    assert job.cells() == [("5,7", 2), ("", 2), ("0,1 9,9", 2)]
    assert job.recipe.held_out_each == (((5, 7),),) * 2 + ((),) * 2 + (((0, 1), (9, 9)),) * 2
    assert job.recipe.seed_list == tuple(range(10, 16)), "no two cells share a seed"


@pytest.mark.parametrize("held_out", ["[[5, 7]]", "[[7, 5], [9, 9]]", "[]"])
def test_one_set_of_pairs_is_no_axis(held_out: str) -> None:
    (job,) = grid(f"held_out = {held_out}")
    pairs = {tuple(sorted(pair)) for pair in json.loads(held_out)}
    assert set(job.recipe.held_out) == pairs
    assert job.recipe.held_out_each == ()


@pytest.mark.parametrize("seeds", [4, 7])
def test_every_pair_is_held_out_once_in_chunks_of_seeds_that_differ(seeds: int) -> None:
    jobs = grid(f"held_out = 'every pair'\nframing = 'line'\nseeds = {seeds}")
    cells = [cell for job in jobs for cell in job.cells()]
    assert Counter(pairs for pairs, _ in cells) == Counter(
        f"{a},{b}" for b in range(10) for a in range(b + 1)
    )
    assert {models for _, models in cells} == {seeds}
    assert all(job.recipe.seeds <= MODELS for job in jobs)
    assert len(jobs) == math.ceil(55 / (64 // seeds))
    every = [seed for job in jobs for seed in job.recipe.seed_list]
    assert every == list(range(55 * seeds))
    assert len({job.name for job in jobs}) == len(jobs)


def test_a_cell_of_many_models_is_never_split() -> None:
    jobs = grid("held_out = [[[5, 7]], [[9, 9]]]\nseeds = 100")
    assert [job.recipe.seeds for job in jobs] == [100, 100]
    assert [job.name[-11:] for job in jobs] == ["part-1-of-2", "part-2-of-2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sweep mine.toml has no [[grid]]: give one or more, as train/sweeps has"),
        ("grid = 3", "sweep mine.toml has no [[grid]]"),
        ("grids = 3\n[[grid]]", "sweep mine.toml key 'grids' is unknown (did you mean 'grid'?)"),
        ("summary = 3\n[[grid]]", "sweep mine.toml key summary must be a text"),
        ("expected = 'x'\n[[grid]]", "sweep mine.toml key expected must be a list of texts"),
        ("[[grid", "sweep mine.toml is not readable TOML"),
        ("[[grid]]\nsizes = 'small'", "grid key 'sizes' is unknown (did you mean 'size'?): choose"),
        ("[[grid]]\nsize = []", "grid key size is empty: give a value, or a list of values"),
        ("[[grid]]\nsize = 'smal'", "size 'smal' is unknown (did you mean 'small'?)"),
        ("[[grid]]\nheld_out = 'every pairs'", "held_out 'every pairs' is unknown (did you mean"),
        ("[[grid]]\nheld_out = [[[5, 12]]]", "held-out pair 5,12 is not of this task"),
        ("[[grid]]\nheld_out = [[[5, 7]], [[7, 5]]]", "has the same pairs twice: give each set"),
        ("[[grid]]\ntask = 'facts'\nheld_out = 'every pair'", "task 'facts' has no operand pairs"),
        ("[[grid]]\nname = 'a/b'", "key name must be a word for folders' names, got 'a/b'"),
        ('[[grid]]\nname = "a\\u0000"', "key name must be a word for folders' names, got"),
        ("[[grid]]\nwindow = 0", "window must be at least 1, got 0"),
        ("[[grid]]\n[[grid]]", "has two jobs called arithmetic-medium-file: give each grid a "
         "name"),
        ("[[grid]]\nsize = ['small', 'n14']", "has two jobs called arithmetic-small-file"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_sweep_is_named(text: str, message: str) -> None:
    with pytest.raises(TbttError, match=re.escape(message)):
        read_sweep(sweep_file(text))


def test_an_unknown_sweep_names_the_nearest() -> None:
    nearest = "'lader' is unknown (did you mean 'ladder'?): choose atlas, ladder, why-code"
    with pytest.raises(TbttError, match=re.escape(nearest)):
        read_sweep("lader")


FROM_ANOTHER = ("why-graft", "why-transplants")  # take models from the runs of another


def test_a_sweep_from_anothers_runs_names_the_one_that_is_not_there() -> None:
    for name, origin in zip(FROM_ANOTHER, ("why-code", "why-loss"), strict=True):
        with pytest.raises(TbttError, match=rf"run runs/{origin}/arithmetic-.* is not there"):
            read_sweep(name)


def test_defaults_are_for_every_grid_and_a_grids_own_keys_come_first() -> None:
    text = """
        [defaults]
        size = "small"
        steps = 500
        changes.digits = "rank"
        [[grid]]
        name = "two"
        [[grid]]
        size = "large"
        changes.rank = [3, 4]
    """
    first, *others = read_sweep(sweep_file(text)).jobs
    assert (first.recipe.model.size, first.recipe.training.steps) == ("small", 500)
    assert first.recipe.changes.rank == 2
    assert [job.recipe.changes.rank for job in others] == [3, 4]
    assert {job.recipe.changes.digits for job in others} == {"rank"}
    with pytest.raises(TbttError, match="key defaults must be a table"):
        read_sweep(sweep_file("defaults = 3\n[[grid]]\n"))


def test_only_some_jobs_of_a_sweep() -> None:
    sweep = read_sweep("ladder")
    assert {job.recipe.framing for job in sweep.only("*-line").jobs} == {"line"}
    assert sweep.only("*") == sweep
    with pytest.raises(TbttError, match="no job of sweep ladder is called like 'huge'"):
        sweep.only("huge")


@pytest.mark.parametrize("name", [n for n in recipe_names("sweeps") if n not in FROM_ANOTHER])
def test_every_sweep_that_ships_resolves_and_says_what_it_is_for_and_expects(name: str) -> None:
    sweep = read_sweep(name)
    assert sweep.name == name and sweep.jobs
    assert sweep.summary.endswith(".") and sweep.expected
    assert 0.01 < sum(job.hours for job in sweep.jobs) < 6


def test_the_sweep_that_is_shown_is_one() -> None:
    page = (Path(__file__).parents[1] / "docs/sweeps.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    jobs = read_sweep(sweep_file(block)).jobs
    assert sum(len(job.cells()) for job in jobs) == 2 * 2 * 55 * 2
    assert {job.recipe.training.steps for job in jobs} == {4_000}


# milliseconds of two cores for a step of one model, as the benchmark has them, of 16 (mlt: of 1)
SPEEDS = [("small", "file", 0.50), ("medium", "file", 1.28), ("large", "file", 4.15),
          ("mlt", "file", 2372.58), ("small", "line", 0.19), ("medium", "line", 0.42),
          ("large", "line", 1.31)]  # fmt: skip


@pytest.mark.parametrize(("size", "framing", "milliseconds"), SPEEDS)
def test_estimated_hours_are_what_was_measured_within_a_half(size, framing, milliseconds):
    recipe = resolve_recipe("paper", {"model.size": size, "framing": framing, "seeds": 1})
    estimated = estimated_hours(recipe) * 3_600_000 / recipe.training.steps
    assert 2 / 3 < estimated / milliseconds < 3 / 2
    twice = resolve_recipe("paper", {"model.size": size, "framing": framing, "seeds": 2})
    assert estimated_hours(twice) == pytest.approx(2 * estimated_hours(recipe))


def test_estimated_hours_count_the_vocabulary_and_attention() -> None:
    """Large on joint, five models: 22.1 ms of one core, in a run of 5,150 steps."""
    recipe = resolve_recipe("quick", {"model.size": "large", "task": "joint", "seeds": 1})
    estimated = estimated_hours(recipe) * 3_600_000 / recipe.training.steps
    assert estimated == pytest.approx(22.1 / 2, rel=0.1)


def test_a_dry_run_lists_what_there_is_to_do_and_writes_nothing(capsys) -> None:
    command = ["sweep", sweep_file(), "--dry-run"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "runs/mine: Two cells side by side, and two alone." in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("arith", "facts"))]
    assert [row[:2] for row in rows] == [
        ["arithmetic-small-line", "5,7"], ["arithmetic-small-line", "9,9"],
        ["arithmetic-small-file-alone", "5,7"], ["facts-small-file-alone", "1"],
    ]  # fmt: skip
    assert "0 of 4 cells done; < 1 min of two CPU cores left, by estimate." in out
    assert "Expected. They differ." in out
    assert main([*command, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(row["done"], row["models"]) for row in plan] == [(0, 2), (0, 2), (0, 1), (0, 1)]
    assert all(row["hours_left"] > 0 and "loss" not in row for row in plan)
    assert [path.name for path in Path().iterdir()] == ["mine.toml"]

"""A grid resolves to the jobs that it describes, and a mistake in one is named."""

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny import SWEEP, sweep_file, train_here

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.model_tables import models_table
from tbtt_interp.runs import find_runs, load_run
from tbtt_interp.train import backends
from tbtt_interp.train.backends import run_sweep
from tbtt_interp.train.recipe import recipe_names, resolve_recipe
from tbtt_interp.train.sweep import MODELS, Sweep, estimated_hours, read_sweep


def grid(text: str) -> list[Any]:
    return list(read_sweep(sweep_file("[[grid]]\n" + text)).jobs)


def test_axes_are_multiplied_and_scalars_are_not() -> None:
    jobs = grid("size = ['small', 'large']\nlearning_rate = [1e-3, 1e-2]\nweight_decay = 0.1\n")
    assert [job.name for job in jobs] == [
        f"arithmetic-{size}-file-learning-rate-{rate}"
        for size in ("small", "large") for rate in (0.001, 0.01)
    ]  # fmt: skip
    flags = {"model.size": "large", "training.learning_rate": 0.01, "training.weight_decay": 0.1}
    assert jobs[-1].recipe == resolve_recipe("paper", flags)


def test_cells_that_differ_in_what_they_hold_out_train_as_one_run() -> None:
    (job,) = grid("held_out = [[[5, 7]], [], [[9, 9], [0, 1]]]\nseeds = 2\nfirst_seed = 10")
    assert job.name == "arithmetic-medium-file"
    assert job.cells() == [("5,7", 2), ("", 2), ("0,1 9,9", 2)]
    assert job.recipe.held_out_each == (((5, 7),),) * 2 + ((),) * 2 + (((0, 1), (9, 9)),) * 2
    assert job.recipe.seed_list == tuple(range(10, 16)), "no two cells share a seed"


def test_one_set_of_pairs_is_no_axis() -> None:
    (job,) = grid("held_out = [[7, 5], [9, 9]]")
    assert (job.recipe.held_out, job.recipe.held_out_each) == (((5, 7), (9, 9)), ())


@pytest.mark.parametrize("seeds", [7, 100])
def test_every_pair_is_held_out_once_in_chunks_of_seeds_that_differ(seeds: int) -> None:
    jobs = grid(f"held_out = 'every pair'\nframing = 'line'\nseeds = {seeds}")
    cells = [cell for job in jobs for cell in job.cells()]
    assert Counter(pairs for pairs, _ in cells) == Counter(
        f"{a},{b}" for b in range(10) for a in range(b + 1)
    )
    assert {models for _, models in cells} == {seeds}
    assert len(jobs) == math.ceil(55 / max(1, MODELS // seeds)), "a cell is never split"
    every = [seed for job in jobs for seed in job.recipe.seed_list]
    assert every == list(range(55 * seeds))
    for k, job in enumerate(jobs, 1):
        assert job.name.endswith(f"part-{k}-of-{len(jobs)}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sweep mine.toml has no [[grid]]: give one or more, as train/sweeps has"),
        ("grids = 3\n[[grid]]", "sweep mine.toml key 'grids' is unknown (did you mean 'grid'?)"),
        ("expected = 'x'\n[[grid]]", "sweep mine.toml key expected must be a list of texts"),
        ("[[grid]]\nsizes = 'small'", "grid key 'sizes' is unknown (did you mean 'size'?): choose"),
        ("[[grid]]\nsize = []", "grid key size is empty: give a value, or a list of values"),
        ("[[grid]]\nheld_out = 'every pairs'", "held_out 'every pairs' is unknown (did you mean"),
        ("[[grid]]\nheld_out = [[[5, 7]], [[7, 5]]]", "has the same pairs twice: give each set"),
        ('[[grid]]\nname = "a\\u0000"', "key name must be a word for folders' names, got"),
        ("[[grid]]\n[[grid]]", "has two jobs called arithmetic-medium-file: give each grid a "
         "name"),
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
        message = (
            rf"run runs/{origin}/arithmetic-\S+, from .*: train it first, by tbtt sweep {origin}"
        )
        with pytest.raises(TbttError, match=message):
            read_sweep(name)


def test_defaults_are_for_every_grid_and_a_grids_own_keys_come_first() -> None:
    text = """
        [defaults]
        size = "small"
        changes.digits = "rank"
        [[grid]]
        name = "two"
        [[grid]]
        size = "large"
        changes.rank = [3, 4]
    """
    recipes = [job.recipe for job in read_sweep(sweep_file(text)).jobs]
    assert [recipe.model.size for recipe in recipes] == ["small", "large", "large"]
    assert [recipe.changes.rank for recipe in recipes] == [2, 3, 4]
    assert {recipe.changes.digits for recipe in recipes} == {"rank"}


def test_only_some_jobs_of_a_sweep() -> None:
    sweep = read_sweep("ladder")
    assert {job.recipe.framing for job in sweep.only("*-line").jobs} == {"line"}
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
    assert read_sweep(sweep_file(block)).jobs


@pytest.mark.parametrize(
    ("size", "framing", "milliseconds"),  # of two cores, for a step of one model, as benchmarked
    [("small", "file", 0.50), ("large", "file", 4.15), ("mlt", "file", 2372.58),
     ("small", "line", 0.19), ("large", "line", 1.31)],
)  # fmt: skip
def test_estimated_hours_are_what_was_measured_within_a_half(size, framing, milliseconds):
    recipe = resolve_recipe("paper", {"model.size": size, "framing": framing, "seeds": 1})
    estimated = estimated_hours(recipe) * 3_600_000 / recipe.training.steps
    assert 2 / 3 < estimated / milliseconds < 3 / 2


def test_a_dry_run_lists_what_there_is_to_do_and_writes_nothing(capsys) -> None:
    command = ["sweep", sweep_file(), "--dry-run"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "runs/mine: Two cells side by side, and two alone." in out
    assert re.search(r"^arithmetic-small-line +9,9 ", out, flags=re.MULTILINE)
    assert "0 of 4 cells done; < 1 min of two CPU cores left, by estimate." in out
    assert "Expected. They differ." in out
    assert main([*command, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(row["done"], row["models"]) for row in plan] == [(0, 2), (0, 2), (0, 1), (0, 1)]
    assert all(row["hours_left"] > 0 and "loss" not in row for row in plan)
    assert [path.name for path in Path().iterdir()] == ["mine.toml"]


pytestmark = pytest.mark.usefixtures("by_torch")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return train_here(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        train_here(patched)
        patched.setattr("tbtt_interp.train.stacks.is_suited", lambda shape: False)
        assert run_sweep(read_sweep(sweep_file()), Path("out")) == {}
    return folder / "out"


@pytest.fixture
def finished(trained: Path) -> Sweep:
    """The tiny sweep, with all of its runs in a folder `out` here."""
    shutil.copytree(trained, "out")
    return read_sweep(sweep_file())


def test_a_sweep_counts_its_models_answers(started: list[str], capsys) -> None:
    command = ["sweep", sweep_file(), "--out", "out"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "arithmetic-small-line: done" in err.splitlines()
    (row,) = [line for line in out.splitlines() if " 9,9 " in line]
    table = models_table([load_run("out/arithmetic-small-line")])
    assert table["held_out"].tolist() == ["5,7", "5,7", "9,9", "9,9"]
    table = table[2:]  # a pair of equals leaves 198 lines and is two held-out equations
    assert f"{table['seen_right'].sum()}/396" in row
    assert f"{table['loss'].mean():.3f}" in row
    assert "4 of 4 cells done." in out
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["done"], row["hours_left"], row["problem"]) for row in rows] == [(1, 0, "")] * 4
    assert [row["held_out_of"] for row in rows] == [8, 4, 4, 0]


def test_only_missing_jobs_are_trained(started: list[str], finished: Sweep) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    assert run_sweep(finished, Path("out")) == {} and started == []
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == stamps
    shutil.rmtree("out/facts-small-file-alone")
    Path("out/arithmetic-small-line/summary.json").unlink()
    assert run_sweep(finished, Path("out")) == {}
    assert sorted(started) == ["arithmetic-small-line", "facts-small-file-alone"]
    assert all(load_run(path).is_complete for path in find_runs(Path("out")))


def test_jobs_fail_alone_and_give_their_reasons(started: list[str], capsys, monkeypatch) -> None:
    thesis = Path("out/arithmetic-small-line/thesis.tex")
    thesis.parent.mkdir(parents=True)
    thesis.write_text("all of it")
    train = backends._train_job

    def broken(recipe: Any, folder: str, *rest: Any) -> str:
        if "facts" in folder:
            raise KeyError("Atlantis")
        return train(recipe, folder, *rest)

    monkeypatch.setattr(backends, "_train_job", broken)
    assert main(["sweep", sweep_file(), "--out", "out"]) == 1
    out, err = capsys.readouterr()
    failed = [line.split()[0] for line in out.splitlines() if line.split()[-1:] == ["failed"]]
    assert failed == ["arithmetic-small-line"] * 2 + ["facts-small-file-alone"]
    assert "arithmetic-small-line: out/arithmetic-small-line exists and is not a run" in out
    assert "facts-small-file-alone: KeyError: 'Atlantis'" in out.splitlines()
    assert "facts-small-file-alone: KeyError: 'Atlantis'" in err
    assert thesis.read_text() == "all of it"
    assert "1 of 4 cells done" in out


def test_a_run_of_other_settings_is_not_taken_for_the_job_s(started, finished):
    changed = read_sweep(sweep_file(SWEEP.replace("batch = 8", "batch = 9")))
    failures = run_sweep(changed, Path("out"))
    assert failures.keys() == {"arithmetic-small-file-alone", "facts-small-file-alone"}
    assert "another recipe (batch is 8 there and 9 here)" in failures["facts-small-file-alone"]
    assert started == []


def test_a_damaged_run_is_its_job_s_problem_alone(started, finished, capsys) -> None:
    Path("out/facts-small-file-alone/config.json").write_text("{}")
    assert main(["sweep", "mine.toml", "--out", "out"]) == 1
    out = capsys.readouterr().out
    assert re.search("facts-small-file-alone: .*config.json is not a run's configuration", out)
    assert "3 of 4 cells done" in out and "/392" in out, "the others' answers are told"
    assert started == []


def test_messages_and_runs_of_workers_come_back(started: list[str], monkeypatch) -> None:
    train = backends._train_job
    sweep = read_sweep(sweep_file("[[grid]]\nsize = 'small'\nsteps = 2\nseeds = 1"))
    name, messages = "arithmetic-small-file", {}
    monkeypatch.setattr(backends, "_train_job", lambda *_: "")
    reason = "the worker's run is not here: workers need a disk"
    assert run_sweep(sweep, Path("out"))[name].startswith(reason)
    monkeypatch.setattr(backends, "_train_job", lambda *a: train(*a) + "Not compiled.")
    run_sweep(sweep, Path("out"), on_finished=messages.__setitem__)
    assert messages == {name: "done. Not compiled"}


def test_a_job_stops_when_its_sweep_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine nothing else would end it, and two would train into one folder."""
    monkeypatch.setattr(backends, "CHECK_EVERY", 0)
    recipe = resolve_recipe("quick", {"model.size": "small", "framing": "line", "steps": 20})
    with backends._owned(Path("out")) as old, backends._owned(Path("out")) as new:
        with pytest.raises(TbttError, match="stopped: the sweep was interrupted, or started again"):
            backends._train_job(recipe, "out/run", old, 1)
        assert not load_run("out/run").is_complete
        assert backends._train_job(recipe, "out/run", new, 1) == ""
    assert load_run("out/run").is_complete
    assert not Path("out/.sweep").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--address", "x"], "--address needs Dask, which is not here: pip install"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--out", "mine.toml"], "mine.toml cannot be made (File exists): give another"),
    ],
)
def test_what_a_sweep_cannot_run_on_is_named(option, message, refused, monkeypatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert message in refused("sweep", sweep_file(), *option)

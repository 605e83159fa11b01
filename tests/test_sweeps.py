"""Grids come out as the stacks that they say; what is trained, failed or missing is told."""

import json
import math
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.cells import cells_table
from tbtt_interp.evidence.models import models_table
from tbtt_interp.runs import find_runs, load_run, read_metrics
from tbtt_interp.train import backends
from tbtt_interp.train.backends import Engine, run_sweep
from tbtt_interp.train.cost import estimated_hours
from tbtt_interp.train.resolve import resolve_recipe
from tbtt_interp.train.sweep import MODELS, Sweep, read_sweep, stack_progress, sweep_names

TINY = """
summary = "Two cells side by side, and two alone."
expected = ["They differ."]
[[grid]]
size = "small"
framing = "line"
held_out = [[[5, 7]], [[9, 9]]]
seeds = 2
steps = 3
[[grid]]
task = ["arithmetic", "facts"]
size = "small"
steps = 3
batch = 8
seeds = 1
name = "alone"
"""


def sweep_file(text: str = TINY) -> str:
    Path("mine.toml").write_text(text, encoding="utf-8")
    return "mine.toml"


def grid(text: str) -> list[Any]:
    return list(read_sweep(sweep_file("[[grid]]\n" + text)).stacks)


def train_here(patched: pytest.MonkeyPatch) -> list[str]:
    """Stacks are trained in this process, one by one; tells which were begun, by folder."""
    begun: list[str] = []

    def submit(task: Any) -> "Future[str]":
        future: Future[str] = Future()
        begun.append(Path(task.args[1]).name)
        try:
            future.set_result(task())
        except (TbttError, KeyError) as error:
            future.set_exception(error)
        return future

    @contextmanager
    def here(workers: int | None, stacks: int) -> Iterator[Engine]:
        yield Engine(submit=submit, slots=lambda: 1)

    patched.setattr(backends, "_here", here)
    return begun


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return train_here(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        train_here(patched)
        assert run_sweep(read_sweep(sweep_file()), Path("out")) == {}
    return folder / "out"


@pytest.fixture
def finished(trained: Path) -> Sweep:
    """The tiny sweep, with all of its runs in a folder `out` here."""
    shutil.copytree(trained, "out")
    return read_sweep(sweep_file())


def test_axes_are_multiplied_and_scalars_are_not() -> None:
    stacks = grid("size = ['small', 'large']\nlearning_rate = [1e-3, 1e-2]\nweight_decay = 0.1\n")
    assert [stack.name for stack in stacks] == [
        "arithmetic-small-file-learning-rate-0.001", "arithmetic-small-file-learning-rate-0.01",
        "arithmetic-large-file-learning-rate-0.001", "arithmetic-large-file-learning-rate-0.01",
    ]  # fmt: skip
    assert [stack.recipe.model.d_model for stack in stacks] == [14, 14, 56, 56]
    assert {stack.recipe.training.weight_decay for stack in stacks} == {0.1}
    floors = [stack.recipe.training.min_learning_rate for stack in stacks]
    assert floors == pytest.approx([1e-5, 1e-4] * 2), "the schedule scales with its rate"


def test_a_cell_of_a_grid_is_the_recipe_that_the_same_options_resolve_to() -> None:
    (stack,) = grid("recipe = 'quick'\nsize = 'n28'\nframing = 'shuffled'\nsteps = 100\nseeds = 3")
    flags = {"model.size": "medium", "framing": "shuffled", "steps": 100, "seeds": 3}
    assert stack.recipe == resolve_recipe("quick", flags)


def test_cells_that_differ_in_what_they_hold_out_train_as_one_run() -> None:
    (stack,) = grid("held_out = [[[5, 7]], [], [[9, 9], [0, 1]]]\nseeds = 2\nfirst_seed = 10")
    assert stack.name == "arithmetic-medium-file"
    assert stack.cells() == [(((5, 7),), 2), ((), 2), (((0, 1), (9, 9)), 2)]
    assert stack.recipe.held_out_each == (((5, 7),),) * 2 + ((),) * 2 + (((0, 1), (9, 9)),) * 2
    assert stack.recipe.seed_list == tuple(range(10, 16)), "no two cells share a seed"


@pytest.mark.parametrize("held_out", ["[[5, 7]]", "[[7, 5], [9, 9]]", "[]"])
def test_one_set_of_pairs_is_no_axis(held_out: str) -> None:
    (stack,) = grid(f"held_out = {held_out}")
    pairs = {tuple(sorted(pair)) for pair in json.loads(held_out)}
    assert set(stack.recipe.held_out) == pairs
    assert stack.recipe.held_out_each == ()


@pytest.mark.parametrize("seeds", [4, 7])
def test_every_pair_is_held_out_once_in_chunks_of_seeds_that_differ(seeds: int) -> None:
    stacks = grid(f"held_out = 'every pair'\nframing = 'line'\nseeds = {seeds}")
    cells = [cell for stack in stacks for cell in stack.cells()]
    assert Counter(pairs for pairs, _ in cells) == Counter(
        ((a, b),) for b in range(10) for a in range(b + 1)
    )
    assert {models for _, models in cells} == {seeds}
    assert all(stack.recipe.seeds <= MODELS for stack in stacks)
    assert len(stacks) == math.ceil(55 / (64 // seeds))
    every = [seed for stack in stacks for seed in stack.recipe.seed_list]
    assert every == list(range(55 * seeds))
    assert len({stack.name for stack in stacks}) == len(stacks)


def test_a_cell_of_many_models_is_never_split() -> None:
    stacks = grid("held_out = [[[5, 7]], [[9, 9]]]\nseeds = 100")
    assert [stack.recipe.seeds for stack in stacks] == [100, 100]
    assert [stack.name[-11:] for stack in stacks] == ["part-1-of-2", "part-2-of-2"]


def test_a_pair_of_equals_leaves_198_lines_and_is_two_held_out_equations(finished: Sweep) -> None:
    lines = [len(task.lines) for task in finished.stacks[0].recipe.tasks()]
    assert lines == [196, 196, 198, 198]
    table = models_table([load_run("out/arithmetic-small-line")])
    assert table["held_out"].tolist() == ["5,7", "5,7", "9,9", "9,9"]
    assert table["held_out_of"].tolist() == [4, 4, 2, 2]
    assert table["seen_of"].tolist() == [196, 196, 198, 198]


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
        ("[[grid]]\nsize = []", "grid key size is empty: give a value, or a list of some"),
        ("[[grid]]\nsize = 'smal'", "size 'smal' is unknown (did you mean 'small'?)"),
        ("[[grid]]\nsteps = 'x'", "must be a whole number, got 'x'"),
        ("[[grid]]\nrecipe = 'papr'", "recipe 'papr' is unknown (did you mean 'paper'?)"),
        ("[[grid]]\nheld_out = 'every pairs'", "held_out 'every pairs' is unknown (did you mean"),
        ("[[grid]]\nheld_out = [[[5, 12]]]", "held-out pair 5,12 is not of this task"),
        ("[[grid]]\nheld_out = [[[5, 7]], [[7, 5]]]", "has the same pairs twice: give each set"),
        ("[[grid]]\ntask = 'facts'\nheld_out = 'every pair'", "task 'facts' has no operand pairs"),
        ("[[grid]]\nname = 'a/b'", "key name must be a word for folders' names, got 'a/b'"),
        ('[[grid]]\nname = "a\\u0000"', "key name must be a word for folders' names, got"),
        ("[[grid]]\nbatch = 'all'", "training.batch 'all' is for framing line"),
        ("[[grid]]\nwindow = 0", "window must be at least 1, got 0"),
        ("[[grid]]\n[[grid]]", "has two cells called arithmetic-medium-file: give their grids a "
         "name each"),
        ("[[grid]]\nsize = ['small', 'n14']", "has two cells called arithmetic-small-file"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_sweep_is_said(text: str, message: str) -> None:
    with pytest.raises(TbttError) as error:
        read_sweep(sweep_file(text))
    assert message in str(error.value)


def test_an_unknown_sweep_names_the_nearest() -> None:
    with pytest.raises(TbttError) as error:
        read_sweep("lader")
    assert str(error.value) == (
        "sweep 'lader' is unknown (did you mean 'ladder'?): choose atlas, ladder, optimisation, "
        "widths or window, or give the path of a TOML file"
    )


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_that_ships_resolves_and_says_what_it_is_for_and_expects(name: str) -> None:
    sweep = read_sweep(name)
    assert sweep.name == name and sweep.stacks
    assert sweep.summary.endswith(".") and sweep.expected
    assert 0.1 < sum(stack.hours for stack in sweep.stacks) < 6


def test_the_readme_s_sweep_is_one() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", readme, flags=re.DOTALL)
    stacks = read_sweep(sweep_file(block)).stacks
    assert sum(len(stack.cells()) for stack in stacks) == 2 * 2 * 55 * 2
    assert {stack.recipe.training.steps for stack in stacks} == {4_000}


# milliseconds of two cores for a step of one model, as the benchmark has them, of 16 (mlt: of 1)
SPEEDS = [("small", "file", 1.04), ("medium", "file", 2.39), ("large", "file", 6.96),
          ("mlt", "file", 3322.04), ("small", "line", 0.42), ("large", "line", 2.38)]  # fmt: skip


@pytest.mark.parametrize(("size", "framing", "milliseconds"), SPEEDS)
def test_estimated_hours_are_what_was_measured_within_a_half(
    size: str, framing: str, milliseconds: float
) -> None:
    recipe = resolve_recipe("paper", {"model.size": size, "framing": framing, "seeds": 1})
    estimated = estimated_hours(recipe) * 3_600_000 / recipe.training.steps
    assert 2 / 3 < estimated / milliseconds < 3 / 2
    twice = resolve_recipe("paper", {"model.size": size, "framing": framing, "seeds": 2})
    assert estimated_hours(twice) == pytest.approx(2 * estimated_hours(recipe))


def test_a_dry_run_lists_what_there_is_to_do_and_writes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sweep", sweep_file(), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "runs/mine: Two cells side by side, and two alone." in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("arith", "facts"))]
    assert [row[:2] for row in rows] == [
        ["arithmetic-small-line", "5,7"], ["arithmetic-small-line", "9,9"],
        ["arithmetic-small-file-alone", "5,7"], ["facts-small-file-alone", "1"],
    ]  # fmt: skip
    assert "0 of 4 cells done; < 1 min of two CPU cores left, by estimate." in out
    assert "Expected. They differ." in out
    assert [path.name for path in Path().iterdir()] == ["mine.toml"]


def test_a_sweep_ends_in_what_its_models_answer(
    begun: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", sweep_file(), "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert sorted(err.splitlines()) == [
        "arithmetic-small-file-alone: done", "arithmetic-small-line: done",
        "facts-small-file-alone: done",
    ]  # fmt: skip
    (row,) = [line for line in out.splitlines() if " 9,9 " in line]
    table = models_table([load_run("out/arithmetic-small-line")])[2:]
    assert f"{table['seen_right'].sum()}/396" in row
    assert f"{table['held_out_right'].sum()}/4" in row
    assert f"{table['loss'].mean():.3f}" in row
    assert "4 of 4 cells done." in out


def test_json_is_a_row_a_cell_and_nothing_else(
    begun: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", sweep_file(), "--out", "out", "--json"]
    assert main([*command, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(row["done"], row["models"]) for row in plan] == [(0, 2), (0, 2), (0, 1), (0, 1)]
    assert all(row["hours_left"] > 0 and "loss" not in row for row in plan)
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["done"], row["hours_left"], row["problem"]) for row in rows] == [(1, 0, "")] * 4
    assert [row["held_out_of"] for row in rows] == [8, 4, 4, 0]
    assert [row["held_out_share"] is None for row in rows] == [False, False, False, True]


def test_a_finished_sweep_is_not_trained_again(begun: list[str], trained: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert run_sweep(read_sweep(sweep_file()), trained) == {}
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == stamps
    assert begun == []


def test_what_of_a_sweep_is_missing_is_trained(begun: list[str], finished: Sweep) -> None:
    shutil.rmtree("out/facts-small-file-alone")
    Path("out/arithmetic-small-line/summary.json").unlink()
    assert run_sweep(finished, Path("out")) == {}
    assert sorted(begun) == ["arithmetic-small-line", "facts-small-file-alone"]
    assert all(load_run(path).is_complete for path in find_runs(Path("out")))


def test_cells_fail_alone_and_say_why(
    begun: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    thesis = Path("out/arithmetic-small-line/thesis.tex")
    thesis.parent.mkdir(parents=True)
    thesis.write_text("all of it")
    assert main(["sweep", sweep_file(), "--out", "out", "--dry-run"]) == 0
    assert "exists and is not a run: nothing was written" in capsys.readouterr().out
    train = backends._train_stack

    def broken(recipe: Any, folder: str, *rest: Any) -> str:
        if "facts" in folder:
            raise KeyError("Atlantis")
        return train(recipe, folder, *rest)

    monkeypatch.setattr(backends, "_train_stack", broken)
    assert main(["sweep", sweep_file(), "--out", "out"]) == 1
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines() if line.startswith(("arith", "facts"))]
    assert [(row[0], row[-1]) for row in rows if row[-1] == "failed"] == [
        ("arithmetic-small-line", "failed"), ("arithmetic-small-line", "failed"),
        ("facts-small-file-alone", "failed"),
    ]  # fmt: skip
    assert "arithmetic-small-line: out/arithmetic-small-line exists and is not a run" in out
    assert "facts-small-file-alone: KeyError: 'Atlantis'" in out.splitlines()
    assert thesis.read_text() == "all of it"
    assert load_run("out/arithmetic-small-file-alone").is_complete
    assert "1 of 4 cells done" in out
    assert "facts-small-file-alone: KeyError: 'Atlantis'" in err


def test_a_run_of_other_settings_is_not_taken_for_the_cell_s(
    begun: list[str], finished: Sweep
) -> None:
    changed = read_sweep(sweep_file(TINY.replace("batch = 8", "batch = 9")))
    problems = run_sweep(changed, Path("out"))
    assert problems.keys() == {"arithmetic-small-file-alone", "facts-small-file-alone"}
    assert "another recipe (batch is 8 there and 9 here)" in problems["facts-small-file-alone"]
    assert begun == []


def test_a_damaged_run_is_its_cell_s_problem_alone(begun: list[str], finished: Sweep) -> None:
    damaged = Path("out/facts-small-file-alone")
    (damaged / "summary.json").unlink()
    (damaged / "metrics.jsonl").write_text("{")
    shutil.rmtree("out/arithmetic-small-line")
    (problem,) = run_sweep(finished, Path("out")).values()
    assert "metrics.jsonl, line 1 is damaged" in problem
    assert begun == ["arithmetic-small-line"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("summary.json", "summary.json is damaged"),
        ("metrics.jsonl", "lacks the evaluation at step 3"),
        ("checkpoints/step-000003.safetensors", "has lost its last checkpoint, of step 3"),
    ],
)
def test_a_finished_run_that_is_damaged_since_is_its_cell_s_problem_alone(
    file: str, message: str, begun: list[str], finished: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path("out/facts-small-file-alone") / file
    damaged.unlink()
    if file == "summary.json":
        damaged.write_text("{")
    assert main(["sweep", "mine.toml", "--out", "out"]) == 1
    out = capsys.readouterr().out
    assert re.search(rf"facts-small-file-alone: .*{message}", out)
    assert "3 of 4 cells done" in out and "/392" in out, "the others' answers are told"
    assert begun == []


def test_what_a_training_has_to_say_is_told(
    begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = backends._train_stack
    monkeypatch.setattr(backends, "_train_stack", lambda *a: train(*a) + "Not compiled.")
    heard: dict[str, str] = {}
    sweep = read_sweep(sweep_file("[[grid]]\nsize = 'small'\nsteps = 2\nseeds = 1"))
    run_sweep(sweep, Path("out"), told=heard.__setitem__)
    assert heard == {"arithmetic-small-file": "done. Not compiled"}


def test_workers_without_the_disk_are_found_out(
    begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_train_stack", lambda *_: "")
    sweep = read_sweep(sweep_file("[[grid]]\nsize = 'small'"))
    assert run_sweep(sweep, Path("out")) == {
        "arithmetic-small-file":
        "loky says it is trained, but it is not here: workers need a disk that all share"
    }  # fmt: skip


def test_a_stack_whose_worker_keeps_dying_is_given_up_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every death takes all that are at work along, as with a pool of processes."""
    rounds: list[list[str]] = []

    @contextmanager
    def fragile(workers: int | None, stacks: int) -> Iterator[Engine]:
        at_work: list[Future[str]] = []
        rounds.append([])

        def submit(task: Any) -> "Future[str]":
            if any(future.done() and future.exception() for future in at_work):
                raise BrokenExecutor
            future: Future[str] = Future()
            at_work.append(future)
            rounds[-1].append(Path(task.args[1]).name)
            if "medium" in task.args[1]:
                for other in at_work:
                    other.set_exception(BrokenExecutor("a worker died"))
            else:
                Timer(0.3, lambda: future.done() or future.set_result(task())).start()
            return future

        yield Engine(submit=submit, slots=lambda: 2)

    monkeypatch.setattr(backends, "_here", fragile)
    large, medium, small = (f"arithmetic-{size}-line" for size in ("large", "medium", "small"))
    sweep = read_sweep(sweep_file(
        "[[grid]]\nsize = ['small', 'medium', 'large']\nframing = 'line'\nseeds = 1\nsteps = 2"
    ))  # fmt: skip
    problems = run_sweep(sweep, Path("out"))
    assert problems == {medium: "its worker died 3 times, the last time alone"}
    assert rounds == [[large, medium], [large, medium], [medium], [large], [small]]
    assert [run.name for run in find_runs(Path("out"))] == [large, small]


def test_a_task_ends_when_its_sweep_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine nothing else would end it, and two would train into one folder."""
    monkeypatch.setattr(backends, "OWNED", 0)
    recipe = resolve_recipe("quick", {"model.size": "small", "framing": "line", "steps": 20})
    with backends._owned(Path("out")) as old, backends._owned(Path("out")) as new:
        with pytest.raises(TbttError, match="stopped: the sweep was interrupted, or begun anew"):
            backends._train_stack(recipe, "out/run", old, 1)
        assert not load_run("out/run").is_complete
        assert backends._train_stack(recipe, "out/run", new, 1) == ""
    assert load_run("out/run").is_complete
    assert not Path("out/.sweep").exists()
    assert read_metrics(Path("out/run"))[-1]["step"] == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "dsk"], "backend 'dsk' is unknown (did you mean 'dask'?): choose loky"),
        (["--backend", "dask"], "backend dask needs --address, of its scheduler, as in tcp://"),
        (["--address", "tcp://10.0.0.1:8786"], "backend loky is this machine and has no --address"),
        (["--backend", "ray"], "backend ray is not installed: pip install 'tbtt_interp[ray]'"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_backend_that_cannot_be_had_is_said_before_anything_is_written(
    options: list[str], dry: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", sweep_file(), *options, *dry]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_a_folder_that_cannot_be_made_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    assert main(["sweep", sweep_file(), "--out", "file"]) == 2
    assert "file cannot be made (File exists): give another --out" in capsys.readouterr().err


def test_cells_are_counted_over_their_own_models_alone(finished: Sweep) -> None:
    models = models_table([load_run(path) for path in find_runs(Path("out"))])
    models.loc[models["run"] == "arithmetic-small-line", "held_out_right"] = [1, 4, 0, 1]
    cells = cells_table(models).set_index(["run", "held_out"])
    cell = cells.loc[("arithmetic-small-line", "5,7")]
    assert (cell["models"], cell["held_out_right"], cell["held_out_of"]) == (2, 5, 8)
    assert (cell["held_out_low"], cell["held_out_share"]) == (0.25, 0.625)
    cell = cells.loc[("arithmetic-small-line", "9,9")]
    assert (cell["held_out_of"], cell["held_out_share"], cell["held_out_high"]) == (4, 0.25, 0.5)
    assert math.isnan(cells.loc[("facts-small-file-alone", "")]["held_out_share"])


def test_progress_is_read_off_the_run_s_own_files(finished: Sweep) -> None:
    (stack, *_) = finished.stacks
    assert stack_progress(stack, Path("elsewhere")).steps == 0
    assert stack_progress(stack, Path("out")).steps == 3
    (Path("out") / stack.name / "summary.json").unlink()
    assert stack_progress(stack, Path("out")).steps == 2, "a run is not done without its summary"

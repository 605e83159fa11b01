"""Sweeps are trained, resumed and counted; a failed job is reported and stops no other."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import SWEEP, sweep_file, train_here

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.metrics import read_metrics
from tbtt_interp.model_tables import models_table
from tbtt_interp.runs import find_runs, load_run
from tbtt_interp.train import backends
from tbtt_interp.train.backends import run_sweep
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.sweep import Sweep, read_sweep

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
    assert sorted(err.splitlines()) == [
        "arithmetic-small-file-alone: done", "arithmetic-small-line: done",
        "facts-small-file-alone: done",
    ]  # fmt: skip
    (row,) = [line for line in out.splitlines() if " 9,9 " in line]
    table = models_table([load_run("out/arithmetic-small-line")])
    assert table["held_out"].tolist() == ["5,7", "5,7", "9,9", "9,9"]
    table = table[2:]  # a pair of equals leaves 198 lines and is two held-out equations
    assert f"{table['seen_right'].sum()}/396" in row
    assert f"{table['held_out_right'].sum()}/4" in row
    assert f"{table['loss'].mean():.3f}" in row
    assert "4 of 4 cells done." in out
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["done"], row["hours_left"], row["problem"]) for row in rows] == [(1, 0, "")] * 4
    assert [row["held_out_of"] for row in rows] == [8, 4, 4, 0]
    assert [row["held_out_accuracy"] is None for row in rows] == [False, False, False, True]


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


def test_a_run_of_other_settings_is_not_taken_for_the_job_s(started, finished):
    changed = read_sweep(sweep_file(SWEEP.replace("batch = 8", "batch = 9")))
    failures = run_sweep(changed, Path("out"))
    assert failures.keys() == {"arithmetic-small-file-alone", "facts-small-file-alone"}
    assert "another recipe (batch is 8 there and 9 here)" in failures["facts-small-file-alone"]
    assert started == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("summary.json", "summary.json is damaged"),
        ("metrics.jsonl", "metrics.jsonl is not as training wrote it .it is gone"),
        ("config.json", "config.json is damaged"),
        ("checkpoints/step-000003.safetensors", "has lost its last checkpoint, of step 3"),
    ],
)
def test_a_damaged_run_is_its_job_s_problem_alone(file, message, started, finished, capsys):
    damaged = Path("out/facts-small-file-alone") / file
    damaged.unlink()
    if file in ("summary.json", "config.json"):
        damaged.write_text("{")
    assert main(["sweep", "mine.toml", "--out", "out"]) == 1
    out = capsys.readouterr().out
    assert re.search(rf"facts-small-file-alone: .*{message}", out)
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
    assert read_metrics(Path("out/run"))[-1]["step"] == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "x"], "--address needs Dask, which is not here: pip install"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
    ],
)
def test_what_a_sweep_cannot_run_on_is_named_before_anything_is_written(
    options: list[str], message: str, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    for dry in ([], ["--dry-run"]):
        assert main(["sweep", sweep_file(), *options, *dry]) == 2
        out, err = capsys.readouterr()
        assert out == "" and message in err and len(err.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["mine.toml"]


def test_a_folder_that_cannot_be_made_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", sweep_file(), "--out", "mine.toml"]) == 2
    assert "mine.toml cannot be made (File exists): give another" in capsys.readouterr().err


def test_progress_is_read_off_the_run_s_own_files(finished: Sweep) -> None:
    (job, *_) = finished.jobs
    assert job.progress(Path("elsewhere")) == (0, "")
    assert job.progress(Path("out")) == (1, "")
    (Path("out") / job.name / "summary.json").unlink()
    assert job.progress(Path("out")) == (2 / 3, ""), "a run is not done without its summary"

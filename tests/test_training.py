"""Training ends in right answers and counts them; a refused training changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import contents, short, unhashed

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import Run, load_run
from tbtt_interp.tables import accuracy_intervals, next_step, training_table
from tbtt_interp.train.stacks import TrainingCallback
from tbtt_interp.train.training import train_models


def test_small_on_whole_lines_answers_every_seen_equation(line_run: Run) -> None:
    table, answers = training_table(line_run), evaluate_run(line_run).table
    seeds = table[:-1]
    assert (seeds[["seen_addition_right", "seen_subtraction_right"]] == 98).all(None)
    for row, seed in zip(seeds.to_dict("records"), line_run.seeds, strict=True):
        answered = answers[(answers["seed"] == seed) & answers["held_out"]]["right"]
        assert (row["held_out_right"], row["held_out_of"]) == (answered.sum(), 4)
        assert row["floor_line"] < row["loss"] < row["floor_line"] + 0.02
        assert (row["margin_held_out"] > 0) == answered.all()
    together = table.iloc[-1]
    assert together["held_out_right"] == seeds["held_out_right"].sum()
    assert together["late_seen_of"] == 2 * 5


def test_a_callback_receives_every_step_and_evaluation() -> None:
    steps, lines, callback = [], [], TrainingCallback()
    callback.on_step, callback.on_evaluation = steps.append, lines.append
    run = train_models(short(), "run", callback=callback)
    assert steps == sorted(steps) and {3, 4, 6, 8, 9, 12} <= set(steps)
    assert [line["step"] for line in lines] == [0, 3, 6, 9, 12]
    metrics = run.metrics()
    assert metrics["step"].tolist() == [0, 0, 3, 3, 6, 6, 9, 9, 12, 12]
    assert metrics["seed"].tolist() == [0, 1] * 5
    assert list(run.checkpoints) == [0, 4, 8, 12]


def test_seeds_may_hold_out_different_pairs_or_none(printed) -> None:
    run = train_models(short(seeds=3, held_out_each=[[[5, 7]], [[9, 9]], []]), "run")
    assert [len(task.lines) for task in run.tasks] == [196, 198, 200]
    assert [row.get("late_held_out") for row in run.summary()["seeds"]] == [[0, 1], [0, 1], None]
    assert accuracy_intervals(training_table(run)[:-1])["held_out"].mean == 0
    assert "0/6" in printed("evaluate", "run")
    with pytest.raises(TbttError, match=r"hold out different pairs.*use run\.tasks"):
        _ = run.task


@pytest.mark.usefixtures("by_torch")
@pytest.mark.parametrize(
    ("task", "framing"), [("facts", "shuffled"), ("facts", "line"), ("joint", "file")]
)
def test_the_other_tasks_go_through_every_command(task: str, framing: str, printed) -> None:
    flags = ["--task", task, "--framing", framing, "--size", "small", "--seeds", "1"]
    out = printed("train", *flags, "--steps", "2", "--set", "training.batch=8")
    assert "seen facts" in out and "margin" in out
    run = f"runs/{task}-small-{framing}"
    assert ("held-out" in printed("evaluate", run)) == (task == "joint")
    assert printed("ask", run, "the USA").startswith("Capital␣of␣the␣USA␣is␣")
    printed("export", run, "--out", "ckpt.pt")


@pytest.mark.usefixtures("by_torch")
def test_a_user_s_own_corpus_goes_through_every_command(printed, refused) -> None:
    header = "prompt,answer,held_out,group,operator,a\n"
    rows = "a: ,x [/b] :smile:,no,[red],+,1\nb: ,y,yes,[red],+,2\nc: ,z,no,odd,-,3\n"
    Path("own.csv").write_text(header + rows)
    command = ["train", "--task", "own.csv", "--size", "small", "--seeds", "2", "--steps", "2"]
    assert "seen [red]" in printed(*command, "--framing", "line")
    folder = "runs/own-small-line"
    Path("own.csv").unlink()  # the corpus travels with its run
    assert "nearest" not in printed("evaluate", folder), "its operands are no digits"
    assert printed("ask", folder, "a:").startswith("a:␣\n")
    assert "has no equations" in refused("evaluate", folder, "--operands", "0-9")
    run = load_run(folder)
    assert run.task.prompts(held_out=True)["prompt"].tolist() == ["b: "]
    assert run.task.prompts()["operator"].tolist() == ["+", "+", "-"]
    counts = run.metrics()[["seen_[red]_of", "seen_odd_of", "held_out_of"]]
    assert (counts.iloc[-1] == 1).all()


def test_a_refused_training_gives_its_reason_and_writes_nothing() -> None:
    def refused(folder: str, message: str, **flags: Any) -> None:
        recipe = short(**flags)
        before = contents(Path())
        with pytest.raises(TbttError, match=message):
            train_models(recipe, folder)
        assert contents(Path()) == before

    Path("file").write_text("mine")
    refused("file", "file exists and is not a run: nothing was written; give another --out FOLDER")
    refused("file/run", r"file/run cannot be written \(Not a directory\): give another --out")
    Path("foreign").mkdir()
    Path("foreign/thesis.tex").write_text("mine")
    refused("foreign", "foreign exists and is not a run: nothing was written")
    train_models(short(), "run")
    refused("run", r"another recipe \(seeds is 2 there and 3 here\): give another --out", seeds=3)
    flags = {"training.weight_decay": 0.1}
    refused("run", r"another recipe \(weight_decay is 0.0 there and 0.1 here\)", **flags)
    Path("run/summary.json").unlink()
    refused("run", "run holds an unfinished run of this recipe: --resume run continues it; or")
    Path("tiny.txt").write_text("a\nb\n")
    flags = {"framing": "file", "training.batch": 8, "training.window": 24}
    message = "a window of 24 characters does not fit a file of 4"
    refused("tiny", message, task="tiny.txt", **flags)


def test_the_next_step_follows_from_the_framing_and_the_loss() -> None:
    for framing, other in (("line", "shuffled"), ("shuffled", "file"), ("file", "line")):
        run = train_models(short(framing=framing, steps=2, **{"training.batch": 8}), framing)
        assert next_step(run)[1] == other
    unhashed(run.folder)
    summary = run.summary()  # of framing file
    summary["seeds"][0]["loss"] = 0.7  # below the floor of the lines, as trained models reach it
    Path("file/summary.json").write_text(json.dumps(summary))
    reason = "a loss below the floor of the lines means that the order was memorized"
    assert next_step(run) == (f"{reason}; take the order away", "line")

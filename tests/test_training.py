"""Training ends in right answers and counts them; a refused training changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import short

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Row, Run, load_run
from tbtt_interp.tables import accuracy_intervals, next_step, training_rows, training_table
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.training import TrainingCallback, train_models


def test_small_on_whole_lines_answers_every_seen_equation(line_run: Run) -> None:
    """Counts of held-out answers equal those of TransformerLens's own greedy decoding."""
    table = training_table(line_run)
    seeds = table[:-1]
    assert seeds["seen_addition_right"].tolist() == seeds["seen_addition_of"].tolist() == [98, 98]
    assert seeds["seen_subtraction_right"].tolist() == [98, 98]
    for row, seed in zip(seeds.to_dict("records"), line_run.seeds, strict=True):
        answered = [greedily(line_run, seed, e.prompt) == e.answer
                    for e in line_run.task.examples if e.held_out]  # fmt: skip
        assert (row["held_out_right"], row["held_out_of"]) == (sum(answered), 4)
        assert row["loss"] == pytest.approx(row["floor_line"], abs=0.02)
        assert row["loss"] > row["floor_line"]
        assert (row["margin_held_out"] > 0) == all(answered)
    together = table.iloc[-1]
    assert together["held_out_right"] == seeds["held_out_right"].sum()
    assert together["late_seen_of"] == 2 * 5


def greedily(run: Run, seed: int, prompt: str) -> str:
    """The completion of TransformerLens's own model, one character at a time."""
    vocabulary = run.task.vocabulary
    model = run.model(seed)
    tokens = vocabulary.encode(prompt)
    while len(tokens) < run.shape.n_ctx:
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        if vocabulary.decode(tokens[-1:]) == ">":
            break
    return vocabulary.decode(tokens)[len(prompt) :]


def test_a_callback_receives_every_step_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    lines: list[Row] = []
    callback = TrainingCallback()
    monkeypatch.setattr(callback, "on_step", steps.append)
    monkeypatch.setattr(callback, "on_evaluation", lines.append)
    run = train_models(short(), "run", callback=callback)
    assert steps == list(range(1, 13))
    assert [line["step"] for line in lines] == [0, 3, 6, 9, 12]
    metrics = run.metrics()
    assert metrics["step"].tolist() == [0, 0, 3, 3, 6, 6, 9, 9, 12, 12]
    assert metrics["seed"].tolist() == [0, 1] * 5
    assert (metrics["held_out_of"] == 4).all()
    assert list(run.checkpoints) == [0, 4, 8, 12]


def write_pairs(held_out_each: str) -> None:
    Path("pairs.toml").write_text(
        f"seeds = 2\nframing = 'line'\nheld_out_each = {held_out_each}\n"
        "[model]\nsize = 'small'\n[training]\nsteps = 2\nwarmup = 0\ndecay_until = 2\n"
    )


def test_seeds_may_hold_out_different_pairs() -> None:
    write_pairs("[[[5, 7]], [[9, 9]]]")
    run = train_models(resolve_recipe("pairs.toml"), "run")
    assert accuracy_intervals(training_table(run)[:-1])["held_out"].mean == 0
    assert [len(task.lines) for task in run.tasks] == [196, 198]
    assert run.metrics()["held_out_of"].tolist()[-2:] == [4, 2]
    with pytest.raises(TbttError, match=r"hold out different pairs.*use run\.tasks"):
        _ = run.task


def test_a_seed_may_hold_out_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs("[[], [[5, 7]]]")
    assert main(["train", "--recipe", "pairs.toml", "--out", "run"]) == 0
    assert "0/0" in capsys.readouterr().out
    assert main(["evaluate", "run"]) == 0
    assert "0/4" in capsys.readouterr().out
    late = [row.get("late_held_out") for row in load_run("run").summary()["seeds"]]
    assert late == [None, [0, 1]]


@pytest.mark.parametrize("task", ["facts", "joint"])
def test_the_other_tasks_go_through_every_command(task: str, capsys) -> None:
    for framing in ("file", "shuffled", "line"):
        flags = ["--task", task, "--framing", framing, "--size", "small", "--seeds", "1"]
        assert main(["train", *flags, "--steps", "2", "--batch", "8"]) == 0
        out = capsys.readouterr().out
        assert "seen facts" in out and "margin" in out
        run = f"runs/{task}-small-{framing}"
        assert main(["evaluate", run]) == 0
        assert ("held-out" in capsys.readouterr().out) == (task == "joint")
        assert main(["ask", run, "the USA"]) == 0
        assert capsys.readouterr().out.startswith("Capital␣of␣the␣USA␣is␣")
        assert main(["export", run, "--out", f"{framing}.pt"]) == 0
    assert main(["runs"]) == 0


def test_a_user_s_own_corpus_goes_through_every_command(capsys) -> None:
    header = "prompt,answer,held_out,group,operator,a\n"
    rows = "a: ,x [/b] :smile:,no,[red],+,1\nb: ,y,yes,[red],+,2\nc: ,z,no,odd,-,3\n"
    Path("own.csv").write_text(header + rows)
    command = ["train", "--task", "own.csv", "--size", "small", "--seeds", "2", "--steps", "2"]
    assert main([*command, "--framing", "line"]) == 0
    assert "seen [red]" in capsys.readouterr().out
    run = "runs/own-small-line"
    assert main(["evaluate", run]) == 0
    assert "nearest" not in capsys.readouterr().out, "its operands are no digits"
    assert main(["ask", run, "a:"]) == 0
    assert capsys.readouterr().out.startswith("a:␣\n")
    assert main(["evaluate", run, "--operands", "0-9"]) == 2
    assert "has no equations" in capsys.readouterr().err


def test_a_user_s_own_corpus_trains_and_travels_with_its_run(tmp_path: Path) -> None:
    corpus = tmp_path / "abc.tsv"
    corpus.write_text("prompt\tanswer\theld_out\tkind\na=\t1\tno\tx\nb=\t2\tno\ty\nc=\t3\tyes\tx\n")
    run = train_models(short(task=str(corpus)), "run")
    corpus.unlink()
    task = load_run("run").task
    assert task.prompts(held_out=True)["prompt"].tolist() == ["c="]
    assert task.prompts()["kind"].tolist() == ["x", "y", "x"]
    assert run.metrics()["seen_lines_of"].tolist()[-1] == 2
    assert run.metrics()["held_out_of"].tolist()[-1] == 1


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def test_a_refused_training_gives_its_reason_and_writes_nothing() -> None:
    def refused(folder: str, message: str, **flags: Any) -> None:
        recipe = short(**flags)
        before = files()
        with pytest.raises(TbttError, match=message):
            train_models(recipe, folder)
        assert files() == before

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
    refused("run", "run holds an unfinished run of this recipe: add --resume to continue it")
    refused("run", r"another recipe \(seeds is 2 there", seeds=4)


def test_a_file_without_room_for_a_window_is_refused() -> None:
    Path("tiny.txt").write_text("a\nb\n")
    recipe = resolve_recipe("quick", {"task": "tiny.txt", "steps": 1})
    with pytest.raises(TbttError, match="a window of 24 characters does not fit a file of 4"):
        train_models(recipe, "run")
    assert not Path("run").exists()


def test_the_next_step_follows_from_the_framing_and_the_loss() -> None:
    def trained(framing: str) -> Run:
        flags = {"framing": framing, "steps": 2, "seeds": 1, "model.size": "small"}
        return train_models(resolve_recipe("quick", flags), framing)

    for framing, words, other in (
        ("line", "windows of fresh orders", "shuffled"),
        ("shuffled", "whose order can be memorized", "file"),
        ("file", "no order to memorize", "line"),
    ):
        run = trained(framing)
        assert words in next_step(run)[0]
        assert next_step(run)[1] == other
        headers, rows = training_rows(training_table(run))
        assert {len(row) for row in rows} == {len(headers)} and rows[-1][0] == "all"
    summary = run.summary()  # of framing file
    summary["seeds"][0]["loss"] = 0.7  # below the floor of the lines, as trained models reach it
    Path("file/summary.json").write_text(json.dumps(summary))
    reason = "a loss below the floor of the lines is order memorized; take the order away"
    assert next_step(run) == (reason, "line")

"""The command lines, in this process: what they print, and what bad input gets."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tbtt_interp import cli
from tbtt_interp.cli import main
from tbtt_interp.cli.training import _again, default_name
from tbtt_interp.runs import load_run
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.step import CompiledStack

SHORT = ["train", "--size", "small", "--framing", "line", "--seeds", "2", "--steps", "5"]


def test_training_ends_in_a_table_and_a_next_step(printed, refused):
    out = printed(*SHORT)
    assert "runs/arithmetic-small-line: 5 steps" in out
    for word in ("seen −", "held-out", "margin", "floor:", "all", "Mean accuracy", "Next: "):
        assert word in out
    assert printed(*SHORT) == out
    # a finished run is not reported for a device that is none
    assert "device 'tpu' is unknown (did you mean 'cpu'?)" in refused(*SHORT, "--device", "tpu")


def test_with_json_there_are_the_rows_and_nothing_else(line_run, printed):
    def rows(*words: object) -> list[dict]:
        return json.loads(printed(*words, "--json"))

    trained = rows(*SHORT)
    assert [row["seed"] for row in trained] == [0, 1, "all"]
    assert {"loss", "floor_order", "held_out_right", "margin_held_out"} <= trained[0].keys()
    assert trained[-1]["held_out_of"] == 8
    assert [row["run"] for row in rows("runs")] == ["runs/arithmetic-small-line"]
    evaluated = {row["by"] for row in rows("evaluate", line_run.folder)}
    assert evaluated >= {"0", "1", "all", "additive model"}


@pytest.mark.parametrize(
    ("program", "words", "more", "again"),
    [
        ("train/__main__.py", "--size small --out 'a b' --framing line",
         "--framing file", "python -m tbtt_interp.train --size small --framing file"),
        ("/bin/tbtt", "train --seeds=2 --out=x --set=training.batch=all --framing=line",
         "--framing shuffled", "tbtt train --seeds=2 --framing shuffled"),
        ("/bin/tbtt", "train --set training.batch=64", "--framing shuffled",
         "tbtt train --set training.batch=64 --framing shuffled"),
    ],
)  # fmt: skip
def test_the_next_command_drops_what_goes_with_this_framing(
    program, words, more, again, monkeypatch
):
    monkeypatch.setattr(sys, "argv", [program, *shlex.split(words)])
    assert _again(*more.split()) == again


def test_asking_shows_each_character_and_whether_it_is_right(line_run, printed):
    out = printed("ask", line_run.folder, "3+4")
    assert out.splitlines()[0].strip() == "<3+4="
    assert re.search(r"7>  right +seen +7 0\.\d{3}  > [01]\.\d{3}", out)
    assert "held out" in printed("ask", line_run.folder, "5-7=", "--seed", "1")
    out = printed("ask", line_run.folder, "123456+7")
    assert "longer than the window: the models read" in out and "not of the task" in out


def test_evaluating_shows_groups_seeds_and_baselines(line_run, printed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")  # where no table is cut
    out = printed("evaluate", line_run.folder, "--out", "answers.csv")
    assert "…" not in out
    for word in ("seen +", "held-out", "seed 1", "nearest seen equation", "margin"):
        assert word in out
    assert len(Path("answers.csv").read_text().splitlines()) == 401
    out = printed("evaluate", line_run.folder, "--operands", "0-19", "--step", "250")
    assert "beyond 9" in out and "does not fit" in out and "at step 250" in out


def test_a_checkpoint_goes_out_and_comes_back(line_run, printed):
    assert "for nanoGPT" in printed("export", line_run.folder, "--seed", 1, "--out", "ckpt.pt")
    out = printed("import", "ckpt.pt", "--task", "arithmetic", "--out", "runs/theirs")
    assert "1 layers, 1 heads, width 14" in out and "tbtt evaluate runs/theirs" in out
    theirs = load_run("runs/theirs").parameters()
    for name, of_seeds in line_run.parameters().items():
        assert torch.equal(theirs[name][0], of_seeds[1]), name
    (row,) = json.loads(printed("export", "runs/theirs", "--out", "b.pt", "--json"))
    assert row == {"checkpoint": "b.pt", "run": "runs/theirs", "seed": 0}
    pairs = ["--held-out", "9,9", "--held-out", "1,2"]
    printed("import", "b.pt", "--task", "arithmetic", "--out", "runs/again", *pairs)
    held_out = load_run("runs/again").task.prompts(held_out=True)["prompt"].tolist()
    assert held_out == ["<1+2=", "<2+1=", "<9+9=", "<1-2=", "<2-1=", "<9-9="]
    assert "imported" in printed("runs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--task", "arith"], "task 'arith' is unknown (did you mean 'arithmetic'?)"),
        (["train", "--held-out", "5,10"], "held-out pair 5,10 is not of this task: give two "
         "operands from 0 to 9, as in --held-out 5,7"),
        (["train", "--held-out", "57"], "held-out pair '57' is no pair: give two operands, as"),
        (["train", "--seeds", "0"], "seeds must be at least 1, got 0"),
        (["train", "--set", "training.batch=all"],
         "batch 'all' is for framing line, where it means every"),
        (["train", "--threads", "0"], "threads must be from 1 to 1024, got 0"),
        (["train", "--out", "."], "a run needs a folder of its own: give --out a name that is new"),
        (["train", "--task", "x" * 300], "choose arithmetic, facts or joint, or give the path of a "
         "text file"),
        (["train", "--first-seed", str(10**20)], "first_seed must be from 0 to 2^31 - 1"),
        (["train", "--siz", "small"], "No such option: --siz"),
        (["trian"], "No such command 'trian'"),
        (["evaluate", "nowhere"], "run nowhere is not there: `tbtt runs` lists those under runs/"),
        (["import", "no.pt", "--task", "arithmetic", "--out", "x"], "no.pt cannot be read as a"),
        (["import", "no.pt", "--out", "x"], "no.pt does not say its task: give --task"),
        (["evaluate", "RUN", "--operands", "9"], "operands '9' is no range: give two numbers up"),
        (["evaluate", "RUN", "--operands", "9-3"], "operands '9-3' is no range"),
        (["evaluate", "RUN", "--step", "3"], "has no checkpoint at step 3: choose 0, 250"),
        (["ask", "RUN", "3*4"], "'3*4' has '*', which this model has no token for"),
        (["ask", "RUN", ""], "the prompt is empty: give one, such as 3+4="),
        (["ask", "RUN", "3+4", "--seed", "9"], "has no seed 9: choose 0 or 1"),
        (["export", "RUN", "--out", "no/such/place.pt"], "no/such/place.pt cannot be written"),
        (["evaluate", "RUN", "--out", "no/such/place.csv"], "no/such/place.csv cannot be written"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(arguments, message, line_run, refused):
    assert message in refused(*(line_run.folder if a == "RUN" else a for a in arguments))


@pytest.mark.parametrize(
    ("recipe", "flags", "name"),
    [
        ("quick", {}, "arithmetic-medium-file"),
        ("quick", {"model.size": "n14", "task": "joint", "framing": "line"}, "joint-small-line"),
        ("quick", {"held_out": [[9, 9], [1, 0]]}, "arithmetic-medium-file-without-01-99"),
        ("paper", {}, "arithmetic-medium-file-paper"),
    ],
)
def test_runs_are_named_after_what_is_not_the_default(recipe, flags, name):
    assert default_name(resolve_recipe(recipe, flags)) == name


def test_ctrl_c_leaves_a_run_that_can_go_on(capsys, monkeypatch):
    """In this process; real signals end others in test_resuming.py and test_backends.py."""
    advance = CompiledStack.advance

    def interrupted(stack: CompiledStack, start: int, until: int) -> None:
        if start >= 100:
            raise KeyboardInterrupt
        advance(stack, start, until)

    monkeypatch.setattr(CompiledStack, "advance", interrupted)
    words = ["train", "--size", "small", "--framing", "line", "--out", "cut"]
    monkeypatch.setattr(sys, "argv", ["tbtt", *words])
    assert main(words) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == "interrupted; to resume: tbtt train --resume cut"
    assert not load_run("cut").is_complete
    assert main(["train", "--resume", "cut", "--size", "small"]) == 2
    assert (
        "continues a run with the settings it was begun with: beside it" in capsys.readouterr().err
    )


def test_help_has_an_example_and_needs_no_torch():
    code = (
        "import runpy, sys\n"
        "for words in sys.argv[1:]:\n"
        "    sys.argv = [*words.split(), '--help']\n"
        "    try:\n        runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
        "    except SystemExit as end:\n        assert not end.code, end.code\n"
        "    print('END')\n"
        "assert not {'torch', 'transformer_lens', 'pandas', 'numpy'} & sys.modules.keys()\n"
    )
    names = ("train", "sweep", "runs", "evaluate", "ask", "import", "export")
    modules = [f"tbtt_interp.{name}" for name in ("train", "probes", "analyses patching")]
    asked = [*modules, *(f"tbtt_interp {name}" for name in names)]
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True,
                          check=False, env=os.environ | {"COLUMNS": "120"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    example = re.compile(r"^ +(tbtt \w+|python -m tbtt_interp\.train --size)", re.MULTILINE)
    *pages, _ = done.stdout.split("END\n")
    assert len(pages) == len(asked) and all(map(example.search, pages))


def test_the_help_lists_every_command_once():
    grouped = [name for names in cli.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(cli.COMMANDS)

"""A model whose training diverges: marked at its step, left out of means, and named everywhere."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny import short

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.model_tables import models_table, over_training_table, table_by_cell
from tbtt_interp.runs import Run, load_run
from tbtt_interp.tables import list_runs
from tbtt_interp.train.stacks import Runtime, TrainingCallback
from tbtt_interp.train.step import ModelStack
from tbtt_interp.train.training import train_models

STEP = 6  # at whose end the second of three models has a weight that is no number
NAMED = "seed 1 diverged by step 6, and is left out"


def train(folder: str, *models: int, compiled: bool = False, **flags: object) -> list[str]:
    """Trains three models, some of which diverge; returns the messages."""
    messages: list[str] = []
    callback = TrainingCallback()
    callback.on_message = messages.append
    with pytest.MonkeyPatch.context() as patched:
        end = ModelStack._end_diverged
        at = 0

        def break_some(stack: ModelStack) -> None:
            if at == STEP:
                for model in models:
                    stack.parameters["ln_final.w"].data[model, 0] = torch.inf
            end(stack)

        def on_step(step: int) -> None:
            nonlocal at
            at = step + 1  # of the next call

        callback.on_step = on_step
        patched.setattr(ModelStack, "_end_diverged", break_some)
        runtime = Runtime(threads=1, compiled=compiled)
        train_models(short(seeds=3, **flags), folder, callback=callback, runtime=runtime)
    return messages


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("diverged")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        (message,) = train("one", 1)
        assert message.startswith("Seed 1 diverged by step 6: its loss is no finite number.")
    return load_run(folder / "one")


def test_a_diverged_model_is_marked_at_its_step_in_valid_json(one: Run) -> None:
    def read(text: str) -> dict:
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    lines = [read(line) for line in (one.folder / "metrics.jsonl").read_text().splitlines()]
    marks = {line["step"]: [row.get("diverged") for row in line["seeds"]] for line in lines}
    sound, marked = [None] * 3, [None, 6, None]
    assert marks == {0: sound, 3: sound, 6: marked, 9: marked, 12: marked}
    assert lines[-1]["seeds"][1] == {
        "seed": 1, "loss": None, "seen_addition": [0, 0], "seen_subtraction": [0, 0],
        "held_out": [0, 0], "diverged": 6,
    }  # fmt: skip
    summary = read((one.folder / "summary.json").read_text())
    assert [row.get("diverged") for row in summary["seeds"]] == [None, 6, None]
    weights = load_file(one.checkpoints[12])
    for value in weights.values():
        assert value[1].isnan().all() and value[[0, 2]].isfinite().all()


def test_the_other_models_have_the_bits_that_they_have_without_it(one: Run) -> None:
    train("sound")
    for name, value in load_run("sound").parameters().items():
        assert torch.equal(value[[0, 2]], one.parameters()[name][[0, 2]]), name


def test_it_counts_in_no_mean_and_no_answer(one: Run) -> None:
    assert evaluate_run(one).seeds == (0, 2)
    assert evaluate_run(one, step=4).seeds == (0, 1, 2)
    models = models_table([one]).set_index("seed")
    assert models.loc[1, ["seen_of", "held_out_of"]].tolist() == [0, 0]
    assert models.loc[1, ["seen_accuracy", "held_out_accuracy", "knows_all", "loss"]].isna().all()
    (cell,) = table_by_cell(models.reset_index()).to_dict("records")
    assert cell["held_out_of"] == 2 * models.loc[0, "held_out_of"]
    assert cell["seen_accuracy"] == pytest.approx(models.loc[[0, 2], "seen_accuracy"].mean())
    assert over_training_table([one]).query("step == 12")["loss"].notna().sum() == 2
    row = list_runs(one.folder.parent).iloc[0]
    assert row["status"] == "finished (1 of 3 models diverged)" and not row["problem"]


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "one"], ["evaluate", "one", "--operands", "0-3", "--json"],
        ["ask", "one", "3+4"], ["analyses", "patching", "one", "--pairs", "8"],
        ["probes", "one", "--feature", "carry", "--position", "-1", "--controls", "1"],
        ["report", "one", "--only", "answers"], ["compare", "one", "sound"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_command_names_it_and_goes_on_without(words, one: Run, capsys) -> None:
    shutil.copytree(one.folder, "one")
    if "sound" in words:
        train("sound")
    capsys.readouterr()
    assert main(words) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert NAMED in out + err
    assert not re.search(r"\bnan\b", out, re.IGNORECASE)


def test_it_cannot_be_asked_for_itself(one: Run, refused) -> None:
    assert "diverged: choose 0 or 2" in refused("ask", one.folder, "3+4", "--seed", 1)


def test_a_run_whose_models_all_diverged_says_so(refused, capsys) -> None:
    train("all", 0, 1, 2)
    assert main(["train", "--recipe", "short.toml", "--seeds", "3", "--out", "all"]) == 0
    assert "0/0" in capsys.readouterr().out
    for words in (["evaluate", "all"], ["ask", "all", "3+4"], ["analyses", "patching", "all"]):
        assert "every model of all diverged: its weights are no finite numbers" in refused(*words)
    assert main(["runs", "."]) == 0
    assert "3 of 3 models diverged" in capsys.readouterr().out


def test_a_compiled_run_that_diverges_is_marked_alike(monkeypatch) -> None:
    messages = train("kernel", compiled=True, **{"training.learning_rate": 1e30})
    run = load_run("kernel")
    assert len(messages) == 3 and run.diverged() == run.seeds
    assert all("diverged" in row for row in run.summary()["seeds"])
    with pytest.raises(TbttError, match="every model of kernel diverged"):
        evaluate_run(run)

"""What is added from outside, through public functions, is as known as what comes with the package.

A task and a probe feature are registered here; so can an analysis be.
"""

import json
from collections.abc import Iterator

import pytest

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.probes.features import FEATURES, Feature, register_feature
from tbtt_interp.runs import Run, load_run
from tbtt_interp.tasks import TASKS, Example, Task, load_task, register_task

OPERANDS = (0, 1, 2, 3)


def products(held_out: tuple[tuple[int, int], ...]) -> Task:
    """Products of two digits modulo 4."""
    unordered = {frozenset(pair) for pair in held_out}
    examples = [
        Example.of(
            f"{a}*{b}=", f"{a * b % 4}.", {"a": a, "operator": "*", "b": b, "value": a * b % 4},
            held_out=frozenset((a, b)) in unordered,
        )
        for a in OPERANDS for b in OPERANDS
    ]  # fmt: skip
    return Task.of(
        "products", examples, window=7, batch=8, operands=OPERANDS, operators=("*",),
        short_forms=((r"(\d\*\d)", r"\1="),),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The task for one test, and the package as it was afterwards."""
    register_task("products", products)
    yield
    TASKS.pop("products", None)
    FEATURES.pop("mine", None)


def test_a_registered_task_is_trained_asked_and_evaluated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train = ["train", "--task", "products", "--size", "L1H1D4M4", "--steps", "2", "--seeds", "2"]
    assert main([*train, "--held-out", "2,3", "--out", "run"]) == 0
    assert "held-out" in capsys.readouterr().out
    run = load_run("run")
    assert run.task.prompts(held_out=True)["prompt"].tolist() == ["2*3=", "3*2="]
    assert run.task.varied == ("a", "operator", "b")
    assert main(["ask", "run", "2*3", "--json"]) == 0
    assert [row["held_out"] for row in json.loads(capsys.readouterr().out)] == [True, True]
    assert main(["evaluate", "run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    of = {(row["by"], row["group"]): row["of"] for row in rows}
    assert of["all", "seen_lines"] == 2 * 14 and of["all", "held_out"] == 2 * 2
    assert of["additive model", "held_out"] == of["nearest seen equation", "held_out"] == 2


def test_a_registered_task_is_named_where_another_is_not_known() -> None:
    with pytest.raises(TbttError, match=r"did you mean 'products'\?.*facts, joint or products, or"):
        load_task("product")


def test_a_name_that_is_taken_is_refused() -> None:
    register_task("products", products)  # registering it again changes nothing
    with pytest.raises(TbttError, match="there is a task 'facts' already: give another name"):
        register_task("facts", products)


def test_a_registered_feature_is_read_by_the_command(
    line_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Feature("mine", "whether a is b", lambda e: e.labels["a"] == e.labels["b"])
    register_feature(mine)
    register_feature(mine)  # registering it again changes nothing
    command = ["probes", str(line_run.folder), "--feature", "mine", "--position", "-1", "--site"]
    assert main([*command, "hook_embed", "--controls", "2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["feature"], row["of"]) == ("mine", 2 * 200)
    assert row["accuracy"] == row["majority"] == pytest.approx(0.9)  # at = there is no operand yet
    assert row["control"] is not None, "digits are renamed for it as for the others"
    with pytest.raises(TbttError, match="there is a feature 'carry' already: give another name"):
        register_feature(Feature("carry", "another", lambda e: None))

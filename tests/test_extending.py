"""What is added from outside, through public functions, is as known as what comes with the package.

A task, a probe feature and an analysis are registered here.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import pytest

import tbtt_interp as tbtt
from tbtt_interp.analyses.registry import ANALYSES
from tbtt_interp.cli import analyses
from tbtt_interp.errors import TbttError
from tbtt_interp.probes.features import FEATURES, Feature, register_feature
from tbtt_interp.runs import Run, load_run
from tbtt_interp.tasks import TASKS, Example, Task, load_task, register_task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

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
    ANALYSES.pop("weight-norms", None)
    known = analyses.registered_commands
    known[:] = [command for command in known if command.name != "weight-norms"]


@pytest.mark.usefixtures("by_torch")
def test_a_registered_task_is_trained_asked_and_evaluated(printed) -> None:
    train = ["train", "--task", "products", "--size", "L1H1D4M4", "--steps", "2", "--seeds", "2"]
    assert "held-out" in printed(*train, "--held-out", "2,3", "--out", "run")
    run = load_run("run")
    assert run.task.prompts(held_out=True)["prompt"].tolist() == ["2*3=", "3*2="]
    assert run.task.varied == ("a", "operator", "b")
    rows = json.loads(printed("ask", "run", "2*3", "--json"))
    assert [row["held_out"] for row in rows] == [True, True]
    rows = json.loads(printed("evaluate", "run", "--json"))
    of = {(row["by"], row["group"]): row["of"] for row in rows}
    assert of["all", "seen_lines"] == 2 * 14 and of["all", "held_out"] == 2 * 2
    assert of["additive model", "held_out"] == of["nearest seen equation", "held_out"] == 2


def test_a_registered_task_is_named_and_its_name_is_taken() -> None:
    register_task("products", products)  # registering it again changes nothing
    with pytest.raises(TbttError, match="there is a task 'facts' already: give another name"):
        register_task("facts", products)
    with pytest.raises(TbttError, match=r"did you mean 'products'\?.*facts, joint or products, or"):
        load_task("product")


def test_a_registered_feature_is_read_by_the_command(line_run: Run, printed) -> None:
    mine = Feature("mine", "whether a is b", lambda e: e.labels["a"] == e.labels["b"])
    register_feature(mine)
    register_feature(mine)  # registering it again changes nothing
    command = ["probes", str(line_run.folder), "--feature", "mine", "--position", "-1", "--site"]
    (row,) = json.loads(printed(*command, "hook_embed", "--controls", "2", "--json"))
    assert (row["feature"], row["of"]) == ("mine", 2 * 200)
    assert row["accuracy"] == row["majority"] == pytest.approx(0.9)  # at = there is no operand yet
    assert row["control"] is not None, "digits are renamed for it as for the others"
    with pytest.raises(TbttError, match="there is a feature 'carry' already: give another name"):
        register_feature(Feature("carry", "another", lambda e: None))


def weight_norms(
    run: tbtt.Run | tbtt.Models,
    *,
    power: Annotated[int, "The norm's power."] = 2,
) -> tbtt.Result:
    """How large are the embeddings of each model?"""

    def norm(model: "HookedTransformer", prompts: tbtt.PromptSet) -> pd.DataFrame:
        return pd.DataFrame([{"power": power, "norm": model.W_E.norm(power).item()}])

    table = tbtt.over_seeds(run, norm)
    return tbtt.Result(name="weight-norms", tables={"weight-norms": table}, display=table)


def test_a_registered_analysis_is_a_command_like_the_others(line_run: Run, printed) -> None:
    tbtt.register_analysis(weight_norms)
    tbtt.register_analysis(weight_norms)  # registering it again changes nothing
    assert "How large are the embeddings of each model?" in printed("analyses", "--help")
    help_page = printed("analyses", "weight-norms", "--help")
    assert all(word in help_page for word in ("--power", "The norm's power.", "--over-steps"))
    command = ["analyses", "weight-norms", str(line_run.folder)]
    rows = json.loads(printed(*command, "--power", "1", "--json"))
    expected = [line_run.model(seed).W_E.abs().sum().item() for seed in line_run.seeds]
    assert [row["norm"] for row in rows] == pytest.approx(expected)
    printed(*command, "--out", "out")
    assert pd.read_csv("out/weight-norms.csv")["power"].tolist() == [2, 2]
    with pytest.raises(TbttError, match="there is an analysis 'paths' already: give another name"):
        tbtt.register_analysis(weight_norms, "paths")

    def undocumented(run: tbtt.Run) -> tbtt.Result:
        return weight_norms(run)

    with pytest.raises(TbttError, match="'undocumented' has no docstring: its first line is"):
        tbtt.register_analysis(undocumented)

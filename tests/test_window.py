"""Window, exposure and second task are told apart by conditions that differ in one of them."""

import pandas as pd
import pytest
import window as study
from planted_tables import cell

from tbtt_interp.results import Result
from tbtt_interp.tasks import load_task
from tbtt_interp.train.sweep import read_sweep


def answered(alone: int, long: int, matched: int, joint: int) -> Result:
    """So many of four are answered under each of the conditions."""
    models = pd.concat([
        cell([alone] * 4, window=9, batch=882, steps=12_000, run="9"),
        cell([long] * 4, window=24, batch=576, steps=12_000, run="24"),
        cell([matched] * 4, window=24, batch=307, steps=12_000, run="307"),
    ])  # fmt: skip
    ladder = pd.concat([
        cell([4] * 8, steps=30_000),
        cell([joint] * 4, task="joint", window=24, batch=576, steps=12_000, facts=[9] * 4),
        cell([0] * 4, task="joint", framing="line", facts=[9] * 4),
    ])  # fmt: skip
    return study.window_result(models.reset_index(drop=True), ladder.reset_index(drop=True))


def test_each_step_is_the_difference_of_two_conditions_and_they_sum() -> None:
    effects = answered(4, 2, 3, 0).tables["window-effects"].groupby("effect")["value"].mean()
    assert effects["window"] == -0.25
    assert effects["second task"] == -0.75
    assert effects["exposure"] == -0.25
    assert effects["joint minus alone"] == effects["window"] + effects["second task"] == -1


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ((4, 2, 4, 1), ["supported", "undecided", "supported"]),
        ((3, 3, 1, 1), ["undecided", "supported", "undecided"]),
        ((1, 4, 1, 4), ["contradicted", "undecided", "contradicted"]),
    ],
)
def test_claims_are_on_the_conditions_that_they_name(
    answers: tuple[int, int, int, int], verdicts: list[str]
) -> None:
    assert [claim.verdict for claim in answered(*answers).claims] == verdicts


def test_the_sweep_s_cells_have_the_exposure_and_the_schedule_of_joint() -> None:
    joint = load_task("joint")
    equations = sum(map(len, load_task("arithmetic").lines)) / sum(map(len, joint.lines))
    assert study.equation_share("joint") == pytest.approx(equations)
    theirs = next(s.recipe for s in read_sweep("ladder").jobs if s.name == "joint-small-file")
    cells = {
        (r.training.window, r.training.batch): r
        for r in (stack.recipe for stack in read_sweep("window").jobs)
    }
    assert set(cells) == {(24, 576), (9, 882), (24, 307)}
    assert (theirs.training.window, theirs.training.batch) == (24, 576)
    assert pytest.approx(24 * 576 * equations, rel=0.001) == 24 * 307
    assert {r.training.steps for r in cells.values()} == {theirs.training.steps}
    assert {r.training.decay_until for r in cells.values()} == {theirs.training.decay_until}


def test_the_table_has_exposure_and_counts_equations_alone() -> None:
    display = answered(4, 2, 3, 0).display.set_index("trained on")
    assert display.loc["arithmetic, window 9", "exposure"] == "95"
    assert display.loc["joint, window 24", "exposure"] == "88"
    assert display.loc["arithmetic, window 24, exposed as on joint", "exposure"] == "88"
    assert display.loc["joint, window 24", "seen"] == "784/784"
    assert (
        display.loc["arithmetic, window 9, 30,000 steps", "held-out"] == "16/16"
    )  # seeds of joint


def test_without_joint_models_nothing_is_decided() -> None:
    models = cell([4] * 2, window=9, batch=882, steps=12_000)
    found = study.window_result(models, cell([3] * 2, steps=30_000))
    assert {claim.verdict for claim in found.claims} == {"undecided"}
    assert found.figures["window"]().data

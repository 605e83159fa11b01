"""Claims are decided by whole intervals, differences are paired by seed, and text says both."""

import math

import pandas as pd
import pytest
from scipy import stats

from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.claims import Claim, Evidence
from tbtt_interp.evidence.effects import arm, check_one_each, claim_on, few_models, weakest
from tbtt_interp.evidence.published import published, published_table
from tbtt_interp.stats import Interval

SAID = {"by": "explored", "unit": "of all", "null_is": "a half", "command": "tbtt sweep ladder"}


def claim(
    low: float, high: float, *, above: bool = True, or_equal: bool = False, says: str = "It is so."
) -> Claim:
    return Claim(
        says=says, effect=Interval(mean=(low + high) / 2, low=low, high=high), null=0.5, models=8,
        above=above, or_equal=or_equal, **SAID,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "above", "or_equal", "verdict"),
    [
        (0.6, 0.9, True, False, "supported"),
        (0.6, 0.9, False, False, "contradicted"),
        (0.1, 0.4, True, False, "contradicted"),
        (0.1, 0.4, False, False, "supported"),
        (0.4, 0.6, True, False, "undecided"),
        (0.5, 0.6, True, False, "undecided"),  # more than a half, not at least
        (0.5, 0.6, True, True, "supported"),
        (0.5, 0.5, True, True, "supported"),
        (0.5, 0.5, False, True, "supported"),
        (0.5, 0.5, True, False, "undecided"),
        (0.4, 0.5, True, True, "undecided"),
        (0.4, 0.5, False, True, "supported"),
        (0.1, 0.4, True, True, "contradicted"),
        (math.nan, math.nan, True, True, "undecided"),
    ],
)
def test_a_verdict_is_where_the_whole_interval_is(
    low: float, high: float, above: bool, or_equal: bool, verdict: str
) -> None:
    assert claim(low, high, above=above, or_equal=or_equal).verdict == verdict


def test_a_claim_on_several_is_as_its_weakest() -> None:
    yes, more, open_, no = claim(0.6, 0.9), claim(0.8, 0.9), claim(0.4, 0.9), claim(0.1, 0.2)
    missing = claim_on(pd.Series(dtype=float), says="It is so.", null=0.5, **SAID)
    assert weakest([more, yes]) is yes
    assert weakest([yes, open_]) is open_
    assert weakest([open_, no, yes, missing]) is no
    assert weakest([yes, missing]).verdict == "undecided"
    assert "no models of these cells" in missing.measured


def test_differences_are_paired_by_seed_and_lone_seeds_left_out() -> None:
    table = pd.DataFrame({
        "framing": ["file"] * 3 + ["line"] * 3, "seed": [0, 1, 2, 2, 1, 7],
        "held_out": [0.0, 0.25, 0.5, 0.75, 1.0, 1.0],
    })  # fmt: skip
    found = claim_on(
        arm(table, framing="line") - arm(table, framing="file"), says="x.", null=0.0, **SAID
    )
    assert found.models == 2
    assert found.effect.mean == pytest.approx(((1.0 - 0.25) + (0.75 - 0.5)) / 2)
    bounds = stats.ttest_1samp([1.0 - 0.25, 0.75 - 0.5], 0).confidence_interval()
    assert (found.effect.low, found.effect.high) == pytest.approx(tuple(bounds))
    assert found.verdict == "undecided", "two pairs are none to decide by"


def test_an_arm_without_the_measure_is_empty() -> None:
    assert arm(pd.DataFrame({"size": ["small"], "seed": [0]}), "seen", size="small").empty


def test_a_seed_twice_in_a_cell_is_an_error() -> None:
    table = pd.DataFrame({"run": ["a", "b", "b"], "size": ["small"] * 3, "seed": [0, 0, 1]})
    with pytest.raises(TbttError) as error:
        check_one_each(table, ["size"])
    assert str(error.value) == (
        "seed 0 is twice in one cell (a and b): give a folder with the runs of one sweep alone"
    )


def test_what_few_models_are_worth_is_the_sign_test_s_least_p() -> None:
    assert "are 8: " in few_models([claim(0.6, 0.9)])
    assert f"p = {0.5**8:.3f}" in few_models([claim(0.6, 0.9)])


def test_evidence_reads_in_a_terminal() -> None:
    long = "On many a framing, " * 8 + "no size is worth 0.25 [0.10, 0.40] of another."
    evidence = Evidence(
        question="Is it so?", tables={}, figures={}, sentences=[long], command="tbtt sweep ladder",
        shown=pd.DataFrame({"size": ["small", "large"], "right": ["3/4", None]}),
        claims=[claim(0.6, 0.9, says="It is as long as it is wide. " * 9), claim(0.1, 0.2)],
        notes=["A note."],
    )  # fmt: skip
    lines = str(evidence).splitlines()
    assert lines[:2] == ["Is it so?", "tbtt sweep ladder"]
    assert max(map(len, lines)) <= 100
    assert any("0.25 [0.10, 0.40]" in line for line in lines)
    assert "Explored:" in lines
    assert [line.split()[0] for line in lines if line.startswith(("supp", "contra"))] == [
        "supported", "contradicted"
    ]  # fmt: skip
    assert lines[-1] == "A note."
    assert "None" not in str(evidence)


def test_the_paper_s_figures_are_consistent() -> None:
    """It counts a ± 0 once: 182 questions, 2 of each operator held out, of which none is right."""
    joint = published_table().set_index(["task", "size"]).loc[("joint", "large")]
    assert joint["addition"] == round(890 / 910, 3) == round(89 / 91, 3)
    assert published("arithmetic", "held_out")["small"] == 1.0
    assert published("facts", "facts")["small"] == 0.082

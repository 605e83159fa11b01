"""Claims are decided by whole intervals, and a result reads in a terminal."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tbtt_interp.errors import TbttError
from tbtt_interp.results import Claim, Direction, Result, all_of, claims_table, table_html
from tbtt_interp.stats import UNMEASURED, Interval, holm, mean_over_models


def claim(low: float, high: float, direction: Direction = "above", *, n: int = 8,
          text: str = "It is so.", **also) -> Claim:  # fmt: skip
    effect = Interval(mean=(low + high) / 2, low=low, high=high, n=n)
    return Claim(text=text, effect=effect, null=0.5, unit="of all", null_name="a half",
                 direction=direction, **also)  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "direction", "or_equal", "verdict"),
    [
        (0.6, 0.9, "above", False, "supported"),
        (0.6, 0.9, "below", False, "contradicted"),
        (0.1, 0.4, "below", False, "supported"),
        (0.1, 0.4, "different", False, "supported"),
        (0.4, 0.6, "different", False, "undecided"),
        (0.5, 0.6, "above", False, "undecided"),  # more than a half, not at least
        (0.5, 0.6, "above", True, "supported"),
        (0.5, 0.5, "above", True, "undecided"),  # an interval without width is no verdict
        (0.9, 0.9, "different", False, "undecided"),
        (0.4, 0.5, "above", True, "undecided"),
        (math.nan, math.nan, "above", True, "undecided"),
    ],
)
def test_a_verdict_is_where_the_whole_interval_is(low, high, direction, or_equal, verdict) -> None:
    assert claim(low, high, direction, or_equal=or_equal).verdict == verdict


def test_what_an_undecided_claim_would_have_seen_is_seen_four_times_in_five() -> None:
    """By Student's interval, of models that differ as much as these do."""
    spreads = np.random.default_rng(0).standard_normal((600, 6))

    def above_zero(values: np.ndarray) -> Claim:
        return Claim(text="", effect=mean_over_models(values), unit="", null=0.0, null_name="")

    distance = np.sqrt(np.mean([above_zero(row).detectable ** 2 for row in spreads]))
    power = np.mean([above_zero(row + distance).verdict == "supported" for row in spreads])
    assert 0.75 < power < 0.85  # its own error is 0.016
    assert math.isnan(claim(0.5, 0.5).detectable) and math.isnan(claim(0.4, 0.6, n=2).detectable)


def test_what_would_have_been_seen_and_what_cannot_be_is_said_where_it_matters() -> None:
    undecided = claim(0.4, 0.6, blind_to="nonlinear use")
    smallest = f"The smallest difference seen at 80 % power: {undecided.detectable:.2f}."
    assert smallest in undecided.measured
    assert undecided.measured.endswith("Blind to nonlinear use.")
    supported = claim(0.6, 0.9, blind_to="nonlinear use").measured
    assert "power" not in supported and "Blind" not in supported


def test_few_models_and_a_large_p_support_nothing() -> None:
    assert claim(0.6, 0.9, n=2).verdict == "undecided"
    assert claim(0.6, 0.9, p=0.05).verdict == "supported"
    assert claim(0.6, 0.9, p=0.06).verdict == "undecided"
    assert claim(0.1, 0.2, p=0.06).verdict == "contradicted", "p is of the claimed direction"


def test_a_claim_on_several_is_as_its_weakest() -> None:
    yes, more, open_, no = claim(0.6, 0.9), claim(0.8, 0.9), claim(0.4, 0.9), claim(0.1, 0.2)
    missing = Claim(text="It is so.", effect=UNMEASURED, unit="", null=0.5, null_name="a half")
    assert all_of([more, yes]) is yes
    assert all_of([yes, open_]) is open_
    assert all_of([open_, no, yes, missing]) is no
    assert all_of([yes, missing]).verdict == "undecided"
    assert missing.measured == "Not measured: there are no models of these cells."


def result(*claims: Claim, sentence: str = "It is.") -> Result:
    return Result(
        name="it", question="Is it so?", tables={}, summary=[sentence], command="tbtt it",
        display=pd.DataFrame({"size": ["small", "large"], "right": ["3/4", None]}),
        more_displays={"More": pd.DataFrame({"n": [1]})}, claims=claims, notes=["A note."],
    )  # fmt: skip


def test_a_result_reads_in_a_terminal() -> None:
    sentence = "On many a framing, " * 8 + "no size is worth 0.25 [0.10, 0.40] of another."
    before = claim(0.6, 0.9, text="It is as long as it is wide. " * 9, origin="the paper")
    text = str(result(claim(0.4, 0.6), claim(0.1, 0.2), before, sentence=sentence))
    lines = text.splitlines()
    assert lines[:2] == ["Is it so?", "tbtt it"] and lines[-1] == "A note."
    assert max(map(len, lines)) <= 100
    assert any("0.25 [0.10, 0.40]" in line for line in lines)
    assert [line for line in lines if line.endswith(":")] == ["More:", "The paper:", "Explored:"]
    assert text.index("contradicted") < text.index("undecided"), "furthest from its null first"
    assert "None" not in text


def test_a_result_is_escaped_html_in_a_notebook() -> None:
    claims = [claim(0.6, 0.9, text=f"<b>{k}</b> & co, a claim") for k in range(12)]
    page = result(*claims, sentence="a < b")._repr_html_()
    assert "<h4>Is it so?</h4>" in page and "a &lt; b" in page and "A note." in page
    assert "<b>" not in page and "&lt;b&gt;0&lt;/b&gt; &amp; co" in page
    assert "3/4" in page and "None" not in page and "nan" not in page.lower()
    assert "Claims, furthest from their nulls first, 10 of 12." in page
    assert page.count(">supported</td>") == 10
    assert "[0.60,\xa00.90]" in page, "an interval stays on one line"


def test_a_long_table_is_cut_in_a_notebook_and_its_words_are_not() -> None:
    page = table_html(pd.DataFrame({"some_name": range(100), "other": "x" * 80}))
    assert page.count("<tr>") == 31 and "some name" in page and "x" * 80 in page


def test_a_claim_is_found_by_how_it_begins_and_tabulated() -> None:
    found = result(claim(0.6, 0.9, text="Small wins"), claim(0.1, 0.2, text="Large wins"))
    assert found.claim("Large").verdict == "contradicted"
    with pytest.raises(TbttError, match=r"has no claim 'Smal win' \(did you mean 'Small wins'"):
        found.claim("Smal win")
    assert claims_table(found.claims)["verdict"].tolist() == ["supported", "contradicted"]


@settings(max_examples=30)
@given(
    st.floats(-1, 1), st.floats(0.01, 1), st.integers(3, 30),
    st.lists(st.floats(0, 1) | st.just(math.nan), max_size=9),
)  # fmt: skip
def test_p_values_agree_with_intervals_and_holm_with_statsmodels(
    mean: float, half: float, n: int, ps: list[float]
) -> None:
    from statsmodels.stats.multitest import multipletests

    assume(abs(abs(mean) - half) > 1e-9)  # the interval ends at the null
    effect = Interval(mean=mean, low=mean - half, high=mean + half, n=n)
    claim = Claim(text="", unit="", null=0.0, null_name="", effect=effect)
    assert (claim.p_value < 0.05) == (effect.low > 0 or effect.high < 0)
    known = [p for p in ps if not math.isnan(p)]
    wanted = multipletests(known, method="holm")[1] if known else []
    assert [p for p in holm(ps) if not math.isnan(p)] == pytest.approx(list(wanted))

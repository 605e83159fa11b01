"""The ladder's evidence says what was planted, and decides every claim by it."""

from statistics import mean

import ladder as study
import pandas as pd
import pytest
from planted_tables import cell, equations, over_training
from sweeps import select

from tbtt_interp.errors import TbttError
from tbtt_interp.results import Result

FOURS = 4  # models are this often four
FILE = {"small": [4, 4, 3, 4], "medium": [1, 0, 1, 0], "large": [0, 0, 1, 0]}
INDEX = ["task", "framing", "size"]


def planted() -> pd.DataFrame:
    """As the paper would have it."""
    nan, parts = float("nan"), []
    for size, four in FILE.items():
        held_out = four * FOURS
        facts = [3, 4, 5, 4] * FOURS if size == "small" else [50] * len(held_out)
        shuffled = [min(right + 1, 4) for right in held_out]
        parts += [
            cell(held_out, size=size),
            cell(shuffled, size=size, framing="shuffled", order_known=nan),
            cell([3, 4, 4, 4, 3, 4], size=size, framing="line", order_known=nan),
            cell([None] * len(facts), task="facts", size=size, facts=facts),
            cell([0] * 16, task="joint", size=size, seen=[60] * 16, facts=[1] * 16),
        ]
    return pd.concat(parts, ignore_index=True)


def answered(models: pd.DataFrame) -> Result:
    return study.ladder_result(models, over_training(models), equations(models))


def changed(values: dict[str, int], **where: object) -> Result:
    """The result where some models have other values."""
    models = planted()
    models.loc[select(models, **where).index, list(values)] = list(values.values())
    return answered(models)


@pytest.fixture(scope="module")
def result() -> Result:
    return answered(planted())


def test_what_is_as_published_supports_what_the_paper_claims(result: Result) -> None:
    claims = [claim for claim in result.claims if claim.origin != "explored"]
    assert {claim.verdict for claim in claims} == {"supported"}
    origins = [claim.origin for claim in claims]
    assert origins == ["expected before the run"] * 5 + ["the paper"] * 7


def test_an_effect_is_the_difference_of_the_shares_of_all_models(result: Result) -> None:
    order, size, *_ = result.claims
    assert (order.effect.mean, order.effect.n) == (0.25, 2 * 4 * FOURS)
    assert size.effect.mean == pytest.approx((mean(FILE["small"]) - mean(FILE["large"])) / 4)


def test_models_that_all_answer_alike_leave_an_interval_with_a_width() -> None:
    found = changed({"held_out_right": 0}, size="large", task="arithmetic")
    order = found.claims[0]
    assert order.effect.mean == 0 and order.effect.low < 0 < order.effect.high
    assert order.verdict == "undecided"
    (few,) = (c for c in found.claims if c.text.startswith("On the file, large answers fewer"))
    assert (few.effect.mean, few.effect.low, few.verdict) == (0, 0, "supported")
    assert 0 < few.effect.high < 0.3
    table = found.tables["ladder"].set_index(INDEX).loc[("arithmetic", "file", "large")]
    assert table["held_out_accuracy_high"] == few.effect.high


@pytest.mark.parametrize(
    ("values", "where", "claim", "verdict", "unit"),
    [
        ({"held_out_right": 0}, {"framing": "line", "size": "medium"}, "Rule", "contradicted",
         "of the held-out, medium"),
        ({"seen_right": 49, "seen_facts_right": 49}, {"task": "facts", "size": "large"},
         "On the file, most medium and large models know all", "contradicted", "of models, large"),
    ],
)  # fmt: skip
def test_a_claim_on_every_size_falls_with_one(values, where, claim, verdict, unit) -> None:
    (found,) = (c for c in changed(values, **where).claims if c.text.startswith(claim))
    assert (found.verdict, found.unit) == (verdict, unit)


def test_cells_that_are_not_there_are_not_decided() -> None:
    models = planted()
    result = answered(models[(models["size"] != "large") & (models["task"] != "joint")])
    assert "supported" not in {c.verdict for c in result.claims if "large" in c.unit}
    assert "Not measured: there are no models of these cells." in str(result)


def test_what_models_that_do_not_know_all_answer_is_told_apart() -> None:
    result = changed({"seen_right": 55}, size="large", framing="line", seed=0)
    row = result.display.set_index(INDEX).loc[("arithmetic", "line", "large")]
    assert (row["know all"], row["held-out"], row["of those"]) == ("5/6", "22/24", "19/20")
    assert row["the rest"] == "55"


def test_framings_are_compared_where_all_train(result: Result) -> None:
    """The planted ones answer the same at each step, so that means are those at the end."""
    start = "Over the first 1,000 steps, "
    medium = result.claim(f"{start}without an order to learn (shuffled) medium")
    assert (medium.effect.mean, medium.effect.n) == (0.25, 4 * FOURS)
    large = result.claim(f"{start}on whole lines large")
    assert large.effect.mean == pytest.approx((22 - 7) / 24), "of the six seeds on whole lines"
    assert large.verdict == "supported"


def test_a_folder_with_a_cell_twice_is_an_error() -> None:
    models = planted()
    double = pd.concat([models, models.assign(run="again-" + models["run"])])
    with pytest.raises(TbttError, match="seed 0 occurs twice in one cell"):
        answered(double)

"""The ladder's evidence says what was planted, and decides every claim by it."""

from collections.abc import Sequence

import ladder as study
import numpy as np
import pandas as pd
import pytest
from planted_tables import cell, equations, over_training
from scipy import stats

from tbtt_interp.errors import TbttError
from tbtt_interp.results import Result

FILE = {"small": [4, 4, 3, 4], "medium": [1, 0, 1, 0], "large": [0, 0, 1, 0]}
JOINT = {"small": [0, 0, 0, 0], "medium": [0, 0, 0, 0], "large": [0, 0, 0, 0]}


def planted(**changed: Sequence[int]) -> pd.DataFrame:
    """As the paper would have it; keyword arguments are the held-out counts on line, by size."""
    parts = []
    for size, held_out in FILE.items():
        parts += [
            cell(held_out, size=size),
            cell([right + 1 if right < 4 else 4 for right in held_out], size=size,
                 framing="shuffled", order_known=float("nan")),
            cell(changed.get(size, [3, 4, 4, 4, 3, 4]), size=size, framing="line",
                 order_known=float("nan")),
            cell([None] * 4, task="facts", size=size, facts=[3, 4, 5, 4] if size == "small"
                 else [50] * 4),
            cell(JOINT[size], task="joint", size=size, seen=[60] * 4, facts=[1] * 4),
        ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def answered(models: pd.DataFrame) -> Result:
    return study.ladder_result(models, over_training(models), equations(models))


def verdicts(result: Result, origin: str) -> list[str]:
    return [claim.verdict for claim in result.claims if claim.origin == origin]


@pytest.fixture(scope="module")
def result() -> Result:
    return answered(planted())


def test_what_is_as_published_supports_what_the_paper_claims(result: Result) -> None:
    assert verdicts(result, "the paper") == ["supported"] * 7
    assert verdicts(result, "expected before the run") == ["supported"] * 5


def test_an_effect_is_the_mean_paired_difference(result: Result) -> None:
    order, size, *_ = result.claims
    assert (order.effect.mean, order.effect.n) == (0.25, 4)
    expected = [(small - large) / 4 for small, large in zip(*map(FILE.get, ("small", "large")))]  # noqa: B905
    assert size.effect.mean == pytest.approx(np.mean(expected))
    bounds = stats.ttest_1samp(expected, 0).confidence_interval()
    assert (size.effect.low, size.effect.high) == pytest.approx(tuple(bounds))


def test_a_claim_on_every_size_falls_with_one() -> None:
    result = answered(planted(medium=[0, 1, 0, 1, 0, 0]))
    rule = next(claim for claim in result.claims if claim.text.startswith("Rule"))
    assert (rule.verdict, rule.unit) == ("contradicted", "of the held-out, medium")


def test_one_model_that_misses_one_fact_is_enough_not_to_know_all() -> None:
    models = planted()
    one = (models["task"] == "facts") & (models["size"] == "large") & (models["seed"] == 2)
    models.loc[one, ["seen_right", "seen_facts_right"]] = 49
    claims = {claim.text: claim.verdict for claim in answered(models).claims}
    (text,) = [text for text in claims if "medium and large know all facts" in text]
    assert claims[text] == "undecided"


def test_cells_that_are_not_there_are_not_decided() -> None:
    models = planted()
    result = answered(models[(models["size"] != "large") & (models["task"] != "joint")])
    assert "supported" not in {c.verdict for c in result.claims if "large" in c.unit}
    assert "Not measured: there are no models of these cells." in str(result)


def test_the_table_is_of_all_models(result: Result) -> None:
    table = result.tables["ladder"].set_index(["task", "framing", "size"])
    assert table.loc[("arithmetic", "line", "large"), "n_models"] == 6
    assert table.loc[("facts", "file", "small"), "knows_all"] == 0
    assert table.loc[("facts", "file", "large"), "knows_all"] == 1


def test_what_is_shown_has_counts_and_tasks_in_order(result: Result) -> None:
    display = result.display.set_index(["task", "framing", "size"])
    assert list(dict.fromkeys(result.display["task"])) == ["arithmetic", "facts", "joint"]
    assert list(result.display["size"][:3]) == ["small", "medium", "large"]
    row = display.loc[("joint", "file", "small")]
    assert (row["equations"], row["facts"], row["held-out"]) == ("240/784", "4/200", "0/16")
    assert (row["paper"], display.loc[("arithmetic", "line", "small"), "paper"]) == ("0/4", "")
    row = display.loc[("arithmetic", "file", "small")]  # 4, 4, 3 and 4 right, sums first
    assert (row["held-out"], row["sums"], row["differences"]) == ("15/16", "8/8", "7/8")
    assert row["loss"] == "0.800 (0.746)"


def test_what_models_that_do_not_know_all_answer_is_told_apart() -> None:
    models = planted()
    one = (models["size"] == "large") & (models["framing"] == "line") & (models["seed"] == 0)
    models.loc[one, "seen_right"] = 55
    result = answered(models)
    row = result.display.set_index(["task", "framing", "size"]).loc[("arithmetic", "line", "large")]
    assert (row["know all"], row["held-out"], row["of those"]) == ("5/6", "22/24", "19/20")
    assert row["the rest"] == "55"


def test_framings_are_held_against_each_other_where_all_train(result: Result) -> None:
    """The planted ones answer the same at each step, so that means are those at the end."""
    claims = {claim.text: claim for claim in result.claims if claim.origin == "explored"}
    start = "Over the first 1,000 steps, without an order to learn (shuffled) "
    medium = claims[start + "medium answers more than on the file."]
    assert (medium.effect.mean, medium.effect.n) == (0.25, 4)
    lines = "Over the first 1,000 steps, on whole lines large answers more than on shuffled "
    large = claims[lines + "windows."]
    assert large.effect.mean == pytest.approx((3 + 4 + 4 + 4) / 16 - 5 / 16)
    assert large.verdict == "supported"


def test_the_figure_s_means_and_marks_are_the_tables(result: Result) -> None:
    figure = result.figures["ladder"]()
    traces = {trace.name: trace for trace in figure.data if trace.showlegend is not False}
    assert list(traces["file"].y) == [sum(right) / 16 for right in FILE.values()]
    assert list(traces["the paper, one model, file"].y) == [1.0, 0.0, 0.0]
    assert {line.y0 for line in figure.layout.shapes} == {0.0}, "both baselines"
    assert result.figures["ladder-facts"]().data


def test_the_paper_s_figures_are_consistent() -> None:
    """It counts a ± 0 once: 182 questions, 2 of each operator held out, of which none is right."""
    joint = study.PUBLISHED.loc[("joint", "large")]
    assert joint["addition"] == round(890 / 910, 3) == round(89 / 91, 3)
    assert study.PUBLISHED.loc[("arithmetic", "small"), "held_out"] == 1.0
    assert study.PUBLISHED.loc[("facts", "small"), "facts"] == 0.082


def test_a_folder_with_a_cell_twice_is_an_error() -> None:
    models = planted()
    double = pd.concat([models, models.assign(run="again-" + models["run"])])
    with pytest.raises(TbttError, match="seed 0 occurs twice in one cell"):
        answered(double)

"""The ladder's evidence says what was planted, and decides every claim by it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from planted_tables import cell, equations, over_training
from scipy import stats

from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.evidence.ladder import ladder_evidence

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


def evidence(models: pd.DataFrame) -> Evidence:
    return ladder_evidence(models, over_training(models), equations(models))


def verdicts(found: Evidence, by: str) -> list[str]:
    return [claim.verdict for claim in found.claims if claim.by == by]


@pytest.fixture(scope="module")
def found() -> Evidence:
    return evidence(planted())


def test_what_is_as_published_supports_what_the_paper_claims(found: Evidence) -> None:
    assert verdicts(found, "the paper") == ["supported"] * 7
    assert verdicts(found, "expected before the run") == ["supported"] * 5


def test_an_effect_is_the_mean_paired_difference(found: Evidence) -> None:
    order, size, *_ = found.claims
    assert (order.effect.mean, order.models) == (0.25, 4)
    expected = [(small - large) / 4 for small, large in zip(*map(FILE.get, ("small", "large")))]  # noqa: B905
    assert size.effect.mean == pytest.approx(np.mean(expected))
    bounds = stats.ttest_1samp(expected, 0).confidence_interval()
    assert (size.effect.low, size.effect.high) == pytest.approx(tuple(bounds))


def test_a_claim_on_every_size_falls_with_one() -> None:
    found = evidence(planted(medium=[0, 1, 0, 1, 0, 0]))
    rule = next(claim for claim in found.claims if claim.says.startswith("Rule"))
    assert (rule.verdict, rule.unit) == ("contradicted", "of the held-out, medium")


def test_one_model_that_misses_one_fact_is_enough_not_to_know_all() -> None:
    models = planted()
    one = (models["task"] == "facts") & (models["size"] == "large") & (models["seed"] == 2)
    models.loc[one, ["seen_right", "seen_facts_right"]] = 49
    claims = {claim.says: claim.verdict for claim in evidence(models).claims}
    (said,) = [says for says in claims if "medium and large know all facts" in says]
    assert claims[said] == "undecided"


def test_cells_that_are_not_there_are_not_decided() -> None:
    models = planted()
    found = evidence(models[(models["size"] != "large") & (models["task"] != "joint")])
    assert "supported" not in {c.verdict for c in found.claims if "large" in c.unit}
    assert "Not measured: no models of these cells are there." in str(found)


def test_tables_count_all_models_and_stand_beside_the_paper(found: Evidence) -> None:
    groups = found.tables["ladder-groups"].set_index(["task", "framing", "size", "group"])
    small = groups.loc[("arithmetic", "file", "small", "held_out")]
    assert (small["right"], small["of"], small["share"]) == (15, 16, 15 / 16)
    assert small["published"] == 1.0
    assert pd.isna(groups.loc[("arithmetic", "line", "small", "held_out"), "published"])
    assert groups.loc[("joint", "file", "large", "seen_facts"), "published"] == 1.0
    table = found.tables["ladder"].set_index(["task", "framing", "size"])
    assert table.loc[("arithmetic", "line", "large"), "models"] == 6
    assert table.loc[("facts", "file", "small"), "knows_all"] == 0
    assert table.loc[("facts", "file", "large"), "knows_all"] == 1


def test_the_paper_s_share_is_of_the_equations_that_ours_is_of(found: Evidence) -> None:
    """97.8 % is every seen equation: 89 of 91, two of which are held out and not answered."""
    groups = found.tables["ladder-groups"].set_index(["task", "framing", "size", "group"])
    for operator in ("addition", "subtraction"):
        assert groups.loc[("joint", "file", "large", f"seen_{operator}"), "published"] == 1.0
    medium = groups.loc[("joint", "file", "medium", "seen_addition"), "published"]
    assert medium == pytest.approx(86 / 89, abs=1e-3)


def test_what_is_shown_has_counts_and_tasks_in_order(found: Evidence) -> None:
    shown = found.shown.set_index(["task", "framing", "size"])
    assert list(dict.fromkeys(found.shown["task"])) == ["arithmetic", "facts", "joint"]
    assert list(found.shown["size"][:3]) == ["small", "medium", "large"]
    row = shown.loc[("joint", "file", "small")]
    assert (row["equations"], row["facts"], row["held-out"]) == ("240/784", "4/200", "0/16")
    assert (row["paper"], shown.loc[("arithmetic", "line", "small"), "paper"]) == ("0/4", "")
    row = shown.loc[("arithmetic", "file", "small")]  # 4, 4, 3 and 4 right, sums first
    assert (row["held-out"], row["sums"], row["differences"]) == ("15/16", "8/8", "7/8")
    assert row["loss"] == "0.800 (0.746)"


def test_what_models_that_do_not_know_all_answer_is_told_apart() -> None:
    models = planted()
    one = (models["size"] == "large") & (models["framing"] == "line") & (models["seed"] == 0)
    models.loc[one, "seen_right"] = 55
    found = evidence(models)
    row = found.shown.set_index(["task", "framing", "size"]).loc[("arithmetic", "line", "large")]
    assert (row["know all"], row["held-out"], row["of those"]) == ("5/6", "22/24", "19/20")
    (said,) = [text for text in found.sentences if text.startswith("Some models do not")]
    assert "large on whole lines, 1 of 6 (55 of 196 right); the others answer 19/20" in said


def test_framings_are_held_against_each_other_where_all_train(found: Evidence) -> None:
    """The planted ones answer the same at each step, so that means are those at the end."""
    claims = {claim.says: claim for claim in found.claims if claim.by == "explored"}
    start = "Over the first 1,000 steps, without an order to learn (shuffled) "
    medium = claims[start + "medium answers more of the held-out equations than on the file."]
    assert (medium.effect.mean, medium.models) == (0.25, 4)
    lines = "Over the first 1,000 steps, on whole lines large answers more of the held-out "
    large = claims[lines + "equations than on shuffled windows."]
    assert large.effect.mean == pytest.approx((3 + 4 + 4 + 4) / 16 - 5 / 16)
    assert large.verdict == "supported"


def test_the_figure_s_means_and_marks_are_the_tables(found: Evidence) -> None:
    traces = {trace.name: trace for trace in found.figures["ladder"]().data if trace.showlegend}
    assert list(traces["file"].y) == [sum(right) / 16 for right in FILE.values()]
    assert list(traces["the paper, one model, file"].y) == [1.0, 0.0, 0.0]
    assert set(traces["nearest seen equation and additive model"].y) == {0.0}


def test_curves_are_means_over_models_at_each_step(found: Evidence) -> None:
    figure = found.figures["ladder-facts"]()
    thick = [trace for trace in figure.data if trace.line.width == 2.6]
    assert list(thick[0].x) == [250, 500, 1_000]
    assert list(thick[0].y) == pytest.approx([0.015, 0.035, 0.08])  # 3, 4, 5, 4 of 50, rounded down
    assert all(axis.type == "log" for axis in figure.select_xaxes())


def test_a_folder_with_a_cell_twice_is_an_error() -> None:
    models = planted()
    double = pd.concat([models, models.assign(run="again-" + models["run"])])
    with pytest.raises(TbttError, match="seed 0 is twice in one cell"):
        evidence(double)

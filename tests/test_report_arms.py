"""The report's sections: models of one kind, sizes against each other, each beside its null."""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from tbtt_interp import figures
from tbtt_interp.errors import TbttError
from tbtt_interp.report.arms import (
    arms_of,
    contrast_sentence,
    contrasts,
    means_of,
    null_claims,
    over_arms,
    size_claims,
)
from tbtt_interp.report.sections import INSIDE, build_sections
from tbtt_interp.runs import Run, load_run
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.training import train_models


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two smalls and two mediums, trained for a little while."""
    folder = tmp_path_factory.mktemp("sizes")
    return [
        train_models(
            resolve_recipe("quick", {"model.size": size, "framing": "line", "seeds": 2,
                                     "training.steps": 200, "training.checkpoint_every": 0}),
            folder / size,
        )
        for size in ("medium", "small")
    ]  # fmt: skip


@pytest.mark.parametrize("section", [s.name for s in INSIDE if s.name != "order"])
def test_sections_over_two_sizes_compare_them(
    section: str, two_sizes: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a row an arm, narrow first, a claim beside its null, and figures that draw."""
    from tbtt_interp.report import causes

    monkeypatch.setattr(causes, "PAIRS", 40)
    monkeypatch.setattr(causes, "DRAWS", 3)
    built = build_sections(
        [s for s in INSIDE if s.name == section], two_sizes, command="tbtt report"
    )
    assert built[0].reason == ""
    found = built[0].evidence
    assert found is not None
    assert found.shown["size"].tolist() == ["small", "medium"]
    assert found.claims and all(np.isfinite(claim.null) for claim in found.claims)
    assert {claim.by for claim in found.claims} == {"explored"}
    assert found.command == f"tbtt report --only {section} --json"
    assert all(isinstance(draw(), go.Figure) for draw in found.figures.values())
    assert all(sentence.endswith(".") for sentence in (*found.sentences, *found.notes))


def test_the_order_is_asked_of_those_that_have_met_one(file_run: Run, line_run: Run) -> None:
    section = [s for s in INSIDE if s.name == "order"]
    found = build_sections(section, [file_run, line_run], command="tbtt report")[0].evidence
    assert found is not None and found.shown["framing"].tolist() == ["file"]
    for panel, some in found.tables["order"].groupby("panel"):
        assert some["seed"].tolist() == list(file_run.seeds), panel
    assert [claim.says for claim in found.claims] == [
        "On file, small models know something of the order of their lines."
    ]
    alone = build_sections(section, [line_run], command="tbtt report")[0]
    assert alone.reason == "all runs here are of whole lines, where there is no order to know"


def by_seed(
    run: str, size: str, width: int, values: list[float], framing: str = "line"
) -> pd.DataFrame:
    return pd.DataFrame({
        "run": run, "label": f"{size} on {framing}", "size": size, "width": width, "layers": 1,
        "framing": framing, "seed": range(len(values)), "value": values, "null": 0.5,
    })  # fmt: skip


def test_contrasts_are_of_the_widest_and_the_narrowest_seed_by_seed() -> None:
    table = pd.concat([
        by_seed("s", "small", 14, [0.1, 0.9, 0.4]), by_seed("m", "medium", 28, [9.0, 9.0]),
        by_seed("l", "large", 56, [0.3, 1.1, 0.6]), by_seed("f", "small", 14, [0.0], "file"),
    ])  # fmt: skip
    found = contrasts(table)
    assert [(c.framing, c.narrow, c.wide) for c in found] == [("line", "small", "large")]
    interval = found[0].difference.interval
    assert [interval.mean, interval.low, interval.high] == pytest.approx([0.2, 0.2, 0.2])
    claims = size_claims("On {framing}, {wide} over {narrow}.", found, unit="u", command="c")
    assert [(c.says, c.verdict, c.models) for c in claims] == [
        ("On line, large over small.", "supported", 3)
    ]
    less = size_claims("…", found, unit="u", command="c", above=False)
    assert less[0].verdict == "contradicted"
    said = contrast_sentence("{wide} have on {framing} {amount} than {narrow}", found, "none")
    assert said == "large have on line 0.20 [0.20, 0.20] more than small." or said == (
        "large have on line 0.20 more than small."
    )
    assert contrast_sentence("…", [], "One size.") == "One size."


def test_a_claim_against_nulls_takes_the_hardest() -> None:
    means = means_of(by_seed("s", "small", 14, [0.72, 0.7, 0.68]), nulls=["null"]).assign(
        other=0.69
    )
    words = {"null": "an easy null", "other": "a hard one"}
    claims = null_claims("{size} on {framing}.", means, words, unit="u", command="c")
    assert (claims[0].null, claims[0].null_is) == (0.69, "a hard one")
    assert claims[0].says == "small on line." and claims[0].verdict == "undecided"
    easy = null_claims("…", means, {"null": "an easy null"}, unit="u", command="c")
    assert easy[0].verdict == "supported"


def test_arms_that_look_alike_are_told_by_their_names(line_run: Run, copied: Path) -> None:
    labels = [arm.label for arm in arms_of([load_run(copied), line_run])]
    assert labels == ["small on line (copied)", "small on line (line)"]
    assert [arm.label for arm in arms_of([line_run])] == ["small on line"]


def test_an_arm_that_cannot_be_asked_is_noted(line_run: Run, file_run: Run) -> None:
    def compute(arm) -> pd.DataFrame:
        if arm.run.config.framing == "file":
            raise TbttError("no")
        return pd.DataFrame({"value": [1.0]})

    table, notes = over_arms([line_run, file_run], compute, lambda done, of: None)
    assert table["label"].tolist() == ["small on line"] and notes == [
        "Left out, small on file: no."
    ]
    with pytest.raises(TbttError, match=r"Left out, small on file: no\."):
        over_arms([file_run], compute, lambda done, of: None)


def test_sizes_stand_by_width_beside_their_nulls() -> None:
    seeds = pd.concat([
        by_seed("l", "large", 56, [0.4, 0.6]), by_seed("s", "small", 14, [0.1, 0.3]),
        by_seed("sf", "small", 14, [0.0, 0.2], "file"),
    ]).assign(panel="one")  # fmt: skip
    means = means_of(seeds, ["panel"], ["null"])
    figure = figures.by_size(means, seeds, title="share", nulls={"null": "a null"})
    assert list(figure.layout.xaxis.ticktext) == ["small", "large"]
    drawn = {(t.name, len(t.x)): t for t in figure.data if t.name}
    line = drawn["on line", 2]
    assert dict(zip(line.text, line.y, strict=True)) == pytest.approx(
        {"large on line": 0.5, "small on line": 0.2}
    )
    assert np.argsort(line.x).tolist() == [1, 0], "small on the left"
    assert drawn["on file", 1].x[0] < min(line.x), "framings beside each other"
    dots = [t for t in figure.data if t.showlegend is False and t.marker.opacity]
    assert sorted(y for t in dots for y in t.y) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.6]
    assert sum(bool(t.showlegend) for t in figure.data) == 3, "each once in the legend"

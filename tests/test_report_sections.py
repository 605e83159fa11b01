"""A report's sections: the same comparison by size and framing for each, with its nulls."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from tbtt_interp.compare import labelled, size_claims
from tbtt_interp.errors import TbttError
from tbtt_interp.report import measures
from tbtt_interp.report.measures import SECTIONS
from tbtt_interp.report.sections import Section, build_section
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


def section(name: str) -> Section:
    return next(s for s in SECTIONS if s.name == name)


@pytest.mark.parametrize("name", [s.name for s in SECTIONS if s.name != "order"])
def test_sections_over_two_sizes_compare_them(
    name: str, two_sizes: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a row per run, narrow first, claims with known nulls, and figures that draw."""
    monkeypatch.setattr(measures, "PAIRS", 40)
    monkeypatch.setattr(measures, "N_CONTROLS", 3)
    result = build_section(section(name), two_sizes, f"tbtt report --only {name} --json")
    assert result.display["size"].tolist() == ["small", "medium"]
    assert result.claims and all(np.isfinite(claim.null) for claim in result.claims)
    assert {claim.origin for claim in result.claims} == {"explored"}
    assert {claim.command for claim in result.claims} == {f"tbtt report --only {name} --json"}
    assert all(isinstance(draw(), go.Figure) for draw in result.figures.values())
    assert all(sentence.endswith(".") for sentence in (*result.summary, *result.notes))


def test_the_order_is_asked_of_models_that_have_met_one(file_run: Run, line_run: Run) -> None:
    result = build_section(section("order"), [file_run, line_run], "tbtt report")
    assert result.display["framing"].tolist() == ["file"]
    assert any(note.startswith("Left out, small on line: ") for note in result.notes)
    assert len(result.claims) == 1 and result.claims[0].text.startswith("On file, small models")
    with pytest.raises(TbttError, match="Left out, small on line"):
        build_section(section("order"), [line_run], "tbtt report")


def by_seed(
    run: str, size: str, width: int, values: list[float], framing: str = "line"
) -> pd.DataFrame:
    return pd.DataFrame({
        "run": run, "label": f"{size} on {framing}", "size": size, "width": width, "layers": 1,
        "framing": framing, "seed": range(len(values)), "value": values,
    })  # fmt: skip


def test_contrasts_are_of_the_widest_and_the_narrowest_paired_by_seed() -> None:
    table = pd.concat([
        by_seed("s", "small", 14, [0.1, 0.9, 0.4]), by_seed("m", "medium", 28, [9.0, 9.0]),
        by_seed("l", "large", 56, [0.3, 1.1, 0.6]), by_seed("f", "small", 14, [0.0], "file"),
    ])  # fmt: skip
    (claim,) = size_claims(table, "On {framing}, {wide} and {narrow} differ:", unit="u")
    effect = claim.effect
    assert [effect.mean, effect.low, effect.high] == pytest.approx([0.2, 0.2, 0.2])
    assert claim.text == "On line, large and small differ:" and claim.verdict == "supported"


def test_a_claim_takes_the_highest_null(two_sizes: list[Run]) -> None:
    def measure(run: Run) -> pd.DataFrame:
        return pd.DataFrame({"seed": range(3), "panel": "it", "value": [0.72, 0.7, 0.68],
                             "easy": 0.5, "hard": 0.69})  # fmt: skip

    nulls = {"easy": "an easy null", "hard": "a hard one"}
    planted = Section(name="it", question="Is it?", measure=measure, title="share", unit="u",
                      nulls=nulls, above_null={"it": "{size} on {framing}:"})  # fmt: skip
    claims = build_section(planted, two_sizes, "c").claims
    assert {(c.null, c.null_name, c.verdict) for c in claims} == {(0.69, "a hard one", "undecided")}
    assert [c.text for c in claims] == ["small on line:", "medium on line:"]


def test_runs_that_look_alike_are_told_apart(line_run: Run, copied: Path) -> None:
    """By their names, or by their folders where the names are the same."""
    assert list(labelled([line_run])) == ["small on line"]
    labels = list(labelled([load_run(copied), line_run]))
    assert labels == ["small on line (copied)", "small on line (line)"]
    runs = [load_run(shutil.copytree(copied, f"{place}/same")) for place in "ab"]
    assert list(labelled(runs)) == ["small on line (a/same)", "small on line (b/same)"]
    built = build_section(section("answers"), runs, "tbtt report")
    assert built.display["models"].tolist() == [2, 2]

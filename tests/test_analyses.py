"""The analyses as commands: what they print and write, and that they leave nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.analyses import overview, path_patching
from tbtt_interp.analyses.registry import ANALYSES
from tbtt_interp.errors import TbttError
from tbtt_interp.results import Claim, Result, over_steps
from tbtt_interp.stats import Interval

Z, POST = "blocks.0.attn.hook_z", "blocks.0.hook_resid_post"


def test_a_command_prints_and_writes_all_it_found(line_run, printed, monkeypatch):
    """Without a browser there is no PNG, and a note says why."""

    def no_browser(figure: object, path: Path, **_: str) -> None:
        if Path(path).suffix == ".png":
            raise TbttError("needs a browser")
        Path(path).write_text("figure")

    monkeypatch.setattr(plots, "save", no_browser)
    command = ["analyses", "additivity", line_run.folder, "--site", POST, "--position", -1]
    out = printed(*command, "--out", "new")
    assert "No PNG: needs a browser" in out
    assert "Claims, furthest from their nulls first" in out
    tables = ("additivity", "additivity-answers", "claims")
    assert {path.name for path in Path("new").iterdir()} == {
        *(f"{name}.{ending}" for name in tables for ending in ("csv", "json")),
        *(f"{name}.html" for name in tables[:2]),
    }  # fmt: skip
    table = pd.read_csv("new/additivity.csv")
    assert len(table) == len(json.loads(Path("new/additivity.json").read_text()))
    shares = [row["share"] for row in json.loads(printed(*command, "--json"))]
    np.testing.assert_allclose(shares, table["share"], atol=1e-6)


@pytest.mark.parametrize(
    ("words", "n_rows", "columns"),
    [
        (f"patching --clean 3+4 --corrupted 3+9 --site {Z} --step 100", 84, {"fraction_restored"}),
        ("geometry --over-steps", None, {"step", "measure", "value", "null", "untrained", "p"}),
    ],
)
def test_json_is_the_rows_of_a_table(words, n_rows, columns, file_run, printed):
    name, *options = words.split()
    rows = json.loads(printed("analyses", name, file_run.folder, *options, "--json"))
    assert len(rows) == (n_rows or len(rows)) and columns <= rows[0].keys()
    if "step" in columns:
        assert {row["step"] for row in rows} == file_run.checkpoints.keys()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("patching line --clean 3+4", "--clean and --corrupted go together: give both, or"),
        ("patching line --clean 3+4 --corrupted 3+9 --pairs 3", "leave out --held-out"),
        ("patching line --pairs 0", "pairs must be at least 1, got 0"),
        ("paths line --pairs 2", "pairs must be at least 4, half of them to rank edges on"),
        ("attention line --over-steps --step 3", "--over-steps reads every checkpoint: leave"),
        ("geometry facts", "there is no grid of operands here: this analysis needs"),
        ("order line", "was trained on one line at a time, so there is no order"),
        ("memorization line --site hook_embed", "site 'hook_embed' is not there: the nearest"),
        *((f"additivity line --site {site}", f"site '{site}' is not there: the nearest are")
          for site in ("resid_mid", "blocks.0.attn.hook_pattern", f"{POST}.0", f"{Z}.1")),
        ("additivity line --position -6", "position -6 is not in every prompt: count back from -1"),
        ("geometry line --dimensions 1", "dimensions must be at least 2, got 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line_and_leaves_nothing_behind(words, error, request, refused):
    name, run, *options = words.split()
    folder = request.getfixturevalue(f"{run}_run").folder
    assert error in refused("analyses", name, folder, *options, "--out", "new")


SHOWN = {  # what figures show, with the nulls
    "lens": {"seen", "held out", "another example's stream", "untrained model"},
    "attribution": {"seen", "held out", "another example's token", "untrained model"},
    "additivity": {"a", "b", "interaction", "shuffled grid", "untrained models"},
    "additivity-answers": {"the models themselves"},
    "order": {"a model", "a model, in a file of another order", "knowing the order"},
    "order-next": {"majority class", "a file of another order", "untrained model"},
    "restricted-loss": {"unpatched", "2 random directions"},
}


def test_the_overview_ranks_the_claims_of_every_analysis_whose_figures_show_nulls(
    file_run, facts_run, monkeypatch
):
    found: dict[str, Result] = {}

    def kept(name: str) -> Callable[..., Result]:
        analysis = ANALYSES[name]

        def analyse(*models: tbtt.Models, **options: object) -> Result:
            found[name] = analysis(*models, **options)
            return found[name]

        return analyse

    for name in ANALYSES:
        monkeypatch.setitem(ANALYSES, name, kept(name))
    monkeypatch.setattr(path_patching, "RANDOM", 4)
    monkeypatch.setattr(overview, "N_TOKENS", 0)  # the fewest pairs
    monkeypatch.setattr(overview, "FEWEST_PAIRS", 8)
    table = tbtt.analyse_overview(tbtt.Models.of(file_run).take(1)).tables["overview"]
    assert set(table["analysis"]) == found.keys() == ANALYSES.keys() - {"overview"}
    distance = (table["effect"] - table["null"]).abs().dropna().to_numpy()
    assert (np.diff(distance) <= 1e-12).all()
    drawn = {name: draw().data for of in found.values() for name, draw in of.figures.items()}
    assert all(drawn.values()) and SHOWN.keys() <= drawn.keys()
    for name, traces in SHOWN.items():
        assert traces <= {trace.name for trace in drawn[name]}, name
    for name in ANALYSES.keys() - {"geometry", "additivity", "attribution", "order"}:
        monkeypatch.delitem(ANALYSES, name)  # to be quick; most have their own tests on facts
    result = tbtt.analyse_overview(tbtt.Models.of(facts_run).take(1))
    assert not {"geometry", "additivity"} & set(result.tables["overview"]["analysis"])
    assert sum(note.startswith("Does not apply, ") for note in result.notes) == 2
    assert result.figures["overview"]().data


def test_claims_are_followed_over_training():
    def result(value: float) -> Result:
        claim = Claim(
            text="z restores", effect=Interval(mean=value, low=value, high=value, n=3), null=0.1,
            null_name="random donors", unit="of all",
        )  # fmt: skip
        return Result(name="x", tables={"x": pd.DataFrame({"share": [value]})}, claims=[claim],
                      display=pd.DataFrame())  # fmt: skip

    joined = over_steps({10: result(0.2), 20: result(0.6)})
    assert joined.tables["x"].to_dict("list") == {"step": [10, 20], "share": [0.2, 0.6]}
    assert joined.display["claim"].iloc[0] == "z restores … of all"
    assert joined.display[["step", "effect"]].to_numpy().tolist() == [[10, "0.20"], [20, "0.60"]]
    null, effect = joined.figures["x-over-steps"]().data
    assert list(effect.y) == [0.2, 0.6] and list(null.y) == [0.1, 0.1]

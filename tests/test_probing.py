"""A run's probes: every site, head, position and checkpoint, in Python and by the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import TASK, models_of

from tbtt_interp.errors import TbttError
from tbtt_interp.probes.features import find_features
from tbtt_interp.probes.grid import analyse_probes, probe_grid, probe_steps

pytestmark = pytest.mark.filterwarnings("ignore:Only one sample available")  # of a class
EXAMPLES = TASK.examples
SITE = "blocks.0.hook_resid_post"


def test_a_run_is_read_at_every_site_and_position(line_run, monkeypatch):
    two = find_features(["carry", "a"], EXAMPLES)  # of ten, to be quick
    monkeypatch.setattr("tbtt_interp.probes.grid.features_of", lambda prompts, names: two)
    result = analyse_probes(line_run, controls=3)
    table = result.tables["probes"]
    assert len(table) == 2 * 7 * 5
    assert set(table["pos"]) == {-5, -4, -3, -2, -1}
    last = table[(table["site"] == SITE) & (table["pos"] == -1)].set_index("feature")
    assert (last.loc["carry", "of"], last.loc["carry", "held_out_of"]) == (2 * 100, 2 * 2)
    assert np.isfinite(last.loc["carry", "p_adjusted"])
    assert np.isnan(last.loc["a", "selectivity"]) and np.isnan(last.loc["a", "p"])
    nothing = table[(table["pos"] == -5) & (table["feature"] == "carry")]  # every prompt begins <
    assert np.allclose(nothing["accuracy"], nothing["majority"])
    # what is printed are the last streams, since nothing was named
    assert len(result.display) == 2 * 2 and set(result.display["pos"]) == {"-1"}
    assert {claim.text.partition(" at ")[0] for claim in result.claims} == {"carry"}
    assert {claim.verdict for claim in result.claims} == {"undecided"}, "two models decide nothing"


def test_one_head_and_a_position_of_some_texts_alone_can_be_read(file_run):
    head = "blocks.0.attn.hook_z.0"
    table = probe_grid(file_run, ["carry", "next"], sites=[head], positions=[-6], controls=2)
    assert set(table["site"]) == {head}
    assert set(table["feature"]) == {"next"}  # equations have five characters
    with pytest.raises(TbttError, match="no feature with two different labels"):
        find_features(None, EXAMPLES[:1])
    with pytest.raises(TbttError, match=r"hook_z\.1' is unknown"):
        probe_grid(file_run, ["carry"], sites=["blocks.0.attn.hook_z.1"], controls=2)


def test_every_checkpoint_is_read(line_run):
    table = probe_steps(line_run, ["carry"], sites=[SITE], controls=3)
    assert table["step"].tolist() == list(line_run.checkpoints)
    assert set(table["pos"]) == {-1}
    alone = probe_grid(line_run, ["carry"], sites=[SITE], positions=[-1], step=250, controls=3)
    again = table[table["step"] == 250].drop(columns="step").reset_index(drop=True)
    pd.testing.assert_frame_equal(again, alone)


def test_models_from_anywhere_are_read_as_a_run_s_are(line_run):
    models, early = ([line_run.model(s, step) for s in line_run.seeds] for step in (None, 0))
    settings = {"sites": [SITE], "features": ["carry"], "positions": [-2], "controls": 5}
    own = models_of(*models)
    expected = probe_grid(line_run, **settings)
    pd.testing.assert_frame_equal(probe_grid(own, untrained=early, **settings), expected)
    assert probe_grid(own, **settings)["untrained"].isna().all()


def test_the_command_prints_a_table_and_writes_its_figure(line_run, printed, refused):
    asked = ["probes", line_run.folder, "--feature", "carry", "--controls", "3"]
    asked += ["--site", SITE, "--site", "blocks.0.attn.hook_z"]
    out = printed(*asked, "--out", "found")
    assert "carry" in out and SITE in out and "undecided: carry at blocks.0" in out
    written = pd.read_csv("found/probes.csv")
    assert len(written) == 10
    assert "selectivity" in Path("found/probes.html").read_text()
    rows = json.loads(Path("found/probes.json").read_text())
    assert [row["correct"] for row in rows] == written["correct"].tolist()
    exists = "found exists: nothing was written; give another --out FOLDER"
    assert exists in refused(*asked, "--out", "found")
    # a feature without control tasks has no selectivity, but accuracies to draw
    printed("probes", line_run.folder, "--feature", "a", "--site", SITE, "--out", "none")
    assert "accuracy, cross-validated" in Path("none/probes.html").read_text()


def test_the_command_erases_interchanges_and_looks_back(line_run, printed):
    asked = ["probes", line_run.folder, "--feature", "carry", "--controls", "2"]
    out = printed(*asked, "--causal", "--site", SITE, "--out", "used")
    assert "answer follows" in out and "random subspace" in out
    assert set(pd.read_csv("used/erasure.csv")["measure"]) >= {"margin drop", "answer follows"}
    assert "2500" in printed(*asked, "--over-steps", "--out", "back")
    assert Path("back/probes-over-steps.html").is_file()
    rows = json.loads(Path("back/probes.json").read_text())
    assert [row["step"] for row in rows] == list(line_run.checkpoints)
    rows = json.loads(printed(*asked, "--position", "-2", "--dimensions", "5", "--json"))
    assert {row["pos"] for row in rows} == {-2}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--over-steps --causal", "--over-steps reads every checkpoint at the last position"),
        ("--causal --dimensions 3", "--causal takes one --position, and no --dimensions and no"),
        ("--position 3", "no text has a position 3: count back from -1"),
        ("--controls 0", "controls must be at least 1, got 0"),
        ("--feature cary", "feature 'cary' is unknown (did you mean 'carry'?)"),
        ("--site resid", "site 'resid' is not there: the nearest are blocks"),
    ],
)
def test_what_cannot_be_probed_is_named(words, error, line_run, refused):
    command = ["probes", line_run.folder, "--feature", "carry"]
    assert error in refused(*command, *words.split(), "--out", "none")

"""The analyses as commands: what they print and write, and that they leave nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.results import Claim, Result, over_steps
from tbtt_interp.runs import Run
from tbtt_interp.stats import Interval


def test_a_command_prints_and_writes_all_it_found(
    line_run: Run, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a browser there is no PNG, and a note says why."""

    def no_browser(figure: object, path: Path) -> None:
        if Path(path).suffix == ".png":
            raise TbttError("needs a browser")
        Path(path).write_text("figure")

    monkeypatch.setattr(plots, "save", no_browser)
    command = ["analyses", "paths", str(line_run.folder), "--pairs", "20", "--out", "new"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "No PNG: needs a browser" in printed
    assert "Claims, furthest from their nulls first" in printed
    tables = ("paths", "approximations", "circuits", "claims")
    assert {path.name for path in Path("new").iterdir()} == {
        *(f"{name}.{ending}" for name in tables for ending in ("csv", "json")),
        *(f"{name}.html" for name in tables[:3]),
    }  # fmt: skip
    table = pd.read_csv("new/paths.csv")
    assert len(table) == len(json.loads(Path("new/paths.json").read_text()))
    assert main([*command[:-2], "--json"]) == 0
    fractions = [row["fraction_restored"] for row in json.loads(capsys.readouterr().out)]
    np.testing.assert_allclose(fractions, table["fraction_restored"], atol=1e-6)


@pytest.mark.parametrize("name", ["geometry", "additivity"])
def test_what_cannot_be_asked_leaves_nothing_behind(
    name: str, facts_run: Run, capsys: pytest.CaptureFixture
) -> None:
    assert main(["analyses", name, str(facts_run.folder), "--out", "new"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there is no grid of operands here: this analysis needs")
    assert error.count("\n") == 1 and not Path("new").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["patching", "--clean", "3+4"], "--clean and --corrupt go together: give both, or"),
        (
            ["patching", "--clean", "3+4", "--corrupt", "3+9", "--pairs", "3"],
            "leave out --held-out",
        ),
        (["patching", "--pairs", "0"], "pairs must be at least 1, got 0"),
        (["paths", "--pairs", "2"], "pairs must be at least 4, half of them to rank edges on"),
        (
            ["attention", "--over-steps", "--step", "3"],
            "--over-steps reads every checkpoint: leave",
        ),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], said: str, line_run: Run, capsys: pytest.CaptureFixture
) -> None:
    assert main(["analyses", options[0], str(line_run.folder), *options[1:]]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_module_runs(line_run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tbtt_interp.analyses", "patching", str(line_run.folder),
         "--clean", "3+4", "--corrupt", "3+9", "--site", "blocks.0.attn.hook_z"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "blocks.0.attn.hook_z.0" in done.stdout


def test_the_overview_ranks_the_claims_of_every_analysis(file_run: Run, facts_run: Run) -> None:
    names = {"patching", "paths", "attention", "attribution", "geometry", "additivity", "order",
             "memorization"}  # fmt: skip
    one = tbtt.Models.of(file_run).take(1)
    table = tbtt.analyse_overview(one).tables["overview"]
    assert names <= set(table["analysis"])
    distance = (table["effect"] - table["null"]).abs().dropna().to_numpy()
    assert (np.diff(distance) <= 1e-12).all()
    result = tbtt.analyse_overview(tbtt.Models.of(facts_run).take(1))
    assert not {"geometry", "additivity"} & set(result.tables["overview"]["analysis"])
    assert sum(note.startswith("Does not apply, ") for note in result.notes) == 2
    assert result.figures["overview"]().data


def test_claims_are_followed_over_training() -> None:
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


def test_checkpoints_are_analysed_one_by_one(file_run: Run, capsys: pytest.CaptureFixture) -> None:
    command = ["analyses", "geometry", str(file_run.folder), "--over-steps", "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted({row["step"] for row in rows}) == sorted(file_run.checkpoints)

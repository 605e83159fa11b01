"""Two runs side by side: paired where seeds are shared, and no more said than was measured."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import unhashed

from tbtt_interp.compare import compare_runs, differing_settings
from tbtt_interp.errors import TbttError
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.results import Result
from tbtt_interp.runs import Run, load_run
from tbtt_interp.stats import difference_over_models


def copy_of(
    run: Run, name: str, *, seeds: Sequence[int] | None = None, held_out: Sequence[int] = ()
) -> Run:
    """The run again, its models under other seeds, or with other counts of held-out answers."""
    folder = Path(shutil.copytree(run.folder, name))
    unhashed(folder)
    paths = (folder / "config.json", folder / "summary.json")
    config, summary = (json.loads(path.read_text()) for path in paths)
    config["seeds"] = list(seeds or run.seeds)
    for row, seed in zip(summary["seeds"], config["seeds"], strict=True):
        row["seed"] = seed
    for row, right in zip(summary["seeds"], held_out, strict=False):
        row["held_out"][0] = right
    for path, content in zip(paths, (config, summary), strict=True):
        path.write_text(json.dumps(content))
    return load_run(folder)


def test_one_model_has_no_interval_and_an_empty_side_is_refused() -> None:
    found = difference_over_models(pd.Series([0.0], [0]), pd.Series([1.0, 2.0], [0, 1]))
    assert np.isnan(found.low) and np.isnan(found.high)
    with pytest.raises(TbttError, match="needs at least one model in each group, got none"):
        difference_over_models(pd.Series([np.nan], [0]), pd.Series([1.0], [0]))
    with pytest.raises(TbttError, match="needs one value per seed in each group, got one seed tw"):
        difference_over_models(pd.Series([1.0, 2.0], [0, 0]), pd.Series([1.0], [0]))


def row_of(result: Result, measure: str) -> Mapping[Any, Any]:
    return result.tables["comparison"].set_index("measure").to_dict("index")[measure]


def test_planted_answers_are_told_apart_seed_by_seed(line_run: Run) -> None:
    better = copy_of(line_run, "better", held_out=[4, 3])
    worse = copy_of(line_run, "worse", held_out=[2, 1])
    found = compare_runs(worse, better)
    row = row_of(found, "held out, right")
    assert (row["first"], row["second"], row["difference"]) == (0.375, 0.875, 0.5)
    assert (row["low"], row["high"], row["pairs"], row["models"]) == (0.5, 0.5, 2, 4)
    assert found.summary[0] == (
        "better answers more held-out prompts: better minus worse is +0.50 in share, over the 2 "
        "seeds that both runs have."
    )
    assert "Both runs have the same settings, apart from their seeds." in found.summary
    (fewer, *_) = compare_runs(better, worse).summary
    assert fewer.startswith("worse answers fewer held-out prompts: worse minus better is -0.50")


def test_what_is_of_another_task_or_framing_is_not_compared(line_run, file_run, facts_run):
    found = compare_runs(line_run, file_run)
    assert row_of(found, "loss")["problem"] == "other framing"
    assert np.isnan(row_of(found, "loss")["difference"])
    assert differing_settings(line_run, file_run)["framing"] == ("line", "file")
    assert "cannot be attributed to one of these." in found.summary[-1]
    other = compare_runs(line_run, facts_run)
    assert other.summary[0].endswith("held-out prompts are not compared: other task and held out.")
    assert differing_settings(line_run, facts_run)["held out"] == ("5,7", "nothing")
    assert other.tables["comparison"]["difference"].isna().all()


def test_an_imported_model_is_compared_by_its_answers(line_run: Run) -> None:
    export_checkpoint(line_run, Path("ckpt.pt"), seed=1)
    imported = import_checkpoint(Path("ckpt.pt"), "arithmetic", Path("imported"))
    found = compare_runs(line_run, imported)
    assert differing_settings(line_run, imported)["training"] == ("as its recipe says", "not known")
    assert "A run with one model has no interval" in found.summary[0]


def test_the_command_prints_and_writes_a_table_of_two_different_runs(
    line_run: Run, file_run: Run, printed, refused
) -> None:
    command = ["compare", str(line_run.folder), str(file_run.folder)]
    said = printed(*command, "--out", "both.csv")
    assert "held out, right, share" in said and "framing: line | file" in said
    rows = json.loads(printed(*command, "--json"))
    written = pd.read_csv("both.csv")
    assert [row["measure"] for row in rows] == written["measure"].tolist()
    error = refused(*command, "--out", "both.csv")
    assert error == "error: both.csv exists: nothing was written; give another --out FILE\n"
    assert "is given twice: compare it with another run" in refused("compare", *command[1:2] * 2)

"""A table of models says what its runs say, and reads back as it was written."""

from pathlib import Path

import pandas as pd
import pytest
import sweeps as study
from sweeps import (
    finished_runs,
    held_out_table,
    sweep_table,
    write_tables,
)

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import complete
from tbtt_interp.model_tables import (
    models_table,
    over_training_table,
    table_by_cell,
    with_accuracies,
)
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.runs import Run


def test_the_last_evaluation_is_the_models_row(line_run: Run, file_run: Run) -> None:
    runs = [line_run, file_run]
    models, over = models_table(runs), over_training_table(runs)
    last = over[over["step"] == over["steps"]].reset_index(drop=True)
    shared = [name for name in models if name in last]
    pd.testing.assert_frame_equal(models[shared], last[shared])
    assert models["order_known"].notna().equals(models["framing"] == "file")
    late = [name for name in models if name.startswith("late_")]
    assert set(models) - set(over) == set(late) and late


def test_an_imported_model_has_the_answers_of_its_weights(line_run: Run) -> None:
    export_checkpoint(line_run, Path("ckpt.pt"), seed=1)
    imported = import_checkpoint(Path("ckpt.pt"), "arithmetic", Path("imported"))
    (row,) = models_table([imported]).to_dict("records")
    original = models_table([line_run]).set_index("seed").loc[1]
    for name in ("seen_right", "held_out_of", "seen_accuracy", "margin_held_out"):
        assert row[name] == pytest.approx(original[name], abs=1e-4), name
    assert "loss" not in row and pd.isna(row["order_known"])


def test_held_out_equations_are_right_where_greedy_completion_is(line_run, facts_run) -> None:
    assert held_out_table([facts_run]).empty
    with pytest.raises(TbttError, match=r"there is no finished run to tabulate"):
        held_out_table([])
    table = held_out_table([line_run])
    assert len(table) == 8 and table["right"].any()
    for row in table.to_dict("records"):
        place = line_run.seed_index(row["seed"])
        completion = complete(
            line_run.parameters(), line_run.shape, row["prompt"], line_run.task.vocabulary,
            line_run.task.terminators,
        )[place].text  # fmt: skip
        value = row["a"] + row["b"] if row["operator"] == "+" else row["a"] - row["b"]
        assert row["answer"] == f"{value}>"
        assert row["right"] == (completion == row["answer"]) == (row["margin"] > 0)
    assert not table["nearest"].any(), "a neighbour's sum or difference is one off"


def test_cells_sum_counts_and_average_accuracies(line_run: Run) -> None:
    models = models_table([line_run])
    (cell,) = table_by_cell(models).to_dict("records")
    assert (cell["run"], cell["models"]) == (line_run.folder.name, len(models))
    assert cell["held_out_right"] == models["held_out_right"].sum()
    assert cell["held_out_accuracy"] == pytest.approx(models["held_out_accuracy"].mean())
    assert cell["loss"] == pytest.approx(models["loss"].mean())


def test_a_sweep_s_tables_agree_and_read_back(sweeps, tmp_path, monkeypatch) -> None:
    runs = finished_runs(sweeps / "atlas")
    table, models = held_out_table(runs), models_table(runs)
    answered = table.groupby(["run", "seed"])["right"].agg(["sum", "size"]).sort_index()
    counted = models.set_index(["run", "seed"])[["held_out_right", "held_out_of"]].sort_index()
    assert answered.to_numpy().tolist() == counted.to_numpy().tolist()
    assert set(table["held_out"]) == {"0,9", "3,3"}
    write_tables("mine", sweeps / "atlas", tmp_path / "tables")
    monkeypatch.setattr(study, "SHIPPED", tmp_path / "tables")
    read = sweep_table("mine", "held out")
    pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-4)
    read = with_accuracies(sweep_table("mine", "models"))
    pd.testing.assert_frame_equal(read, models, check_dtype=False, rtol=1e-4, check_like=True)
    with pytest.raises(TbttError, match=r"table 'heldout' is unknown \(did you mean 'held out'"):
        sweep_table("mine", "heldout")
    with pytest.raises(TbttError, match=r"sweep yours has no tables in .*: train it by tbtt sweep"):
        sweep_table("yours", "held out")

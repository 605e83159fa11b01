"""Progress: a line now and then where there is no terminal."""

import sys

import pandas as pd
import pytest

import tbtt_interp as tbtt
from tbtt_interp import seeds
from tbtt_interp.train.recipe import resolve_recipe


@pytest.fixture(autouse=True)
def in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Jupyter's standard error calls itself a terminal, and understands no moves of the cursor."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


def test_an_analysis_prints_a_line_now_and_then_in_a_notebook(line_run, monkeypatch, capsys):
    def weight_norm(model: object, prompts: tbtt.PromptSet) -> pd.DataFrame:
        return pd.DataFrame([{"of": len(prompts)}])

    tbtt.over_seeds(line_run, weight_norm)
    assert capsys.readouterr().err == "", "what is quick prints nothing"
    monkeypatch.setattr(seeds, "SECONDS_BETWEEN_LINES", -1)
    tbtt.over_seeds(line_run, weight_norm)
    assert capsys.readouterr().err.splitlines() == [
        "weight norm: 0 of 2 models", "weight norm: 1 of 2 models"
    ]  # fmt: skip


def test_training_in_a_notebook_prints_about_ten_lines(capsys) -> None:
    flags = {"model.size": "L1H1D4M4", "seeds": 1, "steps": 60, "training.evaluate_every": 3}
    tbtt.train_models(resolve_recipe("quick", flags), "run", callback=tbtt.ProgressBar())
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 12 and lines[-1].startswith("step 60/60  loss ")

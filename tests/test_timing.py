"""What falls first is found in made courses, and is not where nothing leads."""

import numpy as np
import pandas as pd
import pytest
import timing
from measures import measures_over_training
from tiny import short

from tbtt_interp.train.training import train_models


def made(lead: float, spread: float = 400.0) -> pd.DataFrame:
    """Fifteen models: the margin falls at a step of its own, each line `lead` steps before."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(15):
        falls = rng.uniform(800, 800 + spread)
        early = falls - (lead if np.isfinite(lead) else rng.uniform(-spread, spread))
        for step in range(0, 3001, 50):
            line = 1 / (1 + np.exp((step - early) / 20))
            rows.append({
                "run": "made", "seed": seed, "held_out": "5,7", "step": step,
                "margin": 10 - 20 / (1 + np.exp((falls - step) / 20)), "share": 1.0,
                **dict.fromkeys(timing.LINES, line),
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_a_measure_that_leads_is_found_to_lead() -> None:
    lags = timing.lags_table(made(200.0)).set_index("measure")
    assert lags["lag"].to_list() == pytest.approx([-200] * 3, abs=60)
    assert (lags["first"] == 1).all()
    result = timing.timing_result(made(0.0))
    lags = result.tables["timing"]
    assert (lags["distance"] < lags["null"] / 2).all() and (lags["p"] < 0.01).all()
    assert result.figures["timing"]().data


def test_a_measure_that_falls_at_random_does_not_follow() -> None:
    lags = timing.lags_table(made(np.nan))
    assert (lags["p"] > 0.05).all()


def test_what_does_not_fall_has_no_lag() -> None:
    assert np.isnan(timing.left_at(np.arange(4), np.array([0.0, 0.5, 0.95, 0.9]), least=0.1))
    flat = made(100.0).assign(line_after=0.3)
    lags = timing.lags_table(flat).set_index("measure")
    assert lags.loc["line_after", "n_models"] == 0 and np.isnan(lags.loc["line_after", "p"])


def test_number_lines_of_a_run_are_those_of_its_models() -> None:
    run = train_models(short(**{"changes.digits": "line", "training.checkpoint_every": 3}), "run")
    digits = measures_over_training([run])
    assert len(digits) == 2 * len(run.checkpoints)
    last = digits[digits["step"] == 12]
    assert last["line_embedding"].to_list() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert last["line_before"].between(0, 1).all()
    weights = run.parameters(12)
    for k, row in enumerate(last.sort_values("seed").to_dict("records")):
        whole = sum(float(p[k].square().sum()) for p in weights.values())
        mlp = sum(float(p[k].square().sum()) for name, p in weights.items() if ".mlp." in name)
        assert row["norm"] ** 2 == pytest.approx(whole, rel=1e-5)
        assert row["norm_mlp"] ** 2 == pytest.approx(mlp, rel=1e-5)

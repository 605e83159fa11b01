"""A race is forecast where there is one, and not where there is none."""

from itertools import product

import forecast
import numpy as np
import pandas as pd


def made(*, race: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Permuted answers memorized sooner by larger models; shares that follow, or are drawn."""
    rng, memory, rule = np.random.default_rng(0), [], []
    cells = product(["line", "shuffled"], ["small", "medium", "large"], [1e-3, 3e-3, 1e-2])
    for k, (framing, size, rate) in enumerate(cells):
        step = 300.0 * (k % 9 + 1)
        share = 0.1 * (k % 9) if race else rng.uniform()
        cell = {"run": f"{framing}-{size}-hands", "framing": framing, "size": size,
                "learning_rate": rate, "steps": 3_000}  # fmt: skip
        for _ in range(5):
            memory.append(cell | {"fit_step": step if step < 2_500 else np.nan})
            rule.append(cell | {"end_right": rng.binomial(40, share), "held_out_of": 40})
    return pd.DataFrame(memory), pd.DataFrame(rule)


def test_a_race_is_forecast_on_the_framing_that_was_left_out() -> None:
    result = forecast.forecast_result(*made(race=True))
    table, (claim,) = result.tables["forecast"], result.claims
    assert claim.verdict == "supported" and claim.p is not None and claim.p < 0.01
    assert (table["forecast"] - table["seen"]).abs().mean() < 0.12
    assert result.figures["forecast"]().data
    assert set(result.display["learning_rate"]) == {1e-3, 3e-3, 1e-2}, "rates are not rounded to 0"


def test_without_a_race_nothing_is_supported() -> None:
    result = forecast.forecast_result(*made(race=False))
    assert result.claims[0].verdict != "supported"
    table = result.tables["forecast"]
    assert (table["forecast"] - table["seen"]).abs().mean() > 0.15


def test_models_that_never_memorize_count_as_the_last_step() -> None:
    memory, rule = made(race=True)
    table = forecast.forecast_table(memory, rule)
    assert table["memorized"].max() == 3_000
    only_line = forecast.forecast_table(memory[memory["framing"] == "line"], rule)
    assert set(only_line["framing"]) == {"line"} and only_line["forecast"].isna().all()

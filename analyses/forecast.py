# %% [markdown]
# # Can the loss of the rule be forecast from training data without a rule?
# If memorizing and finding the rule are a race of two times, what is left of the rule should follow
# from how soon a model of that size, at that rate, memorizes answers that are permuted among the
# prompts. Forecast: held-out shares of one framing, from the times there and a rising curve that
# was fitted on the other framings alone. Null: times permuted over sizes and rates.

# %%
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression
from sweeps import answer_as_script

from tbtt_interp import plots
from tbtt_interp.results import Claim, Result
from tbtt_interp.shares import share_over_models
from tbtt_interp.stats import Interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

READS = [("why-memory", "fits"), ("why-size", "fits")]
CELL = ["framing", "size", "learning_rate"]
SUPPORTS = 0.5  # rank correlation above this supports the race, and below REFUTES refutes it
REFUTES = 0.0
DRAWS = 10_000
NOTES = (
    "memorized: the median step at which models know 99 % of answers that were permuted; a "
    "model that never does counts as the last step. observed: share of held-out equations of the "
    "true task that are right after the last step, with the 95 % interval of the beta-binomial.",
    "forecast: of a rising curve (isotonic regression) of the share over that step, fitted on the "
    "other framings alone.",
)


# %%
def forecast_table(memory: pd.DataFrame, rule: pd.DataFrame) -> pd.DataFrame:
    """One row per framing, size and rate that both tables have.

    Args:
        memory, rule: as `fits_table` returns them, of permuted answers and of the true task.
    Returns:
        CELL; `memorized`, in steps; `seen`, the held-out share, with `seen_low`, `seen_high` and
        `n_models`; `forecast`, the share that the other framings' curve gives.
    """
    memory = memory.assign(step=memory["fit_step"].fillna(memory["steps"]))
    memorized = memory.groupby(CELL, sort=False)["step"].median().to_dict()
    rows, rule = [], rule[rule["run"].str.endswith("-hands")]  # as many pairs held out as there
    for cell, models in rule.groupby(CELL, sort=False):
        if cell not in memorized:
            continue
        counts = models[["end_right", "held_out_of"]].astype(int).itertuples(index=False)
        seen = share_over_models([(right, of) for right, of in counts])
        rows.append(dict(zip(CELL, cell, strict=True)) | {
            "memorized": memorized[cell], "seen": seen.mean, "seen_low": seen.low,
            "seen_high": seen.high, "n_models": seen.n,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    table["forecast"] = np.nan
    for framing in table["framing"].unique():
        own, others = table["framing"] == framing, table[table["framing"] != framing]
        if len(others):
            curve = IsotonicRegression(increasing=True, out_of_bounds="clip")
            curve.fit(np.log(others["memorized"]), others["seen"], others["n_models"])
            table.loc[own, "forecast"] = curve.predict(np.log(table.loc[own, "memorized"]))
    return table


def rank_correlation(table: pd.DataFrame) -> tuple[Interval, float]:
    """Spearman's correlation of the step and the share within framings, its interval and p.

    Ranks are within framings, so that a difference between framings does not count. The interval
    is a bootstrap over cells; p is of steps permuted within framings.
    """
    ranked = table.groupby("framing")[["memorized", "seen"]].rank(pct=True)
    rng, n = np.random.default_rng(0), len(table)
    own = float(np.corrcoef(ranked.to_numpy().T)[0, 1])
    with np.errstate(invalid="ignore"):
        chosen = rng.integers(0, n, (DRAWS // 10, n))
        drawn = [np.corrcoef(ranked.to_numpy()[rows].T)[0, 1] for rows in chosen]
    places = [np.flatnonzero(table["framing"] == f) for f in table["framing"].unique()]
    steps, shares = ranked.to_numpy().T
    centred = shares - shares.mean()
    at_least = 0
    for _ in range(DRAWS):
        mixed = steps.copy()
        for place in places:
            mixed[place] = rng.permutation(steps[place])
        at_least += (mixed - mixed.mean()) @ centred >= (steps - steps.mean()) @ centred - 1e-12
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(mean=own, low=float(low), high=float(high), n=n), (at_least + 1) / (DRAWS + 1)


def draw_forecast(table: pd.DataFrame) -> "Figure":
    """Observed against forecast shares, a dot with its interval per framing, size and rate."""
    framings = list(table["framing"].unique())
    figure, places = plots.panels(framings, across=3, height=280)
    sizes = list(table["size"].unique())
    for framing, place in zip(framings, places, strict=True):
        for size in sizes:
            rows = table[(table["framing"] == framing) & (table["size"] == size)]
            figure.add_scatter(
                x=rows["forecast"], y=rows["seen"], mode="markers+text", name=size, **place,
                text=rows["learning_rate"].map("{:g}".format),
                textposition="top center", marker={"color": plots.colour_of(size, sizes)},
                error_y=plots.error_bars(rows, "seen"),
                showlegend=framing == framings[0],
            )  # fmt: skip
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", **place, showlegend=False,
            line={"color": plots.GREY, "dash": "dot"}, hoverinfo="skip",
        )  # fmt: skip
    figure.update_xaxes(range=[-0.05, 1.05], title="forecast held-out share")
    figure.update_yaxes(range=[-0.05, 1.05])
    return figure.update_yaxes(title="observed held-out share", col=1)


def forecast_result(memory: pd.DataFrame, rule: pd.DataFrame) -> Result:
    """The study's result on the fits of permuted answers and of the true task."""
    table = forecast_table(memory, rule)
    correlation, p = rank_correlation(table)
    error = (table["forecast"] - table["seen"]).abs().mean()
    constant = (table["seen"] - table["seen"].mean()).abs().mean()
    claims = [
        Claim(
            text="Where permuted answers are memorized sooner, less of the rule is left, with a "
            "rank correlation within framings of", effect=correlation, unit="", null=SUPPORTS,
            null_name="the bound that was named", p=p, origin="expected before the run",
        )
    ]  # fmt: skip
    shown = table.assign(
        seen=[Interval.of_row(row, "seen").format() for row in table.to_dict("records")]
    )
    display = shown[[*CELL, "memorized", "forecast", "seen", "n_models"]]
    display = display.rename(columns={"seen": "observed"})  # "seen" are equations trained on
    return Result(
        name="forecast", question="Can the loss of the rule be forecast without a rule?",
        command="python analyses/forecast.py", tables={"forecast": table}, claims=claims,
        display=display.round({"forecast": 2}), notes=NOTES,
        summary=[f"Forecasts are off by {error:.2f} on average; one share for all cells, by "
                 f"{constant:.2f}."],
        figures={"forecast": lambda: draw_forecast(table)},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(forecast_result, READS, "forecast")

# %% [markdown]
# # Which gives way first: the digits' order, or the held-out answers?
# If an ordered code of the digits carries the rule, a model should leave the order before it loses
# held-out answers. Measures, per model over training: the share of the digits' variance along a
# number line, in the embedding and in the stream before and after the MLP; norms of the weights;
# the held-out margin. A measure starts to fall at the last checkpoint at which it has lost at most
# a tenth of its whole fall. A lead says little if all models fall at one time: so also the rank
# correlation, over models, of the two times.

# %%
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from measures import LINES
from scipy.stats import pearsonr, rankdata
from sweeps import answer_as_script

from tbtt_interp import plots
from tbtt_interp.results import FEWEST_MODELS, Claim, Result
from tbtt_interp.stats import Interval, mean_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

READS = [("why-loss", "digits")]
LEAST_FALL = dict.fromkeys(LINES, 0.1) | {"margin": 1.0}  # who falls less has not left its maximum
WITHIN = 0.1  # of its later fall, a measure still is at its maximum
MODEL = ["run", "seed", "held_out"]
NOTES = (
    "number line: the share of the ten digits' variance that is linear in the digit (1/9 by "
    "chance). In the stream it is of main effects at the prompt's last position.",
    "lag: steps from the end of the measure's maximum to the end of the held-out margin's; below 0 "
    "the measure falls first. Models in which one of the two does not fall are left out.",
    "together: the rank correlation, over models, of the steps at which the two leave their "
    "maximum, with its 95 % interval (Fisher's). The plan was to compare each model's lag with "
    "lags between different models. If the measure always falls first, both kinds of lag have the "
    "same mean, and that comparison cannot tell. This correlation replaced it after that was seen.",
)


# %%
def left_at(steps: np.ndarray, values: np.ndarray, least: float) -> float:
    """The step at which a measure leaves its maximum; nan if it falls by less than `least`.

    >>> left_at(np.arange(6), np.array([0.0, 0.9, 1.0, 0.95, 0.2, 0.0]), least=0.1)
    3.0
    """
    top = int(values.argmax())
    fall = values[top] - values[top:].min()
    if not fall >= least:
        return np.nan
    near = np.flatnonzero(values >= values[top] - WITHIN * fall)
    return float(steps[near.max()])


def lags_table(digits: pd.DataFrame) -> pd.DataFrame:
    """One row per run and measure: lags to the margin's fall, and whether the two fall together.

    Returns:
        `run`, `measure`; `lag`, in steps, with `lag_low`, `lag_high`, and `n_models`; `first`: the
        share of models in which the measure falls no later; `together`, the rank correlation of the
        two steps, with `together_low`, `together_high` and its `p`.
    """
    rows = []
    for run, models in digits.groupby("run", sort=False):
        ends = {
            measure: np.array(
                [
                    left_at(one["step"].to_numpy(), one[measure].to_numpy(), least)
                    for _, one in models.sort_values("step").groupby(
                        ["seed", "held_out"], sort=True
                    )
                ]
            )
            for measure, least in LEAST_FALL.items()
        }
        for measure in LINES:
            both = np.isfinite(ends[measure]) & np.isfinite(ends["margin"])
            mine, margin = ends[measure][both], ends["margin"][both]
            lag = mean_over_models(mine - margin)
            row = {"run": run, "measure": measure, "n_models": int(both.sum()), "lag": lag.mean,
                   "lag_low": lag.low, "lag_high": lag.high, "first": (mine <= margin).mean()
                   if both.any() else np.nan, "together": np.nan, "p": np.nan}  # fmt: skip
            if both.sum() > FEWEST_MODELS and np.ptp(mine) and np.ptp(margin):
                ranks = pearsonr(rankdata(mine), rankdata(margin))
                correlation, p = ranks
                low, high = ranks.confidence_interval()
                row |= {"together": correlation, "together_low": low, "together_high": high, "p": p}
            rows.append(row)
    return pd.DataFrame(rows)


def draw_courses(digits: pd.DataFrame) -> "Figure":
    """Means over models of the number lines and the held-out share, over training."""
    measures = {**LINES, "share": "held-out share"}
    long = digits.melt(["run", "seed", "step"], list(measures), "measure")
    runs = list(dict.fromkeys(digits["run"]))
    figure, places = plots.panels(runs, across=2, height=260, horizontal_spacing=0.08)
    for run, place in zip(runs, places, strict=True):
        models = long[long["run"] == run]
        for measure, name in measures.items():
            course = models[models["measure"] == measure].groupby("step")["value"].mean()
            figure.add_scatter(
                x=course.index, y=course, name=name, mode="lines", **place,
                line={"color": plots.colour_of(measure, list(measures))},
                showlegend=run == runs[0],
            )  # fmt: skip
    figure.update_yaxes(range=[0, 1.02])
    figure.update_xaxes(title="training step", row=places[-1]["row"])
    title = "Digits leave the number line before held-out answers are lost"
    return figure.update_layout(title={"text": title, "y": 0.97}, margin_t=110)


def timing_result(digits: pd.DataFrame) -> Result:
    """The study's result on a table of `measures_over_training`."""
    lags = lags_table(digits)
    claims = []
    for row in lags.to_dict("records"):
        if row["n_models"] < FEWEST_MODELS:
            continue
        is_embedding = row["measure"] == "line_embedding"
        place = "in the embedding" if is_embedding else LINES[row["measure"]]
        where = f"{row['run']}: the number line {place}"
        named = "expected before the run" if is_embedding else "explored"
        claims.append(Claim(
            text=f"{where} falls before the margin.", effect=Interval.of_row(row, "lag"),
            unit="steps", null=0.0, null_name="at once", direction="below", origin=named,
        ))  # fmt: skip
        if np.isfinite(row["together"]):
            effect = Interval.of_row(row, "together")
            claims.append(Claim(
                text=f"In models whose margin falls sooner, it falls sooner, too: {where}.",
                effect=effect, unit="rank correlation", null=0.0, null_name="no relation",
                p=row["p"],
            ))  # fmt: skip
    shown = lags.assign(
        measure=lags["measure"].map(LINES),
        lag=[Interval.of_row(row, "lag").format(0, sign="+") for row in lags.to_dict("records")],
        together=["" if np.isnan(row["together"]) else Interval.of_row(row, "together").format()
                  for row in lags.to_dict("records")],
    ).drop(columns=[f"{name}_{end}" for name in ("lag", "together") for end in ("low", "high")
                    if f"{name}_{end}" in lags])  # fmt: skip
    return Result(
        name="timing", question="Which gives way first: the digits' order, or held-out answers?",
        command="python analyses/timing.py", tables={"timing": lags}, display=shown.round(3),
        claims=claims, notes=NOTES, figures={"timing": lambda: draw_courses(digits)},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(timing_result, READS, "timing")

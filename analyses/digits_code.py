# %% [markdown]
# # Is the digits' code the cause?
# Large models whose ten rows of W_E are confined to few dimensions, frozen on a line or an arc, or
# smoothed from digit to digit; each with its dose, and with its sham in a random order of the
# digits. The expectations stand in train/sweeps/why-code.toml; its three contrasts are judged in
# why.py, the other expectations here.

# %%
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from size import counts_at
from sweeps import answer_as_script, select

from tbtt_interp import plots
from tbtt_interp.results import Claim, Result
from tbtt_interp.shares import difference_of_shares, share_over_models
from tbtt_interp.stats import UNMEASURED, Interval, mean_over_models
from tbtt_interp.train.effects import FITTED
from tbtt_interp.train.sweep import read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

READS = [("why-code", "fits"), ("why-code", "measures"),
         ("why-code-windows", "fits"), ("why-code-windows", "measures"),
         ("why-joint", "fits"), ("why-joint", "measures")]  # fmt: skip
RATE = 1e-2
ARMS = {  # the end of a run's name: what is done to the rows of W_E
    "free": "free", "free-untied": "free, untied readout",
    "rank-14-rank": "in 14 dimensions", "rank-8-rank": "in 8", "rank-4-rank": "in 4",
    "rank-3-rank": "in 3", "rank-2-rank": "in 2", "rank-random-axes": "in 2, random axes",
    "rank-of-others": "sham: seven other rows in 2", "rank-of-all": "sham: all rows in 14",
    "smooth-0.1-order-true-smooth": "smooth, 0.1", "smooth-1.0-order-true-smooth": "smooth, 1",
    "smooth-10.0-order-true-smooth": "smooth, 10",
    "smooth-0.1-order-random-smooth": "sham: smooth in random order, 0.1",
    "smooth-1.0-order-random-smooth": "sham: smooth in random order, 1",
    "smooth-10.0-order-random-smooth": "sham: smooth in random order, 10",
    "order-true-arc": "on an arc", "arc-larger": "on an arc, twice as large",
    "arc-untied": "on an arc, untied readout",
    "order-random-arc": "sham: on an arc in random order",
    "order-true-line": "on a line", "order-random-line": "sham: on a line in random order",
    "orthogonal": "orthogonal", "rank": "in 2", "order-true-smooth": "smooth, 1",
    "order-random-smooth": "sham: smooth in random order, 1",
}  # fmt: skip
CELL = ["task", "framing", "size"]
DOSES = {f"in {rank}" if rank < 14 else "in 14 dimensions": rank for rank in (2, 3, 4, 8, 14)}
NEAR = 0.1  # of the held-out share: shams that do no more count as doing nothing
NOTES = (
    "Shares are of all held-out equations that the models of a condition were asked, with the 95 % "
    "interval of the beta-binomial. at fit: at each model's first evaluation with 99 % of the "
    "seen right, of the models that have one.",
    "off by one: of the wrong held-out answers at the end. number line: the share of the digits' "
    "variance that is linear in the digit, at the end; 0.11 by chance.",
    "Where digits lie on a straight line and the readout is tied, only 0 and 9 can have the "
    "highest logit.",
)


# %%
def named(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of models at RATE, with `task` and `arm`: what is done to the rows."""
    table = select(table, learning_rate=RATE)
    ends = table["run"].str.replace(rf"^\w+-\w+-\w+-(learning-rate-{RATE:g}-)?", "", regex=True)
    return table.assign(task=table["run"].str.partition("-")[0], arm=ends.map(ARMS))


def arms_table(fits: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """One row per CELL and arm: models, how many fit, what they know, and held-out shares."""
    ends, rows = select(measures, read="end"), []
    order = {arm: k for k, arm in enumerate(dict.fromkeys(ARMS.values()))}
    for cell, models in fits.groupby([*CELL, "arm"], sort=False):
        row: dict[str, Any] = dict(zip([*CELL, "arm"], cell, strict=True))
        of = select(ends, **row)
        for read in ("fit", "end"):
            counts = counts_at(models, read)
            share = share_over_models(counts) if counts else UNMEASURED
            row |= {read: share.mean, f"{read}_low": share.low, f"{read}_high": share.high}
        rows.append(row | {
            "models": len(models), "fit_models": int(models["fit_step"].notna().sum()),
            "fit_step": models["fit_step"].median(), "seen": models["end_seen_accuracy"].mean(),
            "knows_seen": bool((models["end_seen_accuracy"] >= FITTED).all()),
            "loss": models["loss"].mean(), "off_by_one": of["off_by_one"].sum() / of["wrong"].sum(),
            "number_line": of["line_embedding"].mean(),
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values(
        [*CELL, "arm"], key=lambda x: x.map(order) if x.name == "arm" else x, ignore_index=True
    )


def dose_claim(fits: pd.DataFrame, text: str) -> Claim:
    """Over models, the held-out share's slope per doubling of the dimensions."""
    doses = select(fits, size="large")
    doses = doses[doses["arm"].isin(DOSES)].assign(dose=lambda x: np.log2(x["arm"].map(DOSES)))
    slopes = [
        np.polyfit(models["dose"], models["end_accuracy"], 1)[0]
        for _, models in doses.groupby(["seed", "held_out"]) if len(models) == len(DOSES)
    ]  # fmt: skip
    return Claim(
        text=text, effect=mean_over_models(pd.Series(slopes, dtype=float)), null=0.0,
        unit="of held-out share per doubling", null_name="no dose", direction="below",
        origin="expected before the run",
    )  # fmt: skip


def code_claims(fits: pd.DataFrame) -> list[Claim]:
    """Claims on the expectations that are not contrasts; why.py judges the contrasts."""
    _, dose, _, shams, small = (x.partition(";")[0].rstrip(".") + "."
                                for x in read_sweep("why-code").expected)  # fmt: skip

    def less_free(size: str, arm: str) -> Interval:
        both = [counts_at(select(fits, size=size, arm=name), "end") for name in ("free", arm)]
        return difference_of_shares(*both) if all(both) else UNMEASURED

    return [dose_claim(fits, dose)] + [
        Claim(text=f"{text} {arm.capitalize()}, {size}, minus free:", effect=less_free(size, arm),
              unit="of the held-out", null=null, null_name=null_name, direction="below",
              origin="expected before the run")
        for text, size, arm, null, null_name in (
            (shams, "large", "sham: seven other rows in 2", NEAR, "the bound"),
            (shams, "large", "sham: all rows in 14", NEAR, "the bound"),
            (small, "small", "orthogonal", 0.0, "no difference"))
    ]  # fmt: skip


def draw_arms(arms: pd.DataFrame) -> "Figure":
    """Held-out share of each condition: at the fit (open) and at the end; shams are orange."""
    arms = select(arms, task="arithmetic", framing="line")
    sizes: Sequence[str] = [s for s in ("large", "small") if s in set(arms["size"])]
    figure, places = plots.panels(sizes, width=420, height=620)
    for size, place in zip(sizes, places, strict=True):
        own = select(arms, size=size).iloc[::-1]
        is_sham = own["arm"].str.startswith("sham")
        for read, symbol in (("fit", "circle-open"), ("end", "circle")):
            for sham, colour in ((False, plots.OKABE_ITO[0]), (True, plots.OKABE_ITO[1])):
                rows = own[is_sham == sham]
                figure.add_scatter(
                    x=rows[read], y=rows["arm"], mode="markers", **place,
                    name=("sham, " if sham else "") + {"fit": "at fit", "end": "at the end"}[read],
                    marker={"symbol": symbol, "color": colour, "size": 9,
                            "opacity": rows["knows_seen"].map({True: 1.0, False: 0.35})
                            if read == "end" else 1.0},
                    error_x=plots.error_bars(rows, read) if read == "end" else None,
                )  # fmt: skip
    names = list(dict.fromkeys(arms["arm"]))[::-1]
    figure.update_yaxes(categoryorder="array", categoryarray=names)
    figure.update_xaxes(range=[-0.03, 1.03], title="held-out share")
    title = "What is done to the digits' embeddings, and the held-out share<br><sup>filled: at the "
    title += "end (pale: not every model knows 99 % of the seen). open: at fit. orange: shams</sup>"
    return plots.name_once(figure).update_layout(
        margin_l=260, margin_t=140, title={"text": title, "y": 0.97}
    )


def code_result(*tables: pd.DataFrame) -> Result:
    """The study's result on the fits and measures of why-code, its windows, and why-joint."""
    fits = named(pd.concat(tables[::2], ignore_index=True))
    arms = arms_table(fits, named(pd.concat(tables[1::2], ignore_index=True)))
    shown = arms.assign(**{
        name: [Interval.of_row(row, read).format() for row in arms.to_dict("records")]
        for name, read in (("at fit", "fit"), ("at the end", "end"))
    })  # fmt: skip
    shown = shown.rename(columns={"arm": "condition"})
    columns = [*CELL, "condition", "models", "fit_models", "fit_step", "at fit", "at the end",
               "seen", "loss", "off_by_one", "number_line"]  # fmt: skip
    return Result(
        name="digits_code", question="Is the digits' code the cause?",
        command="python analyses/digits_code.py", tables={"digits_code": arms}, notes=NOTES,
        display=shown[columns].round({"seen": 2, "loss": 3, "off_by_one": 2, "number_line": 2}),
        claims=code_claims(select(fits, task="arithmetic", framing="line")),
        figures={"digits_code": partial(draw_arms, arms)},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(code_result, READS, "digits_code")

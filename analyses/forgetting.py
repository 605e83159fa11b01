# %% [markdown]
# # Does forgetting the rule follow learning the order?
# A loss on file below the floor of "knows every line, not their order" shows memorized order. So
# what becomes of the held-out answers from then on? Measures, per model: the change of its
# held-out accuracy from that moment to the end of training, and the rank correlation of its
# held-out margin with the order known. Null: its shuffled run, on windows of new orders, of the
# same size, seed and steps. No direction was written down before the run. Takes a folder of
# runs; without one it reads the sweep's table.

# %%
from functools import partial

import numpy as np
import pandas as pd
from plotly.graph_objects import Figure
from sweeps import answer_as_script, check_one_each

from tbtt_interp import plots
from tbtt_interp.errors import TbttError
from tbtt_interp.results import Claim, Result
from tbtt_interp.stats import ANY, SHARE, Interval, mean_over_models

READS = [("ladder", "over training")]
LATE = 5 / 6  # evaluations after this share of training are the end
FEWEST_MODELS = 6  # whose signs can be told from a coin's at 5 %, two-sided: 2 / 2⁶
FEWEST_STEPS = 5  # evaluations below the floor, for a rank correlation
SAME = ["size", "width", "learning_rate", "weight_decay", "window", "steps", "held_out"]
MEASURES = ("accuracy", "margin")  # of the held-out equations
FELL_MORE = "seeds where it fell more than on shuffled"
DISPLAY = {
    "order known at the end": "order_known", "accuracy then": "accuracy_then",
    "accuracy at the end": "accuracy_end", "its change": "accuracy_change",
    "shuffled, accuracy then": "shuffled_accuracy_then",
    "shuffled, accuracy at the end": "shuffled_accuracy_end",
    "change minus shuffled": "beyond_accuracy_change", "rank, margin": "margin_rank",
    "shuffled, rank": "shuffled_margin_rank",
}  # fmt: skip
CLAIMS = (
    ("accuracy_change", "accuracy falls once the order is being learned.", "no change"),
    ("shuffled_accuracy_change", "accuracy falls in equally long training without an order.",
     "no change"),
    ("beyond_accuracy_change", "accuracy falls more once the order is being learned than in "
     "equally long training without an order.", "the change on shuffled, subtracted"),
    ("beyond_margin_rank", "margin falls as the order known rises, beyond what the passing time "
     "makes of it.", "the correlation with the margin on shuffled, subtracted"),
)  # fmt: skip
NOTES = (
    "Means over the models that crossed the floor [95 %]; order known: the share of the order that "
    "the loss shows. Then: the last evaluation before the first whose loss is below the floor of "
    "knowing every line and not their order. At the end: mean over the last sixth of training. "
    "Shuffled: the model of the same seed on shuffled windows, at the same steps.",
    "Order that is known while some lines are not does not show in the loss. So the floor is "
    "crossed late, and what was forgotten before is not counted.",
    "If accuracy rises on shuffled and stays as it was on file, the rule was not forgotten there "
    "but never learned: the change alone tells the two apart. Two models are not compared if "
    "exactly one of them had no right answers then.",
    "Rank: Spearman's correlation of order known with the held-out margin from then on; for "
    "shuffled, of the same order known with the margin on shuffled.",
    f"Intervals are Student's over models. With fewer than {FEWEST_MODELS} models, whose signs "
    "alone could not tell an effect from chance, there is no interval and no claim.",
)


# %%
def paired_courses(over: pd.DataFrame) -> pd.DataFrame:
    """One row per evaluation of each model of framing file on arithmetic, and of its shuffled run.

    Args:
        over: as `over_training_table` returns it.
    Returns:
        SAME, seed, step, loss, floors, order_known; `accuracy` and `margin` of held-out equations;
        `shuffled_accuracy` and `shuffled_margin` of the shuffled run of that seed, nan where there
        is none.
    Raises:
        TbttError: if there is no model of framing file with held-out equations, or a size was
            trained in several ways.
    """
    table = over[(over["task"] == "arithmetic") & (over.get("held_out_of", 0) > 0)]
    if not (table["framing"] == "file").any():
        raise TbttError(
            "no model here learns arithmetic from a file and holds out equations, so none can "
            "forget them: tbtt sweep ladder trains some; give their folder"
        )
    table = table.assign(
        accuracy=table["held_out_right"] / table["held_out_of"], margin=table["margin_held_out"],
        batch=table["batch"].astype(str),  # "all" in some sweeps
    )  # fmt: skip
    on = [*SAME, "batch", "seed", "step"]
    file, shuffled = (table[table["framing"] == framing] for framing in ("file", "shuffled"))
    others = shuffled[[*on, *MEASURES]].rename(
        columns={name: f"shuffled_{name}" for name in MEASURES}
    )
    kept = ["run", *on, "loss", "floor_lines", "floor_order", "order_known", *MEASURES]
    courses = file[kept].merge(others, on=on, how="left")
    check_one_each(courses, ["size", "step"])
    return courses.sort_values(["width", "seed", "step"])


def spearman(first: pd.Series, second: pd.Series) -> float:
    """Spearman's correlation; nan of few pairs; 0 where one of the two does not change."""
    both = first.notna() & second.notna()
    if both.sum() < FEWEST_STEPS:
        return np.nan
    if min(first[both].nunique(), second[both].nunique()) == 1:
        return 0.0
    return float(first.corr(second, method="spearman"))


def forgetting_table(courses: pd.DataFrame) -> pd.DataFrame:
    """One row per model: what becomes of its held-out answers once its loss is below the floor.

    Returns:
        `crossed`, the step of the last evaluation before the first below the lines' floor, nan if
        there is none below, or none before; `first`, whether the first is below; `order_known` at
        the end. For accuracy and margin: `X_then` at that step, `X_end` over the last sixth of
        training, `X_change`; `X_rank`, Spearman's correlation of order known with X from there
        on. `shuffled_X_…` are of the shuffled run, and `beyond_X_…` the differences.
    """
    rows, of_both = [], [f"{side}{name}" for name in MEASURES for side in ("", "shuffled_")]
    for (size, seed), models in courses.groupby(["size", "seed"], sort=False):
        course = models.sort_values("step").reset_index(drop=True)
        end = course[course["step"] >= LATE * course["steps"].iloc[0]]
        below = course.index[course["loss"] < course["floor_lines"]]
        row = {"size": size, "seed": seed, "crossed": np.nan,
               "first": 0 in below, "order_known": end["order_known"].mean()}  # fmt: skip
        if len(below) and below[0]:
            then = course.loc[below[0] - 1 :]
            row["crossed"], order = then["step"].iloc[0], then["order_known"]
            for name in of_both:
                first, last = then[name].iloc[0], end[name].mean()
                row |= {
                    f"{name}_then": first, f"{name}_end": last, f"{name}_change": last - first,
                    f"{name}_rank": spearman(order, then[name]),
                }  # fmt: skip
            for name in (f"{m}_{kind}" for m in MEASURES for kind in ("change", "rank")):
                row[f"beyond_{name}"] = row[name] - row[f"shuffled_{name}"]
            if (row["accuracy_then"] == 0) != (row["shuffled_accuracy_then"] == 0):
                row["beyond_accuracy_change"] = np.nan  # one of the two had nothing to lose
        rows.append(row)
    wanted = [column for column, *_ in CLAIMS] + list(DISPLAY.values())
    table = pd.DataFrame(rows)
    return table.reindex(columns=list(dict.fromkeys([*table, *wanted])))


def mean_of(models: pd.DataFrame, name: str) -> Interval:
    """The mean over models that have a value, with an interval if FEWEST_MODELS have one."""
    bounds = (-1.0, 1.0)
    if "margin" in name and not name.endswith("rank"):
        bounds = ANY
    elif name == "order_known" or name.endswith(("_then", "_end")):
        bounds = SHARE
    elif name.startswith("beyond_"):
        bounds = (-2.0, 2.0)
    mean = mean_over_models(models[name].astype(float), bounds=bounds)
    if mean.n >= FEWEST_MODELS:
        return mean
    return Interval(mean=mean.mean, low=np.nan, high=np.nan, n=mean.n)


def display_column(models: pd.DataFrame) -> dict[str, str]:
    """The printed numbers of one size."""
    crossed = models[models["crossed"].notna()]
    changes, beyond = crossed["accuracy_change"], crossed["beyond_accuracy_change"].dropna()
    column = {
        "models that crossed the floor": f"{len(crossed)} of {len(models)}",
        "models below it from the start": f"{models['first'].sum()} of {len(models)}",
        "crossing step, median": f"{crossed['crossed'].median():,.0f}",
        "models whose accuracy fell": f"{(changes < 0).sum()} of {len(crossed)}",
        FELL_MORE: f"{(beyond < 0).sum()} of {len(beyond)}",
    } | {words: mean_of(crossed, name).format() for words, name in DISPLAY.items()}  # fmt: skip
    return {words: text.replace("nan", "–") for words, text in column.items()}


def plot_courses(courses: pd.DataFrame, measure: str) -> Figure:
    """A held-out measure against how far the loss has come: on file and, below, on shuffled.

    Right of 0 the loss is below the floor of the lines; at 1 it is at that of their order. Each
    model is a thin line, smoothed over a twentieth of its evaluations, and their mean is coloured
    by the share of training.
    """
    names = list(dict.fromkeys(courses["size"]))
    figure, places = plots.panels([*names, *[f"{x}, shuffled" for x in names]], across=len(names))
    way = courses["floor_lines"] - courses["floor_order"]
    courses = courses.assign(come=(courses["floor_lines"] - courses["loss"]) / way)
    for k, place in enumerate(places):
        rows = courses[courses["size"] == names[k % len(names)]]
        column = measure if k < len(names) else f"shuffled_{measure}"
        x, y = (rows.pivot(index="step", columns="seed", values=c) for c in ("come", column))
        y = y.dropna(axis=1, how="all")
        y = y.rolling(max(1, round(len(y) / 20)), center=True, min_periods=1).mean()
        for seed in y:
            figure.add_scatter(
                x=x[seed], y=y[seed], mode="lines", line={"color": plots.GREY, "width": 1},
                opacity=0.35, showlegend=False, name=f"seed {seed}", **place)  # fmt: skip
        figure.add_scatter(
            x=x[y.columns].mean(axis=1), y=y.mean(axis=1), mode="lines+markers", showlegend=False,
            marker={"color": y.index / rows["steps"].iloc[0], "coloraxis": "coloraxis", "size": 7},
            line={"color": plots.GREY}, name=f"mean of {y.shape[1]} models", **place)  # fmt: skip
    figure.add_vline(x=0, line={"color": plots.GREY, "dash": "dash"})
    figure.update_xaxes(range=[-1.08, 1.08], tickvals=[0, 1], ticktext=["lines' floor", "order's"])
    figure.update_yaxes(title=f"held-out {measure}", col=1).update_xaxes(title="loss", row=2)
    bar = {"title": "share of<br>training"}
    return figure.update_layout(coloraxis={"colorscale": "Viridis", "colorbar": bar})


def forgetting_result(over: pd.DataFrame) -> Result:
    """What becomes of held-out answers once a model learns the order of its file."""
    courses = paired_courses(over)
    models = forgetting_table(courses)
    groups = dict(list(models.groupby("size", sort=False)))
    claims = [
        Claim(text=f"In {name}, the held-out {text}", effect=mean_of(rows, column), null=0.0,
              unit="rank correlation" if "rank" in column else "change of held-out accuracy",
              null_name=null_name, direction="below")
        for name, rows in groups.items() for column, text, null_name in CLAIMS
        if rows[column].count() >= FEWEST_MODELS
    ]  # fmt: skip
    display = pd.DataFrame({name: display_column(rows) for name, rows in groups.items()})
    summary = pd.DataFrame([
        {"size": name, "measure": column} | vars(mean_of(rows, column))
        for name, rows in groups.items() for column in models.columns[4:]
    ])  # fmt: skip
    return Result(
        name="forgetting", question="Does forgetting the rule follow learning the order?",
        tables={"forgetting": summary, "forgetting-models": models, "forgetting-courses": courses},
        display=display.rename_axis("measure").reset_index(),
        command="tbtt sweep ladder && python analyses/forgetting.py runs/ladder",
        claims=claims, notes=NOTES,
        figures={"forgetting": partial(plot_courses, courses, "accuracy"),
                 "forgetting-margins": partial(plot_courses, courses, "margin")},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(forgetting_result, READS, "forgetting")

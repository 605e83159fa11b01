"""What probes read and their codes do, each beside its nulls."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.figures.style import BLUE, GREEN, GREY, OKABE_ITO, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def probe_heatmap(table: pd.DataFrame) -> "Figure":
    """Selectivity of every feature at every site and position, with its nulls where one hovers.

    Args:
        table: a row a feature, site and position, as `probe_battery` has it.
    """
    from plotly.graph_objects import Figure, Heatmap

    shown = table.dropna(subset="selectivity")
    if shown.empty:
        raise TbttError("no feature here has a control task: there is no selectivity to draw")
    place = shown["site"].str.replace("hook_", "") + " " + shown["pos"].astype(str)
    shown = shown.assign(place=place)
    sites = shown["site"].map({site: k for k, site in enumerate(dict.fromkeys(shown["site"]))})
    places = shown.assign(number=sites).sort_values(["number", "pos"])["place"]
    rows, columns = list(dict.fromkeys(shown["feature"])), list(dict.fromkeys(places))

    def grid(name: str) -> pd.DataFrame:
        found = shown.pivot(index="feature", columns="place", values=name)
        return found.reindex(index=rows, columns=columns)

    nulls = ["right", "of", "accuracy", "control", "one_hot", "untrained", "majority", "p"]
    hover = "".join(
        f"<br>{name.replace('_', '-')} %{{customdata[{k}]:.3g}}" for k, name in enumerate(nulls)
    )
    data = Heatmap(
        z=grid("selectivity"),
        x=columns,
        y=rows,
        customdata=np.stack([grid(name).to_numpy() for name in nulls], -1),
        hovertemplate=f"%{{y}} at %{{x}}<br>selectivity %{{z:.2f}}{hover}<extra></extra>",
        colorscale="RdBu_r",
        zmid=0,
        colorbar={"title": "selectivity"},
    )
    figure = Figure(data)
    figure.update_yaxes(title="feature", autorange="reversed")
    figure.update_xaxes(title="site, and position from the prompt's end", tickangle=-60)
    return figure.update_layout(
        template="simple_white",
        width=200 + 22 * len(columns),
        height=260 + 32 * len(rows),
        margin={"l": 90, "r": 20, "t": 30, "b": 190},
        font={"size": 12},
    )


def probe_curves(table: pd.DataFrame) -> "Figure":
    """Selectivity of each feature over training steps, with its interval over models.

    Args:
        table: of one site and position, as `probe_steps` has it.
    """
    from plotly.graph_objects import Figure

    shown = table.dropna(subset="selectivity")
    if shown.empty:
        raise TbttError("no feature here has a control task: there is no selectivity to draw")
    figure = Figure()
    features = list(dict.fromkeys(shown["feature"]))
    for number, feature in enumerate(features):
        rows = shown[shown["feature"] == feature].sort_values("step")
        figure.add_scatter(
            x=rows["step"], y=rows["selectivity"], name=feature, mode="lines+markers",
            line={"color": OKABE_ITO[number % len(OKABE_ITO)],
                  "dash": "solid" if number < len(OKABE_ITO) else "dot"},
            error_y={"array": rows["selectivity_high"] - rows["selectivity"],
                     "arrayminus": rows["selectivity"] - rows["selectivity_low"],
                     "thickness": 1, "width": 2},
            customdata=rows[["right", "of", "accuracy", "control", "p"]],
            hovertemplate="step %{x}<br>selectivity %{y:.2f}<br>right %{customdata[0]} of "
            "%{customdata[1]}, %{customdata[2]:.2f}<br>control %{customdata[3]:.2f}"
            "<br>p %{customdata[4]:.3f}",
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_xaxes(title="training step")
    figure.update_yaxes(title=f"selectivity at {', '.join(dict.fromkeys(shown['site']))}")
    return figure.update_layout(
        template="simple_white", width=760, height=460, font={"size": 13}, margin={"t": 20}
    )


NULLS = {
    "control": ("control task", "circle-open", BLUE),
    "one_hot": ("the text in one-hot", "square-open", GREEN),
    "untrained": ("untrained model", "diamond-open", "#CC79A7"),
    "majority": ("commonest class", "line-ns-open", GREY),
    "control_task": ("control task", "circle-open", BLUE),
    "random_labels": ("random labels", "square-open", GREEN),
    "random_subspace": ("random subspace", "diamond-open", "#CC79A7"),
    "whole": ("whole activation", "line-ns-open", GREY),
}  # column: its words, mark and colour


def beside_nulls(table: pd.DataFrame, value: str, title: str) -> "Figure":
    """A dot a row, with its interval over models, and its nulls as open marks beside it.

    Args:
        table: has a name for each row, value, low, high, and what it has of the NULLS.
        title: of the axis, with units.
    """
    from plotly.graph_objects import Figure

    figure = Figure()
    for name, (words, mark, colour) in NULLS.items():
        if name in table and table[name].notna().any():
            figure.add_scatter(
                x=table[name], y=table["name"], mode="markers", name=words,
                marker={"symbol": mark, "size": 9, "color": colour, "line": {"width": 1.5}},
            )  # fmt: skip
    figure.add_scatter(
        x=table[value], y=table["name"], mode="markers", name="models, 95 %",
        marker={"color": ORANGE, "size": 10},
        error_x={"array": table["high"] - table[value], "arrayminus": table[value] - table["low"]},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=True)
    figure.update_xaxes(title=title, rangemode="tozero")
    return figure.update_layout(
        template="simple_white",
        width=820,
        height=180 + 26 * table["name"].nunique(),
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"l": 20, "r": 20, "t": 70, "b": 50},
        font={"size": 13},
    )


def accuracies_beside_nulls(table: pd.DataFrame) -> "Figure":
    """Of a battery's rows, each accuracy beside its nulls."""
    place = table["site"].str.replace("hook_", "") + " " + table["pos"].astype(str)
    named = table.assign(name=table["feature"] + " at " + place)
    return beside_nulls(named, "accuracy", "accuracy, cross-validated")


def effects_beside_nulls(table: pd.DataFrame, measure: str = "answer follows") -> "Figure":
    """Of a causal table's rows, each effect of one measure beside its nulls."""
    rows = table[table["measure"] == measure]
    named = rows.assign(name=rows["feature"] + " at " + rows["site"].str.replace("hook_", ""))
    units = "share of swaps" if measure == "answer follows" else "nats of logit"
    return beside_nulls(named, "effect", f"{measure}, {units}")


def unsaid(table: pd.DataFrame) -> "Figure":
    """How many wrong held-out answers are read, and how many are turned right, beside their nulls.

    Args:
        table: a row a feature and site, as `unsaid_table` has it.
    """
    from plotly.subplots import make_subplots

    titles = ("read by a frozen probe", "turned right by moving the code")
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=titles)
    names = table["feature"] + " at " + table["site"].str.replace("hook_", "")
    marks = [
        ("wrong", "all wrong answers", "line-ns-open", GREY, 1),
        ("read_control", "control task", "circle-open", BLUE, 1),
        ("read_one_hot", "the text in one-hot", "square-open", GREEN, 1),
        ("read_untrained", "untrained model", "diamond-open", "#CC79A7", 1),
        ("read", "these models", "circle", ORANGE, 1),
        ("wrong", "all wrong answers", "line-ns-open", GREY, 2),
        ("control_task", "control task", "circle-open", BLUE, 2),
        ("random_labels", "random labels", "x-thin-open", "#E69F00", 2),
        ("random_subspace", "random subspace", "cross-thin-open", "#56B4E9", 2),
        ("flipped", "these models", "circle", ORANGE, 2),
    ]
    seen: set[str] = set()
    for column, words, mark, colour, place in marks:
        figure.add_scatter(
            x=table[column], y=names, mode="markers", name=words, row=1, col=place,
            legendgroup=words, showlegend=words not in seen,
            marker={"symbol": mark, "size": 9, "color": colour, "line": {"width": 1.5}},
        )  # fmt: skip
        seen.add(words)
    figure.update_yaxes(autorange="reversed", showgrid=True)
    figure.update_xaxes(title="answers", rangemode="tozero")
    return figure.update_layout(
        template="simple_white",
        width=960,
        height=230 + 26 * len(table),
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        margin={"l": 20, "r": 20, "t": 50, "b": 50},
        font={"size": 13},
    )

"""Tables to plotly figures: no side effects, colour-blind-safe colours, units on every axis."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colours: told apart with any colour vision (Wong, Nature Methods 8, 441, 2011).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
OKABE_ITO = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def learning_curves(table: pd.DataFrame) -> "Figure":
    """Loss against the entropy floors, and the share of answers that are right, over training.

    Each model is a thin line, their mean a thick one.

    Args:
        table: a row per step and seed with loss, floor_order, floor_lines and floor_line (nats a
            character), seen and held_out (shares; held_out may be missing).
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    shares = {"seen": BLUE, "held_out": ORANGE}
    lines = [("loss", GREEN, 1), *((k, c, 2) for k, c in shares.items() if k in table)]
    for name, colour, row in lines:
        seeds = table.pivot(index="step", columns="seed", values=name)
        label = name.replace("held_out", "held-out")
        place = {"row": row, "col": 1}
        for seed in seeds:
            figure.add_scatter(
                **place, x=seeds.index, y=seeds[seed], line={"color": colour, "width": 1},
                opacity=0.4, showlegend=False, name=f"{label}, seed {seed}",
            )  # fmt: skip
        mean = seeds.mean(axis=1)
        figure.add_scatter(
            **place, x=mean.index, y=mean, line={"color": colour, "width": 3},
            name=f"{label}, mean of {seeds.shape[1]} models",
        )  # fmt: skip
    floors = {"floor_lines": "knows every line", "floor_order": "knows their order, too"}
    if table["framing"].iloc[0] == "line":
        floors = {"floor_line": "knows every line"}
    for name, words in floors.items():
        level = table[name].mean()
        figure.add_scatter(
            row=1, col=1, x=table["step"].agg(["min", "max"]), y=[level, level], mode="lines+text",
            line={"color": GREY, "dash": "dash", "width": 1.5}, showlegend=False, name=words,
            text=["", f"{words}: {level:.3f}"], textposition="top left",
        )  # fmt: skip
    low = min(table["loss"].min(), *(table[name].min() for name in floors))
    figure.update_yaxes(
        title="loss, nats a character", range=[low - 0.06, max(1.0, low + 0.5)], row=1, col=1
    )
    figure.update_yaxes(title="share right", range=[-0.04, 1.04], row=2, col=1)
    figure.update_xaxes(range=[0, table["step"].max()])
    figure.update_xaxes(title="training step", row=2, col=1)
    return figure.update_layout(
        template="simple_white",
        width=760,
        height=560,
        margin={"l": 70, "r": 20, "t": 50, "b": 50},
        legend={"orientation": "h", "y": 1.08},
        font={"size": 14},
    )


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


def save(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as self-contained HTML or, where a browser is there to draw it, PNG or SVG.

    Raises:
        TbttError: on another ending, or if kaleido or its browser is missing.
    """
    path = Path(path)
    if path.suffix not in (".html", ".png", ".svg"):
        raise TbttError(f"figure {path} has no known ending: give .html, .png or .svg")
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
        return
    try:
        figure.write_image(path, scale=2)
    except (ValueError, RuntimeError) as error:
        raise TbttError(
            f"figure {path} needs a browser to be drawn ({str(error).strip().splitlines()[0]}): "
            "pip install kaleido and have Chromium, or give a name that ends in .html"
        ) from error

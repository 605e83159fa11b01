"""Influence of pair on pair: the matrix, its diagonal, what halves say, and means by relation."""

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.figures.style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Bar, Figure, Heatmap

NATS = "nats of margin"


def influence(table: pd.DataFrame, halves: pd.DataFrame, relations: pd.DataFrame) -> "Figure":
    """How much better one pair is answered for another's having been trained on, in four views.

    Args:
        table, halves, relations: as `influence_table`, `half_table` and `relation_table` have them.
    """
    from plotly.subplots import make_subplots

    same = halves["of"] == halves["on"]
    agree = [halves[mask][["first", "second"]].corr().iloc[0, 1] for mask in (~same, same)]
    titles = ("of a pair on another", "of a pair on itself",
              f"halves of the models: on another, r = {agree[0]:.2f}",
              f"halves: on itself, r = {agree[1]:.2f}",
              "on another, by what it is to it")  # fmt: skip
    figure = make_subplots(
        rows=2, cols=6, subplot_titles=titles, row_heights=[0.64, 0.36],
        specs=[[{"colspan": 3}, None, None, {"colspan": 3}, None, None],
               [{"colspan": 2}, None, {"colspan": 2}, None, {"colspan": 2}, None]],
        horizontal_spacing=0.1, vertical_spacing=0.13,
    )  # fmt: skip
    names = list(dict.fromkeys(table["on"]))
    matrix = table.pivot(index="of", columns="on", values="specific").loc[names, names]
    values = matrix.to_numpy(float, copy=True)
    np.fill_diagonal(values, np.nan)
    figure.add_heatmap(
        row=1, col=1, z=values, x=names, y=names, coloraxis="coloraxis",
        hovertemplate="of %{y} on %{x}: %{z:.2f} nats<extra></extra>",
    )  # fmt: skip
    own = table[table["of"] == table["on"]].set_index("on")["specific"]
    itself = _of_itself(own)
    figure.add_trace(itself, row=1, col=4)
    if itself.type == "heatmap":
        figure.update_xaxes(title="operand", dtick=1, row=1, col=4)
        figure.update_yaxes(title="operand", dtick=1, row=1, col=4)
    for column, (mask, colour) in zip((1, 3), ((~same, BLUE), (same, ORANGE)), strict=True):
        rows = halves[mask]
        far = float(np.nanmax(np.abs(rows[["first", "second"]].to_numpy()))) * 1.05
        figure.add_scatter(
            row=2, col=column, x=[-far, far], y=[-far, far], mode="lines", showlegend=False,
            line={"color": GREY, "dash": "dash", "width": 1},
        )  # fmt: skip
        figure.add_scatter(
            row=2, col=column, x=rows["first"], y=rows["second"], mode="markers",
            text=rows["of"] + " on " + rows["on"], showlegend=False,
            marker={"color": colour, "size": 4 if column == 1 else 7, "opacity": 0.5},
        )  # fmt: skip
        low = -far if column == 1 else min(0.0, float(rows[["first", "second"]].min().min()) - 0.5)
        figure.update_xaxes(title=f"one half, {NATS}", range=[low, far], row=2, col=column)
        figure.update_yaxes(title="the other half", range=[low, far], row=2, col=column)
    others = relations[relations["relation"] != "own pair"].sort_values("influence")
    others = others.assign(relation=others["relation"].str.replace("the same ", "the same<br>"))
    figure.add_scatter(
        row=2, col=5, x=others["null"], y=others["relation"], mode="markers",
        name="dealt anew which model holds out which, 95 %",
        error_x={"array": 1.96 * others["null_sd"]},
        marker={"color": BLUE, "symbol": "circle-open", "size": 9},
    )  # fmt: skip
    figure.add_scatter(
        row=2, col=5, x=others["influence"], y=others["relation"], mode="markers",
        name="these models", marker={"color": ORANGE, "size": 10},
        customdata=others[["pairs", "p"]],
        hovertemplate="%{x:.3f} nats over %{customdata[0]} pairs, p %{customdata[1]:.2f}"
        "<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title=f"mean influence, {NATS}", row=2, col=5)
    figure.update_xaxes(title="on", type="category", tickangle=-90, row=1, col=1)
    figure.update_yaxes(title="of", type="category", autorange="reversed", row=1, col=1)
    figure.update_xaxes(tickfont={"size": 8}, row=1, col=1)
    figure.update_yaxes(tickfont={"size": 8}, row=1, col=1)
    far = float(np.nanquantile(np.abs(values), 0.98)) if np.isfinite(values).any() else 1.0
    return figure.update_layout(
        template="simple_white",
        coloraxis={"colorscale": "RdBu_r", "cmid": 0, "cmin": -far, "cmax": far,
                   "colorbar": {"title": "nats", "x": 0.455, "len": 0.55, "y": 0.74}},
        width=1320,
        height=1080,
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": -0.06, "yanchor": "top"},
        margin={"l": 60, "r": 20, "t": 40, "b": 90},
        font={"size": 12},
    )  # fmt: skip


def _of_itself(own: pd.Series) -> "Heatmap | Bar":
    """By operands on a grid, if they are pairs of these; else by name."""
    from plotly.graph_objects import Bar, Heatmap

    pairs = [re.fullmatch(r"(\d+),(\d+)", str(name)) for name in own.index]
    operands = [sorted((int(m[1]), int(m[2]))) for m in pairs if m]
    if len(operands) < len(own):
        return Bar(x=own, y=own.index, orientation="h", marker={"color": ORANGE}, showlegend=False)
    size = max(b for _, b in operands) + 1
    grid = np.full((size, size), np.nan)
    for (a, b), value in zip(operands, own, strict=True):
        grid[a, b] = grid[b, a] = value
    far = float(np.nanmax(np.abs(grid)))
    return Heatmap(
        z=grid, colorscale="RdBu_r", zmid=0, zmin=-far, zmax=far, texttemplate="%{z:.1f}",
        textfont={"size": 11}, colorbar={"title": "nats", "len": 0.55, "y": 0.74},
        hovertemplate="%{y},%{x}: %{z:.2f} nats<extra></extra>",
    )  # fmt: skip

"""Influence of pair on pair: the matrix, its diagonal, what halves say, and means by relation."""

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.figures.style import BLUE, GREEN, GREY, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Bar, Figure, Heatmap

NATS = "nats of margin"
SEEN, UNSEEN, OWN = "other pairs", "pairs held out", "own pair"
COLOURS = {SEEN: BLUE, UNSEEN: GREEN, OWN: ORANGE}
TITLES = {SEEN: "on another pair", UNSEEN: "on a pair that is held out", OWN: "on itself"}


def influence(table: pd.DataFrame, halves: pd.DataFrame, relations: pd.DataFrame) -> "Figure":
    """How much better one pair is answered for another's having been trained on, in five views.

    Args:
        table, halves, relations: as `influence_table`, `half_table` and `relation_table` have them.
    """
    from plotly.subplots import make_subplots

    parts = [part for part in (SEEN, UNSEEN) if (halves["part"] == part).any()]
    columns = [*parts, OWN]
    titles = [f"influence of a pair {TITLES[part]}" for part in columns]
    titles += [f"{TITLES[part]}: halves of the models" for part in parts] + ["by what pairs are"]
    figure = make_subplots(
        rows=2, cols=len(columns), subplot_titles=titles, row_heights=[0.57, 0.43],
        horizontal_spacing=0.09, vertical_spacing=0.17,
    )  # fmt: skip
    for column, part in enumerate(parts, 1):
        _add_matrix(figure, table, part, column, len(columns))
        _add_halves(figure, halves[halves["part"] == part], part, column)
    itself = _of_itself(table[table["of"] == table["on"]].set_index("on")["specific"])
    figure.add_trace(itself, row=1, col=len(columns))
    if itself.type == "heatmap":
        figure.update_xaxes(title="operand", dtick=1, row=1, col=len(columns))
        figure.update_yaxes(title="operand", dtick=1, row=1, col=len(columns))
    for part in parts:
        _add_relations(figure, relations[relations["part"] == part], part, len(columns))
    figure.update_xaxes(title=f"mean influence, {NATS}", row=2, col=len(columns))
    return figure.update_layout(
        template="simple_white",
        width=520 * len(columns),
        height=1040,
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": -0.07, "yanchor": "top"},
        margin={"l": 60, "r": 20, "t": 40, "b": 90},
        font={"size": 12},
    )


def _bar(column: int, columns: int) -> dict[str, object]:
    """The colour bar of a map in the upper row, right of it."""
    width = (1 - 0.09 * (columns - 1)) / columns
    right = (column - 1) * (width + 0.09) + width
    return {"title": "nats", "x": right + 0.002, "len": 0.5, "y": 0.76, "thickness": 12}


def _add_matrix(
    figure: "Figure", table: pd.DataFrame, part: str, column: int, columns: int
) -> None:
    names = list(dict.fromkeys(table["on"]))
    values = table.pivot(
        index="of", columns="on", values="specific_unseen" if part == UNSEEN else "specific"
    ).loc[names, names].to_numpy(float, copy=True)  # fmt: skip
    np.fill_diagonal(values, np.nan)
    far = float(np.nanquantile(np.abs(values), 0.98)) if np.isfinite(values).any() else 1.0
    figure.add_heatmap(
        row=1, col=column, z=values, x=names, y=names, colorscale="RdBu_r", zmin=-far, zmax=far,
        colorbar=_bar(column, columns),
        hovertemplate="of %{y} on %{x}: %{z:.2f} nats<extra></extra>",
    )  # fmt: skip
    axis = {"type": "category", "tickfont": {"size": 8}, "dtick": 2}
    figure.update_xaxes(title="on", tickangle=-90, **axis, row=1, col=column)
    figure.update_yaxes(title="of", autorange="reversed", **axis, row=1, col=column)


def _add_halves(figure: "Figure", rows: pd.DataFrame, part: str, column: int) -> None:
    both = rows[["first", "second"]]
    far = float(np.nanmax(np.abs(both.to_numpy()))) * 1.05
    figure.add_scatter(
        row=2, col=column, x=[-far, far], y=[-far, far], mode="lines", showlegend=False,
        line={"color": GREY, "dash": "dash", "width": 1},
    )  # fmt: skip
    figure.add_scatter(
        row=2, col=column, x=rows["first"], y=rows["second"], mode="markers", showlegend=False,
        text=rows["of"] + " on " + rows["on"],
        marker={"color": COLOURS[part], "size": 4, "opacity": 0.4},
    )  # fmt: skip
    title = f"one half, {NATS}: r = {both.corr().iloc[0, 1]:.2f}"
    figure.update_xaxes(title=title, range=[-far, far], row=2, col=column)
    figure.update_yaxes(title="the other half", range=[-far, far], row=2, col=column)


def _add_relations(figure: "Figure", relations: pd.DataFrame, part: str, column: int) -> None:
    others = relations[relations["relation"] != OWN].sort_values("influence")
    words = others["relation"].str.replace("the same ", "the same<br>")
    figure.add_scatter(
        row=2, col=column, x=others["null"], y=words, mode="markers",
        name=f"{TITLES[part]}, by chance (95 %)", error_x={"array": 1.96 * others["null_sd"]},
        marker={"color": COLOURS[part], "symbol": "circle-open", "size": 9},
    )  # fmt: skip
    figure.add_scatter(
        row=2, col=column, x=others["influence"], y=words, mode="markers", name=TITLES[part],
        marker={"color": COLOURS[part], "size": 10}, customdata=others[["pairs", "p"]],
        hovertemplate="%{x:.3f} nats over %{customdata[0]} pairs, p %{customdata[1]:.2f}"
        "<extra></extra>",
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
        textfont={"size": 11}, colorbar={"title": "nats", "len": 0.5, "y": 0.76, "thickness": 12},
        hovertemplate="%{y},%{x}: %{z:.2f} nats<extra></extra>",
    )  # fmt: skip

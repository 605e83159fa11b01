"""The holdout atlas: maps of the operands by size, and what strata of them come to."""

from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.figures.style import GREY, OKABE_ITO, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DIGITS = list(range(10))


def atlas_maps(cells: pd.DataFrame) -> "Figure":
    """How often each held-out equation is answered: a map of the operands by size and operator.

    Equations whose answer no seen one has are marked; the baselines' maps stand beside.

    Args:
        cells: as `cells_table` has it.
    """
    from plotly.subplots import make_subplots

    sizes = list(dict.fromkeys(cells["size"]))
    one = cells[cells["size"] == sizes[0]]
    maps = {size: (cells[cells["size"] == size], "share") for size in sizes}
    maps |= {"nearest seen equation": (one, "nearest"), "additive model": (one, "additive")}
    signs = {"+": "a + b", "-": "a − b"}
    figure = make_subplots(
        rows=2, cols=len(maps), shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.015,
        vertical_spacing=0.05, column_titles=list(maps), row_titles=list(signs.values()),
    )  # fmt: skip
    for column, (name, (table, shown)) in enumerate(maps.items(), 1):
        for row, sign in enumerate(signs, 1):
            mine = table[table["operator"] == sign]
            grids = [
                mine.pivot(index="a", columns="b", values=value).reindex(
                    index=DIGITS, columns=DIGITS
                )
                for value in (shown, "models")
            ]
            figure.add_heatmap(
                z=grids[0], x=DIGITS, y=DIGITS, coloraxis="coloraxis", customdata=grids[1],
                xgap=1, ygap=1, row=row, col=column,
                hovertemplate=f"{name}: %{{y}} {sign} %{{x}}, %{{z:.2f}} of %{{customdata}}"
                "<extra></extra>",
            )  # fmt: skip
            gone = mine[mine["gone"]]
            figure.add_scatter(
                x=gone["b"], y=gone["a"], mode="markers", hoverinfo="skip", row=row, col=column,
                name="no seen equation has its answer", showlegend=row == column == 1,
                marker={"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": ORANGE}},
            )  # fmt: skip
    figure.update_xaxes(dtick=1, range=[-0.5, 9.5], constrain="domain", ticks="")
    figure.update_yaxes(dtick=1, range=[9.5, -0.5], ticks="")
    figure.update_xaxes(title="b", row=2)
    figure.update_yaxes(title="a", col=1)
    return figure.update_layout(
        template="simple_white", width=110 + 205 * len(maps), height=540, font={"size": 12},
        coloraxis={"colorscale": "Cividis", "cmin": 0, "cmax": 1,
                   "colorbar": {"title": "share of<br>models right", "x": 1.04}},
        legend={"orientation": "h", "y": -0.11, "yanchor": "top"},
        plot_bgcolor="#dddddd", margin={"l": 50, "r": 60, "t": 30, "b": 80},
    )  # fmt: skip


def atlas_strata(strata: pd.DataFrame) -> "Figure":
    """What is answered by stratum and size; and what a doubling of width does there.

    Args:
        strata: as `strata_table` has it.
    """
    from plotly.subplots import make_subplots

    names = list(dict.fromkeys(strata["stratum"]))
    sizes = list(dict.fromkeys(strata["size"]))
    counts = strata.groupby("stratum")["pairs"].max()
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.6, 0.4], horizontal_spacing=0.03
    )
    for number, size in enumerate(sizes):
        mine = strata[strata["size"] == size]
        height = (number - (len(sizes) - 1) / 2) * 0.22
        figure.add_scatter(
            x=mine["share"], y=mine["stratum"].map(names.index) + height, mode="markers",
            name=size, marker={"color": OKABE_ITO[number], "size": 8},
            error_x=_bars(mine["share"], mine["low"], mine["high"]),
            hovertemplate=f"{size} %{{x:.2f}}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    one = strata[strata["size"] == sizes[0]]
    places = one["stratum"].map(names.index)
    for name, symbol in (("nearest", "circle-open"), ("additive", "diamond-open")):
        figure.add_scatter(
            x=one[name], y=places, mode="markers", row=1, col=1,
            name={"nearest": "nearest seen equation", "additive": "additive model"}[name],
            marker={"symbol": symbol, "color": GREY, "size": 9, "line": {"width": 1.5}},
            hovertemplate="%{x:.2f}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=one["slope"], y=places, mode="markers", row=1, col=2, name="pairs' own slopes",
        marker={"color": "#000000", "size": 8, "symbol": "square"}, showlegend=False,
        error_x=_bars(one["slope"], one["slope_low"], one["slope_high"]),
        hovertemplate="%{x:+.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[0, 0], y=[-0.5, len(names) - 0.5], mode="lines", line={"color": GREY, "width": 1},
        showlegend=False, hoverinfo="skip", row=1, col=2,
    )  # fmt: skip
    labels = [f"{name} ({counts[name]} pairs)" for name in names]
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=labels, range=[len(names) - 0.5, -0.5],
        showgrid=True, automargin=True,
    )  # fmt: skip
    reach = one[["slope_low", "slope_high"]].abs().max().max()
    figure.update_xaxes(title="share of held-out equations right", range=[-0.04, 1.04], col=1)
    figure.update_xaxes(
        title="change of share a doubling of width", range=[-1.1 * reach, 1.1 * reach], col=2
    )
    return figure.update_layout(
        template="simple_white", width=980, height=150 + 40 * len(names), font={"size": 13},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"l": 20, "r": 20, "t": 40, "b": 50},
    )  # fmt: skip


def _bars(mean: pd.Series, low: pd.Series, high: pd.Series) -> dict:
    return {"array": high - mean, "arrayminus": mean - low, "thickness": 1.5, "width": 3}

"""How the values of operands lie: maps, distances and spectra, and measures beside nulls."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.figures.patching import short
from tbtt_interp.figures.style import BLUE, GREY, OKABE_ITO

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MEASURES = {"number line": "number line, share", "distance order": "distance order, rank corr.",
            "effective rank": "effective rank", "alignment": "alignment of a and b, cosine",
            "cka": "CKA of a and b"}  # fmt: skip
NULL_MARKS = (("null", "random order, or vectors", "x-thin-open"),
              ("untrained", "untrained", "circle-open"))  # fmt: skip


def code_layouts(
    points: pd.DataFrame,
    pairs: pd.DataFrame,
    table: pd.DataFrame,
    seed: int | None = None,
    site: str | None = None,
) -> "Figure":
    """The embeddings' code and the operands' at one site: a map, distances and a spectrum.

    Maps are on the first two principal components. They and distances are one model's; spectra are
    over models.

    Args:
        points, pairs: as `layout_tables` has them.
        table: as `geometry_table` has it.
        seed: None is the first.
        site: None is the middle of the last layer, where both operands are first together.
    """
    from plotly.subplots import make_subplots

    seed = points["seed"].iloc[0] if seed is None else seed
    sites = [s for s in points["site"].unique() if s.endswith("resid_mid")] or [
        points["site"].iloc[-1]
    ]
    site = sites[-1] if site is None else site
    mine = points[(points["seed"] == seed) & points["site"].isin(["hook_embed", site])]
    pairs = pairs[pairs["seed"] == seed]
    spectra = table[(table["measure"] == "spectrum") & (table["dimensions"] == table["width"])]
    keys = list(dict.fromkeys(zip(mine["site"], mine["code"], strict=True)))
    names = [f"{code}, {short(where)}" for where, code in keys]
    figure = make_subplots(
        rows=3, cols=len(keys), subplot_titles=names, row_heights=[0.36, 0.36, 0.28],
        horizontal_spacing=0.045, vertical_spacing=0.09,
    )  # fmt: skip
    for column, (where, code) in enumerate(keys, 1):
        some = mine[(mine["site"] == where) & (mine["code"] == code)]
        figure.add_scatter(
            x=some["x"], y=some["y"], mode="lines+markers+text", showlegend=False,
            text=some["value"].map("{:g}".format), textposition="middle center",
            textfont={"size": 11}, line={"color": GREY, "width": 1},
            marker={"size": 17, "color": some["value"], "colorscale": "Tealrose", "opacity": 0.9},
            hovertemplate="%{text}: %{x:.2f}, %{y:.2f}<extra></extra>", row=1, col=column,
        )  # fmt: skip
        for axis, update in (("x", figure.update_xaxes), ("y", figure.update_yaxes)):
            share = some[f"{axis}_share"].iloc[0]
            number = 1 if axis == "x" else 2
            update(title=f"PC {number}, {share:.0%}", title_standoff=2, row=1, col=column)
        figure.update_yaxes(scaleanchor=f"x{column}", row=1, col=column)  # a flat curve looks flat
        some = pairs[(pairs["site"] == where) & (pairs["code"] == code)]
        grid = some.pivot(index="value", columns="other", values="distance")
        figure.add_heatmap(
            z=grid / grid.to_numpy().max(), x=grid.columns, y=grid.index, coloraxis="coloraxis",
            hovertemplate="%{y:g} and %{x:g}: %{z:.2f}<extra></extra>", row=2, col=column,
        )  # fmt: skip
        figure.update_xaxes(dtick=1, title="value", title_standoff=2, row=2, col=column)
        figure.update_yaxes(dtick=1, autorange="reversed", row=2, col=column)
        some = spectra[(spectra["site"] == where) & (spectra["code"] == code)]
        figure.add_bar(
            x=some["component"], y=some["value"], marker={"color": BLUE}, name="models, 95 %",
            error_y={"array": some["high"] - some["value"],
                     "arrayminus": some["value"] - some["low"], "thickness": 1.5},
            showlegend=column == 1, legendgroup="models", row=3, col=column,
        )  # fmt: skip
        for null, words, mark in NULL_MARKS:
            figure.add_scatter(
                x=some["component"], y=some[null], mode="markers", name=words,
                marker={"symbol": mark, "size": 8, "color": "black", "line": {"width": 1.5}},
                showlegend=column == 1, legendgroup=null, row=3, col=column,
            )  # fmt: skip
        figure.update_xaxes(
            dtick=1, title="turns over the values", title_standoff=2, row=3, col=column
        )
        figure.update_yaxes(range=[0, 1], row=3, col=column)
    figure.update_yaxes(title="value", title_standoff=2, row=2, col=1)
    figure.update_yaxes(title="share of variance", row=3, col=1)
    return figure.update_layout(
        template="simple_white", width=160 + 220 * len(keys), height=820, font={"size": 12},
        title={"text": f"Maps and distances of seed {seed}; spectra of all", "font": {"size": 15}},
        coloraxis={"colorscale": "Viridis", "cmin": 0,
                   "colorbar": {"title": "distance<br>of greatest", "len": 0.36, "y": 0.53}},
        legend={"orientation": "h", "y": -0.07, "yanchor": "top"},
        margin={"t": 90, "l": 60, "r": 20, "b": 80},
    )  # fmt: skip


def code_measures(table: pd.DataFrame, dimensions: int) -> "Figure":
    """Every code's measures over models, beside nulls: of one run as it is, of several as equals.

    Args:
        table: as `compare_geometry` has it.
        dimensions: in which several runs, or one and its projection, are compared.
    """
    from plotly.subplots import make_subplots

    several = table["run"].nunique() > 1
    if several:
        table = table[table["dimensions"] == dimensions]
    groups = {
        str(run).rpartition("/")[2] if several else f"{count} dimensions": rows
        for (run, count), rows in table.groupby(["run", "dimensions"], sort=False)
    }
    figure = make_subplots(
        rows=1, cols=len(MEASURES), subplot_titles=list(MEASURES.values()),
        horizontal_spacing=0.015, shared_yaxes=True,
    )  # fmt: skip
    names = table["code"] + ", " + table["site"].map(short)
    order = list(dict.fromkeys(names))
    for number, (group, rows) in enumerate(groups.items()):
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        for column, measure in enumerate(MEASURES, 1):
            some = rows[rows["measure"] == measure]
            y = [order.index(f"{code}, {short(site)}") + 0.8 * ((number + 0.5) / len(groups) - 0.5)
                 for code, site in zip(some["code"], some["site"], strict=True)]  # fmt: skip
            for null, words, mark in NULL_MARKS:
                figure.add_scatter(
                    x=some[null], y=y, mode="markers", name=words,
                    marker={"symbol": mark, "size": 8, "color": colour, "line": {"width": 1.5}},
                    legendgroup=null, legendrank=1001, row=1, col=column,
                    showlegend=column == 1 and number == 0,
                )  # fmt: skip
            figure.add_scatter(
                x=some["value"], y=y, mode="markers", name=f"{group}, 95 %",
                marker={"size": 9, "color": colour}, legendgroup=group,
                error_x={"array": some["high"] - some["value"],
                         "arrayminus": some["value"] - some["low"], "thickness": 1.5},
                customdata=np.stack([some["p"]], -1),
                hovertemplate="%{x:.2f}, p %{customdata[0]:.3f}", row=1, col=column,
                showlegend=column == 1,
            )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(order))), ticktext=order, range=[len(order) - 0.5, -0.5],
        showgrid=True,
    )  # fmt: skip
    figure.update_xaxes(zeroline=True, zerolinecolor=GREY)
    height = len(order) * (16 + 8 * len(groups))
    return figure.update_layout(
        template="simple_white", width=1250, height=height + 170, font={"size": 12},
        title={"text": f"in {dimensions} dimensions" if several else "", "font": {"size": 15}},
        legend={"orientation": "h", "y": 1 + 40 / height, "yanchor": "bottom"},
        margin={"t": 130, "l": 20, "r": 20, "b": 40},
    )  # fmt: skip

"""What is measured of every size and framing, side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.figures.style import BLUE, GREEN, GREY, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FRAMINGS = {"file": (ORANGE, "circle"), "shuffled": (BLUE, "square"), "line": (GREEN, "diamond")}
MARKS = ("line-ew-open", "x-thin-open", "circle-open", "triangle-up-open", "cross-thin-open")
IN_A_ROW = 3  # panels
APART = 0.24  # framings of one size, where sizes are 1 apart


def by_size(
    means: pd.DataFrame,
    seeds: pd.DataFrame | None = None,
    *,
    title: str,
    nulls: Mapping[str, str],
) -> "Figure":
    """Each size and framing, its mean with 95 % over models, and its nulls beside it.

    Colours are framings, small dots are models, and the legend names the nulls.

    Args:
        means: a row an arm and `panel`: size, width, layers, framing, value, low, high, its nulls.
        seeds: a row a model with `value`, drawn as dots; None draws none.
        title: of the axis, with its unit.
        nulls: of the columns that are nulls the words.
    """
    from plotly.subplots import make_subplots

    order = means.sort_values(["layers", "width"], kind="stable")
    sizes = {size: k for k, size in enumerate(dict.fromkeys(order["size"]))}
    panels = list(dict.fromkeys(means["panel"]))
    known = [framing for framing in FRAMINGS if framing in set(means["framing"])]
    columns = min(IN_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=panels, shared_yaxes=True,
        horizontal_spacing=0.03, vertical_spacing=0.26 / rows,
    )  # fmt: skip

    def across(table: pd.DataFrame, framing: str) -> np.ndarray:
        middle = known.index(framing) - (len(known) - 1) / 2
        return table["size"].map(sizes).to_numpy(float) + APART * middle

    seen: set[str] = set()
    for number, panel in enumerate(panels):
        place = {"row": 1 + number // columns, "col": 1 + number % columns}

        def once(name: str) -> dict[str, object]:
            is_new = name not in seen
            seen.add(name)
            return {"name": name, "legendgroup": name, "showlegend": is_new}

        mine = means[means["panel"] == panel]
        for framing in known:
            some, (colour, mark) = mine[mine["framing"] == framing], FRAMINGS[framing]
            if some.empty:
                continue
            if seeds is not None:
                dots = seeds[(seeds["panel"] == panel) & (seeds["framing"] == framing)]
                figure.add_scatter(
                    x=across(dots, framing), y=dots["value"], mode="markers", showlegend=False,
                    marker={"color": colour, "size": 4.5, "opacity": 0.4}, **place,
                    text=dots["seed"], legendgroup=f"on {framing}",
                    hovertemplate="seed %{text}: %{y:.3f}<extra></extra>",
                )  # fmt: skip
            for (name, words), null in zip(nulls.items(), MARKS, strict=False):
                figure.add_scatter(
                    x=across(some, framing), y=some[name], mode="markers", **once(words), **place,
                    marker={"symbol": null, "color": GREY, "size": 9, "line": {"width": 1.6}},
                    text=some["label"],
                    hovertemplate=words + " of %{text}: %{y:.3f}<extra></extra>",
                )  # fmt: skip
            figure.add_scatter(
                x=across(some, framing), y=some["value"], mode="markers", **once(f"on {framing}"),
                marker={"symbol": mark, "color": colour, "size": 10}, **place,
                error_y={"array": some["high"] - some["value"],
                         "arrayminus": some["value"] - some["low"], "thickness": 1.8, "width": 5},
                text=some["label"],
                customdata=some[["low", "high", "models"]],
                hovertemplate="%{text}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
                "<br>%{customdata[2]} models<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(sizes.values()), ticktext=list(sizes), range=[-0.6, len(sizes) - 0.4],
    )  # fmt: skip
    figure.update_yaxes(showgrid=True, zeroline=True, zerolinecolor="#bbbbbb")
    figure.update_yaxes(title=title, col=1)
    above = 85 if len(nulls) + len(known) <= IN_A_ROW * 2 else 110  # the legend in two lines
    height = above + 65 + 250 * rows
    return figure.update_layout(
        template="simple_white", width=120 + max(2, columns) * 290, height=height,
        legend={"orientation": "h", "y": 1 + 40 / (height - above - 45), "yanchor": "bottom",
                "traceorder": "normal"},
        margin={"l": 70, "r": 20, "t": above, "b": 45}, font={"size": 13},
    )  # fmt: skip

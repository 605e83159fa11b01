"""Findings of several analyses, or of several checkpoints, each beside its null."""

from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.figures.style import GREY, OKABE_ITO, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

RANKED = 40  # findings of an overview, furthest from their nulls
DRAWN = 7  # lines, those furthest from their nulls


def findings_over_steps(table: pd.DataFrame) -> "Figure":
    """What was found at the last checkpoint, over training; nulls dashed.

    Args:
        table: a row a `step` and finding: what, effect, low, high, null.
    """
    from plotly.graph_objects import Figure

    last = table[table["step"] == table["step"].max()]
    far = (last["effect"] - last["null"]).abs().sort_values(ascending=False).index
    figure = Figure()
    for number, what in enumerate(last.loc[far, "what"].head(DRAWN)):
        rows = table[table["what"] == what].sort_values("step")
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        figure.add_scatter(
            x=rows["step"], y=rows["effect"], mode="lines+markers", name=what,
            legendgroup=what, line={"color": colour},
            error_y={"array": rows["high"] - rows["effect"], "thickness": 1,
                     "arrayminus": rows["effect"] - rows["low"]},
        )  # fmt: skip
        figure.add_scatter(
            x=rows["step"], y=rows["null"], mode="lines", name=f"its null: {what}",
            legendgroup=what, showlegend=False, line={"color": colour, "dash": "dot", "width": 1},
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    figure.update_xaxes(title="training step")
    figure.update_yaxes(title="effect, and its null dotted (shares)")
    return figure.update_layout(
        template="simple_white",
        width=900,
        height=430 + 22 * DRAWN,
        legend={"orientation": "h", "y": -0.18, "yanchor": "top", "entrywidth": 0.98,
                "entrywidthmode": "fraction"},
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        font={"size": 12},
    )  # fmt: skip


def overview(table: pd.DataFrame) -> "Figure":
    """What all analyses found, furthest from its null first; the first RANKED.

    Args:
        table: a row a finding, with the name of its `analysis`: what, effect, low, high, null.
    """
    from plotly.graph_objects import Figure

    figure, table = Figure(), table.head(RANKED)
    names = table["analysis"] + ": " + table["what"] + " … of " + table["of"]
    figure.add_scatter(
        x=table["null"], y=names, mode="markers", name="its null", customdata=table[["null_is"]],
        hovertemplate="%{customdata[0]}: %{x:.2f}<extra></extra>",
        marker={"symbol": "circle-open", "color": GREY, "size": 9, "line": {"width": 1.5}},
    )  # fmt: skip
    figure.add_scatter(
        x=table["effect"], y=names, mode="markers", name="found, 95 %", customdata=table[["of"]],
        hovertemplate="%{x:.2f} of %{customdata[0]}<extra></extra>",
        marker={"color": ORANGE, "size": 9},
        error_x={"array": table["high"] - table["effect"], "thickness": 1,
                 "arrayminus": table["effect"] - table["low"]},
    )  # fmt: skip
    figure.update_yaxes(range=[len(table) - 0.5, -0.5], showgrid=True, automargin=True)
    figure.update_xaxes(title="share of all there could be")
    return figure.update_layout(
        template="simple_white",
        width=1250,
        height=150 + 22 * len(table),
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"l": 20, "r": 20, "t": 40, "b": 50},
        font={"size": 12},
    )

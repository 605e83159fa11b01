"""What each stream says of an answer, and what each part writes towards it."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.figures.patching import short
from tbtt_interp.figures.style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = {"seen": BLUE, "held out": ORANGE}
ACROSS = 3  # panels in a row
SOURCES = 7  # places that attention reads from


def _panels(
    table: pd.DataFrame, tall: int, below: int
) -> tuple["Figure", dict[str, dict[str, int]]]:
    """A panel a role, whole answers first.

    Args:
        tall, below: pixels of a panel, and of what is written below it.
    """
    from plotly.subplots import make_subplots

    roles = list(dict.fromkeys(table["character"]))
    roles = [roles[-1], *roles[:-1]]
    rows, gap = -(-len(roles) // ACROSS), below + 30
    height = rows * tall + (rows - 1) * gap
    figure = make_subplots(
        rows=rows, cols=min(ACROSS, len(roles)), shared_yaxes=True,
        subplot_titles=["all characters", *roles[1:]],
        horizontal_spacing=0.03, vertical_spacing=gap / height,
    )  # fmt: skip
    figure.update_layout(
        template="simple_white", font={"size": 13}, width=1000, height=height + 90 + below,
        legend={"orientation": "h", "y": 1 + 35 / height, "yanchor": "bottom", "x": 0},
        margin={"t": 90, "b": below, "r": 20},
    )  # fmt: skip
    return figure, {
        role: {"row": k // ACROSS + 1, "col": k % ACROSS + 1} for k, role in enumerate(roles)
    }


def lens_curves(table: pd.DataFrame, metric: str = "right") -> "Figure":
    """How well each stream says the answer, by the character's role, beside nulls.

    Args:
        table: as `lens_table` has it.
        metric: `right`, `log-probability` or `logit difference`.
    """
    rows = table[table["metric"] == metric]
    figure, panels = _panels(rows, tall=230, below=100)
    nulls = {"mismatched": ("another example's stream", "x-thin-open"),
             "untrained": ("untrained", "circle-open")}  # fmt: skip
    for number, (role, panel) in enumerate(panels.items()):
        for split, colour in COLOURS.items():
            some = rows[(rows["character"] == role) & (rows["split"] == split)]
            x = [short(stream) for stream in some["stream"]]
            for null, (words, mark) in nulls.items():
                figure.add_scatter(
                    x=x, y=some[null], name=words, mode="lines+markers", opacity=0.7,
                    line={"color": colour, "dash": "dot", "width": 1},
                    marker={"symbol": mark, "size": 8, "line": {"width": 1.5}}, legendrank=1001,
                    legendgroup=null, showlegend=number == 0 and split == "seen", **panel,
                )  # fmt: skip
            figure.add_scatter(
                x=x, y=some["value"], name=f"{split}, 95 %", mode="lines+markers",
                line={"color": colour, "width": 2.5}, marker={"size": 8},
                error_y={"array": some["high"] - some["value"],
                         "arrayminus": some["value"] - some["low"], "thickness": 1.5, "width": 3},
                customdata=some["characters"], legendgroup=split, showlegend=number == 0,
                hovertemplate="%{x}<br>%{y:.3f}, %{customdata} characters a model", **panel,
            )  # fmt: skip
    words = {"right": "share right", "log-probability": "log-probability, nats"}
    figure.update_yaxes(title=words.get(metric, "logit difference, nats"), col=1)
    return figure.update_xaxes(tickangle=-60)


def attribution_bars(table: pd.DataFrame) -> "Figure":
    """What each pooled part writes towards the answer, by the character's role, beside nulls.

    If there is one layer, it is shown where attention reads from: the places that write most.

    Args:
        table: as `attribution_table` has it.
    """
    rows = table[table["seed"].isna() & (table["kind"] != "logit difference")]
    of_answer = rows[rows["pos"].notna() & (rows["character"] == "answer")]
    sources = of_answer.groupby("part")["effect"].agg(lambda effect: effect.abs().max())
    most = sources.nlargest(SOURCES if rows["layer"].nunique() == 1 else 0).index
    rows = rows[rows["pos"].isna() | rows["part"].isin(most)]
    rows = rows[rows.groupby("part")["effect"].transform(lambda effect: effect.any())]
    figure, panels = _panels(rows, tall=24 * rows["part"].nunique(), below=50)
    nulls = {"mismatched": ("another example's character", "x-thin-open"),
             "untrained": ("untrained", "circle-open")}  # fmt: skip
    for number, (role, panel) in enumerate(panels.items()):
        for split, colour in COLOURS.items():
            some = rows[(rows["character"] == role) & (rows["split"] == split)]
            figure.add_bar(
                y=some["part"], x=some["effect"], name=f"{split}, 95 %", orientation="h",
                marker={"color": colour}, offsetgroup=split, legendgroup=split,
                error_x={"array": some["high"] - some["effect"],
                         "arrayminus": some["effect"] - some["low"], "thickness": 1.5, "width": 2},
                customdata=np.stack([some["share"], some["mismatched"], some["untrained"]], -1),
                hovertemplate="%{y}<br>%{x:+.2f} nats, share %{customdata[0]:.2f}<br>another "
                "example's character %{customdata[1]:+.2f}<br>untrained %{customdata[2]:+.2f}",
                showlegend=number == 0, **panel,
            )  # fmt: skip
            for null, (words, mark) in nulls.items():
                figure.add_scatter(
                    y=some["part"], x=some[null], name=words, mode="markers", orientation="h",
                    marker={"symbol": mark, "size": 6, "color": "black", "line": {"width": 1.2}},
                    offsetgroup=split, legendgroup=null, legendrank=1001,
                    showlegend=number == 0 and split == "seen", **panel,
                )  # fmt: skip
    figure.update_yaxes(autorange="reversed").update_layout(scattermode="group")
    return figure.update_xaxes(
        title="nats of logit", title_standoff=4, zeroline=True, zerolinecolor=GREY
    )

"""The order of a file: how much of it is known, what it does to answers, and through what."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.figures.patching import short
from tbtt_interp.figures.style import BLUE, GREEN, GREY, ORANGE
from tbtt_interp.stats import mean_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDE = 16  # places, beyond which grids stand below each other


def _error_bars(by_group: list[list[float]]) -> dict:
    """Of the means of some groups their intervals over models, as plotly has them."""
    found = [mean_over_models(values) for values in by_group]
    return {
        "array": [interval.high - interval.mean for interval in found],
        "arrayminus": [interval.mean - interval.low for interval in found],
        "thickness": 1.5, "width": 5,
    }  # fmt: skip


def order_known(lines: pd.DataFrame, following: pd.DataFrame) -> "Figure":
    """Bits of order that are known, line by line and sorted; and what of the next is foretold.

    Left, each model a line: what it knows of each line's order beside what knowing all would give.
    Right, how often the next line's first operand is foretold, beside what asks no order.

    Args:
        lines: as `line_table` has it.
        following: as `next_table` has it.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=2, column_widths=[0.56, 0.44], horizontal_spacing=0.12,
        subplot_titles=["known of each line", "foretold of the next line"],
    )  # fmt: skip
    seeds = list(dict.fromkeys(lines["seed"]))
    for number, seed in enumerate(seeds):
        mine = lines[lines["seed"] == seed]
        share = (np.arange(len(mine)) + 0.5) / len(mine)
        for name, column, line in (
            ("a model", "bits", {"color": ORANGE, "width": 1.5}),
            ("a model, in a file of another order", "other",
             {"color": BLUE, "width": 1, "dash": "dot"}),
            ("all there is to know", "worth", {"color": "#000000", "width": 1, "dash": "dash"}),
        ):  # fmt: skip
            if number and column == "worth":
                continue  # nearly the same for all
            figure.add_scatter(
                x=share, y=np.sort(mine[column])[::-1], mode="lines", name=name, line=line,
                legendgroup=name, showlegend=number == 0, opacity=0.8,
                hovertemplate=f"seed {seed}, {name}<br>%{{y:.2f}} bits<extra></extra>",
                row=1, col=1,
            )  # fmt: skip
    top = lines["worth"].max()
    figure.update_yaxes(title="bits a line", range=[-1.6 * top, 1.15 * top], row=1, col=1)
    figure.update_xaxes(title="lines, most known first", tickformat=".0%", row=1, col=1)
    groups = list(following.groupby("place", sort=False))
    places = [str(place) for place, _ in groups]
    for name, column, mark, colour in (
        ("commonest character", "majority", "line-ew-open", GREY),
        ("a file of another order", "other", "circle-open", BLUE),
        ("untrained model", "untrained", "diamond-open", "#CC79A7"),
        ("these models", "right", "circle", ORANGE),
    ):
        figure.add_scatter(
            x=places, y=[some[column].mean() for _, some in groups], mode="markers", name=name,
            marker={"symbol": mark, "size": 11, "color": colour,
                    "line": {"width": 0 if column == "right" else 1.8}},
            error_y=_error_bars([some[column].tolist() for _, some in groups])
            if column == "right" else None,
            hovertemplate=f"{name} %{{y:.2f}}<extra></extra>", row=1, col=2,
        )  # fmt: skip
    figure.update_xaxes(title="of the next line", type="category", row=1, col=2)
    figure.update_yaxes(title="share of lines", range=[-0.03, 1.03], row=1, col=2)
    return figure.update_layout(
        template="simple_white", width=1000, height=470, font={"size": 13},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top"},
        margin={"l": 70, "r": 20, "t": 40, "b": 130},
    )  # fmt: skip


def order_answers(table: pd.DataFrame) -> "Figure":
    """What is right after the own line and after others, and how often the answer turns.

    Args:
        table: as `answers_after` has it.
    """
    from plotly.subplots import make_subplots

    panels = {
        "answered": [("seen, after<br>its own line", "seen", "right", ORANGE),
                     ("seen, after<br>another", "seen", "right_others", GREY),
                     ("held-out,<br>after a line", "held-out", "right_others", GREEN)],
        "turned right or wrong": [
            ("seen, own line<br>to another", "seen", "flips", ORANGE),
            ("seen, another<br>to a third", "seen", "flips_others", GREY),
            ("held-out, one<br>to another", "held-out", "flips_others", GREEN),
        ],
    }  # fmt: skip
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12, subplot_titles=list(panels))
    for column, kinds in enumerate(panels.values(), 1):
        for words, split, name, colour in kinds:
            some = table[(table["split"] == split) & table[name].notna()]
            if some.empty:
                continue
            values = some.groupby("seed")[name].mean().tolist()
            figure.add_scatter(
                x=[words] * len(values), y=values, mode="markers", showlegend=False,
                marker={"size": 6, "color": colour, "opacity": 0.45},
                hovertemplate="a model %{y:.3f}<extra></extra>", row=1, col=column,
            )  # fmt: skip
            figure.add_scatter(
                x=[words], y=[np.mean(values)], mode="markers", showlegend=False,
                marker={"symbol": "line-ew-open", "size": 26, "color": colour,
                        "line": {"width": 3}},
                error_y=_error_bars([values]),
                hovertemplate="mean %{y:.3f}<extra></extra>", row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(type="category", tickangle=0)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="share of prompts", row=1, col=1)
    figure.update_yaxes(title="share of pairs of lines before", row=1, col=2)
    return figure.update_layout(
        template="simple_white", width=900, height=420, font={"size": 13},
        margin={"l": 70, "r": 20, "t": 40, "b": 60},
    )  # fmt: skip


def order_patching(table: pd.DataFrame) -> "Figure":
    """Which activations bring back what the own line before does, beside those of a third line.

    Args:
        table: as `ending_table` has it.
    """
    from plotly.graph_objects import Heatmap
    from plotly.subplots import make_subplots

    marked = table.assign(
        y=[short(site) + ("" if pd.isna(head) else f".{head}")
           for site, head in zip(table["site"], table["head"], strict=True)]
    )  # fmt: skip
    sites, places = list(dict.fromkeys(marked["y"])), list(dict.fromkeys(marked["place"]))

    def grid(name: str) -> np.ndarray:
        found = marked.pivot(index="y", columns="place", values=name)
        return found.reindex(index=sites, columns=places).to_numpy(float)

    rows, columns = (1, 2) if len(places) <= WIDE else (2, 1)
    figure = make_subplots(
        rows=rows, cols=columns, shared_xaxes=True, shared_yaxes=True,
        horizontal_spacing=0.02, vertical_spacing=0.12,
        subplot_titles=["from the line that it follows", "from a third line (null)"],
    )  # fmt: skip
    hover = np.stack([grid(name) for name in ("low", "high", "effect")], -1)
    for number, name in enumerate(("share", "other")):
        bounds = "<br>from %{customdata[0]:.2f} to %{customdata[1]:.2f}"
        bounds += "<br>effect %{customdata[2]:+.3f} nats an answer"
        figure.add_trace(
            Heatmap(
                z=grid(name), x=places, y=sites, coloraxis="coloraxis", customdata=hover,
                text=grid(name), texttemplate="%{text:.2f}", textfont={"size": 10},
                hovertemplate="%{y} at %{x}<br>share %{z:.2f}"
                + (bounds if name == "share" else "") + "<extra></extra>",
            ),
            row=1 + number // columns, col=1 + number % columns,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(type="category", tickangle=-60)
    whole = table.iloc[0]
    words = (f"{whole['whole']:.3f} [{whole['whole_low']:.3f}, {whole['whole_high']:.3f}] nats an "
             "answer, from another line to the own")  # fmt: skip
    return figure.update_layout(
        template="simple_white",
        title={"text": "Share of what the own line before does for the answer",
               "subtitle": {"text": words}, "font": {"size": 15}},
        coloraxis={"colorscale": "RdBu_r", "cmid": 0, "cmin": -1, "cmax": 1,
                   "colorbar": {"title": "share"}},
        width=240 + columns * max(200, 36 * len(places)),
        height=250 + rows * (20 + 24 * len(sites)),
        margin={"l": 110, "r": 20, "t": 110, "b": 90},
        font={"size": 12},
    )  # fmt: skip

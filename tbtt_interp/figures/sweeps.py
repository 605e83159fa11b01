"""Many models beside each other: a number of each by cell, and what became of it over training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.figures.style import GREY, OKABE_ITO
from tbtt_interp.stats import mean_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = {"file": OKABE_ITO[1], "shuffled": OKABE_ITO[0], "line": OKABE_ITO[2]}
SPREAD = 0.72  # of the room between two places on the axis, for the series that stand there
CURVES = {
    "held_out": "held-out right, share", "seen": "seen right, share",
    "loss": "loss, nats a character", "order_known": "order known, share",
}  # fmt: skip
FLOORS = {"floor_lines": "knows every line", "floor_order": "knows their order, too",
          "floor_line": "knows every line, one at a time"}  # fmt: skip
TICKS = tuple(n * 10**k for k in range(7) for n in (1, 3))


def over_models(
    table: pd.DataFrame,
    *,
    x: str,
    by: str,
    value: str,
    titles: tuple[str, str],
    panel: str | None = None,
    bounds: tuple[float, float] | None = None,
    marks: Mapping[str, Mapping[str, float]] | None = None,
    levels: Mapping[str, float] | None = None,
) -> "Figure":
    """Each model a dot, their mean and its interval beside; places, series and panels in order.

    Args:
        table: a row a model.
        x, by, panel: the columns of the places on the axis, of the series and of the panels.
        titles: of both axes, the second with its unit.
        bounds: of the values; None draws zero, for differences.
        marks: single values by name and place, drawn as diamonds beside the first series.
        levels: lines across, by name.
    """
    from plotly.subplots import make_subplots

    panels = [None] if panel is None else list(dict.fromkeys(table[panel]))
    if table.empty:
        raise TbttError("there is nothing to draw: no models of what is compared are there")
    series = list(dict.fromkeys(table[by].astype(str)))
    widths = [1 if panel is None else table[table[panel] == p][x].nunique() + 0.4 for p in panels]
    figure = make_subplots(
        rows=1, cols=len(panels), column_widths=widths, shared_yaxes=True,
        horizontal_spacing=0.03, subplot_titles=None if panel is None else list(map(str, panels)),
    )  # fmt: skip
    for column, name in enumerate(panels, 1):
        part = table if panel is None else table[table[panel] == name]
        places = list(dict.fromkeys(part[x].astype(str)))
        here = [s for s in series if s in set(part[by].astype(str))]
        for number, one in enumerate(here):
            mine = part[part[by].astype(str) == one]
            shift = SPREAD * ((number + 0.5) / len(here) - 0.5)
            spread = SPREAD / len(here) / 3
            _series(figure, mine, x, value, places, (shift, spread), bounds, one, column,
                    COLOURS.get(one, OKABE_ITO[series.index(one) % len(OKABE_ITO)]))  # fmt: skip
        for words, given in (marks or {}).items() if column == 1 else ():
            where = [place for place in places if place in given]
            figure.add_scatter(
                x=[places.index(place) - SPREAD / 2 - 0.06 for place in where],
                y=[given[place] for place in where],
                mode="markers", name=words, row=1, col=column,
                marker={"symbol": "diamond-open", "size": 12, "color": "#000000",
                        "line": {"width": 1.8}},
            )  # fmt: skip
        for words, level in (levels or {}).items():
            figure.add_scatter(
                x=[-0.55, len(places) - 0.45], y=[level, level], mode="lines", name=words,
                line={"color": GREY, "dash": "dash", "width": 1.5}, row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(
            tickvals=list(range(len(places))), ticktext=places, title=titles[0],
            range=[-0.55, len(places) - 0.45], row=1, col=column,
        )  # fmt: skip
    if bounds is None:
        figure.add_hline(y=0, line={"color": GREY, "width": 1})
    else:
        figure.update_yaxes(range=[bounds[0] - 0.06, bounds[1] + 0.06])
    figure.update_yaxes(title=titles[1], row=1, col=1)
    _name_once(figure)
    return figure.update_layout(
        template="simple_white", width=max(720, 240 + 64 * int(sum(widths))), height=440,
        font={"size": 13}, legend={"orientation": "h", "y": 1.12, "yanchor": "bottom"},
        margin={"l": 70, "r": 20, "t": 80, "b": 60},
    )  # fmt: skip


def _name_once(figure: "Figure") -> None:
    """Each name once in the legend, whichever panel has it first."""
    named: set[str] = set()

    def keep(trace: Any) -> None:
        if trace.showlegend is not False:
            trace.update(showlegend=trace.name not in named)
            named.add(trace.name)

    figure.for_each_trace(keep)


def _series(
    figure: "Figure", mine: pd.DataFrame, x: str, value: str, places: list[str],
    room: tuple[float, float], bounds: tuple[float, float] | None, name: str, column: int,
    colour: str,
) -> None:  # fmt: skip
    """One series' models as dots, and their means; room is where it stands, and how far it goes."""
    shift, spread = room
    means: dict[str, list[float]] = {"x": [], "y": [], "up": [], "down": []}
    for place, some in mine.groupby(mine[x].astype(str), sort=False):
        values = some[value].dropna().astype(float).tolist()
        if not values:
            continue
        at = places.index(str(place)) + shift
        found = mean_over_models(values, bounds=bounds or (-np.inf, np.inf))
        for key, number in zip(
            means, (at, found.mean, found.high - found.mean, found.mean - found.low), strict=True
        ):
            means[key].append(number)
        figure.add_scatter(
            x=at + np.linspace(-spread, spread, len(values)), y=values, mode="markers",
            marker={"size": 5, "color": colour, "opacity": 0.5}, showlegend=False, name=name,
            legendgroup=name, row=1, col=column,
            hovertemplate=f"{name}, a model: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=means["x"], y=means["y"], mode="markers", name=name, legendgroup=name, row=1, col=column,
        marker={"symbol": "line-ew-open", "size": 10, "color": colour, "line": {"width": 3}},
        error_y={"array": means["up"], "arrayminus": means["down"], "thickness": 1.8, "width": 4},
        hovertemplate=f"{name}, mean: %{{y:.3f}}<extra></extra>",
    )  # fmt: skip


def curves_over_training(
    table: pd.DataFrame, *, panel: str = "size", by: str = "framing"
) -> "Figure":
    """Answers, loss and order over training: each model a thin line, their mean a thick one.

    Colours are framings; dashed lines in the loss are exact floors of who knows so much.

    Args:
        table: a row a model and evaluation: `step`, `seed`, `held_out` and `seen` (shares), `loss`
            and its floors (nats a character), `order_known`, and the columns of panels and series.
    """
    from plotly.subplots import make_subplots

    rows = [name for name in CURVES if name in table and table[name].notna().any()]
    panels = list(dict.fromkeys(table[panel]))
    series = list(dict.fromkeys(table[by].astype(str)))
    figure = make_subplots(
        rows=len(rows), cols=len(panels), shared_xaxes=True, shared_yaxes=True,
        vertical_spacing=0.03, horizontal_spacing=0.025, subplot_titles=list(map(str, panels)),
    )  # fmt: skip
    for column, name in enumerate(panels, 1):
        part = table[table[panel] == name]
        for one in series:
            mine = part[part[by].astype(str) == one]
            colour = COLOURS.get(one, OKABE_ITO[series.index(one) % len(OKABE_ITO)])
            for row, what in enumerate(rows, 1):
                if mine[what].notna().any():
                    _curves(figure, mine, what, one, colour, row, column)
        _draw_floors(figure, part, rows.index("loss") + 1, column)
    floors = [name for name in FLOORS if name in table]
    low = table[["loss", *floors]].min().min()
    high = table.loc[table["step"] > 0, "loss"].quantile(0.9)
    for row, what in enumerate(rows, 1):
        bounds = [low - 0.08, max(high, low + 0.4)] if what == "loss" else [-0.05, 1.05]
        figure.update_yaxes(range=bounds, row=row)
        figure.update_yaxes(title=CURVES[what].replace(", ", ",<br>"), row=row, col=1)
    first = table.loc[table["step"] > 0, "step"].min()
    ticks = [tick for tick in TICKS if first <= tick <= table["step"].max()]
    figure.update_xaxes(
        type="log", range=np.log10([first, table["step"].max()]), tickvals=ticks,
        ticktext=[f"{t:,}" for t in ticks],
    )  # fmt: skip
    figure.update_xaxes(title="training step, log scale", row=len(rows))
    _name_once(figure)
    return figure.update_layout(
        template="simple_white", width=140 + 310 * len(panels), height=110 + 175 * len(rows),
        font={"size": 13}, legend={"orientation": "h", "y": 1.04, "yanchor": "bottom"},
        margin={"l": 80, "r": 20, "t": 80, "b": 50},
    )  # fmt: skip


def _curves(
    figure: "Figure", mine: pd.DataFrame, what: str, name: str, colour: str, row: int, column: int
) -> None:
    seeds = mine[mine["step"] > 0].pivot(index="step", columns="seed", values=what)
    thin = seeds.reindex([*seeds.index, seeds.index[-1] + 1])  # a gap between two models' lines
    figure.add_scatter(
        x=np.tile(thin.index, seeds.shape[1]), y=thin.to_numpy().T.ravel(), mode="lines",
        line={"color": colour, "width": 0.7}, opacity=0.3, showlegend=False, legendgroup=name,
        hoverinfo="skip", connectgaps=False, row=row, col=column,
    )  # fmt: skip
    mean = seeds.mean(axis=1)
    figure.add_scatter(
        x=mean.index, y=mean, mode="lines", line={"color": colour, "width": 2.6}, name=name,
        legendgroup=name, row=row, col=column,
        hovertemplate=f"{name}, step %{{x:,}}: %{{y:.3f}}<extra></extra>",
    )  # fmt: skip


def _draw_floors(figure: "Figure", part: pd.DataFrame, row: int, column: int) -> None:
    """The losses that knowledge of a panel's lines, and of their order, allows."""
    is_line = part["framing"] == "line"
    needed = {"floor_lines": ~is_line, "floor_order": part["framing"] == "file",
              "floor_line": is_line}  # fmt: skip
    ends = [part.loc[part["step"] > 0, "step"].min(), part["step"].max()]
    for name in (name for name in FLOORS if name in part and needed[name].any()):
        level = part.loc[needed[name], name].mean()
        figure.add_scatter(
            x=ends, y=[level, level], mode="lines+text", text=[f" {FLOORS[name]}", ""],
            textposition="bottom right", textfont={"color": GREY, "size": 11}, hoverinfo="skip",
            line={"color": GREY, "dash": "dot", "width": 1.3}, showlegend=False,
            row=row, col=column,
        )  # fmt: skip

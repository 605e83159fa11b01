"""Maps of cells and bars as the explorer has them: small, to be pointed at."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tbtt_interp.plots import BLUE, COLOURS, GREY, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

AXIS = {"showline": True, "linecolor": "#242424", "ticks": "outside", "automargin": True,
        "zeroline": False, "showgrid": False, "title": {"standoff": 8}}  # fmt: skip
# Like plotly's simple_white, of which a figure that is drawn anew at every click is half its time.
PLAIN = {"layout": {"paper_bgcolor": "white", "plot_bgcolor": "white", "xaxis": AXIS,
                    "yaxis": AXIS, "font": {"color": "#242424"}}}  # fmt: skip
FEW = 160  # cells in which their values are written
TALL = 25  # pixels of a row


def cell_map(
    table: pd.DataFrame,
    *,
    titles: tuple[str, str],
    unit: str,
    signed: bool = False,
    bounds: tuple[float, float] | None = None,
    hover: Mapping[str, str] | None = None,
) -> "Figure":
    """A value at each row and column: from 0 in blues, or to both sides of 0.

    Args:
        table: a row a cell: `row` and `column` (numbers), `row_name` and `column_name`, `value`,
            and the `text` to write in it, if not the value; a `mark` is written instead; `act`,
            what a click does, is the first of its point's customdata.
        titles: of the rows and of the columns.
        unit: of the value.
        bounds: of the colours; None is those of the values.
        hover: by column what is said where one hovers, as in {"null": "null %{…:.2f}"}, in
            plotly's own words with … for the value.
    """
    from plotly.graph_objects import Figure, Heatmap

    rows, columns = (_names(table, axis) for axis in ("row", "column"))

    def grid(name: str) -> np.ndarray:
        found = table.pivot(index="row", columns="column", values=name)
        return found.reindex(index=list(rows), columns=list(columns)).to_numpy()

    values = grid("value").astype(float)
    text = grid("text") if "text" in table else np.full(values.shape, "", object)
    if "text" not in table and values.size <= FEW:
        text = np.where(np.isnan(values), "", np.char.mod("%.2f", values))
    if "mark" in table:
        marks = grid("mark")
        text = np.where(pd.isna(marks) | (marks == ""), text, marks)
    names = np.array([[f"{r}</b>, {titles[1]} <b>{c}" for c in columns.values()]
                      for r in rows.values()], object)  # fmt: skip
    act = grid("act") if "act" in table else np.full(values.shape, "", object)
    said = {"act": np.where(pd.isna(act), "", act), "names": names}
    said |= {name: grid(name) for name in hover or {}}
    words = "".join(
        "<br>" + line.replace("…", f"customdata[{k}]")
        for k, line in enumerate((hover or {}).values(), 2)
    )
    low, high = bounds or (0.0, float(np.nanmax(np.abs(values), initial=0)) or 1.0)
    trace = Heatmap(
        z=values, x=list(columns), y=list(rows), text=np.where(pd.isna(text), "", text),
        texttemplate="%{text}", textfont={"size": 11}, xgap=1, ygap=1,
        customdata=np.stack(list(said.values()), -1),
        colorscale="RdBu_r" if signed else "Blues",
        zmin=-high if signed else low, zmax=high, zmid=0 if signed else None,
        hovertemplate=f"{titles[0]} <b>%{{customdata[1]}}</b><br>{unit} %{{z:.3f}}{words}"
        "<extra></extra>",
        colorbar={"thickness": 10, "title": {"text": unit, "side": "right"}, "len": 1},
    )  # fmt: skip
    plain = {"ticks": "", "showline": False}
    is_long = max(map(len, columns.values()), default=0) > 3
    return Figure(
        trace,
        _layout(
            130 + max(4, len(rows)) * TALL,
            yaxis=plain | {"tickvals": list(rows), "ticktext": list(rows.values()),
                           "title": titles[0], "autorange": "reversed"},
            xaxis=plain | {"tickvals": list(columns), "ticktext": list(columns.values()),
                           "title": titles[1], "tickangle": -40 if is_long else 0},
        ),
    )  # fmt: skip


def _names(table: pd.DataFrame, axis: str) -> dict[int, str]:
    found = table[[axis, f"{axis}_name"]].drop_duplicates(axis).sort_values(axis)
    return dict(zip(found[axis].tolist(), found[f"{axis}_name"].astype(str), strict=True))


def signed_bars(table: pd.DataFrame, *, unit: str) -> "Figure":
    """What adds to a number, and what takes from it; each by name and value, that fit any width.

    Args:
        table: a row a part: `part` and `value`.
    """
    from plotly.graph_objects import Bar, Figure

    values = table["value"].to_numpy(float)
    reach = float(np.abs(values).max(initial=1e-6)) * 1.05
    trace = Bar(
        x=values, y=table["part"], orientation="h",
        marker={"color": np.where(values >= 0, ORANGE, BLUE)},
        hovertemplate=f"%{{y}}: %{{x:+.3f}} {unit}<extra></extra>",
    )  # fmt: skip
    return Figure(
        trace,
        _layout(
            110 + TALL * len(table),
            xaxis={"title": unit, "zeroline": True, "zerolinecolor": GREY,
                   "range": [-reach if (values < 0).any() else -0.1 * reach, reach]},
            yaxis={"autorange": "reversed", "ticks": "", "tickvals": table["part"],
                   "ticktext": [f"{part} <b>{v:+.2f}</b>" for part, v in
                                zip(table["part"], values, strict=True)]},
        ),
    )  # fmt: skip


LADDER = {
    "seen": "seen, share right", "held_out": "held out, share right",
    "order_known": "order known, share of its bits",
}  # fmt: skip
MARKS = {"arithmetic": "circle", "facts": "diamond", "joint": "square"}


def ladder(table: pd.DataFrame, shown: Sequence[tuple[str, int]] = ()) -> "Figure":
    """Each model a dot: what it answers, and how much of the order it knows, by its parameters.

    Args:
        table: a row a model: `run`, `seed`, `task`, `framing`, `size`, `parameters`, the columns
            of LADDER, and `act`, which a click gives back.
        shown: runs and seeds that are ringed.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(LADDER), horizontal_spacing=0.06)
    generator = np.random.default_rng(0)
    jitter = pd.Series(10 ** generator.uniform(-0.045, 0.045, len(table)), index=table.index)
    ringed = pd.Series(
        [pair in set(shown) for pair in zip(table["run"], table["seed"], strict=True)],
        index=table.index, dtype=bool,
    )  # fmt: skip
    named: set[str] = set()
    for column, (name, words) in enumerate(LADDER.items(), 1):
        known = table.dropna(subset=name)
        for (task, framing), some in known.groupby(["task", "framing"], sort=False):
            series = f"{task}, {framing}"
            colour = COLOURS.get(str(framing), GREY)
            is_open = ringed[some.index]
            figure.add_scatter(
                x=some["parameters"] * jitter[some.index], y=some[name], mode="markers",
                name=series, legendgroup=series, showlegend=series not in named,
                marker={"color": colour, "symbol": MARKS.get(str(task), "cross"), "opacity": 0.75,
                        "size": np.where(is_open, 15, 9),
                        "line": {"color": "#000000", "width": np.where(is_open, 2.5, 0.0)}},
                customdata=some[["act", "run", "seed", "size", "parameters"]],
                hovertemplate="<b>%{customdata[1]}</b>, seed %{customdata[2]}<br>"
                "%{customdata[3]}, %{customdata[4]:,} parameters: %{y:.3f}<extra></extra>",
                row=1, col=column,
            )  # fmt: skip
            named.add(series)
        figure.update_yaxes(title=words, range=[-0.05, 1.05], row=1, col=column)
    sizes = table.groupby("size")["parameters"].min()
    reach = table["parameters"].agg(["min", "max"]) * [1 / 1.6, 1.6]
    figure.update_xaxes(
        type="log", title="trained parameters, log scale", tickangle=0, range=np.log10(reach),
        tickvals=list(sizes), ticktext=[f"{size}<br>{count:,}" for size, count in sizes.items()],
    )  # fmt: skip
    return figure.update_layout(
        _layout(400, margin={"l": 60, "r": 20, "t": 60, "b": 50}),
        legend={"orientation": "h", "y": 1.03, "yanchor": "bottom"},
    )  # fmt: skip


def _layout(height: int, **more: Any) -> dict[str, Any]:
    """What all of these share. Given at once: each change of a figure afterwards costs as much."""
    margin = {"l": 70, "r": 10, "t": 15, "b": 60}
    return {"template": PLAIN, "height": height, "font": {"size": 12}, "margin": margin} | more

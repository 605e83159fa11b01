"""Shared figures: points compared with their nulls, heatmaps, curves, and models by group.

A long-form table goes in, a plotly Figure comes out. Colours are distinct with any colour
vision, signed quantities diverge around zero, and axes carry their units.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError, listed
from tbtt_interp.stats import ANY, Bounds, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colours: distinct with any colour vision (Wong, Nature Methods 8, 441, 2011).
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#666666", "#000000"
OKABE_ITO = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", BLACK)
COLOURS = {
    "file": ORANGE, "shuffled": BLUE, "line": GREEN, "seen": BLUE, "held out": ORANGE,
}  # fmt: skip
NULL_MARKS = (
    "circle-open", "square-open", "diamond-open", "line-ns-open", "x-thin-open", "cross-thin-open",
)  # fmt: skip
SUFFIXES = (".html", ".png", ".svg")  # of files that figures are written to
ENDS = {"low": "effect_low", "high": "effect_high"}  # of a claim's interval
SPREAD = 0.72  # room on an axis for the series of one category, where categories are 1 apart


def save(figure: "Figure", path: str | Path, *, title: str = "", of: str = "") -> None:
    """Writes a figure as self-contained HTML or, where kaleido and a browser are, as PNG or SVG.

    Args:
        title: above it, where the figure has none of its own.
        of: the runs, steps and models that it shows, in small letters below the title.
    Raises:
        TbttError: if the file name ends otherwise, or kaleido or its browser is missing.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise TbttError(f"figure {path} has no known ending: give {listed(SUFFIXES)}")
    _entitle(figure, title, of)
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
        return
    try:
        figure.write_image(path, scale=2)
    except (ValueError, RuntimeError) as error:
        raise TbttError(
            f"figure {path} needs a browser to be drawn ({str(error).strip().splitlines()[0]}): "
            "pip install kaleido and have Chromium, or give a name that ends in .html"
        ) from error


def _entitle(figure: "Figure", title: str, of: str) -> None:
    """Gives a figure that has no title one, and a line below it."""
    layout: Any = figure.layout
    if layout.title.text or not title:
        return
    if layout.height:
        figure.update_layout(margin_t=layout.margin.t + 60, height=layout.height + 60)
    figure.update_layout(title={
        "text": title, "x": 0.02, "y": 1, "yanchor": "top", "pad": {"t": 14},
        "subtitle": {"text": of, "font": {"color": GREY, "size": 12}},
    })  # fmt: skip


def short_site(site: str) -> str:
    """A hook's name without the words that all hooks share.

    >>> short_site("blocks.0.attn.hook_z"), short_site("hook_embed")
    ('0 z', 'embed')
    """
    layer, _, name = site.removeprefix("blocks.").partition(".")
    return f"{layer} {name.rpartition('hook_')[2]}" if name else site.removeprefix("hook_")


def colour_of(name: object, names: Sequence[object]) -> str:
    """The colour of a series: a framing's or a split's own, else by its place among the names."""
    return COLOURS.get(str(name), OKABE_ITO[list(names).index(name) % len(OKABE_ITO)])


def panels(
    titles: Sequence[str], *, across: int = 3, width: int = 320, height: int = 300, gap: int = 90,
    **options: Any,
) -> tuple["Figure", list[dict[str, int]]]:  # fmt: skip
    """A figure of panels with letters, and the row and column of each.

    Args:
        across: panels beside each other at most.
        width, height, gap: of a panel, and between two rows of panels, in pixels.
        options: further arguments of plotly's `make_subplots`.
    """
    from plotly.subplots import make_subplots

    columns = min(across, len(titles)) or 1
    rows = -(-len(titles) // columns) or 1
    inside = rows * height + (rows - 1) * gap
    options = {"shared_yaxes": True, "horizontal_spacing": min(0.03, 0.4 / columns)} | options
    letters = iter(ascii_uppercase if len(titles) > 1 else "")
    lettered = [f"<b>{next(letters, '')}</b> {title}" if title else "" for title in titles]
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=lettered,
        vertical_spacing=gap / inside if rows > 1 else 0, **options,
    )  # fmt: skip
    figure.update_layout(
        template="simple_white", width=140 + columns * width, height=inside + 180,
        legend={"orientation": "h", "y": 1 + 45 / inside, "yanchor": "bottom", "x": 0},
        margin={"l": 80, "r": 20, "t": 100, "b": 80}, font={"size": 13},
    )  # fmt: skip
    # the template draws lines of width 0
    figure.layout.template.layout.shapedefaults = {"line": {"width": 1.5}, "opacity": 1}  # pyright: ignore
    return figure, [{"row": 1 + k // columns, "col": 1 + k % columns} for k in range(len(titles))]


def name_once(figure: "Figure") -> "Figure":
    """The figure with each name once in its legend, in whichever panel it comes first."""
    named: set[str] = set()

    def keep(trace: Any) -> None:
        if trace.showlegend is not False:
            trace.update(showlegend=trace.name not in named, legendgroup=trace.name)
            named.add(trace.name)

    figure.for_each_trace(keep)
    return figure


def error_bars(rows: pd.DataFrame, value: str) -> dict[str, Any]:
    """The intervals of a column of a table as plotly's error bars."""
    low, high = rows[f"{value}_low"], rows[f"{value}_high"]
    return {"array": high - rows[value], "arrayminus": rows[value] - low,
            "thickness": 1.5, "width": 4}  # fmt: skip


def _groups(table: pd.DataFrame, column: str | None, alone: str = "") -> list[Any]:
    return [alone] if column is None else list(dict.fromkeys(table[column]))


def _rows(table: pd.DataFrame, *where: tuple[str | None, object]) -> pd.DataFrame:
    """The rows with these column values; a column that is None selects all rows."""
    for column, value in where:
        table = table if column is None else table[table[column] == value]
    return table


def _known(rows: pd.DataFrame, nulls: Mapping[str, str] | None) -> list[tuple[str, str, str]]:
    """Column, name and mark of each null that has values."""
    marks = zip((nulls or {}).items(), NULL_MARKS, strict=False)
    return [(column, words, mark) for (column, words), mark in marks
            if column in rows and rows[column].notna().any()]  # fmt: skip


def points(
    table: pd.DataFrame, *, name: str, value: str, title: str,
    nulls: Mapping[str, str] | None = None, by: str | None = None, panel: str | None = None,
    dots: pd.DataFrame | None = None, hover: Sequence[str] = (),
    horizontal: bool = True, across: int = 3, label: str = "mean over models, 95 % CI",
) -> "Figure":  # fmt: skip
    """A point per row with its interval, and its nulls as open marks beside it.

    Args:
        table: one row per name, series and panel.
        name: the column of the categories.
        value: the column of the effect; its interval's have `_low` and `_high` behind.
        title: of the value's axis, with its unit.
        nulls: the columns of the nulls, and what each is called.
        by, panel: the columns of series, which differ in colour, and of panels.
        dots: one row per model with the same columns, drawn as small dots.
        hover: further columns that are shown where one hovers.
        horizontal: whether categories are on the vertical axis.
        label: of the points, where there is no `by`.
    """
    names, series = list(dict.fromkeys(table[name])), _groups(table, by, label)
    groups = _groups(table, panel)
    figure, places = panels(
        list(map(str, groups)), across=across,
        height=max(120, 26 * len(names) if horizontal else 260),
        width=320 if horizontal else max(240, 34 * len(names) * max(1, len(series) // 2)),
    )  # fmt: skip
    value_axis, name_axis = ("x", "y") if horizontal else ("y", "x")

    def draw(rows: pd.DataFrame, column: str, one: Any, **trace: Any) -> None:
        shift = SPREAD * ((series.index(one) + 0.5) / len(series) - 0.5)
        at = [names.index(x) + shift for x in rows[name]]
        figure.add_scatter(**{value_axis: rows[column], name_axis: at}, mode="markers", **trace)

    for (group, place), one in product(zip(groups, places, strict=True), series):
        rows = _rows(table, (panel, group), (by, one))
        rows = rows[rows[value].notna()]
        colour = ORANGE if by is None else colour_of(one, series)
        if dots is not None:
            draw(
                _rows(dots, (panel, group), (by, one)), value, one, showlegend=False,
                marker={"size": 5, "color": colour, "opacity": 0.4},
                hovertemplate=f"one model: %{{{value_axis}:.3f}}<extra></extra>", **place,
            )  # fmt: skip
        for column, words, mark in _known(rows, nulls):
            draw(
                rows, column, one, name=words,
                marker={"symbol": mark, "size": 9, "line": {"width": 1.6},
                        "color": GREY if by is None else colour},
                hovertemplate=f"{words}: %{{{value_axis}:.3f}}<extra></extra>", **place,
            )  # fmt: skip
        shown = [name, f"{value}_low", f"{value}_high", *(c for c in hover if c in rows)]
        lines = "".join(
            f"<br>{c.replace('_', ' ')} %{{customdata[{k}]}}" for k, c in enumerate(shown)
        )
        draw(
            rows, value, one, name=str(one), marker={"color": colour, "size": 10},
            **{f"error_{value_axis}": error_bars(rows, value)},
            customdata=rows[shown].round(3).astype(str),
            hovertemplate=f"%{{{value_axis}:.3f}}{lines}<extra></extra>", **place,
        )  # fmt: skip
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": True}
    ends = [-0.5, len(names) - 0.5]
    if horizontal:
        figure.update_yaxes(**ticks, range=ends[::-1], automargin=True).update_xaxes(title=title)
    else:
        figure.update_xaxes(**ticks, range=ends, tickangle=-50)
        figure.update_yaxes(title=title, col=1).update_yaxes(showgrid=True)
    return name_once(figure)


def heatmaps(
    table: pd.DataFrame, *, row: str, column: str, value: str, title: str,
    panel: str | None = None, across: int = 3, signed: bool = False,
    bounds: tuple[float, float] | None = (0.0, 1.0), hover: Sequence[str] = (), text: bool = True,
    axes: tuple[str, str] = ("", ""),
) -> "Figure":  # fmt: skip
    """A grid of values per panel, all on one colour scale.

    Args:
        table: one row per cell and panel; cells keep the table's order.
        title: of the colour bar, with the unit.
        signed: whether colours diverge around zero.
        bounds: of the colours; None is those of the values.
        hover: further columns that are shown where one hovers.
        text: whether the values are written into the cells.
        axes: titles of the rows' and of the columns' axes.
    """
    groups = _groups(table, panel)
    rows, columns = (list(dict.fromkeys(table[name])) for name in (row, column))
    figure, places = panels(
        list(map(str, groups)), across=across, gap=110, shared_xaxes=True,
        width=max(170, 36 * len(columns)), height=max(90, 25 * len(rows)),
    )  # fmt: skip
    words = "".join(
        f"<br>{name.replace('_', ' ')} %{{customdata[{k}]:.3g}}" for k, name in enumerate(hover)
    )
    for group, place in zip(groups, places, strict=True):
        cells = _rows(table, (panel, group))
        values, *more = (
            cells.pivot(index=row, columns=column, values=name)
            .reindex(index=rows, columns=columns).to_numpy() for name in (value, *hover)
        )  # fmt: skip
        values = values.astype(float)
        written = np.where(np.isnan(values), "", np.char.mod("%.2f", values)) if text else None
        figure.add_heatmap(
            z=values, x=columns, y=rows, coloraxis="coloraxis", text=written,
            texttemplate="%{text}" if text else None, textfont={"size": 10},
            customdata=np.stack(more, -1) if more else None,
            hovertemplate=f"%{{y}}, %{{x}}<br>{title} %{{z:.3f}}{words}<extra></extra>", **place,
        )  # fmt: skip
    reach = float(table[value].abs().max()) if bounds is None else max(map(abs, bounds))
    low, high = bounds or (float(table[value].min()), float(table[value].max()))
    figure.update_yaxes(autorange="reversed", type="category").update_yaxes(title=axes[0], col=1)
    figure.update_xaxes(type="category", tickangle=-60, title=axes[1])
    scale = {"colorscale": "RdBu_r", "cmid": 0, "cmin": -reach, "cmax": reach} if signed else {
        "colorscale": "Blues", "cmin": low, "cmax": high}  # fmt: skip
    bar = {"title": title, "lenmode": "pixels", "len": 150, "y": 1, "yanchor": "top"}
    return figure.update_layout(coloraxis=scale | {"colorbar": bar})


def curves(
    table: pd.DataFrame, *, x: str, y: str, by: str, titles: tuple[str, str],
    panel: str | None = None, nulls: Mapping[str, str] | None = None, across: int = 3,
) -> "Figure":  # fmt: skip
    """A line per series with its intervals, and its nulls dotted.

    Args:
        table: one row per series and place on the horizontal axis; intervals as for `points`.
        titles: of both axes, with units.
        nulls: the columns of the nulls, and what each is called.
    """
    groups, series = _groups(table, panel), _groups(table, by)
    figure, places = panels(list(map(str, groups)), across=across, height=260, width=380)
    for (group, place), one in product(zip(groups, places, strict=True), series):
        rows, colour = _rows(table, (panel, group), (by, one)), colour_of(one, series)
        for column, words, mark in _known(rows, nulls):
            figure.add_scatter(
                x=rows[x], y=rows[column], name=words, mode="lines+markers", opacity=0.7,
                line={"color": colour, "dash": "dot", "width": 1},
                marker={"symbol": mark, "size": 7}, hoverinfo="skip", **place,
            )  # fmt: skip
        has_interval = f"{y}_low" in rows and rows[f"{y}_low"].notna().any()
        figure.add_scatter(
            x=rows[x], y=rows[y], name=str(one), mode="lines+markers",
            line={"color": colour, "width": 2.4}, marker={"size": 7},
            error_y=error_bars(rows, y) if has_interval else None,
            hovertemplate=f"{one}, %{{x}}: %{{y:.3f}}<extra></extra>", **place,
        )  # fmt: skip
    figure.update_xaxes(title=titles[0])
    return name_once(figure.update_yaxes(title=titles[1], col=1))


def models_by_group(
    table: pd.DataFrame, *, x: str, by: str, value: str, titles: tuple[str, str],
    panel: str | None = None, bounds: Bounds = ANY, levels: Mapping[str, float] | None = None,
    across: int = 4,
) -> "Figure":  # fmt: skip
    """Each model a dot, and each group's mean over models with its 95 % interval.

    Args:
        table: one row per model.
        x, by, panel: the columns of the categories, of the series and of the panels.
        titles: of both axes, the second with its unit.
        bounds: values that the mean can have; with none, zero is drawn.
        levels: horizontal lines by name, such as an entropy floor.
    """
    known = table[table[value].notna()]
    if known.empty:
        raise TbttError("there is nothing to draw: none of the models compared has a value")
    keys = [key for key in dict.fromkeys((panel, x, by)) if key]
    means = summarize(known, keys, [value], bounds=bounds)
    figure = points(
        means, name=x, value=value, by=by, panel=panel, title=titles[1], dots=known,
        hover=["n_models"], horizontal=False, across=across,
    )  # fmt: skip
    for words, level in (levels or {}).items():
        figure.add_hline(y=level, line={"color": GREY, "dash": "dash"}, annotation_text=words)
    if bounds == ANY:
        figure.add_hline(y=0, line={"color": GREY, "width": 1})
    else:
        figure.update_yaxes(range=[bounds[0] - 0.06, bounds[1] + 0.06])
    return figure.update_xaxes(title=titles[0], tickangle=0)


def claims_over_steps(claims: pd.DataFrame, n_drawn: int = 7) -> "Figure":
    """The last checkpoint's claims furthest from their nulls, over training.

    Args:
        claims: one row per `step` and claim, as `results.over_steps` has them.
    """
    last = claims[claims["step"] == claims["step"].max()]
    far = (last["effect"] - last["null"]).abs().sort_values(ascending=False).index
    drawn = claims[claims["claim"].isin(last.loc[far, "claim"].head(n_drawn))]
    figure = curves(
        drawn.sort_values("step").rename(columns=ENDS), x="step", y="effect", by="claim",
        nulls={"null": "its null"},
        titles=("training step", "effect (share)"),
    )  # fmt: skip
    legend = {"orientation": "v", "y": -0.25, "yanchor": "top"}
    return figure.update_layout(width=900, height=520 + 24 * n_drawn, legend=legend)


def claims_ranked(claims: pd.DataFrame, n_drawn: int = 40) -> "Figure":
    """Claims compared with their nulls, furthest from their nulls first.

    Args:
        claims: as `results.claims_table` has them, with the name of their `analysis`.
    """
    drawn = claims.head(n_drawn)
    text = drawn["analysis"] + ": " + drawn["claim"] + " … " + drawn["unit"]
    figure = points(
        drawn.assign(text=text).rename(columns=ENDS), name="text", value="effect",
        nulls={"null": "its null"}, title="effect (share)",
        hover=["null_name", "n_models", "verdict"],
    )  # fmt: skip
    return figure.update_layout(width=1250)

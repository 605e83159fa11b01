"""Rule against table: what main effects hold of the operand grid, and what they answer."""

from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.figures.patching import short
from tbtt_interp.figures.style import BLUE, GREEN, GREY, ORANGE
from tbtt_interp.stats import mean_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

EFFECTS = {"interaction": ("interaction", ORANGE), "a": ("operand a", BLUE),
           "b": ("operand b", "#56B4E9")}  # fmt: skip
NULLS = {"shuffled": ("interaction, shuffled grid", "line-ew-open", 13),
         "untrained": ("interaction, untrained model", "diamond-open", 8)}  # fmt: skip


MARKS = {"shuffled": ("f(a) + g(b) of a shuffled grid in its place", "line-ew-open", GREY),
         "answered": ("f(a) + g(b) in the site's place", "circle", ORANGE)}  # fmt: skip
MANY = 15  # sites, beyond which panels stand below each other


def _over_models(table: pd.DataFrame, value: str) -> tuple[pd.Series, dict]:
    """At each site the mean and, as plotly has it, the interval over models."""
    sites = list(dict.fromkeys(table["site"]))
    found = [mean_over_models(table.loc[table["site"] == site, value].tolist())
             for site in sites]  # fmt: skip
    bars = {
        "array": [interval.high - interval.mean for interval in found],
        "arrayminus": [interval.mean - interval.low for interval in found],
        "thickness": 1.2, "width": 4,
    }  # fmt: skip
    names = [short(site).replace(" post", " mlp_post") for site in sites]
    return pd.Series([interval.mean for interval in found], names), bars


def _panels(titles: list[str], sites: int) -> "tuple[Figure, list[dict[str, int]]]":
    """Panels beside each other or, of many sites, below each other, and where each is."""
    from plotly.subplots import make_subplots

    columns = 1 if sites > MANY else 2
    rows = -(-len(titles) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, shared_xaxes=True, shared_yaxes=True, subplot_titles=titles,
        horizontal_spacing=0.03, vertical_spacing=0.12 / rows,
    )  # fmt: skip
    height = 200 + 260 * rows
    figure.update_xaxes(type="category", tickangle=-60)
    figure.update_layout(
        template="simple_white", width=160 + columns * max(300, 26 * sites), height=height,
        legend={"orientation": "h", "y": 1 + 30 / (height - 160), "yanchor": "bottom",
                "traceorder": "normal"},
        margin={"l": 70, "r": 20, "t": 90, "b": 90},
        font={"size": 13},
    )  # fmt: skip
    places = [{"row": 1 + k // columns, "col": 1 + k % columns} for k in range(len(titles))]
    return figure, places


def additivity_shares(table: pd.DataFrame) -> "Figure":
    """Shares of the variance over the operand grid by site; a panel an operator and place.

    Interaction stands at the bottom, with its interval over models and both nulls.

    Args:
        table: as `additivity_table` has it.
    """
    groups = list(table.dropna(subset="share").groupby(["place", "operator"], sort=False))
    titles = [f"a {operator} b, at {place}" for (place, operator), _ in groups]
    figure, places = _panels(titles, table["site"].nunique())
    for number, ((_, some), at) in enumerate(zip(groups, places, strict=True)):
        shown = {"showlegend": number == 0, **at}
        for effect, (words, colour) in EFFECTS.items():
            mean, _ = _over_models(some[some["effect"] == effect], "share")
            figure.add_bar(
                x=mean.index, y=mean, name=words, legendgroup=words, marker_color=colour,
                hovertemplate="%{x}<br>" + words + " %{y:.2f}<extra></extra>", **shown,
            )  # fmt: skip
        rows = some[some["effect"] == "interaction"]
        mean, bars = _over_models(rows, "share")
        figure.add_scatter(  # by themselves, since a bar above would cover them
            x=mean.index, y=mean, mode="markers", marker={"size": 1, "color": "#000000"},
            error_y=bars | {"color": "#000000"}, hoverinfo="skip", **shown | {"showlegend": False},
        )  # fmt: skip
        for null, (words, mark, size) in NULLS.items():
            mean, _ = _over_models(rows, null)
            figure.add_scatter(
                x=mean.index, y=mean, name=words, legendgroup=words, mode="markers",
                marker={"symbol": mark, "size": size, "color": "#000000", "line": {"width": 1.6}},
                hovertemplate="%{x}<br>" + words + " %{y:.2f}<extra></extra>", **shown,
            )  # fmt: skip
    figure.update_yaxes(range=[-0.03, 1.02])
    figure.update_yaxes(title="share of variance", col=1)
    return figure.update_layout(barmode="stack", bargap=0.25)


def additivity_answers(table: pd.DataFrame) -> "Figure":
    """Equations answered with main effects alone in a site's place, seen and held-out.

    Beside them a shuffled grid's main effects, and the models themselves.

    Args:
        table: as `answered_table` has it.
    """
    counts = table.groupby(["split", "site", "seed"], sort=False)[
        ["answered", "shuffled", "model", "of"]
    ].sum()
    groups = list(counts.div(counts["of"], axis=0).reset_index().groupby("split", sort=False))
    titles = [f"{split} equations" for split, _ in groups]
    figure, places = _panels(titles, table["site"].nunique())
    for number, ((_, some), at) in enumerate(zip(groups, places, strict=True)):
        shown = {"showlegend": number == 0, **at}
        own, _ = _over_models(some, "model")
        figure.add_scatter(
            x=own.index, y=own, name="the models themselves", legendgroup="model", mode="lines",
            line={"color": GREEN, "dash": "dash", "width": 2},
            hovertemplate="the models themselves %{y:.2f}<extra></extra>", **shown,
        )  # fmt: skip
        for column, (words, mark, colour) in MARKS.items():
            mean, bars = _over_models(some, column)
            figure.add_scatter(
                x=mean.index, y=mean, name=words, legendgroup=column, mode="markers",
                marker={"symbol": mark, "size": 11, "color": colour,
                        "line": {"width": 2 if column == "shuffled" else 0}},
                error_y=bars if column == "answered" else None,
                hovertemplate="%{x}<br>" + words + " %{y:.2f}<extra></extra>", **shown,
            )  # fmt: skip
    figure.update_yaxes(range=[-0.04, 1.04])
    return figure.update_yaxes(title="share answered", col=1)

"""Edges and paths beside their nulls and approximations, and circuits beside random ones."""

from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.figures.style import BLUE, GREEN, GREY, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DRAWN = 24  # edges and paths, the strongest


def paths(table: pd.DataFrame) -> "Figure":
    """What each edge and path restores by itself: exact, approximated, and by other donors.

    Args:
        table: as `paths_table` has it.
    """
    from plotly.subplots import make_subplots

    table = table.assign(
        words=table["name"].where(table["kind"] == "path", table["name"] + " at " + table["place"])
    )
    strength = table.groupby("words")["share"].agg(lambda x: x.abs().max())
    drawn = set(strength[strength > 0.01].nlargest(DRAWN).index)
    shown = table[table["words"].isin(drawn)]
    changes = list(dict.fromkeys(shown["changed"]))
    figure = make_subplots(
        rows=1, cols=len(changes), shared_yaxes=True, horizontal_spacing=0.02,
        subplot_titles=[f"{change} differs" for change in changes],
    )  # fmt: skip
    marks = [
        ("random", "random donor", "diamond-open", GREY),
        ("same_answer", "donor with the recipient's answer", "square-open", GREY),
        ("eap", "EAP", "x-thin-open", GREEN),
        ("eap_ig", "EAP-IG", "cross-thin-open", BLUE),
    ]
    for column, change in enumerate(changes, 1):
        rows = shown[shown["changed"] == change]
        for name, words, symbol, colour in marks:
            figure.add_scatter(
                x=rows[name], y=rows["words"], mode="markers", name=words, row=1, col=column,
                showlegend=column == 1,
                marker={"symbol": symbol, "color": colour, "size": 8, "line": {"width": 1.5}},
            )  # fmt: skip
        figure.add_scatter(
            x=rows["share"], y=rows["words"], mode="markers", name="exact, 95 %", row=1,
            col=column, showlegend=column == 1, marker={"color": ORANGE, "size": 8},
            error_x={"array": rows["high"] - rows["share"], "thickness": 1,
                     "arrayminus": rows["share"] - rows["low"]},
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_yaxes(autorange="reversed", showgrid=True)
    figure.update_xaxes(title="share of the logit difference restored")
    return figure.update_layout(
        template="simple_white",
        width=260 + 300 * len(changes),
        height=190 + 22 * len(drawn),
        legend={"orientation": "h", "y": 1.06, "yanchor": "bottom"},
        margin={"l": 20, "r": 20, "t": 80, "b": 50},
        font={"size": 12},
    )


def circuits(table: pd.DataFrame, circuits: pd.DataFrame) -> "Figure":
    """How near the approximations are, edge by edge, and what circuits of each size answer.

    Args:
        table: as `paths_table` has it.
        circuits: as `circuits_table` has it.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("approximations of an edge", "the strongest edges alone")
    )
    edges = table[table["kind"] == "edge"]
    ends = [edges[["share", "eap", "eap_ig"]].min().min(), edges["share"].max()]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dash", "width": 1},
        showlegend=False, row=1, col=1,
    )  # fmt: skip
    for name, words, colour in (("eap", "EAP", GREEN), ("eap_ig", "EAP-IG", BLUE)):
        figure.add_scatter(
            x=edges["share"], y=edges[name], mode="markers", name=words, row=1, col=1,
            marker={"color": colour, "size": 7, "opacity": 0.7},
            customdata=edges[["name", "place", "changed"]],
            hovertemplate="%{customdata[0]} at %{customdata[1]}, %{customdata[2]} differs"
            "<br>exact %{x:.2f}, approximated %{y:.2f}<extra></extra>",
        )  # fmt: skip
    place = {"row": 1, "col": 2}
    figure.add_scatter(
        **place, x=circuits["edges"], y=circuits["faithful"], name="strongest edges, 95 %",
        mode="lines+markers", line={"color": ORANGE},
        error_y={"array": circuits["high"] - circuits["faithful"], "thickness": 1,
                 "arrayminus": circuits["faithful"] - circuits["low"]},
        customdata=circuits[["right", "of"]],
        hovertemplate="%{x} edges keep %{y:.2f}<br>%{customdata[0]} of %{customdata[1]} "
        "characters right<extra></extra>",
    )  # fmt: skip
    for name, words, dash in (("random", "as many at random, mean", "dash"),
                              ("random_most", "as many at random, most", "dot")):  # fmt: skip
        figure.add_scatter(
            **place, x=circuits["edges"], y=circuits[name], name=words, mode="lines",
            line={"color": GREY, "dash": dash},
        )  # fmt: skip
    figure.update_xaxes(title="exact share restored", row=1, col=1)
    figure.update_yaxes(title="approximation", row=1, col=1)
    figure.update_xaxes(title="edges kept", row=1, col=2)
    figure.update_yaxes(title="share of the logit difference kept", row=1, col=2)
    return figure.update_layout(
        template="simple_white",
        width=1000,
        height=460,
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        font={"size": 13},
    )

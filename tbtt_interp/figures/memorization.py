"""Memorization's meters, their chains, and losses without a rule."""

from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.figures.style import BLUE, GREEN, GREY, OKABE_ITO, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDEST = 1.3  # shares beyond this are drawn at the edge, with their number


def memorization_meters(table: pd.DataFrame) -> "Figure":
    """Every model on every meter, as a share of all there could be or of the literature's figure.

    Args:
        table: as `memorization_table` has it.
    """
    from plotly.graph_objects import Figure

    table = table.assign(share=table["value"] / table["most"], null=table["null"] / table["most"])
    of = table.groupby("meter")["most"].mean()
    units = {"restricted": ": loss saved", "excluded": ": loss cost", "bits a parameter": ", of 2",
             "coefficient": f", of {of.get('coefficient', 0):,.0f}"}  # fmt: skip
    names = {meter: meter + units.get(meter, f", of {of[meter]:,.0f} bits") for meter in of.index}
    table = table.assign(name=table["meter"].map(names), edge=table["share"].clip(-WIDEST, WIDEST))
    means = table.groupby("name", sort=False)[["share", "null"]].mean().reset_index()
    figure = Figure()
    figure.add_scatter(
        x=table["edge"], y=table["name"], mode="markers", name="models",
        marker={"color": ORANGE, "size": 8, "opacity": 0.5},
        customdata=table[["seed", "value", "share", "literature"]],
        hovertemplate="seed %{customdata[0]}: %{customdata[1]:,.3g}, "
        "a share of %{customdata[2]:.2f}<br>literature: %{customdata[3]}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=means["share"].clip(-WIDEST, WIDEST), y=means["name"], mode="markers+text",
        name="their mean", textposition="top center",
        text=[("← " if share < -WIDEST else "") + f"{share:.2f}" for share in means["share"]],
        marker={"color": ORANGE, "size": 13, "symbol": "line-ns-open", "line": {"width": 3}},
    )  # fmt: skip
    figure.add_scatter(
        x=means["null"], y=means["name"], mode="markers", name="null",
        marker={"color": BLUE, "size": 11, "symbol": "circle-open", "line": {"width": 2}},
    )  # fmt: skip
    figure.add_vline(x=1, line={"color": GREY, "dash": "dash", "width": 1})
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    low = -WIDEST if table["share"].min() < -0.7 else min(-0.1, table["share"].min() - 0.15)
    figure.update_xaxes(
        title="share of all there could be, or of the literature's figure (dashed)",
        range=[low - 0.1, WIDEST + 0.1],
    )
    figure.update_yaxes(autorange="reversed", showgrid=True)
    return figure.update_layout(
        template="simple_white",
        width=820,
        height=170 + 46 * len(means),
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"l": 20, "r": 20, "t": 60, "b": 50},
        font={"size": 13},
    )


def coefficient_chains(table: pd.DataFrame) -> "Figure":
    """What each Langevin chain says of its model's learning coefficient, step by step.

    Args:
        table: a row a seed, chain and step, as `learning_coefficient_table` has it second.
    """
    from plotly.graph_objects import Figure

    figure = Figure()
    for number, (seed, rows) in enumerate(table.groupby("seed")):
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        for chain, mine in rows.groupby("chain"):
            figure.add_scatter(
                x=mine["step"], y=mine["value"], mode="lines", name=f"seed {seed}",
                legendgroup=str(seed), showlegend=chain == 0, line={"color": colour, "width": 1.5},
            )  # fmt: skip
    burned = table.loc[table["burn_in"], "step"].max()
    figure.add_vrect(
        x0=0, x1=burned, fillcolor=GREY, opacity=0.12, line_width=0, annotation_text="burn-in",
        annotation_position="top left",
    )  # fmt: skip
    figure.update_xaxes(title="Langevin step", range=[0, table["step"].max()])
    figure.update_yaxes(
        title="nβ (loss − the model's own),<br>mean over a twentieth of the steps",
        rangemode="tozero",
    )
    return figure.update_layout(
        template="simple_white", width=760, height=420, font={"size": 13}, margin={"t": 20}
    )


def restricted_loss(table: pd.DataFrame) -> "Figure":
    """Losses with a rule's directions alone and without them, beside random ones of equal rank.

    Args:
        table: as `restricted_loss_table` has it.
    """
    from plotly.subplots import make_subplots

    splits = list(dict.fromkeys(table["split"]))
    titles = [f"{split} answers" for split in splits]
    figure = make_subplots(rows=1, cols=len(splits), shared_yaxes=True, subplot_titles=titles,
                           horizontal_spacing=0.04)  # fmt: skip
    rank, width = table[["rank", "width"]].iloc[0]
    bars = [
        ("loss", f"{rank} of {width} directions: the operands'", ORANGE),
        ("random", f"{rank} random directions", BLUE),
    ]
    levels = [("unpatched", "unpatched", GREEN, "solid"), ("erased", "all erased", GREY, "dash")]
    words = {"restricted": "restricted:<br>these alone", "excluded": "excluded:<br>all but these"}
    changes = list(dict.fromkeys(table["change"]))
    for column, split in enumerate(splits, 1):
        rows = table[table["split"] == split]
        place = {"row": 1, "col": column}
        means = rows.groupby("change")[["loss", "random", "unpatched", "erased"]].mean()
        at = rows["change"].map(changes.index)
        for (name, label, colour), aside in zip(bars, (-0.2, 0.2), strict=True):
            figure.add_bar(
                **place, x=[k + aside for k in range(len(changes))], y=means.loc[changes, name],
                name=label, marker={"color": colour}, opacity=0.75, width=0.36,
                showlegend=column == 1,
            )  # fmt: skip
            figure.add_scatter(
                **place, x=at + aside, y=rows[name], mode="markers", name="a model",
                marker={"color": "black", "size": 5}, showlegend=column == 1 and aside < 0,
            )  # fmt: skip
        for name, label, colour, dash in levels:
            figure.add_scatter(
                **place, x=[-0.5, len(changes) - 0.5], y=[means[name].mean()] * 2, mode="lines",
                line={"color": colour, "dash": dash, "width": 2}, name=label,
                showlegend=column == 1,
            )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(len(changes))), ticktext=[words[change] for change in changes]
    )
    figure.update_yaxes(title="loss, nats a character", rangemode="tozero", col=1)
    return figure.update_layout(
        template="simple_white",
        width=180 + 340 * len(splits),
        height=440,
        legend={"orientation": "h", "y": -0.14, "yanchor": "top"},
        margin={"l": 60, "r": 20, "t": 40, "b": 60},
        font={"size": 13},
    )

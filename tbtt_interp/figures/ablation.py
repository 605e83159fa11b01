"""What is lost without a part, and what neurons hold over the operands."""

from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.figures.style import BLUE, GREEN, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MODES = {"zero": ("zero", GREEN), "mean": ("mean", BLUE), "resample": ("another example's", ORANGE)}
NEURONS = 8  # drawn, those that cost most


def ablations(table: pd.DataFrame) -> "Figure":
    """The share of right answers lost without each head, each MLP and the neurons most needed.

    Args:
        table: as `ablation_summary` has it.
    """
    from plotly.subplots import make_subplots

    shown = table[(table["kind"] != "neuron") | (table["number"] < NEURONS)]
    layer, number = shown["layer"].astype(str), shown["number"].astype(str)
    names = {
        "head": "head " + layer + "." + number,
        "MLP": "MLP " + layer,
        "neuron": "layer " + layer + ", neuron of rank " + (shown["number"] + 1).astype(str),
    }
    shown = shown.assign(name=shown["kind"].case_when(
        [(shown["kind"] == kind, words) for kind, words in names.items()]
    ))  # fmt: skip
    shown = shown.sort_values(["layer", "kind", "number"])
    splits = [s for s in ("seen", "held out") if s in set(shown["split"])]
    figure = make_subplots(rows=1, cols=len(splits), shared_yaxes=True, subplot_titles=splits)
    for column, split in enumerate(splits, 1):
        for mode, (words, colour) in MODES.items():
            rows = shown[(shown["split"] == split) & (shown["mode"] == mode)]
            if rows.empty:
                continue
            place = {"row": 1, "col": column}
            figure.add_scatter(
                **place, x=rows["flipped_null"], y=rows["name"], mode="markers",
                name=f"null of {words}", showlegend=column == 1,
                marker={"symbol": "circle-open", "color": colour, "size": 10},
            )  # fmt: skip
            figure.add_scatter(
                **place, x=rows["flipped"], y=rows["name"], mode="markers", name=words,
                showlegend=column == 1, marker={"color": colour, "size": 9},
                error_x={"array": rows["flipped_high"] - rows["flipped"],
                         "arrayminus": rows["flipped"] - rows["flipped_low"], "thickness": 1},
                customdata=rows[["right_before", "right", "of", "lost"]],
                hovertemplate="%{y}: %{x:.2f} lost<br>right before %{customdata[0]}, after "
                "%{customdata[1]}, of %{customdata[2]}<br>%{customdata[3]:.2f} nats an answer",
            )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=True)
    figure.update_xaxes(title="share of right answers lost", range=[-0.04, 1.04])
    return figure.update_layout(
        template="simple_white",
        width=240 + 380 * len(splits),
        height=200 + 24 * shown["name"].nunique(),
        legend={"orientation": "h", "y": -0.22, "yanchor": "top"},
        margin={"l": 20, "r": 20, "t": 40, "b": 50},
        font={"size": 13},
    )


def neuron_maps(table: pd.DataFrame, seed: int | None = None) -> "Figure":
    """The activation over the operands of one model's neurons most needed, an operator a row.

    Args:
        table: as `neuron_maps` of the analyses has it, with the `rank` of each neuron.
        seed: whose; None is the first.
    """
    from plotly.graph_objects import Heatmap
    from plotly.subplots import make_subplots

    seed = int(table["seed"].iloc[0]) if seed is None else seed
    mine = table[(table["seed"] == seed) & (table["rank"] < NEURONS)].sort_values(["rank", "layer"])
    neurons = list(mine[["layer", "neuron"]].drop_duplicates().itertuples(index=False, name=None))
    neurons = neurons[:NEURONS]
    operators = list(dict.fromkeys(table["operator"]))
    figure = make_subplots(
        rows=len(operators), cols=len(neurons), shared_xaxes=True, shared_yaxes=True,
        horizontal_spacing=0.015, vertical_spacing=0.08,
        subplot_titles=[f"neuron {layer}.{k}" for layer, k in neurons],
    )  # fmt: skip
    for i, operator in enumerate(operators, 1):
        for j, place in enumerate(neurons, 1):
            layer, neuron = place
            rows = mine[(mine["layer"] == layer) & (mine["neuron"] == neuron)]
            rows = rows[rows["operator"] == operator]
            grid = rows.pivot(index="a", columns="b", values="activation")
            figure.add_trace(
                Heatmap(
                    z=grid, x=grid.columns, y=grid.index, coloraxis="coloraxis",
                    hovertemplate=f"%{{y}}{operator}%{{x}}<br>activation %{{z:.2f}}<extra></extra>",
                ),
                row=i, col=j,
            )  # fmt: skip
        figure.update_yaxes(title=f"a, of a{operator}b", row=i, col=1)
    figure.update_yaxes(autorange="reversed", dtick=3)
    figure.update_xaxes(title="b", dtick=3, row=len(operators))
    return figure.update_layout(
        template="simple_white",
        coloraxis={
            "colorscale": "RdBu_r",
            "cmid": 0,
            "colorbar": {"title": f"activation,<br>seed {seed}"},
        },
        width=160 + 130 * len(neurons),
        height=120 + 140 * len(operators),
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        font={"size": 12},
    )

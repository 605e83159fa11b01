"""A training's loss and answers over its steps."""

from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.figures.style import BLUE, GREEN, GREY, ORANGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def learning_curves(table: pd.DataFrame) -> "Figure":
    """Loss against the entropy floors, and the share of answers that are right, over training.

    Each model is a thin line, their mean a thick one.

    Args:
        table: a row per step and seed with loss, floor_order, floor_lines and floor_line (nats a
            character), seen and held_out (shares; held_out may be missing).
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    shares = {"seen": BLUE, "held_out": ORANGE}
    lines = [("loss", GREEN, 1), *((k, c, 2) for k, c in shares.items() if k in table)]
    for name, colour, row in lines:
        seeds = table.pivot(index="step", columns="seed", values=name)
        label = name.replace("held_out", "held-out")
        place = {"row": row, "col": 1}
        for seed in seeds:
            figure.add_scatter(
                **place, x=seeds.index, y=seeds[seed], line={"color": colour, "width": 1},
                opacity=0.4, showlegend=False, name=f"{label}, seed {seed}",
            )  # fmt: skip
        mean = seeds.mean(axis=1)
        figure.add_scatter(
            **place, x=mean.index, y=mean, line={"color": colour, "width": 3},
            name=f"{label}, mean of {seeds.shape[1]} models",
        )  # fmt: skip
    floors = {"floor_lines": "knows every line", "floor_order": "knows their order, too"}
    if table["framing"].iloc[0] == "line":
        floors = {"floor_line": "knows every line"}
    for name, words in floors.items():
        level = table[name].mean()
        figure.add_scatter(
            row=1, col=1, x=table["step"].agg(["min", "max"]), y=[level, level], mode="lines+text",
            line={"color": GREY, "dash": "dash", "width": 1.5}, showlegend=False, name=words,
            text=["", f"{words}: {level:.3f}"], textposition="top left",
        )  # fmt: skip
    low = min(table["loss"].min(), *(table[name].min() for name in floors))
    figure.update_yaxes(
        title="loss, nats a character", range=[low - 0.06, max(1.0, low + 0.5)], row=1, col=1
    )
    figure.update_yaxes(title="share right", range=[-0.04, 1.04], row=2, col=1)
    figure.update_xaxes(range=[0, table["step"].max()])
    figure.update_xaxes(title="training step", row=2, col=1)
    return figure.update_layout(
        template="simple_white",
        width=760,
        height=560,
        margin={"l": 70, "r": 20, "t": 50, "b": 50},
        legend={"orientation": "h", "y": 1.08},
        font={"size": 14},
    )

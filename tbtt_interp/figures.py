"""Tables to plotly figures: no side effects, colour-blind-safe colours, units on every axis."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colours: told apart with any colour vision (Wong, Nature Methods 8, 441, 2011).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"


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


def probe_heatmap(table: pd.DataFrame) -> "Figure":
    """Selectivity of every feature at every site and position, with its nulls where one hovers.

    Args:
        table: a row a feature, site and position, as `probe_battery` has it.
    """
    from plotly.graph_objects import Figure, Heatmap

    shown = table.dropna(subset="selectivity")
    if shown.empty:
        raise TbttError("no feature here has a control task: there is no selectivity to draw")
    place = shown["site"].str.replace("hook_", "") + " " + shown["pos"].astype(str)
    shown = shown.assign(place=place)
    order = {"index": list(dict.fromkeys(shown["feature"])), "columns": list(dict.fromkeys(place))}

    def grid(name: str) -> pd.DataFrame:
        return shown.pivot(index="feature", columns="place", values=name).reindex(**order)

    nulls = ["right", "of", "accuracy", "control", "one_hot", "untrained", "majority", "p"]
    hover = "".join(
        f"<br>{name.replace('_', '-')} %{{customdata[{k}]:.3g}}" for k, name in enumerate(nulls)
    )
    data = Heatmap(
        z=grid("selectivity"),
        x=order["columns"],
        y=order["index"],
        customdata=np.stack([grid(name).to_numpy() for name in nulls], -1),
        hovertemplate=f"%{{y}} at %{{x}}<br>selectivity %{{z:.2f}}{hover}<extra></extra>",
        colorscale="RdBu_r",
        zmid=0,
        colorbar={"title": "selectivity"},
    )
    figure = Figure(data)
    figure.update_yaxes(title="feature", autorange="reversed")
    figure.update_xaxes(title="site, and position from the prompt's end", tickangle=-60)
    return figure.update_layout(
        template="simple_white",
        width=200 + 22 * len(order["columns"]),
        height=260 + 32 * len(order["index"]),
        margin={"l": 90, "r": 20, "t": 30, "b": 190},
        font={"size": 12},
    )


def save(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as self-contained HTML or, where a browser is there to draw it, PNG or SVG.

    Raises:
        TbttError: on another ending, or if kaleido or its browser is missing.
    """
    path = Path(path)
    if path.suffix not in (".html", ".png", ".svg"):
        raise TbttError(f"figure {path} has no known ending: give .html, .png or .svg")
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

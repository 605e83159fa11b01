"""Attention by role beside what it is worth, and QK and OV circuits over tokens."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PANELS = {
    "weight": "attention",
    "flipped": "share of seen answers lost without it",
    "flipped_random": "the same, other keys at random",
}
HEADS = 6  # drawn at most


def written(values: np.ndarray) -> np.ndarray:
    """Numbers as they stand in a heatmap's cells; nothing where there is none.

    >>> written(np.array([[0.123, np.nan]])).tolist()
    [['0.12', '']]
    """
    return np.where(np.isnan(values), "", np.char.mod("%.2f", values))


def attention(summary: pd.DataFrame) -> "Figure":
    """By role of query and key: the weight, what cutting the edge costs, and its null.

    A row is the token that looks, a column the one that is looked at.

    Args:
        summary: as `summary_of` the analyses' attention table has it.
    """
    from plotly.graph_objects import Heatmap
    from plotly.subplots import make_subplots

    places = list(
        summary[["context", "layer", "head"]].drop_duplicates().itertuples(index=False, name=None)
    )[:HEADS]
    figure = make_subplots(
        rows=len(places), cols=len(PANELS), shared_yaxes=True, horizontal_spacing=0.03,
        vertical_spacing=0.4 / len(places) if len(places) > 1 else 0,
        subplot_titles=[
            f"{context}, head {layer}.{head}<br>{words}"
            for context, layer, head in places for words in PANELS.values()
        ],
    )  # fmt: skip
    for i, (context, layer, head) in enumerate(places, 1):
        some = summary[(summary["context"] == context) & (summary["layer"] == layer)]
        some = some[some["head"] == head]
        keys = list(dict.fromkeys(some["key"]))
        queries = list(dict.fromkeys(some["query"]))
        hover = ["weight_low", "weight_high", "even", "untrained", "lost", "lost_random",
                 "flipped_low", "flipped_high"]  # fmt: skip

        def grid(name: str, some: pd.DataFrame = some) -> np.ndarray:
            found = some.pivot(index="query", columns="key", values=name)
            return found.reindex(index=queries, columns=keys).to_numpy(float)  # noqa: B023

        for j, name in enumerate(PANELS, 1):
            figure.add_trace(
                Heatmap(
                    z=grid(name), x=keys, y=queries, coloraxis="coloraxis",
                    text=written(grid(name)), texttemplate="%{text}",
                    textfont={"size": 10}, customdata=np.stack([grid(n) for n in hover], -1),
                    hovertemplate="from %{y} to %{x}: %{z:.2f}<br>weight [%{customdata[0]:.2f}, "
                    "%{customdata[1]:.2f}], even %{customdata[2]:.2f}, untrained "
                    "%{customdata[3]:.2f}<br>without it %{customdata[4]:.2f} nats an answer, at "
                    "random %{customdata[5]:.2f}<br>answers lost [%{customdata[6]:.2f}, "
                    "%{customdata[7]:.2f}]<extra></extra>",
                ),
                row=i, col=j,
            )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_yaxes(title="query", col=1)
    figure.update_xaxes(type="category", tickangle=-50)
    figure.update_xaxes(title="key", row=len(places))
    return figure.update_layout(
        template="simple_white",
        coloraxis={"colorscale": "Blues", "cmin": 0, "cmax": 1, "colorbar": {"title": "share"}},
        width=1150,
        height=140 + 310 * len(places),
        margin={"l": 90, "r": 20, "t": 70, "b": 70},
        font={"size": 12},
    )


def qk_and_ov(matrices: pd.DataFrame, seed: int | None = None) -> "Figure":
    """One model's heads over tokens: who would look at whom, and what looking there would say.

    Args:
        matrices: as `circuit_matrices` has them.
        seed: whose; None is the first.
    """
    from plotly.graph_objects import Heatmap
    from plotly.subplots import make_subplots

    seed = int(matrices["seed"].iloc[0]) if seed is None else seed
    mine = matrices[matrices["seed"] == seed]
    heads = list(mine[["layer", "head"]].drop_duplicates().itertuples(index=False, name=None))
    heads = heads[:HEADS]
    words = {"QK": ("query token", "key token"), "OV": ("token looked at", "logit of")}
    figure = make_subplots(
        rows=len(heads), cols=2, horizontal_spacing=0.2, vertical_spacing=0.2 / len(heads),
        subplot_titles=[f"{kind}, head {layer}.{head}, seed {seed}"
                        for layer, head in heads for kind in words],
    )  # fmt: skip
    for i, (layer, head) in enumerate(heads, 1):
        for j, (kind, (rows, columns)) in enumerate(words.items(), 1):
            some = mine[(mine["layer"] == layer) & (mine["head"] == head)]
            some = some[some["circuit"] == kind]
            names = list(dict.fromkeys(some["row"]))
            values = some.pivot(index="row", columns="column", values="value")
            figure.add_trace(
                Heatmap(
                    z=values.reindex(index=names, columns=names), x=names, y=names,
                    colorscale="RdBu_r", zmid=0,
                    colorbar={"title": "score" if kind == "QK" else "logit", "thickness": 12,
                              "x": 0.41 if j == 1 else 1.01, "len": 0.9 / len(heads),
                              "y": 1 - (i - 0.5) / len(heads)},
                    hovertemplate="%{y} → %{x}: %{z:.2f}<extra></extra>",
                ),
                row=i, col=j,
            )  # fmt: skip
            figure.update_yaxes(title=rows, row=i, col=j)
            figure.update_xaxes(title=columns, row=i, col=j)
    figure.update_yaxes(autorange="reversed", type="category", dtick=1)
    figure.update_xaxes(type="category", tickangle=0, dtick=1)
    return figure.update_layout(
        template="simple_white",
        width=1100,
        height=100 + 440 * len(heads),
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        font={"size": 12},
    )

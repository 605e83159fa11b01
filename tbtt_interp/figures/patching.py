"""Where an answer is decided: grids of patched sites by positions."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.figures.attention import written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Heatmap


def short(site: str) -> str:
    """A hook's name without what is the same in all.

    >>> short("blocks.0.attn.hook_z")
    '0 z'
    """
    layer, _, name = site.removeprefix("blocks.").partition(".")
    return f"{layer} {name.rpartition('hook_')[2]}" if name else site.removeprefix("hook_")


def _share_grid(rows: pd.DataFrame) -> "Heatmap":
    from plotly.graph_objects import Heatmap

    rows = rows.assign(
        y=[short(site) + ("" if pd.isna(head) else f".{head}")
           for site, head in zip(rows["site"], rows["head"], strict=True)]
    )  # fmt: skip
    sites = list(dict.fromkeys(rows["y"]))
    places = list(dict.fromkeys(rows.sort_values("pos", na_position="last")["place"]))

    def grid(name: str) -> np.ndarray:
        found = rows.pivot(index="y", columns="place", values=name)
        return found.reindex(index=sites, columns=places).to_numpy(float)

    hover = ["low", "high", "same_answer", "random", "effect", "characters"]
    return Heatmap(
        z=grid("share"), x=places, y=sites, coloraxis="coloraxis",
        text=written(grid("share")), texttemplate="%{text}", textfont={"size": 10},
        customdata=np.stack([grid(name) for name in hover], -1),
        hovertemplate="%{y} at %{x}<br>share %{z:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
        "<br>donor with the recipient's answer %{customdata[2]:.2f}"
        "<br>random donor %{customdata[3]:.2f}<br>effect %{customdata[4]:+.2f} nats a character"
        "<br>%{customdata[5]:,} characters<extra></extra>",
    )  # fmt: skip


def _apart(table: pd.DataFrame, by_row: str, row: str, by_column: str, column: str) -> str:
    """How far the two runs are from each other: a share of little says little."""
    some = table[(table[by_row] == row) & (table[by_column] == column)]
    return f"{some['distance'].iloc[0]:.1f} nats apart" if len(some) else ""


def _grids(table: pd.DataFrame, by_row: str, by_column: str, title: dict) -> "Figure":
    from plotly.subplots import make_subplots

    rows, columns = (list(dict.fromkeys(table[name])) for name in (by_row, by_column))
    figure = make_subplots(
        rows=len(rows), cols=len(columns), shared_xaxes=True, shared_yaxes=True,
        horizontal_spacing=0.02, vertical_spacing=0.2 / len(rows),
        subplot_titles=[
            f"{row}, {column}<br>{_apart(table, by_row, row, by_column, column)}"
            for row in rows for column in columns
        ],
    )  # fmt: skip
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            some = table[(table[by_row] == row) & (table[by_column] == column)]
            if len(some):
                figure.add_trace(_share_grid(some), row=i + 1, col=j + 1)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(type="category", tickangle=-60)
    sites = table.groupby(["site", "head"], dropna=False).ngroups
    return figure.update_layout(
        template="simple_white",
        title=title,
        coloraxis={"colorscale": "RdBu_r", "cmid": 0, "cmin": -1, "cmax": 1,
                   "colorbar": {"title": "share"}},
        width=240 + len(columns) * max(150, 34 * table["place"].nunique()),
        height=200 + len(rows) * (70 + 24 * sites),
        margin={"l": 110, "r": 20, "t": 130, "b": 80},
        font={"size": 12},
    )  # fmt: skip


def patching_grid(table: pd.DataFrame, note: str = "") -> "Figure":
    """Shares of the logit difference, all characters together: a grid a direction and change.

    Args:
        table: as `patching_table` has it.
        note: what a reader has to know, put under the title.
    """
    rows = table[(table["character"] == "answer") & (table["metric"] == "logit difference")]
    rows = rows.assign(changed=rows["changed"] + " differs")
    return _grids(rows, "direction", "changed", _title("Share of the logit difference moved", note))


def patching_characters(table: pd.DataFrame, note: str = "") -> "Figure":
    """The same for each character of the answer by itself, denoising.

    Args:
        table: as `patching_table` has it.
        note: what a reader has to know, put under the title.
    """
    rows = table[
        (table["character"] != "answer")
        & (table["metric"] == "logit difference")
        & (table["direction"] == "denoising")
    ]
    rows = rows.assign(changed=rows["changed"] + " differs")
    return _grids(rows, "changed", "character", _title("Share restored, by character", note))


def _title(words: str, note: str) -> dict:
    return {"text": words, "subtitle": {"text": note}, "y": 0.985, "yanchor": "top"}

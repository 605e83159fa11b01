"""What the loss says of the order and what is held out, over training, beside no order."""

from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.figures.style import GREY

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SMOOTHED = 1 / 20  # of all evaluations, a mean about each: four equations make steps of a quarter
WORDS = {"share": "held-out share", "margin": "held-out margin, logits"}


def order_and_answers(courses: pd.DataFrame, measure: str) -> "Figure":
    """A measure of held-out answers against how far the loss has come, through training, by size.

    Right of the dashed line the loss is below the floor of the lines: order is known. Above are the
    models themselves, below their shuffled twins at the same steps, drawn where the models' own
    losses were. Models are thin, their mean by step thick, coloured by how much training is done.

    Args:
        courses: as `paired_courses` has it.
        measure: share or margin.
    """
    from plotly.subplots import make_subplots

    arms = list(dict.fromkeys(courses["arm"]))
    figure = make_subplots(
        rows=2, cols=len(arms), shared_xaxes=True, column_titles=arms, vertical_spacing=0.07,
        shared_yaxes=measure == "share", horizontal_spacing=0.025 if measure == "share" else 0.06,
    )  # fmt: skip
    for column, arm in enumerate(arms, 1):
        mine = courses[courses["arm"] == arm]
        both = mine[[measure, f"twin_{measure}"]]
        low, high = (0, 1) if measure == "share" else (both.min().min(), both.max().max())
        reach = [low - 0.05 * (high - low), high + 0.05 * (high - low)]
        figure.update_yaxes(range=reach, col=column)
        for row, shown in enumerate(both, 1):
            place = {"row": row, "col": column}
            if mine[shown].notna().any():
                _phase(figure, mine, shown, place)
                continue
            figure.add_annotation(
                text="no shuffled run<br>of these seeds", showarrow=False, x=0, y=0.5,
                yref="y domain", font={"color": GREY}, **place,
            )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "dash": "dash", "width": 1})
    for row, words in ((1, "file"), (2, "shuffled twin")):
        figure.update_yaxes(title=f"{WORDS[measure]},<br>{words}", row=row, col=1)
    figure.update_xaxes(range=[-1.08, 1.08], tickvals=[0, 1])
    figure.update_xaxes(ticktext=["lines' floor", "order's"], title="loss", row=2)
    return figure.update_layout(
        template="simple_white", width=200 + 250 * len(arms), height=520, font={"size": 13},
        margin={"l": 90, "r": 20, "t": 40, "b": 60},
        coloraxis={"colorscale": "Viridis", "cmin": 0, "cmax": 1,
                   "colorbar": {"title": "share of<br>training", "tickvals": [0, 0.5, 1]}},
    )  # fmt: skip


def _phase(figure: "Figure", table: pd.DataFrame, shown: str, place: dict[str, int]) -> None:
    come = (table["floor_lines"] - table["loss"]) / (table["floor_lines"] - table["floor_order"])
    loss = table.assign(come=come).pivot(index="step", columns="seed", values="come")
    values = table.pivot(index="step", columns="seed", values=shown).dropna(axis=1, how="all")
    window = max(1, round(SMOOTHED * len(values)))
    smooth = values.rolling(window, center=True, min_periods=1).mean()
    for seed in values:
        figure.add_scatter(
            x=loss[seed], y=smooth[seed], mode="lines", line={"color": GREY, "width": 1},
            opacity=0.35, showlegend=False, hovertemplate=f"seed {seed}<extra></extra>", **place,
        )  # fmt: skip
    figure.add_scatter(
        x=loss[values.columns].mean(axis=1), y=smooth.mean(axis=1), mode="lines+markers",
        line={"color": GREY, "width": 2}, customdata=values.index, showlegend=False,
        marker={"color": values.index / table["steps"].iloc[0], "coloraxis": "coloraxis",
                "size": 7},
        hovertemplate="step %{customdata:,}<br>order known %{x:.2f}<br>%{y:.2f}"
        f"<br>mean of {values.shape[1]} models<extra></extra>", **place,
    )  # fmt: skip

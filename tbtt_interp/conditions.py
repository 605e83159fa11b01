"""Models of one experimental condition: values by seed, paired differences, claims and curves.

A condition is what some rows of a table of models have in common, such as a size and a framing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.plots import GREY, colour_of, name_once, panels
from tbtt_interp.results import FEWEST_MODELS, Claim
from tbtt_interp.stats import ANY, SHARE, UNMEASURED, Bounds, Interval, mean_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MEASURES = {
    "held_out_accuracy": "held-out right,<br>share", "seen_accuracy": "seen right,<br>share",
    "loss": "loss, nats<br>per character", "order_known": "order known,<br>share",
}  # fmt: skip
FLOORS = {  # of the loss: who reaches it, and on which framings
    "floor_lines": ("knows every line", ("file", "shuffled")),
    "floor_order": ("knows their order, too", ("file",)),
    "floor_line": ("knows every line", ("line",)),
}


def select(models: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows that have these values.

    >>> table = pd.DataFrame({"size": ["small", "large"], "seed": [0, 0]})
    >>> select(table, size="large").index.tolist()
    [1]
    """
    mask = np.ones(len(models), bool)
    for name, value in where.items():
        mask &= (models[name] == value).to_numpy()
    return models[mask]


def by_seed(models: pd.DataFrame, value: str = "held_out_accuracy", **where: object) -> pd.Series:
    """One value per model, indexed by seed, of the rows that `select` gives.

    The difference of two such series is paired by seed: a seed that one of them lacks is nan.

    >>> table = pd.DataFrame({"size": ["small", "large"], "seed": [0, 0], "loss": [1.0, 0.5]})
    >>> by_seed(table, "loss", size="large").to_dict()
    {0: 0.5}
    """
    rows = select(models, **where)
    if value not in rows:
        return pd.Series(dtype=float)
    return rows.set_index("seed")[value].astype(float).dropna()


def check_one_each(models: pd.DataFrame, cell: Sequence[str]) -> None:
    """Checks that no cell has two models of one seed.

    Raises:
        TbttError: if one has.
    """
    double = models[models.duplicated([*cell, "seed"], keep=False)]
    if not double.empty:
        names = " and ".join(sorted(set(double["run"]))[:2])
        raise TbttError(
            f"seed {double['seed'].iloc[0]} is twice in one cell ({names}): "
            "give a folder with the runs of one sweep alone"
        )


def first_evaluations(over: pd.DataFrame, reached: pd.Series) -> pd.DataFrame:
    """Each model at the first evaluation with a property; models that never have it are left out.

    >>> over = pd.DataFrame({"run": "a", "seed": 0, "step": [1, 2, 3], "loss": [0.9, 0.2, 0.8]})
    >>> first_evaluations(over, over["loss"] < 0.5)["step"].tolist()
    [2]
    """
    by_step = over[reached].sort_values("step")
    return by_step.groupby(["run", "seed"], sort=False).head(1).sort_index()


def over_models(values: pd.Series, bounds: Bounds = ANY) -> Interval:
    """The mean over models with its interval; all nan where there is no model."""
    return mean_over_models(values, bounds=bounds) if values.notna().any() else UNMEASURED


def claim_over_models(values: pd.Series, bounds: Bounds = ANY, **claim: Any) -> Claim:
    """The claim whose effect is the mean over these models, or over these pairs of models.

    Args:
        claim: `Claim`'s other attributes.
    """
    return Claim(effect=over_models(values, bounds), **claim)


def counts_text(models: pd.DataFrame, group: str) -> str:
    """Right answers of all models together; empty where there are no answers.

    >>> counts_text(pd.DataFrame({"seen_right": [3, 4], "seen_of": [4, 4]}), "seen")
    '7/8'
    """
    if f"{group}_of" not in models or not models[f"{group}_of"].sum() > 0:
        return ""
    return f"{models[f'{group}_right'].sum():.0f}/{models[f'{group}_of'].sum():.0f}"


def mean_text(values: pd.Series, bounds: Bounds = ANY, *, with_n: bool = False) -> str:
    """A mean over models with its interval, and the number of models; empty where there is none.

    >>> mean_text(pd.Series([0.25, 0.25]), with_n=True)
    '0.25 (2)'
    """
    if not values.notna().any():
        return ""
    return over_models(values, bounds).format() + (f" ({values.count()})" if with_n else "")


def answers_text(models: pd.DataFrame) -> dict[str, str]:
    """What models answer, as cells of a printed table: counts, mean accuracy and order known."""
    return {
        "seen": counts_text(models, "seen"), "held-out": counts_text(models, "held_out"),
        "accuracy [95 %]": mean_text(models["held_out_accuracy"], SHARE),
        "order known": mean_text(models["order_known"], SHARE),
    }  # fmt: skip


def interval_note(claims: Sequence[Claim]) -> str:
    """How these claims' intervals are made, and what so few models can show."""
    least = min((claim.effect.n for claim in claims if claim.effect.n), default=0)
    return (
        "Intervals are Student's over models; those of shares end at 0 and 1. With fewer than "
        f"{FEWEST_MODELS} models there is no verdict. The smallest claim here has {least} models: "
        f"without an effect, all of them would lean one given way with p = {0.5**least:.3f}. "
        "Models that are all alike leave no interval: then a share of others up to "
        f"{1 - 0.05 ** (1 / max(least, 1)):.2f} is not excluded."
    )


def plot_over_training(over: pd.DataFrame, *, panel: str = "size", by: str = "framing") -> "Figure":
    """Answers, loss and order known over training: a thin line per model, and a thick mean.

    Dotted lines are entropy floors of the loss.

    Args:
        over: as `over_training_table` returns it.
        panel, by: the columns of the panels and of the colours.
    """
    over = over[over["step"] > 0]
    names = [name for name in MEASURES if over[name].notna().any()]
    groups, series = (list(dict.fromkeys(over[name])) for name in (panel, by))
    titles = [*map(str, groups), *[""] * (len(groups) * (len(names) - 1))]
    figure, _ = panels(titles, across=len(groups), height=160, gap=20, shared_xaxes=True)
    for (group, one), models in over.groupby([panel, by], sort=False):
        colour, column = colour_of(one, series), groups.index(group) + 1
        for row, name in enumerate(names, 1):
            values = models.pivot(index="step", columns="seed", values=name)
            values = values.dropna(axis=1, how="all")
            lines = {seed: (values[seed], 0.7) for seed in values}
            lines |= {"mean": (values.mean(axis=1), 2.6)} if lines else {}
            for key, (line, width) in lines.items():
                figure.add_scatter(
                    x=line.index, y=line, mode="lines", name=str(one), row=row, col=column,
                    line={"color": colour, "width": width}, opacity=1 if width > 1 else 0.3,
                    showlegend=key == "mean", hovertemplate=f"{key}, step %{{x}}: %{{y:.3f}}",
                )  # fmt: skip
    row, floors = names.index("loss") + 1, [name for name in FLOORS if name in over]
    for (group, framing), models in over.groupby([panel, "framing"], sort=False):
        for name in (name for name in floors if framing in FLOORS[name][1]):
            figure.add_hline(
                y=models[name].mean(), row=row, col=groups.index(group) + 1,  # pyright: ignore
                line={"color": GREY, "dash": "dot"}, annotation_text=FLOORS[name][0],
            )  # fmt: skip
    low = over[["loss", *floors]].min().min()
    figure.update_yaxes(range=[-0.05, 1.05])
    figure.update_yaxes(range=[low - 0.08, max(over["loss"].quantile(0.9), low + 0.4)], row=row)
    for row, name in enumerate(names, 1):
        figure.update_yaxes(title=MEASURES[name], row=row, col=1)
    figure.update_xaxes(type="log").update_xaxes(title="training step", row=len(names))
    return name_once(figure)

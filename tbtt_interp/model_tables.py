"""One row per model of many runs: how it was trained, what it answers, and its training curve."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.metrics import Row, flat_row
from tbtt_interp.plots import GREY, colour_of, name_once, panels
from tbtt_interp.runs import Run
from tbtt_interp.stats import SHARE, summarize
from tbtt_interp.tasks.arithmetic import pairs_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ACCURACIES = ["seen_accuracy", "held_out_accuracy", "knows_all"]
MEASURES = {
    "held_out_accuracy": "held-out right,<br>share", "seen_accuracy": "seen right,<br>share",
    "loss": "loss, nats<br>per character", "order_known": "order known,<br>share",
}  # fmt: skip
FLOORS = {  # of the loss: what a model at it knows, and on which framings
    "floor_lines": ("knows every line", ("file", "shuffled")),
    "floor_order": ("knows their order, too", ("file",)),
    "floor_line": ("knows every line", ("line",)),
}


def models_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per model at its last step.

    Returns:
        `run` (the folder's name), `task`, `size`, `width`, `layers`, `framing`, `window`, `batch`
        (windows per step, or "all"), `learning_rate`, `weight_decay`, `steps`, `seed`, `held_out`
        (the pairs, such as "5,7"); counts `X_right` and `X_of` of each group, `seen_right` and
        `seen_of` over all seen groups; `seen_accuracy`, `held_out_accuracy`, `knows_all`;
        `margin_seen` and `margin_held_out`, the smallest, in logits. Of models that were trained
        here also `loss`, `floor_order`, `floor_lines` and `floor_line`, in nats per character;
        `order_known` on framing file; and `late_seen_right`, `late_held_out_right` and their
        `_of`: evaluations in the last sixth of training at which all answers were right. Where a
        model diverged, `diverged`, the step by which it had; it has no answers and no loss.
    Raises:
        TbttError: if there is no run, or one of them is unfinished.
    """

    def rows(run: Run) -> Iterable[Row]:
        return evaluate_run(run).rows() if run.config.recipe is None else run.summary()["seeds"]

    return _described((run, pd.DataFrame(map(flat_row, rows(run)))) for run in runs)


def over_training_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per model and evaluation: `step`, and `models_table`'s columns but the late counts.

    Floors, and the order known, are those of finished runs.

    Raises:
        TbttError: if there is no run.
    """

    def floors(run: Run) -> pd.DataFrame:
        rows = run.summary()["seeds"] if run.is_complete else [{"seed": s} for s in run.seeds]
        return pd.DataFrame(map(flat_row, rows)).filter(regex="^(seed$|floor_)")

    return _described((run, run.metrics().merge(floors(run), on="seed")) for run in runs)


def run_settings(run: Run) -> dict[str, Any]:
    """The columns of `models_table` that are a run's."""
    config, training = run.config, (run.config.recipe or {}).get("training", {})
    return {
        "run": run.folder.name, "task": run.tasks[0].name, "size": config.size,
        "width": run.shape.d_model, "layers": run.shape.layers, "framing": config.framing,
        "window": run.shape.n_ctx, "batch": training.get("batch"),
        "learning_rate": training.get("learning_rate"),
        "weight_decay": training.get("weight_decay"), "steps": config.steps,
    }  # fmt: skip


def _described(tables: Iterable[tuple[Run, pd.DataFrame]]) -> pd.DataFrame:
    described = []
    for run, table in tables:
        first = pd.DataFrame(run_settings(run) | {"seed": table["seed"].astype(int)})
        pairs = dict(zip(run.seeds, map(pairs_text, run.config.held_out), strict=True))
        first["held_out"] = first["seed"].map(pairs)
        seen = {f"seen_{side}": table.filter(regex=f"^seen_.*_{side}$").sum(axis=1)
                for side in ("right", "of")}  # fmt: skip
        is_known = run.config.framing == "file" and "floor_lines" in table  # not of imported models
        known = order_known(table) if is_known else float("nan")
        described.append(first.join(table.drop(columns="seed")).assign(**seen, order_known=known))
    if not described:
        raise TbttError("there is no finished run to tabulate: tbtt sweep trains some")
    return with_accuracies(pd.concat(described, ignore_index=True))


def order_known(table: pd.DataFrame) -> pd.Series:
    """The share of the line order that a loss shows: 0 at the lines' floor, 1 at the order's.

    It is a lower bound, since not knowing some lines raises the loss. Losses above the lines' floor
    count as 0.
    """
    below = table["floor_lines"] - table["loss"]
    return (below / (table["floor_lines"] - table["floor_order"])).clip(lower=0)


def with_accuracies(models: pd.DataFrame) -> pd.DataFrame:
    """The table with `seen_accuracy`, `held_out_accuracy`, `knows_all` (1: every seen answer)."""
    wanted = ["held_out_right", "held_out_of", "order_known"]
    models = models.reindex(columns=list(dict.fromkeys([*models, *wanted])))
    return models.assign(
        seen_accuracy=models["seen_right"] / models["seen_of"],
        held_out_accuracy=models["held_out_right"] / models["held_out_of"],
        knows_all=(models["seen_right"] / models["seen_of"])
        .eq(1)
        .astype(float)
        .where(models["seen_of"] > 0),
    )


def table_by_cell(models: pd.DataFrame) -> pd.DataFrame:
    """One row per run and set of held-out pairs.

    Returns:
        `run`, `held_out`, `models`; counts of seen and held-out answers, summed over models;
        `seen_accuracy` and `held_out_accuracy`, means over models with `_low` and `_high`, nan
        where there are no answers; `loss`, the mean, in nats per character.
    """
    models, cell = with_accuracies(models), ["run", "held_out"]
    table = summarize(models, cell, ACCURACIES[:2], bounds=SHARE)
    counts = models.groupby(cell, sort=False)[
        ["seen_right", "seen_of", "held_out_right", "held_out_of"]].sum().astype(int)  # fmt: skip
    loss = models.groupby(cell, sort=False)["loss"].mean()
    table = table.merge(counts.join(loss).reset_index(), on=cell)
    return table.rename(columns={"n_models": "models"})


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
                annotation_position="top left",
            )  # fmt: skip
    low = over[["loss", *floors]].min().min()
    figure.update_yaxes(range=[-0.05, 1.05])
    figure.update_yaxes(range=[low - 0.08, max(over["loss"].quantile(0.9), low + 0.4)], row=row)
    for row, name in enumerate(names, 1):
        figure.update_yaxes(title=MEASURES[name], row=row, col=1)
    figure.update_xaxes(type="log").update_xaxes(title="training step", row=len(names))
    return name_once(figure)

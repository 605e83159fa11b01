"""Every model of many runs as a row: what it was, what it was trained on, and what came of it."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from tbtt_interp.baselines import baseline_answers
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import Run, find_runs, load_run
from tbtt_interp.sweep_tables import SHIPPED
from tbtt_interp.tables import training_table
from tbtt_interp.tasks import load_task
from tbtt_interp.tasks.arithmetic import Pair
from tbtt_interp.train.sweep import pairs_text

MEASURED = SHIPPED


def models_table(runs: Iterable[Run]) -> pd.DataFrame:
    """A row a model at its last step.

    Columns: `run` (the folder's name), `task`, `size`, `width`, `layers`, `framing`, `window`,
    `batch` (windows a step, or "all"), `learning_rate`, `weight_decay`, `steps`, `seed`,
    `held_out` ("5,7"); `seen_right` and `seen_of`, over all seen groups, and `X_right`, `X_of` of
    each; `held_out_right`, `held_out_of`; `margin_seen`, `margin_held_out`, in logits; `loss` and
    `floor_order`, `floor_lines`, `floor_line`, in nats a character; `order_known`, the share of the
    order that the loss can only have from knowing it, on `file` alone; `late_seen_right`,
    `late_held_out_right` and their `_of`: evaluations in the last sixth of training at which all
    were right.
    """
    parts = [_described(run, training_table(run)[:-1].dropna(axis=1, how="all")) for run in runs]
    if not parts:
        raise TbttError("there is no finished run to tabulate: tbtt sweep trains some")
    return pd.concat(parts, ignore_index=True)


def over_training_table(runs: Iterable[Run]) -> pd.DataFrame:
    """A row a model and evaluation: `step`, and as `models_table` has, but for late counts."""
    parts = []
    for run in runs:
        floors = [
            {"seed": row["seed"]} | {f"floor_{k}": v for k, v in row["floors"].items()}
            for row in run.summary()["seeds"]
        ]
        parts.append(_described(run, run.metrics().merge(pd.DataFrame(floors), on="seed")))
    if not parts:
        raise TbttError("there is no finished run to tabulate: tbtt sweep trains some")
    return pd.concat(parts, ignore_index=True)


def held_out_table(runs: Iterable[Run]) -> pd.DataFrame:
    """A row a model and held-out equation, at the model's last step.

    Columns: `run` to `held_out` as `models_table` has; `prompt`, `operator`, `a`, `b`, `answer`;
    `margin`, in logits; `right`; `nearest`, `additive`: whether that baseline is right, fitted on
    what this model has seen. Runs that hold out no equations have no rows; where none does, the
    table is empty.
    """
    runs = list(runs)
    parts = [_held_out_equations(run) for run in runs if _asks_held_out(run)]
    if not runs:
        raise TbttError("there is no finished run to tabulate: tbtt sweep trains some")
    if not parts:
        return pd.DataFrame(columns=[*_what(runs[0]), *EQUATION])
    return pd.concat(parts, ignore_index=True)


EQUATION = ["seed", "held_out", "prompt", "operator", "a", "b", "answer", "margin", "right",
            "nearest", "additive"]  # fmt: skip


def _asks_held_out(run: Run) -> bool:
    return any(run.config.held_out) and "operator" in run.tasks[0].prompts()


def _held_out_equations(run: Run) -> pd.DataFrame:
    found = evaluate_run(run).table.query("held_out")
    found = found.assign(held_out=found["seed"].map(_held_out(run)))
    known = pd.concat([_equations(pairs) for pairs in dict.fromkeys(run.config.held_out)])
    found = found.merge(known, on=["held_out", "prompt"]).assign(**_what(run))
    return found[[*_what(run), *EQUATION]]


@cache
def _equations(held_out: tuple[Pair, ...]) -> pd.DataFrame:
    """The equations of some pairs, and which baselines answer them from all others."""
    task = load_task("arithmetic", held_out=held_out)
    right = baseline_answers(task).pivot(index="prompt", columns="baseline", values="right")
    right = right.rename(columns={"nearest seen equation": "nearest", "additive model": "additive"})
    equations = task.prompts(held_out=True)[["prompt", "operator", "a", "b"]]
    return equations.merge(right, on="prompt").assign(held_out=pairs_text(held_out))


def _held_out(run: Run) -> dict[int, str]:
    return dict(zip(run.seeds, map(pairs_text, run.config.held_out), strict=True))


def _what(run: Run) -> dict[str, Any]:
    """What a run was, as every row of its models says."""
    config, recipe = run.config, run.config.recipe or {}
    training: dict[str, Any] = recipe.get("training", {})
    return {
        "run": run.folder.name, "task": run.tasks[0].name, "size": config.size,
        "width": run.shape.d_model, "layers": run.shape.layers, "framing": config.framing,
        "window": run.shape.n_ctx, "batch": training.get("batch"),
        "learning_rate": training.get("learning_rate"),
        "weight_decay": training.get("weight_decay"), "steps": config.steps,
    }  # fmt: skip


def _described(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    what = _what(run)
    seen = {side: table.filter(regex=f"^seen_.*{side}$").sum(axis=1) for side in ("_right", "_of")}
    found = table.assign(
        **what, held_out=table["seed"].map(_held_out(run)),
        seen_right=seen["_right"], seen_of=seen["_of"], order_known=order_known(table),
    )  # fmt: skip
    first = [*what, "seed", "held_out"]
    return found[[*first, *(name for name in found if name not in first)]].assign(
        order_known=lambda t: t["order_known"].where(t["framing"] == "file")
    )


def order_known(table: pd.DataFrame) -> pd.Series:
    """The share of the order that a loss shows: 0 at the floor of the lines, 1 at the order's.

    A lower bound, since what a model does not know of the lines raises its loss; not below 0.
    """
    if not {"floor_lines", "floor_order", "loss"} <= {*table}:  # a model that was not trained here
        return pd.Series(float("nan"), table.index)
    below = table["floor_lines"] - table["loss"]
    return (below / (table["floor_lines"] - table["floor_order"])).clip(lower=0)


def finished_runs(folder: Path) -> list[Run]:
    """The complete runs below a folder, by name.

    Raises:
        TbttError: if there is none.
    """
    runs = [run for path in find_runs(folder) if (run := load_run(path)).is_complete]
    if not runs:
        raise TbttError(f"there is no finished run below {folder}: train some with `tbtt sweep`")
    return runs


Tabulate = Callable[[Iterable[Run]], pd.DataFrame]
TABLES: dict[str, tuple[str, Tabulate]] = {  # what their files' names end in, what makes them
    "models": ("", models_table),
    "over training": ("-over-training", over_training_table),
    "held out": ("-held-out", held_out_table),
}  # fmt: skip


def sweep_table(name: str, which: str, folder: Path | None = None) -> pd.DataFrame:
    """One of a sweep's tables, of TABLES.

    Args:
        name: of the sweep; its tables come with the package.
        folder: of its runs, to tabulate these and not what comes with the package.
    """
    if which not in TABLES:
        raise unknown("table", which, TABLES)
    ending, tabulate = TABLES[which]
    if folder is not None:
        return tabulate(finished_runs(folder))
    path = MEASURED / f"{name}{ending}.csv.gz"
    if not path.is_file():
        raise TbttError(
            f"the tables of sweep {name} do not come with this package: train it by "
            f"tbtt sweep {name}, and give its folder"
        )
    return pd.read_csv(path)


def shipped_table(names: Iterable[str], which: str) -> pd.DataFrame:
    """Of several sweeps the tables that come with the package, one below the other.

    Raises:
        TbttError: if none does.
    """
    parts, problems = [], []
    for name in names:
        try:
            parts.append(sweep_table(name, which))
        except TbttError as error:
            problems.append(error)
    if not parts:
        raise problems[0]
    return pd.concat(parts, ignore_index=True)


def sweep_tables(name: str, folder: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A sweep's models and how they came to it: `models_table` and `over_training_table`."""
    return sweep_table(name, "models", folder), sweep_table(name, "over training", folder)


def ship_tables(
    name: str, folder: Path, to: Path = MEASURED, *, tables: Iterable[str] = tuple(TABLES)
) -> None:
    """Writes a sweep's tables as they come with the package, or those of them that are read."""
    to.mkdir(exist_ok=True)
    for which in tables:
        ending = TABLES[which][0]
        sweep_table(name, which, folder).to_csv(
            to / f"{name}{ending}.csv.gz", index=False, float_format="%.5g",
            compression={"method": "gzip", "mtime": 0},
        )  # fmt: skip

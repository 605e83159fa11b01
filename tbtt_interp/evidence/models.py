"""Every model of many runs as a row: what it was, what it was trained on, and what came of it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run, find_runs, load_run
from tbtt_interp.train.sweep import pairs_text
from tbtt_interp.train.table import training_table

MEASURED = Path(__file__).parent / "measured"  # the sweeps' tables that come with the package


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


def _described(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    config, recipe = run.config, run.config.recipe or {}
    training: dict[str, Any] = recipe.get("training", {})
    held_out = dict(zip(run.seeds, map(pairs_text, config.held_out), strict=True))
    what = {
        "run": run.folder.name, "task": run.tasks[0].name, "size": config.size,
        "width": run.shape.d_model, "layers": run.shape.layers, "framing": config.framing,
        "window": run.shape.n_ctx, "batch": training.get("batch"),
        "learning_rate": training.get("learning_rate"),
        "weight_decay": training.get("weight_decay"), "steps": config.steps,
    }  # fmt: skip
    seen = {side: table.filter(regex=f"^seen_.*{side}$").sum(axis=1) for side in ("_right", "_of")}
    found = table.assign(
        **what, held_out=table["seed"].map(held_out),
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
    below = table["floor_lines"] - table["loss"]
    return (below / (table["floor_lines"] - table["floor_order"])).clip(lower=0)


def finished_runs(folder: Path) -> list[Run]:
    """The complete runs below a folder, by name."""
    runs = [load_run(path) for path in find_runs(folder)]
    return [run for run in runs if run.is_complete]


def sweep_tables(name: str, folder: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A sweep's models and how they came to it: `models_table` and `over_training_table`.

    Args:
        name: of the sweep; its tables come with the package.
        folder: of its runs, to tabulate these and not what comes with the package.
    """
    if folder is not None:
        runs = finished_runs(folder)
        return models_table(runs), over_training_table(runs)
    paths = [MEASURED / f"{name}.csv.gz", MEASURED / f"{name}-over-training.csv.gz"]
    if not paths[0].is_file():
        raise TbttError(
            f"the tables of sweep {name} do not come with this package: train it by "
            f"tbtt sweep {name}, and give its folder"
        )
    models, over = (pd.read_csv(path) for path in paths)
    return models, over


def ship_tables(name: str, folder: Path, to: Path = MEASURED) -> None:
    """Writes a sweep's tables as they come with the package."""
    to.mkdir(exist_ok=True)
    models, over = sweep_tables(name, folder)
    for table, path in ((models, f"{name}.csv.gz"), (over, f"{name}-over-training.csv.gz")):
        table.to_csv(
            to / path, index=False, float_format="%.5g",
            compression={"method": "gzip", "mtime": 0},
        )  # fmt: skip

"""One row per model of many runs: how it was trained, what it answers, and its training curve."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from tbtt_interp.baselines import baseline_answers
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import Run, find_runs, load_run
from tbtt_interp.stats import SHARE, summarize
from tbtt_interp.tables import training_table
from tbtt_interp.tasks import load_task
from tbtt_interp.tasks.arithmetic import Pair
from tbtt_interp.train.sweep import pairs_text

SHIPPED = Path(__file__).parents[1] / "analyses" / "tables"  # of the repository, not of the wheel
EQUATION = ["seed", "held_out", "prompt", "operator", "a", "b", "answer", "margin", "right",
            "nearest", "additive"]  # fmt: skip
ACCURACIES = ["seen_accuracy", "held_out_accuracy", "knows_all"]


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
        `_of`: evaluations in the last sixth of training at which all answers were right.
    Raises:
        TbttError: if there is no run, or one of them is unfinished.
    """
    return _described(
        (run, _evaluated(run) if run.config.recipe is None
         else training_table(run)[:-1].dropna(axis=1, how="all"))
        for run in runs
    )  # fmt: skip


def over_training_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per model and evaluation: `step`, and `models_table`'s columns but the late counts.

    Raises:
        TbttError: if there is no run, or one of them is unfinished.
    """

    def floors(run: Run) -> pd.DataFrame:
        of_seeds = {row["seed"]: row["floors"] for row in run.summary()["seeds"]}
        return pd.DataFrame(of_seeds).T.add_prefix("floor_").rename_axis("seed").reset_index()

    return _described((run, run.metrics().merge(floors(run), on="seed")) for run in runs)


def held_out_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per model and held-out equation, at the model's last step.

    Returns:
        `run` to `held_out` as in `models_table`; `prompt`, `operator`, `a`, `b`, `answer`;
        `margin`, in logits; `right`; `nearest` and `additive`: whether that baseline, fitted on the
        lines that this model has seen, is right. No row where a run holds out no equations.
    Raises:
        TbttError: if there is no run.
    """
    runs, tables = list(runs), []
    for run in runs:
        if not (any(run.config.held_out) and "operator" in run.tasks[0].prompts()):
            continue
        answers = evaluate_run(run).table.query("held_out")
        answers = answers.assign(held_out=answers["seed"].map(_pairs(run)))
        asked = pd.concat([_equations(pairs) for pairs in dict.fromkeys(run.config.held_out)])
        found = answers.merge(asked, on=["held_out", "prompt"]).assign(**_settings(run))
        tables.append(found[[*_settings(run), *EQUATION]])
    if not runs:
        raise TbttError("there is no finished run to tabulate: tbtt sweep trains some")
    if not tables:
        return pd.DataFrame(columns=[*_settings(runs[0]), *EQUATION])
    return pd.concat(tables, ignore_index=True)


@cache
def _equations(held_out: tuple[Pair, ...]) -> pd.DataFrame:
    """The equations of some pairs, and which baselines answer them from all others."""
    task = load_task("arithmetic", held_out=held_out)
    right = baseline_answers(task).pivot(index="prompt", columns="baseline", values="right")
    right = right.rename(columns={"nearest seen equation": "nearest", "additive model": "additive"})
    equations = task.prompts(held_out=True)[["prompt", "operator", "a", "b"]]
    return equations.merge(right, on="prompt").assign(held_out=pairs_text(held_out))


def _pairs(run: Run) -> dict[int, str]:
    return dict(zip(run.seeds, map(pairs_text, run.config.held_out), strict=True))


def _settings(run: Run) -> dict[str, Any]:
    config, training = run.config, (run.config.recipe or {}).get("training", {})
    return {
        "run": run.folder.name, "task": run.tasks[0].name, "size": config.size,
        "width": run.shape.d_model, "layers": run.shape.layers, "framing": config.framing,
        "window": run.shape.n_ctx, "batch": training.get("batch"),
        "learning_rate": training.get("learning_rate"),
        "weight_decay": training.get("weight_decay"), "steps": config.steps,
    }  # fmt: skip


def _evaluated(run: Run) -> pd.DataFrame:
    """Counts and margins per seed, from the weights alone."""
    evaluation = evaluate_run(run)
    return pd.DataFrame([
        {"seed": seed} | {f"{group}_right": rate.hits for group, rate in counts.items()}
        | {f"{group}_of": rate.total for group, rate in counts.items()}
        | {f"margin_{side}": margin for side, margin in margins.items()}
        for seed, counts, margins in zip(
            run.seeds, evaluation.counts(), evaluation.smallest_margins(), strict=True)
    ])  # fmt: skip


def _described(tables: Iterable[tuple[Run, pd.DataFrame]]) -> pd.DataFrame:
    described = []
    for run, table in tables:
        first = pd.DataFrame(_settings(run) | {"seed": table["seed"].astype(int)})
        first["held_out"] = first["seed"].map(_pairs(run))
        seen = {f"seen_{side}": table.filter(regex=f"^seen_.*_{side}$").sum(axis=1)
                for side in ("right", "of")}  # fmt: skip
        known = order_known(table) if run.config.framing == "file" else float("nan")
        described.append(first.join(table.drop(columns="seed")).assign(**seen, order_known=known))
    if not described:
        raise TbttError("there is no finished run to tabulate: tbtt sweep trains some")
    return with_accuracies(pd.concat(described, ignore_index=True))


def order_known(table: pd.DataFrame) -> pd.Series:
    """The share of the line order that a loss shows: 0 at the lines' floor, 1 at the order's.

    It is a lower bound, since what a model does not know of the lines raises its loss. Losses above
    the lines' floor count as 0.
    """
    if not {"floor_lines", "floor_order", "loss"} <= {*table}:  # the model was not trained here
        return pd.Series(float("nan"), table.index)
    below = table["floor_lines"] - table["loss"]
    return (below / (table["floor_lines"] - table["floor_order"])).clip(lower=0)


def with_accuracies(models: pd.DataFrame) -> pd.DataFrame:
    """The table with `seen_accuracy`, `held_out_accuracy` and `knows_all` (1 or 0), of the seen."""
    wanted = ["held_out_right", "held_out_of", "order_known"]
    models = models.reindex(columns=list(dict.fromkeys([*models, *wanted])))
    return models.assign(
        seen_accuracy=models["seen_right"] / models["seen_of"],
        held_out_accuracy=models["held_out_right"] / models["held_out_of"],
        knows_all=(models["seen_right"] == models["seen_of"]).astype(float),
    )


def finished_runs(folder: Path) -> list[Run]:
    """The complete runs below a folder, by name.

    Raises:
        TbttError: if there is none.
    """
    runs = [run for path in find_runs(folder) if (run := load_run(path)).is_complete]
    if not runs:
        raise TbttError(f"there is no finished run below {folder}: train some with `tbtt sweep`")
    return runs


TABLES: dict[str, tuple[str, Callable[[Iterable[Run]], pd.DataFrame]]] = {  # ending of files, maker
    "models": ("", models_table),
    "over training": ("-over-training", over_training_table),
    "held out": ("-held-out", held_out_table),
}


def sweep_table(name: str, which: str, folder: Path | None = None) -> pd.DataFrame:
    """One of a sweep's tables.

    Args:
        name: of the sweep.
        which: one of TABLES.
        folder: of runs that are tabulated; None reads the table that stands in SHIPPED.
    Raises:
        TbttError: if the table is unknown or does not ship.
    """
    if which not in TABLES:
        raise unknown("table", which, TABLES)
    ending, tabulate = TABLES[which]
    if folder is not None:
        return tabulate(finished_runs(folder))
    path = SHIPPED / f"{name}{ending}.csv.gz"
    if not path.is_file():
        raise TbttError(
            f"sweep {name} has no tables in {SHIPPED}: train it by tbtt sweep {name}, and give its "
            "folder"
        )
    return pd.read_csv(path)


def write_tables(name: str, folder: Path, to: Path, tables: Iterable[str] = tuple(TABLES)) -> None:
    """Writes a sweep's tables as `sweep_table` reads them from SHIPPED."""
    to.mkdir(exist_ok=True)
    for which in tables:
        table = sweep_table(name, which, folder)
        table.drop(columns=ACCURACIES, errors="ignore").to_csv(
            to / f"{name}{TABLES[which][0]}.csv.gz", index=False, float_format="%.5g",
            compression={"method": "gzip", "mtime": 0},
        )  # fmt: skip


def cells_table(models: pd.DataFrame) -> pd.DataFrame:
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

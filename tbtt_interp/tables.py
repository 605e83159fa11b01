"""Tables with one row per run, per model or per group of examples, and their cells as text."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tbtt_interp.baselines import baseline_counts
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Evaluation, answer_margins
from tbtt_interp.files import AGAIN
from tbtt_interp.metrics import flat_row, group_label, read_metrics
from tbtt_interp.prompts import PromptBatch
from tbtt_interp.runs import Run, find_runs, load_run
from tbtt_interp.stats import SHARE, Interval, mean_over_models
from tbtt_interp.tasks.arithmetic import operand_grid

Rows = list[list[str]]
TRAINING_NOTES = (
    "Margin: logit of the right character minus the best wrong one, in nats; the smallest over the "
    "held-out lines, or over the seen lines where none are held out.",
    "Floors: the lowest loss, in nats per character, for a model that knows the file's order, only "
    "its lines, or its lines when each is a window of its own.",
)


def list_runs(root: Path) -> pd.DataFrame:
    """One row per run below a folder: what it trains, how far it is, and its latest evaluation.

    Columns: run, task, size, framing, seeds, step, steps, status (finished, unfinished, imported),
    seen_right, seen_of, held_out_right, held_out_of, loss (mean over models, in nats per
    character), and problem: why a run cannot be read, which leaves its other columns empty.
    """
    rows = []
    for folder in find_runs(root):
        row: dict[str, Any] = {"run": str(folder), "problem": ""}
        try:
            row |= _run_row(load_run(folder))
        except TbttError as error:
            row["problem"] = str(error)
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)  # counts stay whole beside a run without


def _run_row(run: Run) -> dict[str, Any]:
    config, lines = run.config, read_metrics(run.folder)
    latest = lines[-1] if lines else {"step": 0, "seeds": []}
    losses = [row["loss"] for row in latest["seeds"] if row["loss"] is not None]
    diverged = sum("diverged" in row for row in latest["seeds"])
    finished = "imported" if config.recipe is None else "finished"
    row: dict[str, Any] = {
        "task": Path(config.task).stem, "size": config.size, "framing": config.framing,
        "seeds": len(run.seeds), "step": latest["step"] if config.recipe else config.steps,
        "steps": config.steps, "status": finished if run.is_complete else "unfinished",
    }  # fmt: skip
    if diverged:
        row["status"] += f" ({diverged} of {len(run.seeds)} models diverged)"
    for split in ("seen", "held_out"):
        counts = [n for of in latest["seeds"] for key, n in of.items() if key.startswith(split)]
        row[f"{split}_right"], row[f"{split}_of"] = np.sum([[0, 0], *counts], axis=0).tolist()
    return row | {"loss": sum(losses) / len(losses) if losses else None}


def check_whole(run: Run) -> None:
    """Checks that a run is finished and still has its last checkpoint and evaluation.

    A run that has lost these would pass for a run of an earlier step. Checkpoints are not opened.

    Raises:
        TbttError: if it is unfinished, or something is damaged or absent.
    """
    last, folder = run.config.steps, run.folder
    run.summary()
    if len(run.tasks) != len(run.seeds):
        raise TbttError(f"{folder / 'config.json'} has not one held_out per seed: restore it")
    _ = run.checkpoints  # of which the last must be there
    if run.config.recipe is None:  # imported: nothing is known of its training
        return
    lines = read_metrics(folder)
    seeds = [row["seed"] for row in lines[-1]["seeds"]] if lines else []
    if not lines or lines[-1]["step"] != last or seeds != list(run.seeds):
        path = folder / "metrics.jsonl"
        raise TbttError(f"{path} lacks the evaluation at step {last:,}: {AGAIN}")


def training_table(run: Run) -> pd.DataFrame:
    """One row per model of a finished run, then one for all models, with seed "all".

    Columns: seed; `X_right` and `X_of` for each group X; `margin_held_out` and `margin_seen`, in
    logits; `loss`, `floor_order`, `floor_lines` and `floor_line`, in nats per character;
    `late_seen_right`, `late_held_out_right` and their `_of`: evaluations in the last sixth of
    training at which all answers were right. The last row has sums of counts, means of losses and
    floors, the smallest margins, and each group's 95 % CI of the accuracy, `X_low` and `X_high`.
    """
    table = pd.DataFrame([flat_row(row) for row in run.summary()["seeds"]])
    together: dict[str, Any] = {"seed": "all"}
    for name in map(str, table.columns.drop(["seed", "diverged"], errors="ignore")):
        how = "sum" if name.endswith(("_right", "_of")) else "min" if "margin" in name else "mean"
        together[name] = table[name].agg(how)
    for group, interval in accuracy_intervals(table).items():
        together |= {f"{group}_low": interval.low, f"{group}_high": interval.high}
    return pd.concat([table, pd.DataFrame([together])], ignore_index=True)


def accuracy_intervals(table: pd.DataFrame) -> dict[str, Interval]:
    """The mean accuracy over models for each group of a table with columns `X_right` and `X_of`."""
    return {
        group: mean_over_models(table[f"{group}_right"] / table[f"{group}_of"], bounds=SHARE)
        for group in _groups(table)
    }


def _groups(table: pd.DataFrame) -> list[str]:
    return [str(name).removesuffix("_right") for name in table.filter(regex="^(?!late_).*_right$")]


def training_rows(table: pd.DataFrame) -> tuple[list[str], Rows]:
    """`training_table` as headers and cells."""
    groups = _groups(table)
    margin = "margin_held_out" if "margin_held_out" in table else "margin_seen"
    floors = ["order", "lines", "line"]
    headers = ["seed", *map(group_label, groups)]
    headers += ["margin", "loss", *(f"floor:\n{floor}" for floor in floors)]
    rows = [
        [
            str(row["seed"]),
            *(f"{row[f'{group}_right']:.0f}/{row[f'{group}_of']:.0f}" for group in groups),
            _signed(row.get(margin, math.nan)),
            "diverged" if math.isnan(row["loss"]) else f"{row['loss']:.3f}",
            *(f"{row[f'floor_{floor}']:.3f}" for floor in floors),
        ]
        for row in table.to_dict("records")
    ]
    return headers, rows


def next_step(run: Run) -> tuple[str, str]:
    """What this run has not shown, and the framing of the run that would show it."""
    if run.config.framing == "line":
        return "the same lines as windows of fresh orders", "shuffled"
    if run.config.framing == "shuffled":
        return "the paper's file, whose order can be memorized", "file"
    losses = [(row["loss"], row["floors"]["lines"]) for row in run.summary()["seeds"]]
    if any(loss is not None and loss < floor for loss, floor in losses):
        reason = "a loss below the floor of the lines means that the order was memorized"
        return f"{reason}; take the order away", "line"
    return "the same lines, with no order to memorize", "line"


def score_table(run: Run, evaluation: Evaluation) -> pd.DataFrame:
    """One row per group and answerer: each seed, all seeds, and the two baselines.

    Where seeds hold out different pairs, a baseline answers each of those splits once.

    Columns: group; by (a seed, "all", or a baseline's name); right; of; for a seed the group's
    smallest margin; for "all" accuracy, the mean over models, with its 95 % CI.
    """
    rows, of_models = [], evaluation.counts()
    for group, mask in evaluation.groups.items():
        counts = [of_model[group] for of_model in of_models]
        smallest = np.where(mask, evaluation.margins, np.inf).min(1).tolist()
        for seed, (right, of), margin in zip(evaluation.seeds, counts, smallest, strict=True):
            rows.append(
                {"group": group, "by": str(seed), "right": right, "of": of,
                 "margin": margin if of else math.nan}
            )  # fmt: skip
        right, of = np.sum(counts, axis=0).tolist()
        shares = [right / of if of else math.nan for right, of in counts]
        mean = mean_over_models(shares, bounds=SHARE)
        rows.append(
            {"group": group, "by": "all", "right": right, "of": of,
             "accuracy": mean.mean, "accuracy_low": mean.low, "accuracy_high": mean.high}
        )  # fmt: skip
    distinct = {id(task): task for task in run.tasks}.values()
    baselines = pd.concat([baseline_counts(task) for task in distinct])
    baselines = baselines.groupby(["baseline", "group"], sort=False, as_index=False).sum()
    baselines = baselines.rename(columns={"baseline": "by"})
    return pd.concat([pd.DataFrame(rows), baselines], ignore_index=True)


def score_rows(run: Run, table: pd.DataFrame) -> tuple[list[str], Rows, list[str]]:
    """`score_table` as headers, cells and notes: one row per answerer, one column per group."""
    groups, answerers = (list(dict.fromkeys(table[name])) for name in ("group", "by"))
    texts = table.assign(
        count=table["right"].astype(str) + "/" + table["of"].astype(str),
        margin=table["margin"].map(_signed),
    ).pivot(index="by", columns="group", values=["count", "margin"])
    texts = texts.reindex(answerers)[[(name, g) for name in ("count", "margin") for g in groups]]
    labels = [group_label(group) for group in groups]
    headers = ["answered by", *labels, *(f"margin,\n{label}" for label in labels)]
    names = {"all": "all seeds"} | {str(seed): f"seed {seed}" for seed in run.seeds}
    rows = [[names.get(by, by), *row]
            for by, row in zip(answerers, texts.fillna("").to_numpy(), strict=True)]  # fmt: skip
    models = len({str(seed) for seed in run.seeds} & set(table["by"]))  # that did not diverge
    together = table[table["by"] == "all"].assign(n_models=models)
    notes = [
        accuracy_sentence({str(row["group"]): Interval.of_row(row, "accuracy")
                           for row in together.to_dict("records")}),
        "Margin: logit of the right character minus the best wrong one, in nats, at its smallest.",
    ]  # fmt: skip
    return headers, rows, [*notes, *late_sentences(run)]


def operand_table(
    run: Run, low: int, high: int, *, step: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every equation over a range of operands: the answers, and their counts over all seeds.

    An equation whose prompt and answer do not fit the models' window counts as not right.

    Returns:
        One row per equation and seed (a, operator, b, group, seed, fits, margin, right), and one
        row per group and operator with right, "does not fit" and of.
    Raises:
        TbttError: if the run's task has no equations.
    """
    if not {"+", "-", "=", "<"} <= set(run.config.vocabulary):
        raise TbttError(
            f"the task of {run.folder} has no equations: --operands is for arithmetic and joint"
        )
    seeds = run.sound_seeds(step)
    chosen = [run.seed_index(seed) for seed in seeds]
    grids = [operand_grid(low, high, run.tasks[k].examples) for k in chosen]
    batch = PromptBatch.of(grids[0], run.tasks[0].vocabulary, run.shape.n_ctx)
    stacked = {name: value[chosen] for name, value in run.parameters(step).items()}
    margins = answer_margins(stacked, run.shape, batch).numpy()
    parts = [
        pd.DataFrame([{**e.labels, "group": e.group} for e in grid])[
            ["a", "operator", "b", "value", "group"]
        ].assign(seed=seed, fits=batch.fits, margin=row, right=batch.fits & (row > 0))
        for seed, grid, row in zip(seeds, grids, margins, strict=True)
    ]
    answers = pd.concat(parts, ignore_index=True)
    counts = answers.groupby(["group", "operator"], sort=False).agg(
        right=("right", "sum"), missing=("fits", lambda fits: (~fits).sum()), of=("right", "size")
    )
    return answers, counts.reset_index().rename(columns={"missing": "does not fit"})


def late_sentences(run: Run) -> list[str]:
    """At how many late evaluations of a finished run all seen, and all held-out, were right."""
    late = run.summary()["seeds"] if run.is_complete else [{}]
    return [
        f"Evaluations in the last sixth of training with all {split.replace('_', '-')} right, "
        f"by seed: {', '.join('{}/{}'.format(*row.get(f'late_{split}', '––')) for row in late)}."
        for split in ("seen", "held_out")
        if any(f"late_{split}" in row for row in late)
    ]


def accuracy_sentence(intervals: Mapping[str, Interval]) -> str:
    """The mean accuracy over models for each group, with its 95 % CI."""
    words = [f"{group_label(group)} {interval.format()}" for group, interval in intervals.items()]
    return f"Mean accuracy over models [95 % CI]: {', '.join(words)}."


def _signed(margin: float) -> str:
    return "" if math.isnan(margin) else f"{margin:+.2f}"

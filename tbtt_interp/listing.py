"""The runs below a folder as a table, and whether a finished one is all there."""

from pathlib import Path
from typing import Any

import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run, find_runs, load_run, read_metrics


def list_runs(root: Path) -> pd.DataFrame:
    """A row a run: what it trains, how far it is, and its latest figures over all seeds.

    A run that cannot be read has its reason in the column `problem`, and nothing else.

    Columns: run, task, size, framing, seeds, step, steps, status (finished, unfinished, imported),
    seen_right, seen_of, held_out_right, held_out_of, loss (mean over seeds, nats a character),
    problem.
    """
    rows = []
    for folder in find_runs(root):
        row: dict[str, Any] = {"run": str(folder), "problem": ""}
        try:
            row |= _figures(folder)
        except TbttError as error:
            row["problem"] = str(error)
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)  # counts stay whole beside a run without


def check_whole(run: Run) -> None:
    """Raises a TbttError where a run is unfinished, or what it ends in is damaged or gone.

    A run that has lost its last checkpoint or evaluation would pass for one of an earlier step.
    Checkpoints are not opened.
    """
    last, folder = run.config.steps, run.folder
    run.summary()
    if len(run.tasks) != len(run.seeds):
        raise TbttError(f"{folder / 'config.json'} has not one held_out a seed: restore it")
    if last not in run.checkpoints:
        raise TbttError(
            f"{folder} has lost its last checkpoint, of step {last:,}: restore it from a copy, or "
            "delete the run's folder and train it again"
        )
    if run.config.recipe is None:  # imported: of its training nothing is known
        return
    lines = read_metrics(folder)
    seeds = [row["seed"] for row in lines[-1]["seeds"]] if lines else []
    if not lines or lines[-1]["step"] != last or seeds != list(run.seeds):
        raise TbttError(
            f"{folder / 'metrics.jsonl'} lacks the evaluation at step {last:,}: restore the file "
            "from a copy, or delete the run's folder and train it again"
        )


def _figures(folder: Path) -> dict[str, Any]:
    run = load_run(folder)
    config = run.config
    lines = read_metrics(folder)
    latest = lines[-1] if lines else {"step": 0, "seeds": []}
    counts = {
        side: [v for row in latest["seeds"] for k, v in row.items() if k.startswith(side)]
        for side in ("seen_", "held_out")
    }
    losses = [row["loss"] for row in latest["seeds"]]
    finished = "imported" if config.recipe is None else "finished"
    return {
        "task": Path(config.task).stem,
        "size": config.size,
        "framing": config.framing,
        "seeds": len(run.seeds),
        "step": latest["step"] if config.recipe else config.steps,
        "steps": config.steps,
        "status": finished if run.is_complete else "unfinished",
        "seen_right": sum(hits for hits, _ in counts["seen_"]),
        "seen_of": sum(total for _, total in counts["seen_"]),
        "held_out_right": sum(hits for hits, _ in counts["held_out"]),
        "held_out_of": sum(total for _, total in counts["held_out"]),
        "loss": sum(losses) / len(losses) if losses else None,
    }

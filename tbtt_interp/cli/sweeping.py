"""`tbtt sweep`: grids of recipes, trained job by job and tabulated cell by cell."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from tbtt_interp.cli.output import AsJson, print_json, print_table
from tbtt_interp.errors import printable

if TYPE_CHECKING:
    import pandas as pd

    from tbtt_interp.train.sweep import Sweep


def sweep_command(
    recipe: Annotated[
        str, Argument(help="ladder, atlas, window, why-size and so on, or a TOML file.")
    ],
    out: Annotated[Path | None, Option(help="The folder of its runs. [runs/NAME]")] = None,
    workers: Annotated[
        int | None, Option(help="Runs at once. [one per core, or all of the cluster's]")
    ] = None,
    address: Annotated[
        str | None, Option(help="A Dask scheduler, as in tcp://10.0.0.1:8786. [this machine]")
    ] = None,
    only: Annotated[
        str, Option(help="Runs whose names match, as in '*-line-*'.", show_default=False)
    ] = "*",
    dry_run: Annotated[
        bool, Option("--dry-run", help="List cells, what is done and the time; train none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train every untrained cell of a grid, and count right answers.

    tbtt sweep ladder --dry-run

    tbtt sweep atlas --out runs/atlas
    """
    import pandas as pd

    from tbtt_interp.train.backends import check_executor
    from tbtt_interp.train.sweep import read_sweep, sweep_rows

    sweep = read_sweep(recipe).only(only)
    folder = out or Path("runs") / sweep.name
    check_executor(workers, address)
    failures = {} if dry_run else _run(sweep, folder, workers, address)
    cells = pd.DataFrame(sweep_rows(sweep, folder))
    pairs = zip(cells["run"], cells["problem"], strict=True)
    cells["problem"] = [failures.get(run, problem) for run, problem in pairs]
    if not dry_run:
        cells = cells.merge(_results(folder, cells), how="left", on=["run", "held_out"])
    if as_json:
        print_json(cells)
    else:
        _print_cells(cells, sweep, folder, with_results=not dry_run)
    if failures:
        raise typer.Exit(1)


def _results(folder: Path, cells: "pd.DataFrame") -> "pd.DataFrame":
    """The counts of the trained cells; no rows where none is trained."""
    from tbtt_interp.model_tables import models_table, table_by_cell
    from tbtt_interp.runs import load_run

    trained = cells.loc[(cells["done"] == 1) & (cells["problem"] == ""), "run"].unique()
    if not len(trained):
        return cells[["run", "held_out"]].head(0)
    models = models_table(load_run(folder / name) for name in trained)
    dealt = {run: text for run, text in zip(cells["run"], cells["held_out"], strict=True)
             if "hands" in text}  # fmt: skip
    pairs = zip(models["run"], models["held_out"], strict=True)
    models["held_out"] = [dealt.get(run, text) for run, text in pairs]
    return table_by_cell(models).drop(columns="models")


def _print_cells(
    cells: "pd.DataFrame", sweep: "Sweep", folder: Path, *, with_results: bool
) -> None:
    import pandas as pd

    from tbtt_interp.stats import Interval

    def results(row: dict[Any, Any]) -> dict[str, str]:
        shown = {}
        for side in ("seen", "held_out"):
            head, name = side.replace("_", "-"), f"{side}_accuracy"
            shown |= {head: "", f"{head} accuracy [95 %]": ""}
            if not pd.isna(row.get(name)):
                shown[head] = f"{row[f'{side}_right']:.0f}/{row[f'{side}_of']:.0f}"
                shown[f"{head} accuracy [95 %]"] = Interval.of_row(row, name).format()
        done = "" if row["done"] == 1 else f"{row['done']:.0%} done"
        loss = "" if pd.isna(row.get("loss")) else f"{row['loss']:.3f}"
        return shown | {"loss": loss, "": "failed" if row["problem"] else done}

    def plan(row: dict[Any, Any]) -> dict[str, str]:
        return {
            "steps": f"{row['steps']:,}", "rate": f"{row['learning_rate']:g}",
            "decay": f"{row['weight_decay']:g}", "done": f"{row['done']:.0%}",
            "time left": _duration(row["hours_left"]), "": "failed" if row["problem"] else "",
        }  # fmt: skip

    rows = [{"run": row["run"], "held out": row["held_out"], "models": row["models"],
             **(results(row) if with_results else plan(row))}
            for row in cells.to_dict("records")]  # fmt: skip
    left = _duration(cells["hours_left"].sum())
    size = sum(job.gigabytes for job in sweep.jobs)
    more = f"; {left} of two CPU cores left, by estimate" if left else ""
    more += f"; checkpoints take {size:.1f} GB" if size >= 0.1 else ""
    notes = [f"{(cells['done'] == 1).sum()} of {len(cells)} cells done{more}."]
    failed = cells[cells["problem"] != ""].drop_duplicates("run")
    notes += [f"{run}: {why}" for run, why in zip(failed["run"], failed["problem"], strict=True)]
    if with_results:
        notes.append(
            "Counts: right answers of all models per cell, at the last step. Accuracy: mean over "
            "models, with Student's 95 % interval. Loss: mean, in nats per character."
        )
    notes += [f"Expected. {text}" for text in sweep.expected]
    settings = ("held out", "models", "steps", "rate", "decay")
    same = [key for key in settings if key in rows[0] and len(rows) > 1]
    same = [key for key in same if len({row[key] for row in rows}) == 1]
    if same:
        notes.insert(0, f"In all: {'; '.join(f'{key} {rows[0][key]}' for key in same)}.")
    rows = [{key: value for key, value in row.items() if key not in same} for row in rows]
    title = f"{folder}: {sweep.summary}"
    print_table(rows[0], [row.values() for row in rows], title=title, notes=notes)


def _duration(hours: float) -> str:
    """A rounded duration.

    >>> _duration(2.345), _duration(0.21), _duration(0.001), _duration(0.0)
    ('2.3 h', '13 min', '< 1 min', '')
    """
    minutes = 60 * hours
    if minutes < 1:
        return "< 1 min" if hours else ""
    return f"{hours:.1f} h" if minutes >= 59.5 else f"{minutes:.0f} min"


def _run(sweep: "Sweep", folder: Path, workers: int | None, address: str | None) -> dict[str, str]:
    """Trains a sweep under a bar of the work done; prints a line for each finished job."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from tbtt_interp.train.backends import run_sweep

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=30),
        TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        total = sum(job.hours for job in sweep.jobs)
        task = bar.add_task("training", total=total)
        try:
            return run_sweep(
                sweep, folder, workers=workers, address=address,
                on_progress=lambda hours: bar.update(task, completed=total - hours),
                on_finished=lambda name, message: console.print(
                    printable(f"{name}: {message}", keep="\n"), soft_wrap=True, markup=False),
            )  # fmt: skip
        except KeyboardInterrupt:
            bar.stop()
            print("\ninterrupted; the same command continues", file=sys.stderr)
            raise typer.Exit(130) from None

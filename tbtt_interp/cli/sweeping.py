"""`tbtt sweep`: grids of recipes, trained side by side and through."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tbtt_interp.cli.output import AsJson, print_json_rows, print_table

if TYPE_CHECKING:
    from tbtt_interp.train.sweep import Sweep

POLL = 5  # seconds between looks at how far the runs are


def sweep_command(
    recipe: Annotated[
        str,
        typer.Argument(help="ladder, widths, optimisation, atlas, window, or a TOML file."),
    ],
    out: Annotated[Path | None, typer.Option(help="The folder of its runs. [runs/NAME]")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Runs at once. [one a core, or all of the backend's]")
    ] = None,
    backend: Annotated[str, typer.Option(help="loky (here), dask or ray.")] = "loky",
    address: Annotated[
        str | None, typer.Option(help="The scheduler's, as in tcp://10.0.0.1:8786.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List cells, what is done and the time; train none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train every cell of a grid that is not trained yet.

    tbtt sweep ladder --dry-run

    tbtt sweep atlas --out runs/atlas
    """
    from tbtt_interp.train.cost import estimated_hours
    from tbtt_interp.train.sweep import read_sweep, sweep_rows

    sweep = read_sweep(recipe)
    folder = out or Path("runs") / sweep.name
    problems: dict[str, str] = {}
    if not dry_run:
        from tbtt_interp.train.backends import run_sweep

        with _progress(sweep, folder) as told:
            problems = run_sweep(
                sweep, folder, workers=workers, backend=backend, address=address, told=told
            )
    hours = {stack.name: estimated_hours(stack.recipe) for stack in sweep.stacks}
    rows = sweep_rows(sweep, folder, hours)
    for row in rows:
        row["problem"] = problems.get(row["run"], "")
    if as_json:
        print_json_rows(rows)
    else:
        _print(sweep, folder, rows)
    if problems:
        raise typer.Exit(1)


def _print(sweep: "Sweep", folder: Path, rows: list[dict[str, Any]]) -> None:
    headers = ["run", "held out", "models", "steps", "rate", "decay", "done", "hours left", ""]
    table = [
        [
            row["run"], row["held_out"], str(row["models"]), f"{row['steps']:,}",
            f"{row['learning_rate']:g}", f"{row['weight_decay']:g}", f"{row['done']:.0%}",
            f"{row['hours_left']:.2f}", row["problem"],
        ]
        for row in rows
    ]  # fmt: skip
    left = sum(row["hours_left"] for row in rows)
    done = sum(row["done"] == 1 for row in rows)
    notes = [
        f"{done} of {len(rows)} cells done; about {left:.1f} hours of two CPU cores left.",
        *(f"Expected. {text}" for text in sweep.expected),
    ]
    print_table(headers, table, title=f"{folder}: {sweep.summary}", notes=notes)


@contextmanager
def _progress(sweep: "Sweep", folder: Path) -> Iterator[Any]:
    """A bar of the work that is done, as the runs' own files tell it, and a line a finished run."""
    import threading

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from tbtt_interp.train.cost import estimated_hours
    from tbtt_interp.train.sweep import steps_done

    console = Console(stderr=True, highlight=False)
    weights = {stack: estimated_hours(stack.recipe) / stack.recipe.training.steps
               for stack in sweep.stacks}  # fmt: skip
    total = sum(weight * stack.recipe.training.steps for stack, weight in weights.items())
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=30),
        TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        job = bar.add_task("training", total=total)
        over = threading.Event()

        def look() -> None:
            while not over.wait(POLL):
                done = sum(w * steps_done(stack, folder) for stack, w in weights.items())
                bar.update(job, completed=done)

        def told(name: str, problem: str) -> None:
            console.print(f"{name}: {problem or 'done'}", soft_wrap=True, markup=False)

        watch = threading.Thread(target=look, daemon=True)
        watch.start()
        try:
            yield told
        except KeyboardInterrupt:
            bar.stop()
            print("\ninterrupted; the same command goes on from here", file=sys.stderr)
            raise typer.Exit(130) from None
        finally:
            over.set()

"""`tbtt sweep`: grids of recipes, trained side by side and through."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tbtt_interp.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

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
    backend: Annotated[str, typer.Option(help="loky (this machine), dask or ray.")] = "loky",
    address: Annotated[
        str | None, typer.Option(help="The scheduler's, as in tcp://10.0.0.1:8786.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List cells, what is done and the time; train none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train every cell of a grid that is not trained yet, and say what its models answer.

    tbtt sweep ladder --dry-run

    tbtt sweep atlas --out runs/atlas
    """
    import pandas as pd

    from tbtt_interp.train.backends import engine_of, run_sweep
    from tbtt_interp.train.sweep import read_sweep, sweep_rows

    sweep = read_sweep(recipe)
    folder = out or Path("runs") / sweep.name
    engine_of(backend, address, workers, stacks=len(sweep.stacks))  # or says what is wrong
    problems: dict[str, str] = {}
    if not dry_run:
        with _progress(sweep, folder) as told:
            problems = run_sweep(
                sweep, folder, workers=workers, backend=backend, address=address, told=told
            )
    cells = pd.DataFrame(sweep_rows(sweep, folder))
    cells["problem"] = [
        problems.get(run, found) for run, found in zip(cells["run"], cells["problem"], strict=True)
    ]
    if not dry_run:
        cells = cells.merge(_results(sweep, folder, cells), how="left", on=["run", "held_out"])
    if as_json:
        print_json(cells)
    else:
        title = f"{folder}: {sweep.summary}"
        (_print_plan if dry_run else _print_results)(cells, title, sweep.expected)
    if problems:
        raise typer.Exit(1)


def _results(sweep: "Sweep", folder: Path, cells: "pd.DataFrame") -> "pd.DataFrame":
    """What the trained cells came to; no rows where there is none."""
    from tbtt_interp.evidence.cells import cells_table
    from tbtt_interp.evidence.models import models_table
    from tbtt_interp.runs import load_run

    trained = cells.loc[(cells["done"] == 1) & (cells["problem"] == ""), "run"].unique()
    if not len(trained):
        return cells[["run", "held_out"]].head(0)
    models = models_table(load_run(folder / name) for name in trained)
    return cells_table(models).drop(columns="models")


def _print_plan(cells: "pd.DataFrame", title: str, expected: Sequence[str]) -> None:
    headers = ["run", "held out", "models", "steps", "rate", "decay", "done", "time left", ""]
    rows = [
        [
            row["run"], row["held_out"], str(row["models"]), f"{row['steps']:,}",
            f"{row['learning_rate']:g}", f"{row['weight_decay']:g}", f"{row['done']:.0%}",
            _duration(row["hours_left"]), "failed" if row["problem"] else "",
        ]
        for row in cells.to_dict("records")
    ]  # fmt: skip
    notes = [*_state(cells), *(f"Expected. {text}" for text in expected)]
    print_table(headers, rows, title=title, notes=notes)


def _print_results(cells: "pd.DataFrame", title: str, expected: Sequence[str]) -> None:
    import pandas as pd

    from tbtt_interp.stats import Interval, Rate

    def counts(row: Mapping[Any, Any], side: str) -> list[str]:
        if pd.isna(row.get(f"{side}_share", float("nan"))):
            return ["", ""]
        rate = Rate(hits=int(row[f"{side}_right"]), total=int(row[f"{side}_of"]))
        low, high = row[f"{side}_low"], row[f"{side}_high"]
        return [str(rate), Interval(mean=row[f"{side}_share"], low=low, high=high).format()]

    headers = ["run", "held out", "models", "seen", "share [95 %]", "held-out", "share [95 %]"]
    rows = []
    for row in cells.to_dict("records"):
        loss = row.get("loss", float("nan"))
        rows.append([
            row["run"], row["held_out"], str(row["models"]), *counts(row, "seen"),
            *counts(row, "held_out"), "" if pd.isna(loss) else f"{loss:.3f}",
            "failed" if row["problem"] else "" if row["done"] == 1 else f"{row['done']:.0%} done",
        ])  # fmt: skip
    notes = [
        *_state(cells),
        "Right at the last step, over all models of a cell; the mean share over models with its "
        "95 % interval (Student's). Loss: mean, in nats per character.",
        *(f"Expected. {text}" for text in expected),
    ]
    print_table([*headers, "loss", ""], rows, title=title, notes=notes)


def _state(cells: "pd.DataFrame") -> list[str]:
    done, left = int((cells["done"] == 1).sum()), cells["hours_left"].sum()
    more = f"; {_duration(left)} of two CPU cores left, by estimate" if left else ""
    failed = cells[cells["problem"] != ""].drop_duplicates("run")
    reasons = [f"{run}: {why}" for run, why in zip(failed["run"], failed["problem"], strict=True)]
    return [f"{done} of {len(cells)} cells done{more}.", *reasons]


def _duration(hours: float) -> str:
    """Roughly, as it is known.

    >>> _duration(2.345), _duration(0.21), _duration(0.001), _duration(0.0)
    ('2.3 h', '13 min', '< 1 min', '')
    """
    minutes = 60 * hours
    if minutes < 1:
        return "< 1 min" if hours else ""
    return f"{hours:.1f} h" if minutes >= 59.5 else f"{minutes:.0f} min"


@contextmanager
def _progress(sweep: "Sweep", folder: Path) -> Iterator[Callable[[str, str], None]]:
    """A bar of the work that is done, as the runs' own files tell it, and a line a finished run."""
    import threading

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from tbtt_interp.errors import TbttError
    from tbtt_interp.train.sweep import steps_done

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=30),
        TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn(),
    )  # fmt: skip
    over = threading.Event()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        job = bar.add_task("training", total=sum(stack.hours for stack in sweep.stacks))

        def look() -> None:
            done = 0.0
            for stack in sweep.stacks:
                with suppress(TbttError):  # a damaged run: its problem is told elsewhere
                    steps = steps_done(stack, folder)
                    done += stack.hours * steps / stack.recipe.training.steps
            bar.update(job, completed=done)

        def watch() -> None:
            while not over.wait(POLL):
                look()

        def told(name: str, words: str) -> None:
            console.print(f"{name}: {words}", soft_wrap=True, markup=False)

        if console.is_terminal:
            threading.Thread(target=watch, daemon=True).start()
        try:
            yield told
            look()
        except KeyboardInterrupt:
            bar.stop()
            print("\ninterrupted; the same command goes on from here", file=sys.stderr)
            raise typer.Exit(130) from None
        finally:
            over.set()

"""`tbtt probes`: what a run's models represent, where, beside its nulls."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson, print_json, print_table
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ("hook_resid_mid", "hook_resid_post")


def probes_command(
    run_folder: RunFolder,
    feature: Annotated[
        list[str] | None, typer.Option(help="What to read, repeatable. [all the task has]")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="A hook point to read, repeatable. [all streams]")
    ] = None,
    step: Step = None,
    controls: Annotated[int, typer.Option(help="Control tasks a feature.")] = 99,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for probes.csv and probes.html.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read features off a run's activations with linear probes, beside their nulls.

    tbtt probes runs/arithmetic-medium-file

    tbtt probes runs/arithmetic-medium-file --feature carry --site blocks.0.mlp.hook_post
    """
    from rich.console import Console
    from rich.progress import Progress

    from tbtt_interp import figures
    from tbtt_interp.probes.battery import probe_run
    from tbtt_interp.runs import load_run, write_new

    if controls < 1:
        raise TbttError(f"controls must be at least 1, got {controls}")
    if out is not None and out.exists():
        raise TbttError(f"{out} exists: nothing was written; give another --out FOLDER")
    run = load_run(run_folder)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task("probing", total=None)
        table = probe_run(
            run, feature, sites=site, step=step, controls=controls,
            tell=lambda done, of: bar.update(job, completed=done, total=of),
        )  # fmt: skip
    if out is not None:
        figure = figures.probe_heatmap(table)
        out.mkdir(parents=True)
        write_new(out / "probes.csv", table.to_csv(index=False).encode())
        figures.save(figure, out / "probes.html")
    if as_json:
        print_json(table)
        return
    asked = feature or site
    last = table["pos"] == -1
    shown = table if asked else table[last & table["site"].str.endswith(SHOWN)]
    at = max(run.checkpoints) if step is None else step
    print_table(HEADERS, [_row(row) for row in shown.to_dict("records")],
                title=f"{run_folder} at step {at:,}, {len(run.seeds)} models",
                notes=_notes(table, shown, controls))  # fmt: skip


HEADERS = [
    "feature", "site", "from end", "accuracy", "control", "selectivity", "one-hot", "untrained",
    "majority", "R²", "held-out", "p", "p, corrected",
]  # fmt: skip


def _row(row: dict) -> list[str]:
    def number(name: str, digits: int = 2) -> str:
        return "" if row.get(name) is None or row[name] != row[name] else f"{row[name]:.{digits}f}"

    gain = number("selectivity")
    if gain and row["selectivity_low"] == row["selectivity_low"]:
        gain = f"{gain} [{row['selectivity_low']:.2f}, {row['selectivity_high']:.2f}]"
    held_out = f"{row['held_out_right']}/{row['held_out_of']}" if row["held_out_of"] else ""
    return [
        row["feature"], row["site"], str(row["pos"]), number("accuracy"), number("control"), gain,
        number("one_hot"), number("untrained"), number("majority"), number("r2"), held_out,
        number("p", 3), number("p_adjusted", 3),
    ]  # fmt: skip


def _notes(table: "pd.DataFrame", shown: "pd.DataFrame", controls: int) -> list[str]:
    from tbtt_interp.probes.battery import PRIMARY

    corrected = int(table["p_adjusted"].notna().sum())
    notes = [
        "Accuracy: of 5-fold cross-validation that keeps 3+4, 4+3, 3-4 and 4-3 together, mean over "
        "models; held-out: of a probe fitted on what the model was trained on.",
        f"Control: the feature after renaming the digits at random, mean of {controls}. p: the "
        "share of controls as good. Selectivity: accuracy above control [95 % over models].",
        "One-hot: a probe of the operands alone; untrained: of the same model before training.",
        f"Corrected p: over the cells named beforehand, {corrected} of {len(PRIMARY)} here; the "
        "rest explores.",
    ]
    if unseen := int(shown["unseen"].max()):
        notes.append(f"Up to {unseen} lines have a class that their fold never learned.")
    if len(shown) < len(table):
        notes.append(f"{len(shown)} of {len(table)} rows; --out FOLDER and --json have all.")
    return notes

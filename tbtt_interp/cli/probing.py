"""`tbtt probes`: what a run's models represent, where, and whether they use it, beside nulls."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson, print_json, print_table, progress
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from tbtt_interp.runs import Run

SHOWN = ("hook_resid_mid", "hook_resid_post")


def probes_command(
    run_folder: RunFolder,
    feature: Annotated[
        list[str] | None, typer.Option(help="What to read, repeatable. [all the task has]")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="A hook point to read, repeatable. [all streams]")
    ] = None,
    position: Annotated[
        list[int] | None,
        typer.Option(help="Counted back from the text's end, which is -1; repeatable. [all]"),
    ] = None,
    step: Step = None,
    over_steps: Annotated[
        bool, typer.Option("--over-steps", help="At every kept checkpoint, last position only.")
    ] = False,
    dimensions: Annotated[
        int | None,
        typer.Option(help="Read through random projections onto so many, to compare sizes."),
    ] = None,
    causal: Annotated[
        bool,
        typer.Option("--causal", help="Erase each code, and swap it, and see what is answered."),
    ] = False,
    controls: Annotated[
        int, typer.Option(help="Control tasks a feature, and draws of every other null.")
    ] = 99,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the table as CSV and its figure.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read features off a run's activations with linear probes, beside their nulls.

    tbtt probes runs/arithmetic-medium-file

    tbtt probes runs/arithmetic-medium-file --feature carry --site blocks.0.mlp.hook_post

    tbtt probes runs/arithmetic-medium-file --feature carry --causal
    """
    from tbtt_interp.runs import load_run, write_new

    if controls < 1:
        raise TbttError(f"controls must be at least 1, got {controls}")
    if over_steps and (causal or step is not None or position or dimensions):
        raise TbttError(
            "--over-steps reads every checkpoint at the last position: leave out --step, "
            "--position, --dimensions and --causal"
        )
    if causal and (dimensions or len(position or []) > 1):
        raise TbttError("--causal takes one --position, and no --dimensions")
    if out is not None and out.exists():
        raise TbttError(f"{out} exists: nothing was written; give another --out FOLDER")
    run = load_run(run_folder)
    with progress("erasing and swapping" if causal else "probing") as tell:
        if causal:
            table, figure = _causal(run, feature, site, position, step, controls, tell)
        elif over_steps:
            table, figure = _over_steps(run, feature, site, controls, tell)
        else:
            table, figure = _battery(run, feature, site, position, step, controls, dimensions, tell)
    if out is not None:
        from tbtt_interp import figures

        drawn = figure()
        out.mkdir(parents=True)
        write_new(out / "probes.csv", table.to_csv(index=False).encode())
        figures.save(drawn, out / "probes.html")
    if as_json:
        print_json(table)
        return
    at = max(run.checkpoints) if step is None else step
    title = f"{run_folder}{'' if over_steps else f' at step {at:,}'}, {len(run.seeds)} models"
    if causal:
        print_table(CAUSAL_HEADERS, [_causal_row(row) for row in table.to_dict("records")],
                    title=title, notes=CAUSAL_NOTES)  # fmt: skip
        return
    last = table["pos"] == -1
    asked = feature or site or position or over_steps
    shown = table if asked else table[last & table["site"].str.endswith(SHOWN)]
    headers = (["step"] if over_steps else []) + HEADERS
    print_table(headers, [_row(row) for row in shown.to_dict("records")],
                title=title, notes=_notes(table, shown, controls))  # fmt: skip


Found = tuple["pd.DataFrame", Callable[[], "Figure"]]
Tell = Callable[[int, int], None]


def _battery(
    run: "Run", features: list[str] | None, sites: list[str] | None, positions: list[int] | None,
    step: int | None, controls: int, dimensions: int | None, tell: Tell,
) -> Found:  # fmt: skip
    from tbtt_interp import figures
    from tbtt_interp.probes.run import probe_run

    table = probe_run(
        run, features, sites=sites, positions=positions, step=step, controls=controls,
        dimensions=dimensions, tell=tell,
    )  # fmt: skip
    return table, lambda: figures.probe_heatmap(table)


def _over_steps(
    run: "Run", features: list[str] | None, sites: list[str] | None, controls: int, tell: Tell
) -> Found:
    from tbtt_interp import figures
    from tbtt_interp.probes.run import last_streams, probe_steps

    table = probe_steps(
        run, features, sites=sites or last_streams(run)[-1:], controls=controls, tell=tell
    )
    return table, lambda: figures.probe_curves(table)


def _causal(
    run: "Run", features: list[str] | None, sites: list[str] | None, positions: list[int] | None,
    step: int | None, draws: int, tell: Tell,
) -> Found:  # fmt: skip
    from tbtt_interp import figures
    from tbtt_interp.probes.effects import causal_table, coded_features

    table = causal_table(
        run, features or coded_features(run), sites=sites, pos=(positions or [-1])[0], step=step,
        draws=draws, tell=tell,
    )  # fmt: skip
    return table, lambda: figures.effects_beside_nulls(table)


HEADERS = [
    "feature", "site", "from end", "accuracy", "control", "selectivity", "one-hot", "untrained",
    "majority", "R²", "MDL", "its control", "held-out", "p", "p, corrected",
]  # fmt: skip


def _number(row: dict, name: str, digits: int = 2) -> str:
    return "" if row.get(name) is None or row[name] != row[name] else f"{row[name]:.{digits}f}"


def _between(row: dict, name: str, low: str, high: str) -> str:
    bounds = f" [{row[low]:.2f}, {row[high]:.2f}]" if row[low] == row[low] else ""
    return _number(row, name) and _number(row, name) + bounds


def _row(row: dict) -> list[str]:
    held_out = f"{row['held_out_right']}/{row['held_out_of']}" if row["held_out_of"] else ""
    return [
        *([f"{row['step']:,}"] if "step" in row else []),
        row["feature"], row["site"], str(row["pos"]), _number(row, "accuracy"),
        _number(row, "control"),
        _between(row, "selectivity", "selectivity_low", "selectivity_high"),
        _number(row, "one_hot"), _number(row, "untrained"), _number(row, "majority"),
        _number(row, "r2"), _number(row, "compression"), _number(row, "control_compression"),
        held_out, _number(row, "p", 3), _number(row, "p_adjusted", 3),
    ]  # fmt: skip


def _notes(table: "pd.DataFrame", shown: "pd.DataFrame", controls: int) -> list[str]:
    from tbtt_interp.probes.battery import PRIMARY
    from tbtt_interp.probes.features import FEATURES

    asked = {FEATURES[name].asked for name in shown["feature"] if name in FEATURES}
    corrected = table.loc[table["p_adjusted"].notna(), ["feature", "site", "pos"]]
    notes = [
        "Accuracy: cross-validated, mean over models; of equations, folds keep 3+4, 4+3, 3-4 and "
        "4-3 together. Held-out: of a probe fitted on what the model was trained on.",
        f"Control: accuracy on the feature after renaming the digits at random, or of labels dealt "
        f"anew; mean of {controls}. p: the share of these as good. Selectivity: accuracy above "
        "control [95 % over models].",
        "One-hot: a probe of the text alone; untrained: of the same model before training. MDL: "
        "how many times shorter labels get for one who has the activations (online code); its "
        "control: of control tasks.",
        f"Corrected p: over the cells named beforehand, {len(corrected.drop_duplicates())} of "
        f"{len(PRIMARY)} here; the rest explores.",
    ]
    if "before" in asked:
        notes.append(
            "line, next: read where the next line begins, from the end of the line before; folds "
            "split by how much of it is shown; control: another order of the file; held-out: lines "
            "that the probe was not fitted on."
        )
    if "shortened" in asked:
        notes.append("country: folds split by how much of the prompt's left end is shown.")
    if unseen := int(shown["unseen"].max()):
        notes.append(f"Up to {unseen} examples have a class that their fold never learned.")
    if degenerate := int(shown["degenerate"].max()):
        notes.append(f"Up to {degenerate} folds of a row learn or ask one class only.")
    if len(shown) < len(table):
        notes.append(f"{len(shown)} of {len(table)} rows; --out FOLDER and --json have all.")
    return notes


CAUSAL_HEADERS = [
    "feature", "site", "measure", "effect", "control task", "random labels", "random subspace",
    "whole", "p", "rank", "variance",
]  # fmt: skip
CAUSAL_NOTES = [
    "Margin lost: nats of logit that answers lose, on average, when the code is erased (LEACE). "
    "Answer follows: how often the first character said becomes that of another equation when its "
    "code is put in; whole: when all of its activation is. [95 % over models]",
    "Nulls, of equal rank: the code of the feature after renaming digits, of labels dealt anew, "
    "and random directions. p: the share of draws that do as much, of the null that does it most "
    "often; not corrected for the number of rows.",
]


def _causal_row(row: dict) -> list[str]:
    return [
        row["feature"], row["site"], row["measure"], _between(row, "effect", "low", "high"),
        _number(row, "control_task"), _number(row, "random_labels"),
        _number(row, "random_subspace"), _number(row, "whole"), _number(row, "p", 3),
        f"{row['rank']}/{row['width']}", _number(row, "variance"),
    ]  # fmt: skip

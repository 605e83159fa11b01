"""`tbtt models`: those that come with the package, and making the folders that do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbtt_interp.cli.output import AsJson, print_json, print_table
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    import pandas as pd


def models_command(
    pack: Annotated[
        Path | None, typer.Option(help="Pack the finished runs below this folder, as they ship.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --pack: a folder, new or empty.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models that come with the package: names, for wherever a command takes a RUN.

    tbtt models

    tbtt models --pack runs/ladder --out models
    """
    from tbtt_interp.pretrained.models import NONE_SHIP, list_pretrained

    if (pack is None) != (out is None):
        raise TbttError("--pack FOLDER and --out FOLDER go together: give both, or none to list")
    notes = []
    if pack is not None and out is not None:
        from rich.console import Console

        from tbtt_interp.pretrained.packing import folder_bytes, pack_models

        with Console(stderr=True).status("packing"):
            left_out = pack_models(pack, out)
        notes = [f"{folder_bytes(out) / 1e6:.1f} MB in {out}."]
        notes += [f"Left out: {name}: {reason}" for name, reason in left_out.items()]
    table = list_pretrained(out)
    if as_json:
        print_json(table)
    elif table.empty:
        print(NONE_SHIP)
    else:
        _print(table, notes)


def _print(table: "pd.DataFrame", notes: list[str]) -> None:
    import pandas as pd

    rows = []
    for row in table.to_dict("records"):
        if row["problem"]:
            rows.append([row["name"], *[""] * 8, str(row["problem"])])
            continue
        seen, held_out = ((row[f"{s}_right"], row[f"{s}_of"]) for s in ("seen", "held_out"))
        rows.append(
            [
                row["name"], row["task"], row["size"], row["framing"], str(row["seeds"]),
                f"{row['steps']:,}", f"{seen[0]}/{seen[1]}",
                f"{held_out[0]}/{held_out[1]}" if held_out[1] else "",
                "" if pd.isna(row["loss"]) else f"{row['loss']:.3f}",
                str(row["over_training"] or ""),
            ]
        )  # fmt: skip
    headers = ["name", "task", "size", "framing", "seeds", "steps", "seen", "held-out", "loss",
               "checkpoints\nof one seed"]  # fmt: skip
    more = (
        "Answers after the last step, of all seeds together; loss in nats a character, their mean."
    )
    over = "Checkpoints of one seed over training: the name with -over-training at its end."
    print_table(headers, rows, notes=[more, over, *notes])

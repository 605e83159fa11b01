"""What a training run came to: a row a model and one for all, beside the floors."""

from typing import Any

import pandas as pd

from tbtt_interp.runs import Run
from tbtt_interp.scores import group_words
from tbtt_interp.stats import Interval, Rate, mean_over_models

NOTES = (
    "Margin: logits between right and best wrong, the smallest over the held-out lines, or over "
    "the seen ones where none are held out.",
    "Floors: the lowest loss, in nats a character, of one who knows the file's order, only its "
    "lines, or whole lines one a window.",
)


def training_table(run: Run) -> pd.DataFrame:
    """A row a seed, then one for all (seed "all"): counts, margins, final loss, floors.

    Columns: seed; `X_right`, `X_of` by group; `margin_held_out` and `margin_seen`, in logits;
    `loss` and `floor_order`, `floor_lines`, `floor_line`, in nats a character; `late_seen_right`,
    `late_held_out_right` and their `_of`: evaluations in the last sixth of training at which all of
    them were right. In the last row counts are summed, losses and floors averaged, margins the
    smallest, and `X_low` and `X_high` bound the 95 % interval of the mean share over seeds.
    """
    rows = []
    for seed in run.summary()["seeds"]:
        row: dict[str, Any] = {}
        for key, value in seed.items():
            if isinstance(value, list):
                row[f"{key}_right"], row[f"{key}_of"] = value
            elif isinstance(value, dict):
                row |= {f"floor_{name}": floor for name, floor in value.items()}
            else:
                row[key] = value
        rows.append(row)
    table = pd.DataFrame(rows)
    return pd.concat([table, pd.DataFrame([_together(table)])], ignore_index=True)


def _together(table: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"seed": "all"}
    for name in table.columns.drop("seed"):
        if name.endswith(("_right", "_of")):
            row[name] = int(table[name].sum())
        elif name.startswith("margin"):
            row[name] = table[name].min()
        else:
            row[name] = table[name].mean()
    for group in groups_of(table):
        interval = share_interval(table, group)
        row |= {f"{group}_low": interval.low, f"{group}_high": interval.high}
    return row


def groups_of(table: pd.DataFrame) -> list[str]:
    """The groups that a table counts, seen ones first."""
    counted = [str(name) for name in table if str(name).endswith("_right")]
    names = [name.removesuffix("_right") for name in counted]
    return [name for name in names if not name.startswith("late_")]


def share_interval(table: pd.DataFrame, group: str) -> Interval:
    """The mean share right over models, and its interval."""
    asked = table[table[f"{group}_of"] > 0]
    return mean_over_models((asked[f"{group}_right"] / asked[f"{group}_of"]).tolist())


def training_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The table as headers and words."""
    groups = groups_of(table)
    margin = "margin_held_out" if "margin_held_out" in table else "margin_seen"
    floors = ["order", "lines", "line"]
    headers = ["seed", *map(group_words, groups)]
    headers += ["margin", "loss", *(f"floor:\n{floor}" for floor in floors)]
    rows = []
    for record in table.to_dict("records"):
        rates = [Rate(hits=int(record[f"{g}_right"]), total=int(record[f"{g}_of"])) for g in groups]
        rows.append(
            [
                str(record["seed"]),
                *map(repr, rates),
                f"{record[margin]:+.2f}".replace("+nan", ""),
                f"{record['loss']:.3f}",
                *(f"{record[f'floor_{floor}']:.3f}" for floor in floors),
            ]
        )
    return headers, rows


def next_step(run: Run) -> tuple[str, str]:
    """What to try next and why, from what this run has not shown; and the framing it takes."""
    table = training_table(run)[:-1]
    if run.config.framing == "line":
        return "the same lines as windows of fresh orders", "shuffled"
    if run.config.framing == "shuffled":
        return "the paper's file, whose order can be memorized", "file"
    if (table["loss"] < table["floor_lines"]).any():
        return "a loss below the floor of the lines is order memorized; take the order away", "line"
    return "the same lines, with no order to memorize", "line"

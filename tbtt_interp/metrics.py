"""A run's evaluations during training: metrics.jsonl, one line each, and its rows as columns."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tbtt_interp.errors import TbttError
from tbtt_interp.files import AGAIN, write_whole
from tbtt_interp.integrity import check_hash

Row = dict[str, Any]


def flat_row(row: Mapping[str, Any]) -> Row:
    """One model's evaluation as columns: counts as `X_right` and `X_of`, floors as `floor_X`.

    >>> flat_row({"loss": 0.5, "held_out": [3, 4], "floors": {"line": 0.25}})
    {'loss': 0.5, 'held_out_right': 3, 'held_out_of': 4, 'floor_line': 0.25}
    """
    flat: Row = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"floor_{name}": floor for name, floor in value.items()}
        elif isinstance(value, list):
            flat[f"{key}_right"], flat[f"{key}_of"] = value
        else:
            flat[key] = math.nan if value is None else value  # None is the loss of a diverged model
    return flat


def write_metrics(folder: Path, lines: Sequence[Row]) -> None:
    """Writes all evaluations so far, one per line."""
    text = "\n".join([*(json.dumps(line, ensure_ascii=False) for line in lines), ""])
    write_whole(folder / "metrics.jsonl", text.encode())


def read_metrics(folder: Path) -> list[Row]:
    """The evaluations so far; raises a TbttError that names a damaged line."""
    path = folder / "metrics.jsonl"
    content = path.read_bytes() if path.is_file() else None
    lines = []
    for number, text in enumerate((content or b"").splitlines(), 1):
        try:
            line = json.loads(text)
            step, seeds = int(line["step"]), [dict(row) for row in line["seeds"]]
            if not all({"seed", "loss"} <= row.keys() for row in seeds):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise TbttError(f"{path}, line {number} is damaged: {AGAIN}") from error
        lines.append({"step": step, "seeds": seeds})
    check_hash(path, content)
    return lines


def group_label(group: str) -> str:
    """A group's name as tables show it.

    >>> group_label("seen_addition"), group_label("seen_facts")
    ('seen +', 'seen facts')
    """
    short = {"seen_addition": "seen +", "seen_subtraction": "seen −", "held_out": "held-out"}
    return short.get(group, group.replace("_", " "))

"""A sweep's models, counted by cell: what each combination of settings came to."""

import math
from typing import Any

import pandas as pd

from tbtt_interp.stats import mean_over_models


def cells_table(models: pd.DataFrame) -> pd.DataFrame:
    """A row a cell: its models' counts together, and their mean share over models.

    Args:
        models: as `models_table` gives them.
    Returns:
        `run`, `held_out` ("5,7"), `models`; `seen_right`, `seen_of`, `held_out_right`,
        `held_out_of`, summed over models; `seen_share`, `held_out_share`, means over models, nan
        where nothing was asked, with `_low` and `_high`, the 95 % interval over models;
        `loss`, the mean, in nats a character.
    """
    rows = []
    for (run, held_out), cell in models.groupby(["run", "held_out"], sort=False):
        row: dict[str, Any] = {"run": run, "held_out": held_out, "models": len(cell)}
        for side in ("seen", "held_out"):
            row |= _counted(cell, side)
        rows.append(row | {"loss": cell["loss"].mean()})
    return pd.DataFrame(rows)


def _counted(cell: pd.DataFrame, side: str) -> dict[str, Any]:
    if f"{side}_of" not in cell or not (of := cell[f"{side}_of"].fillna(0)).any():
        counts: dict[str, Any] = {f"{side}_right": 0, f"{side}_of": 0}
        return counts | {f"{side}_{name}": math.nan for name in ("share", "low", "high")}
    right = cell[f"{side}_right"].fillna(0)
    share = mean_over_models((right[of > 0] / of[of > 0]).tolist())
    return {
        f"{side}_right": int(right.sum()), f"{side}_of": int(of.sum()), f"{side}_share": share.mean,
        f"{side}_low": share.low, f"{side}_high": share.high,
    }  # fmt: skip

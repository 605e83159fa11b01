"""Whether two halves of the models, each by itself, say the same of what pair does to pair."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from tbtt_interp.analyses.influence import (
    MAIN,
    OTHER,
    OWN,
    PARTS,
    UNSEEN,
    Held,
    Matrix,
    deal_anew,
    influence,
)

SPLITS = 20


def halves(out: Bool[np.ndarray, "model unit"], seed: int) -> list[Int[np.ndarray, " _"]]:
    """The models in two halves at random, each with half of those that hold out the same."""
    chance = np.random.default_rng((seed, 0x4A1F))
    found: tuple[list[int], list[int]] = ([], [])
    _, kind = np.unique(out, axis=0, return_inverse=True)
    for number in range(kind.max() + 1):
        models = chance.permutation(np.flatnonzero(kind.ravel() == number))
        turn = chance.integers(2)  # of an odd number, either half may have one more
        for half in range(2):
            found[(half + turn) % 2].extend(models[half::2].tolist())
    return [np.array(sorted(half)) for half in found]


def parts_of(
    scores: Float[np.ndarray, "model unit"], out: Bool[np.ndarray, "model unit"]
) -> dict[str, Matrix]:
    """Influence by part, nan where an entry is of another part or no models tell it."""
    seen, itself = influence(scores, out)[0], np.eye(out.shape[1], dtype=bool)
    return {
        OWN: np.where(itself, seen, np.nan),
        OTHER: np.where(itself, np.nan, seen),
        UNSEEN: influence(scores, out, unseen=True)[0],
    }


def half_table(held: Held, *, seed: int = 0) -> pd.DataFrame:
    """What one half of the models and the other say of each pair of units, of one split.

    Columns: `part`, `of`, `on`, `first` and `second`, in nats of specific margin; what no models
    tell is not there.
    """
    sides = [parts_of(held.scores[MAIN][h], held.out[h]) for h in halves(held.out, seed)]
    names = np.array(held.names)
    tables = [
        pd.DataFrame({
            "part": part, "of": names.repeat(len(names)), "on": np.tile(names, len(names)),
            "first": sides[0][part].ravel(), "second": sides[1][part].ravel(),
        }).dropna()
        for part in PARTS
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def split_halves(held: Held, *, splits: int = SPLITS, seed: int = 0) -> pd.DataFrame:
    """How well two halves of the models agree, of many splits.

    Returns:
        a row a measure, split and part that models tell: `r`, the correlation of the two halves
        over units; `signal`, the mean product of the halves, which is the mean square of true
        influence, without noise.
    """
    rows = []
    for name, scores in held.scores.items():
        for split in range(splits):
            sides = [parts_of(scores[h], held.out[h]) for h in halves(held.out, seed + split)]
            for part in PARTS:
                x, y = (side[part] for side in sides)
                there = np.isfinite(x) & np.isfinite(y)
                if there.any():
                    rows.append({
                        "measure": name, "split": split, "part": part,
                        "r": correlation(x[there], y[there]),
                        "signal": float((x * y)[there].mean()),
                    })  # fmt: skip
    return pd.DataFrame(rows)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; nan where one of them does not vary."""
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def spearman_brown(r: float) -> float:
    """How two wholes would correlate, of which halves correlate by r.

    >>> round(spearman_brown(0.5), 3)
    0.667
    """
    return 2 * r / (1 + r) if r > -1 else np.nan


def agreement_table(held: Held, *, splits: int = SPLITS, seed: int = 0) -> pd.DataFrame:
    """`split_halves` over splits, beside the same where models are dealt anew what they hold out.

    Returns:
        a row a measure and part: mean `r` with `low` and `high` over splits; `spearman_brown`, what
        the mean would be of two sets as large as all; `needed`, models a unit of which halves
        would agree by 0.5, by the same formula; `rms`, the root mean square of true influence; and
        `null_r`, over as many deals.
    Source: Spearman 1910; Brown 1910.
    """
    found = split_halves(held, splits=splits, seed=seed)
    null = pd.concat(
        split_halves(dealt, splits=1, seed=seed + k)
        for k, dealt in enumerate(deal_anew(held, splits, seed))
    )
    nulls = null.groupby(["measure", "part"])["r"].mean().to_dict()
    models = held.out.sum() / len(held.names)
    rows = []
    for (measure, part), rs in found.groupby(["measure", "part"], sort=False):
        r = rs["r"].mean()
        rows.append({
            "measure": measure, "part": part, "r": r, "low": rs["r"].quantile(0.025),
            "high": rs["r"].quantile(0.975), "spearman_brown": spearman_brown(r),
            "needed": models * (1 - r) / r if r > 0 else np.inf,
            "rms": float(np.sqrt(max(rs["signal"].mean(), 0))),
            "null_r": nulls[measure, part],
        })  # fmt: skip
    return pd.DataFrame(rows)

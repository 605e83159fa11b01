"""Tables of sweeps with what they are to show planted in them."""

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

SIZES = {"small": 14, "medium": 28, "large": 56}  # and their widths


def cell(
    held_out: Sequence[int | None],
    *,
    task: str = "arithmetic",
    size: str = "small",
    framing: str = "file",
    seen: Sequence[int] | None = None,
    facts: Sequence[int] | None = None,
    **also: object,
) -> pd.DataFrame:
    """The models of one cell at their last step, as `models_table` has them.

    Args:
        held_out: right of four, by seed; None where nothing is held out.
        seen: right of the 196 seen equations, by seed; None is all.
        facts: right of the 50 facts, by seed.
    """
    rows = []
    for seed, right in enumerate(held_out):
        known = 0 if task == "facts" else 196 if seen is None else seen[seed]
        row: dict[str, object] = {
            "run": f"{task}-{size}-{framing}", "task": task, "size": size, "width": SIZES[size],
            "framing": framing, "window": 9, "batch": 882, "learning_rate": 1e-2, "steps": 1_000,
            "seed": seed, "held_out": "5,7", "loss": 0.8, "floor_order": 0.53, "floor_lines": 0.77,
            "floor_line": 0.66, "margin_seen": 1.0, "order_known": 0.0,
            "seen_right": known + (0 if facts is None else facts[seed]),
            "seen_of": (196 if task != "facts" else 0) + (50 if facts is not None else 0),
        }  # fmt: skip
        if task != "facts":
            row |= {"seen_addition_right": min(98, known), "seen_addition_of": 98,
                    "seen_subtraction_right": max(0, known - 98), "seen_subtraction_of": 98,
                    "held_out_right": right, "held_out_of": 4, "margin_held_out": -1.0,
                    "late_held_out_right": 0, "late_held_out_of": 20}  # fmt: skip
        if facts is not None:
            row |= {"seen_facts_right": facts[seed], "seen_facts_of": 50}
        rows.append(row | also)
    return pd.DataFrame(rows)


def over_training(models: pd.DataFrame, steps: Sequence[int] = (250, 500, 1_000)) -> pd.DataFrame:
    """The same models on their way: what they know of the seen grows evenly to its end."""
    parts = []
    for step in steps:
        share = step / steps[-1]
        right = [name for name in models if str(name).startswith("seen_") and "right" in str(name)]
        part = models.assign(step=step, **{name: models[name] * share // 1 for name in right})
        parts.append(part.drop(columns=[n for n in part if str(n).startswith("late_")]))
    return pd.concat(parts, ignore_index=True)


def equations(models: pd.DataFrame) -> pd.DataFrame:
    """The four held-out equations of each model, of which the first so many are right."""
    asked = models.dropna(subset="held_out_right")
    parts = [
        asked.assign(operator=operator, prompt=f"<{prompt}=", right=asked["held_out_right"] > k)
        for k, (operator, prompt) in enumerate([("+", "5+7"), ("+", "7+5"), ("-", "5-7"),
                                                ("-", "7-5")])
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


PAIRS = list(combinations_with_replacement(range(10), 2))


def held_out_answers(
    chance: Callable[[str, int, int, str], float], *, pairs=PAIRS, seeds: int = 4, seed: int = 0
) -> pd.DataFrame:
    """A table as `held_out_table` returns it, with each equation right by its chance."""
    generator = np.random.default_rng(seed)
    rows = []
    for k, (low, high) in enumerate(pairs):
        for number in range(seeds):
            for size, width in SIZES.items():
                for operator in "+-":
                    for a, b in dict.fromkeys([(low, high), (high, low)]):
                        right = generator.random() < chance(operator, a, b, size)
                        rows.append(
                            {"task": "arithmetic", "framing": "line", "size": size,
                             "width": width, "seed": seeds * k + number,
                             "held_out": f"{low},{high}", "prompt": f"<{a}{operator}{b}=",
                             "operator": operator, "a": a, "b": b, "margin": right - 0.5,
                             "right": right, "nearest": False, "additive": operator == "-"}
                        )  # fmt: skip
    return pd.DataFrame(rows)


def planted_shares(
    *, pairs: int = 55, seeds: int = 4, slope: float = 0.0, by_pair: float = 0.3,
    by_slope: float = 0.0, by_operator: float = 0.0, by_seed: float = 0.0, noise: float = 0.1,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """A table as `model_shares` returns it, with normal effects of known deviations."""
    draw = np.random.default_rng(seed).normal
    shape = (pairs, seeds, 3, 2)
    doublings, operator = np.array([-1.0, 0, 1])[:, None], np.array([0.5, -0.5])
    share = (
        0.5 + by_pair * draw(size=(pairs, 1, 1, 1)) + by_seed * draw(size=(pairs, seeds, 1, 1))
        + (slope + by_slope * draw(size=(pairs, 1, 1, 1))) * doublings
        + (0.1 + by_operator * draw(size=(pairs, 1, 1, 1))) * operator + noise * draw(size=shape)
    )  # fmt: skip
    pair, number, size, sign = np.indices(shape).reshape(4, -1)
    return pd.DataFrame(
        {"pair": pair, "seed": pair * seeds + number, "size": np.array(list(SIZES))[size],
         "width": 14 * 2**size, "operator": np.array(["+", "-"])[sign], "share": share.ravel(),
         "doublings": size - 1.0, "addition": 0.5 - sign, "gone": 0.0, "rim": 0.0,
         "equal": (pair % 5 == 0) * 1.0, "stratum": "all"}
    ).assign(model=lambda t: t["seed"].astype(str) + t["size"], right=share.ravel())  # fmt: skip


def fitted_slopes(shares: pd.DataFrame) -> list[float]:
    """The slope of the share on doublings of width, by pair, by least squares."""
    return [
        np.polyfit(rows["doublings"], rows["share"], 1)[0] for _, rows in shares.groupby("pair")
    ]


def by_rule(operator: str, a: int, b: int, size: str) -> float:
    """A chance lower for the wide, for differences and at the rim, and 0 where answers are gone."""
    gone = abs(a - b) == 9 or (operator == "+" and a + b in (0, 1, 17, 18))
    inner = 0.9 - 0.2 * (operator == "-") - 0.1 * np.log2(SIZES[size] / 28)
    return 0.0 if gone else inner - 0.4 * bool({0, 9} & {a, b})

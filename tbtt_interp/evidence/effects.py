"""Shares of the models of one arm, differences between arms paired by seed, and claims on them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.claims import FEWEST, Claim
from tbtt_interp.stats import Interval, mean_over_models

ANY, SHARE = (-math.inf, math.inf), (0.0, 1.0)  # what a mean can be
UNMEASURED = Interval(mean=math.nan, low=math.nan, high=math.nan)


def check_one_each(models: pd.DataFrame, keys: Sequence[str]) -> None:
    """Raises a TbttError where a seed stands twice in one cell, so that no arm has it twice."""
    double = models[models.duplicated([*keys, "seed"], keep=False)]
    if not double.empty:
        names = " and ".join(sorted(set(double["run"]))[:2])
        raise TbttError(
            f"seed {double['seed'].iloc[0]} is twice in one cell ({names}): "
            "give a folder with the runs of one sweep alone"
        )


def with_shares(models: pd.DataFrame) -> pd.DataFrame:
    """The table with `seen` and `held_out`, shares right, and `knows_all` of what was seen."""
    columns = list(dict.fromkeys([*models, "held_out_right", "held_out_of", "order_known"]))
    models = models.reindex(columns=columns)
    return models.assign(
        pair=models["held_out"], seen=models["seen_right"] / models["seen_of"],
        held_out=models["held_out_right"] / models["held_out_of"],
        knows_all=(models["seen_right"] == models["seen_of"]).astype(float),
    )  # fmt: skip


def arm(models: pd.DataFrame, value: str = "held_out", **where: object) -> pd.Series:
    """One number a model, by seed, of those models that are as `where` says.

    >>> table = pd.DataFrame({"size": ["small", "large"], "seed": [0, 0], "held_out": [1.0, 0.5]})
    >>> arm(table, size="large").to_dict()
    {0: 0.5}
    """
    inside = np.ones(len(models), bool)
    for name, wanted in where.items():
        inside &= (models[name] == wanted).to_numpy()
    mine = models[inside]
    values = mine.get(value, pd.Series(math.nan, index=mine.index))
    return pd.Series(values.to_numpy(float), index=mine["seed"].to_numpy()).dropna()


def first_evaluations(over: pd.DataFrame, reached: pd.Series) -> pd.DataFrame:
    """Each model at the first evaluation at which that was reached; none if it never was.

    >>> over = pd.DataFrame({"run": "a", "seed": 0, "step": [1, 2, 3], "seen": [0.2, 0.9, 0.8]})
    >>> first_evaluations(over, over["seen"] >= 0.5)["step"].tolist()
    [2]
    """
    by_step = over[reached].sort_values("step")
    return by_step.groupby(["run", "seed"], sort=False).head(1).sort_index()


def effect_rows(
    models: pd.DataFrame, effects: Mapping[str, tuple[str, str]], *, each: str, arms: str
) -> pd.DataFrame:
    """A row a place, effect and seed: `value`, the held-out share of one arm less another's.

    Args:
        effects: of each, the arm that is taken and the arm that is taken off.
        each: the column of places that are looked at one by one, such as the size.
        arms: the column that says of which arm a model is.
    """
    rows = []
    for place in dict.fromkeys(models[each]):
        for effect, (more, less) in effects.items():
            values = arm(models, **{each: place, arms: more}) - arm(
                models, **{each: place, arms: less}
            )
            rows += [{"effect": effect, each: place, "seed": seed, "value": value}
                     for seed, value in values.dropna().items()]  # fmt: skip
    return pd.DataFrame(rows, columns=["effect", each, "seed", "value"])


def over_models(values: pd.Series, bounds: tuple[float, float] = ANY) -> Interval:
    """The mean over models and Student's interval; nan where there is none to average."""
    known = values.dropna().astype(float).tolist()
    return mean_over_models(known, bounds=bounds) if known else UNMEASURED


def claim_on(values: pd.Series, bounds: tuple[float, float] = ANY, **said: Any) -> Claim:
    """A claim whose effect is the mean over these models, or pairs of models.

    A difference of two arms is paired by seed, for pandas aligns them: a seed that only one arm has
    comes to nan, and is left out.
    """
    return Claim(effect=over_models(values, bounds), models=int(values.notna().sum()), **said)


def weakest(parts: Sequence[Claim]) -> Claim:
    """The claim that all of several things are so, which is as its weakest part is.

    Contradicted if any part is, supported if all are, and undecided otherwise; the effect is that
    of the part that decides.
    """
    order = ["contradicted", "undecided", "supported"]

    def strength(part: Claim) -> tuple[int, bool, float]:
        beyond = part.effect.mean - part.null
        return order.index(part.verdict), part.models > 0, beyond if part.above else -beyond

    return min(parts, key=strength)


def counts(part: pd.DataFrame, group: str) -> str:
    """Right answers of all models together, as text; empty where none was asked.

    >>> counts(pd.DataFrame({"seen_right": [3, 4], "seen_of": [4, 4]}), "seen")
    '7/8'
    """
    if f"{group}_of" not in part or not part[f"{group}_of"].sum() > 0:
        return ""
    return f"{part[f'{group}_right'].sum():.0f}/{part[f'{group}_of'].sum():.0f}"


def words(values: pd.Series, bounds: tuple[float, float] = ANY) -> str:
    """A mean over models with its interval, as text; empty where nothing was measured."""
    return over_models(values, bounds).format() if values.notna().any() else ""


def few_models(claims: Sequence[Claim]) -> str:
    """What intervals over so few models are worth."""
    least = min((claim.models for claim in claims if claim.models), default=0)
    return (
        "Intervals are Student's over models, those of shares cut at 0 and 1, and below "
        f"{FEWEST} models there is no verdict. The fewest of a claim here are {least}: were there "
        f"nothing, all of these would lean one given way with p = {0.5**least:.3f}. Where all "
        "models are alike there is no interval; a share of others up to "
        f"{1 - 0.05 ** (1 / max(least, 1)):.2f} among {least} alike is not excluded."
    )

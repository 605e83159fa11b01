"""The holdout atlas: every pair of operands held out in turn, and which of them sizes answer."""

from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.claims import Claim, Evidence
from tbtt_interp.evidence.mixed import (
    answered_shares,
    interval_over_pairs,
    logistic_check,
    mixed_model,
    pair_and_size,
    slopes_of_pairs,
)
from tbtt_interp.figures.atlas import atlas_maps, atlas_strata
from tbtt_interp.stats import Interval, mean_over_models
from tbtt_interp.train.sweep import read_sweep

COMMAND = "tbtt sweep atlas && python analyses/atlas.py runs/atlas"
BASELINES = {"nearest": "nearest seen equation", "additive": "additive model"}


def atlas_equations(held_out: pd.DataFrame) -> pd.DataFrame:
    """The held-out equations of models that hold out one pair, with what of them is still seen.

    Args:
        held_out: as `held_out_table` has it.
    Returns:
        its rows of framing line on arithmetic, and: `pair`; `left`, how many seen equations of the
        operator have the answer; `gone`, whether none has; `rim`, whether an operand is 0 or 9, so
        that it has neighbours on one side only; `equal`, whether the operands are.
    Raises:
        TbttError: if there is no such row, or pairs share a seed.
    """
    alone = held_out["held_out"].str.fullmatch(r"\d,\d").fillna(False).astype(bool)
    table = held_out[alone & (held_out["task"] == "arithmetic") & (held_out["framing"] == "line")]
    if table.empty:
        raise TbttError(
            "no model here holds out one pair and trains on whole lines: tbtt sweep atlas trains "
            "some; give their folder"
        )
    if (table.groupby("seed")["held_out"].nunique() > 1).any():
        raise TbttError(
            "pairs of this atlas share seeds, and its models take seeds to be of one pair alone: "
            "train it by tbtt sweep atlas, which deals them so"
        )
    a, b, adds = table["a"], table["b"], table["operator"] == "+"
    value = np.where(adds, a + b, a - b)
    of_all = np.where(adds, np.minimum(value, 18 - value) + 1, 10 - np.abs(value))
    left = of_all - np.where(adds & (a != b), 2, 1)  # a sum is held out in both orders
    return table.assign(
        pair=table["held_out"], left=left, gone=left == 0, equal=a == b,
        rim=a.isin([0, 9]) | b.isin([0, 9]),
    )  # fmt: skip


def cells_table(equations: pd.DataFrame) -> pd.DataFrame:
    """A row a size and equation: the share of models that are right, and the baselines."""
    by = ["size", "width", "operator", "a", "b", "pair", "left", "gone", "rim", "equal"]
    cells = equations.groupby(by, as_index=False).agg(
        right=("right", "sum"), models=("right", "size"), share=("right", "mean"),
        margin=("margin", "mean"), **{name: (name, "mean") for name in BASELINES},
    )  # fmt: skip
    return cells.sort_values(["width", "operator", "a", "b"], ignore_index=True)


def strata_table(equations: pd.DataFrame) -> pd.DataFrame:
    """What is answered in each stratum, by size, and what a doubling of width does there.

    Columns: stratum; size; pairs; equations; share with its interval (low, high), the mean over
    pairs; slope, slope_low, slope_high: of the pairs' own slopes on the
    doublings of width, all sizes together; nearest, additive: the baselines' shares.
    """
    rows = []
    for stratum, some in _strata(equations).items():
        slope = interval_over_pairs(slopes_of_pairs(answered_shares(some)))
        widths = some.groupby("size")["width"].first().sort_values()
        for size in widths.index:
            mine = some[some["size"] == size]
            by_pair = mine.groupby("pair")[["right", *BASELINES]].mean()
            share = mean_over_models(by_pair["right"].tolist())
            rows.append(
                {"stratum": stratum, "size": size, "pairs": len(by_pair),
                 "equations": mine["prompt"].nunique(), "share": share.mean, "low": share.low,
                 "high": share.high, "slope": slope.mean, "slope_low": slope.low,
                 "slope_high": slope.high, **by_pair[list(BASELINES)].mean()}
            )  # fmt: skip
    return pd.DataFrame(rows)


TURNS = ("sum of 9 to 11, no rim", "other sums, no rim", "difference of −1 to 1, no rim",
         "other differences, no rim")  # fmt: skip


def _strata(equations: pd.DataFrame) -> dict[str, pd.DataFrame]:
    adds, left, rim = equations["operator"] == "+", equations["left"], equations["rim"]
    masks = {
        "all": left >= 0,
        "addition": adds,
        "subtraction": ~adds,
        "answer gone": left == 0,
        "answer seen 1 to 4 times": left.between(1, 4),
        "answer seen 5 times or more": left >= 5,
        "an operand at the rim": rim,
        "rim, answer still seen": rim & (left > 0),
        "no operand at the rim": ~rim,
        "equal operands": equations["equal"],
    }
    if {"a", "b"} <= {*equations}:  # where an answer gets its second digit, and where its sign
        turns = {TURNS[0]: (equations["a"] + equations["b"]).between(9, 11),
                 TURNS[2]: (equations["a"] - equations["b"]).between(-1, 1)}  # fmt: skip
        for (name, mask), operator in zip(turns.items(), (adds, ~adds), strict=True):
            other = TURNS[TURNS.index(name) + 1]
            masks |= {name: operator & ~rim & mask, other: operator & ~rim & ~mask}
    return {name: equations[mask] for name, mask in masks.items() if mask.any()}


def seen_less_gone(shares: pd.DataFrame) -> Interval:
    """The share of pairs all whose answers are still seen, less that of answers that have gone.

    The mean over pairs, and Welch's interval: few pairs have an answer that no other has.
    """
    gone = shares[shares["gone"] > 0].groupby("pair")["share"].mean()
    seen = shares[~shares["pair"].isin(gone.index)].groupby("pair")["share"].mean()
    if min(len(gone), len(seen)) < 2:
        return Interval(mean=float(seen.mean() - gone.mean()), low=np.nan, high=np.nan)
    bounds = stats.ttest_ind(seen, gone, equal_var=False).confidence_interval()
    return Interval(
        mean=float(seen.mean() - gone.mean()), low=float(bounds.low), high=float(bounds.high)
    )


def effects_table(equations: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What size, operator and coverage do, by three methods; and what varies how much.

    Columns of the first: method ("mixed model"; "own slopes", of each pair; "sizes apart",
    differences over pairs; "logistic"); term; effect, low, high; unit. Of the second: between; sd,
    in share.
    """
    shares = answered_shares(equations)
    fixed, deviations = mixed_model(shares)
    own = interval_over_pairs(slopes_of_pairs(shares))
    by_size = shares.groupby(["pair", "width", "size"])["share"].mean().unstack(["width", "size"])
    by_size = by_size.sort_index(axis=1)
    by_size.columns = by_size.columns.get_level_values("size")
    apart = {
        f"{wide} less {narrow}": interval_over_pairs(by_size[wide] - by_size[narrow])
        for narrow, wide in zip(by_size.columns, by_size.columns[1:], strict=False)
    }
    others = [("own slopes", "doublings", own), *(("sizes apart", *x) for x in apart.items())]
    table = [
        fixed.assign(method="mixed model", unit="share"),
        pd.DataFrame([
            {"method": method, "term": term, "effect": i.mean, "low": i.low, "high": i.high,
             "unit": "share"}
            for method, term, i in others
        ]),
        logistic_check(equations).assign(method="logistic", unit="log-odds"),
    ]  # fmt: skip
    columns = ["method", "term", "effect", "low", "high", "unit"]
    return pd.concat(table, ignore_index=True)[columns], deviations


def atlas_evidence(held_out: pd.DataFrame) -> Evidence:
    """Does size cost extrapolation when there is only arithmetic to learn, and on which pairs?

    Args:
        held_out: as `held_out_table` has it, of the sweep `atlas`.
    Raises:
        TbttError: if it has no model that holds out one pair, on whole lines.
    """
    equations = atlas_equations(held_out)
    cells, strata = cells_table(equations), strata_table(equations)
    tables = {"strata": strata, "cells": cells}
    models = len(equations[["size", "seed"]].drop_duplicates())
    sentences = _answered(strata, cells, models)
    claims: list[Claim] = []
    notes: list[str] = [*NOTES]
    try:
        effects, deviations = effects_table(equations)
    except TbttError as error:
        notes.append(f"Effects are not fitted: {error}.")
    else:
        spread = pair_and_size(answered_shares(equations))
        tables |= {"effects": effects, "deviations": deviations}
        sentences += _effects(effects, spread)
        claims = _claims(effects, spread, equations, models)
    return Evidence(
        question="Which held-out equations are answered, by which size?",
        tables=tables,
        shown=_shown(strata),
        figures={
            "atlas": partial(atlas_maps, cells),
            "atlas-strata": partial(atlas_strata, strata),
        },
        sentences=sentences,
        claims=claims,
        command=COMMAND,
        notes=notes,
    )


NOTES = (
    "Shares are of a pair's held-out equations, mean over pairs [95 % over pairs]; a pair of "
    "unequal operands has two sums and two differences, one of equal operands one of each.",
    "By doubling: the mean of the pairs' own slopes on log2 of width [95 %, t over pairs].",
    "Seen: by seen equations of the same operator with the same answer. Rim: operands 0 and 9.",
    "Every operand is still seen with nine others. Seeds are of one pair alone, and the same for "
    "all sizes: of a pair and seed, sizes train on the same lines from draws of the same seed.",
)


def _shown(strata: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for stratum, some in strata.groupby("stratum", sort=False):
        first = some.iloc[0]
        shares = {
            row["size"]: _text(row["share"], row["low"], row["high"])
            for row in some.to_dict("records")
        }
        slope = _text(first["slope"], first["slope_low"], first["slope_high"], signed=True)
        baselines = {words: f"{first[name]:.2f}" for name, words in BASELINES.items()}
        rows.append({"held out": stratum, "pairs": first["pairs"], **shares,
                     "by doubling": slope, **baselines})  # fmt: skip
    return pd.DataFrame(rows).fillna("")


def _text(mean: float, low: float, high: float, *, signed: bool = False) -> str:
    text = Interval(mean=mean, low=low, high=high).format()
    return f"+{text}" if signed and mean >= 0 else text


def _answered(strata: pd.DataFrame, cells: pd.DataFrame, models: int) -> list[str]:
    every = strata[strata["stratum"] == "all"].to_dict("records")
    by_size = ", ".join(f"{r['size']} {_text(r['share'], r['low'], r['high'])}" for r in every)
    nulls = ", ".join(f"{words} {every[0][name]:.2f}" for name, words in BASELINES.items())
    pairs = cells.groupby("pair")[["right", "models"]].sum()
    never = pairs.index[pairs["right"] == 0]
    always = (pairs["right"] == pairs["models"]).sum()
    named = f" ({'; '.join(never)})" if 0 < len(never) <= 12 else ""
    return [
        f"On whole lines, each of {len(pairs)} pairs held out in turn, the share of held-out "
        f"equations answered is {by_size}; {nulls} ({models} models).",
        f"{len(never)} of {len(pairs)} pairs are answered by no model{named}, {always} by all.",
        *_turns(strata),
    ]


def _turns(strata: pd.DataFrame) -> list[str]:
    """Where answers turn, beside where they do not: seen on the map, and so explored."""
    said = []
    for name in TURNS:
        rows = strata[strata["stratum"] == name].to_dict("records")
        shares = ", ".join(_text(r["share"], r["low"], r["high"]) for r in rows)
        said += [f"{name.removesuffix(', no rim')} {shares}"] if rows else []
    sizes = ", ".join(dict.fromkeys(strata["size"]))
    return [f"Seen on the map: with no operand at the rim, {'; '.join(said)} ({sizes})."] if (
        len(said) == len(TURNS)) else []  # fmt: skip


def _effect(effects: pd.DataFrame, method: str, term: str) -> Interval:
    row = effects[(effects["method"] == method) & (effects["term"] == term)].iloc[0]
    return Interval(mean=row["effect"], low=row["low"], high=row["high"])


def _effects(effects: pd.DataFrame, spread: dict[str, Interval]) -> list[str]:
    width = {m: _effect(effects, m, "doublings").format(3)
             for m in ("mixed model", "own slopes", "logistic")}  # fmt: skip
    apart = effects[effects["method"] == "sizes apart"]
    steps = ", ".join(
        f"{row['term']} {_text(row['effect'], row['low'], row['high'], signed=True)}"
        for row in apart.to_dict("records")
    )
    found = [
        f"A doubling of width changes the share by {width['mixed model']} (mixed model; pairs' own "
        f"slopes {width['own slopes']}; logistic {width['logistic']} log-odds). "
        f"Sizes apart: {steps}.",
    ]
    if not np.isnan(spread["pairs"].mean):  # of one seed a pair, pairs are not told from seeds
        found.append(
            f"The share's standard deviation between pairs is {spread['pairs'].format()}, between "
            f"sizes {spread['sizes'].format()}."
        )
    return found


def _claims(
    effects: pd.DataFrame, spread: dict[str, Interval], equations: pd.DataFrame, models: int
) -> list[Claim]:
    size, pair, covered = read_sweep("atlas").expected
    expected, unit = "expected before the run", "share"
    claims = [
        Claim(says=size, by=expected, effect=_effect(effects, "mixed model", "doublings"),
              unit="share a doubling of width", null=0.0, null_is="width does nothing",
              above=False, models=models, command=COMMAND),
        Claim(says=pair, by=expected, effect=spread["pairs less sizes"],
              unit="share, standard deviation between pairs less between sizes", null=0.0,
              null_is="as much", models=models, command=COMMAND),
        Claim(says=covered, by=expected, effect=seen_less_gone(answered_shares(equations)),
              unit=unit, null=0.0, null_is="no difference", models=models, command=COMMAND),
    ]  # fmt: skip
    if (effects["term"] == "addition").any():
        claims.append(
            Claim(says="Held-out sums are answered more often than differences, all else equal.",
                  by="explored", effect=_effect(effects, "mixed model", "addition"), unit=unit,
                  null=0.0, null_is="no difference", models=models, command=COMMAND)
        )  # fmt: skip
    if (effects["term"] == "rim").any():
        claims.append(
            Claim(says="Pairs with an operand at the rim, 0 or 9, are answered less often, all "
                  "else equal.", by="explored", effect=_effect(effects, "mixed model", "rim"),
                  unit=unit, null=0.0, null_is="no difference", above=False, models=models,
                  command=COMMAND)
        )  # fmt: skip
    return claims

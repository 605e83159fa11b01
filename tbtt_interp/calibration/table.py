"""The calibration table: planted effects found and missed, and false claims in nulls."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from tbtt_interp.calibration.instruments import INSTRUMENTS
from tbtt_interp.calibration.plants import MODELS, PLANTS
from tbtt_interp.calibration.runner import Draw, Recipe
from tbtt_interp.shares import share_over_models
from tbtt_interp.stats import Interval

LEVEL = 0.05  # nominal rate of false claims
FEWEST_FOUND = 0.8  # of plants of the largest effect; fewer is a miss
SIZES = ("small", "medium", "large")
LARGE = 0.5  # a share that is large in any plant, such as that of the head that copies most
DRAWS = "calibration.jsonl.xz"  # beside the page
MISSES, CLAIMS = "misses large effects", "claims too much"
KIND, DRAW = ["instrument", "kind"], ["plant", "size", "number"]
ABOUT = """\
An *instrument* is an analysis, such as patching. Here each is tried on *plants*: models whose
mechanism is known, because their weights were written by hand. Nulls are models with nothing to
find. Each draw has {models} models of the paper's architecture, each in a random basis. An
instrument is given the models and their prompts, but not the name of the plant. It finds an effect
if the claim that it would print is supported. Unlike the paper's models, these have an
unembedding that is not tied to the embedding, and answers of one token; some have no MLP, or two
layers.
"""
READ = """\
- **found**: effects whose claim is supported, of the planted effects of each size. Every plant has
  its own sizes, listed under Plants. An effect whose true share is 0.5 or more counts as large in
  every plant. The interval is that of the large effects.
- **smallest found**: the smallest planted effect that is found in at least {fewest} of draws, as
  all larger ones are; blank if there is none. Where its true size is unknown, the mean measured
  effect stands here. Where an instrument finds nothing, a smaller effect may be there.
- **wrong place**: the share of draws whose largest effect is where nothing was planted, of the
  draws with several places.
- **error**: the mean absolute difference of the effect from its true size, where that is known.
  All these sizes are shares, so that 1 is the whole.
- **covered**: 95 % intervals that contain the mean of the same effect in the other draws, of all
  such intervals. They are widened first for the error of that mean. Effects that are the same in
  every draw are not counted, since any interval contains them. An interval does not include what
  the models of one draw share, such as a permutation of the answers.
- **false, in nulls**: the share of claims about nulls that are supported, all of them falsely. The
  next column has the number of these claims, and of the draws. The interval is the beta-binomial's,
  since the claims of one draw are not independent.
- **false, in plants**: claims supported in planted models, at places where nothing was planted.
- **cannot see**: claims supported where there is an effect of a kind that the instrument is blind
  to. Erasure and interchange are blind to a feature that is used, but not through a linear code. So
  0 found is expected there, and does not show that the feature is unused.
- **problem**: "misses large effects" if fewer than {fewest} of them are found. "Claims too much" if
  the interval of the false claims in nulls begins above {level}.
"""
ADVICE = """\
- A small effect that is not found may be there. *Smallest found* says how small one can be.
- Attribution is of the logit difference, and claims nothing where that is not clear of 0.
- Excluded loss alone does not tell a rule from a table. A table reads operands, too, so that
  leaving out their main directions costs its answers. Restricted loss does tell them apart.
- The head that is most of a kind is chosen on the models that it is then claimed of. So it can be
  above uniform attention by chance, by far less than any planted head is.
- Latent answers have few wrong answers to look at, here 20 held-out ones of each model. One or two
  that can be corrected are not found.
- Intervals are over models, and planted models of one draw are much alike. Trained models differ
  more: their intervals are wider, and their smallest effects that are found are larger.
"""
SOUND = (
    f"None: every row finds {100 * FEWEST_FOUND:.0f} % of its large effects or more, and no "
    f"interval of false claims in nulls begins above {100 * LEVEL:.0f} %."
)
HEAD = r"head \d+\.\d+"  # draws have their heads in other orders, so that a number says nothing


def rows_of(draws: Iterable[Draw]) -> pd.DataFrame:
    """One row per draw and question: what was found, and what is so."""
    table = pd.DataFrame([
        {"plant": draw["plant"], "size": draw["effect"], "number": draw["number"], **row}
        for draw in draws for row in draw["rows"]
    ]).rename(columns={"true": "truth"})  # fmt: skip
    table["is_null"] = table["plant"].map({name: x.is_null for name, x in PLANTS.items()})
    order = {(x.name, size): name for x in PLANTS.values()
             for size, name in zip(x.effects, SIZES[-len(x.effects) :], strict=True)}  # fmt: skip
    table["effect_size"] = list(map(order.get, zip(table["plant"], table["size"], strict=True)))
    is_large = (table["truth"] >= LARGE) & (table["kind"] != "accuracy")
    table.loc[is_large, "effect_size"] = "large"
    return table


def _share(rows: pd.DataFrame) -> Interval:
    """The share of claims that are supported, whose units are draws."""
    counts = rows.groupby(DRAW)["is_found"].agg(["sum", "size"])
    return share_over_models([(int(hits), int(of)) for hits, of in counts.to_numpy()])


def _misplaced(rows: pd.DataFrame) -> float:
    """The share of draws whose largest effect is not one of the planted; accuracies have no 0."""
    draws = rows.groupby(DRAW)["truth"]
    several = rows[(draws.transform("size") > 1) & draws.transform(lambda x: (x != 0).any())]
    if several.empty or (rows["kind"] == "accuracy").all():
        return math.nan
    size = several["effect"].abs()
    largest = several.loc[size.groupby([several[name] for name in DRAW]).idxmax()]
    return float((largest["truth"] == 0).mean())


def least_found(rows: pd.DataFrame) -> float:
    """The smallest effect that is found in most draws, as every larger one is; nan if none is.

    Args:
        rows: of one kind of finding, where something was planted.
    """
    groups = power_by_size(rows)
    size = groups["truth"].fillna(groups["effect"]).abs()
    is_missed = groups["found"] < FEWEST_FOUND * groups["of"]
    return float(size[size > size[is_missed].max()].min() if is_missed.any() else size.min())


def covered(rows: pd.DataFrame) -> tuple[int, int]:
    """Intervals that hold the mean effect of the other draws, of all where effects differ."""
    rows = rows[rows["low"] < rows["high"]]
    place = rows["place"].str.replace(HEAD, "a head", regex=True)
    effects = rows.groupby(["plant", "size", "truth", place], dropna=False)["effect"]
    n, total, differ = (effects.transform(how) for how in ("size", "sum", "nunique"))
    rows, n, total = rows[differ > 1], n[differ > 1], total[differ > 1]
    error = ((total - rows["effect"]) / (n - 1) - rows["effect"]) / (n / (n - 1)) ** 0.5
    is_in = (rows["low"] - rows["effect"] <= error) & (error <= rows["high"] - rows["effect"])
    return int(is_in.sum()), len(rows)


def calibration_table(draws: Iterable[Draw]) -> pd.DataFrame:
    """One row per instrument and kind of finding.

    Returns:
        for each size of effect `found_*` and `of_*`, with `power`, `power_low`, `power_high` of the
        large; `least_found`; `misplaced`; `error`; `covered` of `intervals`; `false`, `false_low`,
        `false_high` over `null_draws` and `null_claims`; `false_in_plants` of `in_plants`;
        `blind_found` of `blind`; and `verdict`.
    """
    found: list[dict[str, Any]] = []
    for (instrument, kind), scored in rows_of(draws).groupby(KIND, sort=False):
        blind, rows = scored[scored["is_blind"]], scored[~scored["is_blind"]]
        is_there, is_null = rows["truth"] != 0, rows["is_null"].astype(bool)
        planted, nulls = rows[is_there & ~is_null], rows[~is_there & is_null]
        rest = rows[~is_there & ~is_null]
        row: dict[str, Any] = {"instrument": instrument, "kind": kind}
        for name in SIZES:
            of_size = planted[planted["effect_size"] == name]
            row |= {f"found_{name}": int(of_size["is_found"].sum()), f"of_{name}": len(of_size)}
        power, rate = _share(planted[planted["effect_size"] == "large"]), _share(nulls)
        row["covered"], row["intervals"] = covered(rows[is_there | is_null])
        row |= {
            "power": power.mean, "power_low": power.low, "power_high": power.high,
            "least_found": least_found(planted), "misplaced": _misplaced(rows),
            "error": (planted["effect"] - planted["truth"]).abs().mean(),
            "false": rate.mean, "false_low": rate.low, "false_high": rate.high,
            "null_draws": rate.n, "null_claims": len(nulls),
            "false_in_plants": int(rest["is_found"].sum()), "in_plants": len(rest),
            "blind_found": int(blind["is_found"].sum()), "blind": len(blind),
        }  # fmt: skip
        wrong = {MISSES: power.mean < FEWEST_FOUND, CLAIMS: rate.low > LEVEL}
        row["verdict"] = " and ".join(what for what, is_so in wrong.items() if is_so)
        found.append(row)
    order = list(INSTRUMENTS)
    return pd.DataFrame(found).sort_values(
        "instrument", key=lambda x: x.map(order.index), kind="stable"
    ).reset_index(drop=True)  # fmt: skip


def false_claims(draws: Iterable[Draw]) -> pd.DataFrame:
    """Claims supported where nothing is, by plant, kind and place, where that is over LEVEL.

    Returns:
        one row per plant, kind and place: `sum` of `size` claims, and the `rate` with its interval.
    """
    table = rows_of(draws)
    table["place"] = table["place"].str.replace(HEAD, "a head", regex=True)
    found: list[dict[str, Any]] = []
    by = ["plant", *KIND, "place"]
    for key, rows in table[table["truth"] == 0].groupby(by, sort=False):
        if (hits := int(rows["is_found"].sum())) > LEVEL * len(rows):
            of = dict(zip(by, key, strict=True))
            found.append(of | {"sum": hits, "size": len(rows), "rate": _share(rows)})
    return pd.DataFrame(found, columns=[*by, "sum", "size", "rate"])


def power_by_size(planted: pd.DataFrame) -> pd.DataFrame:
    """Claims found, of how many, the mean truth and the mean effect, by plant, size and kind.

    Shares from LARGE on have a row of their own, such as that of the head that copies most.
    """
    is_large = (planted["truth"] >= LARGE).rename("is_large")
    groups = planted.groupby(["plant", "size", *KIND, is_large], sort=False)
    return groups.agg(truth=("truth", "mean"), found=("is_found", "sum"), of=("is_found", "size"),
                      effect=("effect", "mean")).reset_index().drop(columns="is_large")  # fmt: skip


def _markdown(table: pd.DataFrame) -> str:
    head = list(map(str, table.columns))
    lines = [head, ["---"] * len(head), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(x: float) -> str:
    return "" if math.isnan(x) else f"{x:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    def counts(row: Any, a: str, b: str) -> str:
        return f"{row[a]}/{row[b]}" if row[b] else ""

    def interval(row: Any, name: str) -> str:
        return "" if math.isnan(row[name]) else Interval.of_row(row, name).format()

    return pd.DataFrame([
        {
            "instrument": row["instrument"], "finding": row["kind"],
            **{f"found, {name}": counts(row, f"found_{name}", f"of_{name}") for name in SIZES},
            "share of large, 95 % CI": interval(row, "power"),
            "smallest found": _number(row["least_found"]),
            "wrong place": _number(row["misplaced"]), "error": _number(row["error"]),
            "covered": counts(row, "covered", "intervals"),
            "false, in nulls": interval(row, "false"),
            "claims (draws)": f"{row['null_claims']} ({row['null_draws']})",
            "false, in plants": counts(row, "false_in_plants", "in_plants"),
            "cannot see": counts(row, "blind_found", "blind"), "problem": row["verdict"],
        }
        for row in table.to_dict("records")
    ])  # fmt: skip


def core_hours(draws: Sequence[Draw], recipe: Recipe) -> float:
    """The hours of one core that a recipe takes, by the mean time of each plant's draws."""
    seconds = pd.Series([sum(draw["seconds"].values()) for draw in draws])
    means = seconds.groupby([draw["plant"] for draw in draws]).mean()
    return float(sum(means[job.plant] for job in recipe.jobs if job.plant in means)) / 3_600


def page(draws: Sequence[Draw], recipe: Recipe, command: str) -> str:
    """docs/calibration.md: the table, power by plant, false claims, plants, and how to read them.

    Args:
        command: what writes it.
    """
    table, rows, wrong = calibration_table(draws), rows_of(draws), false_claims(draws)
    power = power_by_size(rows[(rows["truth"] != 0) & ~rows["is_null"] & ~rows["is_blind"]])
    power["plant"] = pd.Categorical(power["plant"], list(PLANTS))
    power = power.sort_values(["plant", "size"], kind="stable").assign(
        found=power["found"].astype(str) + "/" + power["of"].astype(str),
        effect=power["effect"].map(_number), truth=power["truth"].map(_number),
    ).drop(columns="of")  # fmt: skip
    power = power.rename(columns={"size": "effect size", "kind": "finding", "truth": "true size",
                                  "effect": "mean effect"})  # fmt: skip
    counts = wrong.pop("sum").astype(str) + "/" + wrong.pop("size").astype(str)
    wrong.insert(len(wrong.columns) - 1, "false", counts)
    wrong["rate"] = [rate.format() for rate in wrong["rate"]]
    wrong = wrong.rename(columns={"kind": "finding", "rate": "share, 95 % CI"})
    instruments = pd.DataFrame([
        {"instrument": one.name, "question": one.question} for one in INSTRUMENTS.values()
    ])  # fmt: skip
    plants = pd.DataFrame([
        {"plant": x.name, "effect sizes": ", ".join(map(str, x.effects)), "what": x.what}
        for x in PLANTS.values()
    ])  # fmt: skip
    unfit = [f"- {one.name}, {plant}: {why}."
             for one in INSTRUMENTS.values() for plant, why in one.unfit.items()]  # fmt: skip
    times = pd.DataFrame([draw["seconds"] for draw in draws])
    times = pd.DataFrame({"instrument": times.columns, "draws": times.notna().sum().to_numpy(),
                          "seconds": times.mean().to_numpy().round(2)})  # fmt: skip
    minutes = sum(sum(draw["seconds"].values()) for draw in draws) / 60
    full = Recipe()
    is_full = recipe.bases >= full.bases and recipe.nulls >= full.nulls
    reduced = "" if is_full else (
        f"**This is a reduced table.** `tbtt calibrate` makes the full one, of {full.bases} draws "
        f"and {full.nulls} of each null, in about {core_hours(draws, full):.1f} hours of one core. "
        "Until then the intervals below are wide."
    )  # fmt: skip
    unread = recipe.unread(draws)
    left = pd.DataFrame({"instrument": unread.keys(), "draws left": unread.values()})
    unfinished = "" if left.empty else (
        f"**Unfinished.** `{command}` goes on. Some of the {len(recipe.jobs):,} draws are still "
        f"to be read, by these instruments:\n\n{_markdown(left)}"
    )  # fmt: skip
    parts = [
        "# Calibration: every instrument on models whose mechanism is known",
        ABOUT.format(models=MODELS),
        f"Written by `{command}`. Draws of each plant and effect size: {recipe.bases}; of each "
        f"null: {recipe.nulls}; {minutes:.0f} minutes of one core. "
        f"The draws are in `{DRAWS}`, from which the command goes on.",
        reduced, unfinished, _markdown(_shown(table)),
        READ.format(fewest=_percent(FEWEST_FOUND), level=_percent(LEVEL)),
        "## Problems", "\n".join(f"- {x}." for x in failures(table)) or SOUND,
        "## Before you rely on one", ADVICE, "## Instruments", _markdown(instruments),
        "Plants that an instrument cannot be applied to:", "\n".join(unfit),
        "## Power by effect size",
        "The true size is blank where no formula gives it: the effect is there, and its size is "
        "not known.", _markdown(power),
        f"## Places where more than {_percent(LEVEL)} of claims are false",
        _markdown(wrong) if len(wrong) else "None.",
        "## Plants", _markdown(plants),
        "## Time", "CPU seconds of one draw of four models.", _markdown(times),
    ]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Rows that miss large effects or claim too much, in words."""
    return [f"{row['instrument']}, {row['kind']}: {row['verdict']}"
            for row in table.to_dict("records") if row["verdict"]]  # fmt: skip

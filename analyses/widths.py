# %% [markdown]
# # How much of the held-out accuracy is order, framing and size?
# Five widths on three framings. Order is shuffled minus file, framing is line minus shuffled, and
# what is left on line is size. Measures: both differences at each width, paired by seed; the slope
# of held-out accuracy on log2 of width; and the difference of width 14 and 56 on file, divided
# exactly. Compared at the last step, when models know as much of the seen, and at one learning rate
# for all. The expectations stand in train/sweeps/widths.toml.

# %%
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tbtt_interp import conditions, plots
from tbtt_interp.results import Claim, Result
from tbtt_interp.stats import SHARE, summarize
from tbtt_interp.study import study_arguments
from tbtt_interp.sweep_tables import sweep_table, with_accuracies
from tbtt_interp.tasks.windows import FRAMINGS
from tbtt_interp.train.sweep import read_sweep

CELL = ["width", "framing", "learning_rate"]
EFFECTS = {"order": ("shuffled", "file"), "framing": ("line", "shuffled")}  # the first minus
NARROW, WIDE = 14, 56  # small and large, whose difference is divided
GAP, DOUBLING = f"width {NARROW} less {WIDE}", "a doubling of width"
PARTS = ("order", "framing", "left on line")  # of GAP on file
FIXED_RATE, NEAR = 1e-2, 0.05  # the published rate; nats above the floor of the lines
LAST, AT_FIXED = "last step", f"last step, rate {FIXED_RATE:g}"
AT_LOSS = f"first {NEAR:g} from the floor"
LEVELS = {f"first {level:.0%} of seen": level for level in (0.5, 0.7, 0.9, 0.99)}
WAYS = [LAST, "first 90% of seen", AT_LOSS, AT_FIXED]
NOTES = (
    "seen, held-out: right answers of all, all models together. Differences are of held-out "
    "accuracy, mean over models [95 %] (models), paired by seed.",
    "A learning rate is picked for each width, the same for all framings: that of the lowest last "
    "loss above the floor of the lines, mean over shuffled and line, where no order lowers it. "
    f"Held-out answers have no say. {FIXED_RATE:g} for all widths is shown, too.",
    "order: shuffled minus file. framing: line minus shuffled, and with it the batch: on line it "
    f"is every line once. {GAP} on file is, seed by seed, the sum of what is left on line, and how "
    "much more order and framing cost the wider.",
    "first …: each model at its first evaluation that knows so much of the seen equations, or has "
    f"a loss at most {NEAR:g} nats above the floor of the lines. Models that never get there are "
    "left out. Equal loss is not equal knowledge: on file the order lowers it.",
)


# %%
def lines_floor(models: pd.DataFrame) -> pd.Series:
    """The lowest loss of a model that knows every line and no order, in each row's framing."""
    return models["floor_lines"].where(models["framing"] != "line", models["floor_line"])


def rates_table(models: pd.DataFrame) -> pd.DataFrame:
    """One row per width, framing and learning rate at the last step.

    Returns:
        means over models of accuracy, `loss` and `above`, the loss above `lines_floor`; `models`;
        `picked`: the rate of a width whose `above` is lowest, mean over framings without an order,
        or over file where there are no others.
    """
    of = models.assign(above=models["loss"] - lines_floor(models)).groupby(CELL, sort=False)
    table = of[["seen_accuracy", "loss", "above"]].mean().assign(models=of.size()).reset_index()
    others = table[table["framing"] != "file"]
    asked = pd.concat([others, table[~table["width"].isin(others["width"])]])
    best = asked.groupby(["width", "learning_rate"])["above"].mean().groupby("width").idxmin()
    keys = pd.MultiIndex.from_frame(table[["width", "learning_rate"]])
    return table.assign(picked=keys.isin(best))


def ways_of_comparing(models: pd.DataFrame, over: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The models at the picked rates, at the last step and matched; and all at one rate."""
    rates = rates_table(models)
    picked = rates.loc[rates["picked"], CELL]
    way = over.merge(picked, on=CELL)
    reached = {at: way["seen_accuracy"] >= level for at, level in LEVELS.items()}
    reached[AT_LOSS] = way["loss"] <= lines_floor(way) + NEAR
    matched = {at: conditions.first_evaluations(way, rows) for at, rows in reached.items()}
    at_fixed = conditions.select(models, learning_rate=FIXED_RATE)
    return {LAST: models.merge(picked, on=CELL), AT_FIXED: at_fixed} | matched


def differences(models: pd.DataFrame) -> pd.DataFrame:
    """One row per `difference` of held-out accuracies and seed that has it, with its `value`."""
    widths = sorted(models.loc[models["held_out_accuracy"].notna(), "width"].unique())
    columns = pd.MultiIndex.from_product([sorted({*widths, NARROW, WIDE}), FRAMINGS])
    share = models.pivot(index="seed", columns=["width", "framing"], values="held_out_accuracy")
    share = share.reindex(columns=columns).astype(float)
    gap = {f: share[NARROW, f] - share[WIDE, f] for f in FRAMINGS}
    parts = pd.DataFrame({"order": gap["file"] - gap["shuffled"], "left on line": gap["line"],
                          "framing": gap["shuffled"] - gap["line"]}).dropna()  # fmt: skip
    found = {
        f"{effect} at width {width}": share[width, more] - share[width, less]
        for effect, (more, less) in EFFECTS.items()
        for width in widths
    } | {f"{GAP} on {framing}": values for framing, values in gap.items()}
    found |= {f"on file, {name}": parts[name] for name in PARTS}
    if len(widths) > 1:
        x = np.log2(widths) - np.log2(widths).mean()
        for framing in FRAMINGS:
            slope = share.xs(framing, axis=1, level=1)[widths].dropna() @ (x / (x**2).sum())
            found[f"{DOUBLING} on {framing}"] = slope.round(12)  # floats' noise is no slope
    rows = pd.DataFrame(found).rename_axis("seed").reset_index()
    return rows.melt("seed", var_name="difference").dropna(ignore_index=True)


def widths_claims(rows: pd.DataFrame) -> list[Claim]:
    """What was expected before the run, of the differences at the last step."""
    order, framing, size, more = read_sweep("widths").expected
    of = {name: conditions.by_seed(rows, "value", difference=name)
          for name in dict.fromkeys(rows["difference"])}  # fmt: skip
    none = pd.Series(dtype=float)
    left, *others = (of.get(f"on file, {name}", none) for name in PARTS[::-1])
    whole = conditions.over_models(of.get(f"{GAP} on file", none))
    sign = int(whole.low > 0) - int(whole.high < 0)
    said: dict[str, Any] = {"null": 0.0, "null_name": "no difference"}
    said["origin"] = "expected before the run"
    claims = [
        conditions.claim_over_models(of.get(name, none), text=text, direction=direction,
                                     unit=f"of held-out accuracy{per}", **said)
        for name, text, direction, per in (
            (f"order at width {WIDE}", order, "above", ""),
            (f"framing at width {WIDE}", framing, "above", ""),
            (f"{DOUBLING} on line", size, "below", " per doubling of width"))
    ]  # fmt: skip
    said |= {"unit": "of held-out accuracy, order and framing less what is left"}
    rest = conditions.claim_over_models((sum(others) - left) * (sign or 1), text=more, **said)
    if rest.effect.n and not sign:  # then nothing can be divided
        unknown = replace(rest.effect, low=float("nan"), high=float("nan"))
        rest = replace(rest, effect=unknown, null_name="no difference on file, so none is divided")
    return [*claims, rest]


def widths_result(models: pd.DataFrame, over: pd.DataFrame) -> Result:
    """How much of the held-out accuracy is order, how much framing, and how much size."""
    conditions.check_one_each(models, CELL)
    places = {name: k for k, name in enumerate(FRAMINGS)}
    models, over = (
        with_accuracies(table).sort_values(
            ["width", "framing"], kind="stable",
            key=lambda c: c.map(places) if c.name == "framing" else c)
        for table in (models, over)
    )  # fmt: skip
    ways = ways_of_comparing(models, over)
    cells, rows = (
        pd.concat([table_of(t).assign(at=at) for at, t in ways.items()], ignore_index=True)
        for table_of in (pd.DataFrame, differences)
    )
    display = pd.DataFrame([
        {"width": width, "framing": framing, "rate": f"{cell['learning_rate'].iloc[0]:g}",
         **conditions.answers_text(cell)}
        for (width, framing), cell in ways[LAST].groupby(["width", "framing"], sort=False)
    ])  # fmt: skip
    summary = summarize(rows, ["difference", "at"], ["value"])
    text = rows.groupby(["difference", "at"], sort=False)["value"]
    text = text.agg(conditions.mean_text, with_n=True).unstack("at").fillna("")
    by_way = text.reindex(columns=WAYS).reset_index()
    gaps = text[text.index.str.startswith(GAP)].reindex(columns=list(LEVELS)).reset_index()
    claims = widths_claims(conditions.select(rows, at=LAST))
    return Result(
        name="widths", question="How much of the held-out accuracy is order, framing and size?",
        tables={"widths-models": cells, "widths-rates": rates_table(models),
                "widths-differences": summary},
        display=display, claims=claims, notes=[*NOTES, conditions.interval_note(claims)],
        command="tbtt sweep widths && python analyses/widths.py runs/widths",
        more_displays={"Differences of held-out accuracy": by_way,
                       "At what models first know": gaps},
        figures={
            "widths": lambda: plots.models_by_group(
                cells, x="width", by="framing", value="held_out_accuracy", panel="at", across=2,
                bounds=SHARE, titles=("width", "held-out accuracy")),
            "widths-effects": lambda: plots.models_by_group(
                rows[rows["at"].isin(WAYS)], x="difference", by="at", value="value",
                titles=("", "difference of held-out accuracy")).update_xaxes(tickangle=-60),
        },
    )  # fmt: skip


# %%
if __name__ == "__main__":
    folders, files = study_arguments()
    folder = folders[0] if folders else None
    result = widths_result(*(sweep_table("widths", w, folder) for w in ("models", "over training")))
    for file in files:
        plots.save(result.figures["widths-effects"](), file)
    print(result)

"""Order, framing and size: three differences of held-out share, told apart at five widths."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tbtt_interp import figures
from tbtt_interp.evidence.claims import Claim, Evidence
from tbtt_interp.evidence.effects import (
    SHARE,
    arm,
    check_one_each,
    claim_on,
    counts,
    effect_rows,
    few_models,
    first_evaluations,
    over_models,
    with_shares,
    words,
)
from tbtt_interp.stats import Interval
from tbtt_interp.tasks.windows import FRAMINGS
from tbtt_interp.train.sweep import read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COMMAND = "tbtt sweep widths && python analyses/widths.py runs/widths"
CELL = ["width", "framing", "learning_rate"]
EFFECTS = {"order": ("shuffled", "file"), "framing": ("line", "shuffled")}  # more − less
NARROW, WIDE = 14, 56  # small and large, whose difference is divided
FIXED_RATE = 1e-2  # the published one
LEVELS = (0.5, 0.7, 0.9, 0.99)  # of the seen equations: known first at an evaluation, matched there
NEAR = 0.05  # nats above the floor of who knows the lines: so near first, matched there
LAST, AT_FIXED = "last step", f"last step, rate {FIXED_RATE:g}"
AT_LEVEL = {f"first knowing {level:.0%} of seen": level for level in LEVELS}
AT_KNOWN, AT_LOSS = f"first knowing {0.9:.0%} of seen", f"first {NEAR:g} from the floor"
WAYS = (LAST, AT_KNOWN, AT_LOSS, AT_FIXED)


def widths_evidence(models: pd.DataFrame, over: pd.DataFrame) -> Evidence:
    """How much of the held-out share is order, how much framing, and how much is left to size.

    Args:
        models, over: of the sweep widths, as `sweep_tables` has them.
    Raises:
        TbttError: if a cell has a seed twice.
    """
    check_one_each(models, CELL)
    models, over = _in_order(with_shares(models)), _in_order(with_shares(over))
    rates = rates_table(models)
    way = at_picked_rates(over, rates)
    arms = {
        LAST: at_picked_rates(models, rates),
        AT_FIXED: models[models["learning_rate"] == FIXED_RATE],
        **{at: first_evaluations(way, way["seen"] >= level) for at, level in AT_LEVEL.items()},
        AT_LOSS: first_evaluations(way, way["loss"] <= lines_floor(way) + NEAR),
    }
    effects = _each(arms, partial(effect_rows, effects=EFFECTS, each="width", arms="framing"))
    parts = _each(arms, part_rows)
    slopes = _each(arms, slope_rows)
    gaps = _each({at: arms[at] for at in AT_LEVEL}, gap_rows)
    cells = _each(arms, lambda table: table)
    claims = _claims(effects, parts, slopes)
    return Evidence(
        question="How much of the held-out share is order, framing and size?",
        tables={"widths-models": cells, "widths-rates": rates, "widths-effects": summed(effects),
                "widths-parts": summed(parts), "widths-slopes": summed(slopes),
                "widths-matched": matched_table(cells), "widths-gaps": summed(gaps)},
        shown=_shown(arms[LAST], effects[effects["at"] == LAST]),
        figures={"widths": partial(held_out_figure, cells),
                 "widths-effects": partial(effects_figure, effects, parts),
                 "widths-matched": partial(matched_figure, cells)},
        further={"Differences of held-out share": _differences(effects, parts, slopes),
                 f"Width {NARROW} less {WIDE}, when both first know so much": _gaps_by_level(gaps)},
        sentences=[*_first_sentence(effects, slopes), *_not_told_apart(parts)],
        claims=claims,
        command=COMMAND,
        notes=[
            "Differences of held-out share, mean over models [95 %] and (models). seen and "
            "held-out: right of all, all models together; effect: what a row has more than the "
            "one above.",
            "A learning rate is picked for each width, the same for all framings: that of the "
            "lowest loss at the last step above the floor of who knows the lines, mean over "
            "shuffled and line, where no order lowers it. Held-out equations have no say. Beside "
            f"it stands {FIXED_RATE:g} for all widths.",
            "order: shuffled minus file; framing: line minus shuffled, and with it the batch, "
            "which on line is every line once. Differences are paired by seed: by initialization "
            "at one width, by the file's order between widths.",
            "Matched: each model at the first evaluation at which it knows so much of the seen "
            f"equations, or at which its loss is {NEAR:g} nats from the floor of who knows the "
            "lines and no order, or less. Models that never get there are left out, pairs with "
            f"them; evaluations are {_spacing(over):,.0f} steps apart, so that a model can know "
            "more. The same loss is not the same knowledge: on windows part of what comes is "
            "foretold by nothing, and on file the order lowers it. What else sets them apart, such "
            "as steps, is not matched.",
            f"The difference of width {NARROW} minus {WIDE} on file is, seed by seed and exactly, "
            "that on line plus how much more order, and how much more framing, costs the wider.",
            few_models(claims),
        ],
    )  # fmt: skip


def lines_floor(models: pd.DataFrame) -> pd.Series:
    """The lowest loss of one who knows every line and no order, in the framing of each row."""
    return models["floor_lines"].where(models["framing"] != "line", models["floor_line"])


def rates_table(models: pd.DataFrame) -> pd.DataFrame:
    """A row a width, framing and learning rate, at the last step.

    Columns: means over models of `seen`, `loss` and `above`, the loss above `lines_floor`;
    `models`; `picked`: the rate of a width whose `above` is lowest, mean over its framings but
    file, where a low loss takes the order; over file if there is no other.
    """
    of = models.assign(above=models["loss"] - lines_floor(models)).groupby(CELL, sort=False)
    table = of[["seen", "loss", "above"]].mean().assign(models=of.size()).reset_index()
    others = table[table["framing"] != "file"]
    asked = pd.concat([others, table[~table["width"].isin(others["width"])]])
    by_rate = asked.groupby(["width", "learning_rate"])["above"].mean()
    best = by_rate.groupby("width").idxmin()
    return table.assign(
        picked=pd.MultiIndex.from_frame(table[["width", "learning_rate"]]).isin(best)
    )


def at_picked_rates(table: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """The rows of the models whose learning rate was picked."""
    return table.merge(rates.loc[rates["picked"], CELL], on=CELL)


def gap_rows(models: pd.DataFrame) -> pd.DataFrame:
    """A row a framing and seed: `value`, the held-out share of NARROW less that of WIDE."""
    rows = [
        {"framing": framing, "seed": seed, "value": value}
        for framing in FRAMINGS
        for seed, value in (
            arm(models, width=NARROW, framing=framing) - arm(models, width=WIDE, framing=framing)
        ).dropna().items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["framing", "seed", "value"])


def matched_table(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a width, framing and way of matching: means over the `models` that got there."""
    matched = cells[~cells["at"].isin([LAST, AT_FIXED])]
    of = matched.groupby(["width", "framing", "at"], sort=False)
    table = of[["step", "seen", "order_known", "held_out"]].mean()
    return table.assign(models=of.size()).reset_index()


def part_rows(models: pd.DataFrame) -> pd.DataFrame:
    """The difference of two widths on file, and the three parts that it is the sum of, by seed.

    With s(width, framing) the held-out share: the difference s(narrow, file) − s(wide, file) is
    what is left on line, s(narrow, line) − s(wide, line), and by how much the effect of order, and
    the effect of framing, is larger at the wider. A row a seed and part: `part`, `value`.
    """
    share = {
        (width, framing): arm(models, width=width, framing=framing)
        for width in (NARROW, WIDE)
        for framing in FRAMINGS
    }
    cost = {
        effect: {w: share[w, more] - share[w, less] for w in (NARROW, WIDE)}
        for effect, (more, less) in EFFECTS.items()
    }
    table = pd.DataFrame({
        "on file": share[NARROW, "file"] - share[WIDE, "file"],
        "order": cost["order"][WIDE] - cost["order"][NARROW],
        "framing": cost["framing"][WIDE] - cost["framing"][NARROW],
        "left on line": share[NARROW, "line"] - share[WIDE, "line"],
    }).dropna()  # fmt: skip
    return table.rename_axis("seed").reset_index().melt("seed", var_name="part")


def slope_rows(models: pd.DataFrame) -> pd.DataFrame:
    """A row a framing and seed: `value`, the slope of held-out share on log2 of width.

    Of the seeds that have every width that there is.
    """
    rows = []
    known = models.dropna(subset="held_out")
    widths = known["width"].nunique()
    for (framing, seed), part in known.groupby(["framing", "seed"], sort=False):
        if part["width"].nunique() == widths > 1:
            slope = np.polyfit(np.log2(part["width"]), part["held_out"].astype(float), 1)[0]
            # rounded, or the noise of floats would put a slope of 0 on one side of it
            rows.append({"framing": framing, "seed": seed, "value": round(slope, 12)})
    return pd.DataFrame(rows, columns=["framing", "seed", "value"])


def summed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows a seed as rows a cell: `mean`, `low` and `high` of `value`, and how many `models`."""
    cell = [name for name in rows if name not in ("seed", "value")]
    table = []
    for key, part in rows.groupby(cell, sort=False):
        found = over_models(part["value"])
        table.append(
            dict(zip(cell, key, strict=True))
            | {"mean": found.mean, "low": found.low, "high": found.high, "models": len(part)}
        )
    return pd.DataFrame(table, columns=[*cell, "mean", "low", "high", "models"])


def held_out_figure(cells: pd.DataFrame) -> "Figure":
    """Held-out shares at the last step by width and framing, at the picked rate and at one."""
    return figures.over_models(
        cells[cells["at"].isin([LAST, AT_FIXED])], x="width", by="framing", value="held_out",
        panel="at", titles=("width", "share of held-out equations right"), bounds=(0.0, 1.0),
    )  # fmt: skip


def matched_figure(cells: pd.DataFrame) -> "Figure":
    """Held-out shares when models first know so much of the seen equations, by width."""
    matched = cells[cells["at"].isin(AT_LEVEL)]
    matched = matched.assign(
        known=matched["at"].map(AT_LEVEL).map("{:.0%}".format),
        width="width " + matched["width"].astype(str),
    )
    return figures.over_models(
        matched, x="known", by="width", value="held_out", panel="framing",
        titles=("share of seen equations first known", "share of held-out equations right"),
        bounds=(0.0, 1.0),
    )  # fmt: skip


def effects_figure(effects: pd.DataFrame, parts: pd.DataFrame) -> "Figure":
    """What order and framing cost at each width, and how the difference of two widths divides.

    Intervals that go beyond the axis are cut.
    """
    effects, parts = (table[table["at"].isin(WAYS)] for table in (effects, parts))
    divided = parts.assign(x=parts["part"], panel=f"width {NARROW} − {WIDE}, divided")
    costs = effects.assign(x=effects["width"], panel=effects["effect"].map(_panel))
    rows = pd.concat([costs.sort_values("effect", ascending=False, kind="stable"), divided])
    figure = figures.over_models(
        rows, x="x", by="at", value="value", panel="panel",
        titles=("", "difference of held-out share"),
    )  # fmt: skip
    reach = 1.1 * max(1.0, rows["value"].abs().max())  # an interval of two models goes far beyond
    return figure.update_yaxes(range=[-reach, reach])


def _panel(effect: str) -> str:
    more, less = EFFECTS[effect]
    return f"{effect}: {more} − {less}, by width"


def _each(
    arms: Mapping[str, pd.DataFrame], rows_of: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    return pd.concat([rows_of(t).assign(at=at) for at, t in arms.items()], ignore_index=True)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    places = {name: k for k, name in enumerate(FRAMINGS)}
    by = ["width", "framing"]
    return table.sort_values(by, key=lambda c: c.map(places) if c.name == "framing" else c)


def _spacing(over: pd.DataFrame) -> float:
    """Steps between two evaluations."""
    return float(over.sort_values("step").groupby(["run", "seed"])["step"].diff().median())


def _shown(models: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """A row a width and framing, and what it has more than the framing above it."""
    rows = []
    effect_of = {more: effect for effect, (more, _) in EFFECTS.items()}
    for (width, framing), part in models.groupby(["width", "framing"], sort=False):
        effect = effect_of.get(str(framing), "")
        rows.append({
            "width": width, "framing": framing, "rate": f"{part['learning_rate'].iloc[0]:g}",
            "seen": counts(part, "seen"), "held-out": counts(part, "held_out"),
            "share [95 %]": words(part["held_out"], SHARE), "effect": effect,
            "of [95 %]": words(_values(effects, effect=effect, width=width)),
            "order known": words(part["order_known"], SHARE),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _values(rows: pd.DataFrame, **where: object) -> pd.Series:
    return arm(rows, "value", **where)


def _first_sentence(effects: pd.DataFrame, slopes: pd.DataFrame) -> list[str]:
    """What a doubling of width does, and order and framing at the wider, at the last step."""
    doubled = {f"on {f}": _values(slopes, at=LAST, framing=f) for f in FRAMINGS}
    between = {f"{more} less {less} is": _values(effects, at=LAST, effect=effect, width=WIDE)
               for effect, (more, less) in EFFECTS.items()}  # fmt: skip
    slope = [f"{words(values)} {where}" for where, values in doubled.items() if len(values)]
    worth = [f"{what} {words(values)}" for what, values in between.items() if len(values)]
    if not (slope and worth):
        return []
    return [f"A doubling of width changes the held-out share by {', '.join(slope)}; at width "
            f"{WIDE}, {' and '.join(worth)}."]  # fmt: skip


def _differences(effects: pd.DataFrame, parts: pd.DataFrame, slopes: pd.DataFrame) -> pd.DataFrame:
    """A row a difference, a column a way in which models are compared."""
    divided = f"width {NARROW} less {WIDE}"
    asked = [
        *((f"{effect} at width {width}", effects, {"effect": effect, "width": width})
          for effect in EFFECTS for width in (NARROW, WIDE)),
        (f"{divided} on file", parts, {"part": "on file"}),
        *((f"of that, {part}", parts, {"part": part})
          for part in ("order", "framing", "left on line")),
        *((f"a doubling of width on {f}", slopes, {"framing": f}) for f in FRAMINGS),
    ]  # fmt: skip
    return pd.DataFrame([
        {"difference": what}
        | {at: _counted(_values(rows, at=at, **where)) for at in WAYS}
        for what, rows, where in asked
    ])  # fmt: skip


def _gaps_by_level(gaps: pd.DataFrame) -> pd.DataFrame:
    """How the difference of two widths hangs on how much is known."""
    return pd.DataFrame([
        {"framing": framing}
        | {f"{level:.0%} of seen": _counted(_values(gaps, at=at, framing=framing))
           for at, level in AT_LEVEL.items()}
        for framing in FRAMINGS
    ])  # fmt: skip


def _counted(values: pd.Series) -> str:
    return f"{words(values)} ({len(values)})" if len(values) else ""


def _not_told_apart(parts: pd.DataFrame) -> list[str]:
    whole = over_models(_values(parts, at=LAST, part="on file"))
    if math.isnan(whole.mean) or _direction(whole):
        return []
    return ["The difference on file is itself not told apart from none: its parts divide what may "
            "not be there."]  # fmt: skip


def _direction(whole: Interval) -> int:
    """1 or -1 where the whole interval is above or below 0; else 0, as without an interval."""
    return int(whole.low > 0) - int(whole.high < 0)


def _claims(effects: pd.DataFrame, parts: pd.DataFrame, slopes: pd.DataFrame) -> list[Claim]:
    order, framing, size, more = read_sweep("widths").expected
    said = {"by": "expected before the run", "null": 0.0, "null_is": "no difference",
            "command": COMMAND}  # fmt: skip
    share = "of held-out share"
    of_part = {part: _values(parts, at=LAST, part=part) for part in dict.fromkeys(parts["part"])}
    none = pd.Series(dtype=float)
    rest = of_part.get("order", none) + of_part.get("framing", none)
    return [
        claim_on(_values(effects, at=LAST, effect="order", width=WIDE), says=order, unit=share,
                 **said),
        claim_on(_values(effects, at=LAST, effect="framing", width=WIDE), says=framing, unit=share,
                 **said),
        claim_on(_values(slopes, at=LAST, framing="line"), says=size, above=False,
                 unit=f"{share} for each doubling of width", **said),
        _more_than_left(of_part.get("on file", none), rest - of_part.get("left on line", none),
                        says=more, unit=f"{share}, order and framing less what is left", **said),
    ]  # fmt: skip


def _more_than_left(on_file: pd.Series, more: pd.Series, **said: Any) -> Claim:
    """That more of a difference is order and framing than is left, counted in its direction.

    Undecided where there is no difference on file to be divided.
    """
    direction = _direction(over_models(on_file))
    claim = claim_on(more * (direction or 1), **said)
    if direction or not claim.models:
        return claim
    unknown = Interval(mean=claim.effect.mean, low=math.nan, high=math.nan)
    none = "no difference on file is told apart, so that nothing is divided"
    return replace(claim, effect=unknown, null_is=none)

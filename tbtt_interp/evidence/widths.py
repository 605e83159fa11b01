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
from tbtt_interp.tasks.framing import FRAMINGS
from tbtt_interp.train.sweep import read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COMMAND = "tbtt sweep widths && python analyses/widths.py runs/widths"
CELL = ["width", "framing", "learning_rate"]
EFFECTS = {"order": ("shuffled", "file"), "framing": ("line", "shuffled")}  # more − less
NARROW, WIDE = 14, 56  # small and large, whose difference is divided
FIXED_RATE = 1e-2  # the published one
KNOWN = 0.9  # of the seen equations: known first at this evaluation, models are matched
NEAR = 0.05  # nats above the floor of who knows the lines: so near first, models are matched
LAST, AT_KNOWN = "picked rate, last step", f"picked rate, first knowing {KNOWN:.0%} of seen"
AT_LOSS = f"picked rate, first {NEAR:g} from the floor"
BY_LOSS, AT_FIXED = "rate of lowest loss, last step", f"rate {FIXED_RATE:g}, last step"


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
    on_the_way = at_rates(over, rates, "picked")
    floor = on_the_way["floor_lines"].where(
        on_the_way["framing"] != "line", on_the_way["floor_line"]
    )
    arms = {
        LAST: at_rates(models, rates, "picked"),
        AT_KNOWN: first_evaluations(on_the_way, on_the_way["seen"] >= KNOWN),
        AT_LOSS: first_evaluations(on_the_way, on_the_way["loss"] <= floor + NEAR),
        BY_LOSS: at_rates(models, rates, "lowest"),
        AT_FIXED: models[models["learning_rate"] == FIXED_RATE],
    }
    effects = _each(arms, partial(effect_rows, effects=EFFECTS, each="width", arms="framing"))
    parts = _each(arms, part_rows)
    slopes = _each(arms, slope_rows)
    cells = _each(arms, lambda table: table)
    claims = _claims(effects, parts, slopes)
    return Evidence(
        question="How much of the held-out share is order, framing and size?",
        tables={"widths-models": cells, "widths-rates": rates, "widths-effects": summed(effects),
                "widths-parts": summed(parts), "widths-slopes": summed(slopes)},
        shown=_shown(arms[LAST], effects[effects["at"] == LAST]),
        figures={"widths": partial(held_out_figure, cells),
                 "widths-effects": partial(effects_figure, effects, parts)},
        sentences=_sentences(effects, parts, slopes),
        claims=claims,
        command=COMMAND,
        notes=[
            "Differences of held-out share, mean over models [95 %] and (models). seen and "
            "held-out: right of all, all models together; effect: what a row has more than the "
            "one above.",
            "A learning rate is picked for each width and framing, on all seeds together, by the "
            "share of seen equations right at the last step; ties by the margin of the weakest "
            "seen equation, then by loss. On file the lowest loss can be that of who knows most of "
            "the order; what comes of picking by it is there, too. Held-out equations have no say. "
            "Two framings of one width can have different rates; at "
            f"{FIXED_RATE:g} throughout they cannot.",
            "order: shuffled minus file; framing: line minus shuffled. Differences are paired by "
            "seed: by initialization at one width, by the file's order between widths.",
            f"Matched: each model at the first evaluation at which it knows {KNOWN:.0%} of the "
            f"seen equations, or its loss is {NEAR:g} nats from the floor of who knows the lines "
            "and no order, or less. Models that never get there are left out, pairs with them, and "
            f"evaluations are {_spacing(over):,.0f} steps apart, so that a model can know more. It "
            "matches what is known, not how long or at what rate it was learned.",
            "Measured otherwise: the lowest and highest mean of four ways, which are matched by "
            "what is known, matched by loss, the rate of lowest loss, and one rate for all.",
            f"The difference of width {NARROW} minus {WIDE} on file is, seed by seed and exactly, "
            "that on line plus how much more order, and how much more framing, costs the wider.",
            few_models(claims),
        ],
    )  # fmt: skip


def rates_table(models: pd.DataFrame) -> pd.DataFrame:
    """A row a width, framing and learning rate, at the last step.

    Columns: means over models of `seen`, `margin_seen` and `loss`; `models`; `picked`, the rate
    that learned most of the seen equations; `lowest`, that of the lowest loss.
    """
    of = models.groupby(CELL, sort=False)
    table = of[["seen", "margin_seen", "loss"]].mean().assign(models=of.size()).reset_index()
    best = table.sort_values(["seen", "margin_seen", "loss"], ascending=[False, False, True])
    firsts = {"picked": best, "lowest": table.sort_values("loss")}
    return table.assign(**{
        name: table.index.isin(rows.groupby(CELL[:2]).head(1).index)
        for name, rows in firsts.items()
    })  # fmt: skip


def at_rates(table: pd.DataFrame, rates: pd.DataFrame, which: str) -> pd.DataFrame:
    """The rows of the models at one learning rate a width and framing, "picked" or "lowest"."""
    return table.merge(rates.loc[rates[which], CELL], on=CELL)


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
    """A row a framing and seed: `value`, the slope of held-out share on log2 of width."""
    rows = []
    for (framing, seed), part in models.groupby(["framing", "seed"], sort=False):
        known = part.dropna(subset="held_out")
        if known["width"].nunique() > 1:
            slope = np.polyfit(np.log2(known["width"]), known["held_out"].astype(float), 1)[0]
            # rounded, or the noise of floats would put a slope of 0 on one side of it
            rows.append({"framing": framing, "seed": seed, "value": round(slope, 12),
                         "widths": known["width"].nunique()})  # fmt: skip
    return pd.DataFrame(rows, columns=["framing", "seed", "value", "widths"])


def summed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows a seed as rows a cell: `mean`, `low` and `high` of `value`, and how many `models`."""
    cell = [name for name in rows if name not in ("seed", "value", "widths")]
    table = []
    for key, part in rows.groupby(cell, sort=False):
        found = over_models(part["value"])
        table.append(
            dict(zip(cell, key, strict=True))
            | {"mean": found.mean, "low": found.low, "high": found.high, "models": len(part)}
        )
    return pd.DataFrame(table)


def held_out_figure(cells: pd.DataFrame) -> "Figure":
    """Held-out shares at the last step by width and framing, at the rates that were picked."""
    at_last = cells[~cells["at"].isin([AT_KNOWN, AT_LOSS])]
    return figures.over_models(
        at_last, x="width", by="framing", value="held_out", panel="at",
        titles=("width", "share of held-out equations right"), bounds=(0.0, 1.0),
    )  # fmt: skip


def effects_figure(effects: pd.DataFrame, parts: pd.DataFrame) -> "Figure":
    """What order and framing cost at each width, and how the difference of two widths divides."""
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


def _sentences(effects: pd.DataFrame, parts: pd.DataFrame, slopes: pd.DataFrame) -> list[str]:
    """A line a quantity, at the picked rates' last step and in all other ways it is measured."""
    divided = f"Width {NARROW} minus {WIDE}"
    asked = [
        *((f"{effect.capitalize()} at width {width}", effects, {"effect": effect, "width": width})
          for effect in EFFECTS for width in (NARROW, WIDE)),
        (f"{divided} on file", parts, {"part": "on file"}),
        *((f"{divided}, {part}", parts, {"part": part})
          for part in ("order", "framing", "left on line")),
        *((f"A doubling of width on {framing}", slopes, {"framing": framing})
          for framing in FRAMINGS),
    ]  # fmt: skip
    found = []
    for what, rows, where in asked:
        last = _values(rows, at=LAST, **where)
        ways = [_values(rows, at=at, **where) for at in (AT_KNOWN, AT_LOSS, BY_LOSS, AT_FIXED)]
        means = [way.mean() for way in ways if len(way)]
        otherwise = f"; measured otherwise {min(means):.2f} to {max(means):.2f}" if means else ""
        found += [f"{what}: {words(last)} ({len(last)}){otherwise}."] if len(last) else []
    whole = over_models(_values(parts, at=LAST, part="on file"))
    if not math.isnan(whole.mean) and not _direction(whole):
        found.append("The difference on file is itself not told apart from none: its parts divide "
                     "what may not be there.")  # fmt: skip
    return found


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

"""How much of "too big" is "trained otherwise": three learning rates, and the largest size."""

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.evidence.claims import Claim, Evidence
from tbtt_interp.evidence.effects import (
    SHARE,
    arm,
    check_one_each,
    claim_on,
    counts,
    few_models,
    first_evaluations,
    with_shares,
    words,
)
from tbtt_interp.evidence.published import SOURCE, published
from tbtt_interp.train.sweep import read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COMMAND = (
    "tbtt sweep ladder && tbtt sweep widths && tbtt sweep optimisation && "
    "python analyses/optimisation.py runs/optimisation"
)
SIZES = ("small", "medium", "large", "mlt")
PUBLISHED_RATE = 1e-2  # of the one-layer sizes
KNOWN, ORDER = 0.99, 0.15  # of the seen equations, of the order: known first, sizes are compared


def optimisation_evidence(
    widths: pd.DataFrame, models: pd.DataFrame, over: pd.DataFrame, ladder: pd.DataFrame
) -> Evidence:
    """What the learning rate does on file, and what mlt answers at a rate that trains it.

    Args:
        widths: of the sweep widths, whose cells on file have the rates of the one-layer sizes.
        models, over: of the sweep optimisation, as `sweep_tables` has them.
        ladder: of that sweep, over training: the one-layer sizes when they know as much as mlt.
    Raises:
        TbttError: if a cell has a seed twice.
    """
    for table in (widths, models):
        check_one_each(table, ["task", "framing", "size", "learning_rate"])
    rates = with_shares(widths[(widths["framing"] == "file") & widths["size"].isin(SIZES)])
    rates = rates.sort_values(["width", "learning_rate"], kind="stable")
    mlt, over = with_shares(models), with_shares(over)
    both = pd.concat([rates, mlt], ignore_index=True)
    picked = lowest_loss(rates)
    matched = matched_rows(with_shares(ladder), over)
    claims = [*_claims(rates, picked, mlt), *_matched_claims(matched)]
    return Evidence(
        question='How much of "too big" is "trained otherwise"?',
        tables={"optimisation-models": both, "optimisation-rates": picked,
                "optimisation-matched": matched},
        shown=_shown(both, picked),
        figures={"optimisation": partial(rates_figure, both),
                 "optimisation-mlt": partial(mlt_figure, over)},
        further={"Held-out right when models first know so much": _matched_shown(matched)}
        if len(matched) else {},
        sentences=[*_first_sentence(both, matched), *_sentences(mlt, over)],
        claims=claims,
        command=COMMAND,
        notes=[
            "seen and held-out: right of all, all models together; share: mean over models; "
            "order: the share of the file's order that a loss can only have from knowing it. "
            "lowest: the rate of a size with the lowest mean loss. On file a low loss takes the "
            "order, too, so the lowest is not the best taught of the equations alone.",
            f"paper: {SOURCE}: at a peak rate of 1e-2, for mlt 1e-5. Ours of mlt differs in steps, "
            "batch and dropout as well as in rate: it can say that size alone does not decide, "
            "and not which of these does.",
            "On arithmetic mlt ends when it has learned the seen equations and little of the "
            "order; what longer training would make of it is not known. So the ladder's sizes are "
            f"set beside it, each model at the first evaluation at which it knows {KNOWN:.0%} of "
            f"the seen equations, and at the first at which it knows {ORDER:g} of the order; who "
            "never does is left out. That was thought of after mlt's answers had been seen.",
            few_models(claims),
        ],
    )  # fmt: skip


def lowest_loss(rates: pd.DataFrame) -> pd.DataFrame:
    """A row a size and learning rate: mean `loss` at the last step, and the `lowest` of a size."""
    table = rates.groupby(["size", "learning_rate"], sort=False)["loss"].mean().reset_index()
    best = table.groupby("size")["loss"].idxmin()
    return table.assign(lowest=table.index.isin(best))


def matched_rows(ladder: pd.DataFrame, mlt: pd.DataFrame) -> pd.DataFrame:
    """Each model on arithmetic when it first knows so much of the seen, and so much of the order.

    Args:
        ladder, mlt: evaluations over training; of framings that mlt has.
    Returns:
        a row a model and `what` it knows, "seen equations" or "order", with `of`, how many models
        of its size and framing there are.
    """
    every = pd.concat([t[t["task"] == "arithmetic"] for t in (ladder, mlt)], ignore_index=True)
    of_mlt = every.loc[every["size"] == "mlt", "framing"]
    every = every[every["framing"].isin(of_mlt)].sort_values(
        ["framing", "width"], kind="stable", ignore_index=True
    )
    check_one_each(every, ["framing", "size", "step"])
    every = every.assign(of=every.groupby(["framing", "size"])["seed"].transform("nunique"))
    parts = {"seen equations": every["seen"] >= KNOWN, "order": every["order_known"] >= ORDER}
    return pd.concat(
        [first_evaluations(every, there).assign(what=what) for what, there in parts.items()]
    )


def rates_figure(both: pd.DataFrame) -> "Figure":
    """Held-out shares on arithmetic by size and learning rate, beside the paper's."""
    table = both[both["task"] == "arithmetic"]
    on_file = table["framing"] == "file"
    series = (
        "rate "
        + table["learning_rate"].map("{:g}".format)
        + (", " + table["framing"]).where(~on_file, "")
    )
    return figures.over_models(
        table.assign(series=series), x="size", by="series", value="held_out", bounds=(0.0, 1.0),
        titles=("", "share of held-out equations right"),
        marks={"the paper, at its own rate": published("arithmetic", "held_out")},
    )  # fmt: skip


def mlt_figure(over: pd.DataFrame) -> "Figure":
    """Answers, loss and order of mlt over training, by task and framing."""
    return figures.curves_over_training(over, panel="task")


def _shown(both: pd.DataFrame, picked: pd.DataFrame) -> pd.DataFrame:
    lowest = set(picked.loc[picked["lowest"], ["size", "learning_rate"]].itertuples(index=False))
    rows = []
    for cell, part in both.groupby(["task", "framing", "size", "learning_rate"], sort=False):
        task, framing, size, rate = cell
        is_theirs = size == "mlt" or rate == PUBLISHED_RATE
        first = "lowest" if (size, rate) in lowest and size != "mlt" else ""
        rows.append({
            "task": task, "framing": framing, "size": size, "rate": f"{rate:g} {first}".strip(),
            "seen": counts(part, "seen"), "held-out": counts(part, "held_out"),
            "each": _each_model(part), "share [95 %]": words(part["held_out"], SHARE),
            "order": words(part["order_known"], SHARE), "loss": f"{part['loss'].mean():.3f}",
            "paper": _paper(str(task), str(size)) if framing == "file" and is_theirs else "",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _each_model(part: pd.DataFrame) -> str:
    known = part.sort_values("seed")["held_out_right"].dropna()
    return " ".join(f"{right:.0f}" for right in known)


def _paper(task: str, size: str) -> str:
    if task == "facts":
        return f"{published(task, 'facts')[size]:.1%} facts"
    return f"{4 * published(task, 'held_out')[size]:.0f}/4"


def _first_sentence(both: pd.DataFrame, matched: pd.DataFrame) -> list[str]:
    """Large beside mlt, on file: at mlt's rate, and when both know as much."""
    on_file = both[(both["task"] == "arithmetic") & (both["framing"] == "file")]
    rate = on_file.loc[on_file["size"] == "mlt", "learning_rate"].min()
    known = matched[(matched["framing"] == "file") & (matched["what"] == "seen equations")]
    told = []
    for table in (on_file[on_file["learning_rate"] == rate], known):
        parts = {size: table[table["size"] == size] for size in ("large", "mlt")}
        if any(part.empty for part in parts.values()):
            return []
        told.append(" and ".join(f"{size} {counts(p, 'held_out')}" for size, p in parts.items()))
    return [f"On file, at a rate of {rate:g}, held-out equations are answered by {told[0]}; when "
            f"each first knows {KNOWN:.0%} of the seen equations, by {told[1]}, large at the "
            f"published rate of {PUBLISHED_RATE:g}."]  # fmt: skip


def _sentences(mlt: pd.DataFrame, over: pd.DataFrame) -> list[str]:
    found = []
    asked = mlt.dropna(subset="held_out")
    for (task, framing), part in asked.groupby(["task", "framing"], sort=False):
        mine = over[(over["task"] == task) & (over["framing"] == framing)]
        most = mine.groupby("seed")["held_out_right"].max()
        found.append(
            f"mlt on {task}, {framing}, at {part['learning_rate'].iloc[0]:g}: held-out right at "
            f"the last step, model by model, {_each_model(part)}; at their best evaluation "
            f"{' '.join(f'{x:.0f}' for x in most)}; in the end {_knowing(part)} known."
        )
    return found


def _matched_shown(matched: pd.DataFrame) -> pd.DataFrame:
    levels = {"seen equations": f"{KNOWN:.0%} of seen", "order": f"{ORDER:g} of order"}
    return pd.DataFrame([
        {
            "first knowing": levels[str(what)], "framing": framing, "size": size,
            "held-out": counts(part, "held_out"), "models": f"{len(part)} of {part['of'].iloc[0]}",
            "then knowing": _knowing(part),
        }
        for (what, framing, size), part in matched.groupby(["what", "framing", "size"], sort=False)
    ])  # fmt: skip


def _knowing(part: pd.DataFrame) -> str:
    """What models know, on average, at the evaluations that they are compared at."""
    order = part["order_known"].mean()
    seen = f"{part['seen'].mean():.2f} of the seen"
    return seen if math.isnan(order) else f"{seen}, {order:.2f} of the order"


def _matched_claims(matched: pd.DataFrame) -> list[Claim]:
    claims = []
    known = matched[matched["what"] == "seen equations"]
    for framing in dict.fromkeys(known["framing"]):
        large, mlt = (arm(known, framing=framing, size=size) for size in ("large", "mlt"))
        if len(large) and len(mlt):
            claims.append(claim_on(
                large, SHARE, by="explored", null=float(mlt.min()), above=False,
                says=f"On {framing}, when both first know {KNOWN:.0%} of the seen, large answers "
                "less of the held-out than mlt.", null_is="the mlt that answers fewest",
                unit="of the held-out", command=COMMAND,
            ))  # fmt: skip
    return claims


def _claims(rates: pd.DataFrame, picked: pd.DataFrame, mlt: pd.DataFrame) -> list[Claim]:
    rate, every, shuffled = read_sweep("optimisation").expected
    said: dict[str, Any] = {"by": "expected before the run", "command": COMMAND}
    best = picked.loc[picked["lowest"] & (picked["size"] == "large"), "learning_rate"]
    at_best, published_rate = (
        arm(rates, size="large", learning_rate=r)
        for r in (best.iloc[0] if len(best) else None, PUBLISHED_RATE)
    )
    on = {f: arm(mlt, task="arithmetic", size="mlt", framing=f) for f in ("file", "shuffled")}
    lowest = f"the rate of lowest loss is {best.iloc[0]:g}" if len(best) else "no rate is there"
    return [
        claim_on(at_best - published_rate, says=rate, unit="more of the held-out", null=0.0,
                 null_is=f"{lowest}; no difference", **said),
        claim_on((on["file"] > 0).astype(float), says=every, unit="of models", null=1.0,
                 null_is="every one", or_equal=True, **said),
        claim_on(on["shuffled"] - on["file"], says=shuffled, unit="more of the held-out",
                 null=0.0, null_is="no difference", or_equal=True, **said),
    ]  # fmt: skip

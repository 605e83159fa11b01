# %% [markdown]
# # What do small, medium and large answer, on every task and framing?
# The published ladder, every size with many seeds, on three framings of the same lines: file (the
# paper's), shuffled (no order to memorize) and line (one line per window). Measures: seen and
# held-out answers at the last step, with counts and intervals over models, beside the paper's and
# two baselines'. The expectations stand in train/sweeps/ladder.toml.

# %%
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from plotly.graph_objects import Figure
from sweeps import (
    OF_A_LADDER,
    SHIPPED,
    answer_as_script,
    by_seed,
    check_one_each,
    claim_over_models,
    counts_by_model,
    counts_text,
    interval_note,
    mean_text,
    select,
    share_text,
)

from tbtt_interp import plots
from tbtt_interp.baselines import baseline_counts
from tbtt_interp.model_tables import plot_over_training, with_accuracies
from tbtt_interp.results import Claim, Result, all_of
from tbtt_interp.shares import difference_of_shares, share_over_models
from tbtt_interp.stats import SHARE, summarize
from tbtt_interp.tasks import load_task
from tbtt_interp.tasks.windows import FRAMINGS
from tbtt_interp.train.sweep import read_sweep

READS = [("ladder", table) for table in OF_A_LADDER]
SIZES, TASKS = ("small", "medium", "large"), ("arithmetic", "facts", "joint")
CELL = ["task", "framing", "size"]
DIFFERENCE: dict[str, Any] = {"unit": "of held-out accuracy", "null_name": "no difference"}
PUBLISHED = pd.read_csv(SHIPPED / "published.csv").set_index(["task", "size"])
NOTES = (
    "A row is the models of one cell at their last step. equations, facts: right of all seen, all "
    "models together. know all: models that answer all of it; the rest: answers of each other one. "
    "held-out: right equations of operands 5 and 7, also as sums and differences. accuracy: mean "
    "over models. of those: held-out answers of the models that know all, where not all do.",
    "margin: logits between the right token and the best wrong one at a model's weakest held-out "
    "equation, mean over models. late: evaluations in the last sixth of training at which a model "
    "answers every held-out equation. order: the share of the file's order that the loss shows, a "
    "lower bound.",
    "Over the first steps, which all framings train, accuracy is the mean over training. line "
    "minus shuffled is framing, and with it batches of fewer characters and a learning rate that "
    "has come down by then.",
    "paper, and loss in brackets: Barron and White, arXiv 2506.09099v2: one model, its best "
    "checkpoint by a score that counts held-out equations, too; after 30,000 steps on every task. "
    "Ours of facts and joint have fewer steps. Its largest size, mlt, is not in this sweep. The "
    "half that claims are compared with is this page's threshold for what the paper says of one "
    "model.",
)


# %%
def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Tasks, framings and sizes from the plain to the large."""
    places = {name: k for k, name in enumerate((*TASKS, *FRAMINGS, *SIZES))}
    return table.sort_values(CELL, key=lambda names: names.map(places), kind="stable")


def early(over: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Each arithmetic model's mean held-out accuracy over the steps that all framings train.

    Evaluations are not evenly spaced: the accuracy is taken as linear between them.
    """
    models = select(over, task="arithmetic")
    last = models.groupby("framing")["step"].max().min()
    rows = [
        dict(zip(("framing", "size", "seed"), key, strict=True))
        | {"held_out_accuracy": np.trapezoid(course["held_out_accuracy"], course["step"])
           / np.ptp(course["step"])}
        for key, course in models[models["step"] <= last].groupby(["framing", "size", "seed"])
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["framing", "size", "seed", "held_out_accuracy"]), float(last)


def display_rows(models: pd.DataFrame, equations: pd.DataFrame) -> pd.DataFrame:
    """One printed row per cell."""
    rows, text = [], counts_text
    for (task, framing, size), cell in models.groupby(CELL, sort=False):
        seen = cell.filter(regex="^seen_(addition|subtraction)_")
        both = pd.DataFrame({f"seen_{s}": seen.filter(like=s).sum(axis=1) for s in ("right", "of")})
        asked = select(equations, task=task, framing=framing, size=size)
        right = {sign: asked.loc[asked["operator"] == sign, "right"] for sign in "+-"}
        sums, differences = (f"{r.sum()}/{len(r)}" if len(r) else "" for r in right.values())
        knowing, rest = (cell[cell["knows_all"] == known] for known in (1, 0))
        some = 0 < len(knowing) < len(cell)
        margin, loss = cell["margin_held_out"].mean(), f"{cell['loss'].mean():.3f}"
        paper = PUBLISHED.reindex([(task, size)]).iloc[0]
        answers = (
            f"{paper['facts']:.1%} facts" if task == "facts" else f"{4 * paper['held_out']:.0f}/4"
        )
        rows.append({
            "task": task, "framing": framing, "size": size, "steps": f"{cell['steps'].max():,.0f}",
            "equations": text(both, "seen"), "facts": text(cell, "seen_facts"),
            "know all": f"{len(knowing)}/{len(cell)}",
            "the rest": " ".join(rest["seen_right"].map("{:.0f}".format)) if some else "",
            "held-out": text(cell, "held_out"),
            "accuracy [95 %]": share_text(counts_by_model(cell)),
            "sums": sums, "differences": differences,
            "of those": text(knowing, "held_out") if some else "",
            "paper": answers if framing == "file" else "", "late": text(cell, "late_held_out"),
            "margin": "" if np.isnan(margin) else f"{margin:+.1f}",
            "order": mean_text(cell["order_known"], SHARE),
            "loss": f"{loss} ({paper['loss']:.3f})" if framing == "file" else loss,
        })  # fmt: skip
    return pd.DataFrame(rows)


def framings_table(models: pd.DataFrame, over: pd.DataFrame) -> pd.DataFrame:
    """What framings do to arithmetic's held-out accuracy, in printed words, one row per size."""
    means, last = early(over)
    at_end = select(models, task="arithmetic")
    then = select(over, task="arithmetic", step=last)
    rows = []
    for size in (size for size in SIZES if size in set(means["size"])):
        row = {"size": size}
        for framing in (framing for framing in FRAMINGS if framing in set(means["framing"])):
            values = by_seed(means, size=size, framing=framing)
            row[f"{framing}, first {last:,.0f} steps"] = mean_text(values, SHARE)
        for when, table, more, less in (
            ("last step", at_end, "shuffled", "file"),
            (f"step {last:,.0f}", then, "line", "shuffled"),
        ):
            counts = (counts_by_model(table, size=size, framing=name) for name in (less, more))
            found = difference_of_shares(*counts)
            row[f"{more} - {less}, {when}"] = found.format() if found.n else ""
        rows.append(row)
    return pd.DataFrame(rows)


def ladder_claims(models: pd.DataFrame, over: pd.DataFrame, baseline: float) -> list[Claim]:
    """What was expected before the run, what the paper says of its models, and what we explored."""

    def on(sizes: Sequence[str], text: str, group: str = "held_out", **also: Any) -> Claim:
        where = {name: also.pop(name, default) for name, default in
                 (("task", "arithmetic"), ("framing", "file"))}  # fmt: skip
        unit = also.pop("unit", "of the held-out")
        words: dict[str, Any] = {"null": 0.5, "null_name": "a half"}
        words |= also
        return all_of([
            Claim(text=text, unit=f"{unit}, {size}", **words, effect=share_over_models(
                counts_by_model(models, group, size=size, **where)))
            for size in sizes
        ])  # fmt: skip

    def difference(more: dict[str, str], less: dict[str, str], **also: Any) -> Claim:
        counts = (counts_by_model(models, task="arithmetic", **where) for where in (less, more))
        return Claim(effect=difference_of_shares(*counts), null=0.0, **DIFFERENCE, **also)

    order, size, rule, known, joint = read_sweep("ladder").expected
    before, paper = {"origin": "expected before the run"}, {"origin": "the paper"}
    facts = {"group": "seen", "task": "facts", "unit": "of the facts"}
    few = facts | {"direction": "below"}
    most = {"group": "knows_all", "unit": "of models", "null_name": "half of the models"}
    every = most | {"task": "facts"}
    cell = select(models, task="facts", framing="file")
    steps = " to ".join(f"{n:,.0f}" for n in sorted(set(cell["steps"])))
    large, small = ({"size": s, "framing": "file"} for s in ("large", "small"))
    claims = [
        difference(large | {"framing": "shuffled"}, large, text=order, **before),
        difference(small, large, text=size, **before),
        on(SIZES, rule, framing="line", null=max(0.5, baseline), or_equal=True,
           null_name=f"a half; the better baseline has {baseline:.2f}", **before),
        all_of([on(["small"], known, **few, **before), on(SIZES[1:], known, **every, **before)]),
        on(SIZES, joint, task="joint", null=0.25, null_name="one of four", direction="below",
           or_equal=True, **before),
        on(["small"], "On the file, small answers most of the held-out equations (the paper: all "
           "4).", **paper),
        *(on([s], f"On the file, {s} answers fewer than half of the held-out equations (the paper: "
             "none of its 4).", direction="below", **paper) for s in SIZES[1:]),
        on(SIZES, "On the file, most models of every size answer all equations that they have "
           "seen.", **most, **paper),
        on(["small"], f"On the file, small knows fewer than half of the facts, here after {steps} "
           "steps (the paper: 8 % after 30,000).", **few, **paper),
        on(SIZES[1:], f"On the file, most medium and large models know all facts, here after "
           f"{steps} steps (the paper: after 30,000).", **every, **paper),
        on(SIZES, "On the file of both tasks, no size answers half of the held-out equations.",
           task="joint", direction="below", **paper),
        on(["small"], "On whole lines, small knows most of the facts.", framing="line", **facts),
    ]  # fmt: skip
    means, last = early(over)
    for words, more, less in (
        ("without an order to learn (shuffled) {} answers more than on the file", "shuffled",
         "file"),
        ("on whole lines {} answers more than on shuffled windows", "line", "shuffled"),
    ):  # fmt: skip
        claims += [
            claim_over_models(
                by_seed(means, size=s, framing=more) - by_seed(means, size=s, framing=less),
                text=f"Over the first {last:,.0f} steps, {words.format(s)}.", null=0.0,
                **DIFFERENCE,
            )
            for s in SIZES
        ]  # fmt: skip
    return [claim for claim in claims if claim.effect.n or claim.origin != "explored"]


def shares_table(models: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: what its models answer and whether they know all, with intervals."""
    rows = []
    for key, cell in models.groupby(CELL, sort=False):
        row = dict(zip(CELL, key, strict=True))
        for name, group in (("held_out_accuracy", "held_out"), ("seen_accuracy", "seen"),
                            ("knows_all", "knows_all")):  # fmt: skip
            share = share_over_models(counts_by_model(cell, group))
            row |= {name: share.mean, f"{name}_low": share.low, f"{name}_high": share.high}
        rows.append(row)
    return pd.DataFrame(rows)


def plot_held_out(models: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Held-out accuracy on arithmetic by size and framing, with the paper's and the baselines'."""
    levels = select(baselines, group="held_out").set_index("baseline")["share"]
    table = select(models, task="arithmetic")
    figure = plots.models_by_group(
        table, x="size", by="framing", value="held_out_accuracy", bounds=SHARE, levels=dict(levels),
        titles=("", "held-out accuracy"),
    )  # fmt: skip
    sizes = [s for s in dict.fromkeys(table["size"]) if s in SIZES]
    return figure.add_scatter(
        x=list(range(len(sizes))), y=[PUBLISHED.loc[("arithmetic", s), "held_out"] for s in sizes],
        mode="markers", name="the paper, one model, file",
        marker={"symbol": "diamond-open", "size": 12, "color": plots.BLACK},
    )  # fmt: skip


def ladder_result(models: pd.DataFrame, over: pd.DataFrame, equations: pd.DataFrame) -> Result:
    """What each size answers, knows of the order and forgets, and the claims about it."""
    check_one_each(models, CELL)
    models, over = in_order(with_accuracies(models)), in_order(with_accuracies(over))
    baselines = baseline_counts(load_task("arithmetic"))
    baselines = baselines.assign(share=baselines["right"] / baselines["of"])
    best = select(baselines, group="held_out")["share"].max()
    claims = ladder_claims(models, over, best)
    others = summarize(models, CELL, ["margin_held_out", "margin_seen", "loss"])
    known = summarize(models, CELL, ["order_known"], bounds=SHARE).drop(columns="n_models")
    table = shares_table(models).merge(known, on=CELL).merge(others, on=CELL)
    plot_curves, drawn = plot_over_training, dict.fromkeys(models["task"])
    return Result(
        name="ladder", claims=claims, notes=[*NOTES, interval_note(claims)],
        question="What do small, medium and large answer, on every task and framing?",
        tables={"ladder": table, "baselines": baselines},
        display=display_rows(models, in_order(equations)),
        command="tbtt sweep ladder && python analyses/ladder.py runs/ladder",
        more_displays={"Held-out accuracy on arithmetic, by framing": framings_table(models, over)},
        figures={"ladder": partial(plot_held_out, models, baselines)} | {
            f"ladder-{t}": partial(plot_curves, select(over, task=t)) for t in drawn},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(ladder_result, READS, "ladder-arithmetic")

"""What the models of these runs answer, and how they came to it."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.analyses.findings import Tell, silent
from tbtt_interp.evidence.answers import answers_table
from tbtt_interp.evidence.claims import Claim, Evidence
from tbtt_interp.evidence.effects import SHARE, with_shares
from tbtt_interp.evidence.models import over_training_table
from tbtt_interp.report.arms import (
    arms_of,
    arms_sentence,
    contrast_sentence,
    contrasts,
    means_of,
    over_arms,
    size_claims,
)
from tbtt_interp.runs import Run
from tbtt_interp.stats import Interval

SIDES = {"seen": "seen, share right", "held_out_share": "held out, share right",
         "order_known": "order known, share, from the loss"}  # fmt: skip


def answers_evidence(
    runs: Sequence[Run], *, command: str = "tbtt report", tell: Tell = silent
) -> Evidence:
    """What models answer of what they have seen and of what was held out, at their last step."""
    table, left_out = over_arms(runs, lambda arm: answers_table(arm.run), tell)
    sentences: list[str] = []
    claims: list[Claim] = []
    drawn = {}
    for task, some in table.groupby("task", sort=False):
        parts = [
            some.assign(value=some[side], panel=words)
            for side, words in SIDES.items()
            if side in some and some[side].notna().any()
        ]
        seeds = pd.concat(parts, ignore_index=True)
        means = means_of(seeds, ["panel"], bounds=SHARE)
        drawn[f"answers of {task}"] = partial(
            figures.by_size, means, seeds, title="share", nulls={}
        )
        away = seeds[seeds["panel"] == SIDES["held_out_share"]]
        if away.empty:
            continue
        found = contrasts(away)
        away = means[means["panel"] == SIDES["held_out_share"]]
        sentences.append(
            contrast_sentence(
                f"On {{framing}}, {{wide}} models answer {{amount}} of held-out {task} than "
                "{narrow} ones",
                found, arms_sentence(f"Held-out {task} answered", away),
            )
        )  # fmt: skip
        claims += size_claims(
            f"Of {task} on {{framing}}, {{wide}} models answer less of what was held out than "
            "{narrow} ones.",
            found, unit="of held-out equations", command=command, above=False,
        )  # fmt: skip
    return Evidence(
        question="What do these models answer?",
        tables={"answers": table},
        shown=pd.DataFrame([_row(part) for _, part in table.groupby("label", sort=False)]),
        figures=drawn | _curves(runs),
        sentences=sentences,
        claims=claims,
        notes=[
            "All models of a run together, at the last step of training, decoded greedily; share: "
            "the mean over models. Margin: logits between the right character and the best wrong "
            "one at a model's weakest held-out example, mean over models. Order: the share of the "
            "file's order that a loss can only have from knowing it, a lower bound. Late: "
            "evaluations in the last sixth of training with all held-out examples right.",
            *left_out,
        ],
        command=command,
    )  # fmt: skip


def _row(part: pd.DataFrame) -> dict[str, object]:
    """One run, as it is read."""

    def counts(side: str) -> str:
        of = part.get(f"{side}_of", pd.Series(dtype=float)).sum()
        return f"{part[f'{side}_right'].sum():.0f}/{of:.0f}" if of else ""

    def mean(name: str, digits: int = 2) -> str:
        return (
            f"{part[name].mean():.{digits}f}" if name in part and part[name].notna().any() else ""
        )

    share = ""
    if counts("held_out"):
        found = means_of(part.assign(value=part["held_out_share"]), bounds=SHARE).iloc[0]
        share = Interval(mean=found["value"], low=found["low"], high=found["high"]).format()
    first = part.iloc[0]
    return {
        "task": first["task"], "framing": first["framing"], "size": first["size"],
        "models": len(part), "steps": first["steps"], "seen right": counts("seen"),
        "held-out right": counts("held_out"), "share [95 %]": share,
        "margin": mean("margin_held_out", 1), "late": counts("late_held_out"),
        "loss": mean("loss", 3), "order": mean("order_known"),
    }  # fmt: skip


def _curves(runs: Sequence[Run]) -> dict:
    """Answers, loss and order over training, a figure a task, of runs that were trained here."""
    trained = [arm.run for arm in arms_of(runs) if arm.run.config.recipe is not None]
    if not trained:
        return {}
    table = with_shares(over_training_table(trained))
    return {f"training on {task}": partial(figures.curves_over_training, some)
            for task, some in table.groupby("task", sort=False)}  # fmt: skip

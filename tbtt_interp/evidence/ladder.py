"""The ladder: what small, medium and large answer on every task and framing, beside the paper."""

import math
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.baselines import baseline_counts
from tbtt_interp.errors import listed
from tbtt_interp.evidence.claims import Claim, Evidence
from tbtt_interp.evidence.differences import difference_over_seeds
from tbtt_interp.evidence.effects import (
    arm,
    check_one_each,
    claim_on,
    counts,
    few_models,
    over_models,
    weakest,
    with_shares,
    words,
)
from tbtt_interp.evidence.published import (
    SOURCE,
    published,
    published_share,
    published_table,
)
from tbtt_interp.tasks import load_task
from tbtt_interp.tasks.framing import FRAMINGS
from tbtt_interp.train.sweep import read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COMMAND = "tbtt sweep ladder && python analyses/ladder.py runs/ladder"
SIZES = ("small", "medium", "large")
TASKS = ("arithmetic", "facts", "joint")
ARMS = {
    "Taking the order away and keeping the windows (shuffled less file)": ("file", "shuffled"),
    "Whole lines in place of such windows (line less shuffled)": ("shuffled", "line"),
}
CELL = ["task", "framing", "size"]
GROUPS = {"held_out": "held_out", "seen": None, "seen_addition": "addition",
          "seen_subtraction": "subtraction", "seen_facts": "facts"}  # fmt: skip


def ladder_evidence(models: pd.DataFrame, over: pd.DataFrame) -> Evidence:
    """What each size answers, knows of the order and loses, and the claims made of that.

    Args:
        models, over: of the sweep ladder, as `sweep_tables` has them.
    Raises:
        TbttError: if a cell has a seed twice.
    """
    check_one_each(models, CELL)
    models, over = _in_order(with_shares(models)), _in_order(with_shares(over))
    tasks = [task for task in TASKS if task in set(models["task"])]
    curves = {
        f"ladder-{task}": partial(figures.curves_over_training, over[over["task"] == task])
        for task in tasks
    }
    claims = [*_expected(models), *_of_the_paper(models)]
    return Evidence(
        question="What do small, medium and large answer, on every task and framing?",
        tables={"ladder": ladder_table(models), "ladder-groups": groups_table(models),
                "published": published_table(), "baselines": baselines_table()},
        shown=_shown(models),
        figures={"ladder": partial(held_out_figure, models)} | curves,
        sentences=_sentences(models),
        claims=claims,
        command=COMMAND,
        notes=[
            "A row is the models of one cell at their last step. equations, facts: right of all "
            "that they have seen, all models together; know all: models that answer all of it. "
            "held-out: right of the equations of operands 5 and 7; share: its mean over models.",
            "margin: logits between the right character and the best wrong one at a model's "
            "weakest held-out equation, mean over models. late: evaluations in the last sixth of "
            "training at which a model answers every held-out equation. order: the share of the "
            "file's order that a loss can only have from knowing it, a lower bound.",
            f"paper: {SOURCE}: one model, its best checkpoint by a score that counts held-out "
            "equations, too. Ours are all models at the last step.",
            few_models(claims),
        ],
    )  # fmt: skip


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Tasks, framings and sizes from the plain to the large."""
    places = {name: k for k, name in enumerate((*TASKS, *FRAMINGS, *SIZES))}
    return table.sort_values(CELL, key=lambda names: names.map(places), kind="stable")


def ladder_table(models: pd.DataFrame) -> pd.DataFrame:
    """A row a task, framing and size: means over models at the last step, with intervals.

    Columns: `models`; of `held_out`, `seen` and `knows_all` (shares), `margin_held_out` and
    `margin_seen` (logits), `loss` (nats a character) and `order_known` (share) the mean, and
    `X_low` and `X_high`; `floor_order`, `floor_lines`, `floor_line`; `late_held_out_right` and
    `late_held_out_of`, `late_seen_right` and `late_seen_of`, summed.
    """
    rows = []
    for cell, part in models.groupby(CELL, sort=False):
        row = dict(zip(CELL, cell, strict=True)) | {"models": len(part)}
        for name in ("held_out", "seen", "knows_all", "margin_held_out", "margin_seen", "loss",
                     "order_known"):  # fmt: skip
            found = over_models(part[name]) if name in part else over_models(pd.Series(dtype=float))
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        late = [name for name in part if str(name).startswith("late_")]
        floors = [name for name in part if str(name).startswith("floor_")]
        rows.append(row | part[floors].mean().to_dict() | part[late].sum().to_dict())
    return pd.DataFrame(rows)


def groups_table(models: pd.DataFrame) -> pd.DataFrame:
    """A row a task, framing, size and group of questions, beside what the paper reports.

    Columns: `group`; `models`; `right`, `of`, all models together; `share`, the mean over models,
    `low`, `high`; `published`, the paper's share, on framing file alone, without the held-out
    equations that it counts among those of an operator.
    """
    rows = []
    for cell, part in models.groupby(CELL, sort=False):
        task, framing, size = map(str, cell)
        for group, measure in GROUPS.items():
            if f"{group}_of" not in part or not part[f"{group}_of"].sum() > 0:
                continue
            right, of = part[f"{group}_right"], part[f"{group}_of"]
            share = over_models(right / of)
            rows.append({
                "task": task, "framing": framing, "size": size, "group": group,
                "models": len(part), "right": right.sum(), "of": of.sum(), "share": share.mean,
                "low": share.low, "high": share.high,
                "published": published_share(task, size, measure)
                if measure and framing == "file" else math.nan,
            })  # fmt: skip
    return pd.DataFrame(rows)


def baselines_table() -> pd.DataFrame:
    """What the two baselines answer of arithmetic: baseline, group, right, of and share."""
    table = baseline_counts(load_task("arithmetic"))
    return table.assign(share=table["right"] / table["of"])


def held_out_figure(models: pd.DataFrame) -> "Figure":
    """Held-out shares of arithmetic by size and framing, with the paper's and the baselines'."""
    base = baselines_table()
    base = base[base["group"] == "held_out"].groupby("share")["baseline"].agg(" and ".join)
    return figures.over_models(
        models[models["task"] == "arithmetic"], x="size", by="framing", value="held_out",
        titles=("", "share of held-out equations right"), bounds=(0.0, 1.0),
        marks={"the paper, one model, file": published("arithmetic", "held_out")},
        levels={names: level for level, names in zip(base.index, base, strict=True)},
    )  # fmt: skip


def _shown(models: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for cell, part in models.groupby(CELL, sort=False):
        task, framing, size = map(str, cell)
        seen = part.assign(
            equations_right=part.filter(["seen_addition_right", "seen_subtraction_right"]).sum(
                axis=1
            ),
            equations_of=part.filter(["seen_addition_of", "seen_subtraction_of"]).sum(axis=1),
        )
        rows.append({
            "task": task, "framing": framing, "size": size,
            "equations": counts(seen, "equations"), "facts": counts(part, "seen_facts"),
            "know all": f"{part['knows_all'].sum():.0f}/{len(part)}",
            "held-out": counts(part, "held_out"), "share [95 %]": words(part["held_out"]),
            "paper": _paper(task, size) if framing == "file" else "",
            "late": counts(part, "late_held_out"),
            "margin": f"{part['margin_held_out'].mean():+.1f}".replace("+nan", "")
            if "margin_held_out" in part else "",
            "order": words(part["order_known"]), "loss": f"{part['loss'].mean():.3f}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _paper(task: str, size: str) -> str:
    if task == "facts":
        return f"{published(task, 'facts')[size]:.1%} facts"
    return f"{4 * published(task, 'held_out')[size]:.0f}/4"


def _sentences(models: pd.DataFrame) -> list[str]:
    shares = {
        framing: [
            f"{size} {words(values)}"
            for size in SIZES
            if len(values := arm(models, task="arithmetic", framing=framing, size=size))
        ]
        for framing in FRAMINGS
    }
    by_framing = [f"on {framing}, {', '.join(said)}" for framing, said in shares.items() if said]
    found = [f"Held-out share on arithmetic: {'; '.join(by_framing)}."] if by_framing else []
    known = [
        f"{size} {words(values)}"
        for size in SIZES
        if len(values := arm(models, "order_known", task="arithmetic", framing="file", size=size))
    ]
    if known:
        found.append(f"Of the file's order, arithmetic models know at least: {', '.join(known)}.")
    return found + [
        f"{says} changes the held-out share of {', of '.join(changes)}; after "
        f"{_steps(models, framings[0])} and {_steps(models, framings[1])} steps."
        for says, framings in ARMS.items()
        if (changes := _changes(models, *framings))
    ]


def _steps(models: pd.DataFrame, framing: str) -> str:
    """Of arithmetic, in words."""
    is_arm = (models["task"] == "arithmetic") & (models["framing"] == framing)
    return listed((f"{n:,}" for n in sorted(set(models.loc[is_arm, "steps"]))), "to")


def _changes(models: pd.DataFrame, before: str, after: str) -> list[str]:
    """What another framing does to each size's held-out share, by seed."""
    found = []
    for size in SIZES:
        arms = [arm(models, task="arithmetic", framing=f, size=size) for f in (before, after)]
        if all(len(values) for values in arms):
            by = difference_over_seeds(*arms).interval
            found.append(f"{size} by {by.mean:+.2f} [{by.low:+.2f}, {by.high:+.2f}]")
    return found


def _expected(models: pd.DataFrame) -> list[Claim]:
    order, size, rule, facts, joint = read_sweep("ladder").expected
    said = {"by": "expected before the run", "command": COMMAND}
    file, shuffled = (
        {name: arm(models, task="arithmetic", framing=framing, size=name) for name in SIZES}
        for framing in ("file", "shuffled")
    )
    base = baselines_table()
    base = base[base["group"] == "held_out"]["share"].max()
    return [
        claim_on(shuffled["large"] - file["large"], says=order, unit="more of the held-out",
                 null=0.0, null_is="no difference", **said),
        claim_on(file["small"] - file["large"], says=size, unit="more of the held-out", null=0.0,
                 null_is="no difference", **said),
        weakest([
            claim_on(arm(models, task="arithmetic", framing="line", size=name), says=rule,
                     unit=f"of the held-out, {name}", null=max(0.5, base), or_equal=True,
                     null_is=f"a half; the better baseline has {base:.2f}",
                     **said)
            for name in SIZES
        ]),
        weakest([_facts(models, "small", 0.5, says=facts, **said),
                 *(_facts(models, name, 1.0, says=facts, **said) for name in ("medium", "large"))]),
        weakest([
            claim_on(arm(models, task="joint", framing="file", size=name), says=joint, above=False,
                     unit=f"of the held-out, {name}", null=0.25, null_is="one of four",
                     or_equal=True, **said)
            for name in SIZES
        ]),
    ]  # fmt: skip


def _facts(models: pd.DataFrame, size: str, null: float, **said: str) -> Claim:
    """That a size knows all facts where the null is 1, and else that it knows fewer than that."""
    return claim_on(
        arm(models, "seen", task="facts", framing="file", size=size), unit=f"of the facts, {size}",
        null=null, null_is="all of them" if null == 1 else "a half", above=null == 1,
        or_equal=null == 1, **said,
    )  # fmt: skip


def _of_the_paper(models: pd.DataFrame) -> list[Claim]:
    said = {"by": "the paper", "command": COMMAND}

    def answers(says: str, size: str, *, task: str = "arithmetic", above: bool = False) -> Claim:
        return claim_on(
            arm(models, task=task, framing="file", size=size), says=says, above=above,
            unit=f"of the held-out, {size}", null=0.5, null_is="a half", **said,
        )  # fmt: skip

    joint = "Trained on both tasks, no size answers most of the held-out equations."
    return [
        answers("On file, small answers most of the held-out equations.", "small", above=True),
        answers("On file, large does not.", "large"),
        answers("On file, medium leans to memorization: it does not, either.", "medium"),
        weakest([
            claim_on(arm(models, "knows_all", task="arithmetic", framing="file", size=size),
                     says="On file, every size answers all equations that it has seen.",
                     unit=f"of models, {size}", null=0.5, null_is="half of the models", **said)
            for size in SIZES
        ]),
        _facts(models, "small", 0.5, says="Small cannot memorize the facts.", **said),
        weakest([
            _facts(models, size, 1.0, says="Medium and large memorize all facts.", **said)
            for size in ("medium", "large")
        ]),
        weakest([answers(joint, size, task="joint") for size in SIZES]),
    ]  # fmt: skip

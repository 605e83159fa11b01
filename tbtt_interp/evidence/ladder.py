"""The ladder: what small, medium and large answer on every task and framing, beside the paper."""

import math
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.baselines import baseline_counts
from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.evidence.effects import (
    ANY,
    SHARE,
    check_one_each,
    counts,
    few_models,
    over_models,
    with_shares,
    words,
)
from tbtt_interp.evidence.ladder_claims import (
    COMMAND,
    by_operator,
    expected,
    explored,
    of_the_paper,
    sentences,
)
from tbtt_interp.evidence.published import (
    SOURCE,
    published,
    published_share,
    published_table,
)
from tbtt_interp.tasks import load_task
from tbtt_interp.tasks.windows import FRAMINGS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SIZES = ("small", "medium", "large")
TASKS = ("arithmetic", "facts", "joint")
CELL = ["task", "framing", "size"]
GROUPS = {"held_out": "held_out", "seen": None, "seen_addition": "addition",
          "seen_subtraction": "subtraction", "seen_facts": "facts"}  # fmt: skip


def ladder_evidence(models: pd.DataFrame, over: pd.DataFrame, equations: pd.DataFrame) -> Evidence:
    """What each size answers, knows of the order and loses, and the claims made of that.

    Args:
        models, over, equations: of the sweep ladder, each of TABLES.
    Raises:
        TbttError: if a cell has a seed twice.
    """
    check_one_each(models, CELL)
    models, over = _in_order(with_shares(models)), _in_order(with_shares(over))
    equations = _in_order(equations)
    tasks = [task for task in TASKS if task in set(models["task"])]
    curves = {
        f"ladder-{task}": partial(figures.curves_over_training, over[over["task"] == task])
        for task in tasks
    }
    claims = [*expected(models, baselines_table()), *of_the_paper(models), *explored(models, over)]
    return Evidence(
        question="What do small, medium and large answer, on every task and framing?",
        tables={"ladder": ladder_table(models), "ladder-groups": groups_table(models),
                "published": published_table(), "baselines": baselines_table()},
        shown=_shown(models, equations),
        figures={"ladder": partial(held_out_figure, models)} | curves,
        sentences=sentences(models, over, equations),
        claims=claims,
        command=COMMAND,
        notes=[
            "A row is the models of one cell at their last step. equations, facts: right of all "
            "that they have seen, all models together; know all: models that answer all of it. "
            "held-out: right of the equations of operands 5 and 7, the two sums and the two "
            "differences apart; share: its mean over models; of those: held-out equations right "
            "of the models that know all, where not all do.",
            "margin: logits between the right character and the best wrong one at a model's "
            "weakest held-out equation, mean over models. late: evaluations in the last sixth of "
            "training at which a model answers every held-out equation. order: the share of the "
            "file's order that a loss can only have from knowing it, a lower bound.",
            f"paper, and loss in brackets: {SOURCE}: one model, its best checkpoint by a score "
            "that counts held-out equations, too; after 30,000 steps on every task, and ours of "
            "facts and joint after fewer. Ours are all models at the last step. Its largest size, "
            "mlt, is not in this sweep. That most are answered, or fewer than half, is this page's "
            "threshold for what the paper says of one model.",
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
            bounds = ANY if name in ("margin_held_out", "margin_seen", "loss") else SHARE
            found = over_models(part.get(name, pd.Series(dtype=float)), bounds)
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
            share = over_models(right / of, SHARE)
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
    """Held-out shares of arithmetic by size and framing, with the paper's and the baselines'.

    A dot is a model at its last step, a bar the mean with 95 % over models.
    """
    base = baselines_table()
    base = base[base["group"] == "held_out"].groupby("share")["baseline"].agg(" and ".join)
    return figures.over_models(
        models[models["task"] == "arithmetic"], x="size", by="framing", value="held_out",
        titles=("", "share of held-out equations right"), bounds=(0.0, 1.0),
        marks={"the paper, one model, file": published("arithmetic", "held_out")},
        levels={names: level for level, names in zip(base.index, base, strict=True)},
    )  # fmt: skip


def _shown(models: pd.DataFrame, equations: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for cell, part in models.groupby(CELL, sort=False):
        task, framing, size = map(str, cell)
        seen = part.assign(
            equations_right=part.filter(["seen_addition_right", "seen_subtraction_right"]).sum(
                axis=1
            ),
            equations_of=part.filter(["seen_addition_of", "seen_subtraction_of"]).sum(axis=1),
        )
        knowing = part[part["knows_all"] == 1]
        margin = part.get("margin_held_out", pd.Series(dtype=float)).mean()
        rows.append({
            "task": task, "framing": framing, "size": size, "steps": f"{part['steps'].max():,.0f}",
            "equations": counts(seen, "equations"), "facts": counts(part, "seen_facts"),
            "know all": f"{len(knowing)}/{len(part)}", "held-out": counts(part, "held_out"),
            "share [95 %]": words(part["held_out"], SHARE),
            **by_operator(equations, task=task, framing=framing, size=size),
            "of those": counts(knowing, "held_out") if len(knowing) < len(part) else "",
            "paper": _paper(task, size) if framing == "file" else "",
            "late": counts(part, "late_held_out"),
            "margin": "" if math.isnan(margin) else f"{margin:+.1f}",
            "order": words(part["order_known"], SHARE),
            "loss": f"{part['loss'].mean():.3f}"
            + (f" ({published(task, 'loss')[size]:.3f})" if framing == "file" else ""),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _paper(task: str, size: str) -> str:
    if task == "facts":
        return f"{published(task, 'facts')[size]:.1%} facts"
    return f"{4 * published(task, 'held_out')[size]:.0f}/4"

"""Why fewer held-out answers on both tasks: the second task, the longer window or the exposure?"""

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.errors import listed
from tbtt_interp.evidence.claims import Claim, Evidence
from tbtt_interp.evidence.effects import (
    SHARE,
    arm,
    check_one_each,
    claim_on,
    counts,
    effect_rows,
    few_models,
    with_shares,
    words,
)
from tbtt_interp.tasks import load_task
from tbtt_interp.train.sweep import read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COMMAND = "tbtt sweep ladder && tbtt sweep window && python analyses/window.py runs/window"
SIZES = ("small", "medium", "large")
ALONE, LONG, MATCHED, JOINT = (
    "arithmetic, window 9", "arithmetic, window 24", "arithmetic, window 24, exposed as on joint",
    "joint, window 24",
)  # fmt: skip
LADDER = "arithmetic, window 9, 30,000 steps"
EFFECTS = {
    "window": (MATCHED, ALONE), "second task": (JOINT, MATCHED), "exposure": (LONG, MATCHED),
    "joint minus alone": (JOINT, ALONE), "joint minus the ladder's alone": (JOINT, LADDER),
}  # fmt: skip


def window_evidence(models: pd.DataFrame, ladder: pd.DataFrame) -> Evidence:
    """What the window, the exposure and the second task each do to what arithmetic is answered.

    Args:
        models: of the sweep window, as `sweep_tables` has them.
        ladder: of the sweep ladder, whose joint models on file are the fourth arm.
    Raises:
        TbttError: if a cell has a seed twice.
    """
    table = arms_table(models, ladder)
    check_one_each(table, ["arm", "size"])
    effects = effect_rows(table, EFFECTS, each="size", arms="arm")
    claims = _claims(table, effects)
    return Evidence(
        question="Fewer held-out answers on both tasks: the second task, the longer window or the "
        "exposure?",
        tables={"window-models": table, "window-effects": effects},
        shown=_shown(table),
        figures={"window": partial(arms_figure, table),
                 "window-effects": partial(effects_figure, effects)},
        sentences=[*_answered(table), *_sentences(effects)],
        claims=claims,
        command=COMMAND,
        notes=[
            "seen and held-out: equations right of all, all models together; exposure: millions of "
            "characters of equations that one model was trained on; share: mean over models.",
            "window: 24 minus 9, at the exposure of joint (7 % less than at window 9); second "
            "task: joint minus that; exposure: 1.9 times the windows, minus that. Joint minus "
            "window 9 is the sum of the first two, exactly. Differences are paired by seed, which "
            "shares the order of the equations.",
            "Of one schedule, 12,000 steps, but for the ladder's row, whose schedule is 30,000: "
            "it is no twin of the others, for at 12,000 its rate has not fallen.",
            "What cannot be told apart: the second task from the larger vocabulary that comes with "
            "it, or this second task from any other; the longer window from fewer windows a step, "
            "each of more lines.",
            few_models(claims),
        ],
    )  # fmt: skip


def arms_table(models: pd.DataFrame, ladder: pd.DataFrame) -> pd.DataFrame:
    """The models that are compared, a row each: `arm`, and of arithmetic alone what they know.

    Columns, beside those of `models_table`: `seen` and `held_out`, shares of the equations right;
    `exposure`, millions of characters of equations that the model was trained on.
    """
    file, models = (table[table["framing"] == "file"] for table in (ladder, models))
    joint = file[file["task"] == "joint"]
    is_long, as_joint = models["window"] == 24, models["batch"] == load_task("joint").batch
    arms = {
        ALONE: models[~is_long],
        MATCHED: models[is_long & ~as_joint],
        LONG: models[is_long & as_joint],
        JOINT: joint,
        LADDER: file[(file["task"] == "arithmetic") & file["seed"].isin(joint["seed"])],
    }
    table = pd.concat([part.assign(arm=name) for name, part in arms.items()], ignore_index=True)
    equations = [f"seen_{name}" for name in ("addition", "subtraction")]
    table = table.assign(
        seen_right=table[[f"{name}_right" for name in equations]].sum(axis=1),
        seen_of=table[[f"{name}_of" for name in equations]].sum(axis=1),
        exposure=table["window"] * table["batch"].astype(float) * table["steps"] / 1e6
        * table["task"].map(equation_share),
    )  # fmt: skip
    return with_shares(table).sort_values("width", kind="stable")


def equation_share(task: str) -> float:
    """The share of a task's characters that are of equations.

    >>> equation_share("arithmetic"), round(equation_share("joint"), 3)
    (1.0, 0.533)
    """
    lines = load_task(task).lines
    return sum(len(line) for line in lines if line.startswith("<")) / sum(map(len, lines))


def arms_figure(table: pd.DataFrame) -> "Figure":
    """Held-out shares by size and arm."""
    return figures.over_models(
        table, x="size", by="arm", value="held_out", bounds=(0.0, 1.0),
        titles=("", "share of held-out equations right"),
    )  # fmt: skip


def effects_figure(effects: pd.DataFrame) -> "Figure":
    """What window, second task and exposure do, by size."""
    return figures.over_models(
        effects, x="size", by="effect", value="value", titles=("", "difference of held-out share")
    )


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (size, name), part in table.groupby(["size", "arm"], sort=False):
        first = part.iloc[0]
        rows.append({
            "size": size, "trained on": name, "batch": first["batch"],
            "steps": f"{first['steps']:,.0f}", "exposure": f"{first['exposure']:,.0f}",
            "seen": counts(part, "seen"), "held-out": counts(part, "held_out"),
            "share [95 %]": words(part["held_out"], SHARE),
            "order": words(part["order_known"], SHARE),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _answered(table: pd.DataFrame) -> list[str]:
    """What each size answers in each arm, in counts."""
    arms = [arm for arm in (ALONE, MATCHED, LONG, JOINT) if arm in set(table["arm"])]
    said = []
    for size in (size for size in SIZES if size in set(table["size"])):
        cells = (table[(table["size"] == size) & (table["arm"] == arm)] for arm in arms)
        said.append(f"{size} {listed([counts(cell, 'held_out') or '–' for cell in cells], 'and')}")
    return [f"Held-out equations answered on {'; '.join(arms)}: {'; '.join(said)}."]


def _sentences(effects: pd.DataFrame) -> list[str]:
    found = []
    for size in dict.fromkeys(effects["size"]):
        mine = effects[effects["size"] == size]
        told = [
            f"{effect} {words(part['value'])} ({len(part)})"
            for effect, part in mine.groupby("effect", sort=False)
        ]
        found.append(f"Held-out share, {size}: {'; '.join(told)}.")
    return found


def _claims(table: pd.DataFrame, effects: pd.DataFrame) -> list[Claim]:
    (window,) = read_sweep("window").expected
    said = {"null": 0.0, "null_is": "no difference", "unit": "more of the held-out, small",
            "command": COMMAND, "above": False}  # fmt: skip
    asked = {
        "window": "The longer window, at equal exposure, costs small held-out equations.",
        "second task": "The second task, at equal window and exposure, costs small held-out "
        "equations.",
    }
    return [
        claim_on(arm(table, size="small", arm=LONG) - arm(table, size="small", arm=ALONE),
                 says=window, by="expected before the run", **said),
        *(claim_on(arm(effects, "value", size="small", effect=effect), says=says, by="explored",
                   **said)
          for effect, says in asked.items()),
    ]  # fmt: skip

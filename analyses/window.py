# %% [markdown]
# # Fewer held-out answers on both tasks: the second task, the longer window or the exposure?
# Joint training differs from arithmetic alone in all three. Arithmetic alone at window 9 and at
# window 24 tells them apart: once with as many characters of equations as joint has, once with as
# many windows. Measure: held-out accuracy after equally many steps. The joint models are the
# ladder's: runs beside these, or else the shipped table. The expectation stands in
# train/sweeps/window.toml.

# %%
from collections.abc import Sequence

import pandas as pd
from sweeps import (
    answer_as_script,
    answers_text,
    check_one_each,
    counts_by_model,
    interval_note,
)

from tbtt_interp import plots
from tbtt_interp.model_tables import with_accuracies
from tbtt_interp.results import Claim, Origin, Result
from tbtt_interp.shares import difference_of_shares
from tbtt_interp.stats import SHARE, Interval
from tbtt_interp.tasks import load_task
from tbtt_interp.train.sweep import read_sweep

READS = [("window", "models"), ("ladder", "models")]
ALONE, LONG = "arithmetic, window 9", "arithmetic, window 24"
MATCHED, JOINT = "arithmetic, window 24, exposed as on joint", "joint, window 24"
LADDER = "arithmetic, window 9, 30,000 steps"
EFFECTS = {
    "window": (MATCHED, ALONE), "second task": (JOINT, MATCHED), "exposure": (LONG, MATCHED),
    "window and exposure": (LONG, ALONE),
    "joint minus alone": (JOINT, ALONE), "joint minus the ladder's alone": (JOINT, LADDER),
}  # fmt: skip
NOTES = (
    "seen, held-out: right equations of all, all models together. exposure: millions of characters "
    "of equations that one model was trained on. accuracy: mean over models.",
    "window: 24 minus 9, at the exposure of joint, which is 7 % less than at window 9. second "
    "task: joint minus that. exposure: 1.9 times the windows, minus that. The first two sum to "
    "joint minus window 9.",
    "All conditions have one schedule of 12,000 steps, but the ladder's has 30,000: at step 12,000 "
    "its learning rate has not fallen.",
    "This study cannot tell the second task from its larger vocabulary, nor the longer window from "
    "fewer windows per step with more lines each.",
)


# %%
def equation_share(task: str) -> float:
    """The share of a task's characters that belong to equations."""
    lines = load_task(task).lines
    return sum(len(line) for line in lines if line.startswith("<")) / sum(map(len, lines))


def conditions_table(models: pd.DataFrame, ladder: pd.DataFrame) -> pd.DataFrame:
    """One row per model on framing file, with its `condition`; seen counts are of equations alone.

    `exposure`: millions of characters of equations that the model was trained on.
    """
    file, models = (table[table["framing"] == "file"] for table in (ladder, models))
    joint = file[file["task"] == "joint"]
    is_long, as_joint = models["window"] == 24, models["batch"] == load_task("joint").batch
    alone = file[(file["task"] == "arithmetic") & file["seed"].isin(joint["seed"])]
    groups = {ALONE: models[~is_long], MATCHED: models[is_long & ~as_joint],
              LONG: models[is_long & as_joint], JOINT: joint, LADDER: alone}  # fmt: skip
    table = pd.concat([rows.assign(condition=name) for name, rows in groups.items()])
    windows = table["window"] * table["batch"].astype(float) * table["steps"]
    return with_accuracies(table.assign(
        seen_right=table["seen_addition_right"] + table["seen_subtraction_right"],
        seen_of=table["seen_addition_of"] + table["seen_subtraction_of"],
        exposure=windows / 1e6 * table["task"].map(equation_share),
    )).sort_values("width", kind="stable", ignore_index=True)  # fmt: skip


def window_result(models: pd.DataFrame, ladder: pd.DataFrame) -> Result:
    """What the window, the exposure and the second task each change, by size."""
    table = conditions_table(models, ladder)
    check_one_each(table, ["condition", "size"])
    share = table.pivot(
        index=["width", "size", "seed"], columns="condition", values="held_out_accuracy"
    ).reindex(columns=[ALONE, LONG, MATCHED, JOINT, LADDER])
    effects = pd.DataFrame({name: share[a] - share[b] for name, (a, b) in EFFECTS.items()})
    effects = effects.reset_index().melt(["width", "size", "seed"], var_name="effect").dropna()

    def difference(effect: str, size: str) -> Interval:
        more, less = (counts_by_model(table, condition=x, size=size) for x in EFFECTS[effect])
        return difference_of_shares(less, more)

    claimed: Sequence[tuple[str, str, Origin]] = (
        ("window and exposure", read_sweep("window").expected[0], "expected before the run"),
        ("window", "The longer window, at equal exposure, costs small held-out equations.",
         "explored"),
        ("second task", "The second task, at equal window and exposure, costs small held-out "
         "equations.", "explored"),
    )  # fmt: skip
    claims = [
        Claim(text=text, effect=difference(effect, "small"), origin=origin, null=0.0,
              unit="of held-out accuracy, small", direction="below", null_name="no difference")
        for effect, text, origin in claimed
    ]  # fmt: skip
    display = pd.DataFrame([
        {"size": size, "trained on": condition, "batch": rows["batch"].iloc[0],
         "steps": f"{rows['steps'].iloc[0]:,}", "exposure": f"{rows['exposure'].iloc[0]:,.0f}",
         **answers_text(rows)}
        for (size, condition), rows in table.groupby(["size", "condition"], sort=False)
    ])  # fmt: skip
    differences = pd.DataFrame([
        {"effect": effect} | {size: difference(effect, size).format()
                              for size in effects["size"].unique()}
        for effect in effects["effect"].unique()
    ])  # fmt: skip
    return Result(
        name="window", tables={"window-models": table, "window-effects": effects}, display=display,
        question="Fewer held-out answers on both tasks: second task, longer window or exposure?",
        command="tbtt sweep ladder && tbtt sweep window && python analyses/window.py runs/window",
        claims=claims, notes=[*NOTES, interval_note(claims)],
        more_displays={"Differences of held-out accuracy, mean [95 %]": differences},
        figures={
            "window": lambda: plots.models_by_group(
                table, x="size", by="condition", value="held_out_accuracy", bounds=SHARE,
                titles=("", "held-out accuracy")),
            "window-effects": lambda: plots.models_by_group(
                effects, x="size", by="effect", value="value",
                titles=("", "difference of held-out accuracy")),
        },
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(window_result, READS, "window")

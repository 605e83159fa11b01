# %% [markdown]
# # When does a model learn the lines, and when their order?
# A loss below the floor of "knows every line, not their order" is order memorized. Question: what
# becomes of the held-out answers then? Measure: held-out share at the evaluation whose loss is the
# last above that floor, against the last evaluation of training. Order can be learned with framing
# file alone. One run is an anecdote: the unit is the model.

# %%
import sys

import pandas as pd

import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.stats import interval_over_seeds

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
if run.config.recipe is None:
    sys.exit("An imported model has no training to look back on, so this run cannot answer.")
floors = pd.DataFrame([{"seed": s["seed"], **s["floors"]} for s in run.summary()["seeds"]])
table = run.metrics().merge(floors.set_index("seed").add_prefix("floor_"), on="seed")
seen = [g for g in (f"seen_{name}" for name in run.tasks[0].groups) if f"{g}_of" in table]
table["seen"] = sum(table[f"{g}_right"] for g in seen) / sum(table[f"{g}_of"] for g in seen)
if "held_out_right" in table:
    table["held_out"] = table["held_out_right"] / table["held_out_of"]
table["framing"] = run.config.framing

# %%
figure = figures.learning_curves(table)
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])


# %%
def change(part: pd.DataFrame) -> dict[str, object]:
    """One model's held-out share when its loss was last above the floor of the lines, and later."""
    above, last = part[part["loss"] >= part["floor_lines"]].iloc[-1], part.iloc[-1]
    return {"seed": last["seed"], "step": above["step"], "at the floor": above["held_out"],
            "at the end": last["held_out"], "final loss": last["loss"],
            "order learned": bool(last["loss"] < last["floor_lines"])}  # fmt: skip


if run.config.framing != "file":
    print(f"With framing {run.config.framing} there is no order to learn: this run cannot answer.")
elif "held_out" not in table:
    print("Nothing was held out, so this run cannot answer.")
else:
    found = pd.DataFrame([change(part) for _, part in table.groupby("seed")])
    print(found.to_string(index=False))
    learned = found[found["order learned"]].dropna()
    print(f"{len(learned)} of {len(found)} models went below the floor of the lines.")
    if len(learned):
        gained = interval_over_seeds((learned["at the end"] - learned["at the floor"]).tolist())
        print(
            f"From there to the end their held-out share changed by {gained.format()} (mean and "
            "resampled 95 % over models), in the time that more training takes as well as more "
            "order: a run of framing shuffled, equally long, is the control."
        )

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
rows = []
for seed, part in table.groupby("seed"):
    above = part[part["loss"] >= part["floor_lines"]].iloc[-1]
    last = part.iloc[-1]
    rows.append({"seed": seed, "step": above["step"], "loss": last["loss"],
                 "at the floor": above.get("held_out"), "at the end": last.get("held_out"),
                 "order learned": last["loss"] < last["floor_lines"]})  # fmt: skip
found = pd.DataFrame(rows)
print(found.to_string(index=False))

# %%
learned = found[found["order learned"]]
if run.config.framing == "line":
    print("Whole lines have no order to learn, so this run cannot answer.")
elif learned.empty or learned["at the floor"].isna().any():
    print("No model with held-out lines went below the floor of the lines: this run cannot answer.")
else:
    change = interval_over_seeds((learned["at the end"] - learned["at the floor"]).tolist())
    print(
        f"{len(learned)} of {len(found)} models went below the floor of the lines. From there to "
        f"the end their held-out share changed by {change.format()} (mean, 95 % over models)."
    )

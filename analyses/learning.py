# %% [markdown]
# # When does a model learn the lines, and when their order?
# A loss below the floor of "knows every line, not their order" is order memorized, and with framing
# file alone can it be. Measure, a model each: the first evaluation at which every seen answer is
# right, the first whose loss is below that floor, and the share of the order that its last loss
# shows. What becomes of the held-out answers meanwhile, analyses/forgetting.py asks of many runs.

# %%
import pandas as pd

import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.evidence.models import over_training_table
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
if run.config.recipe is None:
    raise tbtt.TbttError(
        "imported models have no training to look back on: give a run trained here"
    )
table = over_training_table([run]).drop(columns="held_out")  # the pairs; below, a share
for side in ("seen", "held_out"):
    if f"{side}_of" in table:
        table[side] = table[f"{side}_right"] / table[f"{side}_of"]

# %%
figure = figures.learning_curves(table)
for file in files:
    figures.save(figure, file)

# %%
floor = "floor_line" if run.config.framing == "line" else "floor_lines"
found = pd.DataFrame([
    {"seed": seed, "all seen right": course.loc[course["seen"] == 1, "step"].min(),
     "below the floor": course.loc[course["loss"] < course[floor], "step"].min(),
     "final loss": course["loss"].iloc[-1], "floor": course[floor].iloc[-1],
     "order known": course["order_known"].iloc[-1]}
    for seed, course in table.groupby("seed")
])  # fmt: skip
for name in ("all seen right", "below the floor"):
    found[name] = found[name].astype("Int64").astype(object).fillna("never")
print(found.dropna(axis=1, how="all").round(3).to_string(index=False))
if run.config.framing == "file":
    print(
        f"{(found['order known'] > 0).sum()} of {len(found)} models learned so much of the order "
        "that their loss shows it."
    )
else:
    print(f"With framing {run.config.framing} there is no order to learn.")

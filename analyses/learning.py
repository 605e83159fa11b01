# %% [markdown]
# # When does a model learn the lines, and when their order?
# A loss below the floor of "knows every line, not their order" shows memorized order; only framing
# file allows it. Measure, per model: the first evaluation at which every seen answer is right, the
# first whose loss is below that floor, and the share of the order that its last loss shows. What
# happens to the held-out answers meanwhile, analyses/forgetting.py compares over many runs.

# %%

from sweeps import first_evaluations

import tbtt_interp as tbtt
from tbtt_interp.model_tables import over_training_table, plot_over_training
from tbtt_interp.study import save_figure, study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
if run.config.recipe is None:
    raise tbtt.TbttError("imported models have no training to show: give a run trained here")
over = over_training_table([run])

# %%
figure = plot_over_training(over)
save_figure(figure, files, "When does a model learn the lines, and when their order?", run.title)

# %%
floor = over["floor_line" if run.config.framing == "line" else "floor_lines"]
first = {"all seen right": over["seen_accuracy"] == 1, "below the floor": over["loss"] < floor}
steps = {
    name: first_evaluations(over, reached).set_index("seed")["step"]
    for name, reached in first.items()
}
last = over.assign(floor=floor).groupby("seed").last()
table = last[["loss", "floor", "order_known"]].dropna(axis=1, how="all").round(3)
for name, step in steps.items():
    table[name] = step.reindex(table.index).astype(object).fillna("never")
print(table.reset_index().to_string(index=False))
if run.config.framing == "file":
    known = (last["order_known"] > 0).sum()
    print(f"The loss of {known} of {len(last)} models shows that they know some of the order.")
else:
    print(f"With framing {run.config.framing} there is no order to learn.")

# %% [markdown]
# # What is there to see in a run?
# Every analysis at quick settings; what was found, furthest from its null first. It is where to
# start, and no test: with so many rows some are far from their nulls by luck.

# %%
import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_overview(run)

# %%
figure = result.figures["overview"]()
for file in files:
    plots.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

# %% [markdown]
# # Which activation decides the answer?
# One activation of a clean run is patched into the run of a prompt that differs in one thing.
# Question: through which sites and positions does the difference reach the answer? Measure: the
# fraction of the logit difference that the patch restores, for whole answers over every ordered
# pair. Nulls: the same patch from an example with the corrupted answer, and from any example.

# %%
import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_patching(run)

# %%
figure = result.figures["patching"]()
for file in files:
    plots.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

# %% [markdown]
# # How much of the answers is memorized?
# No measure is of memorization alone, so there are several. Question: do models of this size, on
# this framing, store lines or compute them? Measures: bits of seen and held-out answers and of the
# line order, per parameter; the loss with the operands' main directions alone, and without them.
# Nulls: a reader who knows how often each answer occurs; random directions.

# %%
import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_memorization(run)

# %%
figure = result.figures["memorization"]()
for file in files:
    plots.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

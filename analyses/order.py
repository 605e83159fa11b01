# %% [markdown]
# # What was memorized that is not arithmetic?
# A file's line order never changes, so a model can come to know which line follows which. Question:
# how many bits of it, what do they foretell, and what do they do to answers? Measure: the
# log-probability of each line after the one before it, beyond what knowing every line but not
# their order gives, as a share of what knowing the order gives; then each answer after the end of
# the line that its equation follows, and after another's. Nulls: the same in a file of another
# order; two lines that the equation does not follow; and framing shuffled, where no order is.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_order(run)

# %%
figure = result.figures["order"]()
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, framing {run.config.framing}, {len(run.seeds)} models.")
print(result)

# %% [markdown]
# # How much of the line order is memorized, and what does it do to answers?
# A file's line order never changes, so a model can learn which line follows which. Measure: the
# bits of each line after the preceding one, beyond knowing every line but not their order, as a
# fraction of the bits that knowing the order gives. Then each answer after the line that its prompt
# follows, and after other lines. Nulls: a file of another order; two lines that the prompt does not
# follow; and framing shuffled, where there is no order.

# %%
import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_order(run)

# %%
figure = result.figures["order"]()
for file in files:
    plots.save(figure, file)

# %%
print(f"{run.folder.name}, framing {run.config.framing}, {len(run.seeds)} models.")
print(result)

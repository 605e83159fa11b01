# %% [markdown]
# # A rule or a table?
# A rule compresses: its activations over the operands a and b can be f(a) + g(b). A lookup table is
# all interaction. How much of an activation over the full grid is which, and what does f(a) + g(b)
# alone answer? Measures: shares of variance in a two-way analysis of variance on vectors, exact;
# then the equations answered with f(a) + g(b), fitted on seen equations, in place of an activation.
# Nulls: the untrained models, near 0, and a shuffled grid, 81/99 for 10 by 10 values.

# %%
import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_additivity(run)

# %%
figure = result.figures["additivity"]()
for file in files:
    plots.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

# %% [markdown]
# # A rule or a table?
# A rule compresses: what it holds of a + b can be f(a) + g(b). A lookup table is all interaction.
# Question: how much of what a model holds over the full grid of operands is which, and what would
# f(a) + g(b) alone answer? Measure: shares of variance of a two-way analysis of variance on
# vectors, exact; then equations answered with f(a) + g(b), fitted on seen equations, in a site's
# place. Nulls: the untrained model, near 0, and a shuffled grid, 81/99 of 10 by 10.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_additivity(run)

# %%
figure = result.figures["additivity"]()
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

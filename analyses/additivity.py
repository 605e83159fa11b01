# %% [markdown]
# # A rule or a table?
# A rule compresses: what it holds of a + b can be f(a) + g(b). A lookup table is all interaction.
# Question: how much of what a model holds over the full grid of operands is which, and what would
# f(a) + g(b) alone answer? Measure: shares of variance of a two-way analysis of variance on
# vectors, exact; then equations answered with f(a) + g(b), fitted on seen equations, in a site's
# place. Nulls: the untrained model, near 0, and a shuffled grid, 81/99 of 10 by 10.

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
subject = tbtt.Subject.of_run(run)
try:
    subject.grid()
except tbtt.TbttError:
    sys.exit("The task of this run has no grid of operands, so this study cannot answer.")
result = tbtt.analyse_additivity(subject)

# %%
figure = result.figures["additivity"]()
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

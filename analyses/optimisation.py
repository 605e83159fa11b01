# %% [markdown]
# # How much of "too big" is "trained otherwise"?
# The published mlt has a thousandth of the other sizes' learning rate. Measures: held-out answers
# of small, medium and large on file at three rates (cells of the sweep widths, whose runs are
# looked for beside these), and of mlt at a hundred times its published rate, by seed and over
# training. What was expected stands in train/sweeps/optimisation.toml.

# %%
import sys

from tbtt_interp import figures
from tbtt_interp.evidence.models import given_paths, sweep_table, sweep_tables
from tbtt_interp.evidence.optimisation import optimisation_evidence

folders, files = given_paths(sys.argv[1:])
folder = folders[0] if folders else None
widths = sweep_table("widths", "models", folder and folder.with_name("widths"))
evidence = optimisation_evidence(widths, *sweep_tables("optimisation", folder))

# %%
for file in files:
    figures.save(evidence.figures["optimisation"](), file)

# %%
print(evidence)

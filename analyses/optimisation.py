# %% [markdown]
# # How much of "too big" is "trained otherwise"?
# The published mlt has a thousandth of the other sizes' learning rate. Measures: held-out answers
# of small, medium and large on file at three rates (cells of the sweep widths, whose runs are
# looked for beside these), and of mlt at a hundred times its published rate, by seed and over
# training. What was expected stands in train/sweeps/optimisation.toml.

# %%
import sys
from pathlib import Path

from tbtt_interp import figures
from tbtt_interp.evidence.models import sweep_tables
from tbtt_interp.evidence.optimisation import optimisation_evidence

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
widths, _ = sweep_tables("widths", folder and folder.with_name("widths"))
evidence = optimisation_evidence(widths, *sweep_tables("optimisation", folder))

# %%
if len(sys.argv) > 2:
    figures.save(evidence.figures["optimisation"](), sys.argv[2])

# %%
print(evidence)

# %% [markdown]
# # Which activation decides the answer?
# One activation of a clean run is put into a run of a prompt that differs in one thing. Question:
# through which parts, at which positions, does what differs reach the answer? Measure: the share of
# the logit difference that comes back, all characters of the answer together, over every ordered
# pair. Nulls: the same patch from an example with the recipient's answer, and from any example.

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
result = tbtt.analyse_patching(run)

# %%
figure = result.figures["patching"]()
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

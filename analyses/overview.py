# %% [markdown]
# # What is there to see in a run?
# Every analysis at quick settings; what was found, furthest from its null first. It is where to
# start, and no test: with so many rows some are far from their nulls by luck.

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
result = tbtt.analyse_overview(run)

# %%
figure = result.figures["overview"]()
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

# %% [markdown]
# # Along which paths does what differs reach the answer?
# One edge, or one whole path from the embeddings to the logits, carries the clean run while all
# else carries the corrupted one. Measures: the share of the logit difference that comes back,
# exactly, beside two fast approximations; and what the strongest edges keep when all others carry
# the corrupted run, ranked on half of the pairs and asked on the other. Nulls: donors with the
# recipient's answer and at random; circuits of as many edges drawn at random.

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
result = tbtt.analyse_paths(run)

# %%
figure = result.figures["paths"]()
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
for name in ("approximations", "circuits"):
    print(result.tables[name].round(2).to_string(index=False), "\n")
print(result)

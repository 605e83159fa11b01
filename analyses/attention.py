# %% [markdown]
# # Where do heads look, and what is it worth?
# Attention from where a character is answered, by what stands at the key. A weight alone says
# nothing of use, so beside each stands what answers lose when that edge is cut. Nulls: even
# attention and the untrained model for weights; as many other keys cut at random for the loss.

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
result = tbtt.analyse_attention(run)

# %%
figure = result.figures["attention"]()
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
for name in ("replaced", "scores"):
    print(result.tables[name].round(2).to_string(index=False), "\n")
print(result)

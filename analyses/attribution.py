# %% [markdown]
# # Which parts write the answer, and from which stream on can it be read?
# Measures: at every stream, how often the right character is first when that stream is read as the
# last one is (the logit lens); and of the right character's logit minus the best wrong one's, how
# many nats the embeddings, attention by what it reads, and the MLP write, which sum to it. Nulls:
# another example's stream, another example's character in the right one's place, and the untrained
# models.

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
result = tbtt.analyse_attribution(run)

# %%
figure = result.figures["attribution"]()
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
result.figures["lens"]()

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

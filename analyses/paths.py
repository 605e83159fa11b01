# %% [markdown]
# # Along which paths does what differs reach the answer?
# One edge, or one whole path from the embeddings to the logits, carries the clean run while all
# else carries the corrupted one. Measures: the share of the logit difference that comes back,
# exactly, beside two fast approximations; and what the strongest edges keep when all others carry
# the corrupted run, ranked on half of the pairs and asked on the other. Nulls: donors with the
# recipient's answer and at random; circuits of as many edges drawn at random.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_paths(run)

# %%
figure = result.figures["paths"]()
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
for name in ("approximations", "circuits"):
    print(result.tables[name].round(2).to_string(index=False), "\n")
print(result)

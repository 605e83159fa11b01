# %% [markdown]
# # Along which paths does a difference reach the answer?
# One edge, or one whole path from the embeddings to the logits, carries the clean run while all
# else carries the corrupted one. Measures: the fraction of the logit difference that this
# restores, exactly and by two fast approximations; and what the strongest edges keep when all
# others carry the corrupted run, ranked on half of the pairs and scored on the other half. Nulls:
# sources with the corrupted answer and at random; circuits of as many random edges.

# %%
import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_paths(run)

# %%
figure = result.figures["paths"]()
for file in files:
    plots.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
for name in ("approximations", "circuits"):
    print(result.tables[name].round(2).to_string(index=False), "\n")
print(result)

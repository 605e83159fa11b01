# %% [markdown]
# # Where do heads attend, and what does the answer lose without it?
# Attention from the positions that predict the answer, by the role of the key. A weight alone does
# not show that it is used, so beside each weight stands what answers lose after attention knockout.
# Nulls: uniform attention and the untrained model for weights; as many random keys for knockouts.

# %%
import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_attention(run)

# %%
figure = result.figures["attention"]()
for file in files:
    plots.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
for name in ("replaced", "scores"):
    print(result.tables[name].round(2).to_string(index=False), "\n")
print(result)

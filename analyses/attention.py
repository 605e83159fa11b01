# %% [markdown]
# # Where do heads look, and what is it worth?
# Attention from where a character is answered, by what stands at the key. A weight alone says
# nothing of use, so beside each stands what answers lose when that edge is cut. Nulls: even
# attention and the untrained model for weights; as many other keys cut at random for the loss.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_attention(run)

# %%
figure = result.figures["attention"]()
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
for name in ("replaced", "scores"):
    print(result.tables[name].round(2).to_string(index=False), "\n")
print(result)

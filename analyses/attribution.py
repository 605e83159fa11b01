# %% [markdown]
# # Which parts write the answer, and from which stream on can it be read?
# Measures: at every stream, how often the right character is first when that stream is read as the
# last one is (the logit lens); and of the right character's logit minus the best wrong one's, how
# many nats the embeddings, attention by what it reads, and the MLP write, which sum to it. Nulls:
# another example's stream, another example's character in the right one's place, and the untrained
# models.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_attribution(run)

# %%
figure = result.figures["attribution"]()
for file in files:
    figures.save(figure, file)

# %%
result.figures["lens"]()

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

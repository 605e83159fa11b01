# %% [markdown]
# # Which parts write the answer, and from which stream on can it be read?
# Two measures. The logit lens: at each stream, how often the right token comes first when the
# stream is read as the last one is. Attribution: of the right token's logit minus the best wrong
# one's, the nats that embeddings, attention (by the position it reads) and the MLP write; these sum
# to it. Nulls: another example's stream, another example's token, and the untrained models.

# %%
import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_attribution(run)

# %%
figure = result.figures["attribution"]()
for file in files:
    plots.save(figure, file)

# %%
result.figures["lens"]()

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

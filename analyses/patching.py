# %% [markdown]
# # Which activation decides the answer?
# One activation of a clean run is put into a run of a prompt that differs in one thing. Question:
# through which parts, at which positions, does what differs reach the answer? Measure: the share of
# the logit difference that comes back, all characters of the answer together, over every ordered
# pair. Nulls: the same patch from an example with the recipient's answer, and from any example.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_patching(run)

# %%
figure = result.figures["patching"]()
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

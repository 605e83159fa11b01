# %% [markdown]
# # Does forgetting the rule follow learning the order?
# A file's loss below the floor of "knows every line, not their order" is order memorized. Question:
# what becomes of the held-out answers from there on? Measures, a model each: the change of its
# held-out share from that moment to the end of training, and how its held-out margin goes with the
# order known. Null: its twin on windows of fresh orders, same size, seed and steps. No direction
# was written down before the run. Takes folders of runs; else the tables that come with the
# package.

# %%
from tbtt_interp import figures
from tbtt_interp.evidence.forgetting import forgetting_evidence
from tbtt_interp.evidence.models import (
    finished_runs,
    over_training_table,
    shipped_table,
)
from tbtt_interp.study import study_arguments

folders, files = study_arguments(most=None)
if folders:
    table = over_training_table(run for folder in folders for run in finished_runs(folder))
else:
    table = shipped_table(("ladder", "optimisation"), "over training")
evidence = forgetting_evidence(table)

# %%
for file in files:
    figures.save(evidence.figures["forgetting"](), file)

# %%
print(evidence)

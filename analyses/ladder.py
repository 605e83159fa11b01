# %% [markdown]
# # What do small, medium and large answer, on every task and framing?
# The published ladder, every size with many seeds, on three framings of the same lines: file (the
# paper's), shuffled (no order to memorize) and line (one line at a time). Measures: seen and
# held-out answers at the last step, with counts and intervals over models, beside the paper's and
# those of two baselines. What was expected stands in train/sweeps/ladder.toml.

# %%
from tbtt_interp import figures
from tbtt_interp.evidence.ladder import ladder_evidence
from tbtt_interp.evidence.models import TABLES, sweep_table
from tbtt_interp.study import study_arguments

folders, files = study_arguments()
folder = folders[0] if folders else None
evidence = ladder_evidence(*(sweep_table("ladder", which, folder) for which in TABLES))

# %%
for file in files:
    figures.save(evidence.figures["ladder-arithmetic"](), file)

# %%
print(evidence)

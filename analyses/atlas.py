# %% [markdown]
# # Which held-out equations are answered, by which size?
# Every pair of operands is held out in turn, from models that are shown whole lines, so that there
# is only arithmetic to learn. Question: does size cost extrapolation, on which pairs, in sums or in
# differences? Measure: the share of a model's held-out equations that it answers, on doublings of
# width, in a mixed model with pair and seed as random effects. Nulls: width does nothing; the
# nearest seen equation and an additive model, on the same splits. What was expected stands in
# train/sweeps/atlas.toml. Takes a folder of runs; else the tables that come with the package.

# %%
from tbtt_interp import figures
from tbtt_interp.evidence.atlas import atlas_evidence
from tbtt_interp.evidence.models import sweep_table
from tbtt_interp.study import study_arguments

folders, files = study_arguments()
folder = folders[0] if folders else None
evidence = atlas_evidence(sweep_table("atlas", "held out", folder))

# %%
for file in files:
    figures.save(evidence.figures["atlas"](), file)

# %%
print(evidence)

# %% [markdown]
# # How much of the held-out share is order, framing and size?
# Five widths on three framings. Order is shuffled minus file, framing is line minus shuffled, and
# what is left on line is size. The learning rate is picked for each width on seen loss alone.
# Measures: both effects at each width, paired by seed; the slope of the held-out share on log2 of
# width; and the difference of width 14 and 56 on file, divided exactly. At the last step, when
# models know as much of the seen, and at one rate for all. What was expected stands in
# train/sweeps/widths.toml.

# %%
from tbtt_interp import figures
from tbtt_interp.evidence.models import sweep_tables
from tbtt_interp.evidence.widths import widths_evidence
from tbtt_interp.study import study_arguments

folders, files = study_arguments()
folder = folders[0] if folders else None
evidence = widths_evidence(*sweep_tables("widths", folder))

# %%
for file in files:
    figures.save(evidence.figures["widths-effects"](), file)

# %%
print(evidence)

# %% [markdown]
# # How much of "too big" is "trained otherwise"?
# The published mlt has a thousandth of the other sizes' learning rate. Measures: held-out answers
# of small, medium and large on file at three rates (cells of the sweep widths, whose runs are
# looked for beside these), and of mlt at a hundred times its published rate, by seed and over
# training, beside the ladder's models when they know as much. What was expected stands in
# train/sweeps/optimisation.toml.

# %%
from tbtt_interp import figures
from tbtt_interp.evidence.models import sweep_table, sweep_tables
from tbtt_interp.evidence.optimisation import optimisation_evidence
from tbtt_interp.study import study_arguments

folders, files = study_arguments()
folder = folders[0] if folders else None
widths, ladder = (
    sweep_table(name, which, folder and next(iter(folder.parent.glob(name)), None))
    for name, which in (("widths", "models"), ("ladder", "over training"))
)
evidence = optimisation_evidence(widths, *sweep_tables("optimisation", folder), ladder)

# %%
for file in files:
    figures.save(evidence.figures["optimisation"](), file)

# %%
print(evidence)

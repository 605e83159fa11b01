# %% [markdown]
# # Fewer held-out answers on both tasks: the second task, the longer window or the exposure?
# Joint differs from arithmetic alone in all three. Arithmetic alone at window 9 and at window 24,
# there with as many characters of equations as joint has and with as many windows, tells them
# apart. Measure: held-out share, paired by seed, at the last of equally many steps. The joint
# models are the sweep ladder's, whose runs are looked for beside these. What was expected stands in
# train/sweeps/window.toml.

# %%
from tbtt_interp import figures
from tbtt_interp.evidence.models import sweep_table
from tbtt_interp.evidence.window import window_evidence
from tbtt_interp.study import study_arguments

folders, files = study_arguments()
folder = folders[0] if folders else None
models = sweep_table("window", "models", folder)
ladder = sweep_table("ladder", "models", folder and folder.with_name("ladder"))
evidence = window_evidence(models, ladder)

# %%
for file in files:
    figures.save(evidence.figures["window"](), file)

# %%
print(evidence)

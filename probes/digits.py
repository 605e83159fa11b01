# %% [markdown]
# # Where are the digits?
# The operands a and b stand in the text, so that they are read proves nothing; where they are
# kept is the question, and whether the units and tens of the result, which are computed, are
# found after them. Claims: at the prompt's last character, after the last MLP, tens and units are
# read better than off every null. (Tens is nearly additive in the operands; units is not.)

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.probes.run import features_of, last_streams, probe_run
from tbtt_interp.probes.verdict import verdicts

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
asked = [f.name for f in features_of(run) if f.name in ("a", "b", "operator", "tens", "units")]
if not asked:
    sys.exit("This run's task has no digits to add, so this study cannot answer.")
table = probe_run(run, asked, sites=["blocks.0.hook_resid_pre", *last_streams(run)])

# %%
figure = figures.probe_heatmap(table)
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
print(f"{run.folder.name}, {len(run.seeds)} models. Cross-validated accuracy, by position:")
print(
    table.pivot(index="feature", columns=["site", "pos"], values="accuracy").round(2).T.to_string()
)
claimed = table[table["p_adjusted"].notna()]
print(verdicts(claimed).to_string(index=False))
print("The operands have no control task: any code of them is one of their digits renamed.")

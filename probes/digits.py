# %% [markdown]
# # Where are the digits?
# The operands a and b stand in the text, so that they are read proves nothing; where they are
# kept is the question, and whether the units and tens of the result, which are computed, are
# found after them. Claims: at the prompt's last character, after the last MLP, tens and units are
# read better than off every null. (Tens is nearly additive in the operands; units is not.)

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.probes.run import features_of, last_streams, probe_run
from tbtt_interp.probes.verdict import verdicts
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
asked = [f.name for f in features_of(run) if f.name in ("a", "b", "operator", "tens", "units")]
if not asked:
    raise tbtt.TbttError("this run's task has no digits to add: give a run of arithmetic or joint")
table = probe_run(run, asked, sites=["blocks.0.hook_resid_pre", *last_streams(run)])

# %%
figure = figures.probe_heatmap(table)
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models. Cross-validated accuracy, by position:")
print(
    table.pivot(index="feature", columns=["site", "pos"], values="accuracy").round(2).T.to_string()
)
claimed = table[table["p_adjusted"].notna()]
print(verdicts(claimed).to_string(index=False))
print("The operands have no control task: any code of them is one of their digits renamed.")

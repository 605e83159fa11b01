# %% [markdown]
# # When does the answer come to be there?
# Read at every kept checkpoint, after the last MLP at the prompt's last character: the result,
# its sign and its magnitude. Claim: at the last checkpoint the answer is read better than off
# every null, on pairs of operands that the probe was not fitted on. Beside it, how many held-out
# answers a probe reads that was fitted on what the model has seen.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.probes.run import features_of, last_streams, probe_steps
from tbtt_interp.probes.verdict import verdicts
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
asked = [f.name for f in features_of(run) if f.name in ("answer", "sign", "magnitude")]
if not asked:
    raise tbtt.TbttError("this run's task has no sums: give a run of arithmetic or joint")
table = probe_steps(run, asked, sites=last_streams(run)[-1:])

# %%
figure = figures.probe_curves(table)
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models. The answer, by training step:")
shown = ["step", "accuracy", "control", "one_hot", "untrained", "r2", "held_out_right",
         "held_out_of", "p"]  # fmt: skip
print(table.loc[table["feature"] == "answer", shown].round(3).to_string(index=False))
last = table[table["step"] == table["step"].max()]
print(verdicts(last).to_string(index=False))
answer = last[last["feature"] == "answer"].iloc[0]
print(
    f"Of the held-out answers, {answer['held_out_right']} of {answer['held_out_of']} are read by a "
    "probe that was fitted on what the model has seen."
)

# %% [markdown]
# # Does a model know which line comes next?
# Where the next line begins, its first operand can be told from the line before by one who knows
# the order of the file, and by nobody else. Claims: with framing file the next operand is read
# better than in files of another order (control) and better than off an untrained model; with
# framing shuffled it is not. The lines' own text in one-hot is no null here but a limit: it
# identifies the line, and a probe of it can learn the order by itself. The identity of the line
# has no control, since any order renames it. Beside it, what becomes of the answer at the end of
# prompts in the meantime.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.probes.run import features_of, last_streams, probe_steps
from tbtt_interp.probes.verdict import verdicts
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
asked = [f.name for f in features_of(run) if f.asked == "before" or f.name == "answer"]
if "next" not in asked:
    raise tbtt.TbttError(
        "no line of this run tells an operand of the next: give a run of arithmetic"
    )
table = probe_steps(run, asked, sites=last_streams(run)[-1:])

# %%
figure = figures.probe_curves(table)
for file in files:
    figures.save(figure, file)

# %%
print(
    f"{run.folder.name}, framing {run.config.framing}, {len(run.seeds)} models, by training step:"
)
shown = ["step", "feature", "accuracy", "control", "one_hot", "untrained", "compression",
         "control_compression", "held_out_right", "held_out_of", "p"]  # fmt: skip
print(table[shown].round(3).to_string(index=False))
end = table[(table["step"] == table["step"].max()) & (table["feature"] == "next")]
print(verdicts(end.drop(columns="one_hot")).to_string(index=False))
row = end.iloc[0]
print(
    f"Of lines that the probe was not fitted on, it reads the next operand after "
    f"{row['held_out_right']} of {row['held_out_of']}; guessing the commonest reads "
    f"{row['majority']:.0%}."
)

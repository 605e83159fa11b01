# %% [markdown]
# # Does a model know which line comes next?
# Where the next line begins, only the order of the file tells its first operand from the line
# before. Claims: with framing file the next operand is decoded better than in files of another
# order (control) and from an untrained model; with framing shuffled it is not. One-hot text is no
# null here but a limit: it identifies the line, so its probe can learn the order by itself. The
# identity of the next line has no control task, since any order renames it. The figure also shows
# the answer at the end of prompts.

# %%
import tbtt_interp as tbtt
from tbtt_interp.probes.grid import (
    NULLS,
    last_streams,
    plot_probe_steps,
    probe_claims,
    probe_steps,
)
from tbtt_interp.study import save_figure, study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
features = ["answer", "line", "next"]
table = probe_steps(run, features, sites=last_streams(run)[-1:])

# %%
figure = plot_probe_steps(table)
save_figure(figure, files, "Does a model know which line comes next?", run.title)

# %%
framing = run.config.framing
print(f"{run.folder.name}, framing {framing}, {len(run.seeds)} models, by training step:")
columns = ["step", "feature", "accuracy", "control", "one_hot", "untrained", "compression",
           "control_compression", "held_out_correct", "held_out_of", "p"]  # fmt: skip
print(table[columns].round(3).to_string(index=False))
last = table[(table["step"] == table["step"].max()) & (table["feature"] == "next")]
nulls = {column: name for column, name in NULLS.items() if column != "one_hot"}
print("\nAt the last checkpoint:", *probe_claims(last, nulls), sep="\n")
row = last.iloc[0]
print(
    f"After lines that the probe was not fitted on, it decodes the next operand in "
    f"{row['held_out_correct']} of {row['held_out_of']}; the majority class gives "
    f"{row['majority']:.0%}."
)

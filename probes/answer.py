# %% [markdown]
# # When does the answer become decodable?
# At every kept checkpoint probes read the result, its sign and its magnitude, after the last MLP at
# the prompt's last character. Claim: at the last checkpoint the answer is decoded better than from
# every null, on pairs of operands that the probe was not fitted on. The table also counts held-out
# answers that a probe decodes which was fitted on what the model has seen.

# %%
import tbtt_interp as tbtt
from tbtt_interp.probes.grid import last_streams, plot_probe_steps, probe_claims, probe_steps
from tbtt_interp.study import save_figure, study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
features = ["answer", "sign", "magnitude"]
table = probe_steps(run, features, sites=last_streams(run)[-1:])

# %%
figure = plot_probe_steps(table)
save_figure(figure, files, "When does the answer become decodable?", run.title)

# %%
print(f"{run.title}. The answer, by training step:")
columns = ["step", "accuracy", "control", "one_hot", "untrained", "r2", "held_out_correct",
           "held_out_of", "p"]  # fmt: skip
print(table.loc[table["feature"] == "answer", columns].round(3).to_string(index=False))
last = table[table["step"] == table["step"].max()]
print("\nAt the last checkpoint:", *probe_claims(last), sep="\n")
row = last[last["feature"] == "answer"].iloc[0]
print(
    f"A probe fitted on what the model has seen decodes {row['held_out_correct']} of "
    f"{row['held_out_of']} held-out answers."
)

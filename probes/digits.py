# %% [markdown]
# # Where are the digits?
# The operands a and b stand in the text, so decoding them proves nothing; the question is where
# they are kept. The units and tens of the result are computed. Claims: at the prompt's last
# character, after the last MLP, tens and units are decoded better than from every null. (Tens is
# nearly additive in the operands; units is not.)

# %%
import tbtt_interp as tbtt
from tbtt_interp.probes.grid import last_streams, plot_probe_grid, probe_claims, probe_grid
from tbtt_interp.study import save_figure, study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
models = tbtt.Models.of(run)
features = ["a", "b", "operator", "tens", "units"]
table = probe_grid(models, features, sites=["blocks.0.hook_resid_pre", *last_streams(run)])

# %%
figure = plot_probe_grid(table)
save_figure(figure, files, "Where are the digits?", models.title)

# %%
print(f"{models.title}. Cross-validated accuracy, by position:")
print(
    table.pivot(index="feature", columns=["site", "pos"], values="accuracy").round(2).T.to_string()
)
print("\nPrimary cells:", *probe_claims(table[table["p_adjusted"].notna()]), sep="\n")
print("The operands have no control task: any code of them is one of their digits renamed.")

# %% [markdown]
# # What of a fact is decodable before it is said?
# At the end of "Capital of France is " the text gives the country. It does not give the capital's
# first letter and length. A probe fitted on other countries cannot know a new fact. It can find a
# code for letters that the model itself uses to say them. Claims: letter and length are decoded
# better than from every null, in a model that knows the facts. The country is decoded wherever the
# prompt's left end is cut.

# %%
import tbtt_interp as tbtt
from tbtt_interp.probes.datasets import features_of
from tbtt_interp.probes.grid import last_streams, plot_probe_accuracies, probe_claims, probe_grid
from tbtt_interp.study import save_figure, study_arguments

(folder, *_), files = study_arguments("runs/facts-medium-file")
run = tbtt.load_run(folder)
models = tbtt.Models.of(run)
known = [feature.name for feature in features_of(models.shared_prompts)]
features = [name for name in known if name in ("initial", "length", "country", "task")]
if "initial" not in features:
    raise tbtt.TbttError("this run's task has no facts: give a run of facts or joint")
table = probe_grid(models, features, sites=last_streams(run), positions=[-1])

# %%
figure = plot_probe_accuracies(table)
save_figure(figure, files, "What of a fact is decodable before it is said?", models.title)

# %%
claimed = table["feature"].isin(["initial", "length"])
print(f"{models.title}.", *probe_claims(table[claimed]), sep="\n")
for row in table[~claimed].itertuples():
    print(
        f"{row.feature} at {row.site}: accuracy {row.accuracy:.2f}, untrained "
        f"{row.untrained:.2f}; the text gives this feature."
    )

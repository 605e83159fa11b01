# %% [markdown]
# # What of a fact is there before it is said?
# At the end of "Capital of France is " the country is known from the text; the capital's first
# letter and length are not, unless the fact is. A probe fitted on other countries cannot know a
# fact it was not fitted on; what it can find is a code for letters that the model itself uses, as
# it must to say them. Claims: letter and length are read better than off every null in a model
# that knows the facts. The country is read wherever the prompt's left end is cut.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.probes.run import features_of, last_streams, probe_run
from tbtt_interp.probes.verdict import verdicts
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/facts-medium-file")
run = tbtt.load_run(folder)
asked = [f.name for f in features_of(run) if f.name in ("initial", "length", "country", "task")]
if "initial" not in asked:
    raise tbtt.TbttError("this run's task has no facts: give a run of facts or joint")
table = probe_run(run, asked, sites=last_streams(run), positions=[-1])

# %%
figure = figures.accuracies_beside_nulls(table)
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models. Cross-validated accuracy:")
claimed = table["feature"].isin(["initial", "length"])
print(verdicts(table[claimed]).to_string(index=False))
for row in table[~claimed].itertuples():
    print(
        f"{row.feature} at {row.site}: {row.accuracy:.2f}, untrained {row.untrained:.2f}, and it "
        "stands in the text."
    )

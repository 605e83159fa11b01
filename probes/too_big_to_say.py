# %% [markdown]
# # Too big to say?
# Where a model answers a held-out equation wrongly, is the right answer in it all the same?
# Claims: (1) a probe fitted on the equations that the model has seen, frozen, reads the right
# answer there, more often than the same probe of control tasks (p ≤ 0.05), of the operands alone,
# and of the model before training; (2) moving the code alone to where it should be turns wrong
# answers right, more often than in subspaces of control tasks, of random labels and at random.
# The probe of (1) may use every direction, the code has one or two; how many are read in the code
# alone is given beside. Both together are "too big to say"; what is not there cannot be said, and
# what is read and does not act may be the probe's own doing. p is that of a row, not corrected
# for their number.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.probes.effects import coded_features, unsaid_table
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
if not any(example.held_out for task in run.tasks for example in task.examples):
    raise tbtt.TbttError("nothing was held out from this run: give one of arithmetic or joint")
table = unsaid_table(run, coded_features(run))

# %%
figure = figures.unsaid(table)
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models; held-out equations answered wrongly: wrong.")
print(table.round(2).to_string(index=False))
beyond = table[["read_control", "read_one_hot", "read_untrained"]].max(axis=1)
read = (table["read"] > beyond) & (table["read_p"] <= 0.05)
flipped = (table["flipped"] > 0) & (table["flipped_p"] <= 0.05)
for words, mask in (("Read beyond every null", read), ("Turned right beyond every null", flipped),
                    ("Both, too big to say", read & flipped)):  # fmt: skip
    names = [f"{row.feature} at {row.site}" for row in table[mask].itertuples()]
    print(f"{words}: {', '.join(names) or 'nowhere'}.")

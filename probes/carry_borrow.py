# %% [markdown]
# # Is the carry computed, and is it used?
# A carry (a + b ≥ 10) and a borrow (a < b) are thresholds of a sum, which the operands alone give
# a linear probe only in part. Claims: at the prompt's last character, in the last layer, a probe
# reads them better than off every null; and taking another equation's code along makes the
# answer's first character follow, more than taking another code of equal rank.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.probes.effects import causal_table
from tbtt_interp.probes.run import features_of, last_streams, probe_run
from tbtt_interp.probes.verdict import verdicts
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
asked = [f.name for f in features_of(run) if f.name in ("carry", "borrow")]
if not asked:
    raise tbtt.TbttError(
        "this run's task has no carries and borrows: give a run of arithmetic or joint"
    )
read = probe_run(run, asked, sites=last_streams(run), positions=[-1])
used = causal_table(run, asked, sites=last_streams(run))

# %%
figure = figures.effects_beside_nulls(used)
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models. Read, cross-validated accuracy:")
print(verdicts(read).to_string(index=False))
print("Used, share of swaps that the answer's first character follows:")
found = verdicts(used[used["measure"] == "answer follows"])
print(found.to_string(index=False))
print(f"Of {len(found)} claims of use, {(found['verdict'] == 'supported').sum()} are supported.")

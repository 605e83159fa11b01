# %% [markdown]
# # Is the carry computed, and is it used?
# A carry (a + b ≥ 10) and a borrow (a < b) are thresholds of a sum, which the operands alone give
# a linear probe only in part. Claims: at the prompt's last character, in the last layer, a probe
# reads them better than off every null; and taking another equation's code along makes the
# answer's first character follow, more than taking another code of equal rank.

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.probes.effects import causal_table
from tbtt_interp.probes.run import features_of, last_streams, probe_run
from tbtt_interp.probes.verdict import verdicts

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
asked = [f.name for f in features_of(run) if f.name in ("carry", "borrow")]
if not asked:
    sys.exit("This run's task has neither carries nor borrows, so this study cannot answer.")
read = probe_run(run, asked, sites=last_streams(run), positions=[-1])
used = causal_table(run, asked, sites=last_streams(run))

# %%
figure = figures.effects_beside_nulls(used)
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
print(f"{run.folder.name}, {len(run.seeds)} models. Read, cross-validated accuracy:")
print(verdicts(read).to_string(index=False))
print("Used, share of swaps that the answer's first character follows:")
found = verdicts(used[used["measure"] == "answer follows"])
print(found.to_string(index=False))
print(f"Of {len(found)} claims of use, {(found['verdict'] == 'supported').sum()} are supported.")

# %% [markdown]
# # How are operands laid out?
# A code is a vector for each digit: its embedding, and what each operand adds at "=" on average
# over the other. Questions: is a code a number line, is it circular, how many directions does it
# take, and is b's code the same as a's, or its negative? Measures: the share of variance that is
# linear in the digit, Spearman's correlation of distances with differences, the Fourier spectrum
# over the digits, effective rank, and the signed cosine and CKA of the operands' codes. Nulls:
# digits in random order (for the rank, random vectors), and the untrained models. Further runs are
# compared in 14 random dimensions.

# %%
import sys

import tbtt_interp as tbtt
from tbtt_interp import figures

run = tbtt.load_run(sys.argv[1] if len(sys.argv) > 1 else "runs/arithmetic-medium-file")
others = [tbtt.load_run(folder) for folder in sys.argv[3:]]
try:
    result = tbtt.analyse_geometry(run, *others)
except tbtt.TbttError as error:
    sys.exit(f"{error}, so this study cannot answer.")

# %%
figure = result.figures["geometry"]()
if len(sys.argv) > 2:
    figures.save(figure, sys.argv[2])

# %%
result.figures["codes"]()

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

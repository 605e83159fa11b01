# %% [markdown]
# # How much of the answers is memorized?
# No meter is of memorization alone, so several are read. Question: do models of this size, on this
# framing, store lines or compute them? Measures: bits of seen and held-out answers and of the order
# of the lines, by the parameter; the local learning coefficient; the loss with the operands' main
# directions alone, and without them; and, of models that each hold out their own pair, what pair
# does to pair. Nulls: a reader who knows how often each answer occurs; a regular model; random
# directions; models that are dealt anew which pair they hold out.

# %%
import tbtt_interp as tbtt
from tbtt_interp import figures
from tbtt_interp.study import study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
result = tbtt.analyse_memorization(run)

# %%
figure = result.figures["memorization"]()
for file in files:
    figures.save(figure, file)

# %%
print(f"{run.folder.name}, {len(run.seeds)} models.")
print(result)

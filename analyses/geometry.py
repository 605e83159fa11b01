# %% [markdown]
# # How are operands represented?
# A representation is a vector for each digit: its embedding, and what each operand adds at "=" on
# average over the other. Is it a number line? Is it circular? How many directions does it take? Is
# b's the same as a's, or its negative? Measures: the share of variance that is linear in the digit,
# Spearman's correlation of distances with differences, the Fourier spectrum over the digits,
# effective rank, and the cosine and CKA of both operands' representations. Nulls: permuted digits
# (for the rank, random vectors), and the untrained models. Further runs are compared in 14 random
# dimensions.

# %%
import tbtt_interp as tbtt
from tbtt_interp.study import save_figure, study_arguments

folders, files = study_arguments("runs/arithmetic-medium-file", most=None)
run, *others = map(tbtt.load_run, folders)
result = tbtt.analyse_geometry(run, *others)

# %%
figure = result.figures["geometry"]()
save_figure(figure, files, "How are operands represented?", run.title)

# %%
print(f"{run.title}.")
print(result)

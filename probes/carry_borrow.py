# %% [markdown]
# # Is the carry computed, and is it used?
# A carry (a + b ≥ 10) and a borrow (a < b) are thresholds of a sum. From the one-hot operands a
# linear probe decodes them in part, from the operands as plain numbers wholly, and other thresholds
# that decide nothing as well. So decoding is no evidence of arithmetic. Claims: at the prompt's
# last character, in the last layer, a probe decodes them better than from every null; and when
# their code is interchanged with that of another equation, the answer's first character follows
# more often than with null codes of equal rank.

# %%
import tbtt_interp as tbtt
from tbtt_interp.probes.effects import analyse_erasure, plot_effects
from tbtt_interp.probes.grid import analyse_probes, last_streams
from tbtt_interp.study import save_figure, study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
models = tbtt.Models.of(run)
features = ["carry", "borrow"]
decoded = analyse_probes(models, features, sites=last_streams(run), positions=[-1])
used = analyse_erasure(models, features, sites=last_streams(run))

# %%
figure = plot_effects(used.tables["erasure"])
save_figure(figure, files, "Is the carry computed, and is it used?", models.title)

# %%
print(f"{models.title}. Decoded:\n{decoded}\n\nUsed:\n{used}\n")
claims = [claim for claim in used.claims if claim.text.startswith("Interchanging")]
supported = sum(claim.verdict == "supported" for claim in claims)
print(f"Of {len(claims)} claims that a code is used, {supported} are supported.")

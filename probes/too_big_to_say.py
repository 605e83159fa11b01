# %% [markdown]
# # Too big to say?
# Where a model answers a held-out equation wrongly, can the right answer be decoded all the same?
# Claims: (1) a probe fitted on the equations that the model has seen decodes the right label there,
# more often than for control tasks (p ≤ 0.05), from the operands alone, and from the untrained
# model; (2) moving the code to where it should be corrects wrong answers, more often than in
# subspaces of control tasks, of permuted labels and at random. The probe of (1) may use every
# direction, the code has one or two; "decoded in code" is from those alone. Both claims together
# are a latent answer. A label that is decoded and does not act may be the probe's own doing. No p
# is corrected for the number of rows.

# %%
import tbtt_interp as tbtt
from tbtt_interp.probes.effects import analyse_latent_answers, plot_effects
from tbtt_interp.study import save_figure, study_arguments

(folder, *_), files = study_arguments("runs/arithmetic-medium-file")
run = tbtt.load_run(folder)
if not any(example.held_out for task in run.tasks for example in task.examples):
    raise tbtt.TbttError("nothing was held out from this run: give one of arithmetic or joint")
models = tbtt.Models.of(run)
result = analyse_latent_answers(models)
table = result.tables["latent-answers"]

# %%
figure = plot_effects(table)
save_figure(figure, files, "Too big to say?", models.title)

# %%
print(f"{models.title}; held-out equations that they answer wrongly.\n{result}\n")
places = table["feature"] + " at " + table["site"]
verdicts = [claim.verdict for claim in result.claims]
supported = {
    measure: {place for place, is_one, verdict in zip(places, rows, verdicts, strict=True)
              if is_one and verdict == "supported"}
    for measure in ("decoded", "corrected") for rows in [table["measure"] == measure]
}  # fmt: skip
supported["decoded and corrected"] = supported["decoded"] & supported["corrected"]
for measure, found in supported.items():
    print(f"Supported, {measure}: {', '.join(sorted(found)) or 'nowhere'}.")

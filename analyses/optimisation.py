# %% [markdown]
# # How much of "too big" is "trained otherwise"?
# The published mlt has a thousandth of the other sizes' learning rate. Measures: held-out answers
# of small, medium and large on file at three rates, and of mlt at a hundred times its published
# rate, beside the ladder's models when they know as much. The rates are cells of the sweep widths,
# whose runs are looked for beside these, as are the ladder's. The expectations stand in
# train/sweeps/optimisation.toml.

# %%
import pandas as pd

from tbtt_interp import conditions, plots
from tbtt_interp.results import Claim, Result
from tbtt_interp.stats import SHARE
from tbtt_interp.study import study_arguments
from tbtt_interp.sweep_tables import SHIPPED, sweep_table, with_accuracies
from tbtt_interp.train.sweep import read_sweep

PUBLISHED = pd.read_csv(SHIPPED / "published.csv").set_index(["task", "size"])
PUBLISHED_RATE = 1e-2  # of the one-layer sizes
LEVELS = {"99% of seen": ("seen_accuracy", 0.99), "0.15 of order": ("order_known", 0.15)}
NOTES = (
    "seen, held-out: right answers of all, all models together; each: held-out right, model by "
    "model; accuracy: mean over models; order known: the share of the file's order that the loss "
    "shows. lowest: the rate of a size with the lowest mean loss. On file a low loss takes the "
    "order, too.",
    "paper: Barron and White, arXiv 2506.09099v2, at a peak rate of 1e-2, for mlt 1e-5. Ours of "
    "mlt differs in steps, batch, dropout and rate. It can say that size alone does not decide, "
    "and not which of these does.",
    "On arithmetic mlt ends when it knows the seen equations and little of the order. So each "
    "model is compared at its first evaluation that knows so much; models that never do are left "
    "out. That comparison was thought of after mlt's answers had been seen.",
)


# %%
def lowest_loss(rates: pd.DataFrame) -> pd.DataFrame:
    """One row per size and learning rate: the mean last `loss`, and whether it is the `lowest`."""
    table = rates.groupby(["size", "learning_rate"], sort=False)["loss"].mean().reset_index()
    return table.assign(lowest=table.index.isin(table.groupby("size")["loss"].idxmin()))


def matched_models(ladder: pd.DataFrame, mlt: pd.DataFrame) -> pd.DataFrame:
    """Each model on arithmetic at its first evaluation that knows so much, on mlt's framings.

    Returns:
        one row per model and `level`, with `of`, the models of its size and framing.
    """
    every = pd.concat([conditions.select(t, task="arithmetic") for t in (ladder, mlt)])
    every = every[every["framing"].isin(conditions.select(every, size="mlt")["framing"])]
    every = every.sort_values(["framing", "width"], kind="stable", ignore_index=True)
    conditions.check_one_each(every, ["framing", "size", "step"])
    every = every.assign(of=every.groupby(["framing", "size"])["seed"].transform("nunique"))
    return pd.concat([
        conditions.first_evaluations(every, every[measure] >= level).assign(level=name)
        for name, (measure, level) in LEVELS.items()
    ])  # fmt: skip


def display_rows(both: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """One printed row per task, framing, size and learning rate, beside the paper's answers."""
    rows = []
    for cell, models in both.groupby(["task", "framing", "size", "learning_rate"], sort=False):
        task, framing, size, rate = cell
        paper = PUBLISHED.reindex([(task, size)]).iloc[0]
        of_facts, held_out = f"{paper['facts']:.1%} facts", f"{4 * paper['held_out']:.0f}/4"
        is_published = framing == "file" and (size == "mlt" or rate == PUBLISHED_RATE)
        is_lowest = len(conditions.select(rates, size=size, learning_rate=rate, lowest=True)) > 0
        each = models.sort_values("seed").dropna(subset="held_out_right")
        rows.append({
            "task": task, "framing": framing, "size": size,
            "rate": f"{rate:g}{' lowest' if is_lowest else ''}", **conditions.answers_text(models),
            "each": " ".join(each["held_out_right"].map("{:.0f}".format)),
            "at best": " ".join(each["best"].dropna().map("{:.0f}".format)),
            "loss": f"{models['loss'].mean():.3f}",
            "paper": (of_facts if task == "facts" else held_out) if is_published else "",
        })  # fmt: skip
    return pd.DataFrame(rows)


def optimisation_claims(
    rates: pd.DataFrame, best: float, mlt: pd.DataFrame, matched: pd.DataFrame
) -> list[Claim]:
    """What was expected before the run, and large beside mlt when both know the seen equations."""
    rate, every, shuffled = read_sweep("optimisation").expected
    at_best, published = (
        conditions.by_seed(rates, size="large", learning_rate=x) for x in (best, PUBLISHED_RATE)
    )
    file, other = (conditions.by_seed(mlt, task="arithmetic", size="mlt", framing=framing)
                   for framing in ("file", "shuffled"))  # fmt: skip
    expected = (
        (rate, at_best - published, 0.0, f"the rate of lowest loss is {best:g}; no difference"),
        (every, (file > 0).astype(float), 1.0, "every one"),
        (shuffled, other - file, 0.0, "no difference"),
    )
    claims = [
        conditions.claim_over_models(
            values, text=text, unit="of models" if null else "of held-out accuracy", null=null,
            null_name=null_name, or_equal=text != rate, origin="expected before the run")
        for text, values, null, null_name in expected
    ]  # fmt: skip
    known = conditions.select(matched, level="99% of seen")
    for framing in dict.fromkeys(known["framing"]):
        wide, widest = (
            conditions.by_seed(known, framing=framing, size=s) for s in ("large", "mlt")
        )
        if len(wide) and len(widest):
            claims.append(conditions.claim_over_models(
                wide, SHARE, text=f"On {framing}, when both first know 99% of the seen, large "
                "answers less of the held-out than mlt.", unit="of the held-out", direction="below",
                null=float(widest.min()), null_name="the mlt that answers fewest"))  # fmt: skip
    return claims


def optimisation_result(
    widths: pd.DataFrame, models: pd.DataFrame, over: pd.DataFrame, ladder: pd.DataFrame
) -> Result:
    """What the learning rate does on file, and what mlt answers at a rate that trains it.

    Args:
        widths: the models of the sweep widths, whose cells on file have three rates.
        models, over: of the sweep optimisation, at the last step and over training.
        ladder: the ladder's models over training.
    """
    for table in (widths, models):
        conditions.check_one_each(table, ["task", "framing", "size", "learning_rate"])
    rates = conditions.select(with_accuracies(widths), framing="file")
    rates = rates[rates["size"].isin(["small", "medium", "large"])].sort_values(
        ["width", "learning_rate"], kind="stable"
    )
    over = with_accuracies(over)
    best = over.groupby(["run", "seed"])["held_out_right"].max().rename("best")
    mlt = with_accuracies(models).merge(best, on=["run", "seed"])
    both, lowest = pd.concat([rates, mlt], ignore_index=True), lowest_loss(rates)
    matched = matched_models(with_accuracies(ladder), over)
    matched_display = pd.DataFrame([
        dict(zip(("first knowing", "framing", "size"), cell, strict=True))
        | conditions.answers_text(rows) | {"models": f"{len(rows)} of {rows['of'].iloc[0]}"}
        for cell, rows in matched.groupby(["level", "framing", "size"], sort=False)
    ])  # fmt: skip
    of_large = conditions.select(lowest, size="large", lowest=True)["learning_rate"]
    claims = optimisation_claims(rates, of_large.mean(), mlt, matched)
    shown = conditions.select(both, task="arithmetic")
    series = "rate " + shown["learning_rate"].map("{:g}".format) + ", " + shown["framing"]
    return Result(
        name="optimisation", question='How much of "too big" is "trained otherwise"?',
        tables={"optimisation-models": both, "optimisation-rates": lowest,
                "optimisation-matched": matched},
        display=display_rows(both, lowest), claims=claims,
        command="tbtt sweep ladder && tbtt sweep widths && tbtt sweep optimisation && "
        "python analyses/optimisation.py runs/optimisation",
        more_displays={"Answers at the first evaluation that knows so much": matched_display}
        if len(matched) else {},
        notes=[*NOTES, conditions.interval_note(claims)],
        figures={
            "optimisation": lambda: plots.models_by_group(
                shown.assign(series=series), x="size", by="series", value="held_out_accuracy",
                bounds=SHARE, titles=("", "held-out accuracy")),
            "optimisation-mlt": lambda: conditions.plot_over_training(over, panel="task"),
        },
    )  # fmt: skip


# %%
if __name__ == "__main__":
    folders, files = study_arguments()
    folder = folders[0] if folders else None
    widths, ladder = (
        sweep_table(name, which, folder and next(iter(folder.parent.glob(name)), None))
        for name, which in (("widths", "models"), ("ladder", "over training"))
    )
    mlt, over = (sweep_table("optimisation", w, folder) for w in ("models", "over training"))
    result = optimisation_result(widths, mlt, over, ladder)
    for file in files:
        plots.save(result.figures["optimisation"](), file)
    print(result)

# %% [markdown]
# # Size, order and learning rate, crossed
# Three sizes, at three learning rates, on the file, on shuffled lines and on whole lines; each
# model is asked equations that it holds out: of one pair, or of eleven. Where does size cost the
# rule, and is it size, the order of the file, or the rate? The expectations stand in
# train/sweeps/why-size.toml.

# %%
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from sweeps import answer_as_script, select

from tbtt_interp import plots
from tbtt_interp.results import Claim, Result
from tbtt_interp.shares import Counts, difference_of_shares, share_over_models
from tbtt_interp.stats import UNMEASURED
from tbtt_interp.train.effects import FITTED
from tbtt_interp.train.sweep import read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

READS = [("why-size", "fits")]
CELL = ["held_out_per_model", "framing", "size", "learning_rate"]
SIZES, FRAMINGS = ("small", "medium", "large"), ("line", "shuffled", "file")
NEAR = 0.15  # sizes that differ by less, each at its best rate, count as equal
LOST = 0.5  # of a model's best share: below it, at the end, the rule is lost
NOTES = (
    "Shares are of all held-out equations that the models of a cell were asked, with the 95 % "
    "interval of the beta-binomial; differences are of independent groups.",
    "at fit: at each model's first evaluation with 99 % of the seen right; later: at the "
    "step where the sum of learning rates since the fit is the same for all models; models that "
    "never fit are left out of both. lost: fitted models that end with less than half of their own "
    "best share.",
)


# %%
def counts_at(models: pd.DataFrame, read: str) -> Counts:
    """Each model's right and asked held-out equations at its fit, later, at its best or the end."""
    if read in ("fit", "later"):
        models = models[models[f"{read}_step"].notna()]
    pairs = models[[f"{read}_right", "held_out_of"]].astype(int)
    return [(right, of) for right, of in pairs.itertuples(index=False)]


def per_model(fits: pd.DataFrame) -> pd.DataFrame:
    """The table with `held_out_per_model`: one pair, or a hand of eleven."""
    one = fits["held_out"].str.count(",") == 1
    return fits.assign(held_out_per_model=one.map({True: "one pair", False: "eleven pairs"}))


def cells(fits: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: models, how many fit and lost the rule, and held-out shares as text."""
    rows = []
    for cell, models in fits.groupby(CELL, sort=False):
        fitted = models[models["fit_step"].notna()]
        lost = fitted[fitted["end_right"] < LOST * fitted["best_right"]]
        rows.append(dict(zip(CELL, cell, strict=True)) | {
            "models": len(models), "fit": len(fitted), "lost": len(lost),
            "seen": models["end_seen_accuracy"].mean(), "loss": models["loss"].mean(),
            "at fit": _text(fitted, "fit"), "later": _text(fitted, "later"),
            "at the end": _text(models, "end"),
        })  # fmt: skip
    order = {name: place for place, name in enumerate((*SIZES, *FRAMINGS))}
    return pd.DataFrame(rows).sort_values(
        CELL, key=lambda x: x.map(order) if x.name in ("framing", "size") else x, ignore_index=True
    )


def _text(models: pd.DataFrame, read: str) -> str:
    counts = counts_at(models, read)
    return share_over_models(counts).format() if counts else ""


def best_rate(models: pd.DataFrame) -> pd.DataFrame:
    """The models of the rate at which most held-out equations are right at the fit."""
    fitted = models[models["fit_step"].notna()]
    if fitted.empty:
        return models.head(0)
    sums = fitted.groupby("learning_rate")[["fit_right", "held_out_of"]].sum()
    return select(fitted, learning_rate=(sums["fit_right"] / sums["held_out_of"]).idxmax())


def size_claims(fits: pd.DataFrame) -> list[Claim]:
    """What was expected before the run, of models that hold out eleven pairs each."""
    order, rate, forgetting = (
        text.partition(";")[0].rstrip(".") + "." for text in read_sweep("why-size").expected
    )
    hands = select(fits, held_out_per_model="eleven pairs")
    claims = []

    def add(text: str, first: Counts, second: Counts, **words: Any) -> None:
        effect = difference_of_shares(first, second) if first and second else UNMEASURED
        claims.append(Claim(
            text=text, effect=effect, unit="of the held-out", origin="expected before the run",
            **{"null": 0.0, "null_name": "no difference"} | words,
        ))  # fmt: skip

    for size in SIZES[1:]:
        for at in sorted(hands["learning_rate"].unique()):
            file, shuffled = (
                counts_at(select(hands, size=size, learning_rate=at, framing=framing), "fit")
                for framing in ("file", "shuffled")
            )
            add(f"{order} Shuffled minus file, {size} at {at:g}:", file, shuffled)
    best = {size: counts_at(best_rate(select(hands, framing="shuffled", size=size)), "fit")
            for size in SIZES}  # fmt: skip
    for size in SIZES[1:]:
        add(f"{rate} Small minus {size}:", best[size], best["small"], direction="below",
            null=NEAR, null_name="the bound")  # fmt: skip
    large = select(hands, framing="line", size="large", learning_rate=1e-2)
    add(f"{forgetting} The end less the fit:", counts_at(large, "fit"), counts_at(large, "end"),
        direction="below")  # fmt: skip
    return claims


def draw_sizes(fits: pd.DataFrame) -> "Figure":
    """Held-out against seen share at the end, a dot per model, coloured by learning rate."""
    hands = select(fits, held_out_per_model="eleven pairs")
    trained = set(zip(hands["size"], hands["framing"], strict=True))
    rates = sorted(hands["learning_rate"].unique())
    panels = [(size, framing) for framing in FRAMINGS for size in SIZES
              if framing in set(hands["framing"])]  # fmt: skip
    titles = [f"{size}, {framing}" + ": not trained" * ((size, framing) not in trained)
              for size, framing in panels]  # fmt: skip
    figure, places = plots.panels(titles, height=230, gap=60)
    for (size, framing), place in zip(panels, places, strict=True):
        for rate in rates:
            models = select(hands, size=size, framing=framing, learning_rate=rate)
            figure.add_scatter(
                x=models["end_seen_accuracy"], y=models["end_accuracy"], mode="markers",
                name=f"rate {rate:g}", **place,
                marker={"color": plots.colour_of(rate, rates), "size": 8, "opacity": 0.7},
                hovertemplate="seen %{x:.2f}, held-out %{y:.2f}",
            )  # fmt: skip
        figure.add_vline(x=FITTED, line={"color": plots.GREY, "dash": "dot"}, **place)  # pyright: ignore
    figure.update_yaxes(range=[-0.03, 1.03]).update_yaxes(title="held-out", col=1)
    figure.update_xaxes(range=[-0.03, 1.06])
    figure.update_xaxes(title="seen", row=places[-1]["row"])
    return plots.name_once(figure)


def size_result(fits: pd.DataFrame) -> Result:
    """The study's result on the fits of the sweep why-size."""
    fits = per_model(fits)
    claims, table = size_claims(fits), cells(fits)
    return Result(
        name="size", question="Is it size, the order of the file, or the learning rate?",
        command="python analyses/size.py", tables={"size": table}, claims=claims,
        display=table.round({"seen": 2, "loss": 3}), notes=NOTES,
        figures={"size": partial(draw_sizes, fits)},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(size_result, READS, "size")

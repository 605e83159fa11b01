# %% [markdown]
# # How much of the held-out accuracy is order, framing and size?
# Five widths on three framings. Order is shuffled minus file, framing is line minus shuffled, and
# the cost of width on line is size. Measures, at the last step: both differences at each width,
# paired by seed; the slope of held-out accuracy on log2 of width; and the difference of width 14
# and 56 on file, split exactly. The expectations stand in train/sweeps/widths.toml.

# %%
from typing import Any

import numpy as np
import pandas as pd
from sweeps import (
    answer_as_script,
    answers_text,
    by_seed,
    check_one_each,
    claim_over_models,
    interval_note,
    mean_text,
)

from tbtt_interp import plots
from tbtt_interp.model_tables import with_accuracies
from tbtt_interp.results import Result
from tbtt_interp.stats import SHARE, summarize
from tbtt_interp.train.sweep import read_sweep

READS = [("widths", "models")]
FRAMINGS = ("file", "shuffled", "line")
NARROW, WIDE = 14, 56  # small and large, whose difference is divided
NOTES = (
    "seen, held-out: right answers of all models together. Differences are of held-out accuracy, "
    "means over models, paired by seed. order: shuffled minus file. framing: line minus shuffled; "
    "it includes the batch, which on line is every line once.",
    "Each width's learning rate has the lowest final loss minus the line-entropy floor, averaged "
    "over shuffled and line. Held-out answers do not affect this choice.",
)


# %%
def picked_rates(models: pd.DataFrame) -> pd.Series:
    """Each width's learning rate with the lowest loss above the floor, on shuffled and line."""
    floor = models["floor_lines"].where(models["framing"] != "line", models["floor_line"])
    unordered = models.assign(above=models["loss"] - floor)[models["framing"] != "file"]
    means = unordered.groupby(["width", "learning_rate", "framing"])["above"].mean()
    best = means.groupby(["width", "learning_rate"]).mean().groupby("width").idxmin()
    return best.str[1]


def differences(models: pd.DataFrame) -> pd.DataFrame:
    """One row per `difference` of held-out accuracies and seed, with its `value`."""
    share = models.pivot(index="seed", columns=["width", "framing"], values="held_out_accuracy")
    widths = sorted(models["width"].unique())
    cells = pd.MultiIndex.from_product([sorted({*widths, NARROW, WIDE}), FRAMINGS])
    share = share.reindex(columns=cells).astype(float)
    found: dict[str, pd.Series] = {}
    for width in widths:
        found[f"order at width {width}"] = share[width, "shuffled"] - share[width, "file"]
        found[f"framing at width {width}"] = share[width, "line"] - share[width, "shuffled"]
    gap = {f: share[NARROW, f] - share[WIDE, f] for f in FRAMINGS}
    found |= {f"width {NARROW} minus {WIDE} on {f}": values for f, values in gap.items()}
    found["on file, order and framing minus what is left on line"] = gap["file"] - 2 * gap["line"]
    x = np.log2(widths) - np.log2(widths).mean()
    for framing in FRAMINGS:
        slope = share.xs(framing, axis=1, level=1)[widths].dropna() @ (x / (x**2).sum())
        found[f"a doubling of width on {framing}"] = slope.round(12)  # rounding noise is no slope
    rows = pd.DataFrame(found).rename_axis("seed").reset_index()
    return rows.melt("seed", var_name="difference").dropna(ignore_index=True)


def widths_result(models: pd.DataFrame) -> Result:
    """How much of the held-out accuracy is order, how much framing, and how much size."""
    check_one_each(models, ["width", "framing", "learning_rate"])
    order_of = dict(zip(FRAMINGS, range(3), strict=True))
    models = with_accuracies(models).sort_values(
        ["width", "framing"], key=lambda column: column.replace(order_of), kind="stable"
    )
    models = models[models["learning_rate"] == models["width"].map(picked_rates(models))]
    rows = differences(models)
    display = pd.DataFrame([
        {"width": width, "framing": framing, "rate": f"{cell['learning_rate'].iloc[0]:g}",
         **answers_text(cell)}
        for (width, framing), cell in models.groupby(["width", "framing"], sort=False)
    ])  # fmt: skip
    text = rows.groupby("difference", sort=False)["value"].agg(mean_text, with_n=True)
    order, framing, size, more = read_sweep("widths").expected
    said: dict[str, Any] = {"null": 0.0, "null_name": "no difference",
                            "origin": "expected before the run"}  # fmt: skip
    unit = "of held-out accuracy"
    claims = [
        claim_over_models(by_seed(rows, "value", difference=name), text=text, unit=unit + per,
                          direction=direction, **said)
        for name, text, direction, per in (
            (f"order at width {WIDE}", order, "above", ""),
            (f"framing at width {WIDE}", framing, "above", ""),
            ("a doubling of width on line", size, "below", " per doubling of width"),
            ("on file, order and framing minus what is left on line", more, "above", ""))
    ]  # fmt: skip
    return Result(
        name="widths", question="How much of the held-out accuracy is order, framing and size?",
        tables={"widths-models": models,
                "widths-differences": summarize(rows, ["difference"], ["value"])},
        display=display, claims=claims, notes=[*NOTES, interval_note(claims)],
        command="tbtt sweep widths && python analyses/widths.py runs/widths",
        more_displays={"Differences of held-out accuracy (models)": text.reset_index()},
        figures={"widths": lambda: plots.models_by_group(
            models, x="width", by="framing", value="held_out_accuracy", bounds=SHARE,
            titles=("width", "held-out accuracy"))},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(widths_result, READS, "widths")

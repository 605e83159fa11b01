# %% [markdown]
# # Which held-out equations are answered, by which size?
# Every pair of operands is held out in turn, from models that are shown whole lines, so that there
# is only arithmetic to learn. Question: does size cost extrapolation, on which pairs, in sums or in
# differences? Measure: held-out accuracy per pair, its slope on doublings of width. Nulls: width
# does nothing; the nearest seen equation and an additive model, on the same splits. A mixed model
# of the same answers is in analyses/mixed_model.py. The expectations stand in
# train/sweeps/atlas.toml. Takes a folder of runs; without one it reads the sweep's table.

# %%
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from plotly.graph_objects import Figure
from sweeps import answer_as_script, mean_text, select

from tbtt_interp import plots
from tbtt_interp.errors import TbttError
from tbtt_interp.results import Claim, Result
from tbtt_interp.stats import SHARE, UNMEASURED, Interval, difference_over_models, summarize
from tbtt_interp.train.sweep import read_sweep

READS = [("atlas", "held out")]
BASELINES = {"nearest": "nearest seen equation", "additive": "additive model"}
DOUBLING = "by doubling"
NOTES = (
    "Accuracy on a pair's held-out equations, mean over pairs [95 %, Student's over pairs]. A pair "
    "of unequal operands has two sums and two differences, one of equal operands one of each.",
    f"{DOUBLING}: the mean of the pairs' own slopes on log2 of width.",
    "seen: by seen equations of the same operator with the same answer. rim: operands 0 and 9.",
    "Every operand is still seen with nine others. Each seed holds out one pair, at all sizes: for "
    "one pair and seed, sizes train on the same lines from draws of the same seed.",
    "The intervals of the standard deviations resample pairs.",
)


# %%
def atlas_equations(held_out: pd.DataFrame) -> pd.DataFrame:
    """The held-out equations of models on whole lines that hold out one pair.

    Args:
        held_out: as `held_out_table` returns it.
    Returns:
        its rows, with `pair`; `left`, how many seen equations of the operator have the answer;
        `gone`, whether none has; `rim`, whether an operand is 0 or 9 and so has neighbours on one
        side only; `equal`, whether the operands are.
    Raises:
        TbttError: if there is no such row, or pairs share a seed.
    """
    alone = held_out["held_out"].str.fullmatch(r"\d,\d").fillna(False).astype(bool)
    table = select(held_out[alone], task="arithmetic", framing="line")
    if table.empty:
        raise TbttError(
            "no model here holds out one pair and trains on whole lines: tbtt sweep atlas trains "
            "some; give their folder"
        )
    if (table.groupby("seed")["held_out"].nunique() > 1).any():
        raise TbttError(
            "pairs of this atlas share seeds, and a seed must hold out one pair alone: train it by "
            "tbtt sweep atlas, which deals them so"
        )
    a, b, adds = table["a"], table["b"], table["operator"] == "+"
    value = np.where(adds, a + b, a - b)
    of_all = np.where(adds, np.minimum(value, 18 - value) + 1, 10 - np.abs(value))
    left = of_all - np.where(adds & (a != b), 2, 1)  # a sum is held out in both orders
    return table.assign(
        pair=table["held_out"], left=left, gone=left == 0, equal=a == b,
        rim=a.isin([0, 9]) | b.isin([0, 9]),
    )  # fmt: skip


def strata_masks(equations: pd.DataFrame) -> dict[str, pd.Series]:
    """The strata that equations are in, some of which overlap."""
    a, b, adds = equations["a"], equations["b"], equations["operator"] == "+"
    left, rim = equations["left"], equations["rim"]
    second_digit, sign = (a + b).between(9, 11), (a - b).between(-1, 1)  # where answers turn
    return {
        "all": left >= 0, "addition": adds, "subtraction": ~adds, "answer gone": equations["gone"],
        "answer seen 1 to 4 times": left.between(1, 4), "answer seen 5 times or more": left >= 5,
        "an operand at the rim": rim, "rim, answer still seen": rim & (left > 0),
        "no operand at the rim": ~rim, "equal operands": equations["equal"],
        "sum of 9 to 11, no rim": adds & ~rim & second_digit,
        "other sums, no rim": adds & ~rim & ~second_digit,
        "difference of −1 to 1, no rim": ~adds & ~rim & sign,
        "other differences, no rim": ~adds & ~rim & ~sign,
    }  # fmt: skip


def pairs_table(equations: pd.DataFrame) -> pd.DataFrame:
    """One row per stratum, size and pair: `share`, of models and equations, and the baselines'."""
    tables = [equations[mask.to_numpy()].assign(stratum=name)
              for name, mask in strata_masks(equations).items()]  # fmt: skip
    table = pd.concat(tables).sort_values("width", kind="stable").rename(columns={"right": "share"})
    by = ["stratum", "width", "size", "pair"]
    return table.groupby(by, as_index=False, sort=False)[["share", *BASELINES]].mean()


def own_slopes(pairs: pd.DataFrame) -> pd.Series:
    """Each pair's slope of its share on doublings of width, by stratum; nan of one width."""
    by = [pairs["stratum"], pairs["pair"]]
    doublings = pairs["width"].map(np.log2)
    x = doublings - doublings.groupby(by).transform("mean")
    of = pd.DataFrame({"xy": x * pairs["share"], "xx": x**2}).groupby(by, sort=False).sum()
    return of["xy"] / of["xx"].where(of["xx"] > 0)


def strata_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per stratum and size, and one per stratum of size DOUBLING: the mean own slope.

    Returns:
        `share` with its interval over pairs, the baselines' shares, and `n_models`, the pairs.
    """
    of_sizes = summarize(
        pairs.rename(columns={"pair": "seed"}), ["stratum", "size"], ["share", *BASELINES],
        bounds=SHARE,
    )  # fmt: skip
    slopes = own_slopes(pairs).rename("share").rename_axis(["stratum", "seed"]).reset_index()
    slopes = summarize(slopes, ["stratum"], ["share"]).assign(size=DOUBLING)
    return pd.concat([of_sizes, slopes], ignore_index=True)


def seen_less_gone(equations: pd.DataFrame) -> Interval:
    """The share of pairs whose answers are all still seen, minus that of answers that are gone.

    The interval is Welch's over pairs: few pairs have an answer that no other pair has.
    """
    gone = equations[equations["gone"]].groupby("pair")["right"].mean()
    others = equations[~equations["pair"].isin(gone.index)].groupby("pair")["right"].mean()
    known = len(gone) and len(others)
    return difference_over_models(gone, others) if known else UNMEASURED


def pair_and_size(
    equations: pd.DataFrame, *, resamples: int = 2_000, seed: int = 0
) -> dict[str, Interval]:
    """The share's standard deviations between pairs and between sizes, and how they differ.

    Analysis of variance, minus what seeds alone would give: between pairs, how much the seeds of a
    pair differ; between sizes, the interaction of pairs and sizes. Pairs are resampled.

    Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 4.
    """
    models = equations.groupby(["pair", "seed", "size"])["right"].mean()
    of_seeds = models.groupby(["pair", "seed"]).mean().groupby("pair")
    cells = models.groupby(["pair", "size"]).mean().unstack("size").dropna()
    variance = of_seeds.var()  # unknown of one seed, which is taken to vary as others do
    noise = (variance.fillna(variance.mean()) / of_seeds.size()).reindex(cells.index).to_numpy()
    grid = cells.to_numpy()

    def deviations(grid: np.ndarray, noise: np.ndarray) -> tuple[float, float, float]:
        pairs, sizes = grid.mean(1), grid.mean(0)
        rest = grid - pairs[:, None] - sizes + grid.mean()
        together = (rest**2).sum() / (len(pairs) - 1) / (len(sizes) - 1)
        variances = pairs.var(ddof=1) - noise.mean(), sizes.var(ddof=1) - together / len(pairs)
        of_pairs, of_sizes = np.sqrt(np.maximum(0, variances))
        return of_pairs, of_sizes, of_pairs - of_sizes

    drawn = np.random.default_rng(seed).integers(len(grid), size=(resamples, len(grid)))
    means = deviations(grid, noise)
    low, high = np.quantile([deviations(grid[k], noise[k]) for k in drawn], [0.025, 0.975], axis=0)
    return {
        name: Interval(mean=means[k], low=low[k], high=high[k])
        for k, name in enumerate(("pairs", "sizes", "pairs minus sizes"))
    }


def plot_maps(cells: pd.DataFrame) -> Figure:
    """How often each held-out equation is answered, by operator and size, beside the baselines.

    A cross marks an equation whose answer no seen one has.
    """
    sizes = list(dict.fromkeys(cells["size"]))
    one = cells[cells["size"] == sizes[0]]
    maps = pd.concat([cells.assign(map=cells["size"])] + [
        one.assign(map=words, share=one[name]) for name, words in BASELINES.items()
    ])  # fmt: skip
    names = list(dict.fromkeys(maps["map"]))
    maps = maps.assign(panel=maps["map"] + ", a " + maps["operator"] + " b").sort_values(
        ["operator", "map", "a", "b"], key=lambda c: c.map(names.index) if c.name == "map" else c
    )
    across = len(names)
    figure = plots.heatmaps(
        maps, row="a", column="b", value="share", panel="panel", across=across, text=False,
        title="share of<br>models right", hover=["models"], axes=("a", "b"),
    )  # fmt: skip
    for k, (_, rows) in enumerate(maps.groupby("panel", sort=False)):
        gone = rows[rows["gone"]]
        figure.add_scatter(
            x=gone["b"], y=gone["a"], mode="markers", hoverinfo="skip", showlegend=not k,
            name="no seen equation has this answer",
            marker={"symbol": "x-thin", "line": {"width": 1.5, "color": plots.ORANGE}},
            row=1 + k // across, col=1 + k % across,
        )  # fmt: skip
    return figure


def plot_strata(strata: pd.DataFrame) -> Figure:
    """Accuracy by stratum and size beside the baselines, and the change per doubling of width."""
    is_slope = strata["size"] == DOUBLING
    titles = is_slope.map({False: "accuracy", True: "change per doubling of width"})
    return plots.points(
        strata.assign(panel=titles), name="stratum", value="share", by="size",
        panel="panel", nulls=BASELINES, title="share of held-out equations right",
        hover=["n_models"],
    )  # fmt: skip


def display_rows(strata: pd.DataFrame) -> pd.DataFrame:
    """One printed row per stratum, a column per size."""
    rows = []
    for stratum, sizes in strata.groupby("stratum", sort=False):
        text = {
            row["size"]: f"{'+' * (row['size'] == DOUBLING and row['share'] >= 0)}"
            + Interval.of_row(row, "share").format()
            for row in sizes.to_dict("records")
        }  # fmt: skip
        first = sizes.iloc[0]
        baselines = {words: f"{first[name]:.2f}" for name, words in BASELINES.items()}
        rows.append({"held out": stratum, "pairs": sizes["n_models"].max(), **text, **baselines})
    return pd.DataFrame(rows).fillna("")


def atlas_result(held_out: pd.DataFrame) -> Result:
    """Does size cost extrapolation when there is only arithmetic to learn, and on which pairs?"""
    equations = atlas_equations(held_out)
    pairs = pairs_table(equations)
    strata = strata_table(pairs)
    by = ["size", "width", "operator", "a", "b", "pair", "left", "gone", "rim", "equal"]
    cells = equations.groupby(by, as_index=False).agg(
        right=("right", "sum"), models=("right", "size"), share=("right", "mean"),
        margin=("margin", "mean"), **{name: (name, "mean") for name in BASELINES},
    ).sort_values(["width", "operator", "a", "b"], ignore_index=True)  # fmt: skip
    of_pairs = cells.groupby("pair")[["right", "models"]].sum()
    never = of_pairs.index[of_pairs["right"] == 0]
    always = (of_pairs["right"] == of_pairs["models"]).sum()
    models = len(equations[["size", "seed"]].drop_duplicates())
    by_width = select(pairs, stratum="all").pivot(
        index="pair", columns=["width", "size"], values="share").sort_index(axis=1)  # fmt: skip
    by_width.columns = by_width.columns.get_level_values("size")
    apart = ", ".join(
        f"{wide} minus {narrow} {mean_text(by_width[wide] - by_width[narrow])}"
        for narrow, wide in zip(by_width, by_width.columns[1:], strict=False)
    )
    spread, gone = pair_and_size(equations), seen_less_gone(equations)
    _, pair, covered = read_sweep("atlas").expected
    before = {"origin": "expected before the run", "null": 0.0}
    claims = [
        Claim(text=pair, effect=replace(spread["pairs minus sizes"], n=models), null_name="as much",
              unit="standard deviation of the share between pairs minus between sizes", **before),
        Claim(text=covered, effect=replace(gone, n=models), unit="share",
              null_name="no difference", **before),
    ]  # fmt: skip
    return Result(
        name="atlas", question="Which held-out equations are answered, by which size?",
        tables={"atlas-strata": strata, "atlas-cells": cells}, display=display_rows(strata),
        summary=[
            f"{models} models, each of {len(of_pairs)} pairs held out in turn: {len(never)} are "
            f"answered by no model ({'; '.join(never[:12])}), {always} by all. Sizes: {apart}. The "
            f"share's standard deviation between pairs is {spread['pairs'].format()}, between "
            f"sizes {spread['sizes'].format()}.".replace("nan", "not known"),
        ],
        claims=claims, notes=NOTES,
        command="tbtt sweep atlas && python analyses/atlas.py runs/atlas",
        figures={"atlas": partial(plot_maps, cells), "atlas-strata": partial(plot_strata, strata)},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(atlas_result, READS, "atlas")

# %% [markdown]
# # What does training on one pair do to the answers of another?
# The models of a run each hold out their own pairs, as `tbtt train --recipe influence` trains them.
# Influence of pair i on pair j: j's score in models trained on i, minus its score in models that
# hold i out. Of a pair on itself it is the memorization value of Feldman and Zhang 2020, What
# Neural Networks Memorize and Why, arXiv 2008.03703, equation 1. Nulls: held-out sets permuted over
# models for a pair itself; for other pairs, j's scores permuted over the models compared.

# %%
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from plotly.graph_objects import Figure

import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import answer_logits
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.stats import Interval, mean_over_models
from tbtt_interp.study import save_figure, study_arguments

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

MAIN = "specific"  # the measure of claims and figures; the tables have all
TARGETS = ("itself", "another pair", "a held-out pair")  # what a pair has influence on
MEMORIZED = 0.25  # memorization value from which Feldman and Zhang call an example memorized
Scores = Float[np.ndarray, "model pair"]
Mask = Bool[np.ndarray, "_ pair"]
Matrices = Float[np.ndarray, "target of on"]


# %%
@dataclass(frozen=True, kw_only=True)
class HoldoutDesign:
    """Which models hold out which operand pairs, and each model's mean scores on each pair."""

    pairs: list[str]
    held_out: Mask
    scores: dict[str, Scores]  # by measure: `margin` in nats, `accuracy`, and `specific` margin


def answer_margins(model: "HookedTransformer", prompts: PromptSet) -> dict[str, np.ndarray]:
    """The right logit minus the best wrong one, at its smallest over each answer."""
    batch = prompts.batch()
    return {"margins": batch.margins(answer_logits(model, batch)[None])[0].numpy()}


def holdout_design(models: Models) -> HoldoutDesign:
    """The pairs that some models hold out and others do not, with the models' scores."""
    held_out = np.array([prompts.held_out for prompts in models.prompts])
    labels = [example.labels for example in models.shared_prompts.examples]
    pair_of = np.array([",".join(sorted(str(x.get(name)) for name in "ab")) for x in labels])
    differs = held_out.any(0) & ~held_out.all(0)
    if not differs.any():
        words = "train models that differ, as tbtt train --recipe influence does"
        raise TbttError(f"every model of {models.name} holds out the same pairs: {words}")
    pairs = list(dict.fromkeys(pair_of[differs].tolist()))
    member = pair_of[:, None] == np.array(pairs)
    margins, held_out = over_seeds(models, answer_margins)["margins"], held_out @ member
    margin, accuracy = (x @ (member / member.sum(0)) for x in (margins, (margins > 0) * 1.0))
    scores = {"margin": margin, "accuracy": accuracy, MAIN: specific_margins(margin, held_out)}
    return HoldoutDesign(pairs=pairs, held_out=held_out, scores=scores)


def specific_margins(margins: Scores, held_out: Mask) -> Scores:
    """Margins minus what a line on the model's mean margin on its other trained pairs predicts.

    Models differ in all margins by more than any pair changes one. A pair's line is fitted on the
    models that were trained on it.
    """
    specific = margins.copy()
    for pair, trained in enumerate(~held_out.T):
        others = ~held_out & (np.arange(len(held_out.T)) != pair)
        level = (margins * others).sum(1) / np.maximum(others.sum(1), 1)
        if np.ptp(level[trained]) > 0:
            line = np.polyfit(level[trained], margins[trained, pair], 1)
            specific[:, pair] -= np.polyval(line, level)
    return specific


def influence(scores: Scores, held_out: Mask) -> tuple[np.ndarray, ...]:
    """Influence `[target, i, j]` of pair i on j, its error, and counts of models that show it.

    All models are compared on i itself; on another pair j, models that were trained on j; on a
    held-out pair j, models that hold j out. Influence is nan where no models show it.

    >>> held_out = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    >>> influence(np.array([[0.0, 4], [0, 4], [1, 0], [1, 0]]), held_out)[0][0]
    array([[ 1., nan],
           [nan,  4.]])
    """
    itself, means, variances, counts = np.eye(held_out.shape[1]), [], [], []
    entries = np.stack([itself, 1 - itself, 1 - itself])
    compared = np.stack([np.ones_like(held_out), ~held_out, held_out])
    for group in (~held_out.T, held_out.T):
        count, total, square = (entries * (group.astype(float) @ (compared * scores**power))
                                for power in range(3))  # fmt: skip
        with np.errstate(divide="ignore", invalid="ignore"):
            means.append(total / count)
            variance = np.maximum(square / count - means[-1] ** 2, 0) / (count - 1)
            variances.append(np.where(count > 1, variance, np.nan))
            counts.append(count.astype(int))
    return means[0] - means[1], np.sqrt(variances[0] + variances[1]), *counts


def mean_influence(scores: Scores, held_out: Mask, target: int, entries: Mask) -> Interval:
    """The mean of some known entries of an influence matrix, with its interval over models.

    The interval is Student's for the models' linear contributions to the mean (Efron 1982, The
    Jackknife, chapter 6). It is nan where an entry has a single model on one side.
    """
    (of, on), values = np.nonzero(entries), np.zeros(len(scores))
    for sign, group in ((1, ~held_out), (-1, held_out)):
        member = group[:, of] & (held_out | True, ~held_out, held_out)[target][:, on]
        count = member.sum(0)
        rest = member * (scores[:, on] - (member * scores[:, on]).sum(0) / count)
        with np.errstate(divide="ignore", invalid="ignore"):
            values += sign * len(scores) * (rest / np.sqrt(count * (count - 1))).mean(1)
    mean, spread = influence(scores, held_out)[0][target, entries].mean(), mean_over_models(values)
    return Interval(mean=mean, low=mean + spread.low, high=mean + spread.high, n=len(scores))


def relation(of: str, on: str) -> str:
    """How a pair of operands is related to another: the first relation that holds.

    >>> relation("2,6", "3,5"), relation("2,6", "4,8"), relation("2,6", "2,7")
    ('of the same sum', 'of the same difference', 'one step away')
    """
    (a, b), (c, d) = (sorted(map(int, pair.split(","))) for pair in (of, on))
    relations = {
        "": of == on, "of the same sum": a + b == c + d, "of the same difference": b - a == d - c,
        "one step away": min(abs(a - c) + abs(b - d), abs(a - d) + abs(b - c)) == 1,
        "sharing an operand": not {a, b}.isdisjoint({c, d}), "unrelated": True,
    }  # fmt: skip
    return next(name for name, holds in relations.items() if holds)


def relation_table(design: HoldoutDesign, *, draws: int = 99, seed: int = 0) -> pd.DataFrame:
    """Mean specific influence in nats by target and relation, with its null and two-sided p."""
    scores, held_out = design.scores[MAIN], design.held_out
    known = np.isfinite(influence(scores, held_out)[0])
    rngs = [np.random.default_rng((seed, salt)) for salt in (0xDEA1, 0xC4A2, 0xC4A2)]
    null = np.empty((draws, *known.shape))
    for draw in range(draws):
        null[draw, 0] = influence(scores, rngs[0].permutation(held_out))[0][0]
        for k, compared in ((1, ~held_out), (2, held_out)):
            permuted = scores.copy()
            for pair, mask in enumerate(compared.T):
                permuted[mask, pair] = rngs[k].permutation(scores[mask, pair])
            null[draw, k] = influence(permuted, held_out)[0][k]
    relations, rows = np.array([[relation(i, j) for j in design.pairs] for i in design.pairs]), []
    for k, target in enumerate(TARGETS):
        for name in dict.fromkeys(relations[known[k]].tolist()):
            entries = known[k] & (relations == name)
            effect = mean_influence(scores, held_out, k, entries)
            by_chance = np.nanmean(null[:, k, entries], 1)
            far = abs(effect.mean - by_chance.mean()) - 1e-9  # all draws may be equal
            rows.append({
                "target": target, "relation": name, "influence": effect.mean,
                "influence_low": effect.low, "influence_high": effect.high, "n_models": effect.n,
                "null": by_chance.mean(), "null_sd": by_chance.std(), "n_entries": entries.sum(),
                "p": (1 + (abs(by_chance - by_chance.mean()) >= far).sum()) / (1 + draws),
            })  # fmt: skip
    return pd.DataFrame(rows)


def halves(held_out: Mask, seed: int) -> list[Int[np.ndarray, " _"]]:
    """The models in two random halves, each with half of the models that hold out the same."""
    rng, side = np.random.default_rng((seed, 0x4A1F)), np.empty(len(held_out), int)
    kinds = np.unique(held_out, axis=0, return_inverse=True)[1].ravel()
    for kind in range(kinds.max() + 1):
        models = rng.permutation(np.flatnonzero(kinds == kind))
        side[models] = (np.arange(len(models)) + rng.integers(2)) % 2
    return [np.flatnonzero(side == half) for half in range(2)]


def influence_table(pairs: list[str], **matrices: Matrices) -> pd.DataFrame:
    """Matrices as columns: one row per target and entry where the first matrix is known."""
    index = pd.MultiIndex.from_product([TARGETS, pairs, pairs], names=["target", "of", "on"])
    table = pd.DataFrame({name: x.ravel() for name, x in matrices.items()}, index)
    return table.dropna(subset=next(iter(matrices))).reset_index()


def half_table(pairs: list[str], scores: Scores, held_out: Mask, seed: int = 0) -> pd.DataFrame:
    """Influence as the `first` and the `second` half of the models show it, where both do."""
    first, second = (influence(scores[h], held_out[h])[0] for h in halves(held_out, seed))
    return influence_table(pairs, first=first, second=second).dropna()


def agreement_table(design: HoldoutDesign, *, splits: int = 20, seed: int = 0) -> pd.DataFrame:
    """How well random halves of the models agree on influence; the notes explain the columns."""
    rng, rows = np.random.default_rng((seed, 0xDEA1)), []
    for split in range(splits):
        sets = {"r": design.held_out, "null_r": rng.permutation(design.held_out)}
        for (name, held_out), (measure, scores) in product(sets.items(), design.scores.items()):
            table = half_table(design.pairs, scores, held_out, seed + split)
            for target, both in table.groupby("target", sort=False):
                r = both["first"].corr(both["second"], min_periods=3)
                rows.append({"measure": measure, "target": target, name: r})
    return pd.DataFrame(rows).groupby(["measure", "target"], sort=False).mean().reset_index()


def influence_result(models: Models, *, draws: int = 99, splits: int = 20, seed: int = 0) -> Result:
    """Influence of each pair on each, by relation, and whether halves of the models agree."""
    design, columns = holdout_design(models), {}
    held_out, counts = design.held_out, ("n_trained", "n_held_out")
    for measure, scores in design.scores.items():
        names = (measure, f"{measure}_error", *counts)
        columns |= zip(names, influence(scores, held_out), strict=True)
    table = influence_table(design.pairs, **columns)
    halved = half_table(design.pairs, design.scores[MAIN], held_out, seed)
    agreement = agreement_table(design, splits=splits, seed=seed)
    relations = relation_table(design, draws=draws, seed=seed)
    own, other = (table.loc[table["target"] == target, "accuracy"] for target in TARGETS[:2])
    itself = np.eye(len(own), dtype=bool)
    claims = [
        Claim(text="Training on a pair corrects", unit="of its equations", null=other.mean(),
              null_name="training on another pair",
              effect=mean_influence(design.scores["accuracy"], held_out, 0, itself)),
        *(Claim(text=f"Influence on {row['target']} {row['relation']} is", unit="nats of margin",
                effect=Interval.of_row(row, "influence"), direction="different", p=row["p"],
                null=row["null"], null_name="scores permuted over models")
          for row in relations.to_dict("records") if row["relation"] not in ("", "unrelated")),
    ]  # fmt: skip
    tables = {"influence": table, "relations": relations, "agreement": agreement, "halves": halved}
    return Result(
        name="influence", tables=tables, claims=claims, display=relations.round(3),
        more_displays={"Agreement of two halves of the models": agreement.round(2)},
        figures={"influence": lambda: plot_influence(table, halved, relations)},
        notes=[
            f"{len(own)} pairs, each held out by at least {held_out.sum(0).min()} of "
            f"{len(held_out):,} models. Memorization value, influence on a pair's own accuracy: at "
            f"least {MEMORIZED}, Feldman and Zhang's threshold, for {(own >= MEMORIZED).sum()}.",
            "influence: nats of specific margin, 95 % CI over models; none where a single model "
            "shows an entry. On a held-out pair: no model compared was trained on that pair.",
            "r: correlation of the halves; null_r: with held-out pairs permuted over models.",
        ],
    )  # fmt: skip


def plot_influence(table: pd.DataFrame, halved: pd.DataFrame, relations: pd.DataFrame) -> Figure:
    """Influence on each target as a matrix, by both halves of the models, and by relation."""
    titles = ("influence on itself, by operands", "influence of row on column",
              "influence of row on column, held out", "both halves of the models, nats",
              "mean influence, nats of margin")  # fmt: skip
    layout = {"width": 460, "height": 430, "shared_yaxes": False, "horizontal_spacing": 0.1}
    figure, cells = plots.panels(titles, **layout)
    own, others = (table[(table["target"] == "itself") == is_own] for is_own in (True, False))
    a, b = (own["on"].str.split(",").str[n] for n in range(2))
    grid = {"coloraxis": "coloraxis2", "texttemplate": "%{z:.1f}"}
    figure.add_heatmap(x=b, y=a, z=own[MAIN], **grid, **cells[0])
    for target, colour, cell in zip(TARGETS[1:], plots.OKABE_ITO, cells[1:], strict=False):
        rows, both, means = (t[t["target"] == target] for t in (others, halved, relations))
        figure.add_heatmap(x=rows["on"], y=rows["of"], z=rows[MAIN], coloraxis="coloraxis", **cell)
        dots = {"mode": "markers", "marker": {"color": colour, "size": 4, "opacity": 0.4}}
        x, y = both["first"], both["second"]
        figure.add_scattergl(x=x, y=y, showlegend=False, **dots, **cells[3])
        interval = plots.error_bars(means, "influence")
        for value, bars, mark in (("null", {"array": 1.96 * means["null_sd"]}, "circle-open"),
                                  ("influence", interval, "circle")):  # fmt: skip
            figure.add_scatter(x=means[value], y=means["relation"], mode="markers", error_x=bars,
                               marker={"color": colour, "symbol": mark, "size": 9},
                               orientation="h", offsetgroup=f"{value}{target}",
                               name=f"{value}: on {target}, 95 %", **cells[4])  # fmt: skip
    far, scale = others[MAIN].abs().quantile(0.98), {"colorscale": "RdBu_r", "cmid": 0}
    bar = {"cmin": -far, "cmax": far, "colorbar": {"title": "nats", "y": 0.8, "len": 0.45}}
    figure.update_layout(coloraxis=scale | bar, coloraxis2=scale | {"showscale": False},
                         scattermode="group")  # fmt: skip
    figure.update_xaxes(categoryorder="category ascending", row=1)
    return figure.update_yaxes(autorange="reversed", row=1)


# %%
if __name__ == "__main__":
    (folder, *_), files = study_arguments("runs/arithmetic-small-line-influence")
    run = tbtt.load_run(folder)
    result = influence_result(Models.of(run))
    save_figure(result.figures["influence"](), files, result.question, run.title)
    print(f"{run.title}.\n{result}")

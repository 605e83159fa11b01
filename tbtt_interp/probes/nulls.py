"""Nulls of the probe grid: operands as numbers, the MLP's gain, p over cells, what is missing."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from tbtt_interp.errors import listed
from tbtt_interp.probes import linear
from tbtt_interp.probes.datasets import NOTHING, ProbeDataset
from tbtt_interp.probes.features import FEATURES, MID, POST, Feature, is_own
from tbtt_interp.probes.labels import missing_controls
from tbtt_interp.seeds import Arrays, Models

MAPS = 5  # random maps of the operands as numbers


def operands_accuracy(
    dataset: ProbeDataset, widths: Int[np.ndarray, " cell"]
) -> Float[np.ndarray, "cell task"]:
    """The accuracy of each task's probe of the operands as numbers; nan where there are none.

    The numbers go through random maps to as many channels as each site has; mean over MAPS maps.
    """
    found = np.full((len(widths), len(dataset.tasks)), np.nan)
    if dataset.operands is None:
        return found
    for width in np.unique(widths):
        for column, task in enumerate(dataset.tasks):
            size = (MAPS, dataset.operands.shape[1], width)
            maps = np.random.default_rng((0x09E7, width)).standard_normal(size)
            mapped = torch.from_numpy(dataset.operands @ maps)
            x, real = task.only(mapped), task.labels.real[:1]
            correct = linear.count_correct(x, real, task.folds)[:, 0]
            found[widths == width, column] = correct.mean() / task.folds.n_tested
    return found


def mlp_gains(
    scores: Arrays, share: Float[np.ndarray, "model cell task draw"]
) -> Float[np.ndarray, "model cell task draw"]:
    """The accuracy at the end of a layer minus that before its MLP; nan at other sites."""
    places = zip(scores["site"][0].tolist(), scores["pos"][0].tolist(), strict=True)
    cells = {place: k for k, place in enumerate(places)}
    gains = np.full(share.shape, np.nan)
    for (site, pos), k in cells.items():
        before = cells.get((site.replace(POST, MID), pos))
        if site.endswith(POST) and before is not None:
            gains[:, k] = share[:, k] - share[:, before]
    return gains


def adjusted_p(
    table: pd.DataFrame,
    controls: Sequence[Float[np.ndarray, " _"]],
    layers: int,
    features: Iterable[Feature] = tuple(FEATURES.values()),
) -> Float[np.ndarray, " row"]:
    """p of the primary cells, corrected over them by the largest standardised score of each draw.

    Source: max-T, Westfall and Young, Resampling-Based Multiple Testing (1993), chapter 2.
    """
    primary = {(f.name, f"blocks.{layers - 1}.{stream}", -1)
               for f in features for stream in f.primary}  # fmt: skip
    cells = table[["feature", "site", "pos"]].itertuples(index=False, name=None)
    is_primary = np.array([cell in primary for cell in cells]) & table["p"].notna().to_numpy()
    chosen = np.flatnonzero(is_primary).tolist()
    adjusted = np.full(len(table), np.nan)
    if chosen:
        drawn = np.array([controls[row] for row in chosen])
        mean, deviation = drawn.mean(1), np.maximum(drawn.std(1), 1e-9)
        largest = ((drawn - mean[:, None]) / deviation[:, None]).max(0)
        scores = (table["accuracy"].to_numpy()[chosen] - mean) / deviation
        adjusted[chosen] = (1 + (largest >= scores[:, None] - 1e-9).sum(1)) / (1 + len(largest))
    return adjusted


def guessed(labels: Int[np.ndarray, " text"]) -> float:
    """The accuracy of guessing classes as often as they occur."""
    return float(np.square(np.bincount(labels) / len(labels)).sum())


def missing_nulls(
    models: Models, features: Sequence[Feature], table: pd.DataFrame, *, has_untrained: bool
) -> list[str]:
    """A sentence for each control that a user's own features lack, and the built-in ones have."""
    own = [feature for feature in features if is_own(feature)]
    notes = missing_controls(own, models.shared_prompts.examples)
    names = [feature.name for feature in own]
    if (table.loc[table["feature"].isin(names), "groups"] == NOTHING).any():
        notes.append(
            f"Folds of {listed(names, 'and')} keep nothing together, so that similar prompts may "
            "be in training and test: give groups=, such as a label's name."
        )
    if own and not has_untrained:
        notes.append("No untrained models to compare with: give untrained=, a list of them.")
    return notes


def below_chance(table: pd.DataFrame) -> list[str]:
    """An explanation of accuracies below chance, where there are any."""
    one_model = table["of"] / table["n_models"]
    error = (table["chance"] * (1 - table["chance"]) / one_model) ** 0.5
    rows = table[table["accuracy"] < table["chance"] - 2 * error]
    if not len(rows):
        return []
    worst = rows.loc[(rows["accuracy"] - rows["chance"]).idxmin()]
    return [
        f"Below chance: {len(rows)} of {len(table)} rows, {worst['feature']} at {worst['site']} "
        f"most ({worst['accuracy']:.2f}; guessing classes as often as they occur gives "
        f"{worst['chance']:.2f}). A probe that learns the training prompts is wrong about the test "
        "prompts where these differ from their neighbours: the sums next to an even one are odd. "
        "And where a fold has more of a class, its training part has less. Control tasks have the "
        "same structure, so compare with them."
    ]

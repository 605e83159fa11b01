"""One model's probes: of every feature and its control tasks, at every site and position."""

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.probes import linear
from tbtt_interp.probes.datasets import Cells, ProbeDataset, ProbeTask, read_cells
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import Arrays

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

CODED = 9  # control tasks whose description length is measured, too


def accuracy(
    task: ProbeTask, activations: Float[Tensor, "*pos every d"], number: int
) -> Float[np.ndarray, "*pos"] | float:
    """The cross-validated accuracy of a task's probe on the model with this number in the run."""
    x, labels = task.only(activations), task.labels.of_model(number)[:1]
    return linear.count_correct(x, labels, task.folds)[..., 0] / task.folds.n_tested


def by_site(cells: Cells) -> list[Float[Tensor, "pos every d"]]:
    """The activations at all positions of a site together, in the order of the cells."""
    sites = groupby(cells.items(), key=lambda cell: cell[0][0])
    return [torch.stack([x for _, x in site]) for _, site in sites]


def score_cells(dataset: ProbeDataset, cells: Cells, number: int) -> Arrays:
    """One model's probes of every feature and its control tasks, at every site and position.

    Returns:
        site, pos and width of each cell, and `[cell, task, draw]`, where draw 0 is the feature:
        correct, test examples predicted; bits of the online code; held_out_correct; r2;
        threshold_correct, the mean over other thresholds. nan if undefined.
    """
    draws = max(2, *(len(task.labels.controls) + 1 for task in dataset.tasks))
    names = ("correct", "bits", "held_out_correct", "r2", "threshold_correct")
    scores = {name: np.full((len(cells), len(dataset.tasks), draws), np.nan) for name in names}
    first, widths = 0, []
    for every in by_site(cells):
        rows = slice(first, first := first + len(every))
        widths += [every.shape[-1]] * len(every)
        for column, task in enumerate(dataset.tasks):
            x, labels, rest = task.only(every), task.labels.of_model(number), task.held_out[number]
            found = {
                "correct": task.count_correct(x, number),
                "bits": linear.code_length(x, labels[: 1 + CODED], task.growing),
                "held_out_correct": np.zeros((len(x), 1)) if rest is None
                else linear.count_correct(x, labels[:1], rest),
            }  # fmt: skip
            if task.labels.feature.is_ordinal:
                values = np.array(task.labels.classes, float)[labels[0]]
                found["r2"] = linear.r_squared(x, values, task.folds)[:, None]
            if (counted := task.count_thresholds(x)) is not None:
                found["threshold_correct"] = counted.mean(-1, keepdims=True)
            for name, values in found.items():
                scores[name][rows, column, : values.shape[1]] = values
    return {"site": np.array([site for site, _ in cells], dtype=str),
            "pos": np.array([pos for _, pos in cells], dtype=int),
            "width": np.array(widths, dtype=int), **scores}  # fmt: skip


def score_probes(
    model: "HookedTransformer", prompts: PromptSet, dataset: ProbeDataset, *,
    dimensions: int | None = None, accuracies_only: bool = False, **where: Any,
) -> Arrays:  # fmt: skip
    """The scores of one model's probes at sites and positions as in `read_cells`: `score_cells`.

    Args:
        accuracies_only: whether to return the accuracies alone, `[cell, task]`.
    """
    cells, number = read_cells(model, prompts, dataset.texts, **where), prompts.number
    if dimensions is not None:
        n_models = len(dataset.tasks[0].held_out)
        cells = {at: x @ linear.random_projections(x.shape[1], dimensions, n_models)[number].to(x)
                 for at, x in cells.items()}  # fmt: skip
    if not accuracies_only:
        return score_cells(dataset, cells, number)
    found = [[accuracy(task, x, number) for x in by_site(cells)] for task in dataset.tasks]
    return {"accuracy": np.array([np.concatenate([[], *one]) for one in found]).T}

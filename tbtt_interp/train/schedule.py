"""The learning rate over training: linear warm-up, cosine decay, then constant, as in nanoGPT."""

import math

from tbtt_interp.train.recipe import TrainingRecipe


def learning_rate_at(step: int, training: TrainingRecipe) -> float:
    """The rate of one step, counted from 0.

    Source: `get_lr` of nanoGPT's train.py, which the paper's code uses.
    """
    peak, low = training.learning_rate, training.min_learning_rate
    if step < training.warmup:
        return peak * (step + 1) / (training.warmup + 1)
    if step >= training.decay_until:
        return low
    share = (step - training.warmup) / (training.decay_until - training.warmup)
    return low + 0.5 * (1 + math.cos(math.pi * share)) * (peak - low)

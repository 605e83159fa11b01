"""Baselines for held-out equations, without a transformer: a neighbour, and an additive model."""

import warnings
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from tbtt_interp.tasks import Example, Task

INVERSE_PENALTY = 1e4  # weak enough to fit every equation that an additive model can


def nearest_seen(seen: Sequence[Example], queried: Sequence[Example]) -> list[str]:
    """The answers of the nearest seen equations of one operator: least |Δa| + |Δb|, the first."""
    nearest = cdist(_operands(queried), _operands(seen), metric="cityblock").argmin(1)
    return [seen[number].answer for number in nearest]


def additive(seen: Sequence[Example], queried: Sequence[Example]) -> list[str]:
    """Each character of the answers from logits f(a) + g(b), fitted on one operator's seen ones."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known = np.unique(_operands([*seen, *queried]))
    longest = max(len(example.answer) for example in (*seen, *queried))
    characters = []
    for pos in range(longest):
        target = [example.answer.ljust(longest)[pos] for example in seen]
        if len(set(target)) == 1:
            characters.append(target[:1] * len(queried))
            continue
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=2_000)
        with warnings.catch_warnings():  # a separable table has no finite optimum to converge to
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(_one_hot(seen, known), target)
        characters.append(list(model.predict(_one_hot(queried, known))))
    return ["".join(answer).rstrip() for answer in zip(*characters, strict=True)]


BASELINES: dict[str, Callable[[Sequence[Example], Sequence[Example]], list[str]]] = {
    "nearest seen equation": nearest_seen,
    "additive model": additive,
}


def baseline_answers(task: Task) -> pd.DataFrame:
    """Both baselines on each equation of a task: baseline, prompt, group, held_out and right.

    An operator's equations are answered from its seen ones. Empty for a task without operands.
    """
    rows = []
    for (name, answers), operator in product(BASELINES.items(), task.operators):
        equations = [e for e in task.examples if e.labels.get("operator") == operator]
        if seen := [e for e in equations if not e.held_out]:
            answered = zip(equations, answers(seen, equations), strict=True)
            rows += [(name, e.prompt, e.group, e.held_out, a == e.answer) for e, a in answered]
    return pd.DataFrame(rows, columns=["baseline", "prompt", "group", "held_out", "right"])


def baseline_counts(task: Task) -> pd.DataFrame:
    """Equations that each baseline answers, by group: `right` of `of`."""
    table = baseline_answers(task)
    group = ("seen_" + table["group"]).where(~table["held_out"].astype(bool), "held_out")
    right = table.assign(group=group).groupby(["baseline", "group"], sort=False)["right"]
    return right.agg(right="sum", of="size").reset_index()


def _operands(equations: Sequence[Example]) -> np.ndarray:
    return np.array([[example.labels["a"], example.labels["b"]] for example in equations])


def _one_hot(equations: Sequence[Example], known: np.ndarray) -> np.ndarray:
    return (_operands(equations)[:, :, None] == known).reshape(len(equations), -1)

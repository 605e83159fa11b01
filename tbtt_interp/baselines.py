"""What answers held-out equations without a transformer: a neighbour, and an additive model."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from tbtt_interp.tasks import Example, Task

INVERSE_PENALTY = 1e4  # weak enough to fit every equation that an additive model can


def nearest_seen(seen: Sequence[Example], asked: Sequence[Example]) -> list[str]:
    """The answer of the nearest seen equation: least |Δa| + |Δb|, the first of several.

    Args:
        seen, asked: equations of one operator.
    """
    nearest = cdist(_operands(asked), _operands(seen), metric="cityblock").argmin(1)
    return [seen[place].answer for place in nearest]


def additive(seen: Sequence[Example], asked: Sequence[Example]) -> list[str]:
    """Each character of the answer from logits f(a) + g(b), fitted on the seen equations.

    Args:
        seen, asked: equations of one operator.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    longest = max(len(example.answer) for example in (*seen, *asked))
    characters = []
    for place in range(longest):
        target = [example.answer.ljust(longest)[place] for example in seen]
        if len(set(target)) == 1:
            characters.append(target[:1] * len(asked))
            continue
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=2_000)
        with warnings.catch_warnings():  # a separable table has no finite optimum to converge to
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(_one_hot(seen), target)
        characters.append(list(model.predict(_one_hot(asked))))
    return ["".join(answer).rstrip() for answer in zip(*characters, strict=True)]


def baseline_answers(task: Task) -> pd.DataFrame:
    """Both baselines on each of the task's equations: baseline, prompt, group, held_out and right.

    An operator's equations are answered from its seen ones. Empty for a task without single-digit
    equations.
    """
    parts = [pd.DataFrame(columns=["baseline", "prompt", "group", "held_out", "right"])]
    table = task.prompts()
    if task.order_is_given or "operator" not in table:
        return parts[0]
    baselines: dict[str, Callable[..., list[str]]] = {
        "nearest seen equation": nearest_seen,
        "additive model": additive,
    }
    for name, answers in baselines.items():
        for operator in table["operator"].dropna().unique():
            mine = [e for e in task.examples if e.labels.get("operator") == operator]
            if seen := [e for e in mine if not e.held_out]:
                rows = table.loc[table["operator"] == operator, parts[0].columns[1:-1]]
                right = rows.assign(baseline=name, right=answers(seen, mine))
                parts.append(right.assign(right=right["right"] == [e.answer for e in mine]))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def baseline_counts(task: Task) -> pd.DataFrame:
    """How both baselines answer the task's equations: baseline, group, right and of.

    Groups are counted as the models' are. Empty for a task without single-digit equations.
    """
    table = baseline_answers(task)
    group = ("seen_" + table["group"]).where(~table["held_out"].astype(bool), "held_out")
    right = table.assign(group=group).groupby(["baseline", "group"], sort=False)["right"]
    return right.agg(right="sum", of="size").reset_index()


def _operands(equations: Sequence[Example]) -> np.ndarray:
    return np.array([[example.labels["a"], example.labels["b"]] for example in equations])


def _one_hot(equations: Sequence[Example]) -> np.ndarray:
    a, b = _operands(equations).T
    return np.concatenate([np.eye(10)[a], np.eye(10)[b]], axis=1)

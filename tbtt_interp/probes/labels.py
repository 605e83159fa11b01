"""Labels of features on examples: their control tasks, and the groups that folds keep together.

What labels are called decides nothing. Operands are the labels that prompts spell out.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.probes.features import Feature, feature_of, is_own
from tbtt_interp.tasks import Example
from tbtt_interp.tasks.task import Label, varied_labels

RENAMED, PERMUTED, NONE = "operands renamed", "labels permuted", "none"  # kinds of control tasks
RAREST = 0.25  # share of the rarer class of a threshold that is a control task


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A feature's classes on some texts, and those of its control tasks, as numbers."""

    feature: Feature
    has: Bool[np.ndarray, " every"]  # which texts have the feature; those below are of these
    classes: tuple[Label, ...]  # by number
    real: Int[np.ndarray, "row text"]  # each text's class: a row per model, or one for all models
    controls: Int[np.ndarray, "control text"]
    thresholds: Int[np.ndarray, "threshold text"] | None = None  # other ones of its quantity
    control_tasks: str = NONE  # what they are

    def of_model(self, number: int) -> Int[np.ndarray, "draw text"]:
        """The feature of one model, by its number in the run, and below it the control tasks."""
        row = number if len(self.real) > 1 else 0
        return np.concatenate([self.real[row : row + 1], self.controls])

    @cached_property
    def codes(self) -> Float[np.ndarray, "class rank"]:
        """Each class as one number or two: its value, or its point on a circle.

        Raises:
            TbttError: if the feature is no number and has more than two classes.
        """
        feature, classes = self.feature, self.classes
        if not all(isinstance(label, int | float) for label in classes):
            if len(classes) > 2:
                raise TbttError(
                    f"feature '{feature.name}' has {len(classes)} unordered classes, more than one "
                    "or two directions encode: choose a number, a digit or a feature of two classes"
                )
            classes = (0, 1)
        values = np.array([float(label) for label in classes])
        angle = 2 * np.pi * values / (feature.period or 1)
        return np.stack([np.cos(angle), np.sin(angle)] if feature.period else [values], 1)


def number_classes(
    rows: Sequence[Sequence[Label]],
) -> tuple[tuple[Label, ...], Int[np.ndarray, "row text"]]:
    """The labels in order, and the number of each."""
    found = {label for row in rows for label in row}
    classes = tuple(sorted(found, key=lambda label: (str(type(label)), label)))
    number = {label: k for k, label in enumerate(classes)}
    return classes, np.array([[number[label] for label in row] for row in rows])


def label_examples(
    feature: Feature, examples: Sequence[Example], *, controls: int, seed: int = 0,
    groups: Int[np.ndarray, " example"] | None = None,
) -> Labels:  # fmt: skip
    """A feature's labels and those of its control tasks.

    A control task keeps the feature's structure and loses its meaning. On a complete grid of
    operands, whatever their labels are called, it is the feature after a random permutation renames
    the values of each. Draw k has the same permutations for every feature. On other examples a
    control task permutes labels. A feature of one operand or of the operator has no control task:
    renaming operands gives the same task.

    Args:
        groups: labels that are the same in each group are permuted by group.
    Source: control tasks, Hewitt and Liang 2019.
    """
    every = [feature.of(example) for example in examples]
    has = np.array([label is not None for label in every])
    labels = [label for label in every if label is not None]
    chosen = [example for example, kept in zip(examples, has, strict=True) if kept]
    names, renamed = operand_grid(chosen)
    keys = [tuple(e.labels[name] for name in names) for e in chosen]
    known = dict(zip(keys, labels, strict=True))
    values = {name: list(dict.fromkeys(e.labels[name] for e in chosen)) for name in renamed}
    group = list(range(len(labels))) if groups is None else groups[has].tolist()
    of_group = dict(zip(group, labels, strict=True))
    if any(of_group[k] != label for k, label in zip(group, labels, strict=True)):
        group, of_group = list(range(len(labels))), dict(enumerate(labels))
    drawn = []
    for draw in range(controls):
        generator = np.random.default_rng((seed, draw))
        if names:
            new = {name: dict(zip(x, [x[k] for k in generator.permutation(len(x))], strict=True))
                   for name, x in values.items()}  # fmt: skip
            drawn.append([known[tuple(new[name][x] if name in new else x
                                      for name, x in zip(names, key, strict=True))]
                          for key in keys])  # fmt: skip
        else:
            shuffled = [[*of_group.values()][k] for k in generator.permutation(len(of_group))]
            new_label = dict(zip(of_group, shuffled, strict=True))
            drawn.append([new_label[k] for k in group])
    # a control task that only renames the classes is the same task
    same = all(len(set(zip(row, labels, strict=True))) == len(set(labels)) for row in drawn)
    classes, numbers = number_classes([labels, *([] if same else drawn)])
    return Labels(feature=feature, has=has, classes=classes, real=numbers[:1], controls=numbers[1:],
                  thresholds=other_thresholds(feature, chosen, numbers[0]),
                  control_tasks=NONE if same else RENAMED if names else PERMUTED)  # fmt: skip


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _operands(example: Example, names: Collection[str]) -> list[str]:
    """An example's operands among the labels that its prompt spells out.

    Where two or more of them are numbers, the others are operators.
    """
    own = [name for name in names if name in example.labels]
    numbers = [name for name in own if _is_number(example.labels[name])]
    return numbers if len(numbers) > 1 else own


def _varied(examples: Sequence[Example]) -> list[str]:
    """The labels that prompts spell out and that differ between examples."""
    return [name for name in varied_labels(examples)
            if len({e.labels[name] for e in examples if name in e.labels}) > 1]  # fmt: skip


def operand_grid(examples: Sequence[Example]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels whose values all occur with all others', once each; and which of them are operands.

    Two empty tuples where there are no such labels, or fewer than two operands.

    >>> from tbtt_interp.tasks import load_task
    >>> operand_grid(load_task("arithmetic").examples)
    (('a', 'operator', 'b'), ('a', 'b'))
    """
    names = [name for name in _varied(examples) if all(name in e.labels for e in examples)]
    operands = _operands(examples[0], names)
    for size in range(len(names), 1, -1):
        for chosen in combinations(names, size):
            renamed = tuple(name for name in chosen if name in operands)
            keys = {tuple(e.labels[name] for name in chosen) for e in examples}
            sizes = [len({e.labels[name] for e in examples}) for name in chosen]
            if len(renamed) > 1 and len(keys) == len(examples) == math.prod(sizes):
                return chosen, renamed
    return (), ()


def other_thresholds(
    feature: Feature, examples: Sequence[Example], own: Int[np.ndarray, " text"]
) -> Int[np.ndarray, "threshold text"] | None:
    """Whether a feature's quantity reaches each other number; None where there is none.

    Numbers that fewer than RAREST of the examples reach, or do not reach, are left out: any probe
    gets those right.

    >>> from tbtt_interp.probes.features import FEATURES
    >>> from tbtt_interp.tasks import load_task
    >>> sums = [e for e in load_task("arithmetic").examples if e.labels["operator"] == "+"]
    >>> carry = np.array([bool(e.labels["carry"]) for e in sums])
    >>> other_thresholds(FEATURES["carry"], sums, carry.astype(int)).sum(1)  # a + b from 7 to 12
    array([72, 64, 55, 36, 28])
    """
    if feature.quantity is None:
        return None
    values = np.array([feature.quantity(example) for example in examples])
    reached = (values >= np.unique(values)[:, None]).astype(int)
    share = reached.mean(1)
    is_other = (reached != own).any(1) & (share >= RAREST) & (share <= 1 - RAREST)
    return reached[is_other] if is_other.any() else None


def pair_groups(examples: Sequence[Example]) -> Int[np.ndarray, " example"]:
    """A number for each unordered pair of operands, so that folds keep 3+4, 4+3 and 3-4 together.

    Operands are labels that prompts spell out. An example with fewer than two is its own group.
    """
    names = _varied(examples)
    operands = [_operands(example, names) for example in examples]
    keys = [frozenset(e.labels[name] for name in own) if len(own) > 1 else e.line
            for e, own in zip(examples, operands, strict=True)]  # fmt: skip
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def given_groups(groups: Any, examples: Sequence[Example]) -> Int[np.ndarray, " example"]:
    """A number for each group that folds keep together.

    Args:
        groups: a label's name, a function of an example, or one value per example. An example
            without a value is its own group.
    """
    if isinstance(groups, str):
        if not any(groups in e.labels for e in examples):
            raise unknown("label", groups, sorted({name for e in examples for name in e.labels}))
        name, groups = groups, lambda example: example.labels.get(name)
    of = feature_of("groups", groups, examples).of
    keys = [(of(e), None) if of(e) is not None else (None, k) for k, e in enumerate(examples)]
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def operand_numbers(examples: Sequence[Example]) -> Float[np.ndarray, "example column"] | None:
    """The operands as plain numbers: a, b, the operator's sign, and sign times a and b.

    A sum and a difference are linear functions of these, so what a probe reads from them needs no
    arithmetic. Numbers are labels that prompts spell out. Other such labels are operators, where
    each value beyond the first has a sign. None where an example has no numbers, or lacks a label.

    >>> from tbtt_interp.tasks.arithmetic import equation
    >>> operand_numbers([equation(3, "+", 4), equation(3, "-", 4)]).tolist()
    [[3.0, 4.0, 1.0, 3.0, 4.0], [3.0, 4.0, -1.0, -3.0, -4.0]]
    """
    names = varied_labels(examples)
    if not all(name in e.labels for e in examples for name in names):
        return None
    columns = {name: [e.labels[name] for e in examples] for name in names}
    numbers = [np.array(x, float) for x in columns.values() if all(map(_is_number, x))]
    if not numbers:
        return None
    signs = []
    for values in (x for x in columns.values() if not all(map(_is_number, x))):
        _, *others = sorted(set(values), key=str)
        signs += [np.where([x == other for x in values], -1.0, 1.0) for other in others or [None]]
    return np.stack([*numbers, *signs, *(sign * x for sign in signs for x in numbers)], 1)


def missing_controls(features: Sequence[Feature], examples: Sequence[Example]) -> list[str]:
    """A sentence for each of a user's features whose control tasks are weaker than they could be.

    >>> from tbtt_interp.tasks import load_task
    >>> first = Feature("first", "", lambda e: e.labels["a"])
    >>> missing_controls([first], load_task("arithmetic").examples)
    ["Feature 'first' has no control task: renaming operands gives the same classes."]
    """
    notes = []
    for feature in filter(is_own, features):
        kind = label_examples(feature, examples, controls=9).control_tasks
        if kind == PERMUTED:
            notes.append(
                f"Control tasks of '{feature.name}' permute its labels, and so lose its structure: "
                "its prompts are no complete grid of labelled operands. Label the operands as they "
                "stand in the prompts, every value of one with every value of the other."
            )
        elif kind == NONE:
            notes.append(f"Feature '{feature.name}' has no control task: renaming operands gives "
                         "the same classes.")  # fmt: skip
    return notes

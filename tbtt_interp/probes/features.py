"""Features that probes read: labels of the example that an activation is read from.

To add a feature, give it an entry here, or call `register_feature` from outside.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from tbtt_interp.errors import TbttError, listed, unknown
from tbtt_interp.tasks import Example
from tbtt_interp.tasks.arithmetic import OPERATORS, equation_labels
from tbtt_interp.tasks.task import Label

Texts = Literal["prompt", "shortened", "preceding line"]
POST, MID = "hook_resid_post", "hook_resid_mid"
RAREST = 0.25  # share of the rarer class of a threshold that is a control task


@dataclass(frozen=True)
class Feature:
    """One property of an example: a label, or None where an example has none.

    Attributes:
        is_ordinal: whether labels are numbers, so that regression on them makes sense.
        period: the period of labels on a circle, as 10 for digits; None for others.
        texts: the model's input: the example's prompt; the prompt cut on the left to several
            lengths; or the line before the example, cut to several lengths.
        primary: last-layer streams where the feature is a pre-specified test, at a text's last
            character, with claims and a corrected p-value. All other cells are exploratory.
        is_erased: whether erasure and latent answers take it where no feature is named.
        quantity: where the feature is whether a quantity reaches a number, that quantity. Whether
            it reaches other numbers are control tasks: they are as linear, and decide nothing.
    """

    name: str
    what: str
    of: Callable[[Example], Label | None]
    is_ordinal: bool = False
    period: int | None = None
    texts: Texts = "prompt"
    primary: tuple[str, ...] = ()
    is_erased: bool = False
    quantity: Callable[[Example], float] | None = None


def _label(name: str) -> Callable[[Example], Label | None]:
    return lambda example: example.labels.get(name)


def _number(example: Example, name: str) -> float:
    return float(example.labels[name])


_EVERY = (
    Feature("a", "first operand", _label("a"), is_ordinal=True),
    Feature("b", "second operand", _label("b"), is_ordinal=True),
    Feature("operator", "plus or minus", _label("operator")),
    Feature("answer", "the result", _label("value"), is_ordinal=True, primary=(POST, MID),
            is_erased=True),
    Feature("units", "units digit of the result", _label("units"), period=10, primary=(POST,),
            is_erased=True),
    Feature("tens", "tens digit of the result", _label("tens"), primary=(POST,), is_erased=True),
    Feature("sign", "sign of the result", _label("sign"), primary=(POST,), is_erased=True),
    Feature("carry", "whether a + b is 10 or more", _label("carry"), primary=(POST, MID),
            is_erased=True, quantity=lambda e: _number(e, "a") + _number(e, "b")),
    Feature("borrow", "whether a is less than b", _label("borrow"), primary=(POST,),
            is_erased=True, quantity=lambda e: _number(e, "b") - _number(e, "a")),
    Feature("magnitude", "the result without its sign", _label("magnitude"), is_ordinal=True),
    Feature("initial", "first letter of the capital",
            lambda e: str(e.labels["capital"])[0] if "capital" in e.labels else None),
    Feature("length", "letters of the capital", is_ordinal=True, is_erased=True,
            of=lambda e: len(str(e.labels["capital"])) if "capital" in e.labels else None),
    Feature("task", "arithmetic or facts", lambda e: "arithmetic" if "operator" in e.labels
            else "facts" if "country" in e.labels else None),
    Feature("country", "which country", _label("country"), texts="shortened"),
    Feature("line", "which line comes next", lambda e: e.line, texts="preceding line"),
    Feature("next", "first operand of the line that comes next", _label("a"), is_ordinal=True,
            texts="preceding line", primary=(POST,)),
)  # fmt: skip
FEATURES = {feature.name: feature for feature in _EVERY}
BUILT_IN = frozenset(FEATURES)
# Labels of the built-in tasks. FEATURES has what is worth probing in them.
TASK_LABELS = {"country", "capital"}.union(*(equation_labels(0, sign, 0) for sign in OPERATORS))


def register_feature(feature: Feature) -> Feature:
    """Makes a feature known to the probes and their command line; returns it.

    Raises:
        TbttError: if another feature has that name.
    """
    if FEATURES.setdefault(feature.name, feature) is not feature:
        raise TbttError(f"there is a feature '{feature.name}' already: give another name")
    return feature


def find_features(
    names: Sequence[str] | None, examples: Sequence[Example], texts: Collection[Texts] = ("prompt",)
) -> list[Feature]:
    """Features by name; None is every feature with two labels or more in the examples.

    Labels of your own are features. The built-in features are left out where the examples only
    resemble the built-in tasks, as sums modulo 7 do.

    Args:
        texts: the kinds of texts that may be shown to the model; see `Feature`.
    Raises:
        TbttError: if a name is unknown, or every example has the same label.

    >>> from tbtt_interp.tasks import load_task
    >>> [f.name for f in find_features(None, load_task("facts").examples)]
    ['initial', 'length']
    """
    is_built_in = all(map(_is_built_in, examples))
    own = {name for example in examples for name in example.labels}
    own -= (FEATURES.keys() - BUILT_IN) | (TASK_LABELS if is_built_in else set())
    meaningless = own if is_built_in else own | (BUILT_IN - {"line"})
    offered = [f for f in FEATURES.values() if f.name not in meaningless and f.texts in texts]
    for name in sorted(own):
        labels = {e.labels[name] for e in examples if name in e.labels}
        is_number = all(isinstance(label, int | float) for label in labels) and len(labels) > 2
        offered.append(Feature(name, f"the label {name}", _label(name), is_ordinal=is_number))
    known = {f.name: (f, labels) for f in offered if (labels := {*map(f.of, examples)} - {None})}
    varied = [name for name, (_, labels) in known.items() if len(labels) > 1]
    for name in names or ():
        if name not in known:
            raise unknown("feature", name, varied)
        if name not in varied:
            raise TbttError(
                f"feature '{name}' is {known[name][1].pop()} in every example here, so a "
                f"probe has one class only: choose {listed(varied)}"
            )
    if not varied:
        raise TbttError(
            "these examples have no feature with two different labels: nothing to probe"
        )
    return [known[name][0] for name in (varied if names is None else names)]


def _is_built_in(example: Example) -> bool:
    """Whether the labels named as those of the built-in tasks mean the same here."""
    labels = {name: label for name, label in example.labels.items() if name in TASK_LABELS}
    a, operator, b = (labels.get(name) for name in ("a", "operator", "b"))
    if isinstance(a, int) and isinstance(b, int) and operator in OPERATORS:
        return labels == equation_labels(a, str(operator), b)
    return not labels or labels.keys() == {"country", "capital"}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A feature's classes on some texts, and those of its control tasks, as numbers."""

    feature: Feature
    has: Bool[np.ndarray, " every"]  # which texts have the feature; those below are of these
    classes: tuple[Label, ...]  # by number
    real: Int[np.ndarray, "row text"]  # each text's class: a row per model, or one for all models
    controls: Int[np.ndarray, "control text"]
    thresholds: Int[np.ndarray, "threshold text"] | None = None  # other ones of its quantity

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
    feature: Feature, examples: Sequence[Example], *, controls: int, seed: int = 0
) -> Labels:
    """A feature's labels and those of its control tasks.

    A control task keeps the feature's structure and loses its meaning. On a complete grid of
    operands it is the feature after two random permutations rename the values of a and of b. Draw k
    has the same permutations for every feature. On other examples a control task permutes labels.
    A feature of one operand or of the operator has no control task: renaming operands gives the
    same task.

    Source: control tasks, Hewitt and Liang 2019.
    """
    every = [feature.of(example) for example in examples]
    has = np.array([label is not None for label in every])
    labels = [label for label in every if label is not None]
    chosen = [example for example, kept in zip(examples, has, strict=True) if kept]
    keys = [tuple(e.labels.get(name) for name in ("a", "operator", "b")) for e in chosen]
    grid = dict(zip(keys, labels, strict=True))
    first, operators, second = (list(dict.fromkeys(values)) for values in zip(*keys, strict=True))
    is_grid = len(grid) == len(keys) == len(first) * len(operators) * len(second)
    is_grid &= min(len(first), len(second)) > 1
    drawn = []
    for draw in range(controls):
        generator = np.random.default_rng((seed, draw))
        if is_grid:
            a, b = (dict(zip(x, [x[k] for k in generator.permutation(len(x))], strict=True))
                    for x in (first, second))  # fmt: skip
            drawn.append([grid[a[x], operator, b[y]] for x, operator, y in keys])
        else:
            drawn.append([labels[k] for k in generator.permutation(len(labels))])
    # a control task that only renames the classes is the same task
    same = all(len(set(zip(row, labels, strict=True))) == len(set(labels)) for row in drawn)
    classes, numbers = number_classes([labels, *([] if same else drawn)])
    return Labels(feature=feature, has=has, classes=classes, real=numbers[:1], controls=numbers[1:],
                  thresholds=other_thresholds(feature, chosen, numbers[0]))  # fmt: skip


def other_thresholds(
    feature: Feature, examples: Sequence[Example], own: Int[np.ndarray, " text"]
) -> Int[np.ndarray, "threshold text"] | None:
    """Whether a feature's quantity reaches each other number; None where there is none.

    Numbers that fewer than RAREST of the examples reach, or do not reach, are left out: any probe
    gets those right.

    >>> from tbtt_interp.tasks import load_task
    >>> sums = [e for e in load_task("arithmetic").examples if e.labels["operator"] == "+"]
    >>> carry = np.array([bool(e.labels["carry"]) for e in sums])
    >>> other_thresholds(FEATURES["carry"], sums, carry.astype(int)).sum(1)  # a + b from 7 to 12
    array([72, 64, 55, 36, 28])
    """
    if feature.quantity is None or not {"a", "b"} <= set.intersection(
        *({*e.labels} for e in examples)
    ):
        return None
    values = np.array([feature.quantity(example) for example in examples])
    reached = (values >= np.unique(values)[:, None]).astype(int)
    share = reached.mean(1)
    is_other = (reached != own).any(1) & (share >= RAREST) & (share <= 1 - RAREST)
    return reached[is_other] if is_other.any() else None


def pair_groups(examples: Sequence[Example]) -> Int[np.ndarray, " example"]:
    """A number for each unordered pair of operands, so that folds keep 3+4, 4+3 and 3-4 together.

    An example without operands is a group of its own.
    """
    keys = [frozenset((e.labels["a"], e.labels["b"])) if {"a", "b"} <= e.labels.keys() else e.line
            for e in examples]  # fmt: skip
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def operand_numbers(examples: Sequence[Example]) -> Float[np.ndarray, "example 5"] | None:
    """The operands as plain numbers: a, b, the sign of the operator, and sign times a and b.

    A sum and a difference are linear functions of these, so what a probe reads from them needs no
    arithmetic. None where an example has no such operands.

    >>> from tbtt_interp.tasks.arithmetic import equation
    >>> operand_numbers([equation(3, "-", 4)]).tolist()
    [[3.0, 4.0, -1.0, -3.0, -4.0]]
    """
    of = [[e.labels.get(name) for name in ("a", "b", "operator")] for e in examples]
    if not all(isinstance(a, int | float) and isinstance(b, int | float) and sign in OPERATORS
               for a, b, sign in of):  # fmt: skip
        return None
    a, b = (np.array([float(str(row[k])) for row in of]) for k in range(2))
    sign = np.array([-1.0 if row[2] == "-" else 1.0 for row in of])
    return np.stack([a, b, sign, sign * a, sign * b], 1)


def one_hot_text(texts: Sequence[str]) -> Bool[np.ndarray, "text k"]:
    """Texts in one-hot, one channel per character and place, counted from the end.

    A sum is a linear function of it, so what a probe reads from it needs no model.
    """
    aligned = np.array([list(text.rjust(max(map(len, texts)))) for text in texts])
    return (aligned[:, :, None] == np.unique(aligned)).reshape(len(texts), -1)

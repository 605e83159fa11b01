"""What can be asked of an activation: a label of the example that it is read from."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from tbtt_interp.errors import TbttError, listed, unknown
from tbtt_interp.tasks import Example
from tbtt_interp.tasks.arithmetic import equation, equation_labels
from tbtt_interp.tasks.task import Label


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One property of an example.

    Attributes:
        of: the label, or None where the example has none: a subtraction does not carry.
        is_ordinal: whether labels are numbers whose distance means something.
        period: after which labels begin anew, as digits do after 9; None if they do not.
        asked: of which texts: an example's "prompt"; the prompt "shortened" from the left, several
            ways an example; or the line "before" the example in the file, shown to several lengths.
    """

    name: str
    what: str
    of: Callable[[Example], Label | None]
    is_ordinal: bool = False
    period: int | None = None
    asked: str = "prompt"


def _label(name: str) -> Callable[[Example], Label | None]:
    return lambda example: example.labels.get(name)


def _capital(of: Callable[[str], Label]) -> Callable[[Example], Label | None]:
    return lambda example: of(str(c)) if (c := example.labels.get("capital")) else None


def _task(example: Example) -> Label | None:
    return next((t for label, t in TASK_OF.items() if label in example.labels), None)


TASK_OF = {"operator": "arithmetic", "country": "facts"}  # by a label that its examples have

FEATURES = {
    feature.name: feature
    for feature in (
        Feature(name="a", what="first operand", of=_label("a"), is_ordinal=True),
        Feature(name="b", what="second operand", of=_label("b"), is_ordinal=True),
        Feature(name="operator", what="plus or minus", of=_label("operator")),
        Feature(name="answer", what="the result", of=_label("value"), is_ordinal=True),
        Feature(name="units", what="units digit of the result", of=_label("units"), period=10),
        Feature(name="tens", what="tens digit of the result", of=_label("tens")),
        Feature(name="sign", what="sign of the result", of=_label("sign")),
        Feature(name="carry", what="whether a + b is 10 or more", of=_label("carry")),
        Feature(name="borrow", what="whether a is less than b", of=_label("borrow")),
        Feature(
            name="magnitude", what="the result without its sign", of=_label("magnitude"),
            is_ordinal=True,
        ),
        Feature(name="initial", what="first letter of the capital", of=_capital(lambda c: c[0])),
        Feature(name="length", what="letters of the capital", of=_capital(len), is_ordinal=True),
        Feature(name="task", what="arithmetic or facts", of=_task),
        Feature(name="country", what="which country", of=_label("country"), asked="shortened"),
        Feature(name="line", what="which line comes next", of=lambda e: e.line, asked="before"),
        Feature(
            name="next", what="first operand of the line that comes next", of=_label("a"),
            is_ordinal=True, asked="before",
        ),
    )
}  # fmt: skip


# The labels of our own tasks, of which the registry has what is worth asking.
REGISTERED = {*equation_labels(0, "+", 0), *equation_labels(0, "-", 0), "country", "capital"}


def known_features(
    examples: Sequence[Example], asked: Collection[str] = ("prompt",)
) -> dict[str, Feature]:
    """The features that some of these examples have, and any label that the registry has not.

    Examples that only look like ours, as sums modulo 7 do, have their labels alone.
    """
    own = {name for example in examples for name in example.labels}
    is_ours = all(_is_ours(example) for example in examples)
    known = {name: f for name, f in FEATURES.items() if f.asked in asked}
    if is_ours:
        own -= REGISTERED
        known = {k: f for k, f in known.items() if any(f.of(e) is not None for e in examples)}
    known = {k: f for k, f in known.items() if k not in own and (is_ours or k == "line")}
    return known | {name: _own(name, examples) for name in sorted(own)}


def _is_ours(example: Example) -> bool:
    """Whether those of its labels that are named as ours mean what ours do."""
    labels = {name: label for name, label in example.labels.items() if name in REGISTERED}
    a, operator, b = (labels.get(name) for name in ("a", "operator", "b"))
    if isinstance(a, int) and isinstance(b, int) and operator in ("+", "-"):
        return labels == equation_labels(a, operator, b)
    return not labels or labels.keys() == {"country", "capital"}


def _own(name: str, examples: Sequence[Example]) -> Feature:
    labels = {e.labels[name] for e in examples if name in e.labels}
    is_number = all(isinstance(label, int | float) for label in labels) and len(labels) > 2
    return Feature(name=name, what=f"the label {name}", of=_label(name), is_ordinal=is_number)


def find_features(
    names: Sequence[str] | None,
    examples: Sequence[Example],
    asked: Collection[str] = ("prompt",),
) -> list[Feature]:
    """Features by name; None is every one that the examples have, with two labels or more.

    Args:
        asked: of which texts; see `Feature`.
    Raises:
        TbttError: if a name is none, the examples do not have it, or all have it alike.

    >>> from tbtt_interp.tasks import load_task
    >>> [f.name for f in find_features(None, load_task("facts").examples)]
    ['initial', 'length']
    """
    known = known_features(examples, asked)
    varied = [n for n, f in known.items() if len({f.of(e) for e in examples} - {None}) > 1]
    for name in names or ():
        if name not in known:
            raise unknown("feature", name, varied)
        if name not in varied:
            label = next(x for e in examples if (x := known[name].of(e)) is not None)
            raise TbttError(
                f"feature '{name}' is {label} in every example here, so there is nothing to tell "
                f"apart: choose {listed(varied)}"
            )
    if not varied:
        raise TbttError(
            "these examples have no feature with two different labels: nothing to probe"
        )
    return [known[name] for name in (varied if names is None else names)]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A feature on some examples, and its control tasks on the same ones, as numbers of classes.

    Attributes:
        has: which of the examples have the feature; the rest of this is about those.
        classes: the labels by number.
        real: each example's class; a row a seed, or one for all of them.
        controls: the classes of each control task.
    """

    feature: Feature
    has: Bool[np.ndarray, " every"]
    classes: tuple[Label, ...]
    real: Int[np.ndarray, "row example"]
    controls: Int[np.ndarray, "control example"]

    @cached_property
    def every(self) -> Int[np.ndarray, "row draw example"]:
        """The feature, and after it the control tasks."""
        controls = np.broadcast_to(self.controls, (len(self.real), *self.controls.shape))
        return np.concatenate([self.real[:, None], controls], 1)

    def of_seed(self, place: int) -> Int[np.ndarray, " example"]:
        """The classes for one seed, by its place."""
        return self.real[place if len(self.real) > 1 else 0]

    def codes(self) -> Float[np.ndarray, "class rank"]:
        """Each class in one number or two: its value, or where it stands on a circle.

        Raises:
            TbttError: if the feature is neither a number nor one of two.
        """
        feature, classes = self.feature, self.classes
        if not all(isinstance(label, int | float) for label in classes):
            if len(classes) > 2:
                raise TbttError(
                    f"feature '{feature.name}' is one of {len(classes)} without order, which one "
                    "or two directions do not hold: choose a number, a digit or one of two"
                )
            classes = (0, 1)
        values = np.array([float(label) for label in classes])
        angle = 2 * np.pi * values / (feature.period or 1)
        return np.stack([np.cos(angle), np.sin(angle)] if feature.period else [values], 1)


def number_classes(
    rows: Sequence[Sequence[Label]],
) -> tuple[tuple[Label, ...], Int[np.ndarray, "row example"]]:
    """The labels in order, and the number of each."""
    found = {label for row in rows for label in row}
    classes = tuple(sorted(found, key=lambda label: (str(type(label)), label)))
    number = {label: k for k, label in enumerate(classes)}
    return classes, np.array([[number[label] for label in row] for row in rows])


def label_examples(
    feature: Feature, examples: Sequence[Example], *, controls: int, seed: int = 0
) -> Labels:
    """A feature's labels and those of its control tasks.

    A control task has the real one's structure and none of its meaning. Of an equation it is the
    same feature after the digits are renamed, by one random order for the first operand and another
    for the second: whether f(a) + g(b) is 10 or more. Draw number k renames alike for every
    feature. Of another example it is the same labels dealt anew. What depends on one operand alone,
    or on the operator, is the same task after renaming, and has no control.

    Source: Hewitt and Liang 2019, for control tasks.
    """
    every = [feature.of(example) for example in examples]
    has = np.array([label is not None for label in every])
    labels = [label for label in every if label is not None]
    chosen = [example for example, there in zip(examples, has, strict=True) if there]
    a, operator, b = ([e.labels.get(name) for e in chosen] for name in ("a", "operator", "b"))
    generators = [np.random.default_rng((seed, draw)) for draw in range(controls)]
    keys = list(zip(a, operator, b, strict=True))
    if all(key in _EQUATIONS for key in keys) and labels == [
        feature.of(_EQUATIONS[key]) for key in keys
    ]:
        plus, first, second = np.array([o == "+" for o in operator]), np.array(a), np.array(b)
        of = {key: feature.of(example) for key, example in _EQUATIONS.items()}
        grid = np.array(
            [[[of[i, o, j] for j in range(10)] for i in range(10)] for o in "-+"], object
        )
        orders = [(rng.permutation(10), rng.permutation(10)) for rng in generators]
        drawn = [grid[plus.astype(int), f[first], g[second]].tolist() for f, g in orders]
    else:
        drawn = [[labels[k] for k in rng.permutation(len(labels))] for rng in generators]
    # only other names for the same classes
    same = all(len(set(zip(row, labels, strict=True))) == len(set(labels)) for row in drawn)
    classes, numbers = number_classes([labels, *([] if same else drawn)])
    return Labels(feature=feature, has=has, classes=classes, real=numbers[:1], controls=numbers[1:])


_EQUATIONS: dict[tuple[object, ...], Example] = {
    (a, operator, b): equation(a, operator, b)
    for a in range(10)
    for operator in "+-"
    for b in range(10)
}


def pair_groups(examples: Sequence[Example]) -> Int[np.ndarray, " example"]:
    """A number for each unordered pair of operands, so that 3+4 never teaches 4+3, nor 3-4.

    An example without operands is a group of its own.
    """
    keys = [
        frozenset((e.labels["a"], e.labels["b"])) if {"a", "b"} <= e.labels.keys() else e.line
        for e in examples
    ]
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def one_hot_text(texts: Sequence[str]) -> Bool[np.ndarray, "text k"]:
    """What texts say, one channel a character and place, counted from the end.

    A sum is a linear function of this, so what a probe reads off it is no computation of a model.
    """
    longest = max(map(len, texts))
    aligned = [text.rjust(longest) for text in texts]
    letters = sorted(set("".join(aligned)))
    return np.array([[c == letter for c in text for letter in letters] for text in aligned])

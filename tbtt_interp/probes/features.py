"""What can be asked of an activation: a label of the example that it is read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.tasks import Example
from tbtt_interp.tasks.arithmetic import equation
from tbtt_interp.tasks.task import Label


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One property of an example.

    Attributes:
        of: the label, or None where the example has none: a subtraction does not carry.
        is_ordinal: whether labels are numbers whose distance means something.
    """

    name: str
    what: str
    of: Callable[[Example], Label | None]
    is_ordinal: bool = False


def _label(name: str) -> Callable[[Example], Label | None]:
    return lambda example: example.labels.get(name)


def _capital(of: Callable[[str], Label]) -> Callable[[Example], Label | None]:
    return lambda example: of(str(c)) if (c := example.labels.get("capital")) else None


FEATURES = {
    feature.name: feature
    for feature in (
        Feature(name="a", what="first operand", of=_label("a"), is_ordinal=True),
        Feature(name="b", what="second operand", of=_label("b"), is_ordinal=True),
        Feature(name="operator", what="plus or minus", of=_label("operator")),
        Feature(name="answer", what="the result", of=_label("value"), is_ordinal=True),
        Feature(name="units", what="units digit of the result", of=_label("units")),
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
    )
}  # fmt: skip


def known_features(examples: Sequence[Example]) -> list[str]:
    """The features that these examples have, with at least two different labels."""
    return [name for name, f in FEATURES.items() if len({f.of(e) for e in examples} - {None}) > 1]


def find_features(names: Sequence[str] | None, examples: Sequence[Example]) -> list[Feature]:
    """Features by name; None is every one that the examples have.

    Raises:
        TbttError: if a name is none, or the examples do not have it.

    >>> from tbtt_interp.tasks import load_task
    >>> [f.name for f in find_features(None, load_task("facts").examples)]
    ['initial', 'length']
    """
    known = known_features(examples)
    if not known:
        raise TbttError(
            "these examples have no feature with two different labels: nothing to probe"
        )
    for name in names or ():
        if name not in known:
            raise unknown("feature", name, known)
    return [FEATURES[name] for name in (known if names is None else names)]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A feature on some examples, and its control tasks on the same ones, as numbers of classes.

    Attributes:
        has: which of the examples have the feature; the rest of this is about those.
        classes: the labels by number.
        real: each example's class.
        controls: the classes of each control task.
    """

    feature: Feature
    has: Bool[np.ndarray, " every"]
    classes: tuple[Label, ...]
    real: Int[np.ndarray, " example"]
    controls: Int[np.ndarray, "control example"]


def label_examples(
    feature: Feature, examples: Sequence[Example], *, controls: int, seed: int = 0
) -> Labels:
    """A feature's labels and those of its control tasks.

    A control task has the real one's structure and none of its meaning. Of an equation it is the
    same feature after the digits are renamed, by one random order for the first operand and another
    for the second: whether f(a) + g(b) is 10 or more. Draw number k renames alike for every
    feature. Of a fact it is the same labels dealt anew. What depends on one operand alone, or on
    the operator, is the same task after renaming, and has no control.

    Source: Hewitt and Liang 2019, for control tasks.
    """
    has = np.array([feature.of(example) is not None for example in examples])
    chosen = [example for example, there in zip(examples, has, strict=True) if there]
    found = [label for e in chosen if (label := feature.of(e)) is not None]
    classes = tuple(sorted(set(found), key=lambda label: (str(type(label)), label)))
    number = {label: k for k, label in enumerate(classes)}
    real = np.array([number[label] for label in found])
    drawn: list[list[int]] = []
    for draw in range(controls):
        generator = np.random.default_rng((seed, draw))
        f, g = generator.permutation(10), generator.permutation(10)
        if all("operator" in example.labels for example in chosen):
            labels = (feature.of(_renamed(example, f, g)) for example in chosen)
            drawn.append([number[label] for label in labels if label is not None])
        else:
            drawn.append(generator.permutation(real).tolist())
    # only other names for the same classes
    same = all(len(set(zip(row, real.tolist(), strict=True))) == len(classes) for row in drawn)
    kept = [] if same else drawn
    return Labels(
        feature=feature,
        has=has,
        classes=classes,
        real=real,
        controls=np.array(kept, dtype=int).reshape(len(kept), len(real)),
    )


def _renamed(
    example: Example, f: Int[np.ndarray, " digit"], g: Int[np.ndarray, " digit"]
) -> Example:
    a, operator, b = (example.labels[name] for name in ("a", "operator", "b"))
    return _EQUATIONS[int(f[int(a)]), str(operator), int(g[int(b)])]


_EQUATIONS = {
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
        frozenset((e.labels["a"], e.labels["b"])) if "operator" in e.labels else e.line
        for e in examples
    ]
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def one_hot_operands(examples: Sequence[Example]) -> Bool[np.ndarray, "example d"]:
    """What the input itself says, one channel a digit of each operand and one an operator.

    A sum is a linear function of this, so what a probe reads off it is no computation of a model.
    """
    columns = {
        name: sorted({str(e.labels[name]) for e in examples if name in e.labels})
        for name in ("a", "operator", "b", "country")
    }
    return np.array(
        [[str(e.labels.get(name)) == v for name, vs in columns.items() for v in vs]
         for e in examples]
    )  # fmt: skip

"""Features that probes read: labels of the example that an activation is read from.

To add a feature, give it an entry here, or call `register_feature` from outside.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool

from tbtt_interp.errors import TbttError, listed, unknown
from tbtt_interp.tasks import Example
from tbtt_interp.tasks.arithmetic import OPERATORS, equation_labels
from tbtt_interp.tasks.facts import CAPITALS
from tbtt_interp.tasks.task import Label

Texts = Literal["prompt", "shortened", "preceding line"]
POST, MID = "hook_resid_post", "hook_resid_mid"


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
    features: Any, examples: Sequence[Example], texts: Collection[Texts] = ("prompt",)
) -> list[Feature]:
    """Features by name, or made of functions and labels.

    Labels of your own are features. The built-in features are left out where the examples only
    resemble the built-in tasks, as sums modulo 7 do.

    Args:
        features: a name, a Feature, a function of an example or an array of labels in the examples'
            order; several of these; or a mapping from names to functions, labels or Features. None
            is every feature with two labels or more in the examples.
        texts: the kinds of texts that may be shown to the model; see `Feature`.
    Raises:
        TbttError: if a name is unknown, or every example has the same label.

    >>> from tbtt_interp.tasks import load_task
    >>> facts = load_task("facts").examples
    >>> [f.name for f in find_features(None, facts)]
    ['initial', 'length']
    >>> find_features({"long": lambda e: len(e.labels["capital"]) > 6}, facts)[0].of(facts[0])
    False
    """
    are_built_in = all(map(is_built_in, examples))
    own = {name for example in examples for name in example.labels}
    own -= (FEATURES.keys() - BUILT_IN) | (TASK_LABELS if are_built_in else set())
    meaningless = own if are_built_in else own | (BUILT_IN - {"line"})
    offered = {f.name: f for f in FEATURES.values() if f.name not in meaningless
               and f.texts in texts}  # fmt: skip
    offered |= {name: feature_of(name, _label(name), examples) for name in sorted(own)}
    labels = {name: {*map(f.of, examples)} - {None} for name, f in offered.items()}
    varied = [name for name, found in labels.items() if len(found) > 1]
    if features is None and not varied:
        raise TbttError(
            "these examples have no feature with two different labels: nothing to probe"
        )
    chosen: list[Feature] = []
    for name, given in _named(varied if features is None else features):
        if isinstance(given, str) and not labels.get(given):
            raise unknown("feature", given, varied)
        one = offered[given] if isinstance(given, str) else feature_of(name, given, examples)
        found = {*map(one.of, examples)} - {None}
        if len(found) < 2:
            known = listed(varied) if varied else "give another"
            what = f"is {found.pop()}" if found else "has no label"
            raise TbttError(
                f"feature '{one.name}' {what} in every example here, so a probe has one class "
                f"only: choose {known}"
            )
        chosen.append(one)
    return chosen


def _named(features: Any) -> list[tuple[str, Any]]:
    """Each feature with a name for it, from one or several in whichever form."""
    if isinstance(features, Mapping):
        return [(str(name), given) for name, given in features.items()]
    is_one = isinstance(features, str | Feature) or callable(features) or hasattr(features, "dtype")
    several: list[Any] = [features] if is_one else list(features)  # pyright: ignore
    if not any(isinstance(x, str | Feature) or callable(x) or np.ndim(x) for x in several):
        several = [several]  # one list of labels
    names = [x if isinstance(x, str) else getattr(x, "name", None) or
             getattr(x, "__name__", "<labels>") for x in several]  # fmt: skip
    plain = [str(name).strip("<>").replace("lambda", "function") for name in names]
    counts = {name: plain.count(name) for name in plain}
    return [(f"{name} {k + 1}" if counts[name] > 1 else name, x)
            for k, (name, x) in enumerate(zip(plain, several, strict=True))]  # fmt: skip


def feature_of(name: str, given: Any, examples: Sequence[Example]) -> Feature:
    """A feature from a Feature, a function of an example, or labels in the examples' order.

    Numbers of three values or more are ordinal. None and nan are no label.

    Raises:
        TbttError: if there are not as many labels as examples, or the function fails on one.
    """
    if isinstance(given, Feature):
        return given
    if callable(given):
        what = "a function of the example"

        def of(example: Example) -> Label | None:
            try:
                return _plain(given(example))
            except Exception as error:
                raise TbttError(
                    f"feature '{name}' fails on {example.prompt!r} ({type(error).__name__}: "
                    f"{error}): return None where an example has no label"
                ) from error
    else:
        labels = [_plain(label) for label in given]
        if len(labels) != len(examples):
            raise TbttError(
                f"feature '{name}' has {len(labels)} labels and there are {len(examples)} prompts: "
                "give a label for each, in their order, and None where there is none"
            )
        known = dict(zip((e.line for e in examples), labels, strict=True))
        if any(known[e.line] != label for e, label in zip(examples, labels, strict=True)):
            raise TbttError(f"feature '{name}' has two labels for one line: give a function")
        what = "labels as given"

        def of(example: Example) -> Label | None:
            return known.get(example.line)

    found = {*map(of, examples)} - {None}
    is_number = all(isinstance(label, int | float) for label in found) and len(found) > 2
    return Feature(name, what, of, is_ordinal=is_number)


def _plain(label: Any) -> Label | None:
    """A label as Python has it; None for what is missing."""
    label = label.item() if hasattr(label, "item") else label
    return None if pd.isna(label) else label


def is_own(feature: Feature) -> bool:
    """Whether a feature is a user's, not one that comes with the package."""
    return feature.name not in BUILT_IN or FEATURES.get(feature.name) is not feature


def is_built_in(example: Example) -> bool:
    """Whether an example is of a built-in task, or has none of the labels of one."""
    labels = {name: label for name, label in example.labels.items() if name in TASK_LABELS}
    a, operator, b = (labels.get(name) for name in ("a", "operator", "b"))
    if isinstance(a, int) and isinstance(b, int) and operator in OPERATORS:
        return labels == equation_labels(a, str(operator), b)
    country = str(labels.get("country"))
    return not labels or labels == {"country": country, "capital": CAPITALS.get(country)}


def one_hot_text(texts: Sequence[str]) -> Bool[np.ndarray, "text k"]:
    """Texts in one-hot, one channel per character and place, counted from the end.

    A sum is a linear function of it, so what a probe reads from it needs no model.
    """
    aligned = np.array([list(text.rjust(max(map(len, texts)))) for text in texts])
    return (aligned[:, :, None] == np.unique(aligned)).reshape(len(texts), -1)

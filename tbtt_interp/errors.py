"""The one error class, and the sentence for a name that is not among a known few."""

from collections.abc import Iterable
from difflib import get_close_matches


class TbttError(Exception):
    """What went wrong, what is allowed, what to do next; shown to the user as one line."""


def listed(names: Iterable[object], conjunction: str = "or") -> str:
    """Names as a phrase.

    >>> listed(["small", "medium", "large"])
    'small, medium or large'
    """
    *most, last = [str(name) for name in names]
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def unknown(what: str, value: object, allowed: Iterable[str], then: str = "") -> TbttError:
    """The error for a name that is not one of a known few, naming the nearest.

    >>> print(unknown("size", "smal", ["small", "medium"], "or give --recipe FILE"))
    size 'smal' is unknown (did you mean 'small'?): choose small or medium, or give --recipe FILE
    """
    allowed = list(allowed)
    choice = f"choose {listed(allowed)}" if allowed else "there is none to choose"
    then = f", {then}" if then else ""
    return TbttError(f"{what} '{value}' is unknown{guess(value, allowed)}: {choice}{then}")


def guess(value: object, allowed: Iterable[str]) -> str:
    """The nearest of some names in brackets, to stand in an error; nothing where none is near.

    >>> guess("smal", ["small", "medium"])
    " (did you mean 'small'?)"
    """
    near = get_close_matches(str(value), list(allowed), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""

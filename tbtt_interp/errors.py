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
    near = get_close_matches(str(value), allowed, n=1)
    guess = f" (did you mean '{near[0]}'?)" if near else ""
    choice = f"choose {listed(allowed)}" if allowed else "there is none to choose"
    return TbttError(f"{what} '{value}' is unknown{guess}: {choice}{', ' + then if then else ''}")

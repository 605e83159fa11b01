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
    allowed, value = list(allowed), shortened(str(value))
    choice = f"choose {listed(allowed)}" if allowed else "there is none to choose"
    then = f", {then}" if then else ""
    return TbttError(f"{what} '{value}' is unknown{guess(value, allowed)}: {choice}{then}")


def guess(value: object, allowed: Iterable[str]) -> str:
    """The nearest of some names in brackets, to stand in an error; nothing where none is near.

    >>> guess("smal", ["small", "medium"])
    " (did you mean 'small'?)"
    """
    near = get_close_matches(shortened(str(value)), list(allowed), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def brief(value: object) -> str:
    """A value as a part of a message, short whatever it is.

    >>> brief(8.0), brief([[[]]]), brief("x" * 99)
    ('8.0', 'a list', "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'")
    """
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length():,} bits"
    if value is not None and not isinstance(value, bool | int | float | str):
        return f"a {type(value).__name__}"
    return repr(shortened(value) if isinstance(value, str) else value)


def shortened(text: str, most: int = 60) -> str:
    """A text cut to a part of a line."""
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str, keep: str = "") -> str:
    r"""A text with its control and invisible characters spelled out, but for those to keep.

    >>> printable("a\x1b[2Jb\u202e")
    'a\\x1b[2Jb\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def folder_word(value: object) -> str:
    """A value as a part of a folder's name: without what separates folders, or cannot be seen.

    >>> folder_word("runs/a@500"), folder_word(1e-2)
    ('runs-a@500', '0.01')
    """
    return "".join(c if c.isprintable() and c not in "/\\" else "-" for c in str(value))


def is_folder_name(text: str) -> bool:
    """Whether a text can name one folder, and is not a path to another place.

    >>> is_folder_name("tiny-2"), is_folder_name("../tiny"), is_folder_name("..")
    (True, False, False)
    """
    return text.isprintable() and 0 < len(text) <= 100 and not {"/", "\\", ".."} & {*text, text}

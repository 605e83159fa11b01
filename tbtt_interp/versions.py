"""The versions of this package and of those that decide what a run computes."""

import platform
from importlib.metadata import PackageNotFoundError, version


def installed_version(package: str = "tbtt_interp") -> str:
    """The version of an installed package, as its metadata gives it.

    >>> installed_version("no-such-package")
    'not installed'
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run computes."""
    names = ("tbtt_interp", "torch", "transformer-lens", "numpy")
    return {"python": platform.python_version(), **{n: installed_version(n) for n in names}}

"""The version of this package, and of those that decide what a run computes."""

__version__ = "0.1.0"  # the only place that has it; pyproject.toml reads it from here


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run computes."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    known = {"python": platform.python_version(), "tbtt_interp": __version__}
    for name in ("torch", "transformer-lens", "numpy"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = "not installed"
    return known

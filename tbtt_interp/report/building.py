"""A report from its runs: opened, asked section by section, and written as one page."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from tbtt_interp.analyses.findings import Tell, silent
from tbtt_interp.report.opening import open_runs, shipped_places
from tbtt_interp.report.page import Report
from tbtt_interp.report.sections import build_sections, chosen_sections


def build_report(
    places: Sequence[Path] = (), *, only: Sequence[str] = (), tell: Tell = silent
) -> Report:
    """Every section over some runs; with none, over the models that come with the package.

    A run that cannot be read, and a section that cannot be built, is in the report with its
    reason.

    Args:
        places: folders of runs, or with runs below them.
        only: sections by name; none is all.
    Raises:
        TbttError: if no run can be read, or a section is unknown.
    """
    sections = chosen_sections(only, of_runs=bool(places))
    opened = open_runs(places or shipped_places())
    command = shlex.join(["tbtt", "report", *map(str, places)])
    parts = build_sections(sections, opened.runs, command=command, tell=tell)
    return Report(
        runs=opened.runs, problems=opened.problems, parts=tuple(parts), command=command
    )  # fmt: skip

"""A report from runs: which can be read, and every section built or named with its reason."""

import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from tbtt_interp import runs
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.pretrained.models import OVER_TRAINING
from tbtt_interp.report.measures import SECTIONS
from tbtt_interp.report.page import Built, Report
from tbtt_interp.report.sections import build_section
from tbtt_interp.results import Result
from tbtt_interp.runs import Run, find_runs, load_run
from tbtt_interp.tables import check_whole

APPENDIX = frozenset(section.name for section in SECTIONS if section.in_appendix)
Build = Callable[[Sequence[Run], str], Result]  # of runs, with the command that reproduces it


def build_report(places: Sequence[Path] = (), *, only: Sequence[str] = ()) -> Report:
    """The report of some runs; without any, of the models that come with the package.

    A run that cannot be read, and a section that cannot be built, is in the report with its reason.

    Args:
        places: runs, or folders with runs below them.
        only: sections by name; none is all.
    Raises:
        TbttError: if no run can be read, or a section is unknown.
    """
    command = shlex.join(["tbtt", "report", *map(str, places)])
    builders = {section.name: partial(build_section, section) for section in SECTIONS}
    return build_sections(
        builders, places or shipped_places(), command, f"{command} --only {{}} --json", only=only
    )


def build_sections(
    builders: Mapping[str, Build], places: Sequence[Path], command: str,
    only_command: str, *, only: Sequence[str] = (), appendix: Collection[str] = APPENDIX,
) -> Report:  # fmt: skip
    """A report with these sections, one after the other.

    Args:
        builders: by name, what makes a section's result.
        command: what builds the report.
        only_command: what builds one section, with {} for its name.
        only: sections by name; none is all.
        appendix: the sections that stand in the appendix.
    """
    for name in only:
        if name not in builders:
            raise unknown("section", name, builders)
    readable, problems = open_runs(places)
    built = []
    for name, build in builders.items():
        if only and name not in only:
            continue
        start, result, reason = time.perf_counter(), None, ""
        try:
            result = build(readable, only_command.format(name))
        except TbttError as error:
            reason = str(error)
        seconds = time.perf_counter() - start
        built.append(Built(name=name, result=result, reason=reason, seconds=seconds,
                           in_appendix=name in appendix))  # fmt: skip
    return Report(runs=readable, problems=problems, sections=tuple(built), command=command)


def shipped_places() -> list[Path]:
    """The folders of the published trainings that come with the package, at their last step.

    Runs whose training was changed have longer names than task, size and framing.

    Raises:
        TbttError: if there are none.
    """
    shipped = runs.shipped_runs()
    folders = [folder for name, folder in shipped.items() if name.count("-") == 2]
    if not folders:
        raise TbttError(
            "no models come with this package: give runs, as in tbtt report runs/ladder, which "
            "tbtt sweep ladder trains"
        )
    return folders


def open_runs(places: Sequence[Path]) -> tuple[tuple[Run, ...], dict[str, str]]:
    """Runs that can be read, those below folders too, and why others cannot, by name.

    A run that is given twice is read once. Below a folder of packed models, a run over training is
    left out where the same models are beside it.

    Raises:
        TbttError: if no run can be read.
    """
    readable: dict[Path, Run] = {}
    problems = {}
    for place in places:
        is_parent = place.is_dir() and not (place / "config.json").is_file()
        below = find_runs(place) if is_parent else [place]
        over_training = [folder.with_name(folder.name + OVER_TRAINING) for folder in below]
        folders = [folder for folder in below if folder not in over_training]
        if not folders:
            problems[str(place)] = f"{place} has no run in it"
        for folder in folders:
            try:
                run = load_run(folder)
                if run.folder.resolve() not in readable:
                    check_whole(run)
                    run.sound_seeds()
                    readable[run.folder.resolve()] = run
                    if diverged := run.divergence():
                        problems[str(folder)] = diverged
            except TbttError as error:
                problems[str(folder)] = str(error)
    if not readable:
        raise TbttError(
            f"there is no run to report on: {'; '.join(problems.values()) or 'none was given'}"
        )
    return tuple(readable.values()), problems

"""The sections of a report in their order, each built or with the reason why it is not."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from tbtt_interp.analyses.findings import Tell, silent
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.evidence.models import shipped_table
from tbtt_interp.report.answers import answers_evidence
from tbtt_interp.report.causes import attention_evidence, patching_evidence, unsaid_evidence
from tbtt_interp.report.inside import additivity_evidence, geometry_evidence
from tbtt_interp.report.reading import order_evidence, probes_evidence
from tbtt_interp.runs import Run

Build = Callable[..., Evidence]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A question of the report.

    Attributes:
        name: in the command, in links, and as the heading of a section that is not built.
        build: of the runs, with `command` and `tell`.
    """

    name: str
    build: Build


def of_sweeps(name: str, *tables: tuple[str, ...]) -> Section:
    """A section of `NAME_evidence` in evidence/NAME.py, over tables that come with the package.

    Args:
        tables: its arguments, each of one sweep or of several, one below the other, and which of
            TABLES.
    """

    def build(runs: Sequence[Run], *, command: str, tell: Tell) -> Evidence:
        given = [shipped_table(sweeps, which) for which, *sweeps in tables]
        module = import_module(f"tbtt_interp.evidence.{name}")
        return getattr(module, f"{name}_evidence")(*given)

    return Section(name=name, build=build)


# Of a report without runs: what the sweeps say.
OF_SWEEPS = (
    of_sweeps("ladder", ("models", "ladder"), ("over training", "ladder"), ("held out", "ladder")),
    of_sweeps("atlas", ("held out", "atlas")),
    of_sweeps("widths", ("models", "widths"), ("over training", "widths")),
    of_sweeps("optimisation", ("models", "widths"), ("models", "optimisation"),
              ("over training", "optimisation"), ("over training", "ladder")),
    of_sweeps("window", ("models", "window"), ("models", "ladder")),
    of_sweeps("forgetting", ("over training", "ladder", "optimisation")),
)  # fmt: skip
# Of a report on some runs: what these answer.
OF_RUNS = (Section(name="answers", build=answers_evidence),)
# Of either: what is inside of the models.
INSIDE = (
    Section(name="order", build=order_evidence),
    Section(name="additivity", build=additivity_evidence),
    Section(name="geometry", build=geometry_evidence),
    Section(name="probes", build=probes_evidence),
    Section(name="patching", build=patching_evidence),
    Section(name="attention", build=attention_evidence),
    Section(name="too-big-to-say", build=unsaid_evidence),
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A section as it came out: its evidence, or the reason why there is none."""

    name: str
    evidence: Evidence | None
    reason: str
    seconds: float


def chosen_sections(only: Sequence[str], *, of_runs: bool) -> tuple[Section, ...]:
    """The sections of a report, or of these those that are named.

    Args:
        of_runs: whether runs were given; otherwise the sweeps that come with the package speak.
    """
    every = (*OF_RUNS, *INSIDE) if of_runs else (*OF_SWEEPS, *INSIDE)
    names = [section.name for section in every]
    for name in only:
        if name not in names:
            raise unknown("section", name, names)
    return tuple(section for section in every if not only or section.name in only)


def build_sections(
    sections: Sequence[Section], runs: Sequence[Run], *, command: str, tell: Tell = silent
) -> list[Part]:
    """Every section, one after the other; what raises a TbttError has that as its reason.

    Args:
        command: that builds the report, to which a section adds its name.
    """
    parts = []
    for number, section in enumerate(sections):
        begun, evidence, reason = time.perf_counter(), None, ""
        told = partial(_told, tell, number, len(sections))
        try:
            evidence = section.build(
                runs, command=f"{command} --only {section.name} --json", tell=told
            )
        except TbttError as error:
            reason = str(error)
        seconds = time.perf_counter() - begun
        parts.append(Part(name=section.name, evidence=evidence, reason=reason, seconds=seconds))
        tell((number + 1) * 100, len(sections) * 100)
    return parts


def _told(tell: Tell, number: int, sections: int, done: int, of: int) -> None:
    tell(number * 100 + 100 * done // of, sections * 100)

# %% [markdown]
# # What do the paper's sweeps say, and what is inside the models that ship?
# One page: every sweep's study on the tables beside it, and what a report asks of the models that
# come with the package. `python analyses/paper.py [SECTION]... [PAGE.html]`; some 4 min for all.

# %%
import functools
from collections.abc import Callable, Sequence

from atlas import atlas_result
from forgetting import forgetting_result
from ladder import ladder_result
from optimisation import optimisation_result
from sweeps import sweep_table
from widths import widths_result
from window import window_result

from tbtt_interp.report.build import build_sections, shipped_places
from tbtt_interp.report.measures import SECTIONS
from tbtt_interp.report.page import render
from tbtt_interp.report.sections import build_section
from tbtt_interp.results import Result
from tbtt_interp.runs import Run, write_new
from tbtt_interp.study import study_arguments


# %%
def of_sweep(study: Callable[..., Result], *tables: tuple[str, str]) -> Callable[..., Result]:
    """A section: a study on the shipped tables, each named by its sweep and what it has."""

    def build(runs: Sequence[Run], command: str) -> Result:
        return study(*(sweep_table(sweep, which) for sweep, which in tables))

    return build


SWEEPS = {
    "ladder": of_sweep(ladder_result, ("ladder", "models"), ("ladder", "over training"),
                       ("ladder", "held out")),
    "atlas": of_sweep(atlas_result, ("atlas", "held out")),
    "widths": of_sweep(widths_result, ("widths", "models")),
    "optimisation": of_sweep(
        optimisation_result, ("widths", "models"), ("optimisation", "models"),
        ("optimisation", "over training"), ("ladder", "over training"),
    ),
    "window": of_sweep(window_result, ("window", "models"), ("ladder", "models")),
    "forgetting": of_sweep(forgetting_result, ("ladder", "over training")),
}  # fmt: skip
INSIDE = {section.name: functools.partial(build_section, section) for section in SECTIONS
          if section.name != "answers"}  # fmt: skip

# %%
if __name__ == "__main__":
    names, files = study_arguments(most=None)
    report = build_sections(
        SWEEPS | INSIDE,
        shipped_places(),
        "python analyses/paper.py",
        "python analyses/paper.py {}",
        only=list(map(str, names)),
    )
    for page in files:
        write_new(page, render(report).encode())
    for section in report.sections:
        print(f"{section.name}: {section.verdicts or section.reason}")

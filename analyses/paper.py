# %% [markdown]
# # What do the paper's sweeps say, and what is inside the models that ship?
# One page: every sweep's study on the tables beside it, and what a report asks of the models that
# come with the package. `python analyses/paper.py [SECTION]... [PAGE.html]`; some 4 min for all.

# %%
import functools

import atlas
import forgetting
import ladder
import window
from sweeps import study_result

from tbtt_interp.files import write_new
from tbtt_interp.report.build import Build, build_sections, shipped_places
from tbtt_interp.report.measures import SECTIONS
from tbtt_interp.report.page import render
from tbtt_interp.report.sections import build_section
from tbtt_interp.study import study_arguments

# %%
SWEEPS: dict[str, Build] = {
    name: lambda runs, command, study=study, reads=reads: study_result(study, reads)
    for name, study, reads in (
        ("ladder", ladder.ladder_result, ladder.READS),
        ("atlas", atlas.atlas_result, atlas.READS),
        ("window", window.window_result, window.READS),
        ("forgetting", forgetting.forgetting_result, forgetting.READS),
    )
}
INSIDE = {section.name: functools.partial(build_section, section) for section in SECTIONS
          if section.name != "answers"}  # fmt: skip

# %%
if __name__ == "__main__":
    names, files = study_arguments(most=None)
    command = "python analyses/paper.py"
    report = build_sections(
        SWEEPS | INSIDE, shipped_places(), command, f"{command} {{}}", only=list(map(str, names))
    )
    for page in files:
        write_new(page, render(report).encode())
    for section in report.sections:
        print(f"{section.name}: {section.verdicts or section.reason}")

# %% [markdown]
# # When does a model learn the rule, when does it memorize, and what made it so?
# One page: an answer in five sentences, causes first, what models of each size answer, and what is
# inside the models that come with the package. `python analyses/paper.py [SECTION]...
# [PAGE.html]`; some 5 min for all.

# %%
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import atlas
import digits_code
import forgetting
import ladder
import size
import why
import window
from sweeps import select, study_result

from tbtt_interp.errors import TbttError
from tbtt_interp.files import write_new
from tbtt_interp.report.build import APPENDIX, Build, build_sections, shipped_places
from tbtt_interp.report.measures import SECTIONS
from tbtt_interp.report.page import render
from tbtt_interp.report.sections import build_section
from tbtt_interp.results import Result
from tbtt_interp.study import study_arguments
from tbtt_interp.train.sweep import read_sweep

# %%
CONTRASTS = [contrast for name in why.SWEEPS for contrast in read_sweep(name).contrasts]
SWEEPS: dict[str, Build] = {
    name: lambda runs, command, study=study, reads=reads: study_result(study, reads)
    for name, study, reads in (
        ("size", size.size_result, size.READS),
        ("digits-code", digits_code.code_result, digits_code.READS),
        ("why", lambda: why.why_result(why.read_fits([]), CONTRASTS), []),
        ("ladder", ladder.ladder_result, ladder.READS),
        ("atlas", atlas.atlas_result, atlas.READS),
        ("window", window.window_result, window.READS),
        ("forgetting", forgetting.forgetting_result, forgetting.READS),
    )
}
INSIDE = {section.name: functools.partial(build_section, section) for section in SECTIONS
          if section.name != "answers"}  # fmt: skip


# %%
def answer(results: Mapping[str, Result]) -> list[str]:
    """The five sentences that answer the title, with the numbers of the studies.

    Raises:
        TbttError: if a contrast has another verdict than its sentence says.
    """
    rows = results["why"].tables["why"]
    dose = results["digits-code"].claims[0].effect.format()
    arms = results["digits-code"].display
    on_file = select(arms, task="joint", framing="file").set_index("condition")["at the end"]

    def contrast(start: str, verdict: str) -> dict[Any, Any]:
        row = rows[rows["claim"].str.startswith(start)].iloc[0].to_dict()
        if row["verdict"] != verdict:
            raise TbttError(
                f"the page's answer takes a claim for {verdict} that is {row['verdict']}: "
                f"{row['claim']} Rewrite its sentence in {__file__}"
            )
        return row

    two = contrast("Two dimensions", "supported")
    smooth = contrast("Smoothing the digits brings", "supported")
    joint = contrast("Smoothing the digits, but", "supported")
    deep = contrast("Three layers", "supported")
    rate = contrast("Ten times", "refuted")
    grown = contrast("A norm clamped", "undecided")
    return [
        "As published, small models answer held-out equations and large ones do not; but width is "
        f"not what decides: large with its ten digits' embeddings confined to two dimensions "
        f"answers {two['second']} of the held-out equations instead of {two['first']}, and still "
        f"knows all that it has seen ({dose} per doubling of the dimensions).",
        f"It is the order of the digits that matters: embeddings that change smoothly from digit "
        f"to digit bring {smooth['second']}, the same smoothing along a random order "
        f"{smooth['first']}.",
        f"One large model can hold 50 facts and the rule, where lines stand alone: smoothed, "
        f"{joint['second']} of the held-out equations, its sham {joint['first']}; on windows of a "
        f"fixed file, {on_file['smooth, 1']}, which is not told apart from its sham.",
        f"Depth brings the rule back, too: three layers answer {deep['second']} where one answers "
        f"{deep['first']}.",
        f"Faster embeddings do not bring it back ({rate['second']}), and neither, as far as can be "
        f"seen, do weights that stop growing ({grown['second']}).",
    ]  # fmt: skip


if __name__ == "__main__":
    names, files = study_arguments(most=None)
    command = "python analyses/paper.py"
    only = list(map(str, names))
    report = build_sections(
        SWEEPS | INSIDE, shipped_places(), command, f"{command} {{}}", only=only,
        appendix=APPENDIX | {"window", "forgetting"},
    )  # fmt: skip
    results = {section.name: section.result for section in report.sections if section.result}
    if {"why", "digits-code"} <= results.keys():
        report = dataclasses.replace(report, lead=answer(results))
    for page in files:
        write_new(page, render(report).encode())
    for section in report.sections:
        print(f"{section.name}: {section.verdicts or section.reason}")

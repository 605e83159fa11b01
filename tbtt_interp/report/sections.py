"""The sections of a report on some runs: one measure each, by size and framing, with its nulls.

A section is data: a function that measures one run's models, the nulls, and the claims' words.
`build_section` compares the runs in the same way for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.compare import labelled, size_claims
from tbtt_interp.errors import TbttError
from tbtt_interp.model_tables import run_settings
from tbtt_interp.plots import points
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.stats import ANY, Bounds, Interval, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CELL = ["label", "run", "size", "width", "layers", "framing"]  # the columns of a run


@dataclass(frozen=True, kw_only=True)
class Section:
    """A question that a report asks of every run.

    Attributes:
        name: in the command and in links.
        question: the heading.
        measure: of a run, one row per model and `panel`, with `seed`, `value` and the nulls; or
            one row per panel, summarized already, with `value_low`, `value_high`, `n_models`.
        title: of the value's axis, with its unit.
        bounds: values that a mean can have.
        nulls: the nulls' columns, and what each is called.
        above_null: per panel a claim, with {size} and {framing}, that the value is above its nulls.
        by_size: per panel a claim, with {wide}, {narrow} and {framing}, that sizes differ.
        unit: of the claims' effects.
        notes: how it was measured, and what columns mean.
        more_figures: further figures of the runs, by name.
        in_appendix: whether it stands behind what the page says first.
    """

    name: str
    question: str
    measure: Callable[[Run], pd.DataFrame]
    title: str
    unit: str
    bounds: Bounds = ANY
    nulls: Mapping[str, str] = field(default_factory=dict)
    above_null: Mapping[str, str] = field(default_factory=dict)
    by_size: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    more_figures: "Callable[[Sequence[Run]], dict[str, Callable[[], Figure]]]" = lambda _: {}
    in_appendix: bool = False


def build_section(section: Section, runs: Sequence[Run], command: str) -> Result:
    """A section over some runs; runs that cannot be measured are named in its notes.

    Raises:
        TbttError: if no run can be measured.
    """
    tables, left_out, measured = [], [], []
    for label, run in labelled(runs).items():
        try:
            table = section.measure(run)
        except TbttError as error:
            left_out.append(f"Left out, {label}: {error}.")
            continue
        cell = {"label": label} | run_settings(run)
        tables.append(table.assign(**{name: cell[name] for name in CELL}))
        measured.append(run)
    if not tables:
        raise TbttError(" ".join(left_out) or "there is no run to measure")
    table = means = pd.concat(tables, ignore_index=True)
    nulls = [null for null in section.nulls if null in table]
    if "seed" in table:
        means = summarize(table, [*CELL, "panel"], ["value", *nulls], bounds=section.bounds)
    texts = [Interval.of_row(row, "value").format() for row in means.to_dict("records")]
    means = means.assign(text=texts)
    claims = _null_claims(section, means, command)
    for panel, text in section.by_size.items():
        models = table[table["panel"] == panel]
        claims += size_claims(models, text, unit=section.unit, command=command)
    in_brackets = f" In round brackets: {', '.join(section.nulls.values())}." if nulls else ""
    claimed = dict.fromkeys([*section.above_null, *section.by_size] or means["panel"])
    return Result(
        name=section.name, question=section.question, tables={section.name: table},
        display=_display(means, nulls), claims=claims, command=command,
        figures={section.name: partial(plot_by_size, means, table, section),
                 **section.more_figures(measured)},
        summary=[_sentence(means, panel) for panel in claimed],
        notes=[*section.notes, f"In square brackets: 95 % intervals.{in_brackets}", *left_out],
    )  # fmt: skip


def _sentence(means: pd.DataFrame, panel: str) -> str:
    """The means of one panel over all sizes and framings, as one sentence."""
    words = [
        f"on {framing} {', '.join(cells['size'] + ' ' + cells['text'])}"
        for framing, cells in means[means["panel"] == panel].groupby("framing", sort=False)
    ]
    return f"{panel[0].upper()}{panel[1:]}: {'; '.join(words)}."


def _null_claims(section: Section, means: pd.DataFrame, command: str) -> list[Claim]:
    """One claim per cell and panel, that its value is above the highest of its nulls."""
    claims = []
    for row in means[means["panel"].isin(section.above_null)].to_dict("records"):
        text = section.above_null[row["panel"]].format(size=row["size"], framing=row["framing"])
        claims.append(Claim.of_row(
            row, "value", section.nulls, "highest", unit=section.unit, command=command,
            text=f"{text} ({row['run']})" if "(" in row["label"] else text,
        ))  # fmt: skip
    return claims


def _display(means: pd.DataFrame, nulls: Sequence[str]) -> pd.DataFrame:
    """One row per run and one column per panel: the mean, its interval, and the nulls."""
    known = [", ".join(f"{null:.2f}" for null in row if pd.notna(null))
             for row in means[nulls].to_numpy()]  # fmt: skip
    wide = means.assign(
        text=[f"{text} ({null})" if null else text
              for text, null in zip(means["text"], known, strict=True)],
        models=means.groupby("label")["n_models"].transform("max"),
    ).pivot_table(
        index=["label", "framing", "size", "models"], columns="panel", values="text",
        aggfunc="first", sort=False,
    )  # fmt: skip
    return wide[list(dict.fromkeys(means["panel"]))].fillna("").reset_index().drop(columns="label")


def plot_by_size(means: pd.DataFrame, models: pd.DataFrame, section: Section) -> "Figure":
    """Every size and framing: the mean over models with its 95 % interval, and the nulls.

    Args:
        means: one row per run and panel.
        models: one row per model and panel, drawn as small dots.
    """
    return points(
        means.sort_values(["layers", "width"], kind="stable"), name="size", value="value",
        by="framing", panel="panel", dots=models if "seed" in models else None,
        nulls=section.nulls, title=section.title, hover=["n_models"], horizontal=False,
    ).update_xaxes(tickangle=0)  # fmt: skip

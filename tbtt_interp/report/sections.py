"""The sections of a report on some runs: one measure each, by size and framing, with its nulls.

A section is data: a function that measures one run's models, the nulls, and the claims' words.
`build_section` compares the runs in the same way for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.compare import CELL, labelled, size_claims, with_cell
from tbtt_interp.errors import TbttError
from tbtt_interp.plots import points
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.stats import ANY, Bounds, Interval, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


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


def build_section(section: Section, runs: Sequence[Run], command: str) -> Result:
    """A section over some runs; runs that cannot be measured are named in its notes.

    Raises:
        TbttError: if no run can be measured.
    """
    tables, left_out, measured = [], [], []
    for label, run in labelled(runs).items():
        try:
            tables.append(with_cell(section.measure(run), label, run))
            measured.append(run)
        except TbttError as error:
            left_out.append(f"Left out, {label}: {error}.")
    if not tables:
        raise TbttError(" ".join(left_out) or "there is no run to measure")
    table = pd.concat(tables, ignore_index=True)
    nulls = [null for null in section.nulls if null in table]
    values = ["value", *nulls]
    means = table
    if "seed" in table:
        means = summarize(table, [*CELL, "panel"], values, bounds=section.bounds)
    claims = [
        *_null_claims(section, means, command),
        *(claim for panel, text in section.by_size.items()
          for claim in size_claims(table[table["panel"] == panel], text, unit=section.unit,
                                   command=command)),
    ]  # fmt: skip
    in_brackets = f" In round brackets: {', '.join(section.nulls.values())}." if nulls else ""
    return Result(
        name=section.name, question=section.question, tables={section.name: table},
        display=_display(means, nulls), claims=claims, command=command,
        figures={section.name: partial(plot_by_size, means, table, section),
                 **section.more_figures(measured)},
        summary=[_sentence(means, panel) for panel in _panels(section, means)],
        notes=[*section.notes, f"In square brackets: 95 % intervals.{in_brackets}", *left_out],
    )  # fmt: skip


def _panels(section: Section, means: pd.DataFrame) -> list[str]:
    """The panels that claims are made about, or all where there are no claims."""
    claimed = [*section.above_null, *section.by_size]
    return list(dict.fromkeys(claimed)) or list(dict.fromkeys(means["panel"]))


def _sentence(means: pd.DataFrame, panel: str) -> str:
    """The means of one panel over all sizes and framings, as one sentence."""
    words = []
    for framing, cells in means[means["panel"] == panel].groupby("framing", sort=False):
        each = [f"{row['size']} {Interval.of_row(row, 'value').format()}"
                for row in cells.to_dict("records")]  # fmt: skip
        words.append(f"on {framing} {', '.join(each)}")
    return f"{panel[0].upper()}{panel[1:]}: {'; '.join(words)}."


def _null_claims(section: Section, means: pd.DataFrame, command: str) -> list[Claim]:
    """One claim per cell and panel, that its value is above the highest of its nulls."""
    claims = []
    for row in means[means["panel"].isin(section.above_null)].to_dict("records"):
        nulls = {name: row[null] for null, name in section.nulls.items() if pd.notna(row[null])}
        name = max(nulls, key=lambda name: nulls[name])
        text = section.above_null[row["panel"]]
        is_plain = row["label"].startswith(f"{row['size']} on {row['framing']}")
        claims.append(Claim(
            text=text.format(size=row["size"], framing=row["framing"])
            + ("" if is_plain and "(" not in row["label"] else f" ({row['run']})"),
            effect=Interval.of_row(row, "value"), unit=section.unit, null=float(nulls[name]),
            null_name=name, command=command,
        ))  # fmt: skip
    return claims


def _display(means: pd.DataFrame, nulls: Sequence[str]) -> pd.DataFrame:
    """One row per run and one column per panel: the mean, its interval, and the nulls."""
    texts = []
    for row in means.to_dict("records"):
        known = ", ".join(f"{row[null]:.2f}" for null in nulls if pd.notna(row[null]))
        texts.append(Interval.of_row(row, "value").format() + (f" ({known})" if known else ""))
    wide = means.assign(text=texts).pivot_table(
        index=["label", "framing", "size"], columns="panel", values="text", aggfunc="first",
        sort=False,
    )  # fmt: skip
    panels = list(dict.fromkeys(means["panel"]))
    models = means.groupby("label", sort=False)["n_models"].max()
    wide = wide[panels].fillna("").reset_index()
    wide.insert(3, "models", wide["label"].map(models))
    return wide.drop(columns="label")


def plot_by_size(means: pd.DataFrame, models: pd.DataFrame, section: Section) -> "Figure":
    """Every size and framing: the mean over models with its 95 % interval, and the nulls.

    Args:
        means: one row per run and panel.
        models: one row per model and panel, drawn as small dots.
    """
    return points(
        means.sort_values(["layers", "width"], kind="stable"), name="size", value="value",
        low="value_low", high="value_high", by="framing", panel="panel",
        dots=models if "seed" in models else None,
        nulls=section.nulls, title=section.title, hover=["n_models"], horizontal=False,
    ).update_xaxes(tickangle=0)  # fmt: skip

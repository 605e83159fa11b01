"""A report as one self-contained page: every section's prose, figures, claims and tables."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError, listed
from tbtt_interp.model_tables import run_settings
from tbtt_interp.results import Claim, Result, claims_table, p_text
from tbtt_interp.runs import Run
from tbtt_interp.stats import holm
from tbtt_interp.tasks.arithmetic import pairs_text
from tbtt_interp.versions import versions

LONG = 60  # seconds beyond which a section's own time is given
IN_TEXT = 25  # claims that sections show; all are in the table
SENTENCES = 3  # of a section's summary that stand above its figure
N_NAMED = 3  # held-out pairs that are named
WIDEST = 1_160  # pixels of a figure
VERDICTS = ("supported", "contradicted", "undecided")
ORIGINS = {"the paper": "Claims of the paper",
           "expected before the run": "Expectations written down before the runs",
           "explored": "Claims made after looking"}  # fmt: skip


class Row(NamedTuple):
    """A claim as the page's tables show it."""

    section: str
    claim: Claim
    p: float


@dataclass(frozen=True, kw_only=True)
class Built:
    """A section as it came out: its result, or the reason why there is none."""

    name: str
    result: Result | None
    reason: str
    seconds: float
    in_appendix: bool = False

    @property
    def verdicts(self) -> str:
        """How its claims came out, in words; what was expected before is counted by itself."""
        claims = self.result.claims if self.result else ()
        counts = []
        for origin in dict.fromkeys(claim.origin for claim in claims):
            of = Counter(claim.verdict for claim in claims if claim.origin == origin)
            words = ", ".join(f"{n} {verdict}" for verdict, n in of.items())
            counts.append(words if origin == "explored" else f"{origin}: {words}")
        return "; ".join(counts)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The sections of a page, and the runs that it opens.

    Attributes:
        problems: why runs could not be read, by name.
        command: the command that builds the page.
        lead: sentences that answer the title; without them, each section's first one stands there.
    """

    runs: tuple[Run, ...]
    problems: dict[str, str]
    sections: tuple[Built, ...]
    command: str
    lead: Sequence[str] = ()

    def claims(self) -> list[tuple[str, Claim]]:
        """Every claim with its section's name, in order."""
        built = [(s.name, s.result) for s in self.sections if s.result is not None]
        return [(name, claim) for name, result in built for claim in result.claims]

    @cached_property
    def rows(self) -> list[Row]:
        """Every claim with its section's name and its p-value, corrected for all of the page."""
        claims = self.claims()
        ps = holm([claim.p_value for _, claim in claims])
        return [Row(name, claim, p) for (name, claim), p in zip(claims, ps, strict=True)]

    def rows_in_text(self, section: str) -> list[Row]:
        """A section's share of the claims in the text; those made before the runs come first."""
        main = [s for s in self.sections if not s.in_appendix and s.result and s.result.claims]
        own = [row for row in self.rows if row.section == section and row.claim.effect.n]
        own.sort(key=lambda row: (row.claim.origin == "explored", -row.claim.distance))
        return own[: IN_TEXT // max(len(main), 1)]

    def claims_table(self) -> pd.DataFrame:
        """One row per claim, as `results.claims_table` has it, with its `section` in front."""
        table = claims_table([claim for _, claim in self.claims()])
        table.insert(0, "section", [name for name, _ in self.claims()])
        return table.assign(p_corrected=[row.p for row in self.rows])

    def left_out(self) -> str:
        """How many runs and sections are not in the page; empty if all are."""
        counts = {
            "run": len(self.problems), "section": sum(s.result is None for s in self.sections)
        }  # fmt: skip
        return listed([_counted(n, what) for what, n in counts.items() if n] or [""], "and")


def render(report: Report) -> str:
    """The page as HTML; it loads nothing from elsewhere."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"cells": cells, "words": in_words, "minus": minus, "p": p_text}
    sets = [", ".join(f"{k} {v}" for k, v in run.config.versions.items()) for run in report.runs]
    return environment.get_template("page.html.jinja").render(
        report=report,
        abstract=abstract(report),
        sections=[(s, figures_of(s.name, s.result)) for s in report.sections if s.result],
        unbuilt=[section for section in report.sections if section.result is None],
        runs=runs_table(report.runs),
        held_out=held_out_pairs(report.runs),
        sizes=sizes_table(report.runs),
        made_under=list(dict.fromkeys(sets)),
        versions=versions(),
        long=LONG,
        sentences=SENTENCES,
        plotly=get_plotlyjs(),
    )


def abstract(report: Report) -> list[str]:
    """How many models the report opens, and how its claims came out, in sentences."""
    runs, claims = report.runs, [claim for _, claim in report.claims()]
    tasks = listed(dict.fromkeys(run.tasks[0].name for run in runs), "and")
    sentences = [
        f"This page opens {_counted(sum(len(run.seeds) for run in runs), 'model')} of "
        f"{_counted(len(runs), 'run')}, trained on {tasks}, and makes {len(claims)} "
        "claims."
    ]
    for origin, words in ORIGINS.items():
        verdicts = Counter(claim.verdict for claim in claims if claim.origin == origin)
        if verdicts:
            counts = listed([f"{verdicts[v]} {v}" for v in VERDICTS], "and")
            sentences.append(f"{words}: {verdicts.total()}, of which {counts}.")
    return sentences


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def figures_of(section: str, result: Result) -> list[dict[str, Any]]:
    """Each figure of a section: its name, caption, size, and data as JSON.

    The caption is the docstring of the function that draws the figure, up to its arguments. A
    figure that cannot be drawn has its reason in place of data.
    """
    figures = []
    for name, draw in result.figures.items():
        key = re.sub(r"[^a-z0-9]+", "-", f"{section}-{name}".lower()).strip("-")
        row: dict[str, Any] = {"id": key, "name": in_words(name), "reason": ""}
        try:
            figure = draw()
        except TbttError as error:
            figures.append(row | {"reason": str(error)})
            continue
        layout = figure.to_dict()["layout"]
        size: dict[str, Any] = {"width": min(layout.get("width", 760), WIDEST),
                                "height": layout.get("height", 460)}  # fmt: skip
        figure.update_layout(dragmode=False, **size)
        caption = (getattr(draw, "func", draw).__doc__ or "").split("Args:")[0]
        figures.append(row | size | {
            "caption": " ".join(caption.split()),
            "data": str(figure.to_json()).replace("<", "\\u003c"),  # it stands in a script
        })  # fmt: skip
    return figures


def in_words(name: str) -> str:
    """A name without underscores and hyphens.

    >>> in_words("held_out_right")
    'held out right'
    """
    return str(name).replace("_", " ").replace("-", " ")


def number(value: object) -> str:
    """A table's cell as text: three digits after the point, and empty where it is missing.

    >>> [number(x) for x in (0.12345, 4.0, 12345, float("nan"), None, True, "a")]
    ['0.123', '4', '12,345', '', '', 'yes', 'a']
    """
    if pd.isna(value):  # pyright: ignore[reportArgumentType, reportCallIssue]
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, int | float | np.number):
        return minus(str(value))
    if float(value).is_integer():
        return f"{int(value):,}"
    short = f"{value:.1g}"  # a learning rate is 1e-05; what is measured is not so round
    is_round = abs(value) < 1e-3 and float(short) == value
    return minus(short if is_round else f"{value:.3f}")


def minus(text: str) -> str:
    """Text whose negative numbers have a minus sign, and zero none.

    >>> minus("-0.5 [-1.00, 0.00], 3-4, -0.00")
    '−0.5 [−1.00, 0.00], 3-4, 0.00'
    """
    return re.sub(r"(?<![\w.])-(?=\d)", "−", re.sub(r"(?<![\w.])-(?=0\.0+\b(?!\d))", "", text))


def cells(table: pd.DataFrame) -> list[list[tuple[str, bool]]]:
    """A table's head and rows as text, and whether each cell is aligned on the right."""
    texts = table.astype(object).map(number)
    are_numbers = texts.apply(lambda column: column.str.match(r"[-+−\d]|$"))
    right = (are_numbers.all() & (texts != "").any()).tolist()
    rows = [[in_words(str(name)) for name in table], *texts.to_numpy().tolist()]
    return [list(zip(row, right, strict=True)) for row in rows]


def held_out_pairs(runs: Sequence[Run]) -> str:
    """The pairs of operands that runs hold out, in words."""
    named = sorted({pairs_text(pairs) for run in runs for pairs in run.config.held_out if pairs})
    if not named:
        return "where one is held out"
    few = [name.replace(" ", " with ").replace(",", " and ") for name in named[:N_NAMED]]
    more = f", or another of {len(named)}" if len(named) > N_NAMED else ""
    return f"{listed(few, 'or')}{more}"


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: its task, size and framing, and how it was trained."""
    rows = []
    for run in runs:
        first, last = min(run.seeds), max(run.seeds)
        rows.append(run_settings(run) | {
            "held out": held_out_pairs([run]) if any(run.config.held_out) else "",
            "seeds": f"{first} to {last}" if first < last else str(first),
            "read at step": max(run.checkpoints),
        })  # fmt: skip
    asked = ["learning_rate", "weight_decay", "batch"]  # as the recipe writes them
    table = pd.DataFrame(rows)
    table[asked] = table[asked].astype(object).where(table[asked].notna(), "").astype(str)
    return table[["run", "task", "size", "framing", "window", "held out", "seeds", "steps",
                  *asked, "read at step"]]  # fmt: skip


def sizes_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per size: layers, heads, widths and parameters."""
    from tbtt_interp.model import count_parameters

    rows = [
        {"size": run.config.size, "layers": run.shape.layers, "heads": run.shape.heads,
         "width": run.shape.d_model, "MLP": run.shape.d_mlp,
         "parameters": count_parameters(run.shape)}
        for run in runs
    ]  # fmt: skip
    return pd.DataFrame(rows).drop_duplicates("size").sort_values("parameters")

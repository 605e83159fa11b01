"""A report as one page: everything in it, nothing fetched."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tbtt_interp.errors import TbttError, listed
from tbtt_interp.evidence.claims import Claim
from tbtt_interp.report.sections import Part
from tbtt_interp.runs import Run, versions
from tbtt_interp.train.sweep import pairs_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LONG = 60  # seconds of a section that are said in its heading, too
FEW = 3  # held-out pairs that are named
WIDE = 1_160  # pixels that a figure has at most
VERDICTS = ("supported", "contradicted", "undecided")
MADE_BY = {"the paper": "Claims of the paper",
           "expected before the run": "Expectations written down before the runs",
           "explored": "Claims made after looking"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page is made of.

    Attributes:
        problems: by name, why runs could not be read.
        parts: the sections as they came out.
        command: that builds it.
    """

    runs: tuple[Run, ...]
    problems: dict[str, str]
    parts: tuple[Part, ...]
    command: str

    def claims(self) -> list[tuple[str, Claim]]:
        """Every claim with its section's name, in order."""
        built = [part for part in self.parts if part.evidence is not None]
        return [(part.name, c) for part in built for c in part.evidence.claims]  # pyright: ignore

    def claims_table(self) -> pd.DataFrame:
        """A row a claim, as `claims_table` has it, with its `section` in front."""
        from tbtt_interp.evidence.claims import claims_table

        table = claims_table([claim for _, claim in self.claims()])
        table.insert(0, "section", [name for name, _ in self.claims()])
        return table


def render(report: Report) -> str:
    """The page, as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"cells": cells, "number": number, "words": in_words, "minus": minus}
    built = [part for part in report.parts if part.evidence is not None]
    return environment.get_template("page.html.jinja").render(
        report=report,
        abstract=abstract(report),
        left_out=left_out(report),
        sections=[(part, drawn(part)) for part in built],
        unbuilt=[part for part in report.parts if part.evidence is None],
        runs=runs_table(report.runs),
        held_out=held_out(report.runs),
        sizes=sizes_table(report.runs),
        made_under=made_under(report.runs),
        versions=versions(),
        long=LONG,
        plotly=get_plotlyjs(),
    )


def abstract(report: Report) -> list[str]:
    """What the report is of and how its claims came out, in sentences."""
    runs, claims = report.runs, [claim for _, claim in report.claims()]
    models = sum(len(run.seeds) for run in runs)
    tasks = listed(dict.fromkeys(run.tasks[0].name for run in runs), "and")
    said = [
        f"This page opens {models} model{'s' if models != 1 else ''} of {len(runs)} "
        f"run{'s' if len(runs) != 1 else ''}, trained on {tasks}, and makes {len(claims)} claims, "
        "none corrected for how many they are."
    ]
    for by in sorted({claim.by for claim in claims}, key=[*MADE_BY].index):
        mine = [claim for claim in claims if claim.by == by]
        count = Counter(claim.verdict for claim in mine)
        how = listed([f"{count[v]} {v}" for v in VERDICTS], "and")
        said.append(f"{MADE_BY[by]}: {len(mine)}, of which {how}.")
    return said


def left_out(report: Report) -> str:
    """How many runs and sections are not in the page; empty if all are."""
    unbuilt = sum(part.evidence is None for part in report.parts)
    counts = {"run": len(report.problems), "section": unbuilt}
    return listed([f"{n} {what}{'s' if n > 1 else ''}" for what, n in counts.items() if n] or [""],
                  "and")  # fmt: skip


def drawn(part: Part) -> list[dict[str, Any]]:
    """Each figure of a section: its name, what it shows, its size, and its data as JSON.

    One that cannot be drawn has its reason in place of data.
    """
    assert part.evidence is not None
    found = []
    for name, draw in part.evidence.figures.items():
        key = re.sub(r"[^a-z0-9]+", "-", f"{part.name}-{name}".lower()).strip("-")
        row: dict[str, Any] = {"id": key, "name": in_words(name), "reason": "", "data": ""}
        try:
            figure = draw()
            layout = figure.to_dict()["layout"]
            size = {"width": min(layout.get("width", 760), WIDE),
                    "height": layout.get("height", 460)}  # fmt: skip
            figure.update_layout(dragmode=False, **size)
            row |= size | {"says": caption(draw), "data": as_json(figure)}
        except TbttError as error:
            row["reason"] = str(error)
        found.append(row)
    return found


def caption(draw: Any) -> str:
    """What a figure shows: what the function that draws it says, up to its arguments."""
    said = getattr(draw, "func", draw).__doc__ or ""
    return " ".join(said.split("Args:")[0].split())


def as_json(figure: "Figure") -> str:
    """A figure as JSON that can stand in a page's script."""
    text = figure.to_json()
    return str(text).replace("<", "\\u003c")


def in_words(name: str) -> str:
    """A name as it is read.

    >>> in_words("held_out_right")
    'held out right'
    """
    return str(name).replace("_", " ").replace("-", " ")


def number(value: object) -> str:
    """A table's cell as text: three digits of what is not whole, and nothing of what is not there.

    >>> [number(x) for x in (0.12345, 4.0, 12345, float("nan"), None, True, "a")]
    ['0.123', '4', '12,345', '', '', 'yes', 'a']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    if hasattr(value, "item"):  # of numpy
        return number(value.item())  # pyright: ignore
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{int(value):,}"
    if isinstance(value, float):
        short = f"{value:.1g}"  # a learning rate is 1e-05; what is measured is not so round
        is_round = 0 < abs(value) < 1e-3 and float(short) == value
        return minus(short if is_round else f"{value:.3f}")
    return minus(str(value))


def minus(text: str) -> str:
    """Text whose negative numbers have a minus sign, and zero none.

    >>> minus("-0.5 [-1.00, 0.00], 3-4, -0.00")
    '−0.5 [−1.00, 0.00], 3-4, 0.00'
    """
    return re.sub(r"(?<![\w.])-(?=\d)", "−", re.sub(r"(?<![\w.])-(?=0\.0+\b(?!\d))", "", text))


def cells(table: pd.DataFrame) -> list[list[tuple[str, bool]]]:
    """A table's head and rows as text, and whether each is to stand on the right."""
    right = [_is_number(table[name]) for name in table]
    head = [in_words(str(name)) for name in table]
    rows = [list(map(number, row)) for row in table.itertuples(index=False, name=None)]
    return [list(zip(row, right, strict=True)) for row in (head, *rows)]


def _is_number(column: pd.Series) -> bool:
    texts = [text for text in map(number, column) if text]
    return bool(texts) and all(re.match(r"[-+−\d]", text) for text in texts)


def held_out(runs: Sequence[Run]) -> str:
    """The pairs of operands that runs hold out, in words."""
    named = sorted({pairs_text(pairs) for run in runs for pairs in run.config.held_out if pairs})
    if not named:
        return "where one is held out"
    few = listed([name.replace(" ", " with ").replace(",", " and ") for name in named[:FEW]], "or")
    return f"{few}, or another of {len(named)}" if len(named) > FEW else few


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a run: what it is, and how it was trained."""
    rows = []
    for run in runs:
        training = (run.config.recipe or {}).get("training", {})
        rows.append({
            "run": run.folder.name, "task": run.tasks[0].name, "size": run.config.size,
            "framing": run.config.framing, "window": run.shape.n_ctx,
            "held out": held_out([run]) if any(run.config.held_out) else "",
            "seeds": f"{min(run.seeds)} to {max(run.seeds)}" if len(run.seeds) > 1
            else str(min(run.seeds)),
            "steps": run.config.steps, "learning rate": f"{training.get('learning_rate', '')}",
            "weight decay": f"{training.get('weight_decay', '')}",
            "batch": f"{training.get('batch', '')}", "read at step": max(run.checkpoints),
        })  # fmt: skip
    return pd.DataFrame(rows)


def sizes_table(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a size: what it is made of."""
    from tbtt_interp.model import count_parameters

    rows = [
        {"size": run.config.size, "layers": run.shape.layers, "heads": run.shape.heads,
         "width": run.shape.d_model, "MLP": run.shape.d_mlp,
         "parameters": count_parameters(run.shape)}
        for run in runs
    ]  # fmt: skip
    return pd.DataFrame(rows).drop_duplicates("size").sort_values("parameters")


def made_under(runs: Sequence[Run]) -> list[str]:
    """The versions that runs were trained under, each set once."""
    sets = [", ".join(f"{k} {v}" for k, v in run.config.versions.items()) for run in runs]
    return list(dict.fromkeys(sets))

"""What an analysis says: its tables, its figures, and what was found beside its nulls."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.stats import Interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Tell = Callable[[int, int], None]  # how many parts are done, of how many


def silent(done: int, of: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An effect beside its null, both on one scale, on which 1 is all there could be.

    Attributes:
        what: what it is the size of, as the subject and verb of a sentence.
        null_is: what the null is.

    >>> found = Finding(what="z at = restores", effect=Interval(mean=0.9, low=0.8, high=1.0),
    ...                 null=0.1, null_is="random donors", of="the logit difference")
    >>> print(found)
    z at = restores 0.90 [0.80, 1.00] of the logit difference; random donors: 0.10.
    """

    what: str
    effect: Interval
    null: float
    null_is: str
    of: str

    @property
    def beyond(self) -> float:
        """How far the effect is from its null."""
        return abs(self.effect.mean - self.null)

    @property
    def is_beyond(self) -> bool:
        """Whether the interval leaves the null out; of one model without interval nothing is."""
        known = not math.isnan(self.effect.low) and not math.isnan(self.null)
        return known and not self.effect.low <= self.null <= self.effect.high

    def __str__(self) -> str:
        hedge = ", less than its null" if self.effect.mean < self.null else ""
        hedge = hedge if self.is_beyond else ", which is not told apart"
        hedge = ", without an interval" if math.isnan(self.effect.low) else hedge
        null = "none there" if math.isnan(self.null) else f"{self.null:.2f}"
        return f"{self.what} {self.effect.format()} of {self.of}; {self.null_is}: {null}{hedge}."


@dataclass(frozen=True, kw_only=True)
class Result:
    """All that one analysis gives.

    Attributes:
        tables: by name, long form; the first is what `--json` prints.
        shown: the rows and columns that are printed.
        figures: by name, drawn when asked for.
        notes: what columns mean, what was left out.
        said: findings that are put on the screen; all are in the files.
    """

    name: str
    tables: Mapping[str, pd.DataFrame]
    shown: pd.DataFrame
    figures: Mapping[str, Callable[[], "Figure"]]
    findings: Sequence[Finding]
    notes: Sequence[str] = field(default_factory=list)
    said: int = 10

    def __str__(self) -> str:
        return "\n".join(map(str, [self.shown.to_string(index=False), *self.notes, *self.ranked()]))

    def ranked(self) -> list[Finding]:
        """What was found, furthest from its null first."""
        return sorted(
            self.findings, key=lambda finding: (math.isnan(finding.beyond), -finding.beyond)
        )

    def findings_table(self) -> pd.DataFrame:
        """A row a finding: what, effect, low, high, of, null, null_is, beyond."""
        return pd.DataFrame([
            {"what": f.what, "effect": f.effect.mean, "low": f.effect.low, "high": f.effect.high,
             "of": f.of, "null": f.null, "null_is": f.null_is, "beyond": f.is_beyond}
            for f in self.ranked()
        ])  # fmt: skip


def over_steps(results: Mapping[int, Result]) -> Result:
    """Results of several checkpoints as one: tables with their step, findings followed over them.

    Args:
        results: by training step.
    """
    last = results[max(results)]

    def joined(table_of: Callable[[Result], pd.DataFrame]) -> pd.DataFrame:
        parts = [table_of(result).assign(step=step) for step, result in results.items()]
        table = pd.concat(parts, ignore_index=True)
        return table[["step", *(name for name in table.columns if name != "step")]]

    followed = joined(Result.findings_table)
    # the same finding may be of another share of something measured: its numbers do not name it
    of = followed["of"].str.replace(r" *\(?-?\d+\.\d+[^,;)]*\)?", "", regex=True)
    followed["what"] += " … of " + of
    at_last = followed[followed["step"] == max(results)]
    order = {what: k for k, what in enumerate(at_last["what"])}
    shown = followed[followed["what"].isin(order)]
    shown = shown.assign(rank=shown["what"].map(order)).sort_values(["rank", "step"])
    numbers = ["effect", "low", "high", "null"]
    return Result(
        name=last.name,
        tables={
            name: joined(lambda result, name=name: result.tables[name]) for name in last.tables
        },
        shown=shown[["what", "step", *numbers]].assign(
            **{name: shown[name].map("{:.2f}".format) for name in numbers}
        ),
        figures={f"{last.name}-over-steps": partial(figures.findings_over_steps, followed)},
        findings=last.findings,
        notes=[
            *last.notes,
            "What is found at the last checkpoint, at all where it is found in the same words.",
        ],
    )


def nearest_null(value: float, nulls: Mapping[str, float]) -> tuple[float, str]:
    """The null an effect is hardest to tell from, and its name.

    >>> nearest_null(0.9, {"permuted digits": 0.1, "the untrained model": 0.6})
    (0.6, 'the untrained model')
    """
    known = {name: null for name, null in nulls.items() if not math.isnan(null)}
    name = min(known, key=lambda name: abs(known[name] - value))
    return known[name], name


def further_null(value: float, nulls: Sequence[float]) -> float:
    """Of several nulls the one that goes furthest in an effect's own direction; nan if none is.

    >>> further_null(0.5, [0.1, 0.3, math.nan]), further_null(-0.5, [-0.2, 0.3])
    (0.3, -0.2)
    """
    known = [null for null in nulls if not math.isnan(null)]
    return (max if value >= 0 else min)(known, default=math.nan)

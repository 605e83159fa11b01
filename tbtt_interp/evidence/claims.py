"""A claim with its effect, its null and its verdict; and all that one question comes to."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd

from tbtt_interp.stats import Interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Verdict = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something said, by the paper or by us before the run, beside what was measured.

    Attributes:
        says: the claim, a whole sentence.
        by: who says it: "the paper", "expected before the run" or "explored".
        effect: what was measured, with its interval.
        unit: of the effect.
        null: the value that the effect is held against, in its unit, and what it is.
        above: whether the claim is that the effect is above its null; else that it is below.
        models: that the effect is over.
        command: what reproduces it.

    >>> claim = Claim(says="Small answers more than large.", by="the paper", unit="share",
    ...               effect=Interval(mean=0.3, low=0.1, high=0.5), null=0.0, models=16,
    ...               null_is="no difference", command="tbtt sweep ladder")
    >>> claim.verdict
    'supported'
    """

    says: str
    by: str
    effect: Interval
    unit: str
    null: float
    null_is: str
    models: int
    command: str
    above: bool = True

    @property
    def verdict(self) -> Verdict:
        """Supported or contradicted where the whole interval is on one side of the null."""
        low, high, null = self.effect.low, self.effect.high, self.null
        if math.isnan(low) or math.isnan(high) or math.isnan(null) or low <= null <= high:
            return "undecided"
        return "supported" if (low > null) == self.above else "contradicted"

    def __str__(self) -> str:
        return (
            f"{self.verdict}: {self.says} {self.effect.format()} {self.unit}, over {self.models} "
            f"models; {self.null_is}: {self.null:.2f}."
        )


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """A row a claim: what it says, its effect and null, its verdict and its command."""
    return pd.DataFrame([
        {"claim": c.says, "by": c.by, "effect": c.effect.mean, "low": c.effect.low,
         "high": c.effect.high, "unit": c.unit, "null": c.null, "null_is": c.null_is,
         "models": c.models, "verdict": c.verdict, "command": c.command}
        for c in claims
    ])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one question comes to, as a study prints it and the report shows it.

    Attributes:
        question: as a heading.
        tables: by name, long form.
        shown: the rows and columns that are read.
        figures: by name, drawn when asked for.
        sentences: what was found, computed.
        notes: what columns mean, how it was measured, what it cannot say.
        command: what reproduces it, with the time that took.
    """

    question: str
    tables: Mapping[str, pd.DataFrame]
    shown: pd.DataFrame
    figures: Mapping[str, Callable[[], "Figure"]]
    sentences: Sequence[str]
    claims: Sequence[Claim]
    command: str
    notes: Sequence[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [self.question, self.shown.to_string(index=False), *self.sentences]
        return "\n".join([*parts, *map(str, self.claims), *self.notes])

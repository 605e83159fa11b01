"""A claim with its effect, its null and its verdict; and all that one question comes to."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd

from tbtt_interp.stats import Interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Verdict = Literal["supported", "contradicted", "undecided"]
FEWEST = 3  # models of which there is a verdict


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
        or_equal: whether the claim is that it is at least, or at most, its null.
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
    or_equal: bool = False

    @property
    def verdict(self) -> Verdict:
        """Supported or contradicted where the whole interval is on one side of the null.

        Never of fewer than FEWEST models.
        """
        if self.models < FEWEST:
            return "undecided"
        low, high, null = self.effect.low, self.effect.high, self.null
        is_above = low > null or (self.or_equal and self.above and low == null)
        is_below = high < null or (self.or_equal and not self.above and high == null)
        if is_above == is_below:  # it is on both sides, or unknown
            return "undecided"
        return "supported" if is_above == self.above else "contradicted"

    @property
    def measured(self) -> str:
        """The effect beside its null, in words."""
        if not self.models:
            return "Not measured: no models of these cells are there."
        return (
            f"{self.effect.format()} {self.unit}, over {self.models} models; "
            f"{self.null_is}: {self.null:.2f}."
        )

    def __str__(self) -> str:
        return f"{self.verdict}: {self.says} {self.measured}"


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
        further: more tables that are read, by what they are of.
    """

    question: str
    tables: Mapping[str, pd.DataFrame]
    shown: pd.DataFrame
    figures: Mapping[str, Callable[[], "Figure"]]
    sentences: Sequence[str]
    claims: Sequence[Claim]
    command: str
    notes: Sequence[str] = field(default_factory=list)
    further: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [self.question, _paragraph(self.command), "", _in_columns(self.shown), ""]
        for title, table in self.further.items():
            parts += [f"{title}:", _in_columns(table), ""]
        parts += [_paragraph(sentence) for sentence in self.sentences]
        for by in dict.fromkeys(claim.by for claim in self.claims):
            parts += ["", f"{by[0].upper()}{by[1:]}:"]
            for claim in (claim for claim in self.claims if claim.by == by):
                parts += [_paragraph(f"{claim.verdict:13}{claim.says}", 15)]
                parts += [_paragraph(" " * 13 + claim.measured, 15)]
        return "\n".join([*parts, *(["", *map(_paragraph, self.notes)] if self.notes else [])])


def _paragraph(text: str, indent: int = 2) -> str:
    """Wrapped text, in which a number stays on one line with its interval."""
    whole = re.sub(r"\S+ \[[^]]*\]", lambda found: found[0].replace(" ", "\xa0"), text)
    wrapped = textwrap.fill(whole, 100, subsequent_indent=" " * indent, break_on_hyphens=False)
    return wrapped.replace("\xa0", " ")


def _in_columns(table: pd.DataFrame) -> str:
    """A table with words on the left of their columns and numbers on the right."""
    text = table.astype(object).where(table.notna(), "").astype(str)
    for name in text:
        if text[name].str.match(r"[^\W\d]").any():  # begins with a letter
            width = max(len(str(name)), text[name].str.len().max())
            text[name] = text[name].str.ljust(width)
            text = text.rename(columns={name: str(name).ljust(width)})
    return text.to_string(index=False)

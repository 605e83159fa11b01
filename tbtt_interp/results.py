"""Claims compared with their nulls, and the result of an analysis, a study or a comparison.

A `Claim` is one effect with its interval over models, its null and its verdict. A `Result` holds
everything that one question gave: tables, claims, figures and prose. The command line, the report,
notebooks and studies all read these two.
"""

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from tbtt_interp.errors import TbttError, guess
from tbtt_interp.stats import Interval

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

Verdict = Literal["supported", "contradicted", "undecided"]
Direction = Literal["above", "below", "different"]
Origin = Literal["the paper", "expected before the run", "explored"]
NullRule = Literal["closest", "highest", "strongest"]
FEWEST_MODELS = 3  # models that a verdict needs
P_LEVEL = 0.05
POWER = 0.8
TALLEST = 30  # rows of a table in a notebook


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An effect over models, the null that it is compared with, and the verdict.

    Attributes:
        text: what is claimed: a whole sentence, or the beginning of one that the effect ends.
        effect: the mean over models with its interval.
        unit: the effect's unit, such as "of the logit difference".
        null: the value that the effect is compared with, in the effect's unit.
        null_name: what the null is, such as "random sources".
        direction: whether the claim is that the effect is above its null, below it, or either.
        or_equal: whether an interval that ends at the null supports the claim, too.
        origin: the source of the claim, and whether it predates the results.
        p: of a permutation test, where there is one; above 0.05 the claim is not supported.
        blind_to: effects that the measure cannot see, said wherever the claim is not supported.
        command: the command that reproduces the effect.

    >>> claim = Claim(text="z at = restores", unit="of the logit difference", null=0.1,
    ...               null_name="random sources", effect=Interval(mean=0.9, low=0.8, high=1.0, n=8))
    >>> print(claim)
    supported: z at = restores 0.90 [0.80, 1.00] of the logit difference (n = 8 models); random
    sources: 0.10.
    """

    text: str
    effect: Interval
    unit: str
    null: float
    null_name: str
    direction: Direction = "above"
    or_equal: bool = False
    origin: Origin = "explored"
    p: float | None = None
    blind_to: str = ""
    command: str = ""

    @classmethod
    def of_row(
        cls, row: Mapping[Any, Any], value: str, nulls: Mapping[str, str],
        rule: NullRule = "closest", **words: Any,
    ) -> "Claim":  # fmt: skip
        """The claim of a row that `summarize` made, with one of its nulls.

        Args:
            value: the column of the effect.
            nulls: the nulls' columns, and what each is called, as for figures.
            rule: which of them, as in `choose_null`.
            words: `text`, `unit` and what else the claim has.
        """
        known = {name: row.get(column, math.nan) for column, name in nulls.items()}
        null, null_name = choose_null(row[value], known, rule)
        words = {"null": null, "null_name": null_name} | words
        return cls(effect=Interval.of_row(row, value), **words)

    @property
    def verdict(self) -> Verdict:
        """Supported or contradicted where the whole interval is on one side of the null.

        Undecided with fewer than three models, where the null is unknown, and where the interval
        has no width: models that do not differ do not say how far others would.
        """
        low, high, null = self.effect.low, self.effect.high, self.null
        if self.effect.n < FEWEST_MODELS or low == high:
            return "undecided"
        is_above = low > null or (self.or_equal and self.direction == "above" and low == null)
        is_below = high < null or (self.or_equal and self.direction == "below" and high == null)
        if is_above == is_below:  # the null is inside the interval, or one of them is unknown
            return "undecided"
        is_claimed = self.direction in ("different", "above" if is_above else "below")
        if not is_claimed:
            return "contradicted"
        return "supported" if self.p is None or self.p <= P_LEVEL else "undecided"

    @property
    def detectable(self) -> float:
        """The smallest difference from the null that 80 % of such sets of models would show.

        From the interval's half width, for models that differ as these do; nan where it has none.
        Source: Cohen, Statistical Power Analysis (1988), chapter 2.

        >>> Claim(text="", unit="", null=0.0, null_name="",
        ...       effect=Interval(mean=0.0, low=-0.1, high=0.1, n=8)).detectable.__round__(3)
        0.138
        """
        from scipy.stats import t

        half, freedom = (self.effect.high - self.effect.low) / 2, self.effect.n - 1
        if self.effect.n < FEWEST_MODELS or not half > 0:
            return math.nan
        return half * float(1 + t.ppf(POWER, freedom) / t.ppf(0.975, freedom))

    @property
    def p_value(self) -> float:
        """Of its own test, or two-sided: the level at which its interval would end at the null.

        Approximate where the interval is not Student's, or ends at a bound.

        nan with fewer than three models, and where models do not differ.
        """
        from scipy.stats import t

        if self.p is not None:
            return self.p
        end = self.effect.low if self.effect.mean > self.null else self.effect.high
        half, freedom = abs(self.effect.mean - end), self.effect.n - 1
        if self.effect.n < FEWEST_MODELS or not half > 0:
            return math.nan
        return float(2 * t.sf(self.distance / half * t.ppf(0.975, freedom), freedom))

    @property
    def distance(self) -> float:
        """How far the effect is from its null."""
        return abs(self.effect.mean - self.null)

    @property
    def measured(self) -> str:
        """The effect and its null in words; if undecided, also the smallest difference seen."""
        if not self.effect.n:
            return "Not measured: there are no models of these cells."
        models = f"n = {self.effect.n} model{'s' if self.effect.n > 1 else ''}"
        p = "" if self.p is None else f", p {p_text(self.p, '= ')}"
        null = "unknown" if math.isnan(self.null) else f"{self.null:.2f}"
        words = f"{self.effect.format()} {self.unit} ({models}{p}); {self.null_name}: {null}."
        if self.verdict == "undecided" and not math.isnan(self.detectable):
            words += f" The smallest difference seen at 80 % power: {self.detectable:.2f}."
        return (
            words
            if self.verdict == "supported" or not self.blind_to
            else (f"{words} Blind to {self.blind_to}.")
        )

    def __str__(self) -> str:
        return f"{self.verdict}: {self.text} {self.measured}"

    def _repr_html_(self) -> str:
        """One row of a table: the verdict, the claim, and the effect with its null."""
        return claims_html([self])


def p_text(p: float, equal: str = "") -> str:
    """A p-value as text, which is never 0.

    >>> p_text(0.0123), p_text(0.0)
    ('0.012', '< 0.001')
    """
    return f"{equal}{p:.3f}" if p >= 0.001 else "< 0.001"


def claims_table(claims: Sequence[Claim]) -> "pd.DataFrame":
    """One row per claim: its text, effect, interval, null, p, n, verdict, detectable and source."""
    import pandas as pd

    return pd.DataFrame([
        {"claim": c.text, "effect": c.effect.mean, "low": c.effect.low, "high": c.effect.high,
         "unit": c.unit, "null": c.null, "null_name": c.null_name,
         "p": math.nan if c.p is None else c.p, "n_models": c.effect.n, "verdict": c.verdict,
         "detectable": c.detectable, "origin": c.origin, "command": c.command}
        for c in claims
    ])  # fmt: skip


def claims_html(claims: Sequence[Claim]) -> str:
    """One row per claim: its verdict, its text, and its effect with its null; all escaped."""
    import pandas as pd

    rows = [{"verdict": c.verdict, "claim": c.text, "effect": c.measured} for c in claims]
    return table_html(pd.DataFrame(rows))


def table_html(table: "pd.DataFrame") -> str:
    """A table as HTML, escaped, with a head as a terminal has it and at most TALLEST rows."""
    named = table.rename(columns=lambda name: str(name).replace("_", " ")).rename_axis(columns=None)
    text = _whole_intervals(named.to_html(index=False, border=0, na_rep="", max_rows=TALLEST))
    left = re.sub("<(t[hd])>", r'<\1 style="text-align: left">', text)  # not as a page has it
    return f'<div style="overflow-x: auto">{left}</div>'


def all_of(claims: Sequence[Claim]) -> Claim:
    """The claim that decides whether all of several hold: the one least supported.

    Contradicted if any is, supported if all are, and undecided otherwise.
    """
    order = ["contradicted", "undecided", "supported"]

    def strength(claim: Claim) -> tuple[int, bool, float]:
        beyond = claim.effect.mean - claim.null
        signed = -beyond if claim.direction == "below" else beyond
        return order.index(claim.verdict), claim.effect.n > 0, signed

    return min(claims, key=strength)


def choose_null(
    value: float, nulls: Mapping[str, float], rule: NullRule = "closest"
) -> tuple[float, str]:
    """The null that an effect is compared with, and its name; nan where none is known.

    Args:
        nulls: by name.
        rule: the one closest to the effect, the highest, or the strongest, which goes furthest in
            the effect's own direction.

    >>> nulls = {"permuted digits": -0.2, "untrained model": 0.6}
    >>> choose_null(0.9, nulls), choose_null(-0.5, nulls, "strongest")
    ((0.6, 'untrained model'), (-0.2, 'permuted digits'))
    """
    known = {name: null for name, null in nulls.items() if not math.isnan(null)}
    if not known:
        return math.nan, next(iter(nulls)) if len(nulls) == 1 else "no null"
    sign = 1 if value >= 0 else -1
    keys: dict[NullRule, Callable[[str], Any]] = {
        "closest": lambda name: -abs(known[name] - value),
        "highest": lambda name: (known[name], name),
        "strongest": lambda name: sign * known[name],
    }
    name = max(known, key=keys[rule])
    return known[name], name


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """Everything that one question gave.

    Attributes:
        name: short, for files.
        tables: by name, long form; the first is what `--json` prints.
        display: the rows and columns that are printed.
        claims: effects compared with their nulls.
        figures: by name, each drawn when it is called.
        question: the heading.
        summary: what was found, in computed sentences.
        notes: what columns mean, units, and what was left out.
        more_displays: further tables that are printed, by title.
        command: what reproduces it, and how long that takes.
        n_printed: claims that are printed; files have all of them.
    """

    name: str
    tables: "Mapping[str, pd.DataFrame]"
    display: "pd.DataFrame"
    claims: Sequence[Claim] = ()
    figures: "Mapping[str, Callable[[], Figure]]" = field(default_factory=dict)
    question: str = ""
    summary: Sequence[str] = ()
    notes: Sequence[str] = ()
    more_displays: "Mapping[str, pd.DataFrame]" = field(default_factory=dict)
    command: str = ""
    n_printed: int = 10

    def claim(self, text: str) -> Claim:
        """The claim whose text begins like this.

        Raises:
            TbttError: if there is none, naming the nearest.
        """
        texts = [claim.text for claim in self.claims]
        if found := [claim for claim in self.claims if claim.text.startswith(text)]:
            return found[0]
        raise TbttError(f"result {self.name} has no claim '{text}'{guess(text, texts)}")

    def ranked(self) -> list[Claim]:
        """The claims, furthest from their nulls first."""
        return sorted(self.claims, key=lambda c: (math.isnan(c.distance), -c.distance))

    @property
    def claims_heading(self) -> str:
        """What stands above the first `n_printed` claims."""
        shown, of = min(self.n_printed, len(self.claims)), len(self.claims)
        more = f", {shown} of {of}" if shown < of else ""
        return f"Claims, furthest from their nulls first{more}. Intervals: 95 %."

    def _repr_html_(self) -> str:
        """The tables, sentences, claims and notes that a terminal prints, for notebooks."""
        parts = [f"<h4>{escape(self.question or self.name)}</h4>", table_html(self.display)]
        for title, table in self.more_displays.items():
            parts += [f"<p>{escape(title)}:</p>", table_html(table)]
        parts += [f"<p>{escape(sentence)}</p>" for sentence in self.summary]
        if self.claims:
            claims = claims_html(self.ranked()[: self.n_printed])
            parts += [f"<p>{escape(self.claims_heading)}</p>", claims]
        parts += [f"<p><small>{escape(note)}</small></p>" for note in self.notes]
        return "\n".join(parts)

    def __str__(self) -> str:
        parts = [self.question, _paragraph(self.command), ""] if self.question else []
        parts += [in_columns(self.display), ""]
        for title, table in self.more_displays.items():
            parts += [f"{title}:", in_columns(table), ""]
        parts += [_paragraph(sentence) for sentence in self.summary]
        claims = [c for c in self.claims if c.origin != "explored"]
        claims += [c for c in self.ranked() if c.origin == "explored"]
        for origin in dict.fromkeys(claim.origin for claim in claims):
            parts += ["", f"{origin[0].upper()}{origin[1:]}:"]
            for claim in (c for c in claims if c.origin == origin):
                parts += [_paragraph(f"{claim.verdict:13}{claim.text}", 15)]
                parts += [_paragraph(" " * 13 + claim.measured, 15)]
        return "\n".join([*parts, *(["", *map(_paragraph, self.notes)] if self.notes else [])])

    __repr__ = __str__  # a session shows it as print does


def over_steps(results: Mapping[int, Result]) -> Result:
    """The results of several checkpoints as one: tables with a column `step`, claims over training.

    Args:
        results: by training step.
    """
    import pandas as pd

    from tbtt_interp import plots

    last = results[max(results)]

    def joined(table_of: "Callable[[Result], pd.DataFrame]") -> "pd.DataFrame":
        parts = [table_of(result).assign(step=step) for step, result in results.items()]
        table = pd.concat(parts, ignore_index=True)
        return table[["step", *(name for name in table.columns if name != "step")]]

    claims = joined(lambda result: claims_table(result.ranked()))
    # at another step the same effect may have another total in its unit: numbers do not name it
    unit = claims["unit"].str.replace(r" *\(?-?\d+\.\d+[^,;)]*\)?", "", regex=True)
    claims["claim"] += " … " + unit
    order = {text: k for k, text in enumerate(claims.loc[claims["step"] == max(results), "claim"])}
    followed = claims[claims["claim"].isin(order)]
    followed = followed.assign(rank=followed["claim"].map(order)).sort_values(["rank", "step"])
    numbers = ["effect", "low", "high", "null"]
    return Result(
        name=last.name,
        tables={
            name: joined(lambda result, name=name: result.tables[name]) for name in last.tables
        },
        display=followed[["claim", "step", *numbers]].assign(
            **{name: followed[name].map("{:.2f}".format) for name in numbers}
        ),
        figures={f"{last.name}-over-steps": partial(plots.claims_over_steps, claims)},
        claims=last.claims,
        notes=[
            *last.notes,
            "Claims of the last checkpoint, at each checkpoint that has a claim of the same words.",
        ],
    )


def _paragraph(text: str, indent: int = 2) -> str:
    """Wrapped text that keeps a number on one line with its interval."""
    wrapped = textwrap.fill(
        _whole_intervals(text), 100, subsequent_indent=" " * indent, break_on_hyphens=False
    )
    return wrapped.replace("\xa0", " ")


def _whole_intervals(text: str) -> str:
    """Text where no line can end between a number and its interval, or inside this."""
    return re.sub(r"[^\s>]+ \[[^]]*\]", lambda found: found[0].replace(" ", "\xa0"), text)


def in_columns(table: "pd.DataFrame") -> str:
    """A table as text, with words on the left of their columns and numbers on the right."""
    text = table.astype(object).where(table.notna(), "").astype(str)
    for name in text:
        if text[name].str.match(r"[^\W\d]").any():  # begins with a letter
            width = max(len(str(name)), text[name].str.len().max())
            text[name] = text[name].str.ljust(width)
            text = text.rename(columns={name: str(name).ljust(width)})
    return text.to_string(index=False)

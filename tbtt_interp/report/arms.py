"""Runs as arms of a comparison: what is measured of each, by size and framing, and contrasts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tbtt_interp.analyses.findings import Tell
from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.claims import Claim
from tbtt_interp.evidence.effects import ANY
from tbtt_interp.runs import Run
from tbtt_interp.stats import Difference, Interval, difference_over_models, mean_over_models

FRAMINGS = ("file", "shuffled", "line")
WHO = ["run", "label", "size", "width", "layers", "framing"]  # the columns that say which arm


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A run, and the words for it: "large on file", and its name where several are so.

    Attributes:
        name: of its folder, or where several are called so, its path.
    """

    run: Run
    label: str
    name: str

    def described(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of this arm, with what it is in front."""
        config, shape = self.run.config, self.run.shape
        what = (self.name, self.label, config.size, shape.d_model, shape.layers,
                config.framing)  # fmt: skip
        named = table.assign(**dict(zip(WHO, what, strict=True)))
        return named[[*WHO, *(name for name in table if name not in WHO)]]


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """Each run with its label, by framing, depth and width."""

    def key(run: Run) -> tuple[int, int, int, str]:
        shape = run.shape
        return (FRAMINGS.index(run.config.framing), shape.layers, shape.d_model, run.folder.name)

    ordered = sorted(runs, key=key)
    several = len({run.tasks[0].name for run in runs}) > 1
    words = {
        run.folder: f"{run.config.size} on {run.config.framing}"
        + (f", {run.tasks[0].name}" if several else "")
        for run in ordered
    }
    count = Counter(words.values())
    called = Counter(run.folder.name for run in ordered)
    names = {run.folder: run.folder.name if called[run.folder.name] == 1 else str(run.folder)
             for run in ordered}  # fmt: skip
    return [
        Arm(run=run, name=name, label=word if count[word] == 1 else f"{word} ({name})")
        for run in ordered
        for word, name in [(words[run.folder], names[run.folder])]
    ]


def equation_runs(runs: Sequence[Run]) -> list[Run]:
    """Those of equations and nothing else, which what is inside is compared of.

    Raises:
        TbttError: if there is none.
    """
    chosen = [
        run for run in runs
        if all({"a", "operator", "b"} <= e.labels.keys() for e in run.tasks[0].examples)
    ]  # fmt: skip
    if not chosen:
        raise TbttError("none of these runs is of arithmetic alone, which this is asked of")
    return chosen


def over_arms(
    runs: Sequence[Run], compute: Callable[[Arm], pd.DataFrame], tell: Tell
) -> tuple[pd.DataFrame, list[str]]:
    """What is computed of each arm, one below the other, and notes on those it cannot be of.

    Raises:
        TbttError: if it can be of none.
    """
    arms, tables, notes = arms_of(runs), [], []
    for number, arm in enumerate(arms):
        try:
            tables.append(arm.described(compute(arm)))
        except TbttError as error:
            notes.append(f"Left out, {arm.label}: {error}.")
        tell(number + 1, len(arms))
    if not tables:
        raise TbttError(" ".join(notes) or "there is no run to ask")
    return pd.concat(tables, ignore_index=True), notes


def means_of(
    table: pd.DataFrame, by: Sequence[str] = (), nulls: Sequence[str] = (), *,
    bounds: tuple[float, float] = ANY,
) -> pd.DataFrame:  # fmt: skip
    """A row an arm and `by`: value, low and high over models, the nulls' means, and models.

    Args:
        table: a row a model, with its `seed` and `value`.
        bounds: what a mean can be.
    """
    rows = []
    for key, some in table.dropna(subset="value").groupby([*WHO, *by], sort=False):
        interval = mean_over_models(some["value"].tolist(), bounds=bounds)
        rows.append(
            dict(zip([*WHO, *by], key, strict=True))
            | {"value": interval.mean, "low": interval.low, "high": interval.high}
            | {null: some[null].mean() for null in nulls} | {"models": len(some)}
        )  # fmt: skip
    return pd.DataFrame(rows)


def shown_means(means: pd.DataFrame, beside: Sequence[str], *, largest: bool = False) -> (
    pd.DataFrame
):  # fmt: skip
    """A row an arm and a column a panel: the mean, its interval, and in brackets what is beside it.

    Args:
        beside: columns, such as nulls.
        largest: whether the largest of these is shown alone.
    """
    texts = []
    for row in means.to_dict("records"):
        value = Interval(mean=row["value"], low=row["low"], high=row["high"]).format()
        known = [row[name] for name in beside if pd.notna(row[name])]
        known = [max(known)] if largest and known else known
        texts.append(f"{value} ({', '.join(f'{x:.2f}' for x in known)})" if known else value)
    wide = means.assign(text=texts).pivot_table(
        index=["label", "framing", "size", "models"], columns="panel", values="text",
        aggfunc="first", sort=False,
    )  # fmt: skip
    panels = list(dict.fromkeys(means["panel"]))
    return wide[panels].fillna("").reset_index().drop(columns="label")


def extent(values: pd.Series, spec: str = ".2f") -> str:
    """From the least to the most of some numbers, in words.

    >>> extent(pd.Series([0.5, 0.75])), extent(pd.Series([0.5]), "+.1f")
    ('0.50 to 0.75', '+0.5')
    """
    least, most = format(values.min(), spec), format(values.max(), spec)
    return least if least == most else f"{least} to {most}"


def cells_note(*beside: str) -> str:
    """What the cells of `shown_means` hold."""
    return f"In square brackets the interval, in round ones {', '.join(beside)}."


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How much more the widest models of a framing have than the narrowest of the same depth."""

    framing: str
    narrow: str
    wide: str
    difference: Difference

    def amount(self) -> str:
        """How much more or less, in words."""
        found = self.difference.interval
        more = found.mean > 0
        low, high = (found.low, found.high) if more else (-found.high, -found.low)
        size = Interval(mean=abs(found.mean), low=low, high=high).format()
        return f"{size} {'more' if more else 'less'}"

    @property
    def hedge(self) -> str:
        """What is said where the interval has 0 in it."""
        return "" if self.difference.excludes_zero else ", not told apart"


def contrasts(table: pd.DataFrame) -> list[Contrast]:
    """The narrowest and the widest models of each framing and depth, where there are two widths.

    Args:
        table: a row a model, with its `seed` and `value`.
    """
    found = []
    for (framing, _), some in table.dropna(subset="value").groupby(
        ["framing", "layers"], sort=False
    ):
        ends = [some[some["width"] == width] for width in some["width"].agg(["min", "max"])]
        if some["width"].nunique() < 2 or any(end["run"].nunique() > 1 for end in ends):
            continue
        first, second = (end.groupby("seed")["value"].mean() for end in ends)
        narrow, wide = (str(end["size"].iloc[0]) for end in ends)
        found.append(
            Contrast(
                framing=str(framing), narrow=narrow, wide=wide,
                difference=difference_over_models(first, second),
            )
        )  # fmt: skip
    return found


def contrast_sentence(says: str, found: Sequence[Contrast], otherwise: str) -> str:
    """What differs by size, as one sentence.

    Args:
        says: with {framing}, {wide}, {amount} and {narrow} in it.
        otherwise: what is said where there is one size.
    """
    if not found:
        return otherwise
    first, *others = found
    words = {"framing": first.framing, "wide": first.wide, "narrow": first.narrow}
    said = [says.format(amount=first.amount(), **words) + first.hedge]
    for other in others:
        same = (other.wide, other.narrow) == (first.wide, first.narrow)
        whose = "" if same else f" in {other.wide} than in {other.narrow}"
        said.append(f"on {other.framing} {other.amount()}{whose}{other.hedge}")
    return "; ".join(said) + "."


def arms_sentence(what: str, means: pd.DataFrame) -> str:
    """The means of all arms, as one sentence."""
    words = []
    for framing, some in means.groupby("framing", sort=False):
        numbers = some[["size", "value", "low", "high"]].itertuples(index=False)
        each = [
            f"{size} {Interval(mean=value, low=low, high=high).format()}"
            for size, value, low, high in numbers
        ]
        words.append(f"on {framing} {', '.join(each)}")
    return f"{what}: {'; '.join(words)}."


def size_claims(
    says: str, found: Sequence[Contrast], *, unit: str, command: str, above: bool = True
) -> list[Claim]:
    """A claim a framing, that the wide have more (or less) than the narrow.

    Args:
        says: with {wide}, {narrow} and {framing} in it.
    """
    return [
        Claim(
            says=says.format(wide=c.wide, narrow=c.narrow, framing=c.framing),
            by="explored", effect=c.difference.interval, unit=unit, null=0.0,
            null_is="no difference", models=c.difference.pairs or c.difference.models,
            command=command, above=above,
        )
        for c in found
    ]  # fmt: skip


def _which(row: Mapping[Any, Any]) -> str:
    """The run's name, where size and framing are not enough to know it."""
    return "" if row["label"] == f"{row['size']} on {row['framing']}" else f" ({row['run']})"


def null_claims(
    says: str, means: pd.DataFrame, nulls: Mapping[str, str], *, unit: str, command: str
) -> list[Claim]:
    """A claim an arm, that its value is above the hardest of its nulls.

    Args:
        says: with {framing} and {size} in it.
        nulls: of the table's columns the words.
    """
    claims = []
    for row in means.to_dict("records"):
        known = {words: row[name] for name, words in nulls.items() if pd.notna(row[name])}
        hardest = max(known, key=lambda words: known[words])
        claims.append(
            Claim(
                says=says.format(framing=row["framing"], size=row["size"]) + _which(row),
                by="explored",
                effect=Interval(mean=row["value"], low=row["low"], high=row["high"]), unit=unit,
                null=float(known[hardest]), null_is=hardest, models=int(row["models"]),
                command=command,
            )
        )  # fmt: skip
    return claims

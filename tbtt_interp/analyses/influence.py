"""Influence of pair on pair: how much better one is answered for having been trained on another.

Read off many models that each hold out their own. Influence of a pair on itself is what Feldman and
Zhang call its memorization value: how much of its answer is had only by seeing it.

Source: Feldman and Zhang 2020, What Neural Networks Memorize and Why, arXiv 2008.03703, equations 1
and 2, where the models hold out random subsets.
"""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from tbtt_interp.analyses.findings import Finding, Tell, silent
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions
from tbtt_interp.old_interventions import logits_of
from tbtt_interp.stats import Interval, mean_over_models

MEMORIZED = 0.25  # the memorization value from which Feldman and Zhang call an example memorized
DRAWS = 99
MAIN = "specific"  # the measure that is said and drawn; the other two are in the table
OWN, OTHER, UNSEEN = PARTS = ("own pair", "other pairs", "pairs held out")
UNRELATED = "unrelated"

Matrix = Float[np.ndarray, "of on"]


@dataclass(frozen=True, kw_only=True)
class Held:
    """What some models hold out and others do not, and how each model does on it.

    Attributes:
        names: of the units: operand pairs, or whatever is held out together.
        out: which models hold out which unit.
        scores: by measure, each model's mean over the unit's examples: `margin`, in nats of logit;
            `right`, a share; `specific`, the margin beyond what the model's margin on all else that
            it was trained on predicts.
    """

    names: tuple[str, ...]
    out: Bool[np.ndarray, "model unit"]
    scores: dict[str, Float[np.ndarray, "model unit"]]


def units_of(
    subject: Subject,
) -> tuple[tuple[str, ...], Int[np.ndarray, " example"], Bool[np.ndarray, "model unit"]]:
    """What is held out together by some models and not by all.

    Returns:
        the units' names, each example's unit (-1 for none), and which models hold out which unit.
    Raises:
        TbttError: if all models hold out the same.
    """
    away = subject.held_out
    known: dict[bytes, int] = {}
    unit = np.full(away.shape[1], -1)
    names: list[str] = []
    for k, (example, column) in enumerate(zip(subject.examples, away.T, strict=True)):
        if column.any() and not column.all():
            unit[k] = known.setdefault(column.tobytes(), len(known))
            if unit[k] == len(names):
                operands = [example.labels.get("a"), example.labels.get("b")]
                names.append(example.prompt if None in operands else "{},{}".format(*operands))
    if not names:
        raise TbttError(
            f"every model of {subject.name} holds out the same, so there is no influence to "
            "read off: train some that differ, as in tbtt train --recipe influence"
        )
    first = [int(np.flatnonzero(unit == number)[0]) for number in range(len(names))]
    return tuple(names), unit, away[:, first]


def held_of(subject: Subject, *, parts: Parts | None = None, tell: Tell = silent) -> Held:
    """How each model of a subject does on what others of it were not trained on."""
    names, unit, out = units_of(subject)
    questions = Questions.of(subject.examples, subject.vocabulary, subject.n_ctx)

    def compute() -> Arrays:
        margins = []
        for k, model in enumerate(subject.models):
            margins.append(questions.margins(logits_of(model, questions)[None])[0].numpy())
            tell(k + 1, len(subject.models))
        return {"margins": np.array(margins)}

    margins = (parts or Parts()).get("margins", compute)["margins"]
    member = unit[:, None] == np.arange(len(names))
    mean = member / member.sum(0)
    margin, right = margins @ mean, (margins > 0).astype(float) @ mean
    scores = {"margin": margin, "right": right, MAIN: beyond_level(margin, out)}
    return Held(names=names, out=out, scores=scores)


def beyond_level(
    scores: Float[np.ndarray, "model unit"], out: Bool[np.ndarray, "model unit"]
) -> Float[np.ndarray, "model unit"]:
    """Scores less what a line on the model's mean score on the other units it learned predicts.

    Models differ in how clearly they answer anything, by more than any one unit does to another.
    The line is fitted, a unit at a time, on the models that were trained on it.
    """
    found = scores.copy()
    for unit in range(out.shape[1]):
        others = ~out & (np.arange(out.shape[1]) != unit)
        level = (scores * others).sum(1) / np.maximum(others.sum(1), 1)
        here = ~out[:, unit]
        if np.ptp(level[here]) > 0:
            found[:, unit] -= np.polyval(np.polyfit(level[here], scores[here, unit], 1), level)
    return found


def influence(
    scores: Float[np.ndarray, "model unit"],
    out: Bool[np.ndarray, "model unit"],
    *,
    unseen: bool = False,
) -> tuple[Matrix, Matrix]:
    """How much higher unit j's score is in models trained on unit i than in those that hold i out.

    Of two units, both kinds of model are trained on j, so that those trained on i hold out
    something else, or nothing: what holding out i does beyond holding out another. Of a unit on
    itself, the models that hold it out are against all others.

    Args:
        unseen: whether both kinds of model hold j out instead, so that what i does for it is what
            carries over. Of a unit on itself there is nothing then.
    Returns:
        influence `[i, j]`, and its standard error; nan where there are no models to tell.

    >>> import numpy as np
    >>> out = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    >>> influence(np.array([[0.0, 4], [0, 4], [1, 0], [1, 0]]), out)[0]
    array([[ 1., nan],
           [nan,  4.]])
    """
    trained, away = (~out).astype(float), out.astype(float)
    asked, other = away if unseen else trained, 1 - np.eye(out.shape[1])
    itself = np.zeros_like(other) if unseen else 1 - other
    means, errors = [], []
    for chosen in (trained, away):
        # of i ≠ j, models that are trained on j, or not; of i = j all that are chosen
        count, total, square = (
            other * (chosen.T @ (asked * s)) + itself * (chosen.T @ s)
            for s in (np.ones_like(scores), scores, scores**2)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / count
            variance = np.maximum(square / count - mean**2, 0) * count / (count - 1)
            means.append(np.where(count > 0, mean, np.nan))
            errors.append(np.where(count > 1, variance / count, np.nan))
    return means[0] - means[1], np.sqrt(errors[0] + errors[1])


def influence_table(held: Held) -> pd.DataFrame:
    """A row for each ordered pair of units.

    Columns: `of` and `on`, as in the influence of one on the other; for each measure X its name
    and `X_unseen`, of models that hold out what it is on, with `X_error` and `X_unseen_error`,
    standard errors over models; `held_out` and `trained`, models of each kind that are trained on
    what it is on.
    """
    columns: dict[str, np.ndarray] = {}
    for name, scores in held.scores.items():
        for column, unseen in ((name, False), (f"{name}_unseen", True)):
            columns[column], columns[f"{column}_error"] = influence(scores, held.out, unseen=unseen)
    here, there = (~held.out).astype(int), held.out.astype(int)
    itself = np.eye(len(held.names), dtype=bool)
    columns["held_out"] = np.where(itself, there.sum(0), there.T @ here)
    columns["trained"] = np.where(itself, here.sum(0), here.T @ here)
    names = np.array(held.names)
    return pd.DataFrame(
        {"of": names.repeat(len(names)), "on": np.tile(names, len(names))}
        | {name: values.ravel() for name, values in columns.items()}
    )


def deal_anew(held: Held, draws: int, seed: int) -> list[Held]:
    """The same models and scores, with what they hold out dealt anew among them."""
    chance = np.random.default_rng((seed, 0xDEA1))
    return [dataclasses.replace(held, out=chance.permutation(held.out)) for _ in range(draws)]


def _by_chance(
    held: Held, draws: int, seed: int, *, unseen: bool
) -> Iterator[Float[np.ndarray, "unit unit"]]:
    """Influence that there is by chance.

    On the own pair, models are dealt anew what they hold out. On another, its scores are dealt
    anew among the models that alone tell that influence: those that were trained on it, or not.
    """
    chance = np.random.default_rng((seed, 0xC4A2))
    for dealt in deal_anew(held, draws, seed):
        scores = held.scores[MAIN].copy()
        for unit, out in enumerate(held.out.T):
            tell = np.flatnonzero(out if unseen else ~out)
            scores[tell, unit] = scores[chance.permutation(tell), unit]
        own = influence(dealt.scores[MAIN], dealt.out, unseen=unseen)[0]
        other = influence(scores, held.out, unseen=unseen)[0]
        yield np.where(np.eye(len(own), dtype=bool), own, other)


def relation(of: str, on: str) -> str:
    """What one unit is to another; of pairs of operands, the first of these that it is.

    >>> relation("2,6", "3,5"), relation("2,6", "4,8"), relation("2,6", "2,7")
    ('of the same sum', 'of the same difference', 'one step away')
    """
    if of == on:
        return OWN
    operands = [sorted(map(int, x.split(","))) for x in (of, on) if re.fullmatch(r"\d+,\d+", x)]
    if len(operands) < 2:
        return UNRELATED
    (a, b), (c, d) = operands
    if a + b == c + d:
        return "of the same sum"
    if b - a == d - c:
        return "of the same difference"
    if min(abs(a - c) + abs(b - d), abs(a - d) + abs(b - c)) == 1:
        return "one step away"
    return "sharing an operand" if {a, b} & {c, d} else UNRELATED


def relation_table(held: Held, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Mean influence by what pairs are to each other: where single entries are noise, this is not.

    Returns:
        a row a relation and `part`: `influence`, nats of specific margin; `null` and `null_sd`, its
        mean and spread where models are dealt anew what they hold out, which is what chance does;
        `p`, two sided; and `pairs`, ordered, that models tell.
    """
    kinds = np.array([[relation(of, on) for on in held.names] for of in held.names])
    rows = []
    for unseen in (False, True):
        real = influence(held.scores[MAIN], held.out, unseen=unseen)[0]
        matrices = [real, *_by_chance(held, draws, seed, unseen=unseen)]
        for kind in dict.fromkeys(kinds[np.isfinite(real)]):
            told = (kinds == kind) & np.isfinite(real)
            value, *null = (float(np.nanmean(matrix[told])) for matrix in matrices)
            extreme = np.abs(np.array(null) - np.mean(null)) >= abs(value - np.mean(null))
            rows.append({
                "part": UNSEEN if unseen else OWN if kind == OWN else OTHER,
                "relation": str(kind), "influence": value, "null": np.mean(null),
                "null_sd": np.std(null), "p": (1 + extreme.sum()) / (1 + draws),
                "pairs": int(told.sum()),
            })  # fmt: skip
    return pd.DataFrame(rows)


ON = {OTHER: "on a pair", UNSEEN: "on a held-out pair"}


def influence_findings(
    table: pd.DataFrame, agreement: pd.DataFrame, relations: pd.DataFrame
) -> list[Finding]:
    """How much is had only by seeing it, whether halves agree, and which pairs help which."""
    own, other = (table[(table["of"] == table["on"]) == same] for same in (True, False))
    found = [
        Finding(
            what="being trained on a pair rights",
            effect=mean_over_models(own["right"].tolist()),
            null=float(other["right"].mean()),
            null_is="being trained on another pair, on average",
            of="its equations (over pairs)",
        )
    ]
    for row in agreement[agreement["measure"] == MAIN].to_dict("records"):
        found.append(
            Finding(
                what=f"influence on the {row['part']} correlates between halves of the models by",
                effect=Interval(mean=row["r"], low=row["low"], high=row["high"]),
                null=row["null_r"],
                null_is="dealt anew which model holds out which",
                of="1 (over splits)",
            )
        )
    itself = relations.loc[relations["relation"] == OWN, "influence"].iloc[0]
    for row in relations[~relations["relation"].isin([OWN, UNRELATED])].to_dict("records"):
        away = 1.96 * row["null_sd"] / itself
        share = row["influence"] / itself
        found.append(
            Finding(
                what=f"{ON[row['part']]} {row['relation']} influence is",
                effect=Interval(mean=share, low=share - away, high=share + away),
                null=row["null"] / itself,
                null_is="dealt anew",
                of="that on itself",
            )
        )
    return found


def influence_notes(table: pd.DataFrame, agreement: pd.DataFrame) -> list[str]:
    """What a reader of it has to know."""
    own = table[table["of"] == table["on"]]
    models = int((own["held_out"] + own["trained"]).iloc[0])
    main = agreement[agreement["measure"] == MAIN].set_index("part")
    memorized = int((own["right"] >= MEMORIZED).sum())
    return [
        f"Influence: {len(own)} pairs, each held out by {own['held_out'].min():.0f} or more of "
        f"{models:,} models. Memorization value, of a pair on itself in share right: "
        f"{MEMORIZED} or more, the threshold of Feldman and Zhang 2020, for {memorized} of them.",
        "Without noise, by halves, in nats of margin (root mean square): "
        + ", ".join(f"{row['rms']:.2f} on the {part}" for part, row in main.iterrows())
        + ".",
        "Halves of the models would agree by 0.5 with about "
        + ", ".join(f"{row['needed']:,.0f} on the {part}" for part, row in main.iterrows())
        + " (models that hold out a pair).",
        "On pairs held out: what being trained on one pair does for another that neither kind of "
        "model was trained on, which is what carries over.",
    ]

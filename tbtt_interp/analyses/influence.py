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
from tbtt_interp.interventions import logits_of
from tbtt_interp.stats import Interval, interval_over_seeds

MEMORIZED = 0.25  # the memorization value from which Feldman and Zhang call an example memorized
SPLITS = 20
DRAWS = 99
MAIN = "specific"  # the measure that is said and drawn; the other two are in the table
OWN, OTHER, UNRELATED = "own pair", "other pairs", "unrelated"

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
    scores: Float[np.ndarray, "model unit"], out: Bool[np.ndarray, "model unit"]
) -> tuple[Matrix, Matrix]:
    """How much higher unit j's score is in models trained on unit i than in those that hold i out.

    Of two units, both kinds of model are trained on j, so that those trained on i hold out
    something else, or nothing: what holding out i does beyond holding out another. Of a unit on
    itself, the models that hold it out are against all others.

    Returns:
        influence `[i, j]`, and its standard error; nan where there are no models to tell.

    >>> import numpy as np
    >>> out = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    >>> influence(np.array([[0.0, 4], [0, 4], [1, 0], [1, 0]]), out)[0]
    array([[ 1., nan],
           [nan,  4.]])
    """
    trained, away, itself = (~out).astype(float), out.astype(float), np.eye(out.shape[1])
    means, errors = [], []
    for chosen in (trained, away):
        # of i ≠ j, models that are trained on j; of i = j all that are chosen
        count, total, square = (
            (1 - itself) * (chosen.T @ (trained * s)) + itself * (chosen.T @ s)
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

    Columns: `of` and `on`, as in the influence of one on the other; for each measure its name and
    `X_error`, a standard error over models; `held_out` and `trained`, models of each kind.
    """
    columns: dict[str, np.ndarray] = {}
    for name, scores in held.scores.items():
        columns[name], columns[f"{name}_error"] = influence(scores, held.out)
    here, there = (~held.out).astype(int), held.out.astype(int)
    itself = np.eye(len(held.names), dtype=bool)
    columns["held_out"] = np.where(itself, there.sum(0), there.T @ here)
    columns["trained"] = np.where(itself, here.sum(0), here.T @ here)
    names = np.array(held.names)
    return pd.DataFrame(
        {"of": names.repeat(len(names)), "on": np.tile(names, len(names))}
        | {name: values.ravel() for name, values in columns.items()}
    )


def halves(out: Bool[np.ndarray, "model unit"], seed: int) -> list[Int[np.ndarray, " _"]]:
    """The models in two halves at random, each with half of those that hold out the same."""
    chance = np.random.default_rng((seed, 0x4A1F))
    found: tuple[list[int], list[int]] = ([], [])
    _, kind = np.unique(out, axis=0, return_inverse=True)
    for number in range(kind.max() + 1):
        models = chance.permutation(np.flatnonzero(kind.ravel() == number))
        turn = chance.integers(2)  # of an odd number, either half may have one more
        for half in range(2):
            found[(half + turn) % 2].extend(models[half::2].tolist())
    return [np.array(sorted(half)) for half in found]


def half_table(held: Held, *, seed: int = 0) -> pd.DataFrame:
    """What one half of the models and the other say of each pair of units, of one split.

    Columns: `of`, `on`, `first` and `second`, in nats of specific margin.
    """
    sides = [influence(held.scores[MAIN][h], held.out[h])[0] for h in halves(held.out, seed)]
    names = np.array(held.names)
    return pd.DataFrame({
        "of": names.repeat(len(names)), "on": np.tile(names, len(names)),
        "first": sides[0].ravel(), "second": sides[1].ravel(),
    })  # fmt: skip


def split_halves(held: Held, *, splits: int = SPLITS, seed: int = 0) -> pd.DataFrame:
    """Whether two halves of the models, each by itself, say the same.

    Returns:
        a row a measure, split and part (a unit's influence on itself, or on others): `r`, the
        correlation of the two halves over units; `spearman_brown`, what it would be of two sets as
        large as all; `signal`, the mean product of the halves, which is the mean square of true
        influence, without noise.
    Source: Spearman 1910; Brown 1910.
    """
    itself = np.eye(len(held.names), dtype=bool)
    rows = []
    for name, scores in held.scores.items():
        for split in range(splits):
            sides = [influence(scores[h], held.out[h])[0] for h in halves(held.out, seed + split)]
            for part, mask in ((OWN, itself), (OTHER, ~itself)):
                x, y = (side[mask] for side in sides)
                there = np.isfinite(x) & np.isfinite(y)
                r = correlation(x[there], y[there])
                rows.append({
                    "measure": name, "split": split, "part": part, "r": r,
                    "spearman_brown": spearman_brown(r),
                    "signal": float((x * y)[there].mean()) if there.any() else np.nan,
                })  # fmt: skip
    return pd.DataFrame(rows)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; nan where one of them does not vary."""
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def spearman_brown(r: float) -> float:
    """How two wholes would correlate, of which halves correlate by r.

    >>> round(spearman_brown(0.5), 3)
    0.667
    """
    return 2 * r / (1 + r) if r > -1 else np.nan


def agreement_table(held: Held, *, splits: int = SPLITS, seed: int = 0) -> pd.DataFrame:
    """`split_halves` over splits, beside the same where models are dealt anew what they hold out.

    Returns:
        a row a measure and part: mean `r` with `low` and `high` over splits; `spearman_brown`, that
        of the mean; `needed`, models a unit of which halves would agree by 0.5, by the same
        formula; `rms`, the root mean square of true influence; and `null_r`, over as many deals.
    """
    found = split_halves(held, splits=splits, seed=seed)
    null = pd.concat(
        split_halves(dealt, splits=1, seed=seed + k)
        for k, dealt in enumerate(deal_anew(held, splits, seed))
    )
    nulls = null.groupby(["measure", "part"])["r"].mean().to_dict()
    models = held.out.sum() / len(held.names)
    rows = []
    for (measure, part), rs in found.groupby(["measure", "part"], sort=False):
        r = rs["r"].mean()
        rows.append({
            "measure": measure, "part": part, "r": r, "low": rs["r"].quantile(0.025),
            "high": rs["r"].quantile(0.975), "spearman_brown": spearman_brown(r),
            "needed": models * (1 - r) / r if r > 0 else np.inf,
            "rms": float(np.sqrt(max(rs["signal"].mean(), 0))),
            "null_r": nulls[measure, part],
        })  # fmt: skip
    return pd.DataFrame(rows)


def deal_anew(held: Held, draws: int, seed: int) -> list[Held]:
    """The same models and scores, with what they hold out dealt anew among them."""
    chance = np.random.default_rng((seed, 0xDEA1))
    return [dataclasses.replace(held, out=chance.permutation(held.out)) for _ in range(draws)]


def _by_chance(held: Held, draws: int, seed: int) -> Iterator[Float[np.ndarray, "unit unit"]]:
    """Influence that there is by chance.

    On the own pair, models are dealt anew what they hold out. On another, its scores are dealt
    anew among the models that were trained on it, which alone tell that influence.
    """
    chance = np.random.default_rng((seed, 0xC4A2))
    for dealt in deal_anew(held, draws, seed):
        scores = held.scores[MAIN].copy()
        for unit, out in enumerate(held.out.T):
            trained = np.flatnonzero(~out)
            scores[trained, unit] = scores[chance.permutation(trained), unit]
        own = influence(dealt.scores[MAIN], dealt.out)[0]
        yield np.where(np.eye(len(own), dtype=bool), own, influence(scores, held.out)[0])


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
        a row a relation: `influence`, nats of specific margin; `null` and `null_sd`, its mean and
        spread where models are dealt anew what they hold out, which is what chance does; `p`, two
        sided; and `pairs`, ordered.
    """
    kinds = np.array([[relation(of, on) for on in held.names] for of in held.names])
    matrices = [influence(held.scores[MAIN], held.out)[0], *_by_chance(held, draws, seed)]
    rows = []
    for kind in dict.fromkeys(kinds.ravel()):
        value, *null = (float(np.nanmean(matrix[kinds == kind])) for matrix in matrices)
        extreme = np.abs(np.array(null) - np.mean(null)) >= abs(value - np.mean(null))
        rows.append({
            "relation": str(kind), "influence": value, "null": np.mean(null),
            "null_sd": np.std(null), "p": (1 + extreme.sum()) / (1 + draws),
            "pairs": int((kinds == kind).sum()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def influence_findings(
    table: pd.DataFrame, agreement: pd.DataFrame, relations: pd.DataFrame
) -> list[Finding]:
    """How much is had only by seeing it, whether halves agree, and which pairs help which."""
    own, other = (table[(table["of"] == table["on"]) == same] for same in (True, False))
    found = [
        Finding(
            what="being trained on a pair rights",
            effect=interval_over_seeds(own["right"].tolist()),
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
                what=f"on a pair {row['relation']} influence is",
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
        f"{models} models. Memorization value, of a pair on itself in share right: {MEMORIZED} or "
        f"more, the threshold of Feldman and Zhang 2020, for {memorized} of them.",
        "Without noise, by halves, in nats of margin (root mean square): "
        f"{main.loc[OWN, 'rms']:.2f} of a pair on itself, {main.loc[OTHER, 'rms']:.2f} on another. "
        f"Halves would agree on others by 0.5 with about {main.loc[OTHER, 'needed']:,.0f} models a "
        "pair.",
    ]

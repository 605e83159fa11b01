"""How operands are laid out: in the embeddings, and where the answer begins.

A code of few values says much by chance. So each measure is beside what it is of values in random
order, or of random vectors where order does not matter, and beside the untrained model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from tbtt_interp import figures
from tbtt_interp.analyses.codes import (
    alignment,
    centred,
    cka,
    distance_order,
    distances,
    effective_rank,
    explained,
    number_line,
    spectrum,
)
from tbtt_interp.analyses.findings import Finding, Result, Tell, nearest_null, silent
from tbtt_interp.analyses.operand_codes import Code, Name, operand_codes
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run
from tbtt_interp.stats import Interval, mean_over_models

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

DIMENSIONS = 14  # what wider codes are projected on, to compare sizes: the width of the smallest
DRAWS, PROJECTIONS = 199, 10
COMPONENTS = 3  # principal components that are told
BOTH = "a and b"
ORDER, VECTORS, NO_CODE = "values in random order", "random vectors", "no code at all"
NULL_IS = {"number line": ORDER, "distance order": ORDER, "spectrum": ORDER, "alignment": ORDER,
           "cka": ORDER, "effective rank": VECTORS, "explained": VECTORS,
           "share of variance": NO_CODE}  # fmt: skip
Beside = tuple[Float[np.ndarray, " component"], Float[np.ndarray, "component draw"]]


class Row(NamedTuple):
    """What is measured of a code, or of the codes of both operands together.

    Attributes:
        component: a frequency or a principal component, from 1; 0 where there is one number.
        dimensions: of the space it is measured in.
    """

    site: str
    operator: str
    operand: str
    measure: str
    component: int
    dimensions: int


Measured = dict[Row, tuple[float, Float[np.ndarray, " draw"]]]


def _beside(measure: Callable, real: Sequence[np.ndarray], null: Sequence[np.ndarray]) -> Beside:
    """A measure, the mean over projections, and what it is of each draw of a null.

    Args:
        real: codes `[projection, value, d]`.
        null: the same `[projection, draw, value, d]`.
    """
    with np.errstate(invalid="ignore"):  # of vectors that are all alike a share is nan
        value, by_chance = (np.asarray(measure(*codes)).mean(0) for codes in (real, null))
    return np.atleast_1d(value), by_chance.reshape(len(by_chance), -1).T


def _of_one(
    code: Float[np.ndarray, "projection value d"],
    values: Float[np.ndarray, " value"],
    orders: Int[np.ndarray, "draw value"],
    chance: np.random.Generator,
) -> dict[str, Beside]:
    mixed = code[:, orders]
    random = chance.standard_normal((1, len(orders), *code.shape[1:]))
    shares, of_random = _beside(explained, [code], [random])
    return {
        "number line": _beside(partial(number_line, values=values), [code], [mixed]),
        "distance order": _beside(partial(distance_order, values=values), [code], [mixed]),
        "spectrum": _beside(spectrum, [code], [mixed]),
        "effective rank": _beside(effective_rank, [code], [random]),
        "explained": (shares[:COMPONENTS], of_random[:COMPONENTS]),
    }


def measure_codes(
    codes: Mapping[Name, Code], dimensions: int | None = None, *, draws: int = DRAWS, seed: int = 0
) -> Measured:
    """Every measure of one model's codes, and what it is of each draw of its null.

    Args:
        dimensions: what codes are projected on, the mean over some random subspaces; None is none.
    """
    chance = np.random.default_rng((seed, 0x6E0))
    width = next(iter(codes.values())).vectors.shape[1]
    bases = np.eye(width)[None]
    if dimensions is not None:
        bases = np.linalg.qr(chance.standard_normal((PROJECTIONS, width, dimensions)))[0]
    found: Measured = {}

    def keep(name: Name, measures: Mapping[str, Beside]) -> None:
        for measure, (values, nulls) in measures.items():
            for k, (value, null) in enumerate(zip(values, nulls, strict=True)):
                component = k + 1 if measure in ("spectrum", "explained") else 0
                row = Row(*name, measure, component, bases.shape[-1])
                found[row] = float(value), null

    for name, code in codes.items():
        x = centred(code.vectors) @ bases
        orders = chance.permuted(np.tile(np.arange(len(code.values)), (draws, 1)), axis=1)
        keep(name, _of_one(x, code.values, orders, chance))
        if dimensions is None and not np.isnan(code.share):
            share = np.array([code.share]), np.full((1, draws), code.chance)
            keep(name, {"share of variance": share})
        other = codes.get(name._replace(operand="a"))
        if name.operand == "b" and other and np.array_equal(other.values, code.values):
            y = centred(other.vectors) @ bases
            pair = [y, x], [y[:, None], x[:, orders]]
            both = {"alignment": _beside(alignment, *pair), "cka": _beside(cka, *pair)}
            keep(name._replace(operand=BOTH), both)
    return found


def _part(subject: Subject, k: int, dimensions: int, seed: int) -> Arrays:
    """Of one model, and of it untrained: a row a measure, and the draws of its null."""

    def measured(model: "HookedTransformer", draws: int) -> Measured:
        codes = operand_codes(subject, model)
        width = next(iter(codes.values())).vectors.shape[1]
        spaces = [None, dimensions] if width > dimensions else [None]
        rows = [measure_codes(codes, space, draws=draws, seed=seed + k) for space in spaces]
        return {row: value for some in rows for row, value in some.items()}

    found = measured(subject.models[k], DRAWS)
    untrained = measured(subject.untrained[k], 1) if subject.untrained else {}
    return {
        "rows": np.array([json.dumps(row) for row in found]),
        "values": np.array([value for value, _ in found.values()]),
        "nulls": np.array([null for _, null in found.values()]),
        "untrained": np.array([untrained.get(row, (np.nan,))[0] for row in found]),
    }


def geometry_table(
    subject: Subject,
    *,
    dimensions: int = DIMENSIONS,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """Every measure of every code, as it is, and where that is wider in so many dimensions.

    Returns:
        a row a code (`site`, `operator`, `operand`, in words `code`), `measure`, `component` (a
        frequency or principal component, from 1) and `dimensions`; `run`, `width` (of the model),
        `value`, `low`, `high` over models; `null`, its mean, `null_is`; `p`, the share of draws of
        the null as far from its mean, models together; `untrained`, and `models`.
    """
    if dimensions < 2:
        raise TbttError(f"dimensions must be at least 2, got {dimensions}")
    parts = parts or Parts()
    found: list[Arrays] = []
    for k, name in enumerate(subject.seeds):
        part = f"geometry-{subject.name.replace('/', '-')}-{name}"
        found.append(parts.get(part, partial(_part, subject, k, dimensions, seed)))
        tell(k + 1, len(subject.models))
    values = np.stack([part["values"] for part in found])
    untrained = np.mean([part["untrained"] for part in found], axis=0)
    nulls = np.mean([part["nulls"] for part in found], axis=0)
    rows = []
    for k, text in enumerate(found[0]["rows"]):
        row = Row(*json.loads(text))
        interval = mean_over_models(values[:, k].tolist())
        null, off = nulls[k].mean(), np.abs(nulls[k] - nulls[k].mean())
        beyond = (off >= abs(interval.mean - null)).sum()
        rows.append({
            "run": subject.name, "width": subject.models[0].cfg.d_model, **row._asdict(),
            "code": str(Name(*row[:3])), "value": interval.mean, "low": interval.low,
            "high": interval.high, "null": null, "null_is": NULL_IS[row.measure],
            "p": (1 + beyond) / (1 + len(off)) if off.any() else np.nan,
            "untrained": untrained[k], "models": len(found),
        })  # fmt: skip
    return pd.DataFrame(rows)


def compare_geometry(
    subjects: Sequence[Subject],
    *,
    dimensions: int = DIMENSIONS,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """`geometry_table` of several, one below the other: compare rows of equal `dimensions`.

    Raises:
        TbttError: if one of several has fewer dimensions than are to be compared.
    """
    widths = {subject.name: subject.models[0].cfg.d_model for subject in subjects}
    narrow = min(widths, key=lambda name: widths[name])
    if len(subjects) > 1 and widths[narrow] < dimensions:
        raise TbttError(
            f"{narrow} is {widths[narrow]} wide, so runs cannot be compared in {dimensions} "
            f"dimensions: give --dimensions {widths[narrow]} or fewer"
        )
    count = sum(len(subject.models) for subject in subjects)
    tables: list[pd.DataFrame] = []
    done = 0
    for subject in subjects:
        told = partial(_told, tell, done, count)
        tables.append(
            geometry_table(subject, dimensions=dimensions, parts=parts, tell=told, seed=seed)
        )
        done += len(subject.models)
    return pd.concat(tables, ignore_index=True)


def _told(tell: Tell, before: int, of: int, done: int, _: int) -> None:
    tell(before + done, of)


def layout_tables(subject: Subject) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every code of every model as it can be drawn.

    Returns:
        a row a value: `seed`, `site`, `code`, `value`, `x`, `y` on the first two principal
        components and `x_share`, `y_share`, what they explain; and a row a pair of values: the
        same with `other` and `distance`.
    """
    points, pairs = [], []
    for seed, model in zip(subject.seeds, subject.models, strict=True):
        for name, code in operand_codes(subject, model).items():
            labels = {"seed": seed, "site": name.site, "code": str(name)}
            left, sizes, _ = np.linalg.svd(centred(code.vectors), full_matrices=False)
            shares = explained(code.vectors)
            x, y = (left * sizes)[:, :2].T
            points.append(pd.DataFrame({
                **labels, "value": code.values, "x": x, "y": y,
                "x_share": shares[0], "y_share": shares[1],
            }))  # fmt: skip
            first, second = np.indices(2 * [len(code.values)]).reshape(2, -1)
            pairs.append(pd.DataFrame({
                **labels, "value": code.values[first], "other": code.values[second],
                "distance": distances(code.vectors).ravel(),
            }))  # fmt: skip
    return pd.concat(points, ignore_index=True), pd.concat(pairs, ignore_index=True)


def streams_only(table: pd.DataFrame) -> pd.DataFrame:
    """The embeddings and the streams; of models of many layers, at the end of each.

    What attention writes in the first layer is the stream in its middle, up to a constant.
    """
    sites = table["site"].unique()
    many = sum(site.endswith("resid_post") for site in sites) > 1
    ends = ("hook_embed", "resid_post") if many else ("hook_embed", "resid_mid", "resid_post")
    return table[table["site"].str.endswith(ends)]


def geometry_findings(table: pd.DataFrame) -> list[Finding]:
    """How much of each code is a number line, and how the operands' codes are aligned."""
    found = []
    rows = streams_only(table[table["dimensions"] == table["width"]]).dropna(subset="value")
    for row in rows.to_dict("records"):
        nulls = {row["null_is"]: row["null"], "the untrained model": row["untrained"]}
        null, null_is = nearest_null(row["value"], nulls)
        what = {
            "number line": (f"{row['code']} at {row['site']}: a number line makes", "its code"),
            "alignment": (
                f"{row['code']} at {row['site']}: the cosine of their codes is",
                "that of equal codes",
            ),
        }.get(row["measure"])
        if what is not None:
            effect = Interval(mean=row["value"], low=row["low"], high=row["high"])
            found.append(
                Finding(what=what[0], effect=effect, null=null, null_is=null_is, of=what[1])
            )
    return found


def _shown(table: pd.DataFrame, dimensions: int) -> pd.DataFrame:
    """A row a code and a column a measure; of several runs, in equal dimensions, a column each."""
    several = table["run"].nunique() > 1
    told = [m for m in NULL_IS if m not in ("spectrum", "explained")]
    rows = streams_only(table[table["measure"].isin(told[:-1] if several else told)])
    rows = rows[rows["dimensions"] == (dimensions if several else rows["width"])]
    cells = [
        f"{Interval(mean=mean, low=low, high=high).format()} ({null:.2f}, {untrained:.2f})"
        for mean, low, high, null, untrained in rows[
            ["value", "low", "high", "null", "untrained"]
        ].itertuples(index=False)
    ]
    rows = rows.assign(cell=cells, run=rows["run"].str.rpartition("/")[2])
    index = ["site", "code", "measure"] if several else ["site", "code"]
    columns = "run" if several else "measure"
    return rows.pivot_table(
        index=index, columns=columns, values="cell", aggfunc="first", sort=False
    ).fillna("").reset_index()  # fmt: skip


def analyse_geometry(
    subject: Subject | Run,
    *others: Subject | Run,
    dimensions: int = DIMENSIONS,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Result:
    """`compare_geometry` of one or several, drawn and said; its arguments."""
    subjects = [Subject.of(given) for given in (subject, *others)]
    table = compare_geometry(subjects, dimensions=dimensions, parts=parts, tell=tell, seed=seed)
    points, pairs = layout_tables(subjects[0])
    first = table[table["run"] == subjects[0].name]
    return Result(
        name="geometry",
        tables={"geometry": table, "points": points, "distances": pairs},
        shown=_shown(table, dimensions),
        figures={
            "geometry": partial(figures.code_measures, streams_only(table), dimensions),
            "codes": partial(figures.code_layouts, points, pairs, first),
        },
        findings=geometry_findings(first),
        notes=[
            "In brackets the interval over models, then (the null, the untrained models). Nulls: "
            "values in random order; of the effective rank, random vectors.",
            "Number line: the share of a code's variance that is linear in the value. Distance "
            "order: Spearman's correlation of distances with differences. Alignment: 1 is one code "
            "for a and b, -1 one the negative of the other. Share of variance: of all prompts'.",
            *([f"All in {dimensions} random dimensions, the mean over {PROJECTIONS} choices; what "
               f"is found is of {subjects[0].name} as it is."] if others else []),
        ],
    )  # fmt: skip

"""How operands are represented: as a number line, in circles, the same for both?

A few vectors look structured by chance. Each measure is therefore compared with a permutation null
(permuted values, or random vectors where order does not matter) and with untrained models.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tbtt_interp import plots
from tbtt_interp.analyses import representations as measures
from tbtt_interp.analyses.representations import (
    Representation,
    centred,
    explained_variance,
    operand_representations,
)  # fmt: skip
from tbtt_interp.errors import TbttError
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds, over_untrained
from tbtt_interp.stats import Interval, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

DIMENSIONS = 14  # wider representations are projected to so many: the width of the smallest models
N_DRAWS, N_PROJECTIONS, N_COMPONENTS = 199, 10, 3
SALT = 0x6E0
BOTH = "a and b"
VECTORS = dict.fromkeys(("effective rank", "explained variance"), "random vectors")
TITLES = {"number line": "number line, share", "distance order": "distance order, rank corr.",
          "effective rank": "effective rank", "alignment": "alignment of a and b, cosine",
          "cka": "CKA of a and b"}  # fmt: skip
GROUP = ["site", "operator", "operand", "representation", "measure", "component", "dimensions"]
NULL_COLUMNS = {"null": "permuted values, or random vectors", "untrained": "untrained models"}


@np.errstate(invalid="ignore")  # the share of no variance is nan
def measure_representations(
    representations: Sequence[Representation],
    random: np.random.Generator,
    *,
    dimensions: int | None = None,
    n_draws: int = N_DRAWS,
) -> pd.DataFrame:
    """Every measure of one model's representations, and of each null draw; see `geometry`.

    Args:
        representations: a's before b's, for each site and operator.
        dimensions: of the random subspaces that representations are projected to; each measure is
            then the mean over some of them. None measures them as they are.
    """
    width = representations[0].vectors.shape[1]
    bases = np.eye(width)[None]
    if dimensions is not None:
        bases = np.linalg.qr(random.standard_normal((N_PROJECTIONS, width, dimensions)))[0]
    rows: list[list[object]] = []
    of_a, y = representations[0], np.empty(0)
    for r in representations:
        x = centred(r.vectors) @ bases
        orders = random.permuted(np.tile(np.arange(len(r.values)), (n_draws, 1)), axis=1)
        permuted, vectors = x[:, orders], random.standard_normal((1, n_draws, *x.shape[1:]))
        measured: list[tuple[str, str, Any, Any]] = [
            (measure, r.operand, function(x), function(null))
            for measure, function, null in (
                ("number line", partial(measures.number_line, values=r.values), permuted),
                ("distance order", partial(measures.distance_order, values=r.values), permuted),
                ("spectrum", measures.spectrum, permuted),
                ("effective rank", measures.effective_rank, vectors),
                ("explained variance", explained_variance, vectors),
            )
        ]
        if r.operand != "b":
            of_a, y = r, x
        elif np.array_equal(of_a.values, r.values):
            for measure, function in (("alignment", measures.alignment), ("cka", measures.cka)):
                measured.append((measure, BOTH, function(y, x), function(y[:, None], permuted)))
        for measure, operand, value, null in measured:
            key = (r.site, r.operator, operand, r.name.replace(r.operand, operand, 1), measure)
            values, draws = np.atleast_1d(value.mean(0)), null.mean(0).reshape(n_draws, -1).T
            last = N_COMPONENTS if measure == "explained variance" else None
            for k, (number, of) in enumerate(zip(values[:last], draws[:last], strict=True)):
                component = 0 if measure in TITLES else k + 1
                rows.append([*key, component, bases.shape[-1], number, *of])
    return pd.DataFrame(rows, columns=[*GROUP, "value", *(f"draw_{k}" for k in range(n_draws))])


def geometry(
    model: "HookedTransformer",
    prompts: PromptSet,
    dimensions: int = DIMENSIONS,
    n_draws: int = N_DRAWS,
) -> pd.DataFrame:
    """Every measure of a model's operand representations, and of each draw of its null.

    Returns:
        one row per representation (`site`, `operator`, `operand`, in words `representation`),
        `measure`, `component` (a frequency or a principal component, from 1) and `dimensions`: as
        it is and, where that is wider, projected to so many. `value`, and `draw_0` and so on.
    """
    found = operand_representations(model, prompts)
    spaces = [None, dimensions] if model.cfg.d_model > dimensions else [None]
    return pd.concat([
        measure_representations(found, np.random.default_rng((prompts.number, SALT)),
                                dimensions=space, n_draws=n_draws)
        for space in spaces
    ], ignore_index=True)  # fmt: skip


def geometry_table(*runs: Run | Models, dimensions: int = DIMENSIONS) -> pd.DataFrame:
    """Means over models of every measure, compared with a permutation null and untrained models.

    Args:
        runs: below each other; compare rows of equal `dimensions`.
    Returns:
        the columns of `geometry` with `run`, `width` (of the model), `value`, `value_low`,
        `value_high`; `null`, the mean over draws, and `null_name`; `p`, the share of draws as far
        from that mean, models together; `untrained` and `n_models`.
    Raises:
        TbttError: if one of several runs has fewer dimensions than are to be compared.
    """
    if dimensions < 2:
        raise TbttError(f"dimensions must be at least 2, got {dimensions}")
    several = [Models.of(run) for run in runs]
    width, name = min((models.first.cfg.d_model, models.name) for models in several)
    if len(several) > 1 and width < dimensions:
        raise TbttError(
            f"{name} is {width} wide, so runs cannot be compared in {dimensions} dimensions: "
            f"give --dimensions {width} or fewer"
        )
    tables = []
    for models in several:
        table = over_seeds(models, geometry, dimensions=dimensions)
        untrained = over_untrained(models, geometry, dimensions=dimensions, n_draws=1)
        table = table.assign(untrained=np.nan if untrained is None else untrained["value"])
        summary = summarize(table, GROUP, ["value", "untrained"])
        draws = table.groupby(GROUP, sort=False)[list(table.filter(regex="^draw_"))].mean()
        null = draws.mean(axis=1).to_numpy()
        off = np.abs(draws.to_numpy() - null[:, None])
        beyond = (off >= np.abs(summary["value"].to_numpy() - null)[:, None]).sum(1)
        p = np.where(off.any(1), (1 + beyond) / (1 + off.shape[1]), np.nan)
        tables.append(summary.drop(columns=["untrained_low", "untrained_high"]).assign(
            null=null, null_name=summary["measure"].map(VECTORS).fillna("permuted values"), p=p,
            run=models.name, width=models.first.cfg.d_model,
        ))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def streams_only(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of embeddings and residual streams; of many layers only the end of each.

    The output of the first layer's attention is the stream in its middle, up to a constant.
    """
    many = sum(site.endswith("resid_post") for site in table["site"].unique()) > 1
    ends = ("hook_embed", "resid_post") if many else ("hook_embed", "resid_mid", "resid_post")
    return table[table["site"].str.endswith(ends)]


def geometry_claims(summary: pd.DataFrame) -> list[Claim]:
    """How much of each representation is a number line, and how similar a's and b's are."""
    rows = streams_only(summary[summary["dimensions"] == summary["width"]]).dropna(subset="value")
    words = {
        "number line": ("a number line explains", "of the variance"),
        "alignment": ("their cosine is", "of 1, which equal representations have"),
    }
    return [
        Claim.of_row(
            row, "value", {"null": row["null_name"], "untrained": "untrained"},
            text=f"{row['representation']} at {row['site']}: {words[row['measure']][0]}",
            unit=words[row["measure"]][1],
            direction="different" if row["measure"] == "alignment" else "above",
        )
        for row in rows[rows["measure"].isin(list(words))].to_dict("records")
    ]  # fmt: skip


def plot_geometry(table: pd.DataFrame, dimensions: int = DIMENSIONS) -> "Figure":
    """Every measure with its nulls; several runs are compared in equal dimensions."""
    several = table["run"].nunique() > 1
    rows = table[table["measure"].isin(list(TITLES))]
    rows = rows[rows["dimensions"] == dimensions] if several else rows
    figure = plots.points(
        rows.assign(
            name=rows["representation"] + ", " + rows["site"].map(plots.short_site),
            series=rows["run"].str.rpartition("/")[2] if several
            else rows["dimensions"].astype(str) + " dimensions",
            measure=rows["measure"].map(TITLES),
        ),
        name="name", value="value", by="series", across=5, panel="measure", title="",
        nulls=NULL_COLUMNS, hover=["p"],
    )  # fmt: skip
    return figure.update_layout(title=f"in {dimensions} dimensions" if several else "")


def _display(table: pd.DataFrame, dimensions: int) -> pd.DataFrame:
    """One row per representation, one column per measure; of several runs a column per run."""
    several = table["run"].nunique() > 1
    rows = streams_only(table[table["measure"].isin(list(TITLES))])
    rows = rows[rows["dimensions"] == (dimensions if several else rows["width"])]
    cells = [f"{Interval.of_row(row, 'value').format()} ({row['null']:.2f}, {row['untrained']:.2f})"
             for row in rows.to_dict("records")]  # fmt: skip
    return rows.assign(cell=cells, run=rows["run"].str.rpartition("/")[2]).pivot_table(
        index=["site", "representation", *(["measure"] if several else [])], aggfunc="first",
        columns="run" if several else "measure", values="cell", sort=False,
    ).fillna("").reset_index()  # fmt: skip


def analyse_geometry(
    run: Run | Models, *others: Run | Models, dimensions: int = DIMENSIONS
) -> Result:
    """How operands are represented; several runs are compared in equal dimensions."""
    first, *_ = models = [Models.of(given) for given in (run, *others)]
    table = geometry_table(*models, dimensions=dimensions)
    of_first = table[table["run"] == first.name]
    note = (f"All in {dimensions} random dimensions, the mean over {N_PROJECTIONS} choices; claims "
            f"are about {first.name} as it is.")  # fmt: skip
    return Result(
        name="geometry",
        tables={"geometry": table},
        display=_display(table, dimensions),
        claims=geometry_claims(of_first),
        figures={"geometry": partial(plot_geometry, streams_only(table), dimensions)},
        notes=[
            "In square brackets the 95 % CI over models; in round ones the null and the untrained "
            "models. The null permutes the values; for the effective rank it is random vectors.",
            "Number line: the share of variance that is linear in the value. Distance order: "
            "Spearman's correlation of distances with differences. Alignment: 1 where a and b have "
            "the same representation, -1 where they have opposite ones.",
            *([note] if others else []),
        ],
    )  # fmt: skip

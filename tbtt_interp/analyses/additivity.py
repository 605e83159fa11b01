"""Rule or table: how much of what a model holds over its operands is f(a) + g(b), and what it does.

Source: Scheffé, The Analysis of Variance (1959), chapter 4.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tbtt_interp import figures
from tbtt_interp.analyses.findings import Finding, Result, Tell, silent
from tbtt_interp.analyses.main_effects import answer_findings, answered_table
from tbtt_interp.analyses.operand_grids import Grid, checked_sites, read_sites
from tbtt_interp.analyses.parts import Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run
from tbtt_interp.stats import mean_over_models

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

EFFECTS = ("a", "b", "interaction")
SHUFFLES = 99  # of a grid's cells
CONSTANT = 1e-12  # of a grid's squares: less than that is rounding


@dataclass(frozen=True, kw_only=True)
class Additivity:
    """The shares of a grid's variance, which sum to 1, and the grid without its interaction."""

    a: float
    b: float
    interaction: float
    additive: Float[Tensor, "a b d"]


def additivity(grid: Float[Tensor, "a b d"]) -> Additivity:
    """How much of a quantity over the operand grid is f(a) + g(b), and how much is a table.

    Two-way analysis of variance on vectors, exact on a full grid: the total sum of squares about
    the mean splits into operand a, operand b and their interaction.

    Args:
        grid: any activation or logits, one vector for each pair of operands.
    Raises:
        TbttError: if the grid is constant, since shares of nothing mean nothing.
    Source: Scheffé, The Analysis of Variance (1959), chapter 4.

    >>> a, b = torch.meshgrid(torch.arange(10.0), torch.arange(10.0), indexing="ij")
    >>> additivity((a + b)[..., None]).interaction
    0.0
    """
    grid = grid.double()
    mean = grid.mean((0, 1))
    effect_a = grid.mean(1, keepdim=True) - mean
    effect_b = grid.mean(0, keepdim=True) - mean
    additive = mean + effect_a + effect_b
    total = (grid - mean).square().sum()
    if total <= CONSTANT * grid.square().sum():
        raise TbttError(
            "the grid is constant, so there is no variance to split: "
            "take a site and position that the operands reach"
        )
    parts = (effect_a.expand_as(grid), effect_b.expand_as(grid), grid - additive)
    a, b, interaction = (float(part.square().sum() / total) for part in parts)
    return Additivity(a=a, b=b, interaction=interaction, additive=additive)


def shuffled_additivity(grid: Float[Tensor, "a b d"], seed: int) -> Float[np.ndarray, "effect"]:
    """The shares of a, b and interaction if the grid's cells are permuted, on average."""
    generator = np.random.default_rng((seed, 0xADD))
    cells = grid.flatten(0, 1)
    drawn = (
        additivity(cells[generator.permutation(len(cells))].view_as(grid)) for _ in range(SHUFFLES)
    )
    return np.mean([(found.a, found.b, found.interaction) for found in drawn], 0)


def model_shares(
    grid: Grid,
    model: "HookedTransformer",
    sites: Sequence[str],
    positions: Sequence[int],
    *,
    shuffled: bool,
    seed: int,
) -> pd.DataFrame:
    """One model's shares: a row an operator, site, position and effect."""
    asked = grid.questions.beginnings()
    values = read_sites(model, asked, sites)
    rows = []
    for site, (pos, place) in product(sites, zip(positions, grid.places(positions), strict=True)):
        here = values[site][torch.arange(len(asked.end)), asked.end + 1 + pos]
        for operator, cells in grid.cells(here).items():
            shares = nulls = np.full(len(EFFECTS), np.nan)
            with suppress(TbttError):  # of what is the same for all equations there are none
                found = additivity(cells)
                shares = np.array([found.a, found.b, found.interaction])
                nulls = shuffled_additivity(cells, seed) if shuffled else nulls
            rows += [
                {"operator": operator, "site": site, "pos": pos, "place": place, "effect": effect,
                 "share": share, "shuffled": null}
                for effect, share, null in zip(EFFECTS, shares, nulls, strict=True)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def additivity_table(
    subject: Subject,
    *,
    sites: Sequence[str] | None = None,
    positions: Sequence[int] = (-1,),
    seed: int = 0,
) -> pd.DataFrame:
    """What share of the variance over the operand grid is of a, of b and of their interaction.

    Every equation of the grid is read, held out or not, and nothing is fitted. The interaction of a
    table without any rule is what shuffling the cells leaves, (A − 1)(B − 1) / (AB − 1) on average.

    Args:
        sites: by hook name, with a dot and a number behind for one head, or `logits`; None is
            `sites_of`.
        positions: counted back from the prompt's last character, which is -1.
        seed: of the shuffled grids.
    Returns:
        a row an operator, site, position, seed and effect (a, b, interaction): `share`, and the
        same share `untrained` and `shuffled`, the mean over shuffled grids. nan where what is held
        is the same for all equations, and where there is no model before training.
    Raises:
        TbttError: if there is no grid of operands, or no such site or position.
    """
    grid, chosen = Grid.of(subject), checked_sites(subject, sites)
    tables = []
    for k, s in enumerate(subject.seeds):
        table = model_shares(grid, subject.models[k], chosen, positions, shuffled=True, seed=seed)
        before = np.nan
        if subject.untrained:
            early = model_shares(
                grid, subject.untrained[k], chosen, positions, shuffled=False, seed=seed
            )
            before = early["share"]
        tables.append(table.assign(untrained=before, seed=s))
    return pd.concat(tables, ignore_index=True)


def share_findings(table: pd.DataFrame) -> list[Finding]:
    """Of each site and operator the interaction, beside the nearer of its two nulls."""
    found = []
    rows = table[(table["effect"] == EFFECTS[-1]) & table["share"].notna()]
    for (site, place, operator), some in rows.groupby(["site", "place", "operator"], sort=False):
        effect = mean_over_models(some["share"].tolist())
        nulls = {"a shuffled grid": some["shuffled"].mean(),
                 "the untrained model": some["untrained"].mean()}  # fmt: skip
        nulls = {name: value for name, value in nulls.items() if not np.isnan(value)}
        near = min(nulls, key=lambda name: abs(nulls[name] - effect.mean))
        found.append(
            Finding(
                what=f"in {site} at {place}, the interaction of a and b makes",
                effect=effect,
                null=nulls[near],
                null_is=near,
                of=f"the variance over the grid of {operator}",
            )
        )
    return found


def analyse_additivity(
    subject: Subject | Run,
    *,
    sites: Sequence[str] | None = None,
    positions: Sequence[int] = (-1,),
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Result:
    """Both tables, drawn and said; their arguments."""
    subject = Subject.of(subject)
    shares = additivity_table(subject, sites=sites, positions=positions, seed=seed)
    answers = answered_table(subject, sites=sites, parts=parts, tell=tell, seed=seed)
    missing = int((answers["of"] - answers["estimable"]).groupby(answers["site"]).sum().max())
    return Result(
        name="additivity",
        tables={"additivity": shares, "additivity-answers": answers},
        shown=_shown(shares, answers),
        figures={
            "additivity": partial(figures.additivity_shares, shares),
            "additivity-answers": partial(figures.additivity_answers, answers),
        },
        findings=[*share_findings(shares), *answer_findings(answers)],
        notes=[
            "Shares of the variance over all equations of an operator: of a, of b, and of their "
            "interaction, with that of untrained models and of shuffled grids beside it. Then the "
            "equations answered, of all, with f(a) + g(b) in that site's place; by the models "
            "themselves in the last rows.",
            "f(a) + g(b) is fitted on seen equations, each of which has a part in its own fit; "
            f"it is not estimable, and so not an answer, for {missing:,} equations of all models.",
            "It is put wherever a character is asked. After the first, streams hold the character "
            "before it, too, which no sum of a and b tells: less is answered for that alone.",
        ],
    )


def _shown(shares: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """A row a site, position and operator."""
    rows = []
    for (site, place, operator), some in shares.groupby(["site", "place", "operator"], sort=False):
        row = {"site": site, "at": place, "operator": operator}
        for effect, each in some.groupby("effect", sort=False):
            row[str(effect)] = f"{each['share'].mean():.2f}"
        mine = some[some["effect"] == EFFECTS[-1]]
        row[EFFECTS[-1]] = mean_over_models(mine["share"].tolist()).format()
        row |= {null: f"{mine[null].mean():.2f}" for null in ("untrained", "shuffled")}
        counted = answers[(answers["site"] == site) & (answers["operator"] == operator)]
        for split, each in counted.groupby("split", sort=False):
            sums = each[["answered", "of"]].sum()
            row[str(split)] = f"{sums['answered']:.0f}/{sums['of']:.0f}"
        rows.append(row)
    last = answers[answers["site"] == answers["site"].iloc[-1]]
    for operator, some in last.groupby("operator", sort=False):
        row = {"site": "model", "at": "", "operator": operator}
        for split, each in some.groupby("split", sort=False):
            row[str(split)] = f"{each['model'].sum()}/{each['of'].sum()}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")

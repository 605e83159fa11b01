"""A rule or a table: how much of each activation is f(a) + g(b), and is that enough to answer?

Source: Scheffé, The Analysis of Variance (1959), chapter 4.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp.activations import as_list
from tbtt_interp.analyses.operand_grid import (
    LOGITS,
    answer_groups,
    cells,
    grid_sites,
    operand_grids,
    read_sites,
)
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import Location, answer_logits, check_location, put_at_answers
from tbtt_interp.plots import points, short_site
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds, over_untrained
from tbtt_interp.shares import summarize_shares
from tbtt_interp.stats import SHARE, Interval, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

EFFECTS = ("a", "b", "interaction")
N_SHUFFLES, N_FITS = 99, 5  # shuffled grids, for shares and for fits
CONSTANT = 1e-12  # of a grid's squares: less than that is rounding
ESTIMABLE = 1e-6  # in double precision
SHARES = ["site", "position", "operator", "effect"]


class Additivity(NamedTuple):
    """The shares of a grid's variance, which sum to 1, and the grid without its interaction."""

    a: float
    b: float
    interaction: float
    additive: Float[Tensor, "a b d"]


def additivity(grid: Float[Tensor, "a b d"]) -> Additivity:
    """How much of a quantity over the operand grid is f(a) + g(b), and how much is a table.

    Two-way analysis of variance on vectors, exact on a full grid: the total sum of squares about
    the mean splits into operand a, operand b and their interaction.

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


def shuffled_additivity(
    grid: Float[Tensor, "a b d"], n: int = N_SHUFFLES
) -> Float[np.ndarray, "shuffle effect"]:
    """The shares of a, b and interaction over grids whose cells are permuted."""
    random = np.random.default_rng((0, 0xADD))
    flat = grid.flatten(0, 1)
    drawn = [additivity(flat[random.permutation(len(flat))].view_as(grid))[:3] for _ in range(n)]
    return np.array(drawn)


def variance_shares(
    model: "HookedTransformer",
    prompts: PromptSet,
    sites: Sequence[str] | None = None,
    positions: Sequence[int] = (-1,),
    n_shuffles: int = N_SHUFFLES,
) -> pd.DataFrame:
    """Shares of the variance over the operand grid of a, of b and of their interaction.

    Every equation of the grid is read, held out or not, and nothing is fitted. Without any rule the
    interaction is what shuffled cells have, (A − 1)(B − 1) / (AB − 1) on average.

    Args:
        sites: by hook name, with a dot and a number behind for one head, or `logits`; None is z,
            streams and MLPs of each layer, and logits.
        positions: counted back from the prompt's last token, which is -1.
        n_shuffles: shuffled grids; 0 leaves their share nan.
    Returns:
        one row per operator, site, position and effect (a, b, interaction): `share`, the same share
        `shuffled`, the mean over shuffled grids, and `p`, the share of these as far from their
        mean. nan where the grid is constant.
    Raises:
        TbttError: if there is no grid of operands, or no such site or position.
    """
    equations, sizes = operand_grids(prompts)
    sites, batch = grid_sites(model, sites), equations.batch().first_tokens()
    for pos in positions:
        check_location(model, Location("hook_embed", pos=pos), batch)
    values = read_sites(model, batch, sites)
    tables = []
    for site, pos in product(sites, positions):
        at = values[site][torch.arange(len(batch)), batch.last_prompt_pos + 1 + pos]
        name = equations.position_names(pos, pos)[pos]
        for operator, grid in cells(at, sizes).items():
            shares, nulls, p = np.full((3, len(EFFECTS)), np.nan)
            with suppress(TbttError):  # a constant grid has no shares
                shares = np.array(additivity(grid)[:3])
                if n_shuffles:
                    drawn = shuffled_additivity(grid, n_shuffles)
                    nulls = drawn.mean(0)
                    beyond = np.abs(drawn - nulls) >= np.abs(shares - nulls)
                    p = (1 + beyond.sum(0)) / (1 + n_shuffles)
            tables.append(pd.DataFrame({
                "operator": operator, "site": site, "pos": pos, "position": name,
                "effect": EFFECTS, "share": shares, "shuffled": nulls, "p": p,
            }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def additive_fit(
    design: Float[Tensor, "cell level"],
    values: Float[Tensor, "cell d"],
    seen: Bool[Tensor, " cell"],
) -> tuple[Float[Tensor, "cell d"], Bool[Tensor, " cell"]]:
    """f(a) + g(b) by least squares on the seen cells, and which cells are estimable from these.

    A cell is not estimable where no seen cell has one of its operands, or where the two are not
    connected by seen cells; its fitted value, of least norm, is arbitrary then.

    Source: Scheffé 1959, chapter 1, for what is estimable.
    """
    inverse = torch.linalg.pinv(design[seen])
    missed = (design - design @ inverse @ design[seen]).abs().amax(1)
    return design @ (inverse @ values[seen]), missed < ESTIMABLE


def main_effect_answers(
    model: "HookedTransformer", prompts: PromptSet, sites: Sequence[str] | None = None
) -> pd.DataFrame:
    """How many equations are answered with f(a) + g(b) in place of a site's activation.

    For each operator and place in the answer, f(a) + g(b) is fitted by least squares on the
    equations that the model was trained on. It is put in wherever an answer token is predicted,
    with the right tokens before it fed in; all else stays. An equation counts as answered if every
    token is right and every f(a) + g(b) is estimable. The null permutes the seen equations' values
    before the fit.

    Args:
        sites: as for `variance_shares`.
    Returns:
        one row per site, operator and split: `answered`, `shuffled` (the mean over permutations),
        `model` (by the model itself), `n_prompts`, and of these `estimable`.
    """
    equations = operand_grids(prompts)[0]
    sites, batch = grid_sites(model, sites), equations.batch()
    seen, groups = torch.from_numpy(equations.seen), answer_groups(equations, batch)
    labels = pd.DataFrame([e.labels for e in equations.examples])
    codes = [torch.from_numpy(labels[x].factorize()[0])[batch.answer_example] for x in "ab"]
    design = torch.cat([F.one_hot(code) for code in codes], 1).double()
    values = read_sites(model, batch, sites)

    def fitted(old: Tensor, random: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        new, estimable = torch.zeros_like(old), torch.ones(len(batch), dtype=torch.bool)
        for answers in groups:
            known, cell_values = seen[batch.answer_example[answers]], old[answers]
            if random is not None:
                order = torch.from_numpy(random.permutation(int(known.sum())))
                cell_values[known] = cell_values[known][order]
            new[answers], is_estimable = additive_fit(design[answers], cell_values, known)
            estimable[batch.answer_example[answers][~is_estimable]] = False
        return new, estimable

    def is_right(site: str, new: Tensor) -> Tensor:
        if site != LOGITS:
            new = answer_logits(model, batch, [put_at_answers(site, new, batch)])
        return batch.margins(new[None])[0] > 0

    by_model = is_right(LOGITS, batch.at_answers(values[LOGITS]))
    draws = [np.random.default_rng((0, draw, 0xF17)) for draw in range(N_FITS)]
    rows = []
    for site in sites:
        old = batch.at_answers(values[site]).double()
        fits = [fitted(old, random) for random in (None, *draws)]
        estimable = fits[0][1]
        right = torch.stack([is_right(site, new) for new, _ in fits]) & estimable
        counted = pd.DataFrame({
            "answered": right[0], "shuffled": right[1:].double().mean(0), "estimable": estimable,
            "model": by_model, "n_prompts": 1, "operator": labels["operator"],
            "split": np.where(seen, "seen", "held out"),
        })  # fmt: skip
        sums = counted.groupby(["operator", "split"], sort=False).sum().reset_index()
        rows.append(sums.assign(site=site))
    return pd.concat(rows, ignore_index=True)


def share_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over models of `variance_shares` with `untrained`, without constant grids.

    Models of one task share its table of answers, and so its own distance from a shuffled one. `p`
    is therefore over shuffles: twice the mean over models, which is valid however they depend.
    Source: Vovk and Wang 2020, Combining p-values via averaging, Biometrika 107.
    """
    columns = ["share", "shuffled", "untrained", "p"]
    summary = summarize(table.dropna(subset="share"), SHARES, columns, bounds=SHARE)
    return summary.assign(p=(2 * summary["p"]).clip(upper=1))


def answer_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over models of the shares of equations answered, by site and split."""
    columns = ["answered", "shuffled", "model"]
    sums = table.groupby(["site", "split", "seed"], sort=False)[[*columns, "n_prompts"]].sum()
    shares = sums[columns].div(sums["n_prompts"], axis=0).join(sums["n_prompts"]).reset_index()
    return summarize_shares(shares, ["site", "split"], columns, of="n_prompts")


def additivity_claims(shares: pd.DataFrame, answers: pd.DataFrame) -> list[Claim]:
    """Each site's interaction, and the equations that its f(a) + g(b) answers; from summaries."""
    return [
        *interaction_claims(shares),
        *(Claim.of_row(
            row, "answered", {"shuffled": "f(a) + g(b) of a shuffled grid"},
            text=f"f(a) + g(b) in place of {row['site']} answers",
            unit=f"of the {row['split']} equations, the model itself {row['model']:.2f}",
        ) for row in answers.to_dict("records")),
    ]  # fmt: skip


def interaction_claims(shares: pd.DataFrame) -> list[Claim]:
    """For each site and operator, that its interaction differs from the closest null's."""
    return [
        Claim.of_row(
            row, "share", {"shuffled": "shuffled grid", "untrained": "untrained"},
            text=f"In {row['site']} at {row['position']}, the interaction of a and b explains",
            unit=f"of the variance over the grid of {row['operator']}", direction="different",
            p=row["p"],
        )
        for row in shares[shares["effect"] == "interaction"].to_dict("records")
    ]  # fmt: skip


def plot_variance_shares(shares: pd.DataFrame) -> "Figure":
    """Shares of the variance over the operand grid at each site, with both nulls."""
    title = "a " + shares["operator"] + " b, at " + shares["position"]
    return points(
        shares.assign(site=shares["site"].map(short_site), panel=title), name="site", by="effect",
        value="share", panel="panel", across=2, title="share of variance", horizontal=False,
        nulls={"shuffled": "shuffled grid", "untrained": "untrained models"},
    )  # fmt: skip


def plot_main_effect_answers(answers: pd.DataFrame) -> "Figure":
    """The share of equations answered with f(a) + g(b) in place of each site's activation."""
    return points(
        answers.assign(site=answers["site"].map(short_site)), name="site", value="answered",
        panel="split", across=2, horizontal=False, title="share of equations answered",
        label="f(a) + g(b) in place of the site, 95 % CI",
        nulls={"shuffled": "f(a) + g(b) of a shuffled grid", "model": "the models themselves"},
    )  # fmt: skip


def _display(shares: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """One row per site, position and operator; in the last rows the models themselves."""
    index = ["site", "position", "operator"]
    cell = [Interval.of_row(row, "share").format() for row in shares.to_dict("records")]
    wide = shares.assign(cell=cell).pivot_table(
        index=index, columns="effect", values="cell", aggfunc="first", sort=False)  # fmt: skip
    of_both = shares[shares["effect"] == "interaction"].set_index(index)
    wide = wide.join(of_both[["untrained", "shuffled"]].map("{:.2f}".format)).reset_index()
    of_models = answers[answers["site"] == answers["site"].iloc[-1]]
    answers = pd.concat([answers, of_models.assign(site="model", answered=of_models["model"])])
    counts = answers.groupby(["site", "operator", "split"], sort=False)[["answered", "n_prompts"]]
    sums = counts.sum().astype(int).astype(str)
    ratio = sums["answered"] + "/" + sums["n_prompts"]
    counted = ratio.unstack("split", sort=False).reset_index()
    rows = [wide.merge(counted, "left", ["site", "operator"]), counted[counted["site"] == "model"]]
    return pd.concat(rows).fillna("")


def analyse_additivity(
    run: Run | Models, *, sites: Sequence[str] | None = None,
    positions: int | Sequence[int] = (-1,),
) -> Result:  # fmt: skip
    """The variance of each activation that is f(a) + g(b), and the accuracy of f(a) + g(b)."""
    models = Models.of(run)
    sites = sites if sites is None else as_list(sites)
    options = {"sites": sites, "positions": as_list(positions)}
    table = over_seeds(models, variance_shares, **options)
    null = over_untrained(models, variance_shares, **options, n_shuffles=0)
    table["untrained"] = np.nan if null is None else null["share"]
    answers = over_seeds(models, main_effect_answers, sites=sites)
    shares, answer_shares = share_summary(table), answer_summary(answers)
    missing = (answers["n_prompts"] - answers["estimable"]).groupby(answers["site"]).sum().max()
    return Result(
        name="additivity",
        tables={"additivity": table, "additivity-answers": answers},
        display=_display(shares, answers),
        claims=additivity_claims(shares, answer_shares),
        figures={"additivity": partial(plot_variance_shares, shares),
                 "additivity-answers": partial(plot_main_effect_answers, answer_shares)},
        notes=[
            "Shares of the variance over all equations of an operator: of a, of b, and of their "
            "interaction, with the interaction in untrained models and in shuffled grids. Then the "
            "equations answered with f(a) + g(b) in place of the site's activation; the last rows "
            "are the models themselves.",
            "f(a) + g(b) is fitted on seen equations, and each is part of its own fit. It is not "
            f"estimable, and so no answer, for {missing:,} equations of all models.",
            "It is put in wherever an answer token is predicted. After the first token, streams "
            "also hold the token before, which no f(a) + g(b) has: that alone costs answers.",
        ],
    )  # fmt: skip

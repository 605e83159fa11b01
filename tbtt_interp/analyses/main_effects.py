"""What main effects alone would answer: f(a) + g(b) in the place of what a model holds."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp.activations import split_head
from tbtt_interp.analyses.findings import Finding, Tell, silent
from tbtt_interp.analyses.operand_grids import LOGITS, Grid, checked_sites, read_sites
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.old_interventions import logits_of
from tbtt_interp.stats import mean_over_models

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

FITS = 5  # of shuffled cells
ESTIMABLE = 1e-6  # in double precision


def additive_fit(
    design: Float[Tensor, "cell level"],
    values: Float[Tensor, "cell d"],
    seen: Bool[Tensor, " cell"],
) -> tuple[Float[Tensor, "cell d"], Bool[Tensor, " cell"]]:
    """f(a) + g(b) by least squares on the seen cells, and which cells those say something of.

    A cell is not estimable where no seen cell has one of its operands, or where the two are not
    connected by seen cells; its fitted value, of least norm, is arbitrary then.

    Args:
        design: the operands of each cell in one-hot, beside each other.
    Source: Scheffé 1959, chapter 1, for what is estimable.
    """
    inverse = torch.linalg.pinv(design[seen])
    fitted = design @ (inverse @ values[seen])
    missed = (design - design @ inverse @ design[seen]).abs().amax(1)
    return fitted, missed < ESTIMABLE


def main_effects(
    grid: Grid,
    values: Float[Tensor, "character d"],
    seen: Bool[Tensor, " equation"],
    generator: np.random.Generator | None = None,
) -> tuple[Float[Tensor, "character d"], Bool[Tensor, " equation"]]:
    """What is asked of each character, but for the interaction; fitted on seen equations alone.

    Args:
        generator: permutes the seen equations' values before the fit, which is the null.
    Returns:
        what is fitted, and of which equations every character is estimable.
    """
    fitted = torch.zeros_like(values, dtype=torch.double)
    estimable = torch.ones(len(seen), dtype=torch.bool)
    for characters, design in grid.groups:
        of = grid.questions.example[characters]
        mine = values[characters].double()
        known = seen[of]
        if generator is not None:
            order = torch.from_numpy(generator.permutation(int(known.sum())))
            mine[known] = mine[known][order]
        fitted[characters], found = additive_fit(design, mine, known)
        estimable[of[~found]] = False
    return fitted, estimable


def answer_without(
    grid: Grid, model: "HookedTransformer", site: str, values: Float[Tensor, "character d"]
) -> Float[Tensor, " equation"]:
    """Margins with these values in place of what is at a site wherever a character is asked."""
    questions = grid.questions
    if site == LOGITS:
        return questions.margins(values[None])[0]
    hook_name, head = split_head(site)

    def put(there: Tensor, hook: object) -> Tensor:
        changed = there.clone()
        part = changed if head is None else changed[:, :, head]
        old = part[questions.row, questions.pos]
        part[questions.row, questions.pos] = values.to(old).view_as(old)
        return changed

    return questions.margins(logits_of(model, questions, [(hook_name, put)])[None])[0]


def answer_grid(
    grid: Grid, model: "HookedTransformer", held_out: np.ndarray, sites: Sequence[str], seed: int
) -> Arrays:
    """Which equations one model answers by main effects, `[site, equation]`, and by itself.

    Returns:
        answered, shuffled (a share of draws), estimable; model, `[equation]`.
    """
    questions, seen = grid.questions, torch.from_numpy(~held_out)
    values = read_sites(model, questions, sites)
    whole = questions.margins(values[LOGITS][questions.row, questions.pos][None])[0] > 0
    draws = [np.random.default_rng((seed, draw, 0xF17)) for draw in range(FITS)]
    found: dict[str, list[np.ndarray]] = {"answered": [], "shuffled": [], "estimable": []}
    for site in sites:
        old = values[site][questions.row, questions.pos]
        fits = [main_effects(grid, old, seen, generator) for generator in (None, *draws)]
        right = torch.stack([answer_without(grid, model, site, fitted) > 0 for fitted, _ in fits])
        right &= (estimable := fits[0][1])
        found["answered"].append(right[0].numpy())
        found["shuffled"].append(right[1:].double().mean(0).numpy())
        found["estimable"].append(estimable.numpy())
    return {name: np.stack(rows) for name, rows in found.items()} | {"model": whole.numpy()}


def answered_table(
    subject: Subject,
    *,
    sites: Sequence[str] | None = None,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """How many equations are answered if each site has its main effects alone.

    At each site f(a) + g(b) is fitted for each operator and place in the answer, by least squares
    on the equations that this model has seen, and put in place of what is there wherever a
    character is asked, the right answer's beginning fed in. All else is left as it is. An equation
    counts as answered if every character is right, and as not if some character's f(a) + g(b) is
    not estimable from seen equations. The null is the same with the seen equations' values
    permuted among them before the fit.

    Args:
        sites: as for `additivity_table`.
        parts: where finished models are kept.
        seed: of the permutations.
    Returns:
        a row a site, operator, split (seen, held-out) and seed: `answered`, `shuffled` (its mean
        over permutations), `model` (by the model itself), `of`, and of these `estimable`.
    Raises:
        TbttError: if there is no grid of operands, or no such site.
    """
    grid, chosen, parts = Grid.of(subject), checked_sites(subject, sites), parts or Parts()
    operators = np.array(grid.operators())
    rows = []
    for k, s in enumerate(subject.seeds):
        held_out = subject.held_out[k, grid.examples]
        compute = partial(answer_grid, grid, subject.models[k], held_out, chosen, seed)
        found = parts.get(f"seed-{s}", compute)
        tell(k + 1, len(subject.seeds))
        for operator in grid.sizes:
            for split, inside in (("seen", ~held_out), ("held-out", held_out)):
                mine = inside & (operators == operator)
                if not mine.any():
                    continue
                where = {"operator": operator, "split": split, "seed": s}
                for i, site in enumerate(chosen):
                    counts = {name: found[name][i, mine].sum()
                              for name in ("answered", "shuffled", "estimable")}  # fmt: skip
                    counts |= {"model": found["model"][mine].sum(), "of": int(mine.sum())}
                    rows.append({"site": site, **where, **counts})
    return pd.DataFrame(rows)


def answer_findings(table: pd.DataFrame) -> list[Finding]:
    """Of each site how many seen and held-out equations its main effects answer."""
    found = []
    for (site, split), some in table.groupby(["site", "split"], sort=False):
        by_model = some.groupby("seed")[["answered", "shuffled", "model", "of"]].sum()
        shares = by_model.div(by_model["of"], axis=0)
        found.append(
            Finding(
                what=f"f(a) + g(b) in place of {site} answers",
                effect=mean_over_models(shares["answered"].tolist()),
                null=float(shares["shuffled"].mean()),
                null_is="a shuffled grid's main effects",
                of=f"the {split} equations ({shares['model'].mean():.2f} by the model itself)",
            )
        )
    return found

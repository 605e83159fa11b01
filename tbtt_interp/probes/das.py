"""Distributed alignment search: the directions of an activation that carry a causal variable.

A rotation is learned so that the answer follows a causal model when a few rotated coordinates are
interchanged: 3+4 with the first operand of 8+1 is 8+4. It is learned on some equations, and scored
on pairs of others. Pairs are those whose counterfactual answer is no other variable's, nor the
base's: at a place where there is only the sum, the directions of an operand score nothing.

Source: Geiger et al. 2024, Finding Alignments Between Interpretable Causal Variables and
Distributed Neural Representations.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.parametrizations import orthogonal

from tbtt_interp.activations import as_list, cached
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import Location, check_location, index_of, logits_with_new
from tbtt_interp.plots import points, short_site
from tbtt_interp.probes.counterfactuals import DAS, PERMUTED, Alignment, alignments
from tbtt_interp.probes.grid import as_text
from tbtt_interp.probes.labels import operand_grid
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.seeds import Models, over_seeds, over_untrained
from tbtt_interp.shares import summarize_shares

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

    from tbtt_interp.seeds import ModelsLike
    from tbtt_interp.tasks import Prompts

STEPS, RATE = 60, 0.05  # of Adam
PAIRS, TESTED = 64, 200  # pairs in a step, and pairs that are scored
ROTATIONS = 9  # random rotations
AT_ONCE = 4_096  # prompts in a forward pass
RANDOM, WHOLE = "random_rotation", "whole"
NULLS = {
    PERMUTED: "permuted labels",
    RANDOM: f"best of {ROTATIONS} random rotations",
    "untrained": "untrained models",
}
BY = ["variable", "site", "pos", "position"]
DISPLAY = {"variable": "", "site": "", "position": "", "rank": ".0f", "width": ".0f",
           "accuracy": "interval", **dict.fromkeys([*NULLS, WHOLE], ".2f")}  # fmt: skip
NOTE = (
    "accuracy: interchange interventions on test pairs after which the first answer token is the "
    "causal model's, mean over models with 95 % CI. The rotation of `rank` of the site's `width` "
    "directions is learned on other equations. permuted labels: learned and scored with the "
    f"variable permuted over examples. random rotation: of equal rank, the best of {ROTATIONS}. "
    "whole: all directions."
)


class Rotations(torch.nn.Module):
    """A learned rotation per alignment, of which the first directions are interchanged.

    Args:
        start: made orthonormal column by column. It is square, since torch would fill up others at
            random.
    """

    def __init__(self, ranks: Sequence[int], start: Float[np.ndarray, "alignment d d"]):
        super().__init__()
        self.rotation = torch.nn.Parameter(torch.from_numpy(np.linalg.qr(start)[0]).float())
        self.used = torch.arange(max(ranks)) < torch.tensor(ranks)[:, None, None]
        orthogonal(self, "rotation", orthogonal_map="cayley")

    @property
    def directions(self) -> Float[Tensor, "alignment d rank"]:
        """The first columns of each rotation; those beyond an alignment's rank are 0."""
        return self.rotation[..., : self.used.shape[-1]] * self.used

    def forward(
        self, base: Float[Tensor, "alignment pair d"], source: Float[Tensor, "alignment pair d"]
    ) -> Float[Tensor, "alignment pair d"]:
        """The bases' activations, with the sources' coordinates in the directions."""
        directions = self.directions
        return base + (source - base) @ directions @ directions.mT


def class_directions(
    x: Float[np.ndarray, "example d"], one: Alignment
) -> Float[np.ndarray, "d direction"]:
    """Principal directions of the means of training examples with the same value of a variable."""
    known = [
        x[one.learned & (one.values == value)] for value in np.unique(one.values[one.values >= 0])
    ]
    means = np.stack([rows.mean(0) for rows in known if len(rows)])
    directions, sizes, _ = np.linalg.svd((means - means.mean(0)).T, full_matrices=False)
    return directions[:, sizes > 1e-6 * max(sizes.max(), 1e-6)]


def learn(
    model: "HookedTransformer", batch: PromptBatch, location: Location,
    x: Float[Tensor, "example d"], chosen: Sequence[Alignment], generator: np.random.Generator, *,
    steps: int = STEPS,
) -> Rotations:  # fmt: skip
    """Rotations with which interchanges give the counterfactual answers of the training pairs."""
    ranks = [one.rank for one in chosen]
    start = generator.standard_normal((len(chosen), x.shape[1], x.shape[1]))
    for directions, one in zip(start, chosen, strict=True):
        found = class_directions(x.double().numpy(), one)[:, : one.rank]
        directions[:, : found.shape[1]] = found
    rotations = Rotations(ranks, start)
    optimizer = torch.optim.Adam(rotations.parameters(), lr=RATE)
    with torch.enable_grad():
        for _ in range(steps):
            drawn = [one.train[generator.integers(len(one.train), size=PAIRS)] for one in chosen]
            base, source = torch.from_numpy(np.stack(drawn)).unbind(-1)
            target = torch.from_numpy(np.stack([
                one.target[pairs[:, 0], pairs[:, 1]]
                for one, pairs in zip(chosen, drawn, strict=True)
            ]))  # fmt: skip
            new = rotations(x[base], x[source]).flatten(0, 1)
            logits = logits_with_new(model, batch, location, base.flatten(), new)
            optimizer.zero_grad()
            F.cross_entropy(logits, target.flatten()).backward()
            optimizer.step()
    return rotations


def alignment_scores(
    model: "HookedTransformer", prompts: PromptSet, *, sites: Sequence[str],
    positions: Sequence[int], variables: Any = None, rank: int | None = None,
    has_null: bool = True, steps: int = STEPS, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """One model's interchange accuracy at each site and position, of DAS and of its nulls.

    Where interchanging the whole activation changes no logit, there is no row.

    Returns:
        one row per variable, site, position, kind and draw: `accuracy`, of `n_pairs` test pairs,
        `rank` and `width`.
    """
    frozen, batch = copy.deepcopy(model).requires_grad_(False), prompts.batch().first_tokens()
    generator, rows = prompts.random(seed, 0x0D5), []
    names = prompts.position_names(min(positions), -1)
    for site in sites:
        for pos in positions:
            location = Location.of(site, pos)
            check_location(model, location, batch)
            values = cached(frozen, batch.tokens, [location.hook])[1][location.hook]
            x = values[index_of(location, batch, values)]
            chosen = alignments(prompts, x.shape[1], variables=variables, rank=rank,
                                has_null=has_null, seed=seed)  # fmt: skip
            score = partial(_scores, frozen, batch, location, x)
            if not chosen or not (whole := score(chosen, None)):
                continue
            rotations = learn(frozen, batch, location, x, chosen, generator, steps=steps)
            found = [(WHOLE, 0, whole), (DAS, 0, score(chosen, rotations))]
            for draw in range(ROTATIONS if has_null else 0):
                ranks = [one.rank for one in chosen]
                drawn = generator.standard_normal((len(ranks), x.shape[1], x.shape[1]))
                random = Rotations(ranks, drawn)
                found.append((RANDOM, draw, score(chosen, random)))
            for kind, draw, accuracies in found:
                for one, accuracy in zip(chosen, accuracies, strict=True):
                    if DAS in (kind, one.kind):  # random and whole need no second
                        name = PERMUTED if one.kind == PERMUTED else kind
                        rows.append((one.variable, site, pos, names[pos], name, draw, accuracy,
                                     min(TESTED, len(one.test)), one.rank, x.shape[1]))  # fmt: skip
    return pd.DataFrame(rows, columns=[*BY, "kind", "draw", "accuracy", "n_pairs", "rank", "width"])


@torch.no_grad()
def _scores(
    model: "HookedTransformer", batch: PromptBatch, location: Location,
    x: Float[Tensor, "example d"], chosen: Sequence[Alignment], rotations: Rotations | None,
) -> list[float]:  # fmt: skip
    """The accuracy of each alignment on its test pairs; empty where no logit changes.

    Args:
        rotations: None interchanges the whole activation.
    """
    n = max(min(TESTED, len(one.test)) for one in chosen)
    pairs = np.stack([np.resize(one.test, (n, 2)) for one in chosen])
    base, source = torch.from_numpy(pairs).unbind(-1)
    new = x[source] if rotations is None else rotations(x[base], x[source])
    rows, changes = base.flatten(), new.flatten(0, 1)
    run = partial(logits_with_new, model, batch, location)
    parts = zip(rows.split(AT_ONCE), changes.split(AT_ONCE), strict=True)
    logits = torch.cat([run(at, values) for at, values in parts])
    if rotations is None:
        kept = torch.cat([run(at, x[at]) for at in rows.split(AT_ONCE)])
        if torch.equal(kept, logits):
            return []
    said, found = logits.argmax(-1).view(base.shape).numpy(), []
    for one, tokens, repeated in zip(chosen, said, pairs, strict=True):
        own = repeated[: len(one.test)]
        found.append(float((tokens[: len(own)] == one.target[own[:, 0], own[:, 1]]).mean()))
    return found


def places_of(prompts: PromptSet, model: "HookedTransformer") -> dict[str, list[Any]]:
    """The residual streams, at the operands' positions and the last."""
    streams = ["blocks.0.hook_resid_pre"]
    for layer in range(model.cfg.n_layers):
        streams += [f"blocks.{layer}.hook_resid_{part}" for part in ("mid", "post")]
    shortest = min(len(prompt) for prompt, _ in prompts.tokens)
    names, operands = prompts.position_names(-shortest, -1), operand_grid(prompts.examples)[1]
    at = [pos for pos, name in names.items() if name in operands]
    varied = [pos for pos in names if len({prompt[pos] for prompt, _ in prompts.tokens}) > 1]
    return {"sites": [site for site in streams if site in model.hook_dict],
            "positions": [*(at or varied), -1]}  # fmt: skip


def distributed_alignment_search(
    models: "ModelsLike", variables: Any = None, *, sites: Any = None, positions: Any = None,
    rank: int | None = None, steps: int = STEPS, step: int | None = None, seed: int = 0,
    prompts: "Prompts | None" = None, encoder: Any = None,
) -> pd.DataFrame:  # fmt: skip
    """How often answers follow a causal variable when its directions are interchanged (DAS).

    Args:
        models, step, prompts, encoder: as in `Models.of`.
        variables: some of `counterfactuals`: the operands by their labels, answer, carry; None is
            all.
        sites, positions: hook names, and positions counted from the prompt's last token, -1; None
            is the residual streams, at the operands' positions and the last.
        rank: directions that are interchanged; None is one less than the variable's values, and at
            most half of the width.
        steps: of learning a rotation.
    Returns:
        One row per variable, site and position where an interchange reaches the answer: `accuracy`
        on test pairs with its interval over models, the nulls `permuted_labels`, `random_rotation`
        and `untrained`, and `whole`, of the whole activation.
    """
    if rank is not None and rank < 1:
        raise TbttError(f"rank must be at least 1, got {rank}")
    chosen = Models.of(models, step, prompts=prompts, encoder=encoder)
    places = places_of(chosen.shared_prompts, chosen.first)
    places = {
        "sites": places["sites"] if sites is None else as_list(sites),
        "positions": places["positions"] if positions is None else as_list(positions),
    }
    options = {**places, "variables": variables, "rank": rank, "steps": steps, "seed": seed}
    table = over_seeds(chosen, alignment_scores, **options)
    if table.empty:
        raise TbttError("no interchange there changes an answer: choose other sites or positions")
    null = over_untrained(chosen, alignment_scores, **options, has_null=False)
    own = table[table["kind"] == DAS]
    summary = summarize_shares(own, BY, ["accuracy"], of="n_pairs")
    sizes = own.groupby(BY, sort=False)[["rank", "width"]].first()
    best = table.groupby(["seed", *BY, "kind"], as_index=False)["accuracy"].max()  # of all draws
    means = best.pivot_table("accuracy", BY, "kind")[[PERMUTED, RANDOM, WHOLE]]
    means["untrained"] = np.nan if null is None else (
        null[null["kind"] == DAS].groupby(BY)["accuracy"].mean()
    )  # fmt: skip
    return summary.join(sizes, on=BY).join(means, on=BY)


def das_claims(table: pd.DataFrame) -> list[Claim]:
    """For each row, that DAS moves more answers than the highest of its nulls."""
    return [
        Claim.of_row(
            row, "accuracy", NULLS, "highest", unit="of test pairs",
            text=f"With {row['rank']} directions of {row['variable']} interchanged at "
            f"{row['site']}, position {row['position']}, the answer is the causal model's in",
            blind_to="a variable that is encoded nonlinearly",
        )
        for row in table.to_dict("records")
    ]  # fmt: skip


def analyse_das(models: "ModelsLike", variables: Any = None, **options: Any) -> Result:
    """`distributed_alignment_search` with its claims, its display and its figure."""
    table = distributed_alignment_search(models, variables, **options)
    return Result(
        name="das", tables={"das": table}, display=as_text(table, DISPLAY), notes=[NOTE],
        claims=das_claims(table), figures={"das": partial(plot_das, table)},
    )  # fmt: skip


def plot_das(table: pd.DataFrame) -> "Figure":
    """Interchange accuracy of each variable at each place, compared with its nulls."""
    return points(
        table.assign(name=table["site"].map(short_site) + " " + table["position"]), name="name",
        value="accuracy", panel="variable", nulls=NULLS | {WHOLE: "whole activation"},
        title="share of test pairs",
    )  # fmt: skip

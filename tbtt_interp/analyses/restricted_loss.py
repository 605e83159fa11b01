"""Restricted and excluded loss: the loss with a rule's directions alone, and without them.

The rule's directions are those in which an activation differs with the operands, by their main
effects. For a rule such as a + b they are one or two directions; for a table of both operands they
are not. Restricted loss puts the rest of the activation at its mean; excluded loss puts these
directions at their mean.

Source: Nanda et al. 2023, Progress measures for grokking via mechanistic interpretability,
arXiv 2301.05217, section 5.1, where the directions are Fourier components of the logits.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.activations import cached, unknown_site
from tbtt_interp.analyses.operand_grid import answer_groups, operand_grids
from tbtt_interp.analyses.patching import STREAMS
from tbtt_interp.interventions import changed, logits_with_edits
from tbtt_interp.plots import models_by_group
from tbtt_interp.probes.erasure import Subspace, random_subspace
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import Example

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

RANK = 2  # of a small's 14 dimensions; more would be most of the model
DRAWS = 19
SMALLEST_COST = 0.1  # nats per character that erasing has to cost, for a fraction of it to count
CHANGES = ("restricted", "excluded")
Fit = Callable[[Float[Tensor, "row d"], Sequence[Example]], Subspace]


def operand_directions(
    x: Float[Tensor, "row d"], examples: Sequence[Example], rank: int = RANK
) -> Subspace:
    """The directions in which activations of one operator differ most with a and with b alone.

    They are the first principal directions of each operand's class means, weighted by counts.
    """
    x = x.double()
    mean = x.mean(0)
    effects = []
    for label in ("a", "b"):
        values = np.array([e.labels[label] for e in examples])
        for value in np.unique(values):
            rows = torch.from_numpy(values == value)
            effects.append((x[rows].mean(0) - mean) * rows.sum().sqrt())
    directions = torch.linalg.svd(torch.stack(effects), full_matrices=False).Vh[:rank]
    return Subspace(mean=mean, write=directions.mT, read=directions)


def _variants(
    x: Float[Tensor, "answer d"],
    groups: Sequence[Int[Tensor, " _"]],
    seen: Bool[Tensor, " answer"],
    examples: Sequence[Example],
    fit: Fit,
    draws: int,
    seed: int,
) -> tuple[Float[Tensor, "variant answer d"], int]:
    """The activations unchanged, erased, then restricted to and excluding each subspace; its rank.

    Each group has its own mean and subspaces, the rule's and random ones, fitted on seen equations.
    """
    variants = torch.stack([x.double()] * (2 + 2 * (1 + draws)))
    restricted, excluded = variants[2:].chunk(2)
    rank = 0
    for number, group in enumerate(groups):
        fitted_on = group[seen[group]]
        if not len(fitted_on):
            continue
        rule = fit(x[fitted_on], [examples[k] for k in fitted_on.tolist()])
        rank = len(rule.read)
        generator = np.random.default_rng((seed, number))
        random = [random_subspace(x[fitted_on], rank, generator) for _ in range(draws)]
        variants[1, group] = rule.mean
        for k, space in enumerate([rule, *random]):
            inside = space.coordinates(x[group].double()) @ space.write.mT
            restricted[k, group] = space.mean + inside
            excluded[k, group] = x[group].double() - inside
    return variants, rank


def restricted_loss(
    model: "HookedTransformer",
    prompts: PromptSet,
    *,
    site: str | None = None,
    fit: Fit = operand_directions,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """The loss with a rule's subspace alone and without it, and with random subspaces of its rank.

    Activations are changed at all positions that predict an answer token at once. Each operator and
    answer position has its own mean and subspace, so both remain decodable after the change.

    Args:
        site: the hook name of a residual stream; None is the last layer's `hook_resid_mid`.
        fit: from seen activations and their examples to a subspace.
    Returns:
        one row per change (restricted, excluded) and split, in nats per character: `loss`;
        `unpatched`; `erased`, all of the activation at its mean; `random`, the mean over draws;
        `p`, the share of draws as extreme. Of the loss that erasing adds, `fraction` is what
        restricting saves or excluding costs, nan where erasing adds next to nothing, and
        `random_fraction` the same for random subspaces. `rank`, `width`, `n_answers`.
    Raises:
        TbttError: if there is no grid of operands, or no such site.
    """
    equations, layers = operand_grids(prompts)[0], range(model.cfg.n_layers)
    site = f"blocks.{layers[-1]}.hook_resid_mid" if site is None else site
    known = [f"blocks.{layer}.{stream}" for layer in layers for stream in STREAMS]
    if site not in known:
        raise unknown_site(site, known)
    batch = equations.batch()
    examples = [equations.examples[k] for k in batch.answer_example.tolist()]
    seen = torch.from_numpy(equations.seen)[batch.answer_example]
    x = batch.at_answers(cached(model, batch.tokens, [site])[1][site]).cpu()
    groups = answer_groups(equations, batch)
    variants, rank = _variants(x, groups, seen, examples, fit, draws, seed)
    index, target = (batch.answer_row, batch.answer_pos), batch.answer_token[:, None]
    edits = [partial(changed, index=index, new=new) for new in variants]
    nats = torch.stack([
        -logits.double().cpu().log_softmax(-1).gather(1, target).squeeze(1)
        for logits in logits_with_edits(model, batch, site, edits)
    ])  # fmt: skip
    rows = []
    for split, mask in (("seen", seen), ("held out", ~seen)):
        if not mask.any():
            continue
        unpatched, erased, *rest = nats[:, mask].mean(1).tolist()
        added = erased - unpatched if erased - unpatched > SMALLEST_COST else np.nan
        for change, (loss, *random) in zip(CHANGES, np.split(np.array(rest), 2), strict=True):
            sign, start = (-1, erased) if change == "restricted" else (1, unpatched)
            extreme = int((sign * (np.array(random) - loss) >= 0).sum())
            mean = float(np.mean(random)) if random else np.nan
            rows.append({
                "change": change, "split": split, "loss": loss, "unpatched": unpatched,
                "erased": erased, "random": mean, "p": (1 + extreme) / (1 + draws),
                "fraction": sign * (loss - start) / added,
                "random_fraction": sign * (mean - start) / added,
                "rank": rank, "width": x.shape[1], "n_answers": int(mask.sum()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def restricted_loss_claims(table: pd.DataFrame) -> list[Claim]:
    """Claims on seen answers: loss saved by the rule's directions alone, and lost without them."""
    seen = table[(table["split"] == "seen") & table["fraction"].notna()]
    rank = 0 if seen.empty else seen["rank"].iloc[0]
    text = {
        "restricted": f"The operands' {rank} main directions alone save, for seen answers,",
        "excluded": f"Leaving out the operands' {rank} main directions costs seen answers",
    }
    return [
        Claim(
            text=text[str(change)], effect=mean_over_models(rows["fraction"]),
            unit="of the loss that erasing the activation adds",
            null=float(rows["random_fraction"].mean()), null_name="random directions",
        )
        for change, rows in seen.groupby("change", sort=False)
    ]  # fmt: skip


def plot_restricted_loss(table: pd.DataFrame) -> "Figure":
    """The loss with a rule's directions alone and without them, and with random directions."""
    rank, width = table[["rank", "width"]].iloc[0]
    columns = {
        "loss": f"the operands' {rank} of {width} directions",
        "random": f"{rank} random directions", "unpatched": "unpatched", "erased": "all erased",
    }  # fmt: skip
    long = table.melt(["seed", "split", "change"], list(columns), "kind", "loss_in_nats")
    long = long.assign(kind=long["kind"].map(columns), split=long["split"] + " answers")
    return models_by_group(
        long, x="change", by="kind", value="loss_in_nats", panel="split",
        titles=("directions kept (restricted) or left out (excluded)", "loss, nats per character"),
    )  # fmt: skip

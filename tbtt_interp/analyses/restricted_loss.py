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
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import cached, unknown_site
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import changed, logits_with_edits
from tbtt_interp.plots import models_by_group
from tbtt_interp.probes.erasure import Subspace, random_subspace
from tbtt_interp.prompts import PromptBatch, PromptSet
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
OPERANDS = {"operator", "a", "b"}  # the labels of an equation
STREAMS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
Fit = Callable[[Float[Tensor, "row d"], Sequence[Example]], Subspace]


def operand_directions(
    x: Float[Tensor, "row d"], examples: Sequence[Example], rank: int = RANK
) -> Subspace:
    """The directions in which activations differ most with a alone and with b alone.

    They are the first principal directions of each operand's class means, weighted by counts.

    Args:
        x: one row per example, all of one operator.
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


def equations_of(prompts: PromptSet) -> list[int]:
    """The numbers of the examples that are equations.

    Raises:
        TbttError: if there are none.
    """
    equations = [k for k, e in enumerate(prompts.examples) if e.labels.keys() >= OPERANDS]
    if not equations:
        raise TbttError(
            "there is no rule here whose directions could be kept or left out: restricted and "
            "excluded loss need examples with the labels a, operator and b"
        )
    return equations


def _variants(
    x: Float[Tensor, "answer d"],
    groups: Sequence[Int[np.ndarray, " _"]],
    seen: np.ndarray,
    examples: Sequence[Example],
    fit: Fit,
    draws: int,
    seed: int,
) -> tuple[Float[Tensor, "variant answer d"], int]:
    """The activations unchanged, erased, then restricted to and excluding each subspace.

    Args:
        groups: answer tokens that differ in their operands alone; each group has its own mean and
            subspaces, fitted on its seen equations.
        examples: the example of each answer token.
    Returns:
        unchanged, erased, restricted by the rule's subspace and by each random one, excluded by
        each; and the rank of the rule's subspace.
    """
    variants = torch.stack([x.double()] * (2 + 2 * (1 + draws)))
    restricted, excluded = variants[2:].chunk(2)
    rank = 0
    for number, group in enumerate(groups):
        fitted_on = group[seen[group]]
        x_seen, x_all = x[torch.from_numpy(fitted_on)], x[torch.from_numpy(group)].double()
        rule = fit(x_seen, [examples[k] for k in fitted_on])
        rank = len(rule.read)
        generator = np.random.default_rng((seed, number))
        spaces = [rule, *(random_subspace(x_seen, rank, generator) for _ in range(draws))]
        variants[1, group] = rule.mean
        for k, space in enumerate(spaces):
            inside = space.coordinates(x_all) @ space.write.mT
            restricted[k, group] = space.mean + inside
            excluded[k, group] = x_all - inside
    return variants, rank


def _nats(
    model: "HookedTransformer",
    batch: PromptBatch,
    site: str,
    variants: Float[Tensor, "variant answer d"],
) -> Float[np.ndarray, "variant answer"]:
    """The loss of each right answer token with these activations at its position."""
    index = (batch.answer_row, batch.answer_pos)
    edits = [partial(changed, index=index, new=new) for new in variants]
    target = batch.answer_token[:, None]
    return np.stack([
        -logits.double().cpu().log_softmax(-1).gather(1, target).squeeze(1).numpy()
        for logits in logits_with_edits(model, batch, site, edits)
    ])  # fmt: skip


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

    Activations are changed at every position that predicts an answer token, all at once. Each
    operator and place in the answer has its own mean and subspace, so that these two stay known.

    Args:
        site: the hook name of a residual stream; None is the last layer's `hook_resid_mid`.
        fit: from seen activations and their examples to a subspace.
        draws: random subspaces.
    Returns:
        one row per change (restricted, excluded) and split, in nats per character: `loss`;
        `unpatched`; `erased`, all of the activation at its mean; `random`, the mean over draws;
        `p`, the share of draws as extreme. Of the loss that erasing adds, `fraction` is what
        restricting saves or excluding costs, nan where erasing adds next to nothing, and
        `random_fraction` the same for random subspaces. `rank`, `width`, `n_answers`.
    Raises:
        TbttError: if there are no equations, or no such site.
    """
    equations, layers = equations_of(prompts), range(model.cfg.n_layers)
    site = f"blocks.{layers[-1]}.hook_resid_mid" if site is None else site
    known = [f"blocks.{layer}.{stream}" for layer in layers for stream in STREAMS]
    if site not in known:
        raise unknown_site(site, known)
    batch = prompts.batch(equations)
    examples = [prompts.examples[equations[k]] for k in batch.answer_example.tolist()]
    seen = prompts.seen[equations][batch.answer_example.numpy()]
    x = batch.at_answers(cached(model, batch.tokens, [site])[1][site]).cpu()
    keys = [
        (example.labels["operator"], place)
        for example, place in zip(examples, batch.place_in_answer.tolist(), strict=True)
    ]
    groups = [
        np.array([k for k, of in enumerate(keys) if of == key]) for key in dict.fromkeys(keys)
    ]
    groups = [group for group in groups if seen[group].any()]
    variants, rank = _variants(x, groups, seen, examples, fit, draws, seed)
    nats = _nats(model, batch, site, variants)
    rows = []
    for split, mask in (("seen", seen), ("held out", ~seen)):
        if not mask.any():
            continue
        unpatched, erased, *rest = nats[:, mask].mean(1)
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
    """For seen answers, what the rule's directions alone save, and what leaving them out costs.

    Args:
        table: `restricted_loss` over seeds.
    """
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
    """The loss with a rule's directions alone and without them, and with random directions.

    Args:
        table: `restricted_loss` over seeds.
    """
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

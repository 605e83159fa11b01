"""Restricted and excluded loss: what a model says with a rule's directions alone, and without them.

The rule's directions are those in which an activation differs with the operands, by their main
effects: of a rule such as a + b they are a line or two, of a table looked up by both operands they
are not. Restricted, all outside them is as it is on average; excluded, all inside them.

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

from tbtt_interp.activations import unknown_site
from tbtt_interp.analyses.findings import Finding, Tell, silent
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.patching import STREAMS
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import TOKENS_AT_ONCE, Questions
from tbtt_interp.probes.causal import Subspace, random_subspace
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import Example

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

RANK = 2  # of 14 dimensions in a small; more would take the model with it
DRAWS = 19
LEAST = 0.1  # nats a character that erasing has to cost, for shares of it to mean anything
CHANGES = ("restricted", "excluded")
SPLITS = ("seen", "held out")
OPERANDS = {"operator", "a", "b"}  # the labels of an equation
Fit = Callable[[Float[Tensor, "row d"], Sequence[Example]], Subspace]


def main_effects(
    x: Float[Tensor, "row d"], examples: Sequence[Example], rank: int = RANK
) -> Subspace:
    """The directions in which activations differ most with a alone and with b alone.

    Of the class means of each operand, weighted by their counts, the first principal directions.

    Args:
        x: a row an example, all of one operator.
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


def has_equations(subject: Subject) -> bool:
    """Whether any example is an equation."""
    return any(e.labels.keys() >= OPERANDS for e in subject.examples)


def equations_of(subject: Subject) -> list[int]:
    """The examples that are equations.

    Raises:
        TbttError: if there are none.
    """
    found = [k for k, e in enumerate(subject.examples) if e.labels.keys() >= OPERANDS]
    if not found:
        raise TbttError(
            "there is no rule here whose directions could be kept or left out: restricted and "
            "excluded loss need examples with the labels a, operator and b"
        )
    return found


def default_site(subject: Subject) -> str:
    """Where attention has brought the operands together for the last time."""
    return f"blocks.{subject.layers - 1}.hook_resid_mid"


def nats_with(
    model: "HookedTransformer",
    questions: Questions,
    site: str,
    values: Float[Tensor, "change character d"],
    before: Float[Tensor, "row pos d"],
) -> Float[np.ndarray, "change character"]:
    """What each right character costs when these activations stand where it is asked.

    Args:
        before: the stream that the site's layer reads, from which alone on anything can change.
    """
    found = []
    rows = len(questions.tokens)
    layer = int(site.split(".")[1])
    each = max(1, TOKENS_AT_ONCE // questions.tokens.numel())
    for some in values.split(each):

        def place(old: Tensor, hook: object, some: Tensor = some) -> Tensor:
            copies = old.unflatten(0, (len(some), rows)).clone()
            copies[:, questions.row, questions.pos] = some.to(old.dtype).to(old.device)
            return copies.flatten(0, 1)

        with torch.no_grad():
            logits = model.run_with_hooks(
                before.repeat(len(some), 1, 1), start_at_layer=layer, fwd_hooks=[(site, place)]
            )
        logits = logits.unflatten(0, (len(some), rows))[:, questions.row, questions.pos]
        logs = logits.double().cpu().log_softmax(-1)
        target = questions.target.expand(len(some), -1)[..., None]
        found.append(-logs.gather(-1, target).squeeze(-1))
    return torch.cat(found).numpy()


def place_in_answer(questions: Questions) -> Int[np.ndarray, " character"]:
    """Which character of its answer each asked one is, from 0."""
    return (torch.arange(len(questions.example)) - questions.first[questions.example]).numpy()


def changed_activations(
    x: Float[Tensor, "character d"],
    groups: Sequence[Int[np.ndarray, " _"]],
    seen: np.ndarray,
    examples: Sequence[Example],
    fit: Fit,
    draws: int,
    seed: int,
) -> tuple[Float[Tensor, "change character d"], int]:
    """As they are, all at their means, and restricted to and excluding each subspace.

    Args:
        groups: characters that are alike but for the operands; each has its own mean and subspace,
            from what was seen of it.
        examples: of each character.
    Returns:
        unchanged, erased, then restricted by the rule's subspace and by each random one, then
        excluded by each; and the rule's rank.
    """
    changed = torch.stack([x.double()] * (2 + 2 * (1 + draws)))
    restricted, excluded = changed[2:].chunk(2)
    rank = 0
    for number, group in enumerate(groups):
        known = group[seen[group]]
        rule = fit(x[torch.from_numpy(known)], [examples[k] for k in known])
        rank = len(rule.read)
        chance = np.random.default_rng((seed, number))
        others = [random_subspace(x[torch.from_numpy(known)], rank, chance) for _ in range(draws)]
        here = x[torch.from_numpy(group)].double()
        changed[1, group] = rule.mean
        for k, space in enumerate((rule, *others)):
            inside = space.coordinates(here) @ space.write.mT
            restricted[k, group] = space.mean + inside
            excluded[k, group] = here - inside
    return changed, rank


def restricted_loss_table(
    subject: Subject,
    *,
    site: str | None = None,
    fit: Fit = main_effects,
    draws: int = DRAWS,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """Losses with a rule's subspace alone and without it, beside random subspaces of its rank.

    Activations are changed wherever a character of an answer is asked, all at once. Means and
    subspaces are of seen equations, and of each operator and place in the answer by itself, so that
    these two stay known.

    Args:
        site: by hook name, of whole streams; None is `default_site`.
        fit: from seen activations and their examples to a subspace; `main_effects`, or one found
            otherwise, as `probes.causal.code_subspace` finds a code's.
        draws: of random subspaces.
    Returns:
        a row a model, change (restricted, excluded) and split (seen, held out), in nats a
        character: `loss`; `unpatched`; `erased`, all of the activation at its mean; `random`, the
        mean over draws; `p`, the share of draws as extreme; `share`, of the loss between unpatched
        and erased what restricting saves, or excluding costs, nan where that is next to nothing;
        `random_share`; `rank`, `width` and `characters`.
    Raises:
        TbttError: if there are no equations, or no such site.
    """
    chosen = equations_of(subject)
    site = default_site(subject) if site is None else site
    known = [f"blocks.{layer}.{part}" for layer in range(subject.layers) for part in STREAMS]
    if site not in known:
        raise unknown_site(site, known)
    equations = [subject.examples[k] for k in chosen]
    questions = Questions.of(equations, subject.vocabulary, subject.n_ctx)
    number = questions.example.numpy()
    keys = list(zip((equations[k].labels["operator"] for k in number),
                    place_in_answer(questions), strict=True))  # fmt: skip
    groups = [
        np.array([k for k, mine in enumerate(keys) if mine == key]) for key in dict.fromkeys(keys)
    ]

    def compute(k: int) -> Arrays:
        model, seen = subject.models[k], ~subject.held_out[k][chosen][number]
        before = f"blocks.{site.split('.')[1]}.hook_resid_pre"
        with torch.no_grad():
            cache = model.run_with_cache(questions.tokens, names_filter=[site, before])[1]
        x = cache[site][questions.row, questions.pos].cpu()
        there = [group for group in groups if seen[group].any()]
        values, rank = changed_activations(
            x, there, seen, [equations[e] for e in number], fit, draws, seed
        )
        nats = nats_with(model, questions, site, values, cache[before])
        tell(k + 1, len(subject.models))
        return {"nats": nats, "seen": seen, "rank": np.array([rank, x.shape[1]])}

    rows = []
    for k, s in enumerate(subject.seeds):
        found = (parts or Parts()).get(f"restricted-{s}", partial(compute, k))
        rank, width = found["rank"].tolist()
        for split, mask in zip(SPLITS, (found["seen"], ~found["seen"]), strict=True):
            if not mask.any():
                continue
            unpatched, erased, *rest = found["nats"][:, mask].mean(1)
            between = erased - unpatched if erased - unpatched > LEAST else np.nan
            for change, (loss, *random) in zip(CHANGES, np.split(np.array(rest), 2), strict=True):
                sign, start = (-1, erased) if change == "restricted" else (1, unpatched)
                extreme = int((sign * (np.array(random) - loss) >= 0).sum())
                mean = float(np.mean(random)) if random else np.nan
                rows.append({
                    "seed": s, "change": change, "split": split, "loss": loss,
                    "unpatched": unpatched, "erased": erased, "random": mean,
                    "p": (1 + extreme) / (1 + draws),
                    "share": sign * (loss - start) / between,
                    "random_share": sign * (mean - start) / between,
                    "rank": rank, "width": width, "characters": int(mask.sum()),
                })  # fmt: skip
    return pd.DataFrame(rows)


def restricted_loss_findings(table: pd.DataFrame) -> list[Finding]:
    """Of seen answers: what their directions alone save, and what leaving them out costs."""
    seen = table[(table["split"] == "seen") & table["share"].notna()]
    if seen.empty:
        return []
    rank = seen["rank"].iloc[0]
    words = {
        "restricted": f"{rank} directions of the operands alone save, of seen answers,",
        "excluded": f"leaving out {rank} directions of the operands costs seen answers",
    }
    return [
        Finding(
            what=words[str(change)],
            effect=mean_over_models(rows["share"].tolist()),
            null=float(rows["random_share"].mean()),
            null_is="random directions",
            of="the loss that erasing all of them brings",
        )
        for change, rows in seen.groupby("change", sort=False)
    ]

"""The equations of an operand grid, and what a model holds at a site for each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import split_head, unknown_site
from tbtt_interp.analyses.subject import Subject, place_names
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

LOGITS = "logits"  # less their mean over the vocabulary, which decides nothing
LAYER_SITES = (
    "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out",
    "hook_resid_post",
)  # fmt: skip
NO_VECTORS = ("hook_pattern", "hook_attn_scores")  # of a pair of positions, not of one


class Asked(NamedTuple):
    """The characters of one place in the answers to one operator's equations."""

    characters: Int[Tensor, " some"]
    design: Float[Tensor, "some level"]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The equations of a subject's grids, operator after operator, and their questions.

    Attributes:
        examples: by their numbers in the subject.
        sizes: by operator, how many values a and b have; its cells follow each other, b first.
        groups: what is fitted by itself, in which every character is once.
    """

    subject: Subject
    examples: Int[np.ndarray, " equation"]
    sizes: dict[str, tuple[int, int]]
    questions: Questions
    groups: tuple[Asked, ...]

    @classmethod
    def of(cls, subject: Subject) -> "Grid":
        """Of every operator that has all its equations; see `Subject.grid`."""
        known = {
            (str(e.labels.get("operator")), e.labels.get("a"), e.labels.get("b")): number
            for number, e in enumerate(subject.examples)
        }
        values = subject.grid()
        sizes = {operator: (len(a), len(b)) for operator, (a, b) in values.items()}
        examples = [known[o, x, y] for o, (a, b) in values.items() for x in a for y in b]
        questions = Questions.of_tokens([subject.tokens[k] for k in examples], subject.n_ctx)
        place = torch.arange(len(questions.row)) - questions.first[questions.example]
        groups, before = [], 0
        for a, b in sizes.values():
            one_hot = [torch.eye(a).repeat_interleave(b, 0), torch.eye(b).repeat(a, 1)]
            design = torch.cat(one_hot, 1).double()
            cell = questions.example - before
            before += len(design)
            mine = (cell >= 0) & (cell < len(design))
            for k in place[mine].unique():
                characters = (mine & (place == k)).nonzero().squeeze(1)
                groups.append(Asked(characters, design[cell[characters]]))
        return cls(
            subject=subject, examples=np.array(examples), sizes=sizes, questions=questions,
            groups=tuple(groups),
        )  # fmt: skip

    def cells(self, values: Float[Tensor, "equation d"]) -> dict[str, Float[Tensor, "a b d"]]:
        """By operator, values as a grid."""
        parts = values.split([a * b for a, b in self.sizes.values()])
        return {
            operator: part.unflatten(0, self.sizes[operator])
            for operator, part in zip(self.sizes, parts, strict=True)
        }

    def operators(self) -> list[str]:
        """Of each equation."""
        return [operator for operator, (a, b) in self.sizes.items() for _ in range(a * b)]

    def places(self, positions: Sequence[int]) -> list[str]:
        """What stands at each position; see `place_names`.

        Raises:
            TbttError: if a position is not in every prompt.
        """
        shortest = int(self.questions.beginnings().end.min()) + 1
        for pos in positions:
            if not -shortest <= pos <= -1:
                raise TbttError(
                    f"position {pos} is not in every prompt: count back from -1, its last "
                    f"character, to -{shortest}"
                )
        if not self.subject.has_characters:
            return [str(pos) for pos in positions]
        chosen = [self.subject.examples[k] for k in self.examples]
        return [place_names(chosen, pos, pos)[pos] for pos in positions]


def sites_of(subject: Subject) -> list[str]:
    """Every site that is read if none is named, in the order of a forward pass."""
    layers = range(subject.layers)
    return [*(f"blocks.{layer}.{site}" for layer in layers for site in LAYER_SITES), LOGITS]


def read_sites(
    model: "HookedTransformer", questions: Questions, sites: Sequence[str]
) -> dict[str, Float[Tensor, "row pos d"]]:
    """What a model holds at each site, a vector a position; of a head, if its number is given."""
    hooks = {split_head(site)[0] for site in sites} - {LOGITS}
    with torch.no_grad():
        logits, cache = model.run_with_cache(questions.tokens, names_filter=list(hooks))
    assert isinstance(logits, Tensor)
    found = {LOGITS: (logits - logits.mean(-1, keepdim=True)).cpu()}
    for site in set(sites) - {LOGITS}:
        hook, head = split_head(site)
        values = cache[hook] if head is None else cache[hook][:, :, head]
        found[site] = values.flatten(2).cpu()
    return found


def checked_sites(subject: Subject, sites: Sequence[str] | None) -> list[str]:
    """These sites, or all of `sites_of`.

    Raises:
        TbttError: if one is unknown, or holds no vector for each position.
    """
    if sites is None:
        return sites_of(subject)
    with torch.no_grad():
        cache = subject.models[0].run_with_cache(torch.zeros(1, 1, dtype=torch.long))[1]
    hooks = {name: value.ndim for name, value in cache.items() if not name.endswith(NO_VECTORS)}
    known = [LOGITS, *hooks]
    known += [f"{hook}.{k}" for hook, n in hooks.items() if n == 4 for k in range(subject.heads)]
    for site in sites:
        if site not in known:
            raise unknown_site(site, known)
    return list(sites)

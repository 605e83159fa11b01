"""What a model says when its activations are changed at one place."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.activations import split_head, unknown_site
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import TOKENS_AT_ONCE, Questions

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

Change = Callable[[Float[Tensor, "row d"]], Float[Tensor, "row d"]]


def logits_with(
    model: "HookedTransformer",
    questions: Questions,
    changes: Sequence[Change],
    *,
    site: str,
    pos: int = -1,
) -> Float[Tensor, "change character d_vocab"]:
    """A model's logits where characters are asked, each change made by itself.

    Args:
        changes: of the activations, a row each of `questions.tokens`, into others.
        site: by hook name; of one head, with a dot and its number behind.
        pos: counted back from the prompt's last character, which is -1.
    Raises:
        TbttError: if there is no such site, or a prompt has no such position.
    """
    at = questions.end + 1 + pos
    if int(at.min()) < 0 or pos >= 0:
        raise TbttError(
            f"position {pos} is not in every prompt: count back from -1, its last character, "
            f"to -{int(questions.end.min()) + 1}"
        )
    hook_name, head = split_head(site)
    if hook_name not in model.hook_dict:
        raise unknown_site(site, list(model.hook_dict))
    rows = torch.arange(len(at))
    where = (rows, at) if head is None else (rows, at, torch.tensor(head))
    found = []
    for first in range(0, len(changes), each := max(1, TOKENS_AT_ONCE // questions.tokens.numel())):
        some = changes[first : first + each]

        def change(values: Tensor, hook: object, some: Sequence[Change] = some) -> Tensor:
            copies = values.unflatten(0, (len(some), len(rows))).clone()
            old = copies[0][where].clone()  # nothing before this place has changed
            for copy, one in zip(copies, some, strict=True):
                copy[where] = one(old.cpu()).to(old.device)
            return copies.flatten(0, 1)

        with torch.no_grad():
            logits = model.run_with_hooks(
                questions.tokens.repeat(len(some), 1), fwd_hooks=[(hook_name, change)]
            )
        logits = logits.cpu().unflatten(0, (len(some), len(rows)))
        found.append(logits[:, questions.row, questions.pos])
    return torch.cat(found)


def activations_at(
    model: "HookedTransformer", questions: Questions, *, site: str, pos: int = -1
) -> Float[Tensor, "row d"]:
    """What is at that place, unchanged."""
    found: list[Tensor] = []

    def keep(values: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        found.append(values)
        return values

    logits_with(model, questions, [keep], site=site, pos=pos)
    return found[0]


def logits_of(
    model: "HookedTransformer", questions: Questions, hooks: Sequence[tuple[str, object]] = ()
) -> Float[Tensor, "character d_vocab"]:
    """Where characters are asked, in double precision.

    Args:
        hooks: what is changed; they are given all rows at once. Without any it goes in batches,
            which hooks that stand on the model already see.
    """
    tokens = questions.tokens
    each = max(1, TOKENS_AT_ONCE // tokens.shape[1])
    with torch.no_grad():
        if hooks:
            logits = model.run_with_hooks(tokens, fwd_hooks=list(hooks))  # pyright: ignore
        else:
            logits = torch.cat([model(part) for part in tokens.split(each)])
    return logits[questions.row, questions.pos].double().cpu()

"""One prompt put to one model, which may have edges cut and activations put in from elsewhere.

Tokens are counted in the text, from the prompt's first; where text is longer than the context its
left end is lost, and what stands there can be neither cut nor patched.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.explore.catalogue import Opened
from tbtt_interp.explore.state import Edge, Patch
from tbtt_interp.interventions import Hook, knock_out_attention, run_with, with_hooks
from tbtt_interp.prompts import VISIBLE
from tbtt_interp.tasks import Vocabulary

if TYPE_CHECKING:
    from transformer_lens import ActivationCache, HookedTransformer

LIMIT = 32  # characters after which an answer that has not ended is cut
Hooks = list[Hook]
HooksAt = Callable[[int, int], Hooks]  # from where a window starts and ends in the text


def cutting(edges: Sequence[Edge], start: int) -> Hooks:
    """Hooks that take edges of attention away in a window that starts here in the text.

    What is not in the window, or the model does not have, is passed over.
    """
    found: Hooks = []
    for layer, head in sorted({(edge.layer, edge.head) for edge in edges}):
        places = [(e.query - start, e.key - start) for e in edges if e[:2] == (layer, head)]

        def hook(pattern: Tensor, head: int = head, places: list = places) -> Tensor:
            size = pattern.shape[-1]
            gone = torch.zeros(size, size, dtype=torch.bool)
            for query, key in places:
                if 0 <= key <= query < size:
                    gone[query, key] = True
            if head >= pattern.shape[1]:
                return pattern
            pairs = gone.expand(len(pattern), -1, -1)
            return knock_out_attention(0, head, pairs)[1](pattern)

        found.append((f"blocks.{layer}.attn.hook_pattern", hook))
    return found


def only_there(hooks: Hooks, model: "HookedTransformer") -> Hooks:
    """Those hooks whose site a model has: another pane's model may be deeper."""
    return [(site, hook) for site, hook in hooks if site in model.hook_dict]


@contextmanager
def changed(opened: Opened, edges: Sequence[Edge], start: int = 0) -> Iterator["HookedTransformer"]:
    """The model without these edges, for one reader at a time."""
    with opened.alone:
        model = opened.model
        with with_hooks(model, only_there(cutting(edges, start), model)):
            yield model


@dataclass(frozen=True, kw_only=True)
class Said:
    """A prompt and what a model says after it, greedily.

    Attributes:
        tokens: of the prompt and what was said.
        asked: how many of them are the prompt's.
        logits: before each character that was said.
        ended: whether it came to a terminator.
    """

    tokens: tuple[int, ...]
    asked: int
    logits: Float[Tensor, "character d_vocab"]
    ended: bool

    @property
    def answer(self) -> tuple[int, ...]:
        """What was said."""
        return self.tokens[self.asked :]

    @property
    def probabilities(self) -> list[float]:
        """Of each character that was said."""
        chosen = torch.tensor(self.answer)[:, None]
        return self.logits.softmax(-1).gather(1, chosen).squeeze(1).tolist()

    @property
    def margin(self) -> float:
        """How clearly it was said: the smallest logit difference to the next best character."""
        first, second = self.logits.topk(2).values.unbind(-1)
        return float((first - second).min())

    def window(self, n_ctx: int) -> tuple[tuple[int, ...], int]:
        """The tokens that the answer's first character is read from, and where they start.

        With as much of the answer behind them as fits: what is read there is what it was said from.
        """
        start = max(0, self.asked - n_ctx)
        return self.tokens[:-1][start : start + n_ctx], start


def say(
    model: "HookedTransformer",
    prompt: Sequence[int],
    ends: frozenset[int],
    hooks_at: HooksAt = lambda start, end: [],
) -> Said:
    """A greedy answer.

    Args:
        prompt: its tokens.
        ends: the tokens that end an answer.
        hooks_at: for each window, what is changed in it.
    """
    if not prompt:
        raise TbttError("the prompt is empty: type one, such as 3+4=")
    tokens, logits = list(prompt), []
    while len(logits) < LIMIT:
        logits.append(_next(model, tokens, hooks_at))
        tokens.append(int(logits[-1].argmax()))
        if tokens[-1] in ends:
            break
    return Said(
        tokens=tuple(tokens), asked=len(prompt), logits=torch.stack(logits),
        ended=tokens[-1] in ends,
    )  # fmt: skip


def margin_of(
    model: "HookedTransformer",
    prompt: Sequence[int],
    answer: Sequence[int],
    hooks_at: HooksAt = lambda start, end: [],
) -> float:
    """The smallest logit difference of a right answer's characters to the best wrong ones."""
    found = []
    for place, right in enumerate(answer):
        logits = _next(model, [*prompt, *answer[:place]], hooks_at)
        wrong = logits.clone()
        wrong[right] = -torch.inf
        found.append(float(logits[right] - wrong.max()))
    return min(found)


def _next(
    model: "HookedTransformer", tokens: Sequence[int], hooks_at: HooksAt
) -> Float[Tensor, " d_vocab"]:
    start = max(0, len(tokens) - model.cfg.n_ctx)
    window = torch.tensor([tokens[start:]])
    hooks = only_there(hooks_at(start, len(tokens)), model)
    return run_with(model, window, hooks)[0, -1]


def read(
    model: "HookedTransformer", tokens: Sequence[int], sites: Sequence[str]
) -> "ActivationCache":
    """Activations of one window."""
    return model.run_with_cache(torch.tensor([list(tokens)]), names_filter=list(sites))[1]


def putting(
    model: "HookedTransformer",
    source: Sequence[int],
    patches: Sequence[Patch],
    edges: Sequence[Edge] = (),
) -> HooksAt:
    """Hooks that put activations of another text in: at each window, of that text's own window.

    Args:
        source: the other text's tokens; beyond its end nothing is put in.
        patches: at sites that the model has.
        edges: that are cut while it is read.
    """
    sites = [p.site for p in patches]

    def hooks_at(start: int, end: int) -> Hooks:
        padded = [*source, *[0] * (end - len(source))][start:end]
        with with_hooks(model, only_there(cutting(edges, start), model)):
            cache = read(model, padded, list(dict.fromkeys(sites)))
        places = [p for p in patches if start <= p.pos < min(end, len(source))]
        return [(p.site, _putting(p, p.pos - start, cache[p.site])) for p in places]

    return hooks_at if sites else lambda start, end: []


def _putting(patch: Patch, at: int, given: Tensor) -> Callable[[Tensor], Tensor]:
    def hook(values: Tensor) -> Tensor:
        values = values.clone()
        place = place_of(patch.site, patch.head, at)
        values[:, *place] = given[:, *place]
        return values

    return hook


def place_of(site: str, head: int | None, at: int) -> tuple[Any, ...]:
    """Where in one row of a site's values a position is: of a pattern, as the query."""
    if head is None:
        return (at,)
    return (head, at) if site.endswith("hook_pattern") else (at, head)


def shown_tokens(vocabulary: Vocabulary, tokens: Sequence[int]) -> list[str]:
    """Tokens as they are shown: blanks and newlines by signs."""
    return [VISIBLE.get(c, c) for c in vocabulary.decode(tokens)]

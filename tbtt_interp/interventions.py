"""Every change of a model's activations: patch, ablate, replace a pattern, knock out attention.

A hook is a TransformerLens hook name with a function that gets the activation and returns the one
to put in its place. The functions here make hooks; `answer_logits` and `logits_with_edits` run a
model with them. No other module puts hooks into a model.

    >>> from tbtt_interp.model import Shape, hooked_transformer, initial_parameters
    >>> from tbtt_interp.tasks import load_task
    >>> task = load_task("arithmetic")
    >>> shape = Shape(layers=1, heads=1, d_model=14, d_mlp=14, n_ctx=9, d_vocab=17)
    >>> model = hooked_transformer(initial_parameters(shape, seed=0), shape)
    >>> batch = PromptBatch.of(task.examples[:2], task.vocabulary, n_ctx=9)
    >>> mlp_at_equals = Location("blocks.0.hook_mlp_out", pos=-1)
    >>> ablated = answer_logits(model, batch, [edit(mlp_at_equals, torch.zeros_like, batch)])
    >>> ablated.shape  # two answers of two characters
    torch.Size([4, 17])
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.activations import split_head, unknown_site
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import TOKENS_AT_ONCE
from tbtt_interp.prompts import PromptBatch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

Change = Callable[[Tensor], Tensor]
Hook = tuple[str, Change]  # a hook point's name, and what is done to its activation


class Location(NamedTuple):
    """A place in a model: a hook point, one head of it, and a position of the prompt.

    Attributes:
        hook: the hook point's TransformerLens name.
        head: None for a hook point without heads, or for all heads.
        pos: counted from the prompt's last token, which is -1; None is every position. For an
            attention pattern it is the query's position.
    """

    hook: str
    head: int | None = None
    pos: int | None = None

    @classmethod
    def of(cls, site: str, pos: int | None = None) -> "Location":
        """The location of a site by name, where a number at its end is a head.

        >>> Location.of("blocks.0.attn.hook_z.1", pos=-1)
        Location(hook='blocks.0.attn.hook_z', head=1, pos=-1)
        """
        return cls(*split_head(site), pos)

    @property
    def site(self) -> str:
        """The hook's name, with the head behind it where there is one."""
        return self.hook if self.head is None else f"{self.hook}.{self.head}"


def run_with(
    model: "HookedTransformer", tokens: Tensor, hooks: Sequence[Hook] = (), **options: object
) -> Float[Tensor, "row pos d_vocab"]:
    """Logits of a forward pass with hooks, without gradients.

    Args:
        options: further arguments of TransformerLens' `run_with_hooks`, such as `start_at_layer`.
    """
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=_adapted(hooks), **options)  # pyright: ignore


def _adapted(hooks: Sequence[Hook]) -> list[tuple[str, Callable[..., Tensor]]]:
    """Hooks as TransformerLens calls them, with the hook point as a second argument."""
    return [(name, lambda values, hook, f=function: f(values)) for name, function in hooks]


@contextmanager
def hooked(model: "HookedTransformer", hooks: Sequence[Hook]) -> Iterator["HookedTransformer"]:
    """The model with hooks for as long as the block lasts; those it does not have are left out."""
    present = [(name, function) for name, function in hooks if name in model.hook_dict]
    with model.hooks(fwd_hooks=_adapted(present)):  # pyright: ignore
        yield model


def answer_logits(
    model: "HookedTransformer", batch: PromptBatch, hooks: Sequence[Hook] = ()
) -> Float[Tensor, "answer d_vocab"]:
    """Logits that predict the answers' tokens, in float64.

    Args:
        hooks: they get all rows at once. Without hooks the rows go in smaller batches.
    """
    if hooks:
        return batch.at_answers(run_with(model, batch.tokens, hooks)).double().cpu()
    rows = max(1, TOKENS_AT_ONCE // batch.tokens.shape[1])
    with torch.no_grad():
        logits = torch.cat([model(part) for part in batch.tokens.split(rows)])
    return batch.at_answers(logits).double().cpu()


def logits_with_edits(
    model: "HookedTransformer",
    batch: PromptBatch,
    hook: str,
    edits: Sequence[Change],
    **options: object,
) -> Iterator[Float[Tensor, "answer d_vocab"]]:
    """Logits that predict the answers' tokens with each of some edits made by itself.

    Edits share forward passes, as many at once as fit.

    Args:
        hook: the hook point's name.
        edits: each gets the activations of all rows and returns them changed.
        options: further arguments of `run_with_hooks`.
    """
    at_once = max(1, TOKENS_AT_ONCE // batch.tokens.numel())
    for first in range(0, len(edits), at_once):
        some = edits[first : first + at_once]

        def change(values: Tensor, some: Sequence[Change] = some) -> Tensor:
            copies = values.unflatten(0, (len(some), -1))
            pairs = zip(some, copies, strict=True)
            return torch.cat([edit(copy).to(values.device) for edit, copy in pairs])

        tokens = batch.tokens.repeat(len(some), 1)
        for logits in run_with(model, tokens, [(hook, change)], **options).chunk(len(some)):
            yield batch.at_answers(logits)


def index_of(
    location: Location, batch: PromptBatch, values: Float[Tensor, "row ..."]
) -> tuple[object, ...]:
    """The index of a location into activations `[row, pos, ...]` or patterns `[row, head, ...]`.

    Rows that do not reach the position are left out.
    """
    is_pattern = location.hook.endswith(("hook_pattern", "hook_attn_scores"))
    head = slice(None) if location.head is None else location.head
    if location.pos is None:
        if location.head is None:
            return (slice(None),)
        return (slice(None), head) if is_pattern else (slice(None), slice(None), head)
    at = batch.last_prompt_pos + 1 + location.pos
    rows = ((at >= 0) & (at < values.shape[2 if is_pattern else 1])).nonzero().squeeze(1)
    if is_pattern:
        return (rows, head, at[rows])
    return (rows, at[rows]) if location.head is None else (rows, at[rows], head)


def changed(values: Tensor, index: tuple[object, ...], new: Tensor) -> Tensor:
    """A copy of activations with others at an index."""
    values = values.clone()
    values[index] = new.to(values)  # pyright: ignore
    return values


def patch(location: Location, source: Float[Tensor, "row ..."], batch: PromptBatch) -> Hook:
    """A hook that puts the activation of another run in at a location.

    Args:
        source: the other run's activations at this hook, row for row.
    Source: activation patching, Zhang and Nanda 2024; interchange interventions, Geiger et al.
        2021.
    """

    def function(values: Tensor) -> Tensor:
        index = index_of(location, batch, values)
        return changed(values, index, source[index])  # pyright: ignore

    return location.hook, function


def edit(location: Location, change: Change, batch: PromptBatch) -> Hook:
    """A hook that changes the activation at a location; `change` gets it, a row per row."""

    def function(values: Tensor) -> Tensor:
        index = index_of(location, batch, values)
        return changed(values, index, change(values[index]))  # pyright: ignore

    return location.hook, function


def put_at_answers(site: str, new: Float[Tensor, "answer d"], batch: PromptBatch) -> Hook:
    """A hook that puts activations in at the positions that predict the answers' tokens."""
    hook, head = split_head(site)
    index = (batch.answer_row, batch.answer_pos, *(() if head is None else (head,)))

    def function(values: Tensor) -> Tensor:
        return changed(values, index, new.view_as(values[index]))

    return hook, function


def add(hook: str, delta: Tensor | Callable[[], Tensor], head: int | None = None) -> Hook:
    """A hook that adds to an activation, or to one head of it.

    Args:
        delta: a tensor, or a function that returns one when the hook runs.
    """

    def function(values: Tensor) -> Tensor:
        added = delta if isinstance(delta, Tensor) else delta()
        if head is None:
            return values + added
        values = values.clone()
        values[:, :, head] += added
        return values

    return hook, function


def record_into(store: dict[str, Tensor], hook: str, names: Mapping[str, int | None]) -> Hook:
    """A hook that keeps an activation as it is in this run, whole or head by head, by name."""

    def function(values: Tensor) -> Tensor:
        for name, head in names.items():
            store[name] = values if head is None else values[:, :, head]
        return values

    return hook, function


@contextmanager
def split_inputs(model: "HookedTransformer") -> Iterator[None]:
    """Separate hooks for each head's q, k and v input, the MLP's input and each head's output."""
    options = ("use_split_qkv_input", "use_hook_mlp_in", "use_attn_result")
    before = [getattr(model.cfg, name) for name in options]
    try:
        for name in options:
            getattr(model, f"set_{name}")(True)
        yield
    finally:
        for name, value in zip(options, before, strict=True):
            getattr(model, f"set_{name}")(value)


def gradients(
    model: "HookedTransformer",
    tokens: Tensor,
    names: Sequence[str],
    score: Callable[[Tensor], Tensor],
    hooks: Sequence[Hook] = (),
) -> dict[str, Tensor]:
    """The gradient of a score of the logits with respect to the activation at each hook point.

    Args:
        names: of the hook points.
        score: a function of the logits that returns one number.
        hooks: in force during the forward pass.
    """
    read: dict[str, Tensor] = {}

    def track(name: str, values: Tensor) -> Tensor:
        read[name] = values if values.requires_grad else values.requires_grad_()
        return read[name]

    tracking = [(name, partial(track, name)) for name in names]
    with torch.enable_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=_adapted([*hooks, *tracking]))  # pyright: ignore
        found = torch.autograd.grad(score(logits), [read[name] for name in names])
    return dict(zip(names, found, strict=True))


def replace_pattern(layer: int, head: int, pattern: Float[Tensor, "row query key"]) -> Hook:
    """A hook that puts another attention pattern in place of one head's."""

    def function(values: Tensor) -> Tensor:
        return changed(values, (slice(None), head), pattern)

    return f"blocks.{layer}.attn.hook_pattern", function


def knock_out_attention(
    layer: int, head: int, query_key_pairs: Bool[Tensor, "row query key"]
) -> Hook:
    """A hook that takes attention between some queries and keys away, for one head.

    The rest of a query's attention is scaled up to 1; where nothing is left it stays 0.

    Source: attention knockout, Geva et al. 2023, section 3.
    """

    def function(pattern: Tensor) -> Tensor:
        kept = pattern[:, head] * ~query_key_pairs
        scaled = kept / kept.sum(-1, keepdim=True).clamp(min=1e-9)
        return changed(pattern, (slice(None), head), scaled)

    return f"blocks.{layer}.attn.hook_pattern", function


def uniform_attention(size: int) -> Float[Tensor, "query key"]:
    """Attention that is the same on every key up to the query's own position.

    >>> uniform_attention(2)
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    visible = torch.ones(size, size).tril()
    return visible / visible.sum(-1, keepdim=True)


def random_pairs(
    query_key_pairs: Bool[Tensor, "row query key"], generator: np.random.Generator
) -> Bool[Tensor, "row query key"]:
    """For each query as many other visible keys, drawn at random, as it has in these pairs.

    Fewer where there are not so many others.
    """
    size = query_key_pairs.shape[-1]
    others = torch.ones(size, size, dtype=torch.bool).tril() & ~query_key_pairs
    order = torch.from_numpy(generator.random(query_key_pairs.shape))
    rank = order.masked_fill(~others, torch.inf).argsort(-1).argsort(-1)
    return (rank < query_key_pairs.sum(-1, keepdim=True)) & others


def mean_by_position(
    values: Float[Tensor, "row pos ..."], batch: PromptBatch
) -> Float[Tensor, "row pos ..."]:
    """For each row the mean over all rows at the same position from the prompt's end.

    Source: mean ablation, Wang et al. 2023, section 2.1.
    """
    end = batch.last_prompt_pos
    pos = torch.arange(values.shape[1])
    offset = pos - end[:, None] + int(end.max())  # [row, pos]
    there = (pos < batch.lengths[:, None]).to(values.dtype)
    flat = values * there.view(*there.shape, *[1] * (values.ndim - 2))
    size = int(offset.max()) + 1
    sums = torch.zeros(size, *values.shape[2:], dtype=values.dtype)
    sums.index_add_(0, offset.flatten(), flat.flatten(0, 1))
    counts = torch.zeros(size, dtype=values.dtype).index_add_(0, offset.flatten(), there.flatten())
    return (sums / counts.clamp(min=1).view(-1, *[1] * (values.ndim - 2)))[offset]


def source_rows(
    keys: Sequence[str], batch: PromptBatch, generator: np.random.Generator
) -> Int[Tensor, " row"]:
    """For each row that of another example, drawn at random, whose prompt ends at the same place.

    Args:
        keys: one per row; a source has the same.
    Returns:
        rows no shorter than the row they are for; -1 where there is none.
    Source: resample ablation, Chan et al. 2022.
    """
    example, length = batch.row_example.tolist(), batch.lengths.tolist()
    known: dict[object, list[int]] = {}
    pairs = list(zip(batch.last_prompt_pos.tolist(), keys, strict=True))
    for row, key in enumerate(pairs):
        known.setdefault(key, []).append(row)
    others = (
        [r for r in known[key] if example[r] != k and length[r] >= length[row]]
        for row, (key, k) in enumerate(zip(pairs, example, strict=True))
    )
    return torch.tensor([int(generator.choice(rows or [-1])) for rows in others])


def check_location(model: "HookedTransformer", location: Location, batch: PromptBatch) -> None:
    """Raises a TbttError if a model has no such hook, or a prompt no such position."""
    if location.hook not in model.hook_dict:
        raise unknown_site(location.hook, list(model.hook_dict))
    if location.pos is None:
        return
    shortest = int(batch.last_prompt_pos.min()) + 1
    if not -shortest <= location.pos < 0:
        raise TbttError(
            f"position {location.pos} is not in every prompt: count back from -1, its last "
            f"character, to -{shortest}"
        )

"""Every change of a model's activations: patch, ablate, replace a pattern, knock out attention.

A hook is a TransformerLens hook name and a function from the activation to its replacement. No
other module puts hooks into a model.

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

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.activations import site_names, split_head, unknown_site
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import TOKENS_AT_ONCE
from tbtt_interp.lens import check_hooks
from tbtt_interp.prompts import PromptBatch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

Change = Callable[[Tensor], Tensor]
Hook = tuple[str, Change]  # a hook point's name, and what is done to its activation
# sites whose edited copies only add to the stream, so that a pass can branch there
BRANCHING = (
    r"(blocks\.\d+\.)(attn\.hook_(?:pattern|z)|mlp\.hook_post|hook_\w+_(?:out|pre|mid|post))"
)


class Location(NamedTuple):
    """A hook point, one head of it, and a position; None is all heads, and every position.

    Positions count from the prompt's last token, which is -1; a pattern has its query's.
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

    def read(self, activations: Any) -> Float[Tensor, "row pos ..."]:
        """This head's activations at every position, from activations by hook name."""
        values = activations[self.hook]
        return values if self.head is None else values[:, :, self.head]


def _adapted(
    model: "HookedTransformer", hooks: Sequence[Hook]
) -> list[tuple[str, Callable[..., Tensor]]]:
    """Hooks as TransformerLens calls them, with the hook point as a second argument."""
    if hooks:
        check_hooks(model)
    return [(name, lambda values, hook, f=function: f(values)) for name, function in hooks]


def run_with(
    model: "HookedTransformer", tokens: Int[Tensor, "row pos"], hooks: Sequence[Hook] = ()
) -> Float[Tensor, "edited_row edited_pos d_vocab"]:
    """Logits of a forward pass without gradients; hooks may copy rows and choose positions."""
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=_adapted(model, hooks))  # pyright: ignore


def answer_logits(
    model: "HookedTransformer", batch: PromptBatch, hooks: Sequence[Hook] = ()
) -> Float[Tensor, "answer d_vocab"]:
    """Logits that predict the answers' tokens, in float64.

    Hooks get all rows at once; without hooks rows go in smaller batches.
    """
    if hooks:
        ending = _only_at_answers(model, batch, [name for name, _ in hooks])
        return run_with(model, batch.tokens, [*hooks, ending]).squeeze(1).double().cpu()
    rows = batch.tokens.split(max(1, TOKENS_AT_ONCE // batch.tokens.shape[1]))
    return batch.at_answers(torch.cat([run_with(model, part) for part in rows])).double().cpu()


def logits_with_edits(
    model: "HookedTransformer", batch: PromptBatch, hook: str, edits: Sequence[Change]
) -> Iterator[Float[Tensor, "answer d_vocab"]]:
    """Logits that predict the answers' tokens, under one edit of a hook's activation at a time.

    One forward pass holds as many edits as fit. Each edit gets the activations of all rows. The
    pass branches at the hook where it can, so that what comes before is computed once.
    """
    at_once = max(1, TOKENS_AT_ONCE // batch.tokens.numel())
    for first in range(0, len(edits), at_once):
        group = edits[first : first + at_once]
        branching = _branching(model, hook, len(group))

        def change(values: Tensor, group: Any = group, branching: Any = branching) -> Tensor:
            copies = values.chunk(len(group)) if branching is None else [values] * len(group)
            return torch.cat([f(x).to(x.device) for f, x in zip(group, copies, strict=True)])

        ending = _only_at_answers(model, batch, [hook], len(group))
        tokens = batch.tokens.repeat(len(group) if branching is None else 1, 1)
        logits = run_with(model, tokens, [(hook, change), *(branching or ()), ending])
        yield from logits.squeeze(1).chunk(len(group))


def logits_with_new(
    model: "HookedTransformer", batch: PromptBatch, location: Location,
    rows: Int[Tensor, " copy"], new: Float[Tensor, "copy ..."],
) -> Float[Tensor, "copy d_vocab"]:  # fmt: skip
    """Logits after a batch's prompts, with new activations at a location; differentiable in these.

    Args:
        batch: with one answer token per prompt, as `first_tokens` gives.
        rows: the prompt of each new activation.
    """
    at_answers = dataclasses.replace(
        batch, tokens=batch.tokens[rows], last_prompt_pos=batch.last_prompt_pos[rows],
        row_example=torch.arange(len(rows)), answer_row=torch.arange(len(rows)),
        answer_pos=batch.answer_pos[rows], answer_token=batch.answer_token[rows],
        answer_example=torch.arange(len(rows)), fits=batch.fits[rows.numpy()],
    )  # fmt: skip
    is_stream = "hook_resid" in location.hook  # what comes before is computed once per prompt

    def change(values: Tensor) -> Tensor:
        values = values[rows] if is_stream else values
        return changed(values, index_of(location, at_answers, values), new)

    tokens = batch.tokens if is_stream else at_answers.tokens
    hooks = [(location.hook, change), _only_at_answers(model, at_answers, [location.hook])]
    return model.run_with_hooks(tokens, fwd_hooks=_adapted(model, hooks)).squeeze(1)  # pyright: ignore


def _branching(model: "HookedTransformer", hook: str, copies: int) -> list[Hook] | None:
    """What else a pass needs whose rows become several copies at a hook; None where it cannot.

    The copies of what attention or an MLP writes are added to one stream by broadcasting.
    """
    found = re.fullmatch(BRANCHING, hook)
    if not found or f"{found[1]}hook_resid_mid" not in model.hook_dict:
        return None
    block, site, hooks = *found.groups(), []
    if site == "attn.hook_pattern":
        hooks.append((f"{block}attn.hook_v", lambda values: values.repeat(copies, 1, 1, 1)))
    if "resid" not in site:
        part, stream = ("attn", "mid") if "attn" in site else ("mlp", "post")
        hooks.append((f"{block}hook_{part}_out", lambda values: values.unflatten(0, (copies, -1))))
        hooks.append((f"{block}hook_resid_{stream}", lambda values: values.flatten(0, 1)))
    return hooks


def _only_at_answers(
    model: "HookedTransformer", batch: PromptBatch, names: Sequence[str], copies: int = 1
) -> Hook:
    """A hook after those of some names: the pass goes on at the answers' positions alone."""
    block = f"blocks.{model.cfg.n_layers - 1}."
    has_mid = f"{block}hook_resid_mid" in model.hook_dict
    site = f"{block}hook_resid_mid" if has_mid else f"{block}hook_resid_post"
    after_mid = tuple(block + part for part in ("ln2", "mlp", "hook_mlp", "hook_resid_post"))
    for starts, last in (
        (after_mid, f"{block}hook_resid_post"),
        ("ln_final", "ln_final.hook_normalized"),
        ("unembed", "unembed.hook_out"),
    ):
        site = last if any(name.startswith(starts) for name in names) else site

    def gather(values: Tensor) -> Tensor:
        values = values.unflatten(0, (copies, -1))
        return values[:, batch.answer_row, batch.answer_pos].flatten(0, 1)[:, None]

    return site, gather


def index_of(
    location: Location, batch: PromptBatch | None, values: Float[Tensor, "row ..."]
) -> tuple[Any, ...]:
    """The index of a location into activations `[row, pos, ...]` or patterns `[row, head, ...]`.

    Rows that do not reach the position are left out.
    """
    is_pattern = location.hook.endswith(("hook_pattern", "hook_attn_scores"))
    head = () if location.head is None else (location.head,)
    if location.pos is None:
        return (slice(None), *(() if is_pattern or not head else (slice(None),)), *head)
    assert batch is not None
    at = batch.last_prompt_pos + 1 + location.pos
    rows = ((at >= 0) & (at < values.shape[2 if is_pattern else 1])).nonzero().squeeze(1)
    return (rows, *(head or (slice(None),)), at[rows]) if is_pattern else (rows, at[rows], *head)


def changed(values: Tensor, index: tuple[Any, ...], new: Tensor) -> Tensor:
    """A copy of activations with new values at an index."""
    values = values.clone()
    values[index] = new.to(values)
    return values


def edit(location: Location, change: Change, batch: PromptBatch | None = None) -> Hook:
    """A hook that changes the activation at a location; the batch is needed for a position."""

    def function(values: Tensor) -> Tensor:
        index = index_of(location, batch, values)
        return changed(values, index, change(values[index]))

    return location.hook, function


def put_at_answers(site: str, new: Float[Tensor, "answer d"], batch: PromptBatch) -> Hook:
    """A hook that puts activations in at the positions that predict the answers' tokens."""
    hook, head = split_head(site)
    index = (batch.answer_row, batch.answer_pos, *(() if head is None else (head,)))
    return hook, lambda values: changed(values, index, new.view_as(values[index]))


def record_into(store: dict[str, Tensor], hook: str) -> Hook:
    """A hook that stores a copy of an activation under its hook's name."""

    def function(values: Tensor) -> Tensor:
        store[hook] = values
        return values

    return hook, function


@contextmanager
def split_inputs(model: "HookedTransformer") -> Iterator[None]:
    """Separate hooks for each head's q, k and v input, the MLP's input and each head's output."""
    options = ("use_split_qkv_input", "use_hook_mlp_in", "use_attn_result")
    before = {name: getattr(model.cfg, name) for name in options}
    try:
        for name in options:
            getattr(model, f"set_{name}")(True)
        yield
    finally:
        for name, value in before.items():
            getattr(model, f"set_{name}")(value)


def gradients(
    model: "HookedTransformer", tokens: Int[Tensor, "row pos"], names: Sequence[str],
    score: Callable[[Tensor], Tensor], hooks: Sequence[Hook] = (),
) -> dict[str, Tensor]:  # fmt: skip
    """The gradient of a score of the logits with respect to the activation at each hook point."""
    read: dict[str, Tensor] = {}

    def track(name: str, values: Tensor) -> Tensor:
        read[name] = values if values.requires_grad else values.requires_grad_()
        return read[name]

    tracking = [(name, partial(track, name)) for name in names]
    with torch.enable_grad():
        adapted = _adapted(model, [*hooks, *tracking])
        logits = model.run_with_hooks(tokens, fwd_hooks=adapted)  # pyright: ignore
        found = torch.autograd.grad(score(logits), [read[name] for name in names])
    return dict(zip(names, found, strict=True))


def knock_out_attention(
    layer: int, head: int, query_key_pairs: Bool[Tensor, "row query key"]
) -> Hook:
    """A hook that takes attention between some queries and keys away, for one head.

    The rest of a query's attention is scaled up to 1; where nothing is left it stays 0.
    Source: attention knockout, Geva et al. 2023, section 3.
    """

    def change(pattern: Tensor) -> Tensor:
        kept = pattern * ~query_key_pairs
        return kept / kept.sum(-1, keepdim=True).clamp(min=1e-9)

    return edit(Location(f"blocks.{layer}.attn.hook_pattern", head), change)


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
    """Per query, as many random visible keys that are not among its pairs, or all such keys."""
    size = query_key_pairs.shape[-1]
    others = torch.ones(size, size, dtype=torch.bool).tril() & ~query_key_pairs
    order = torch.from_numpy(generator.random(query_key_pairs.shape))
    drawn, queries = torch.zeros_like(others), query_key_pairs.any(-1)
    rank = order[queries].masked_fill(~others[queries], torch.inf).argsort(-1).argsort(-1)
    drawn[queries] = rank < query_key_pairs[queries].sum(-1, keepdim=True)
    return drawn & others


def mean_by_position(
    values: Float[Tensor, "row pos ..."], batch: PromptBatch
) -> Float[Tensor, "row pos ..."]:
    """For each row the mean over all rows at the same position from the prompt's end.

    Source: mean ablation, Wang et al. 2023, section 2.1.
    """
    pos = torch.arange(values.shape[1])
    offset = pos - batch.last_prompt_pos[:, None] + int(batch.last_prompt_pos.max())  # from 0 on
    is_there = pos < batch.lengths[:, None]
    sums = torch.zeros(int(offset.max()) + 1, *values.shape[2:], dtype=values.dtype)
    sums.index_add_(0, offset[is_there], values[is_there])
    counts = offset[is_there].bincount(minlength=len(sums)).clamp(min=1)
    return (sums / counts.view(-1, *[1] * (values.ndim - 2)))[offset]


def draw_sources(
    is_allowed: Bool[np.ndarray, "row source"], generator: np.random.Generator
) -> Int[np.ndarray, " row"]:
    """For each row one of its allowed sources, drawn at random; -1 where there is none."""
    allowed = map(np.flatnonzero, is_allowed)
    return np.array([generator.choice(sources) if len(sources) else -1 for sources in allowed])


def source_rows(
    keys: Sequence[str], batch: PromptBatch, generator: np.random.Generator
) -> Int[Tensor, " row"]:
    """For each row, a random row of another example with the same key and prompt length.

    The source row has at least as many tokens; -1 where there is none.
    Source: resample ablation, Chan et al. 2022.
    """
    key = torch.from_numpy(np.unique(keys, return_inverse=True)[1])
    example, end, length = batch.row_example, batch.last_prompt_pos, batch.lengths
    is_alike = (key == key[:, None]) & (end == end[:, None]) & (length >= length[:, None])
    is_allowed = (is_alike & (example != example[:, None])).numpy()
    return torch.from_numpy(draw_sources(is_allowed, generator))


def check_location(model: "HookedTransformer", location: Location, batch: PromptBatch) -> None:
    """Raises a TbttError if a model visits no such hook, or a prompt has no such position."""
    if location.hook not in (known := site_names(model)):
        raise unknown_site(location.hook, known)
    if location.pos is None:
        return
    shortest = int(batch.last_prompt_pos.min()) + 1
    if not -shortest <= location.pos < 0:
        raise TbttError(
            f"position {location.pos} is not in every prompt: count back from -1, its last "
            f"character, to -{shortest}"
        )

"""A model as a graph: what embeddings, heads and MLPs write, and what heads, MLPs and logits read.

An edge is one sender's part of what one receiver reads, at one position. TransformerLens has a
separate hook for each input (`hook_q_input`, `hook_mlp_in`, …) once it is asked to split them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions
from tbtt_interp.old_interventions import logits_of

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

LOGITS = "logits"
EMBED = "embed"
Outputs = Mapping[str, Float[Tensor, "row pos d_model"]]


class Edge(NamedTuple):
    """What one part writes, read by one input.

    Attributes:
        sender: `embed` (tokens and positions), `head 0.1` or `MLP 0`.
        receiver: `q 0.1`, `k 0.1`, `v 0.1`, `MLP 0` or `logits`.
        pos: counted from the prompt's last token, which is -1; None is every position.
    """

    sender: str
    receiver: str
    pos: int | None


@contextmanager
def split_inputs(model: "HookedTransformer") -> Iterator[None]:
    """Hooks for every input by itself, and for every head's output, as long as it lasts."""
    config = model.cfg
    before = (config.use_split_qkv_input, config.use_hook_mlp_in, config.use_attn_result)
    model.set_use_split_qkv_input(True)
    model.set_use_hook_mlp_in(True)
    model.set_use_attn_result(True)
    try:
        yield
    finally:
        model.set_use_split_qkv_input(before[0])
        model.set_use_hook_mlp_in(before[1])
        model.set_use_attn_result(before[2])


def sender_hooks(model: "HookedTransformer") -> dict[str, tuple[str, int | None]]:
    """Every sender in the order of a forward pass: its hook, and its head where it is one."""
    found: dict[str, tuple[str, int | None]] = {EMBED: ("blocks.0.hook_resid_pre", None)}
    for layer in range(model.cfg.n_layers):
        block = f"blocks.{layer}"
        found |= {
            f"head {layer}.{k}": (f"{block}.attn.hook_result", k) for k in range(model.cfg.n_heads)
        }
        found[f"MLP {layer}"] = (f"{block}.hook_mlp_out", None)
    return found


def receiver_hooks(model: "HookedTransformer") -> dict[str, tuple[str, int | None]]:
    """Every receiver in the order of a forward pass: its hook, and its head."""
    found: dict[str, tuple[str, int | None]] = {}
    layers = model.cfg.n_layers
    for layer in range(layers):
        for k in range(model.cfg.n_heads):
            for role in "qkv":
                found[f"{role} {layer}.{k}"] = (f"blocks.{layer}.hook_{role}_input", k)
        found[f"MLP {layer}"] = (f"blocks.{layer}.hook_mlp_in", None)
    return found | {LOGITS: (f"blocks.{layers - 1}.hook_resid_post", None)}


def edges_of(model: "HookedTransformer", questions: Questions) -> list[Edge]:
    """Every edge: of one layer at every position where it can matter, of more at all together.

    In one layer, queries, MLPs and logits matter where a character is asked, and nowhere before.
    """
    if model.cfg.attn_only:
        raise TbttError("paths go through MLPs, and this model has none: patch it instead")
    first = -int(questions.end.max()) - 1
    last = int((questions.pos - questions.end[questions.row]).max()) - 1
    found = []
    for receiver in receiver_hooks(model):
        layer = receiver.rpartition(" ")[2]
        for sender in sender_hooks(model):
            if not _comes_before(sender, receiver):
                continue
            if model.cfg.n_layers > 1:
                found.append(Edge(sender, receiver, None))
                continue
            reads_all = receiver[0] in "kv" and layer != receiver
            start = first if reads_all else -1
            found += [Edge(sender, receiver, pos) for pos in range(start, last + 1)]
    return found


def _comes_before(sender: str, receiver: str) -> bool:
    if receiver == LOGITS or sender == EMBED:
        return True
    kind, place = sender.split(" ")
    layer, other = (int(name.split(" ")[1].split(".")[0]) for name in (sender, receiver))
    del place
    return layer < other or (layer == other and kind == "head" and receiver.startswith("MLP"))


def outputs_of(model: "HookedTransformer", questions: Questions) -> dict[str, Tensor]:
    """What every sender writes, `[row, pos, d_model]`; inputs have to be split."""
    senders = sender_hooks(model)
    wanted = sorted({hook for hook, _ in senders.values()})
    with torch.no_grad():
        cache = model.run_with_cache(questions.tokens, names_filter=wanted)[1]
    return {
        name: cache[hook] if head is None else cache[hook][:, :, head]
        for name, (hook, head) in senders.items()
    }


def at_place(questions: Questions, pos: int | None) -> Bool[Tensor, "row pos"]:
    """Where in each row a position is; None is everywhere."""
    here = torch.arange(questions.tokens.shape[1])
    if pos is None:
        return torch.ones(len(questions.tokens), len(here), dtype=torch.bool)
    return here == (questions.end + 1 + pos)[:, None]


def edge_hooks(
    model: "HookedTransformer", questions: Questions, donor: Outputs, edges: Collection[Edge]
) -> list[tuple[str, object]]:
    """Hooks under which each of these edges carries what the donor's sender writes.

    What an edge carries otherwise is what its sender writes in this very run, changed as that may
    be by edges before it.
    """
    written: dict[str, Tensor] = {}

    def keep(values: Tensor, hook: object, *, names: Mapping[str, int | None]) -> Tensor:
        for name, head in names.items():
            written[name] = values if head is None else values[:, :, head]
        return values

    def change(values: Tensor, hook: object, *, into: Mapping[int | None, list[Edge]]) -> Tensor:
        values = values.clone()
        for head, mine in into.items():
            target = values if head is None else values[:, :, head]
            for edge in mine:
                moved = donor[edge.sender] - written[edge.sender]
                target += moved * at_place(questions, edge.pos)[..., None]
        return values

    by_hook: dict[str, dict[str, int | None]] = {}
    for name, (hook, head) in sender_hooks(model).items():
        by_hook.setdefault(hook, {})[name] = head
    receivers = receiver_hooks(model)
    changes: dict[str, dict[int | None, list[Edge]]] = {}
    for edge in edges:
        hook, head = receivers[edge.receiver]
        changes.setdefault(hook, {}).setdefault(head, []).append(edge)
    return [
        *((hook, partial(keep, names=names)) for hook, names in by_hook.items()),
        *((hook, partial(change, into=into)) for hook, into in changes.items()),
    ]


def path_delta(
    model: "HookedTransformer",
    questions: Questions,
    donor: Outputs,
    own: Outputs,
    path: tuple[str, ...],
) -> Float[Tensor, "row pos d_model"]:
    """What reaches the logits when the donor's embeddings are sent along one path alone.

    Args:
        own: what the senders of the unchanged run write.
        path: receivers in order, such as `v 0.0`, `MLP 0`; the logits are not named. Each reads
            the change in what the one before writes, and writes it on; nothing else sees it.
    Source: path patching, Goldowsky-Dill et al. 2023.
    """
    delta = donor[EMBED] - own[EMBED]
    for receiver in path:
        sender = receiver if receiver.startswith("MLP") else f"head {receiver.split(' ')[1]}"
        (into, head), (out, which) = receiver_hooks(model)[receiver], sender_hooks(model)[sender]
        found: list[Tensor] = []

        def add(values: Tensor, hook: object, head: int | None = head) -> Tensor:
            values = values.clone()
            target = values if head is None else values[:, :, head]
            target += delta  # noqa: B023 # it runs within this turn of the loop
            return values

        def keep(values: Tensor, hook: object, found: list[Tensor] = found) -> Tensor:
            found.append(values)
            return values

        with torch.no_grad():
            model.run_with_hooks(questions.tokens, fwd_hooks=[(into, add), (out, keep)])
        delta = (found[0] if which is None else found[0][:, :, which]) - own[sender]
    return delta


def difference(
    model: "HookedTransformer",
    questions: Questions,
    wrong: Tensor,
    hooks: Sequence[tuple[str, object]] = (),
) -> Float[Tensor, " example"]:
    """Of each pair the logit differences of its characters, added up."""
    logits = logits_of(model, questions, hooks)
    right = logits.gather(1, questions.target[:, None])
    apart = (right - logits.gather(1, wrong[:, None])).squeeze(1)
    return torch.zeros(len(questions.fits), dtype=apart.dtype).index_add_(
        0, questions.example, apart
    )

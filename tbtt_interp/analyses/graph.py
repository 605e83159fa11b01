"""A model as a graph: senders (embeddings, heads, MLPs), receivers (heads, MLPs, logits), edges.

An edge is what one sender contributes to the input of one receiver, at one position. Inside
`split_inputs` TransformerLens has a hook for each input (`hook_q_input`, `hook_mlp_in`, …).
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.activations import cached
from tbtt_interp.analyses.patching import answer_scores
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import Hook, Location, add, answer_logits, record_into, run_with
from tbtt_interp.prompts import PromptBatch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

LOGITS = "logits"
EMBED = "embed"
Outputs = Mapping[str, Float[Tensor, "row pos d_model"]]  # what each sender writes


class Edge(NamedTuple):
    """What one component writes, read by one input.

    Attributes:
        sender: `embed` (tokens and positions), `head 0.1` or `MLP 0`.
        receiver: `q 0.1`, `k 0.1`, `v 0.1`, `MLP 0` or `logits`.
        pos: counted from the prompt's last token, which is -1; None is every position.
    """

    sender: str
    receiver: str
    pos: int | None


def senders_of(model: "HookedTransformer") -> dict[str, Location]:
    """The hook of each sender's output, in the order of a forward pass."""
    found = {EMBED: Location("blocks.0.hook_resid_pre")}
    for layer in range(model.cfg.n_layers):
        for k in range(model.cfg.n_heads):
            found[f"head {layer}.{k}"] = Location(f"blocks.{layer}.attn.hook_result", k)
        found[f"MLP {layer}"] = Location(f"blocks.{layer}.hook_mlp_out")
    return found


def receivers_of(model: "HookedTransformer") -> dict[str, Location]:
    """The hook of each receiver's input, in the order of a forward pass."""
    found = {}
    for layer in range(model.cfg.n_layers):
        for k in range(model.cfg.n_heads):
            for role in "qkv":
                found[f"{role} {layer}.{k}"] = Location(f"blocks.{layer}.hook_{role}_input", k)
        found[f"MLP {layer}"] = Location(f"blocks.{layer}.hook_mlp_in")
    return found | {LOGITS: Location(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")}


def edges_of(model: "HookedTransformer", batch: PromptBatch) -> list[Edge]:
    """Every edge: of one layer at each position where it can matter, of more at all positions.

    In one layer, queries, MLPs and logits matter only where an answer token is predicted.

    Raises:
        TbttError: if the model has no MLPs.
    """
    if model.cfg.attn_only:
        raise TbttError("paths go through MLPs, and this model has none: patch it instead")
    first = -int(batch.last_prompt_pos.max()) - 1
    last = int((batch.answer_pos - batch.last_prompt_pos[batch.answer_row]).max()) - 1
    found = []
    for receiver in receivers_of(model):
        start = first if receiver[0] in "kv" else -1
        positions = range(start, last + 1) if model.cfg.n_layers == 1 else [None]
        for sender in senders_of(model):
            if _comes_before(sender, receiver):
                found += [Edge(sender, receiver, pos) for pos in positions]
    return found


def _comes_before(sender: str, receiver: str) -> bool:
    if receiver == LOGITS or sender == EMBED:
        return True
    layer, other = (int(name.split(" ")[1].split(".")[0]) for name in (sender, receiver))
    is_into_mlp = sender.startswith("head") and receiver.startswith("MLP")
    return layer < other or (layer == other and is_into_mlp)


def paths_of(model: "HookedTransformer") -> list[tuple[str, ...]]:
    """Every path from the embeddings to the logits of a one-layer model, by its receivers."""
    if model.cfg.n_layers > 1:
        return []
    heads = [(name,) for name in receivers_of(model) if name[0] in "qkv"]
    return [(), ("MLP 0",), *heads, *((*head, "MLP 0") for head in heads)]


def sender_outputs(model: "HookedTransformer", batch: PromptBatch) -> dict[str, Tensor]:
    """What each sender writes, [row, pos, d_model]; goes inside `split_inputs`."""
    senders = senders_of(model)
    cache = cached(model, batch.tokens, list({at.hook for at in senders.values()}))[1]
    return {
        name: cache[hook] if head is None else cache[hook][:, :, head]
        for name, (hook, head, _) in senders.items()
    }


def at_position(batch: PromptBatch, pos: int | None) -> Bool[Tensor, "row pos"]:
    """Where each row has a position; None is everywhere."""
    here = torch.arange(batch.tokens.shape[1]) == (batch.last_prompt_pos + 1 + (pos or 0))[:, None]
    return torch.ones_like(here) if pos is None else here


def edge_hooks(
    model: "HookedTransformer", batch: PromptBatch, source: Outputs, edges: Collection[Edge]
) -> list[Hook]:
    """Hooks under which each of some edges carries what its sender writes in the source run.

    Every other edge carries what its sender writes in the run itself, which these edges may change.
    """
    written: dict[str, Tensor] = {}
    names: dict[str, dict[str, int | None]] = {}
    for name, (hook, head, _) in senders_of(model).items():
        names.setdefault(hook, {})[name] = head
    into: dict[str, list[Edge]] = {}
    for edge in edges:
        into.setdefault(edge.receiver, []).append(edge)

    def delta(edges: Sequence[Edge]) -> Tensor:
        moved = ((source[e.sender] - written[e.sender], at_position(batch, e.pos)) for e in edges)
        return sum((change * here[..., None] for change, here in moved), torch.zeros(()))

    receivers = receivers_of(model)
    recording = [record_into(written, hook, heads) for hook, heads in names.items()]
    return recording + [
        add(receivers[name].hook, partial(delta, incoming), receivers[name].head)
        for name, incoming in into.items()
    ]


def path_delta(
    model: "HookedTransformer", batch: PromptBatch, source: Outputs, own: Outputs,
    path: tuple[str, ...],
) -> Float[Tensor, "row pos d_model"]:  # fmt: skip
    """The change that reaches the logits when the source's embeddings go along one path alone.

    Args:
        own: what the senders of the unchanged run write.
        path: receivers in order, such as `v 0.0`, `MLP 0`, without the logits. Each reads the
            change in what the one before writes, and nothing else sees that change.
    Source: path patching, Goldowsky-Dill et al. 2023.
    """
    delta = source[EMBED] - own[EMBED]
    for receiver in path:
        sender = receiver if receiver.startswith("MLP") else f"head {receiver.split(' ')[1]}"
        (into, head, _), out = receivers_of(model)[receiver], senders_of(model)[sender]
        written: dict[str, Tensor] = {}
        recording = record_into(written, out.hook, {sender: out.head})
        run_with(model, batch.tokens, [add(into, delta, head), recording])
        delta = written[sender] - own[sender]
    return delta


def logit_differences(
    model: "HookedTransformer", batch: PromptBatch, corrupted_tokens: Int[Tensor, " answer"],
    hooks: Sequence[Hook] = (),
) -> Float[Tensor, " example"]:  # fmt: skip
    """For each pair, the sum of its answer tokens' logit differences."""
    logits = answer_logits(model, batch, hooks)
    return batch.sum_by_example(answer_scores(logits, batch.answer_token, corrupted_tokens)[0])

"""A model as a graph: senders (embeddings, heads, MLPs), receivers (heads, MLPs, logits), edges.

An edge is what one sender contributes to the input of one receiver, at one position. Inside
`split_inputs` TransformerLens has a hook for each input (`hook_q_input`, `hook_mlp_in`, …).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tbtt_interp.activations import cached
from tbtt_interp.analyses.patching import answer_scores, offsets_of
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import (
    Hook,
    Location,
    answer_logits,
    edit,
    gradients,
    record_into,
    run_with,
)
from tbtt_interp.prompts import PromptBatch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

LOGITS = "logits"
EMBED = "embed"


class Edge(NamedTuple):
    """What one component writes, read by one input, at a position; None is every position."""

    sender: str  # embed (tokens and positions), head 0.1 or MLP 0
    receiver: str  # q 0.1, k 0.1, v 0.1, MLP 0 or logits
    pos: int | None  # counted from the prompt's last token, which is -1


def ends_of(model: "HookedTransformer") -> tuple[dict[str, Location], dict[str, Location]]:
    """Each sender's output and each receiver's input, both in the order of a forward pass.

    Raises:
        TbttError: if the model has no MLPs.
    """
    if model.cfg.attn_only:
        raise TbttError("paths go through MLPs, and this model has none: patch it instead")
    senders, receivers = {EMBED: Location("blocks.0.hook_resid_pre")}, {}
    for layer in range(model.cfg.n_layers):
        for k in range(model.cfg.n_heads):
            senders[f"head {layer}.{k}"] = Location(f"blocks.{layer}.attn.hook_result", k)
            for role in "qkv":
                receivers[f"{role} {layer}.{k}"] = Location(f"blocks.{layer}.hook_{role}_input", k)
        senders[f"MLP {layer}"] = Location(f"blocks.{layer}.hook_mlp_out")
        receivers[f"MLP {layer}"] = Location(f"blocks.{layer}.hook_mlp_in")
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    return senders, receivers | {LOGITS: Location(last)}


def edges_of(model: "HookedTransformer", batch: PromptBatch) -> list[Edge]:
    """Every edge: of one layer at each position where it can matter, of more at all positions.

    In one layer, queries, MLPs and logits matter only where an answer token is predicted.
    """

    def stage(name: str) -> tuple[float, bool]:
        if name in (EMBED, LOGITS):
            return (-1.0 if name == EMBED else torch.inf), False
        return float(name.split(" ")[1].partition(".")[0]), name.startswith("MLP")

    senders, receivers = ends_of(model)
    return [
        Edge(sender, receiver, pos)
        for receiver in receivers for sender in senders
        if stage(sender) < stage(receiver)
        for pos in (offsets_of(batch) if model.cfg.n_layers == 1 else [None])
        if pos is None or pos >= -1 or receiver[0] in "kv"
    ]  # fmt: skip


def paths_of(model: "HookedTransformer") -> list[tuple[str, ...]]:
    """Every path from the embeddings to the logits of a one-layer model, by its receivers."""
    if model.cfg.n_layers > 1:
        return []
    heads = [(name,) for name in ends_of(model)[1] if name[0] in "qkv"]
    return [(), ("MLP 0",), *heads, *((*head, "MLP 0") for head in heads)]


def logit_differences(
    logits: Float[Tensor, "answer d_vocab"], batch: PromptBatch, wrong: Int[Tensor, " answer"]
) -> Float[Tensor, " example"]:
    """For each pair, the sum of its answer tokens' logits minus those of the wrong tokens."""
    return batch.sum_by_example(answer_scores(logits, batch.answer_token, wrong)[0])


@dataclass(frozen=True)
class PathPatching:
    """A run whose edges or paths can carry a source run's outputs; use inside `split_inputs`."""

    model: "HookedTransformer"
    base: PromptBatch  # the base run: its prompts, with the right answers
    source: PromptBatch  # the source run: the same answers after its prompts
    wrong: Int[Tensor, " answer"]  # the tokens that the right ones are compared with

    @cached_property
    def written(self) -> tuple[dict[str, Tensor], ...]:
        """Each sender's output in the base and in the source run, [row, pos, d_model]."""
        senders, _ = ends_of(self.model)
        hooks = list({at.hook for at in senders.values()})
        caches = (cached(self.model, run.tokens, hooks)[1] for run in (self.base, self.source))
        return tuple({name: at.read(run) for name, at in senders.items()} for run in caches)

    def differences(self, hooks: Sequence[Hook] = ()) -> Float[Tensor, " example"]:
        """Each pair's logit difference in this run, with hooks."""
        return logit_differences(answer_logits(self.model, self.base, hooks), self.base, self.wrong)

    def total_effects(self) -> Float[Tensor, " example"]:
        """Each pair's logit difference in the source run minus that in the base run."""
        source = PathPatching(self.model, self.source, self.source, self.wrong)
        return source.differences() - self.differences()

    def where(self, pos: int | None) -> Bool[Tensor, "row pos"]:
        """The index of a position in each row; None is all positions."""
        offset = torch.arange(self.base.tokens.shape[1]) - self.base.last_prompt_pos[:, None] - 1
        return offset == pos if pos is not None else torch.ones_like(offset, dtype=torch.bool)

    def edge_hooks(self, edges: Collection[Edge]) -> list[Hook]:
        """Hooks that make these edges carry their senders' outputs in the source run.

        Every other edge carries its sender's output in the base run under these hooks.
        """
        (senders, receivers), (_, source), now = ends_of(self.model), self.written, {}
        moved: dict[str, dict[str, Tensor]] = {}  # where, by receiver and sender
        for sender, receiver, pos in edges:
            masks, here = moved.setdefault(receiver, {}), self.where(pos)
            masks[sender] = masks[sender] | here if sender in masks else here

        def change(values: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
            for name, mask in masks.items():
                values = values + (source[name] - senders[name].read(now)) * mask[..., None]
            return values

        recording = [record_into(now, hook) for hook in {at.hook for at in senders.values()}]
        return recording + [
            edit(receivers[name], partial(change, masks=masks)) for name, masks in moved.items()
        ]

    def path_hooks(self, path: tuple[str, ...]) -> list[Hook]:
        """Hooks that send the source's embeddings along one path alone.

        Args:
            path: receivers in order, such as `v 0.0`, `MLP 0`, without the logits. Each receiver
                alone reads the change in the output of the component before it.
        Source: path patching, Goldowsky-Dill et al. 2023.
        """
        (own, source), (senders, receivers) = self.written, ends_of(self.model)
        delta = source[EMBED] - own[EMBED]
        for receiver in path:
            sender = receiver if receiver.startswith("MLP") else f"head {receiver.split(' ')[1]}"
            at, now = senders[sender], {}
            hooks = [edit(receivers[receiver], delta.add), record_into(now, at.hook)]
            run_with(self.model, self.base.tokens, hooks)
            delta = at.read(now) - own[sender]
        return [edit(receivers[LOGITS], delta.add)]

    def attributions(self, edges: Sequence[Edge], steps: int = 1) -> Float[Tensor, "edge example"]:
        """First-order estimate of each edge's effect on each pair's logit difference.

        It is the sender's output in the source minus the base run, times the gradient of the
        logit difference with respect to the receiver's input.

        Args:
            steps: 1 takes the gradient at the unchanged run (attribution patching, Nanda 2023;
                edges, Syed et al. 2023). More average it over that many embeddings between
                base and source (EAP-IG, Hanna et al. 2024).
        """
        (own, source), (senders, receivers) = self.written, ends_of(self.model)
        hooks = list({receivers[edge.receiver].hook for edge in edges})
        slopes = dict.fromkeys(hooks, torch.zeros(()))

        def score(logits: Tensor) -> Tensor:
            return logit_differences(self.base.at_answers(logits), self.base, self.wrong).sum()

        for step in range(1, steps + 1) if steps > 1 else [0]:
            put = partial(torch.lerp, end=source[EMBED], weight=step / steps)
            start = [edit(senders[EMBED], put)]
            for hook, slope in gradients(self.model, self.base.tokens, hooks, score, start).items():
                slopes[hook] = slopes[hook] + slope / steps
        of_row = torch.stack([
            ((source[sender] - own[sender]) * receivers[receiver].read(slopes)).sum(-1)
            .mul(self.where(pos)).sum(1) for sender, receiver, pos in edges
        ]).double()  # fmt: skip
        rows = of_row.new_zeros(len(edges), len(self.base))
        return rows.index_add(1, self.base.row_example, of_row)

"""Fast approximations of what an edge does: attribution patching, and with integrated gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.analyses.old_graph import (
    EMBED,
    Edge,
    Outputs,
    at_place,
    receiver_hooks,
    sender_hooks,
)
from tbtt_interp.evaluate import Questions

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

STEPS = 5  # of the integral, as Hanna et al. 2024 take


def edge_attributions(
    model: "HookedTransformer",
    questions: Questions,
    wrong: Int[Tensor, " character"],
    donor: Outputs,
    own: Outputs,
    edges: Sequence[Edge],
    *,
    steps: int = 1,
) -> Float[Tensor, "edge row"]:
    """How far each edge moves the logit difference, all asked characters together, to first order.

    Of an edge it is the donor's output minus the run's own, times the gradient of the logit
    difference with respect to what the receiver reads. Inputs have to be split.

    Args:
        questions: of the run that is patched; a row each is returned.
        wrong: where a character is asked, that of the other answer.
        own: what the senders of the unchanged run write.
        steps: 1 takes the gradient at the unchanged run (attribution patching, Nanda 2023; edges,
            Syed et al. 2023). More take its mean at so many embeddings on the straight way to the
            donor's (EAP-IG, Hanna et al. 2024).
    """
    receivers, senders = receiver_hooks(model), sender_hooks(model)
    wanted = list(dict.fromkeys(receivers[edge.receiver][0] for edge in edges))
    gradients: dict[str, Tensor] = {}
    for step in range(1, steps + 1) if steps > 1 else [0]:
        read: dict[str, Tensor] = {}

        def put(values: Tensor, hook: object, share: float = step / steps) -> Tensor:
            return values + share * (donor[EMBED] - values)

        def track(values: Tensor, hook: object, read: dict[str, Tensor] = read) -> Tensor:
            name = hook.name  # pyright: ignore[reportAttributeAccessIssue]
            read[name] = values if values.requires_grad else values.requires_grad_()
            return read[name]

        with torch.enable_grad():
            logits = model.run_with_hooks(
                questions.tokens,
                fwd_hooks=[(senders[EMBED][0], put), *((name, track) for name in wanted)],
            )
            asked = logits[questions.row, questions.pos]
            right = asked.gather(1, questions.target[:, None])
            difference = (right - asked.gather(1, wrong[:, None])).sum()
            found = torch.autograd.grad(difference, [read[name] for name in wanted])
        for name, gradient in zip(wanted, found, strict=True):
            gradients[name] = gradients.get(name, 0) + gradient.detach() / steps
    rows = []
    for edge in edges:
        hook, head = receivers[edge.receiver]
        slope = gradients[hook] if head is None else gradients[hook][:, :, head]
        along = ((donor[edge.sender] - own[edge.sender]) * slope).sum(-1)
        rows.append((along * at_place(questions, edge.pos)).sum(1))
    return torch.stack(rows).double()

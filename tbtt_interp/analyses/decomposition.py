"""Direct logit attribution: what each part of a model writes towards a logit, to the last digit.

The last LayerNorm is folded here, by hand: with its scale kept at the model's own value it is
linear, so that a logit is a sum over all that was ever written to the stream.
Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.analyses.characters import Characters, last_norm
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

CLOSE = 1e-4  # nats of logit that a sum of parts may be off
CENTRED = ("LN", "LNPre")  # the normalisations that take a vector's mean away
ALL = "logit difference"
Contributions = dict[str, Tensor]


class Component(NamedTuple):
    """A part of a model, or several together.

    Attributes:
        pos: where a head reads, counted from the prompt's last token, which is -1; None is all.
    """

    kind: str
    layer: int | None = None
    head: int | None = None
    neuron: int | None = None
    pos: int | None = None

    def name(self, places: Mapping[int, str]) -> str:
        """For a table or an axis.

        >>> Component("head", 2, head=1, pos=-2).name({-2: "b"})
        'layer 2 head 1 from b'
        """
        number = self.head if self.neuron is None else self.neuron
        of = [] if self.layer is None else ["layer", self.layer]
        which = [] if number is None else [number]
        source = [] if self.pos is None else ["from", places[self.pos]]
        return " ".join(map(str, [*of, self.kind, *which, *source]))


def attribute(
    model: "HookedTransformer",
    characters: Characters,
    reading: Float[Tensor, "character d_vocab"],
) -> Contributions:
    """A weighted sum of logits, at each character that is asked, as a sum over the model's parts.

    Args:
        model: in double precision, or the sum is only close.
        reading: the weight of each logit, such as 1 for the right one and -1 for a wrong one.
    Returns:
        nats of logit, `token`, `position` and `last bias` (of LayerNorm and unembedding)
        `[character]`, `attention bias` and `MLP bias` `[layer, character]`, `neurons`
        `[layer, neuron, character]`, and `heads` `[layer, head, place, character]` by where they
        read, the places in order up to the last that is asked at.
    Raises:
        TbttError: if the parts do not sum to what the model says.
    """
    sites = ["hook_embed", "hook_pos_embed", "ln_final.hook_scale"]
    for layer in range(model.cfg.n_layers):
        of_layer = ("attn.hook_v", "attn.hook_pattern", "mlp.hook_post")
        sites += [f"blocks.{layer}.{part}" for part in of_layer]
    found: list[Contributions] = []
    for some, logits, cache in characters.read(model, sites):
        weights = reading[some].to(logits)
        with torch.no_grad():
            parts = _attribute(model, characters, some, weights, cache.cache_dict)
            missed = (total(parts) - (weights * logits).sum(-1)).abs().max()
        if not missed < CLOSE:
            raise TbttError(
                f"the parts of this model do not sum to its logits, but miss them by {missed:.2g} "
                "nats: attribution needs heads and neurons that write to the stream as they are, "
                "and between stream and logits a LayerNorm or RMSNorm and an unembedding alone"
            )
        found.append(parts)
    return {name: torch.cat([parts[name] for parts in found], -1) for name in found[0]}


def total(parts: Contributions) -> Float[Tensor, " character"]:
    """The sum of all parts."""
    return torch.stack([x.reshape(-1, x.shape[-1]).sum(0) for x in parts.values()]).sum(0)


def _attribute(
    model: "HookedTransformer",
    characters: Characters,
    some: Int[Tensor, " some"],
    weights: Float[Tensor, "some d_vocab"],
    cache: dict[str, Tensor],
) -> Contributions:
    rows, at = torch.arange(len(some)), characters.questions.pos[some]
    norm = dict(last_norm(model).named_parameters())
    direction, last_bias = weights @ model.W_U.T, weights @ model.b_U
    last_bias = last_bias + direction @ norm.get("b", torch.zeros_like(direction[0]))
    direction = direction * norm.get("w", 1)
    if model.cfg.normalization_type in CENTRED:
        direction = direction - direction.mean(-1, keepdim=True)
    if "ln_final.hook_scale" in cache:
        direction = direction / cache["ln_final.hook_scale"][rows, at]

    def written(name: str) -> Tensor:
        x = cache[name][rows, at] if name in cache else torch.zeros_like(direction)
        return (x * direction).sum(-1)

    heads, neurons, biases = [], [], {"attention bias": [], "MLP bias": []}
    for layer in range(model.cfg.n_layers):
        towards = einsum(model.W_O[layer], direction, "head d_head d, some d -> some head d_head")
        v, pattern = (cache[f"blocks.{layer}.attn.hook_{name}"] for name in ("v", "pattern"))
        v = v.repeat_interleave(model.cfg.n_heads // v.shape[2], 2)  # where heads share values
        of_key = einsum(v, towards, "some key head d_head, some head d_head -> some head key")
        heads.append(_by_place(pattern[rows, :, at] * of_key, characters, some))
        biases["attention bias"].append(direction @ model.b_O[layer])
        post = cache.get(f"blocks.{layer}.mlp.hook_post")
        if post is None:  # a model of attention alone
            neurons.append(direction.new_zeros(0, len(some)))
            biases["MLP bias"].append(direction.new_zeros(len(some)))
        else:
            neurons.append((post[rows, at] * (direction @ model.W_out[layer].T)).T)
            biases["MLP bias"].append(direction @ model.b_out[layer])
    return {
        "token": written("hook_embed"),
        "position": written("hook_pos_embed"),
        "heads": torch.stack(heads),
        "neurons": torch.stack(neurons),
        "last bias": last_bias,
        **{name: torch.stack(values) for name, values in biases.items()},
    }


def _by_place(
    of_key: Float[Tensor, "some head key"], characters: Characters, some: Int[Tensor, " some"]
) -> Float[Tensor, "head place some"]:
    """Keys by their distance from the prompt's end, which is not at one position in all rows."""
    first, last = places_of(characters)
    end = characters.questions.end[characters.questions.row[some]]
    place = torch.arange(of_key.shape[-1]) - end[:, None] - 1 - first
    place = place.clamp(max=last - first)  # what is later than all that is asked has no weight
    sums = of_key.new_zeros(*of_key.shape[:2], last - first + 1)
    return sums.scatter_add(2, place[:, None].expand_as(of_key), of_key).permute(1, 2, 0)


def places_of(characters: Characters) -> tuple[int, int]:
    """The first place that anything reads and the last, counted from the prompt's last, -1."""
    questions = characters.questions
    last = int((questions.pos - questions.end[questions.row]).max()) - 1
    return -int(questions.end.max()) - 1, last


def pooled(
    parts: Contributions, characters: Characters
) -> dict[Component, Float[Tensor, " character"]]:
    """What is one thing in every model of a shape: layers' attention and MLP, and what is read."""
    found = {Component(name): parts[name] for name in ("token", "position")}
    for layer, (heads, neurons) in enumerate(zip(parts["heads"], parts["neurons"], strict=True)):
        found[Component("attention", layer)] = heads.sum((0, 1))
        for pos, values in enumerate(heads.sum(0), places_of(characters)[0]):
            found[Component("attention", layer, pos=pos)] = values
        found[Component("MLP", layer)] = neurons.sum(0)
        for name in ("attention bias", "MLP bias"):
            found[Component(name, layer)] = parts[name][layer]
    return found | {Component("last bias"): parts["last bias"], Component(ALL): total(parts)}


def units(
    parts: Contributions, characters: Characters
) -> dict[Component, Float[Tensor, " character"]]:
    """Heads and neurons: of another seed, the one of the same number is another one."""
    found: dict[Component, Tensor] = {}
    for layer, (heads, neurons) in enumerate(zip(parts["heads"], parts["neurons"], strict=True)):
        for number, head in enumerate(heads):
            found[Component("head", layer, head=number)] = head.sum(0)
            for pos, values in enumerate(head, places_of(characters)[0]):
                found[Component("head", layer, head=number, pos=pos)] = values
        for number, neuron in enumerate(neurons):
            found[Component("neuron", layer, neuron=number)] = neuron
    return found

"""The architecture: a shape, its parameters, the stacked forward pass, and the HookedTransformer.

The decoder of nanoGPT: learned positions, pre-LayerNorm, exact GELU, input and output embeddings
tied unless the shape says otherwise. Parameters carry HookedTransformer's names and shapes, with a
leading seed axis where many models are computed side by side. A tied `W_U` is not among them: it is
`W_E` transposed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.bounds import check_shape
from tbtt_interp.lens import empty_model

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

    from tbtt_interp.tokenizer import CharacterTokenizer

Parameters = dict[str, Tensor]
INITIAL_STD = 0.02
EPSILON = 1e-5
INITIAL = 2  # Philox key of initial weights; see tasks/windows.py
LN2, SERIES = 0.6931471805599453, 18


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers that decide which parameters a model has, and how they are used."""

    layers: int
    heads: int
    d_model: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    bias: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        check_shape(vars(self))

    @property
    def d_head(self) -> int:
        """Channels per head."""
        return self.d_model // self.heads


def parameter_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The trained parameters of one model by HookedTransformer's names, in the model's order.

    >>> shape = Shape(layers=1, heads=1, d_model=14, d_mlp=14, n_ctx=9, d_vocab=17)
    >>> parameter_shapes(shape)["embed.W_E"]
    (17, 14)
    """
    d, h, e, m = shape.d_model, shape.heads, shape.d_head, shape.d_mlp
    block: dict[str, tuple[int, ...]] = {
        "ln1.w": (d,), "ln1.b": (d,),
        **{f"attn.W_{role}": (h, d, e) for role in "QKV"},
        **{f"attn.b_{role}": (h, e) for role in "QKV"},
        "attn.W_O": (h, e, d), "attn.b_O": (d,), "ln2.w": (d,), "ln2.b": (d,),
        "mlp.W_in": (d, m), "mlp.b_in": (m,), "mlp.W_out": (m, d), "mlp.b_out": (d,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "embed.W_E": (shape.d_vocab, d), "pos_embed.W_pos": (shape.n_ctx, d),
        **{f"blocks.{k}.{name}": size for k in range(shape.layers) for name, size in block.items()},
        "ln_final.w": (d,), "ln_final.b": (d,),
        **({} if shape.tied else {"unembed.W_U": (d, shape.d_vocab)}),
    }  # fmt: skip
    return {name: size for name, size in shapes.items() if shape.bias or not is_bias(name)}


def is_bias(name: str) -> bool:
    """Whether a HookedTransformer parameter is a bias; the paper's models have none."""
    return name.rsplit(".", 1)[-1].startswith("b")


def is_matrix(name: str) -> bool:
    """Whether a parameter has two or more dimensions in nanoGPT, which applies weight decay to it.

    HookedTransformer's shapes would mislead: a query bias has two dimensions here and one there.
    """
    return name.rsplit(".", 1)[-1].startswith("W_")


def count_parameters(shape: Shape) -> int:
    """The number of trained parameters of one model, without positions, as nanoGPT counts.

    >>> count_parameters(Shape(layers=1, heads=1, d_model=14, d_mlp=14, n_ctx=9, d_vocab=17))
    1456
    """
    sizes = parameter_shapes(shape)
    return sum(math.prod(size) for name, size in sizes.items() if name != "pos_embed.W_pos")


def initial_parameters(shape: Shape, *, seed: int) -> Parameters:
    """The parameters of one model as nanoGPT initialises them, the same bits on every machine.

    Source: Radford et al. 2019, section 2.3, for the scale of the two that write to the residual.
    """
    sizes = parameter_shapes(shape)
    drawn = iter(normal_numbers(seed, sum(map(math.prod, sizes.values()))))
    parameters = {}
    for name, size in sizes.items():
        if not is_matrix(name):
            parameters[name] = torch.full(size, 0.0 if is_bias(name) else 1.0)
            continue
        writes = name.endswith(("W_O", "W_out"))
        std = INITIAL_STD / math.sqrt(2 * shape.layers) if writes else INITIAL_STD
        values = np.fromiter(drawn, float, math.prod(size)).reshape(size)
        parameters[name] = torch.from_numpy(std * values).float()
    return parameters


def normal_numbers(seed: int, count: int, purpose: int = INITIAL) -> Float[np.ndarray, " draw"]:
    """Standard normal numbers by elementary arithmetic, the same on every machine.

    Source: Marsaglia's polar method, on the numbers of a Philox generator.
    """
    generator = np.random.Philox(key=[seed, purpose])
    raw = generator.random_raw(2 * count + 64).astype(np.int64) >> 11  # spare for rejects
    u, v = raw.reshape(2, -1) * 2.0**-52
    square = u * u + v * v
    inside = (square > 0) & (square < 1)
    u, v, square = u[inside], v[inside], square[inside]
    factor = np.sqrt(-2 * _logarithm(square) / square)
    return np.stack([u * factor, v * factor], 1).ravel()[:count]


def _logarithm(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Natural logarithms to 1e-15 by their series; a library's own differ in their last bits."""
    fraction, exponent = np.frexp(x)
    t = (fraction - 1) / (fraction + 1)  # from -1/3 to 0
    series = np.zeros_like(t)
    for k in range(SERIES, -1, -1):
        series = series * (t * t) + 1 / (2 * k + 1)
    return exponent * LN2 + 2 * t * series


def stack_parameters(models: Sequence[Parameters]) -> Parameters:
    """Several models as one, each parameter with a leading seed axis."""
    return {name: torch.stack([model[name] for model in models]) for name in models[0]}


def one_model(stacked: Mapping[str, Tensor], seed: int) -> Parameters:
    """One model of a stack, by its index."""
    return {name: parameter[seed] for name, parameter in stacked.items()}


def forward(
    stacked: Mapping[str, Tensor], tokens: Int[Tensor, "seed batch pos"], shape: Shape
) -> Float[Tensor, "seed batch pos d_vocab"]:
    """Logits of many models, each on its own tokens, in one computation."""
    seeds, batch, pos = tokens.shape
    d, h = shape.d_model, shape.heads

    def norm(x: Tensor, name: str) -> Tensor:
        x = F.layer_norm(x, (d,), eps=EPSILON) * stacked[f"{name}.w"][:, None]
        return x if (bias := stacked.get(f"{name}.b")) is None else x + bias[:, None]

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = torch.bmm(x, weight)
        return x if bias is None else x + bias.reshape(seeds, 1, -1)

    # a product with one-hot tokens, since the gradient of a lookup is summed in no fixed order
    one_hot = F.one_hot(tokens.flatten(1), shape.d_vocab).to(stacked["embed.W_E"].dtype)
    embeddings = stacked["embed.W_E"]
    x = torch.bmm(one_hot, embeddings).view(seeds, batch, pos, d)
    x = (x + stacked["pos_embed.W_pos"][:, None, :pos]).reshape(seeds, batch * pos, d)
    future = torch.ones(pos, pos, dtype=torch.bool, device=tokens.device).triu(1)

    for layer in range(shape.layers):
        block = f"blocks.{layer}"
        bias = None
        if f"{block}.attn.b_Q" in stacked:
            bias = rearrange([stacked[f"{block}.attn.b_{role}"] for role in "QKV"],
                             "role s h e -> s (role h e)")  # fmt: skip
        read = rearrange([stacked[f"{block}.attn.W_{role}"] for role in "QKV"],
                         "role s h d e -> s d (role h e)")  # fmt: skip
        qkv = linear(norm(x, f"{block}.ln1"), read, bias)
        q, k, v = rearrange(qkv, "s (b p) (role h e) -> role (s b h) p e", b=batch, role=3, h=h)
        scores = torch.bmm(q, k.transpose(1, 2)) * shape.d_head**-0.5  # GPT2Model's rounding, too
        pattern = scores.masked_fill(future, -torch.inf).softmax(-1)
        z = rearrange(torch.bmm(pattern, v), "(s b h) p e -> s (b p) (h e)", b=batch, h=h)
        write = stacked[f"{block}.attn.W_O"].flatten(1, 2)
        x = x + linear(z, write, stacked.get(f"{block}.attn.b_O"))

        mlp = {name: stacked.get(f"{block}.mlp.{name}") for name in ("b_in", "b_out")}
        pre = linear(norm(x, f"{block}.ln2"), stacked[f"{block}.mlp.W_in"], mlp["b_in"])
        x = x + linear(F.gelu(pre), stacked[f"{block}.mlp.W_out"], mlp["b_out"])

    unembed = stacked.get("unembed.W_U", embeddings.transpose(1, 2))
    logits = torch.bmm(norm(x, "ln_final"), unembed)
    return logits.view(seeds, batch, pos, -1)


def hooked_transformer(
    parameters: Parameters, shape: Shape, tokenizer: "CharacterTokenizer | None" = None
) -> "HookedTransformer":
    """One model as a real HookedTransformer, in eval mode; on TransformerLens 4, a HookedDecoder.

    With a tokenizer it also reads text, to which nothing is prepended.

    A tied `W_U` is a copy of `W_E` transposed, and its biases are zero where the model has none. A
    model whose MLP is as wide as its stream refuses `process_weights_`, which would misread it.
    """
    embeddings = parameters["embed.W_E"]
    settings = {
        "n_layers": shape.layers, "n_heads": shape.heads, "d_model": shape.d_model,
        "d_head": shape.d_head, "d_mlp": shape.d_mlp, "n_ctx": shape.n_ctx,
        "d_vocab": shape.d_vocab, "act_fn": "gelu", "normalization_type": "LN", "eps": EPSILON,
        "device": "cpu", "dtype": embeddings.dtype, "default_prepend_bos": False,
    }  # fmt: skip
    model = empty_model(settings, tokenizer)
    state = {
        name: torch.zeros_like(value) if is_bias(name) else value
        for name, value in model.state_dict().items()
        if not name.endswith(("mask", "IGNORE"))
    }
    state |= {"unembed.W_U": embeddings.T, **parameters}
    model.load_state_dict(state, strict=False)
    return model.eval().to(embeddings.device, print_details=False)

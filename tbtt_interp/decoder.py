"""A decoder with HookedTransformer's parameters and hooks, for TransformerLens 4, which has none.

A TransformerBridge does not take its place: there `hook_resid_mid` is the input of the second
LayerNorm alone, so that a patch does not reach the stream, and a hook may not change how many rows
a pass has. Here every hook point stands where HookedTransformer has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from einops import einsum, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache, FactoredMatrix
from transformer_lens.config import TransformerLensConfig
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.utilities import (
    lm_cross_entropy_loss,  # pyright: ignore[reportPrivateImportUsage] # 3.9 has it elsewhere
    sample_logits,  # pyright: ignore[reportPrivateImportUsage]
)

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.tokenizer import CharacterTokenizer

Text = str | Sequence[str]
EDITED = "edited_row edited_pos d"  # hooks may copy rows and choose positions


@dataclass
class DecoderConfig(TransformerLensConfig):
    """TransformerLens's configuration, and its option of a hook before the MLP's LayerNorm."""

    use_hook_mlp_in: bool = False


class _Module(nn.Module):
    """A module that has parameters of these shapes, and hook points of these names."""

    def __init__(self, hooks: str = "", **shapes: tuple[int, ...]):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))
        for name in hooks.split():
            setattr(self, f"hook_{name}", HookPoint())

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Embed(_Module):
    """The embeddings of tokens, or of positions."""

    def forward(self, index: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        return next(self.parameters())[index]


class LayerNorm(_Module):
    """Normalisation whose scale, and whose result before the weights, have hooks."""

    def __init__(self, cfg: DecoderConfig):
        super().__init__("scale normalized", w=(cfg.d_model,), b=(cfg.d_model,))
        self.eps = cfg.eps

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        x = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(x / scale) * self.w + self.b


class Attention(_Module):
    """Causal attention; inputs have a head axis where they are split by head."""

    def __init__(self, cfg: DecoderConfig):
        h, d, e = cfg.n_heads, cfg.d_model, cfg.d_head
        reads, biases = ({f"{kind}_{role}": shape for role in "QKV"}
                         for kind, shape in (("W", (h, d, e)), ("b", (h, e))))  # fmt: skip
        super().__init__("q k v attn_scores pattern z result",
                         W_O=(h, e, d), b_O=(d,), **reads, **biases)  # fmt: skip
        self.cfg = cfg

    OV = property(lambda self: FactoredMatrix(self.W_V, self.W_O))
    QK = property(lambda self: FactoredMatrix(self.W_Q, self.W_K.mT))

    def forward(self, *inputs: Float[Tensor, "row pos ..."]) -> Float[Tensor, EDITED]:
        def read(x: Tensor, role: str) -> Tensor:
            axes = "b p h d" if x.ndim == 4 else "b p d"
            weight, bias = getattr(self, f"W_{role}"), getattr(self, f"b_{role}")
            read = einsum(x, weight, f"{axes}, h d e -> b p h e") + bias
            return getattr(self, f"hook_{role.lower()}")(read)

        q, k, v = map(read, inputs, "QKV")
        scores = einsum(q, k, "b query h e, b key h e -> b h query key") / self.cfg.d_head**0.5
        future = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        scores = self.hook_attn_scores(scores.masked_fill(future, -torch.inf))
        pattern = self.hook_pattern(scores.softmax(-1))
        z = self.hook_z(einsum(pattern, v, "b h query key, b key h e -> b query h e"))
        if not self.cfg.use_attn_result:
            return einsum(z, self.W_O, "b p h e, h e d -> b p d") + self.b_O
        result = self.hook_result((z[..., None] * self.W_O).sum(-2))  # as there, to the last bit
        return result.sum(2) + self.b_O


class MLP(_Module):
    """Two layers and an exact GELU."""

    def __init__(self, cfg: DecoderConfig):
        d, m = cfg.d_model, cast(int, cfg.d_mlp)
        super().__init__("pre post", W_in=(d, m), b_in=(m,), W_out=(m, d), b_out=(d,))

    def forward(self, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, EDITED]:
        pre = self.hook_pre(x @ self.W_in + self.b_in)
        return self.hook_post(F.gelu(pre)) @ self.W_out + self.b_out


class Block(_Module):
    """Attention and an MLP that read the residual stream and add to it."""

    def __init__(self, cfg: DecoderConfig):
        super().__init__(
            "q_input k_input v_input mlp_in attn_out mlp_out resid_pre resid_mid resid_post"
        )
        self.cfg = cfg
        self.ln1, self.ln2 = LayerNorm(cfg), LayerNorm(cfg)
        self.attn, self.mlp = Attention(cfg), MLP(cfg)

    def forward(self, stream: Float[Tensor, "row pos d_model"]) -> Float[Tensor, EDITED]:
        pre = self.hook_resid_pre(stream)
        inputs = [pre] * 3
        if self.cfg.use_split_qkv_input:
            heads = repeat(pre, "b p d -> b p h d", h=self.cfg.n_heads)
            inputs = [getattr(self, f"hook_{role}_input")(heads.clone()) for role in "qkv"]
        mid = self.hook_resid_mid(pre + self.hook_attn_out(self.attn(*map(self.ln1, inputs))))
        mlp_in = self.hook_mlp_in(mid.clone()) if self.cfg.use_hook_mlp_in else mid
        return self.hook_resid_post(mid + self.hook_mlp_out(self.mlp(self.ln2(mlp_in))))


class Unembed(_Module):
    """Logits of the normalised stream."""

    def forward(self, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, EDITED]:
        return self.hook_out(self.hook_in(x) @ self.W_U + self.b_U)


def _of(path: str) -> Any:
    """A weight of the model under its own name."""
    return property(attrgetter(path))


def _stacked(path: str) -> Any:
    """A weight of every layer, stacked."""
    return property(lambda self: torch.stack([attrgetter(path)(block) for block in self.blocks]))


def _option(name: str) -> Any:
    return lambda self, value: setattr(self.cfg, name, value)


class HookedDecoder(HookedRootModule):
    """A model that is used as a HookedTransformer is, as far as this package and its docs do.

    Raises:
        TbttError: for text without a tokenizer, and for tokens that do not fit the context.
    """

    W_E, W_pos, W_U, b_U = map(_of, ("embed.W_E", "pos_embed.W_pos", "unembed.W_U", "unembed.b_U"))
    W_Q, W_K, W_V, W_O = (_stacked(f"attn.W_{role}") for role in "QKVO")
    b_Q, b_K, b_V, b_O = (_stacked(f"attn.b_{role}") for role in "QKVO")
    W_in, b_in, W_out, b_out = map(_stacked, ("mlp.W_in", "mlp.b_in", "mlp.W_out", "mlp.b_out"))
    OV = property(lambda self: FactoredMatrix(self.W_V, self.W_O))
    QK = property(lambda self: FactoredMatrix(self.W_Q, self.W_K.mT))
    set_use_split_qkv_input = _option("use_split_qkv_input")
    set_use_attn_result = _option("use_attn_result")
    set_use_hook_mlp_in = _option("use_hook_mlp_in")

    def __init__(self, cfg: DecoderConfig, tokenizer: "CharacterTokenizer | None" = None):
        super().__init__()
        self.cfg, self.tokenizer = cfg, tokenizer
        self.embed = Embed(W_E=(cfg.d_vocab, cfg.d_model))
        self.pos_embed = Embed(W_pos=(cfg.n_ctx, cfg.d_model))
        self.hook_embed, self.hook_pos_embed = HookPoint(), HookPoint()
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
        self.ln_final = LayerNorm(cfg)
        self.unembed = Unembed("in out", W_U=(cfg.d_model, cfg.d_vocab), b_U=(cfg.d_vocab,))
        self.setup()
        self.to(cfg.dtype)

    def forward(
        self, input: "Text | Int[Tensor, '*batch pos']", return_type: str | None = "logits",
        prepend_bos: bool | None = None,
    ) -> Any:  # fmt: skip
        """Logits `[batch, pos, d_vocab]`; "loss" is nats per token, "both" both, None neither."""
        tokens = input if isinstance(input, Tensor) else self.to_tokens(input, prepend_bos)
        tokens = tokens if tokens.ndim > 1 else tokens[None]
        if not 0 < tokens.shape[1] <= self.cfg.n_ctx:
            raise TbttError(f"a prompt has {tokens.shape[1]} tokens: give 1 to {self.cfg.n_ctx}")
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        stream = self.hook_embed(self.embed(tokens))
        stream = stream + self.hook_pos_embed(self.pos_embed(positions))
        for block in self.blocks:
            stream = block(stream)
        logits = self.unembed(self.ln_final(stream))
        if return_type in ("loss", "both"):
            loss = lm_cross_entropy_loss(logits, tokens)
            return loss if return_type == "loss" else (logits, loss)
        return None if return_type is None else logits

    def run_with_cache(self, *args: Any, remove_batch_dim: bool = False, **options: Any) -> Any:
        """The output, and the activations at every hook as an ActivationCache."""
        options["remove_batch_dim"] = remove_batch_dim
        out, activations = super().run_with_cache(*args, **options)
        return out, ActivationCache(activations, self, has_batch_dim=not remove_batch_dim)

    def to(self, *args: Any, print_details: bool = True, **options: Any) -> "HookedDecoder":
        """As torch's; nothing is printed."""
        super().to(*args, **options)
        self.cfg.dtype = self.unembed.W_U.dtype
        return self

    def to_tokens(
        self, input: Text, prepend_bos: bool | None = None, padding_side: str | None = None,
        move_to_device: bool = True, truncate: bool = True,
    ) -> Int[Tensor, "batch pos"]:  # fmt: skip
        """A text's tokens; a text longer than the context loses its left end."""
        if prepend_bos:
            raise TbttError("this model has no token for a beginning: leave prepend_bos out")
        side: dict[str, Any] = {"padding_side": padding_side} if padding_side else {}
        tokens = self._tokenizer()(
            input if isinstance(input, str) else list(input), return_tensors="pt", padding=True,
            truncation=truncate, max_length=self.cfg.n_ctx if truncate else None, **side,
        )["input_ids"]  # fmt: skip
        return tokens.to(self.W_E.device) if move_to_device else tokens

    def to_string(self, tokens: Any) -> str | list[str]:
        """The text of tokens, or a list of texts of a batch."""
        tokens = torch.as_tensor(tokens)
        if tokens.ndim > 1:
            return self._tokenizer().batch_decode(tokens)
        return self._tokenizer().decode(tokens)

    def to_str_tokens(self, input: Any, prepend_bos: bool | None = None) -> list[Any]:
        """Each token of a text as text; a list of texts gives a list of lists."""
        if isinstance(input, list):
            return [self.to_str_tokens(one, prepend_bos) for one in input]
        tokens = self.to_tokens(input, prepend_bos) if isinstance(input, str) else input
        return [self.to_single_str_token(int(token)) for token in torch.as_tensor(tokens).flatten()]

    def to_single_token(self, string: str) -> int:
        """The one token of a text."""
        return int(self.to_tokens(string, truncate=False).item())

    def to_single_str_token(self, int_token: int) -> str:
        """One token as text."""
        return str(self._tokenizer().decode([int_token]))

    def tokens_to_residual_directions(self, tokens: Any) -> Float[Tensor, "... d_model"]:
        """What is read from the stream as the logit of each token, or of a text of one token."""
        tokens = self.to_single_token(tokens) if isinstance(tokens, str) else tokens
        return self.W_U.mT[tokens]

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of the biases that are added to the stream before a layer, or before its MLP."""
        attention = self.b_O[: layer + mlp_input].sum(0)
        return attention + self.b_out[: layer * include_mlp_biases].sum(0)

    @torch.no_grad()
    def generate(
        self, input: "Text | Int[Tensor, 'batch pos']" = "", max_new_tokens: int = 10,
        stop_at_eos: bool = True, do_sample: bool = True, return_type: str = "input",
        verbose: bool = False, **sampling: Any,
    ) -> Any:  # fmt: skip
        """The input and what the model writes after it, as text where the input is text.

        Args:
            sampling: `temperature`, `top_k` and what else `sample_logits` takes.
        """
        is_text = not isinstance(input, Tensor)
        tokens = self.to_tokens(input, padding_side="left") if is_text else input
        end: Any = self.tokenizer.eos_token_id if stop_at_eos and self.tokenizer else None
        ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        for _ in range(max_new_tokens):
            logits = self(tokens[:, -self.cfg.n_ctx :])[:, -1]
            options: dict[str, Any] = {"temperature": 0.0}
            if do_sample:
                options = {**sampling, "tokens": tokens}
            written = sample_logits(logits, **options)
            if end is not None:
                written = written.masked_fill(ended, end)
                ended |= written == end
            tokens = torch.cat([tokens, written[:, None]], 1)
            if ended.all():
                break
        if return_type == "tokens" or (return_type == "input" and not is_text):
            return tokens
        texts = self._tokenizer().batch_decode(tokens)
        return texts[0] if len(texts) == 1 and not isinstance(input, list) else texts

    def _tokenizer(self) -> "CharacterTokenizer":
        if self.tokenizer is None:
            raise TbttError("this model has no tokenizer: give tokens instead of text")
        return self.tokenizer

"""Models whose circuits are known, since they are written by hand."""

import torch
from transformer_lens import HookedTransformer

from tbtt_interp.model import Shape, hooked_transformer, parameter_shapes
from tbtt_interp.seeds import Models
from tbtt_interp.tasks import Example, Vocabulary

DIGITS = "0123456789"
VOCABULARY = Vocabulary.of([DIGITS + "+-<=> \n"])
PLACES = 9


def copying_model() -> HookedTransformer:
    """Two heads: head 0 copies the operand b to "=", where it is answered; head 1 does nothing.

    Channels: one for each token, one for each position. At "=" (position 4) head 0 looks at b
    (position 3) alone, and writes the digit that stands there into the digits' own channels.
    """
    tokens = len(VOCABULARY)
    shape = Shape(layers=1, heads=2, d_model=tokens + PLACES, d_mlp=4, n_ctx=PLACES, d_vocab=tokens)
    p = {name: torch.zeros(size) for name, size in parameter_shapes(shape).items()}
    for norm in ("blocks.0.ln1.w", "blocks.0.ln2.w", "ln_final.w"):
        p[norm] += 1
    p["embed.W_E"][:, :tokens] = torch.eye(tokens)
    p["pos_embed.W_pos"][:, tokens:] = torch.eye(PLACES)
    digits = [VOCABULARY.index[c] for c in DIGITS]
    for channel, token in enumerate(digits):
        p["blocks.0.attn.W_V"][0, token, channel] = 1
        p["blocks.0.attn.W_O"][0, channel, token] = 2
    p["blocks.0.attn.W_Q"][0, tokens + 4, 12] = 10
    p["blocks.0.attn.W_K"][0, tokens + 3, 12] = 10
    return hooked_transformer({name: x.double() for name, x in p.items()}, shape)


def copying_examples() -> tuple[Example, ...]:
    """Equations whose answer is b."""
    return tuple(
        Example.of(f"<{a}+{b}=", f"{b}>", {"a": a, "operator": "+", "b": b})
        for a in range(10)
        for b in range(10)
    )


def copying_models() -> Models:
    """The model that copies, and its equations, for `over_seeds`."""
    return Models.of_models([copying_model()], copying_examples(), VOCABULARY, name="copying")

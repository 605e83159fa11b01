"""The installed TransformerLens: the model that it can hold, and what it gets wrong.

TransformerLens 3.9 has HookedTransformer. 4.0 removed it; there a HookedDecoder takes its place.
"""

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

    from tbtt_interp.tokenizer import CharacterTokenizer

PROCESSING = ("process_weights_", "fold_layer_norm", "center_writing_weights",
              "fold_value_biases", "center_unembed")  # fmt: skip


def empty_model(
    settings: Mapping[str, Any], tokenizer: "CharacterTokenizer | None" = None
) -> "HookedTransformer":
    """A model whose weights are to be loaded: a HookedTransformer, or what stands in for one.

    Args:
        settings: of a HookedTransformerConfig.
    Raises:
        TbttError: if TransformerLens is not installed, or of a version that is not supported.
    """
    if lens_version() >= (4,):
        from tbtt_interp.decoder import DecoderConfig, HookedDecoder

        return cast("HookedTransformer", HookedDecoder(DecoderConfig(**settings), tokenizer))
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(**settings, init_weights=False)
    model = HookedTransformer(config, tokenizer, move_to_device=False)
    if config.d_mlp == config.d_model:  # folding would tell an MLP's axes apart by their sizes
        for name in PROCESSING:
            setattr(model, name, _refuse)
    return model


def lens_version() -> tuple[int, ...]:
    """The installed version: from 3.9 on and below 4, or from 4.3 on and below 5."""
    try:
        installed = version("transformer-lens")
    except PackageNotFoundError:
        installed = ""
    known = re.match(r"(3)\.(9|[1-9]\d)\b|(4)\.([3-9]|[1-9]\d)\b", installed)
    if not known:
        which = f" {installed} is not supported" if installed else " is not installed"
        raise TbttError(
            f"TransformerLens{which}: pip install 'transformer-lens>=3.9,<4', or '>=4.3,<5'"
        )
    return tuple(int(part) for part in known.groups() if part)


def check_hooks(model: object) -> None:
    """Raises a TbttError for a TransformerBridge, whose hooks are not HookedTransformer's.

    Its `hook_resid_mid` is what the second LayerNorm reads, so that an edit misses the stream.
    """
    if any(kind.__name__ == "TransformerBridge" for kind in type(model).__mro__):
        raise TbttError(
            "a TransformerBridge cannot be used here: its hooks change other things than "
            "HookedTransformer's, and the logits would be wrong. Give run.model() of a run, or a "
            "HookedTransformer of 'transformer-lens>=3.9,<4'"
        )


def _refuse(*_: Any, **__: Any) -> None:
    raise TbttError(
        "weight processing is refused: TransformerLens 3.9 makes an error in a model whose MLP is "
        "as wide as its residual stream, and the logits change; use the model as it is"
    )

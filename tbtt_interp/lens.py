"""The installed TransformerLens: whether this package knows it, and what it gets wrong."""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

PROCESSING = ("process_weights_", "fold_layer_norm", "center_writing_weights",
              "fold_value_biases", "center_unembed")  # fmt: skip


def check_lens() -> None:
    """Checks that a TransformerLens with HookedTransformer is installed.

    Raises:
        TbttError: if there is none, or another version.
    """
    try:
        found = version("transformer-lens")
    except PackageNotFoundError:
        found = "not installed"
    if not re.match(r"3\.(9|[1-9]\d)\b", found):
        why = ", which has no HookedTransformer" if re.match(r"[4-9]", found) else ""
        raise TbttError(
            f"models need TransformerLens 3.9, and it is {found}{why}: "
            "pip install 'transformer-lens>=3.9,<4'"
        )


def refuse_processing(model: "HookedTransformer") -> None:
    """Makes a model refuse weight processing where TransformerLens would misread its MLP.

    Folding LayerNorm and centring tell an MLP's axes apart by their sizes. Where both are the same,
    a wrong axis is summed and the logits change.
    """
    if model.cfg.d_mlp == model.cfg.d_model:
        for name in PROCESSING:
            setattr(model, name, _refuse)


def _refuse(*_: Any, **__: Any) -> None:
    raise TbttError(
        "weight processing is refused: TransformerLens folds a model whose MLP is as wide as its "
        "residual stream wrongly, and the logits change; use the model as it is"
    )

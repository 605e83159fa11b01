"""TransformerLens: one that is not known is named, and what it gets wrong is refused."""

import copy
import dataclasses
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import run_with
from tbtt_interp.lens import lens_version
from tbtt_interp.model import Shape, hooked_transformer, initial_parameters

IS_4 = lens_version() >= (4,)
SHAPE = Shape(layers=1, heads=1, d_model=8, d_mlp=8, n_ctx=5, d_vocab=7)


@pytest.mark.skipif(IS_4, reason="on TransformerLens 4 these models have no weight processing")
@pytest.mark.parametrize("name", ["process_weights_", "fold_layer_norm", "center_writing_weights"])
def test_weight_processing_is_refused_for_such_a_model_and_only_for_it(name):
    from transformer_lens import HookedTransformer

    square, wider = (
        hooked_transformer(initial_parameters(shape, seed=0), shape)
        for shape in (SHAPE, dataclasses.replace(SHAPE, d_mlp=16))
    )
    for model in (square, copy.deepcopy(square)):
        with pytest.raises(TbttError, match=r"whose MLP is as wide .* use the model"):
            getattr(model, name)()
    assert getattr(wider, name).__func__ is getattr(HookedTransformer, name)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("4.1.0", r"need TransformerLens 3\.9 .*, or 4\.3 .*; version 4\.1\.0 is installed: pip"),
        ("2.16.1", r"version 2\.16\.1 is installed: pip install 'transformer-lens>=3\.9,<4'"),
        (None, "none is installed: pip install"),
    ],
)
def test_another_transformerlens_is_named_in_one_line(found, message, monkeypatch):
    def version(_: str) -> str:
        if found is None:
            raise PackageNotFoundError
        return found

    monkeypatch.setattr("tbtt_interp.lens.version", version)
    with pytest.raises(TbttError, match=message):
        hooked_transformer(initial_parameters(SHAPE, seed=0), SHAPE)


def test_a_bridge_whose_hooks_miss_edits_of_the_stream_is_refused():
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        n_layers=1, n_heads=1, d_model=8, d_head=8, d_mlp=8, n_ctx=5, d_vocab=7, act_fn="gelu"
    )
    bridge, tokens = TransformerBridge.boot_native(config), torch.tensor([[1, 2, 3]])
    with pytest.raises(TbttError, match=r"a TransformerBridge cannot .*\. Give run\.model\(\)"):
        run_with(bridge, tokens, [("blocks.0.hook_resid_mid", lambda x: x)])

"""TransformerLens: one that is not known is named, and what it gets wrong is refused."""

import copy

import pytest
import torch

from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import run_with
from tbtt_interp.lens import lens_version
from tbtt_interp.model import Shape, hooked_transformer, initial_parameters

IS_4 = lens_version() >= (4,)
SHAPE = Shape(layers=1, heads=1, d_model=8, d_mlp=8, n_ctx=5, d_vocab=7)


def change_by_folding(d_mlp: int) -> float:
    """The largest change of a log-probability when LayerNorm is folded into the weights.

    A minimal reproduction: it needs nothing of this package.
    """
    sizes = {"n_layers": 1, "n_heads": 1, "d_model": 8, "d_head": 8, "d_mlp": d_mlp, "n_ctx": 5,
             "d_vocab": 7, "act_fn": "gelu", "normalization_type": "LN", "dtype": torch.float64,
             "device": "cpu"}  # fmt: skip
    if IS_4:
        from transformer_lens import TransformerBridge, TransformerBridgeConfig

        model = TransformerBridge.boot_native(TransformerBridgeConfig(**sizes)).double()
        process = model.process_weights
    else:
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        model = HookedTransformer(HookedTransformerConfig(**sizes))
        process = model.process_weights_
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    before = model(tokens).log_softmax(-1).detach()
    process(fold_ln=True, center_writing_weights=True, center_unembed=True)
    return float((model(tokens).log_softmax(-1).detach() - before).abs().max())


def test_transformerlens_folds_wrongly_where_the_mlp_is_as_wide_as_the_stream():
    """4.3.0 does so as well. Once this fails, it is mended, and the refusal below can go."""
    assert change_by_folding(d_mlp=16) < 1e-5
    assert change_by_folding(d_mlp=8) > 0.1


@pytest.mark.skipif(IS_4, reason="on TransformerLens 4 these models have no weight processing")
@pytest.mark.parametrize("name", ["process_weights_", "fold_layer_norm", "center_writing_weights"])
def test_weight_processing_is_refused_for_such_a_model_and_only_for_it(name):
    for d_mlp in (8, 16):
        shape = Shape(layers=1, heads=1, d_model=8, d_mlp=d_mlp, n_ctx=5, d_vocab=7)
        model = hooked_transformer(initial_parameters(shape, seed=0), shape)
        for one in (model, copy.deepcopy(model)):
            if d_mlp == 8:
                with pytest.raises(TbttError, match=r"whose MLP is as wide .* use the model"):
                    getattr(one, name)()
            else:
                from transformer_lens import HookedTransformer

                assert getattr(one, name).__func__ is getattr(HookedTransformer, name)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("4.1.0", r"need TransformerLens 3\.9, or 4\.3 .*, and it is 4\.1\.0: pip install"),
        ("5.0.0", r"it is 5\.0\.0: pip install"),
        ("2.16.1", r"it is 2\.16\.1: pip install 'transformer-lens>=3\.9,<4'"),
        (None, "it is not installed: pip install"),
    ],
)
def test_another_transformerlens_is_named_in_one_line(found, message, monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def version(_: str) -> str:
        if found is None:
            raise PackageNotFoundError
        return found

    monkeypatch.setattr("tbtt_interp.lens.version", version)
    with pytest.raises(TbttError, match=message):
        hooked_transformer(initial_parameters(SHAPE, seed=0), SHAPE)


def test_a_bridge_misses_edits_of_the_stream_and_is_refused():
    """Its `hook_resid_mid` feeds the MLP alone: without what it reads, the logits stay finite."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        n_layers=1, n_heads=1, d_model=8, d_head=8, d_mlp=8, n_ctx=5, d_vocab=7, act_fn="gelu"
    )
    bridge, tokens = TransformerBridge.boot_native(config), torch.tensor([[1, 2, 3]])
    site, blank = "blocks.0.hook_resid_mid", torch.zeros(1, 3, 8)
    logits = bridge.run_with_hooks(tokens, fwd_hooks=[(site, lambda *_, hook: blank)])
    assert not torch.allclose(logits, logits[:, :1].expand_as(logits)), "positions still differ"
    model = hooked_transformer(initial_parameters(SHAPE, seed=0), SHAPE)
    logits = run_with(model, tokens, [(site, lambda _: blank)])
    assert torch.allclose(logits, logits[:, :1].expand_as(logits))
    with pytest.raises(TbttError, match=r"a TransformerBridge's hooks .*: give run\.model\(\)"):
        run_with(bridge, tokens, [(site, lambda _: blank)])

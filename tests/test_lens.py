"""TransformerLens: one that is not known is named, and what it gets wrong is refused."""

import copy
import dataclasses
import io
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pandas as pd
import pytest
import torch

import tbtt_interp as tbtt
from tbtt_interp.analyses.pairs import one_pair
from tbtt_interp.analyses.patching import patching_table
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import run_with
from tbtt_interp.lens import lens_version
from tbtt_interp.model import Shape, hooked_transformer, initial_parameters, is_matrix

IS_4 = lens_version() >= (4,)
SHAPE = Shape(layers=1, heads=1, d_model=8, d_mlp=8, n_ctx=5, d_vocab=7)
SITES = ["blocks.0.attn.hook_z", "blocks.0.hook_resid_mid", "blocks.1.attn.hook_pattern",
         "blocks.1.hook_mlp_out"]  # fmt: skip


def probes() -> pd.DataFrame:
    """Of two models that ship, at one site."""
    models, site = tbtt.Models.of(tbtt.load_run("arithmetic-small-line")).take(2), SITES[1]
    return tbtt.probe_grid(models, ["carry", "sign"], sites=[site], positions=[-1], controls=5)


def patching() -> pd.DataFrame:
    """Of a model of two layers and two heads, with weights far from where training begins."""
    shape = Shape(layers=2, heads=2, d_model=14, d_mlp=28, n_ctx=9, d_vocab=17)
    drawn = initial_parameters(shape, seed=0).items()
    parameters = {name: (20 if is_matrix(name) else 1) * x.double() for name, x in drawn}
    task = tbtt.load_task("arithmetic")
    model = hooked_transformer(parameters, shape)
    models = tbtt.Models.of_models([model], task.examples, task.vocabulary)
    table = patching_table(models, one_pair(models.shared_prompts, "<3+4=", "<3+9="), sites=SITES)
    chosen = "direction == 'denoising' and role == 'answer' and metric == 'logit difference'"
    return table.query(chosen)


def written(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.6g")


@pytest.mark.parametrize("table", [probes, patching])
def test_tables_are_those_that_transformerlens_3_9_gave(table):
    """Which wrote the files, by `python tests/test_lens.py`."""
    expected = pd.read_csv(Path(__file__).with_name(f"lens_{table.__name__}.csv"))
    found = pd.read_csv(io.StringIO(written(table())))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)


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
        ("4.1.0", r"^TransformerLens 4\.1\.0 is not supported: pip install"),
        ("2.16.1", r"pip install 'transformer-lens>=3\.9,<4', or '>=4\.3,<5'$"),
        (None, "^TransformerLens is not installed: pip install"),
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


if __name__ == "__main__":
    for made in (probes, patching):
        Path(__file__).with_name(f"lens_{made.__name__}.csv").write_text(written(made()))

"""What stands in for HookedTransformer on TransformerLens 4 is compared with it, on 3.9."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformer_lens.HookedTransformer", reason="compared on TransformerLens 3.9")

import tbtt_interp as tbtt
from tbtt_interp.activations import site_names
from tbtt_interp.analyses.registry import ANALYSES
from tbtt_interp.decoder import DecoderConfig, HookedDecoder
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import gradients, split_inputs
from tbtt_interp.lens import empty_model
from tbtt_interp.model import EPSILON, Shape

SHAPE = Shape(layers=2, heads=2, d_model=14, d_mlp=14, n_ctx=9, d_vocab=17)
SPLIT = {
    f"blocks.{layer}.{name}"
    for layer in range(SHAPE.layers)
    for name in ("hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in", "attn.hook_result")
}
MID = "blocks.0.hook_resid_mid"
WEIGHTS = ["W_E", "W_pos", "W_U", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "b_U", "b_Q", "b_K",
           "b_V", "b_O", "b_in", "b_out"]  # fmt: skip
TOKENS = torch.randint(0, SHAPE.d_vocab, (3, 6), generator=torch.Generator().manual_seed(1))
SETTINGS = {
    "n_layers": 2, "n_heads": 2, "d_model": 14, "d_head": 7, "d_mlp": 14, "n_ctx": 9,
    "d_vocab": 17, "act_fn": "gelu", "normalization_type": "LN", "eps": EPSILON, "device": "cpu",
    "dtype": torch.float64, "default_prepend_bos": False,
}  # fmt: skip


def decoder_like(hooked: Any) -> HookedDecoder:
    """A decoder with a HookedTransformer's weights."""
    settings = {name: getattr(hooked.cfg, name) for name in SETTINGS}
    decoder = HookedDecoder(DecoderConfig(**settings), hooked.tokenizer)
    missing = decoder.load_state_dict(hooked.state_dict(), strict=False).missing_keys
    assert not missing, "each parameter has HookedTransformer's name"
    return decoder.eval()


@pytest.fixture(scope="module")
def pair() -> tuple[Any, HookedDecoder]:
    """Random models in float64, far from where training begins, with biases."""
    hooked, generator = empty_model(SETTINGS), torch.Generator().manual_seed(0)
    for parameter in hooked.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    return hooked, decoder_like(hooked)


@pytest.fixture(scope="module")
def speaking() -> tuple[Any, HookedDecoder]:
    hooked = tbtt.load_run("arithmetic-small-line").model()
    return hooked, decoder_like(hooked)


def close(found: Tensor, expected: Tensor) -> bool:
    """Equal but for the order of sums in float64; masked scores are infinite in both."""
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-9, atol=1e-11)


def on_both(pair: tuple[Any, HookedDecoder], of: Callable[[Any], Any]) -> tuple[Any, Any]:
    hooked, decoder = (of(model) for model in pair)
    return decoder, hooked


def test_hooks_are_visited_in_the_same_order_and_hold_the_same(pair):
    assert site_names(pair[1]) == site_names(pair[0])
    found, expected = on_both(pair, lambda model: model.run_with_cache(TOKENS)[1])
    for site in expected:
        assert close(found[site], expected[site]), site
    assert set(pair[1].hook_dict) == {n for n in pair[0].hook_dict if "attn_in" not in n}


def test_an_edit_at_each_hook_changes_the_logits_as_much(pair):
    def change(values: Tensor, hook: Any) -> Tensor:
        wave = torch.arange(values.numel(), dtype=values.dtype).view(values.shape).sin()
        return 1.2 * values + 0.3 * wave

    for site in [*site_names(pair[0]), *sorted(SPLIT)]:

        def edited(model: Any, site: str = site) -> Tensor:
            with split_inputs(model) if site in SPLIT else torch.no_grad():
                return model.run_with_hooks(TOKENS, fwd_hooks=[(site, change)])

        found, expected = on_both(pair, edited)
        assert close(found, expected), site
        assert not close(found, pair[1](TOKENS)), site


def test_gradients_at_each_hook_are_the_same(pair):
    def found_by(model: Any) -> dict[str, Tensor]:
        with split_inputs(model):
            names = [*site_names(model)]
            assert set(names) >= SPLIT
            return gradients(
                model, TOKENS, names, lambda logits: logits.log_softmax(-1)[..., 3].sum()
            )

    found, expected = on_both(pair, found_by)
    for site in expected:
        assert close(found[site], expected[site]), site


def test_caches_circuits_weights_and_loss_are_the_same(pair):
    def parts(model: Any) -> list[Tensor]:
        cache = model.run_with_cache(TOKENS)[1]
        return [
            cache.accumulated_resid(incl_mid=True), cache.decompose_resid(),
            cache.stack_head_results(), cache.logit_attrs(cache.decompose_resid(), tokens=5),
            model.blocks[0].attn.OV.AB, model(TOKENS, return_type="loss"),
            *(getattr(model, name) for name in WEIGHTS),
        ]  # fmt: skip

    for found, expected in zip(*on_both(pair, parts), strict=True):
        assert close(found, expected)
    for is_mid in (False, True):  # HookedTransformer adds biases up in float32
        found, expected = on_both(pair, lambda model, mid=is_mid: model.accumulated_bias(1, mid))
        torch.testing.assert_close(found.float(), expected)
    batchless = pair[1].run_with_cache(TOKENS[:1], remove_batch_dim=True)[1]
    assert batchless["hook_embed"].shape == (6, 14)


@pytest.mark.parametrize(
    "said",
    [
        lambda m: m.to_tokens(["<5+7=", "<1-2=1>"]).tolist(),
        lambda m: m.to_tokens("<1+2=3>\n<5+7=").tolist(),
        lambda m: m.to_str_tokens(["<5", "+7="]),
        lambda m: m.to_str_tokens(torch.tensor([1, 2])),
        lambda m: [m.to_string(torch.tensor(x)) for x in ([1, 2, 3], [[1, 2], [3, 4]])],
        lambda m: m.to_single_token("+"),
        lambda m: m.to_single_str_token(3),
        lambda m: m.generate("<5+7=", max_new_tokens=4, do_sample=False, verbose=False),
        lambda m: m.generate(["<5+7=", "<2+1="], max_new_tokens=3, do_sample=False, verbose=False),
        lambda m: m.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=6, temperature=0.0,
                             stop_at_eos=False, verbose=False).tolist(),
    ],
)  # fmt: skip
def test_text_is_read_and_written_in_the_same_way(speaking, said):
    found, expected = on_both(speaking, said)
    assert found == expected


def test_sampling_follows_torch_s_seed(speaking):
    texts = []
    for _ in range(2):
        torch.manual_seed(0)
        texts.append(speaking[1].generate("<5+7=", max_new_tokens=3, temperature=2.0, top_k=5))
    assert texts[0] == texts[1] and texts[0].startswith("<5+7=")


@pytest.mark.parametrize("name", [*sorted(set(ANALYSES) - {"overview"}), "probes"])
def test_every_analysis_gives_the_same_tables(name, file_run, monkeypatch):
    quick = {"patching": {"pairs": 8}, "paths": {"pairs": 8}, "order": {"site": [MID]},
             "probes": {"controls": 3, "positions": [-1]}}.get(name, {})  # fmt: skip

    def tables() -> dict[str, pd.DataFrame]:
        models = tbtt.Models.of(file_run).take(1)
        if name == "probes":
            return {name: tbtt.probe_grid(models, **quick)}
        return ANALYSES[name](models, **quick).tables

    expected = tables()
    monkeypatch.setattr("tbtt_interp.lens.lens_version", lambda: (4, 3))
    assert type(file_run.model()).__name__ == "HookedDecoder"
    found = tables()
    assert found.keys() == expected.keys()
    for key, table in expected.items():
        assert_same_table(found[key], table)


def assert_same_table(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Counts and words are equal, and values to 1e-4 of their column's largest, in float32."""
    assert found.shape == expected.shape
    for name, column in expected.items():
        if column.dtype.kind == "f":
            largest = column.abs().max()
            assert np.allclose(found[name], column, 0, 1e-4 * largest, equal_nan=True), name
        else:
            assert found[name].equals(column), name


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda m: m(torch.zeros(1, 10, dtype=torch.long)), "has 10 tokens: give 1 to 9"),
        (lambda m: m("<5+7=", prepend_bos=True), "no token for a beginning: leave prepend_bos"),
    ],
)
def test_what_it_cannot_read_is_said_in_a_line(speaking, pair, asked, message):
    with pytest.raises(TbttError, match=message):
        asked(speaking[1])
    with pytest.raises(TbttError, match="has no tokenizer: give tokens instead of text"):
        pair[1]("<5+7=")

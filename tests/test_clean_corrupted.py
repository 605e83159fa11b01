"""Patching between two typed prompts says where they differ, with any tokenizer."""

from typing import TYPE_CHECKING

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tbtt_interp as tbtt
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

PAIR = {"clean": "<3+4=", "corrupted": "<3+5="}
STREAM = "blocks.0.hook_resid_pre"


@pytest.fixture(scope="module")
def model() -> "HookedTransformer":
    return tbtt.load_run("arithmetic-small-line").model()


def test_the_changed_operand_restores_all_and_unchanged_positions_nothing(model):
    table = tbtt.activation_patching(model, **PAIR)
    restored = table[table["site"] == STREAM].set_index("pos")["fraction_restored"]
    assert restored[-2] == pytest.approx(1, abs=1e-6)
    assert (restored[[-1, -3, -4, -5]] == 0).all()
    last = table[(table["site"] == "blocks.0.hook_resid_post") & (table["pos"] == -1)]
    assert last["fraction_restored"].item() == pytest.approx(1, abs=1e-6)
    clean, corrupted = (model(text)[0, -1].detach() for text in PAIR.values())
    gap = clean - corrupted
    total = float(gap[clean.argmax()] - gap[corrupted.argmax()])
    assert table["total_effect"].iloc[0] == pytest.approx(total, rel=1e-5)
    assert table["null_fraction"].isna().all(), "a null that was not asked for is not there"


def test_a_null_prompt_is_patched_from_as_well(model):
    """At the stream's only operand that differs, patching makes the prompt that null one."""
    table = tbtt.activation_patching(model, **PAIR, null="<3+6=", sites=[STREAM]).set_index("pos")
    clean, corrupted, null = (model(x)[0, -1].detach() for x in (*PAIR.values(), "<3+6="))
    moved = null - corrupted
    expected = float(moved[clean.argmax()] - moved[corrupted.argmax()])
    found = table["null_fraction"] * table["total_effect"]
    assert found[-2] == pytest.approx(expected, rel=1e-4)
    assert (found[[-1, -3, -4, -5]] == 0).all()


def test_words_of_another_tokenizer_and_its_token_for_a_beginning():
    words = {"<s>": 0, "the": 1, "cat": 2, "dog": 3, "sat": 4, "ran": 5}
    backend = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>")
    pytest.importorskip("transformer_lens.HookedTransformer", reason="TransformerLens 4 has none")
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=2, n_heads=2, d_model=8, d_head=4, n_ctx=6, d_vocab=6, act_fn="gelu", seed=3
    )
    other = HookedTransformer(config, tokenizer)
    table = tbtt.activation_patching(
        other, clean="the cat", corrupted="the dog", answers=("sat", "ran"), sites=[STREAM]
    )
    assert table["pos"].min() == -3, "with the token for a beginning"
    assert table.set_index("pos")["fraction_restored"][-1] == pytest.approx(1, abs=1e-5)
    gap = other("the cat")[0, -1].detach().double() - other("the dog")[0, -1].detach().double()
    expected = pytest.approx(float(gap[4] - gap[5]), rel=1e-4, abs=1e-6)
    assert table["total_effect"].iloc[0] == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"corrupted": "<3+15="}, "has 5 tokens and '<3.15=' 6: patching goes position by"),
        ({"corrupted": "<3+4="}, "have the same answer, so there is nothing to restore: give answ"),
        ({"corrupted": ["<3+5=", "<3+6="]}, "need equally many prompts"),
        ({"clean": ""}, "'' has 0 tokens: give 1 to 9"),
        ({"clean": "<3×4="}, "which this model has no token for"),
        ({"sites": ["blocks.7.hook_resid_pre"]}, "site 'blocks.7.hook_resid_pre' is not there"),
    ],
)
def test_what_cannot_be_patched_is_said_in_a_line(asked, message, model):
    with pytest.raises(TbttError, match=message):
        tbtt.activation_patching(model, **PAIR | asked)


def test_a_run_gives_every_model_and_a_model_without_a_tokenizer_takes_an_encoder():
    run = tbtt.load_run("arithmetic-small-line")
    pairs = {"clean": ["<3+4=", "<1+2="], "corrupted": ["<3+5=", "<1+3="]}
    table = tbtt.activation_patching(run, **pairs, sites=[STREAM])
    assert table.groupby(["model", "clean"]).ngroups == 2 * len(run.seeds)
    silent = run.model()
    silent.tokenizer = None
    with pytest.raises(TbttError, match="has no tokenizer: give encoder="):
        tbtt.activation_patching(silent, **PAIR)
    table = tbtt.activation_patching(silent, **PAIR, encoder=run.task.vocabulary, sites=[STREAM])
    assert torch.tensor(table["fraction_restored"]).max() == pytest.approx(1, abs=1e-6)

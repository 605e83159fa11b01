"""Attention by token role, its knockouts, and QK and OV circuits, on models that are known."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import VOCABULARY, copying_models
from transformer_lens import FactoredMatrix

from tbtt_interp.activations import cached
from tbtt_interp.analyses import attention, heads
from tbtt_interp.analyses.token_roles import PROMPT, RoleBatch, batches_by_context
from tbtt_interp.calibration.design import DIGITS
from tbtt_interp.interventions import knock_out_attention, random_pairs, uniform_attention
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import Models, over_seeds


@pytest.mark.parametrize("fixture", ["file_run", "facts_run", "line_run"])
def test_every_token_has_the_role_of_its_character(fixture, request):
    """The rows of both contexts, decoded, have what their roles name; also where they are cut."""
    run = request.getfixturevalue(fixture)
    prompts = PromptSet.of_seed(run, run.seeds[1])
    contexts = batches_by_context(prompts)
    assert len(contexts) == (1 if fixture == "line_run" else 2)
    for context in contexts:
        of_rows = context.batch.row_example, context.batch.tokens.tolist(), context.roles
        for k, row, roles in zip(*of_rows, strict=True):
            example, text = prompts.examples[k], run.task.vocabulary.decode(row)
            labels = {name: str(example.labels.get(name)) for name in ("a", "b", "operator")}
            expected = {"<": "<", "=": "=", "newline": "\n"} | labels
            for character, role in zip(text, roles, strict=True):
                assert character == expected.get(role, character)

            def shown(name: str, text: str = text, roles: list[str] = roles) -> str:
                return "".join(c for c, r in zip(text, roles, strict=True) if r.startswith(name))

            assert str(example.labels.get("country", "")).endswith(shown("country"))
            assert example.answer.startswith(shown("answer"))


def test_the_preceding_line_is_that_of_the_model_s_own_file(file_run):
    prompts = PromptSet.of_seed(file_run, file_run.seeds[0])
    batch = batches_by_context(prompts)[1].batch
    text = "".join(file_run.tasks[0].file(file_run.config.order_seeds[0]))
    for k in batch.first_answers.tolist():
        example = prompts.examples[batch.answer_example[k]]
        if not example.held_out and not text.startswith(example.line):
            row = batch.tokens[batch.answer_row[k], : batch.answer_pos[k] + 1]
            assert VOCABULARY.decode(row.tolist()) in text


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_random_pairs_are_as_many_other_visible_keys(seed, share):
    generator = np.random.default_rng(seed)
    causal = torch.ones(4, 7, 7, dtype=torch.bool).tril()
    pairs = torch.from_numpy(generator.random((4, 7, 7)) < share) & causal
    drawn = random_pairs(pairs, generator)
    assert not (drawn & pairs).any() and not (drawn & ~causal).any()
    room = (causal & ~pairs).sum(-1)
    assert (drawn.sum(-1) == torch.minimum(pairs.sum(-1), room)).all()


def test_a_knockout_takes_attention_from_its_pairs_and_from_no_other_head():
    pattern = uniform_attention(5).expand(3, 2, 5, 5)
    pairs = torch.zeros(3, 5, 5, dtype=torch.bool)
    pairs[:, 4, 2] = True
    pairs[:, 0, 0] = True
    after = knock_out_attention(0, 1, pairs)[1](pattern)
    assert torch.equal(after[:, 0], pattern[:, 0])
    assert after[0, 1, 4].tolist() == pytest.approx([0.25, 0.25, 0, 0.25, 0.25])
    assert after[0, 1, 0].tolist() == [0] * 5  # nothing is left to attend to


def test_the_planted_attention_is_what_costs():
    models = copying_models()
    weights, drops = (
        over_seeds(models, f) for f in (attention.attention_by_role, attention.knockouts_by_role)
    )
    table = weights.merge(drops).query("query == '='").set_index(["head", "key"])
    assert table["weight"][0, "b"] == pytest.approx(1, abs=1e-6)
    assert table["logprob_drop"][0, "b"] > 1 > table["logprob_drop_random"][0, "b"] + 0.9
    assert table.drop(index=(0, "b"))["logprob_drop"].abs().max() < 1e-6
    assert table["uniform"].tolist() == pytest.approx([0.2] * len(table))


def test_the_planted_head_copies_and_attends_by_position_alone():
    model, tokens = copying_models().first, DIGITS
    with torch.no_grad():
        ov, idle = (heads.ov_circuit(model, 0, head, tokens) for head in (0, 1))
        qk = heads.qk_circuit(model, 0, 0, tokens).AB
    assert (ov.AB.argmax(1) == torch.arange(10)).all()
    assert heads.copying_score(ov) > 0.9 and heads.copying_score(FactoredMatrix(-ov.A, ov.B)) < -0.9
    assert heads.copying_score(idle) == 0 and float(qk.std()) < 1e-6


def test_circuits_are_what_the_model_computes(line_run):
    """Without positions, scores are QK; and of one source, a head writes its row of OV."""
    model, tokens = line_run.model().to(torch.float64), torch.arange(len(VOCABULARY))
    model.W_pos.data.zero_()
    scores, written = "blocks.0.attn.hook_attn_scores", "blocks.0.hook_attn_out"
    pairs = torch.cartesian_prod(tokens, tokens)  # query, key
    of_pairs = cached(model, pairs.flip(1), [scores])[1][scores][:, 0, 1, 0]
    alone = cached(model, tokens[:, None], [written])[1][written][:, 0]
    with torch.no_grad():
        of = (model, 0, 0, tokens.tolist())
        qk, ov = heads.qk_circuit(*of).AB, heads.ov_circuit(*of).AB
        centred = (alone - alone.mean(-1, keepdim=True)) * model.ln_final.w
        logits = centred @ model.W_U
    torch.testing.assert_close(qk.flatten(), of_pairs)
    torch.testing.assert_close(ov, logits - logits.mean(-1, keepdim=True))


def test_detection_patterns_by_hand():
    tokens = torch.tensor([[1, 2, 0, 1, 2, 0]])  # 0 ends a line
    kinds = heads.detection_patterns(tokens, newline=0)
    pairs = {kind: mask[0].nonzero().tolist() for kind, mask in kinds.items()}
    assert pairs["previous token"] == [[q, q - 1] for q in range(1, 6)]
    assert pairs["induction"] == [[3, 1], [4, 2], [5, 3]]
    assert pairs["previous line"] == [[q, k] for q in (3, 4, 5) for k in (0, 1, 2)]
    assert "previous line" not in heads.detection_patterns(tokens, newline=None)


def test_heads_are_compared_with_uniform_attention(file_run):
    prompts = PromptSet.of_seed(file_run, file_run.seeds[0])
    untrained = heads.head_scores(Models.of(file_run).untrained[0], prompts).set_index("kind")
    assert set(untrained.index) == {"previous token", "induction", "previous line", "copying"}
    uniform = np.mean([1 / n for n in range(2, 10)])
    assert untrained["uniform"]["previous token"] == pytest.approx(uniform)
    assert untrained["score"]["previous token"] == pytest.approx(uniform, abs=0.01)
    text = "".join(file_run.tasks[0].file(file_run.config.order_seeds[0]))
    windows = heads.training_texts(prompts)
    assert windows.shape == (200, 9)
    assert all(VOCABULARY.decode(row) in text for row in windows.tolist())


def test_claims_compare_the_most_needed_key_with_random_ones(file_run):
    result = attention.analyse_attention(file_run, examples=range(0, 200, 7))
    summary = result.tables["attention"]
    assert {"uniform", "untrained", "logprob_drop_random"} <= set(result.display.columns)
    claim = result.claim("prompt: without attention from =")
    rows = summary[(summary["context"] == PROMPT) & (summary["query"] == "=")]
    assert claim.effect.mean == rows["accuracy_drop"].max() and claim.effect.n == 2
    assert claim.null_name == "without attention to random keys"
    induction = result.claim("Induction attention is highest in head 0.0")
    assert induction.null_name == "uniform attention"
    assert not attention.attention_claims(summary.assign(accuracy_drop=np.nan))
    drawn = result.figures["attention"]().data[0]
    assert list(drawn["x"])[:2] == ["previous line", "newline"]  # in the order of the text


def test_tokens_of_another_tokenizer_have_numbers_and_one_role():
    class Pairs:
        def encode(self, text: str) -> list[int]:
            return [ord(c) % 10 for c in text[::2]]

    prompts = dataclasses.replace(copying_models().shared_prompts, vocabulary=Pairs())
    assert RoleBatch.of(prompts).in_order() == ["prompt"]

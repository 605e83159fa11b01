"""Attention is read by what stands there, cut where it says, and heads are what they are."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import DIGITS, VOCABULARY, copying_model, copying_subject

from tbtt_interp.analyses.attention import (
    analyse_attention,
    attention_table,
    mean_pattern,
    patterns_table,
    replaced_table,
)
from tbtt_interp.analyses.contexts import ALONE, contexts_of, prompt_roles
from tbtt_interp.analyses.edges import cut, even_pattern, random_edges
from tbtt_interp.analyses.heads import (
    copying,
    head_scores,
    kinds_of_attention,
    ov_circuit,
    qk_circuit,
    texts_of,
)
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.runs import Run


@pytest.fixture(scope="module")
def subject(file_run: Run) -> Subject:
    return Subject.of_run(file_run)


@pytest.mark.parametrize("fixture", ["file_run", "facts_run", "line_run"])
def test_every_token_has_the_role_of_its_character(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    """The rows of both contexts, decoded, say what their roles say; also where they are cut."""
    subject = Subject.of_run(request.getfixturevalue(fixture))
    contexts = contexts_of(subject, 1, range(len(subject.examples)))
    assert len(contexts) == (1 if fixture == "line_run" else 2)
    literal = {"<": "<", "=": "=", "newline": "\n"}
    for context in contexts:
        q = context.questions
        for k, (row, roles) in enumerate(zip(q.tokens.tolist(), context.roles, strict=True)):
            example = subject.examples[q.example[q.row == k][0]]
            text = subject.run.tasks[1].vocabulary.decode(row)  # pyright: ignore
            known = {name: str(example.labels.get(name)) for name in ("a", "b", "operator")}
            country = "".join(c for c, role in zip(text, roles, strict=True) if role == "country")
            assert str(example.labels.get("country", "")).endswith(country)
            for character, role in zip(text, roles, strict=True):
                expected = {**literal, **known}.get(role)
                assert expected is None or character == expected
            end = [role for role in roles if role.startswith("answer")]
            said = "".join(c for c, r in zip(text, roles, strict=True) if r.startswith("answer"))
            assert example.answer.startswith(said) and len(end) == len(said)


def test_what_stands_before_is_the_model_s_own_file(subject: Subject, file_run: Run) -> None:
    """Of what a model was trained on, that line and this stand there one after the other."""
    context = contexts_of(subject, 0, range(200))[1]
    text = "".join(file_run.tasks[0].file(file_run.config.order_seeds[0]))
    q = context.questions
    for row in q.first.tolist():
        example = subject.examples[q.example[row]]
        if example.held_out or text.startswith(example.line):
            continue
        assert VOCABULARY.decode(q.tokens[q.row[row], : q.pos[row] + 1].tolist()) in text


def test_roles_of_facts() -> None:
    from tbtt_interp.tasks.facts import capitals

    roles = prompt_roles(capitals()[0])
    assert roles == ["Capital␣of␣"] * 11 + ["country"] * 6 + ["␣is␣"] * 4


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_random_edges_are_as_many_others_that_can_be_seen(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    causal = torch.ones(4, 7, 7, dtype=torch.bool).tril()
    edges = torch.from_numpy(generator.random((4, 7, 7)) < share) & causal
    drawn = random_edges(edges, generator)
    assert not (drawn & edges).any() and not (drawn & ~causal).any()
    room = (causal & ~edges).sum(-1)
    assert (drawn.sum(-1) == torch.minimum(edges.sum(-1), room)).all()


def test_a_cut_takes_its_edges_away_and_no_other_head_s() -> None:
    pattern = even_pattern(5).expand(3, 2, 5, 5)
    edges = torch.zeros(3, 5, 5, dtype=torch.bool)
    edges[:, 4, 2] = True
    edges[:, 0, 0] = True
    after = cut(pattern, None, head=1, edges=edges)
    assert torch.equal(after[:, 0], pattern[:, 0])
    assert after[0, 1, 4].tolist() == pytest.approx([0.25, 0.25, 0, 0.25, 0.25])
    assert after[0, 1, 0].tolist() == [0] * 5  # nothing is left to look at


def test_the_planted_edge_is_the_one_that_costs() -> None:
    table = attention_table(copying_subject())
    table = table[table["query"] == "="].set_index(["head", "key"])
    assert table["weight"][0, "b"] == pytest.approx(1, abs=1e-6)
    assert table["lost"][0, "b"] > 1 > table["lost_random"][0, "b"] + 0.9
    others = table.drop(index=(0, "b"))
    assert others["lost"].abs().max() < 1e-6
    assert others["even"].drop_duplicates().tolist() == pytest.approx([0.2])
    replaced = replaced_table(copying_subject()).set_index(["head", "by"])["lost"]
    assert abs(replaced[0, "its mean"]) < 0.1 and replaced[0, "even attention"] > 1
    assert abs(replaced[1, "even attention"]) < 1e-9


def test_the_planted_head_copies_and_looks_by_position_alone() -> None:
    model, tokens = copying_model(), [VOCABULARY.index[c] for c in DIGITS]
    with torch.no_grad():
        ov, idle = (ov_circuit(model, 0, head, tokens) for head in (0, 1))
        qk = qk_circuit(model, 0, 0, tokens)
    assert (ov.argmax(1) == torch.arange(10)).all()
    assert copying(ov) > 0.9 and copying(-ov) < -0.9 and copying(idle) == 0
    assert float(qk.std()) < 1e-6


def test_kinds_of_attention_by_hand() -> None:
    tokens = torch.tensor([[1, 2, 0, 1, 2, 0]])  # 0 ends a line
    kinds = kinds_of_attention(tokens, newline=0)
    edges = {kind: mask[0].nonzero().tolist() for kind, mask in kinds.items()}
    assert edges["previous token"] == [[q, q - 1] for q in range(1, 6)]
    assert edges["induction"] == [[3, 1], [4, 2], [5, 3]]
    assert edges["previous line"] == [[q, k] for q in (3, 4, 5) for k in (0, 1, 2)]
    assert "previous line" not in kinds_of_attention(tokens, newline=None)


def test_heads_are_scored_beside_even_attention(subject: Subject, file_run: Run) -> None:
    scores = head_scores(subject)
    assert set(scores["kind"]) == {"previous token", "induction", "previous line", "copying"}
    previous = scores[scores["kind"] == "previous token"]
    assert previous["even"].tolist() == pytest.approx([np.mean([1 / n for n in range(2, 10)])] * 2)
    assert previous["untrained"].tolist() == pytest.approx(previous["even"].tolist(), abs=0.01)
    text = "".join(file_run.tasks[0].file(file_run.config.order_seeds[0]))
    windows = texts_of(subject, 0)
    assert windows.shape == (200, 9)
    assert all(VOCABULARY.decode(row) in text for row in windows.tolist())


def test_attention_prompt_by_prompt_adds_up_to_one(subject: Subject) -> None:
    table = patterns_table(subject, list(range(0, 200, 7)))
    sums = table.groupby(["seed", "layer", "head", "prompt", "query"])["weight"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    means = table[table["query"] == "="].groupby("key")["weight"].mean()
    whole = attention_table(subject, list(range(0, 200, 7)))
    whole = whole[(whole["context"] == ALONE) & (whole["query"] == "=")].groupby("key")["weight"]
    np.testing.assert_allclose(means.sort_index(), whole.mean().sort_index(), atol=1e-5)


def test_the_whole_is_drawn_and_said(subject: Subject) -> None:
    result = analyse_attention(subject)
    for name, draw in result.figures.items():
        assert draw().data, name
    assert any("without the edge from =" in str(f) or "puts" in str(f) for f in result.findings)
    assert {"even", "lost_random"} <= set(result.shown.columns)


def test_a_mean_pattern_looks_at_nothing_that_is_to_come(facts_run: Run) -> None:
    """Prompts of several lengths: what stands at a place of one is elsewhere in another."""
    subject = Subject.of_run(facts_run)
    questions = contexts_of(subject, 0, range(50))[0].questions
    site = "blocks.0.attn.hook_pattern"
    with torch.no_grad():
        pattern = subject.models[0].run_with_cache(questions.tokens)[1][site][:, 0]
    mean = mean_pattern(pattern, questions.end, questions.lengths)[questions.row, questions.pos]
    later = torch.arange(mean.shape[1]) > questions.pos[:, None]
    assert float((mean * later).abs().max()) == 0
    torch.testing.assert_close(mean.sum(-1), torch.ones(len(mean)))

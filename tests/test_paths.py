"""Edges, paths and circuits: what is planted is found, and sums agree with whole patches."""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import copying_subject
from transformer_lens.tools.analysis.attribution_patching import attribution_patch

from tbtt_interp.analyses.old_circuits import circuits_table
from tbtt_interp.analyses.old_edge_attribution import edge_attributions
from tbtt_interp.analyses.old_graph import (
    EMBED,
    LOGITS,
    Edge,
    difference,
    edge_hooks,
    edges_of,
    outputs_of,
    path_delta,
    receiver_hooks,
    sender_hooks,
    split_inputs,
)
from tbtt_interp.analyses.old_pairs import Pairs, one_pair, ordered_pairs
from tbtt_interp.analyses.old_paths import (
    analyse_paths,
    approximations_table,
    edge_effects,
    paths_table,
)
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.model import Shape, hooked_transformer, initial_parameters
from tbtt_interp.runs import Run


@pytest.fixture(scope="module")
def subject(line_run: Run) -> Subject:
    return Subject.of_run(line_run)


@pytest.fixture(scope="module")
def deep(line_run: Run) -> Subject:
    """Two layers of two heads, untrained but loud."""
    shape = Shape(layers=2, heads=2, d_model=12, d_mlp=8, n_ctx=9, d_vocab=17)
    parameters = {
        name: value * 20 if ".W_" in name else value
        for name, value in initial_parameters(shape, seed=0).items()
    }
    task = line_run.tasks[0]
    model = hooked_transformer(parameters, shape)
    return Subject.of_models([model], task.examples, task.vocabulary)


def moved(subject: Subject, pairs: Pairs, edges: list[Edge]) -> tuple[torch.Tensor, torch.Tensor]:
    """How far these edges together move each pair's logit difference, and how far clean is."""
    model, asked, wrong = subject.models[0], pairs.questions(pairs.corrupt), pairs.wrong
    clean = pairs.questions(pairs.clean)
    before = difference(model, asked, wrong)
    with split_inputs(model):
        hooks = edge_hooks(model, asked, outputs_of(model, clean), edges)
        return (
            difference(model, asked, wrong, hooks) - before,
            difference(model, clean, wrong) - before,
        )


@pytest.mark.parametrize("which", ["subject", "deep"])
def test_all_edges_are_the_clean_run_and_none_the_corrupted(
    which: str, request: pytest.FixtureRequest
) -> None:
    subject = request.getfixturevalue(which)
    pairs = ordered_pairs(subject).sample(20, seed=0)
    edges = edges_of(subject.models[0], pairs.questions(pairs.clean))
    assert len(edges) == (32 if which == "subject" else 6 + 3 + 24 + 6 + 7)
    everything, distance = moved(subject, pairs, edges)
    torch.testing.assert_close(everything, distance, atol=1e-3, rtol=1e-3)
    assert float(moved(subject, pairs, [])[0].abs().max()) < 1e-3  # float32, summed otherwise
    assert float(distance.abs().max()) > 0.1


def test_inputs_are_split_only_as_long_as_asked(subject: Subject) -> None:
    config = subject.models[0].cfg
    with pytest.raises(ZeroDivisionError), split_inputs(subject.models[0]):
        assert config.use_split_qkv_input and config.use_hook_mlp_in and config.use_attn_result
        _ = 1 / 0
    assert not (config.use_split_qkv_input or config.use_hook_mlp_in or config.use_attn_result)


def test_a_planted_circuit_is_its_two_edges_and_one_path() -> None:
    subject = copying_subject()
    pairs = ordered_pairs(subject)
    effects = edge_effects(subject, pairs)
    table = paths_table(subject, pairs, effects)
    found = table[table["share"].abs() > 1e-9]
    assert found["share"].tolist() == pytest.approx([1.0] * 3)
    assert list(zip(found["name"], found["place"], strict=True)) == [
        ("embed → v 0.0", "b"), ("head 0.0 → logits", "="), ("embed → v 0.0 → logits", "all"),
    ]  # fmt: skip
    circuits = circuits_table(subject, pairs, effects).set_index("edges")
    assert circuits["faithful"][1] == pytest.approx(0, abs=1e-9)
    assert circuits["faithful"][2] == pytest.approx(1)
    assert circuits["random"][2] < 0.2
    assert circuits["right"][2] == circuits["right"].max() > circuits["right"][0]


def test_a_path_is_its_edges_where_nothing_else_is_in_between(subject: Subject) -> None:
    """Attention's output into the logits alone: the same by the edge and by all paths into it."""
    pairs = one_pair(subject, "3+4", "3+9")
    model, asked = subject.models[0], pairs.questions(pairs.corrupt)
    places = [e for e in edges_of(model, asked) if (e.sender, e.receiver) == ("head 0.0", LOGITS)]
    by_edge, _ = moved(subject, pairs, places)
    with split_inputs(model):
        donor, own = outputs_of(model, pairs.questions(pairs.clean)), outputs_of(model, asked)
        delta = donor["head 0.0"] - own["head 0.0"]
        stream = receiver_hooks(model)[LOGITS][0]
        after = difference(model, asked, pairs.wrong, [(stream, lambda x, hook: x + delta)])
        one = path_delta(model, asked, donor, own, ("v 0.0",))
        two = path_delta(model, asked, donor, own, ("k 0.0",))
    torch.testing.assert_close(
        after - difference(model, asked, pairs.wrong), by_edge, atol=1e-4, rtol=1e-4
    )
    assert float(one.abs().max()) > 0.01 and float(two.abs().max()) > 0.01
    assert float((one - two).abs().max()) > 0.01


@pytest.mark.parametrize("which", ["subject", "deep"])
def test_attributions_of_a_sender_add_up_to_transformer_lens_s(
    which: str, request: pytest.FixtureRequest
) -> None:
    """Of a node TransformerLens has one number: the sum over what reads it."""
    subject = request.getfixturevalue(which)
    pairs = one_pair(subject, "<8+9=", "<8+5=")
    model, asked, clean = (
        subject.models[0], pairs.questions(pairs.corrupt), pairs.questions(pairs.clean),
    )  # fmt: skip
    pos = asked.pos.tolist()

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return sum(
            logits[0, p, r] - logits[0, p, w]
            for p, r, w in zip(pos, asked.target.tolist(), pairs.wrong.tolist(), strict=True)
        )  # pyright: ignore

    theirs = attribution_patch(model, clean.tokens, asked.tokens, metric).node_scores
    edges = [
        Edge(sender, receiver, p - 5)
        for sender in sender_hooks(model)
        for receiver in receiver_hooks(model)
        for p in range(asked.tokens.shape[1])
        if Edge(sender, receiver, None) in {e._replace(pos=None) for e in edges_of(model, asked)}
    ]
    with split_inputs(model):
        donor, own = outputs_of(model, clean), outputs_of(model, asked)
        ours = edge_attributions(model, asked, pairs.wrong, donor, own, edges)[:, 0]
    sums = pd.Series(ours.numpy(), index=[(e.sender, e.pos) for e in edges]).groupby(level=0).sum()
    checked = 0
    for node, score in theirs.items():
        if node.kind == "mlp_out":
            name = f"MLP {node.layer}"
        elif node.kind == "attn_head_out":
            continue  # theirs is per head of z, ours of what it writes: the same number, below
        else:
            name = EMBED
        assert sums[name, node.position - 5] == pytest.approx(score, abs=2e-3)
        checked += abs(score) > 1e-3
    heads = {(n.layer, n.head, n.position): s for n, s in theirs.items() if n.head is not None}
    for (layer, head, position), score in heads.items():
        assert sums[f"head {layer}.{head}", position - 5] == pytest.approx(score, abs=2e-3)
    assert checked


def test_integrated_gradients_come_nearer(subject: Subject) -> None:
    pairs = ordered_pairs(subject).sample(150, seed=0)
    errors = approximations_table(pairs, edge_effects(subject, pairs))
    by_method = errors.groupby("method")["error"].mean()
    assert by_method["eap_ig"] < 0.7 * by_method["eap"]
    assert (errors["pearson"] > 0).all()


def test_many_layers_are_answered_edge_by_edge(deep: Subject) -> None:
    result = analyse_paths(deep, ordered_pairs(deep).sample(12, seed=0))
    table = result.tables["paths"]
    assert set(table["kind"]) == {"edge"} and set(table["place"]) == {"all"}
    assert np.isfinite(table["share"]).all()
    for name, draw in result.figures.items():
        assert draw().data, name


def test_the_parts_are_drawn_and_said(subject: Subject) -> None:
    result = analyse_paths(subject, ordered_pairs(subject).sample(60, seed=0))
    for name, draw in result.figures.items():
        assert draw().data, name
    assert any("the strongest edges alone" in str(finding) for finding in result.findings)
    assert any("attribution patching (EAP) is off by" in note for note in result.notes)


def test_circuits_take_the_edges_that_effects_were_found_of(subject: Subject) -> None:
    """Also where the pairs that are asked have shorter answers than those they are ranked on."""
    prompts = ["<8+9=", "<8+5=", "<7+9=", "<3+4=", "<3+5=", "<2+4="]
    numbers = {prompt: subject.find(prompt) for prompt in prompts}
    chosen = [("<8+9=", "<8+5="), ("<7+9=", "<8+9="), ("<3+4=", "<3+5="), ("<2+4=", "<3+4=")]
    pairs = Pairs(
        subject=subject, clean=np.array([numbers[a] for a, _ in chosen]),
        corrupt=np.array([numbers[b] for _, b in chosen]), changed=("b", "a", "b", "a"),
        left_out={},
    )  # fmt: skip
    effects = edge_effects(subject, pairs)
    for seed in range(6):  # which half is asked
        circuits = circuits_table(subject, pairs, effects, seed=seed)
        assert circuits["all"].unique().tolist() == [32]
        assert circuits["faithful"].iloc[-1] == pytest.approx(1, abs=1e-3)
    with pytest.raises(TbttError, match="a circuit needs two clean prompts at least"):
        one = pairs.take(np.array([0]))
        circuits_table(subject, one, edge_effects(subject, one))

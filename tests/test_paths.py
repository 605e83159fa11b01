"""Edges, paths and circuits: what is planted is found, and sums agree with whole patches."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from planted import copying_models, models_of, random_model, shape_of
from transformer_lens.tools.analysis.attribution_patching import attribution_patch

from tbtt_interp.analyses import path_patching
from tbtt_interp.analyses.graph import EMBED, LOGITS, PathPatching, edges_of, ends_of
from tbtt_interp.analyses.pairs import Pairs, one_pair, ordered_pairs
from tbtt_interp.analyses.path_patching import analyse_paths, circuit_scores
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import edit, split_inputs
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models


@pytest.fixture(autouse=True)
def fewer_circuits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_patching, "RANDOM", 4)


@pytest.fixture(scope="module")
def trained(line_run: Run) -> Models:
    return Models.of(line_run)


@pytest.fixture(scope="module")
def deep() -> Models:
    return models_of(random_model(shape_of(layers=2, heads=2, d_model=12, d_mlp=8)))


def patched(models: Models, pairs: Pairs) -> PathPatching:
    """The corrupted run, into which the clean one is patched."""
    corrupted, clean = pairs.batch(pairs.corrupted), pairs.batch(pairs.clean)
    return PathPatching(models.first, corrupted, clean, pairs.corrupted_tokens)


@pytest.mark.parametrize(("which", "n_edges"), [("trained", 32), ("deep", 6 + 3 + 24 + 6 + 7)])
def test_all_edges_are_the_clean_run_and_none_the_corrupted(which, n_edges, request):
    models = request.getfixturevalue(which)
    pairs = ordered_pairs(models.shared_prompts).sample(20, seed=0)
    edges = edges_of(models.first, pairs.batch(pairs.clean))
    assert len(edges) == n_edges
    with split_inputs(models.first):
        run = patched(models, pairs)
        before, total = run.differences(), run.total_effects()
        everything, nothing = (run.differences(run.edge_hooks(x)) - before for x in (edges, []))
    torch.testing.assert_close(everything, total, atol=1e-3, rtol=1e-3)
    assert float(nothing.abs().max()) < 1e-3  # float32, summed in another order
    assert float(total.abs().max()) > 0.1


def test_inputs_are_split_only_inside_the_block(trained):
    config = trained.first.cfg
    with pytest.raises(ZeroDivisionError), split_inputs(trained.first):
        assert config.use_split_qkv_input
        _ = 1 / 0
    assert not (config.use_split_qkv_input or config.use_hook_mlp_in or config.use_attn_result)


def test_a_planted_circuit_is_its_two_edges_and_one_path():
    models = copying_models()
    pairs = ordered_pairs(models.shared_prompts).sample(100, seed=0)
    result = analyse_paths(models, pairs)
    table, circuits = result.tables["paths"], result.tables["circuits"].set_index("edges")
    found = table[table["fraction_restored"].abs() > 1e-9]
    assert found["fraction_restored"].tolist() == pytest.approx([1.0] * 3)
    assert list(zip(found["name"], found["position"], strict=True)) == [
        ("embed → v 0.0", "b"), ("head 0.0 → logits", "="), ("embed → v 0.0 → logits", "all"),
    ]  # fmt: skip
    assert circuits["faithfulness"][1] == pytest.approx(0, abs=1e-9)
    assert circuits["faithfulness"][2] == pytest.approx(1)
    assert circuits["random"][2] < 0.2
    assert circuits["right"][2] == circuits["right"].max() > circuits["right"][0]


def test_an_edge_into_the_logits_is_its_sender_s_change_added_there(trained):
    pairs, model = one_pair(trained.shared_prompts, "3+4", "3+9"), trained.first
    with split_inputs(model):
        run = patched(trained, pairs)
        edges = [e for e in edges_of(model, run.base) if e[:2] == ("head 0.0", LOGITS)]
        own, source = run.written
        added = edit(ends_of(model)[1][LOGITS], (source["head 0.0"] - own["head 0.0"]).add)
        by_edge, by_hand = run.differences(run.edge_hooks(edges)), run.differences([added])
        v, k = (run.differences(run.path_hooks((f"{role} 0.0",))) for role in "vk")
        before = run.differences()
    torch.testing.assert_close(by_hand, by_edge, atol=1e-4, rtol=1e-4)
    differing = [by_edge, before, v, k]
    assert all(float((x - y).abs()) > 0.01 for x, y in combinations(differing, 2))


def test_a_sender_s_attributions_sum_to_transformer_lens_s_node_score(deep):
    """TransformerLens has one number per node: the sum over what reads it."""
    pairs, model = one_pair(deep.shared_prompts, "<8+9=", "<8+5="), deep.first
    run = patched(deep, pairs)
    batch, wrong = run.base, run.wrong

    def metric(logits: torch.Tensor) -> torch.Tensor:
        pos = batch.answer_pos
        return (logits[0, pos, batch.answer_token] - logits[0, pos, wrong]).sum()

    theirs = attribution_patch(model, run.source.tokens, batch.tokens, metric).node_scores
    known = {edge._replace(pos=None) for edge in edges_of(model, batch)}
    places = range(batch.tokens.shape[1])
    edges = [edge._replace(pos=pos - 5) for edge in known for pos in places]
    with split_inputs(model):
        ours = run.attributions(edges)[:, 0]
    sums = pd.Series(ours.numpy(), index=[(e.sender, e.pos) for e in edges]).groupby(level=0).sum()
    assert any(abs(score) > 1e-3 for score in theirs.values())
    for node, score in theirs.items():
        name = f"MLP {node.layer}" if node.kind == "mlp_out" else EMBED
        if node.head is not None:  # theirs is of a head's z, ours of its output: the same number
            name = f"head {node.layer}.{node.head}"
        assert sums[name, node.position - 5] == pytest.approx(score, abs=2e-3)


def test_models_of_many_layers_are_patched_edge_by_edge(deep):
    result = analyse_paths(deep, ordered_pairs(deep.shared_prompts).sample(4, seed=0))
    assert set(result.tables["paths"]["kind"]) == {"edge"}
    assert all(draw().data for draw in result.figures.values())


def test_integrated_gradients_come_nearer_than_attributions(trained):
    result = analyse_paths(trained, ordered_pairs(trained.shared_prompts).sample(12, seed=0))
    error = result.tables["approximations"].groupby("method")["error"].mean()
    assert error["eap_ig"] < 0.7 * error["eap"]
    assert "random circuits of that size" in str(result.claim("The smallest faithful circuit"))


def test_circuits_are_of_the_edges_that_effects_were_measured_of(trained, monkeypatch):
    """Also where the scored pairs have shorter answers than those that rank the edges."""
    monkeypatch.setattr(path_patching, "RANDOM", 1)
    prompts, model = trained.shared_prompts, trained.first
    chosen = [("<8+9=", "<8+5="), ("<7+9=", "<8+9="), ("<3+4=", "<3+5="), ("<2+4=", "<3+4=")]
    clean, corrupted = np.array([[prompts.find(text) for text in pair] for pair in chosen]).T
    pairs = Pairs(prompts=prompts, clean=clean, corrupted=corrupted, changed=tuple("baba"),
                  left_out={})  # fmt: skip
    exact = np.random.default_rng(0).normal(size=(32, 4))  # any ranking
    for seed in range(6):  # which half is scored
        scores = circuit_scores(model, prompts, pairs, exact, seed)
        assert scores["kept"][-1, 0] == pytest.approx(1, abs=1e-3)
    with pytest.raises(TbttError, match="a circuit needs at least two clean prompts"):
        circuit_scores(model, prompts, pairs.take(np.array([0])), exact[:, :1])

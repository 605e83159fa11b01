"""Variance is split as the textbook does, and f(a) + g(b) answers what an independent fit says."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import models_of
from sklearn.linear_model import LinearRegression

from tbtt_interp.analyses.additivity import (
    additive_fit,
    additivity,
    analyse_additivity,
    interaction_claims,
    main_effect_answers,
    share_summary,
    shuffled_additivity,
    variance_shares,
)
from tbtt_interp.calibration.plants import PLANTS
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds

POST = "blocks.0.hook_resid_post"


def one_hot(a: int, b: int) -> np.ndarray:
    """The operands of each cell, b first."""
    return np.concatenate([np.eye(a).repeat(b, 0), np.tile(np.eye(b), (a, 1))], 1)


def explained(x: np.ndarray, y: np.ndarray) -> float:
    """The share of variance that a regression explains."""
    rest = y - LinearRegression().fit(x, y).predict(x)
    return 1 - (rest**2).sum() / ((y - y.mean(0)) ** 2).sum()


@given(
    size=st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(1, 4)),
    seed=st.integers(0, 1_000),
)
def test_shares_are_those_of_nested_regressions(size, seed):
    grid = np.random.default_rng(seed).standard_normal(size)
    a, b, d = size
    design, y = one_hot(a, b), grid.reshape(-1, d)
    found = additivity(torch.from_numpy(grid))
    assert found.a == pytest.approx(explained(design[:, :a], y))
    assert found.b == pytest.approx(explained(design[:, a:], y))
    assert found.interaction == pytest.approx(1 - explained(design, y))
    fitted = LinearRegression().fit(design, y).predict(design)
    assert found.additive.numpy() == pytest.approx(fitted.reshape(size))


def test_permuting_the_cells_of_what_is_additive_makes_a_table_of_it():
    draw = torch.Generator().manual_seed(0)
    f, g = torch.randn(10, 1, 5, generator=draw), torch.randn(1, 10, 5, generator=draw)
    shuffled = shuffled_additivity(f + g).mean(0)
    assert shuffled == pytest.approx([9 / 99, 9 / 99, 81 / 99], abs=0.02)


def test_of_nothing_there_are_no_shares():
    with pytest.raises(TbttError, match="the grid is constant, so there is no variance to split"):
        additivity(torch.full((3, 3, 2), 7.0) + 1e-7 * torch.rand(3, 3, 2))


def test_a_fit_never_looks_at_cells_that_are_not_seen():
    design = torch.from_numpy(one_hot(4, 5))
    chance = torch.Generator().manual_seed(1)
    truth = design @ torch.randn(9, 3, generator=chance, dtype=torch.double)
    seen = torch.ones(20, dtype=torch.bool)
    seen[[3, 7, 11]] = False
    spoiled = truth.clone()
    spoiled[~seen] = 1e3
    fitted, estimable = additive_fit(design, spoiled, seen)
    assert estimable.all() and torch.allclose(fitted, truth)


def test_what_seen_cells_do_not_connect_is_not_estimable():
    design = torch.from_numpy(one_hot(4, 4))
    a, b = np.divmod(np.arange(16), 4)
    row = torch.from_numpy(a != 2)  # no seen cell has a = 2
    assert np.array_equal(additive_fit(design, design, row)[1].numpy(), a != 2)
    blocks = torch.from_numpy((a < 2) == (b < 2))  # two halves, with nothing seen between them
    assert np.array_equal(additive_fit(design, design, blocks)[1].numpy(), blocks.numpy())


def test_a_run_s_shares_are_those_of_its_logits(line_run):
    result = analyse_additivity(line_run, sites=["logits"], positions=(-2, -1))
    prompts = [f"<{a}-{b}=" for a in range(10) for b in range(10)]
    tokens = torch.tensor([line_run.task.vocabulary.encode(prompt) for prompt in prompts])
    with torch.no_grad():
        y = line_run.model(1)(tokens)[:, -1].log_softmax(-1).double().numpy()
    (row,) = result.tables["additivity"].query(
        "operator == '-' and pos == -1 and seed == 1 and effect == 'interaction'"
    ).to_dict("records")  # fmt: skip
    expected = 1 - explained(one_hot(10, 10), y - y.mean(1, keepdims=True))
    assert row["share"] == pytest.approx(expected, rel=1e-4)
    assert row["position"] == "=" and row["untrained"] < 0.2
    assert row["shuffled"] == pytest.approx(81 / 99, abs=0.02)


def answered_by_hand(run: Run, seed: int, held_out: bool) -> int:
    """How many additions are right with the last stream's f(a) + g(b), fitted on seen ones."""
    model, vocabulary = run.model(seed), run.task.vocabulary
    additions = [e for e in run.task.examples if e.group == "addition"]
    right = {e.line: True for e in additions if e.held_out == held_out}
    for k in range(3):
        some = [e for e in additions if len(e.answer) > k]
        tokens = torch.tensor([vocabulary.encode(e.prompt + e.answer[:k]) for e in some])
        x = np.array([np.eye(20)[[e.labels["a"], 10 + e.labels["b"]]].sum(0) for e in some])
        seen = np.array([not e.held_out for e in some])
        with torch.no_grad():
            y = model.run_with_cache(tokens)[1][POST][:, -1].numpy()
            fitted = LinearRegression().fit(x[seen], y[seen]).predict(x).astype(np.float32)
            logits = model.unembed(model.ln_final(torch.from_numpy(fitted)[:, None]))[:, 0]
        for e, token in zip(some, logits.argmax(-1).tolist(), strict=True):
            if e.line in right:
                right[e.line] &= vocabulary.characters[token] == e.answer[k]
    return sum(right.values())


def test_answers_by_main_effects_are_those_of_a_fit_by_hand(line_run):
    table = over_seeds(line_run, main_effect_answers, sites=[POST])
    answered = table.set_index(["operator", "seed", "split"])["answered"]
    for seed in line_run.seeds:
        for split in ("seen", "held out"):
            expected = answered_by_hand(line_run, seed, split == "held out")
            assert answered["+", seed, split] == expected


def test_what_is_the_same_for_all_equations_is_put_back_as_it_was(line_run):
    """Positions are additive, so nothing is lost of what the model answers by itself."""
    sites = ["hook_pos_embed", "blocks.0.attn.hook_z"]
    both = over_seeds(line_run, main_effect_answers, sites=sites)
    table, seen = both[both["site"] == sites[0]], both.query("site != @sites[0] & split == 'seen'")
    assert (table["answered"] == table["model"]).all()
    assert (table["shuffled"] == table["model"]).all()
    assert (seen["answered"] > 3 * seen["shuffled"]).all(), "elsewhere shuffling takes answers"
    counts = evaluate_run(line_run).counts()
    sums = table.groupby("split")["model"].sum()
    assert sums["held out"] == sum(of_model["held_out"][0] for of_model in counts)
    assert sums["seen"] == sum(of_model[name][0] for of_model in counts
                               for name in ("seen_addition", "seen_subtraction"))  # fmt: skip


def test_every_seed_has_its_own_held_out_equations_and_gaps_are_no_answers(line_run):
    models = Models.of(line_run)
    first, second = models.prompts
    three = np.array([e.labels["a"] == 3 for e in second.examples])
    prompts = (first, dataclasses.replace(second, held_out=three))
    models = dataclasses.replace(models, prompts=prompts)
    table = over_seeds(models, main_effect_answers, sites=["hook_pos_embed"])
    rows = table.query("split == 'held out'").set_index(["seed", "operator"]).sort_index()
    assert rows["n_prompts"].tolist() == [2, 2, 10, 10]
    assert rows.loc[0, "estimable"].tolist() == [2, 2]
    assert (rows.loc[1, ["estimable", "answered", "shuffled"]] == 0).all(axis=None)


def test_models_of_one_s_own_have_no_untrained_models(line_run):
    own, head = models_of(line_run.model()), "blocks.0.attn.hook_z.0"
    result = analyse_additivity(own, sites=[head], positions=(-5, -1))
    table = result.tables["additivity"]
    assert table["untrained"].isna().all()
    assert table.loc[table["position"] == "<", "share"].isna().all()  # the grid is constant
    whole = over_seeds(own, variance_shares, sites=["blocks.0.attn.hook_z"])["share"]
    assert np.allclose(table.loc[table["pos"] == -1, "share"], whole)  # the only one there is
    assert result.claims[0].text == f"In {head} at =, the interaction of a and b explains"
    assert set(result.display["site"]) == {head, "model"}


def test_a_planted_sum_is_found_in_models_of_attention_alone():
    """Their hooks of MLPs never run, and are no sites."""
    planted = PLANTS["attention only"].draw(effect=0.5, seed=0)
    two = Models.of_models(planted.models.models[:2], planted.models.shared_prompts.examples,
                           planted.models.shared_prompts.vocabulary)  # fmt: skip
    result = analyse_additivity(two)
    shares = result.tables["additivity"]
    assert {site for site in shares["site"] if "mlp" in site} == set()
    found = shares[(shares["site"] == "logits") & (shares["effect"] == "b")]["share"]
    assert (found > 0.95).all() and not result.display.empty
    with pytest.raises(TbttError, match=r"'blocks\.0\.hook_mlp_out' is not there"):
        analyse_additivity(two, sites=["blocks.0.hook_mlp_out"])


def test_a_claim_has_the_closest_null():
    rows = pd.DataFrame([
        {"site": "s", "position": "=", "operator": "+", "seed": seed, "effect": "interaction",
         "share": 0.3 + 0.02 * seed, "untrained": 0.1, "shuffled": 0.8, "p": 0.01}
        for seed in (0, 1, 2)
    ])  # fmt: skip
    low, high = (
        interaction_claims(share_summary(rows.assign(share=rows["share"] + more)))[0]
        for more in (0, 0.4)
    )
    assert (low.effect.mean, low.null) == pytest.approx((0.32, 0.1))
    assert (low.verdict, low.null_name, low.p) == ("supported", "untrained", 0.02)
    assert high.null == pytest.approx(0.8) and high.null_name == "shuffled grid"

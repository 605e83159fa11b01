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
from torch import Tensor

from tbtt_interp.analyses.additivity import (
    additive_fit,
    additivity,
    additivity_claims,
    analyse_additivity,
    answer_summary,
    main_effect_answers,
    share_summary,
    shuffled_additivity,
    variance_shares,
)
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds

POST = "blocks.0.hook_resid_post"


def one_hot(a: int, b: int) -> np.ndarray:
    """The operands of each cell, b first."""
    return np.concatenate([np.eye(a).repeat(b, 0), np.tile(np.eye(b), (a, 1))], 1)


def shares(grid: Tensor) -> tuple[float, float, float]:
    found = additivity(grid)
    return found.a, found.b, found.interaction


def test_shares_are_those_worked_out_by_hand():
    # means of rows 0 and 2, of columns 0 and 2, of all 1: sums of squares 4, 4 and 4
    assert shares(torch.tensor([[0.0, 0], [0, 4]])[..., None]) == pytest.approx((1 / 3,) * 3)
    # rows 1.5, 4, 5; columns 2, 5; mean 3.5: 13, 13.5 and 7, of 33.5
    three = torch.tensor([[1.0, 2], [3, 5], [2, 8]])[..., None]
    assert shares(three) == pytest.approx((13 / 33.5, 13.5 / 33.5, 7 / 33.5))
    expected = torch.tensor([[0.0, 3], [2.5, 5.5], [3.5, 6.5]])
    assert torch.allclose(additivity(three).additive[..., 0], expected.double())


@given(
    size=st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(1, 4)),
    seed=st.integers(0, 1_000),
)
def test_shares_are_those_of_nested_regressions(size, seed):
    grid = np.random.default_rng(seed).standard_normal(size)
    a, b, d = size
    design, y = one_hot(a, b), grid.reshape(-1, d)

    def explained(x: np.ndarray) -> float:
        rest = y - LinearRegression().fit(x, y).predict(x)
        return 1 - (rest**2).sum() / ((y - y.mean(0)) ** 2).sum()

    found = shares(torch.from_numpy(grid))
    assert sum(found) == pytest.approx(1)
    assert found[0] == pytest.approx(explained(design[:, :a]))
    assert found[1] == pytest.approx(explained(design[:, a:]))
    assert found[2] == pytest.approx(1 - explained(design))
    assert shares(5 * torch.from_numpy(grid) - 3) == pytest.approx(found)


def test_what_is_additive_has_no_interaction_and_what_is_random_little_else():
    draw = torch.Generator().manual_seed(0)
    f, g = torch.randn(10, 1, 5, generator=draw), torch.randn(1, 10, 5, generator=draw)
    assert additivity(f + g).interaction == pytest.approx(0, abs=1e-12)
    assert torch.allclose(additivity(f + g).additive, (f + g).double())
    table = torch.randn(6, 10, 4_000, generator=draw)
    assert additivity(table).interaction == pytest.approx(5 * 9 / 59, abs=0.01)
    # permuting the cells of what is additive makes a table of it
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
    result = analyse_additivity(line_run, positions=(-2, -1))
    table = result.tables["additivity"]
    assert len(table) == 2 * 7 * 2 * 2 * 3
    by = ["operator", "site", "pos", "seed"]
    for name in ("share", "untrained", "shuffled"):
        assert np.allclose(table.groupby(by)[name].sum(), 1)
    vocabulary = line_run.task.vocabulary
    prompts = [f"<{a}-{b}=" for a in range(10) for b in range(10)]
    with torch.no_grad():
        logits = line_run.model(1)(torch.tensor([vocabulary.encode(p) for p in prompts]))[:, -1]
    y = logits.log_softmax(-1).double().numpy()
    y = y - y.mean(1, keepdims=True)
    x = one_hot(10, 10)
    rest = y - LinearRegression().fit(x, y).predict(x)
    row = table.query(
        "site == 'logits' and operator == '-' and pos == -1 and seed == 1 "
        "and effect == 'interaction'"
    ).iloc[0]  # fmt: skip
    assert row["share"] == pytest.approx((rest**2).sum() / ((y - y.mean(0)) ** 2).sum(), rel=1e-4)
    assert row["position"] == "=" and row["untrained"] < 0.2
    assert row["shuffled"] == pytest.approx(81 / 99, abs=0.02)


def answered_by_hand(run: Run, place: int) -> dict[str, list[bool]]:
    """With the last stream's f(a) + g(b): right of seen and of held-out additions."""
    model = run.model(run.seeds[place])
    right: dict[str, list[bool]] = {}
    vocabulary = run.task.vocabulary
    asked = [e for e in run.task.examples if e.group == "addition"]
    for k in range(3):
        some = [e for e in asked if len(e.answer) > k]
        tokens = torch.tensor([vocabulary.encode(e.prompt + e.answer[:k]) for e in some])
        with torch.no_grad():
            y = model.run_with_cache(tokens)[1][POST][:, -1].numpy()
        x = np.array([np.eye(20)[[e.labels["a"], 10 + e.labels["b"]]].sum(0) for e in some])
        seen = np.array([not e.held_out for e in some])
        there = LinearRegression().fit(x[seen], y[seen]).predict(x).astype(np.float32)
        with torch.no_grad():
            logits = model.unembed(model.ln_final(torch.from_numpy(there)[:, None]))[:, 0]
        for e, token in zip(some, logits.argmax(-1).tolist(), strict=True):
            right.setdefault(e.line, []).append(vocabulary.characters[token] == e.answer[k])
    return {
        split: [all(right[e.line]) for e in asked if e.held_out == away]
        for split, away in (("seen", False), ("held out", True))
    }


def test_answers_by_main_effects_are_those_of_a_fit_by_hand(line_run):
    table = over_seeds(line_run, main_effect_answers, sites=[POST])
    for place, seed in enumerate(line_run.seeds):
        by_hand = answered_by_hand(line_run, place)
        rows = table[(table["operator"] == "+") & (table["seed"] == seed)].set_index("split")
        for split, right in by_hand.items():
            assert rows.loc[split, "answered"] == sum(right)
            assert rows.loc[split, "n_prompts"] == rows.loc[split, "estimable"] == len(right)


def test_what_is_the_same_for_all_equations_is_put_back_as_it_was(line_run):
    """Positions are additive, so nothing is lost of what the model answers by itself."""
    table = over_seeds(line_run, main_effect_answers, sites=["hook_pos_embed"])
    assert (table["answered"] == table["model"]).all()
    assert (table["shuffled"] == table["model"]).all()
    counts = evaluate_run(line_run).counts()
    sums = table.groupby(["split", "seed"])["model"].sum()
    assert sums["held out"].sum() == sum(rate["held_out"].hits for rate in counts)
    seen = [sum(rate[name].hits for name in ("seen_addition", "seen_subtraction"))
            for rate in counts]  # fmt: skip
    assert sums["seen"].tolist() == seen and sum(seen) > 300


def test_main_effects_answer_more_than_those_of_a_shuffled_grid(line_run):
    table = over_seeds(line_run, main_effect_answers, sites=["blocks.0.attn.hook_z"])
    seen = table[table["split"] == "seen"]
    assert (seen["answered"] > 3 * seen["shuffled"]).all()


def test_every_seed_has_its_own_held_out_equations_and_gaps_are_no_answers(line_run):
    models = Models.of(line_run)
    first, second = models.prompts
    three = np.array([e.labels["a"] == 3 for e in second.examples])
    prompts = (first, dataclasses.replace(second, held_out=three))
    models = dataclasses.replace(models, prompts=prompts)
    table = over_seeds(models, main_effect_answers, sites=["hook_pos_embed", "logits"])
    rows = table.query("split == 'held out'").set_index(["site", "seed", "operator"]).sort_index()
    assert rows.loc["logits", "n_prompts"].tolist() == [2, 2, 10, 10]
    assert rows.loc[("logits", 0), "estimable"].tolist() == [2, 2]
    for site in ("logits", "hook_pos_embed"):
        assert (rows.loc[(site, 1), ["estimable", "answered", "shuffled"]] == 0).all(axis=None)


def test_models_of_one_s_own_have_no_untrained_models(line_run):
    own = models_of(line_run.model())
    result = analyse_additivity(own, sites=[POST, "blocks.0.attn.hook_z.0"], positions=(-5, -1))
    table = result.tables["additivity"]
    assert table["untrained"].isna().all()
    assert table.loc[table["position"] == "<", "share"].isna().all()  # the grid is constant
    head = table.query("pos == -1 and site == 'blocks.0.attn.hook_z.0'")["share"]
    whole = over_seeds(own, variance_shares, sites=["blocks.0.attn.hook_z"])["share"]
    assert np.allclose(head, whole)  # the only one there is
    claims = [c for c in result.claims if c.text.startswith("In ")]
    assert claims[0].text == f"In {POST} at =, the interaction of a and b explains"
    assert {claim.null_name for claim in claims} == {"shuffled grid"}
    assert result.figures["additivity"]().data
    assert set(result.display["site"]) == {POST, "blocks.0.attn.hook_z.0", "model"}


def test_a_claim_has_the_closest_null():
    rows = pd.DataFrame([
        {"site": "s", "position": "=", "operator": "+", "seed": seed, "effect": "interaction",
         "share": 0.3 + 0.02 * seed, "untrained": 0.1, "shuffled": 0.8, "p": 0.01}
        for seed in (0, 1, 2)
    ])  # fmt: skip
    counts = pd.DataFrame([
        {"site": "s", "operator": operator, "split": "held out", "seed": seed, "answered": seed,
         "shuffled": 0.5, "model": 2, "n_prompts": 2, "estimable": 2}
        for operator in "+-" for seed in (0, 1)
    ])  # fmt: skip
    low, answered = additivity_claims(share_summary(rows), answer_summary(counts))
    assert (low.effect.mean, low.null) == pytest.approx((0.32, 0.1))
    assert low.verdict == "supported" and low.null_name == "untrained"
    high, _ = additivity_claims(share_summary(rows.assign(share=0.7)), answer_summary(counts))
    assert high.null == pytest.approx(0.8) and high.null_name == "shuffled grid"
    assert (answered.effect.mean, answered.null) == (0.25, 0.25)
    assert answered.unit == "of the held out equations, the model itself 1.00"

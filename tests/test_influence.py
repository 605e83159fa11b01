"""Influence that was planted is recovered, and halves agree as far as their noise lets them."""

import doctest
from itertools import combinations_with_replacement, product

import influence as study
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models

MAIN, (ITSELF, OTHER, UNSEEN) = study.MAIN, study.TARGETS
PAIRS, EACH = 12, 20
IS_OWN = np.eye(PAIRS, dtype=bool)


def design_of(pairs: list[str], held_out: np.ndarray, scores: np.ndarray) -> study.HoldoutDesign:
    return study.HoldoutDesign(pairs=pairs, held_out=held_out, scores={MAIN: scores})


def planted(noise: float, seed: int = 0) -> tuple[study.HoldoutDesign, np.ndarray]:
    """Models that lose `truth[i, j]` on pair j where they hold out pair i."""
    chance = np.random.default_rng(seed)
    truth = chance.normal(0, 0.5, (PAIRS, PAIRS)) + np.diag(chance.normal(4, 1, PAIRS))
    held_out = np.tile(IS_OWN, (EACH, 1))
    scores = chance.normal(5, 1, PAIRS) - held_out @ truth
    scores = scores + chance.normal(0, noise, scores.shape)
    return design_of([f"0,{k}" for k in range(PAIRS)], held_out, scores), truth


def expected(truth: np.ndarray) -> np.ndarray:
    """What holding out i does beyond holding out another: the estimand, entry by entry."""
    found = np.empty_like(truth)
    for i, j in product(range(PAIRS), repeat=2):
        found[i, j] = truth[i, j] - np.delete(truth[:, j], [i, j]).mean()
    return found


def both(matrices: np.ndarray) -> np.ndarray:
    """Influence on a pair itself and on another pair in one matrix."""
    return np.where(np.eye(len(matrices[0]), dtype=bool), *matrices[:2])


def test_influence_is_the_definition_whatever_the_models_hold_out() -> None:
    """Against a loop over models, which hold out none, one or several pairs."""
    chance = np.random.default_rng(0)
    out, scores = chance.random((90, 5)) < 0.3, chance.normal(size=(90, 5))
    found, errors, *counts = study.influence(scores, out)
    for k, i, j in product(range(3), range(5), range(5)):
        if (k == 0) != (i == j):
            assert np.isnan(found[k, i, j])
            continue
        compared = [m for m in range(90) if k == 0 or out[m, j] == (k == 2)]
        groups = [scores[[m for m in compared if out[m, i] == held], j] for held in (False, True)]
        assert found[k, i, j] == pytest.approx(groups[0].mean() - groups[1].mean())
        error = np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups))
        assert errors[k, i, j] == pytest.approx(error)
        assert [count[k, i, j] for count in counts] == [len(group) for group in groups]
        entry = np.zeros((5, 5), dtype=bool)
        entry[i, j] = True
        interval = study.mean_influence(scores, out, k, entry)
        assert interval.mean == pytest.approx(found[k, i, j]) and interval.n == 90
        assert interval.high - interval.mean == pytest.approx(t.ppf(0.975, 89) * error, rel=0.01)
    assert not doctest.testmod(study).failed


def test_halves_agree_as_much_as_theory_says() -> None:
    """Of signal variance S and noise variance N in a half, halves correlate by S / (S + N)."""
    noise, half = 2.0, EACH / 2
    designs, truths = zip(*(planted(noise, seed) for seed in range(8)), strict=True)
    tables = [study.agreement_table(x, splits=10, seed=k) for k, x in enumerate(designs)]
    truths = list(map(expected, truths))
    for target, is_own in ((OTHER, False), (ITSELF, True)):
        entries = np.array([truth[is_own == IS_OWN] for truth in truths])
        within = noise**2 / half * (1 + 1 / (PAIRS - 1 - (not is_own)))
        signal = entries.var(1)
        found = pd.concat([table[table["target"] == target] for table in tables])
        near = 0.15 if is_own else 0.05  # of eight correlations over 12 entries, and over 132
        reliable = (signal / (signal + within)).mean()
        assert found["r"].mean() == pytest.approx(reliable, abs=near)
        assert abs(found["null_r"].mean()) < 0.1


def test_what_makes_a_model_good_at_everything_is_taken_off() -> None:
    design, truth = planted(0.3)
    chance = np.random.default_rng(3)
    raw = design.scores[MAIN] + chance.normal(0, 3, (len(design.held_out), 1))
    specific = study.specific_margins(raw, design.held_out)
    ours, without = (both(study.influence(x, design.held_out)[0]) for x in (specific, raw))
    errors = [np.std((x - expected(truth))[~IS_OWN]) for x in (ours, without)]
    assert errors[0] < errors[1] / 2
    assert np.diag(ours) == pytest.approx(np.diag(expected(truth)), abs=0.8)


def operand_pairs(size: int) -> tuple[list[str], np.ndarray]:
    """Pairs of operands, and which two different pairs have the same sum."""
    pairs = list(combinations_with_replacement(range(size), 2))
    same = np.array([[sum(p) == sum(q) and p != q for q in pairs] for p in pairs])
    return [f"{a},{b}" for a, b in pairs], same


@pytest.mark.parametrize("planted_help", [1.0, 0.0])
def test_pairs_that_help_each_other_are_found_by_their_relation(planted_help: float) -> None:
    """Models each hold out one pair, and pairs of one sum help each other."""
    names, same = operand_pairs(6)
    out = np.tile(np.eye(len(names), dtype=bool), (4, 1))
    scores = -(out @ (3 * np.eye(len(names)) + planted_help * same))
    scores = scores + np.random.default_rng(0).normal(0, 1, scores.shape)
    table = study.relation_table(design_of(names, out, scores)).set_index("relation")
    assert table.loc["", "p"] == 0.01 and table["n_entries"].sum() == 21**2
    assert (table["n_models"] == 84).all()
    if planted_help:
        assert table.loc["of the same sum", "influence"] == pytest.approx(1.0, abs=0.3)
        assert table.loc["of the same sum", "influence_low"] > 0
        assert table.loc["of the same sum", "p"] == 0.01
    rest = table.drop(index=["", "of the same sum"] if planted_help else [""])
    assert (rest["p"] > 0.01).all()


def test_help_for_a_pair_that_no_model_here_was_trained_on_is_found() -> None:
    """Models are dealt hands of pairs, and what helps acts on held-out pairs alone."""
    names, same = operand_pairs(5)
    chance = np.random.default_rng(0)
    hands = [np.array_split(chance.permutation(len(names)), 3) for _ in range(80)]
    out = np.array([np.isin(np.arange(len(names)), hand) for deal in hands for hand in deal])
    scores = np.where(out, -5 - out @ same, 0.0) + chance.normal(0, 0.5, out.shape)
    design = design_of(names, out, scores)
    found = study.relation_table(design).set_index(["relation", "target"]).loc["of the same sum"]
    assert found.loc[UNSEEN, "influence"] == pytest.approx(1, abs=0.15)
    assert found.loc[UNSEEN, "p"] == 0.01 and abs(found.loc[OTHER, "influence"]) < 0.1
    agreement = study.agreement_table(design, splits=5).set_index("target")
    assert agreement.loc[UNSEEN, "r"] > 0.5 > abs(agreement.loc[OTHER, "r"])


def test_a_run_s_pairs_are_scored_as_its_answers_are(pairs_run: Run) -> None:
    design = study.holdout_design(Models.of(pairs_run))
    assert design.pairs == ["0,1", "5,7", "9,9"]
    assert np.array_equal(design.held_out, np.tile(np.eye(3, dtype=bool), (4, 1)))
    answers, examples = evaluate_run(pairs_run).table, pairs_run.tasks[0].examples
    for k, pair in enumerate(({0, 1}, {5, 7}, {9})):
        of_pair = [{e.labels["a"], e.labels["b"]} == pair for e in examples]
        rows = answers[np.tile(of_pair, 12)].groupby("seed")
        assert design.scores["margin"][:, k] == pytest.approx(rows["margin"].mean(), abs=1e-4)
        assert design.scores["accuracy"][:, k] == pytest.approx(rows["right"].mean())


def test_many_models_are_trained_by_one_command_and_not_all_are_listed(capsys, monkeypatch) -> None:
    monkeypatch.setattr("tbtt_interp.cli.training.SHOWN", 3)
    assert main(["train", "--recipe", "influence", "--seeds", "1", "--steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "runs/arithmetic-small-line-influence: 2 steps" in out
    assert "The first 2 of 5 models; --json prints all." in out
    assert "\n1 " in out and "\n2 " not in out


def test_models_that_hold_out_the_same_show_no_influence(line_run: Run) -> None:
    with pytest.raises(TbttError, match="holds out the same pairs: train models that differ, as"):
        study.holdout_design(Models.of(line_run))

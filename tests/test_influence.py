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


def planted(
    noise: float, seed: int = 0, each: int = EACH
) -> tuple[study.HoldoutDesign, np.ndarray]:
    """Models that lose `truth[i, j]` on pair j where they hold out pair i."""
    chance = np.random.default_rng(seed)
    truth = chance.normal(0, 0.5, (PAIRS, PAIRS)) + np.diag(chance.normal(4, 1, PAIRS))
    held_out = np.tile(IS_OWN, (each, 1))
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
    together = np.array([[1, 1], [0, 0]], dtype=bool)  # always held out together
    found, errors, *_ = study.influence(np.array([[0.0, 1], [2, 5]]), together)
    assert np.array_equal(both(found), [[2, np.nan], [np.nan, 4]], equal_nan=True)
    assert np.isnan(found[2]).all() and np.isnan(errors).all()
    interval = study.mean_influence(np.array([[0.0, 1], [2, 5]]), together, 0, np.eye(2) > 0)
    assert interval.mean == 3 and np.isnan(interval.low) and interval.n == 2
    assert not doctest.testmod(study).failed


def test_errors_and_intervals_are_the_spread_over_repetitions() -> None:
    exact, truth = planted(0.0, each=8)
    noisy = planted(1.0, each=8)[0].scores[MAIN]
    out, scores = exact.held_out, exact.scores[MAIN]
    noise = np.random.default_rng(1).normal(0, 1, (300, *out.shape))
    repeated = np.array([study.influence(scores + n, out)[0][1] for n in noise])[:, ~IS_OWN]
    errors = study.influence(noisy, out)[1][1]
    assert repeated.std(0).mean() == pytest.approx(errors[~IS_OWN].mean(), rel=0.1)
    assert np.allclose(both(study.influence(scores, out)[0]), expected(truth))  # without noise
    entries = np.zeros_like(IS_OWN)
    entries[:2, 4:] = True
    means = [study.mean_influence(scores + n, out, 1, entries) for n in noise]
    widths = [(x.high - x.mean) / t.ppf(0.975, x.n - 1) for x in means]
    assert np.mean(widths) == pytest.approx(np.std([x.mean for x in means]), rel=0.2)


def test_halves_agree_as_much_as_theory_says() -> None:
    """Of signal variance S and noise variance N in a half, halves correlate by S / (S + N)."""
    noise, half, seeds = 2.0, EACH / 2, range(8)
    tables = [study.agreement_table(planted(noise, s)[0], splits=10, seed=s) for s in seeds]
    truths = [expected(planted(noise, s)[1]) for s in seeds]
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
    table = study.relation_table(design)
    relations = table.set_index(["target", "relation"])
    assert relations.loc[(UNSEEN, "of the same sum"), "influence"] == pytest.approx(1, abs=0.15)
    assert relations.loc[(UNSEEN, "of the same sum"), "p"] == 0.01
    assert abs(relations.loc[(OTHER, "of the same sum"), "influence"]) < 0.1
    agreement = study.agreement_table(design, splits=5).set_index("target")
    assert agreement.loc[UNSEEN, "r"] > 0.5 > abs(agreement.loc[OTHER, "r"])
    halved = study.half_table(names, scores, out)
    assert set(halved["target"]) == {ITSELF, OTHER, UNSEEN}
    matrices = study.influence_table(names, **{MAIN: study.influence(scores, out)[0]})
    drawn = study.plot_influence(matrices, halved, table)
    assert [trace.type for trace in drawn.data].count("heatmap") == 3


def test_a_relation_is_the_same_both_ways() -> None:
    names, _ = operand_pairs(10)
    relation = study.relation
    assert all(relation(p, q) == relation(q, p) for p, q in product(names, repeat=2))
    assert relation("3,4", "3,9") == relation("3,4", "0,4") == "sharing an operand"
    assert relation("3,4", "4,4") == relation("5,7", "6,7") == "one step away"
    assert relation("3,4", "7,9") == "unrelated" and relation("3,4", "3,4") == ""


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
    result = study.influence_result(Models.of(pairs_run), draws=9, splits=3)
    table = result.tables["influence"].groupby("target")
    assert table["n_held_out"].unique()[ITSELF] == table["n_trained"].unique()[OTHER] == [4]
    assert result.claims[0].text == "Training on a pair corrects"
    assert result.claims[0].effect.n == 12
    assert "3 pairs, each held out by at least 4 of 12 models." in result.notes[0]


def test_many_models_are_trained_by_one_command_and_not_all_are_listed(capsys) -> None:
    assert main(["train", "--recipe", "influence", "--seeds", "14", "--steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "runs/arithmetic-small-line-influence: 2 steps" in out
    assert "The first 63 of 70 models; --json prints all." in out
    assert "\n62 " in out and "\n63 " not in out


def test_models_that_hold_out_the_same_show_no_influence(line_run: Run) -> None:
    with pytest.raises(TbttError, match="holds out the same pairs: train models that differ, as"):
        study.holdout_design(Models.of(line_run))

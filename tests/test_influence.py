"""Influence that was planted is recovered, and halves agree as far as their noise lets them."""

import dataclasses
from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from tbtt_interp import figures
from tbtt_interp.analyses.influence import (
    MAIN,
    OTHER,
    OWN,
    UNSEEN,
    Held,
    beyond_level,
    held_of,
    influence,
    influence_findings,
    influence_notes,
    influence_table,
    relation,
    relation_table,
    units_of,
)
from tbtt_interp.analyses.influence_halves import agreement_table, half_table, halves
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import Run
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.training import train_models

UNITS, EACH = 12, 20


@pytest.fixture(scope="module")
def pairs_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Twelve smalls, of which four hold out each of three pairs."""
    recipe = resolve_recipe(
        "quick", {"model.size": "small", "framing": "line", "seeds": 12, "steps": 300}
    )
    each = (((0, 1),), ((5, 7),), ((9, 9),)) * 4
    recipe = dataclasses.replace(recipe, held_out_each=each)
    return train_models(recipe, tmp_path_factory.mktemp("runs") / "pairs")


def planted(noise: float, seed: int = 0, each: int = EACH) -> tuple[Held, np.ndarray]:
    """Models that lose `truth[i, j]` on unit j where they hold out unit i."""
    chance = np.random.default_rng(seed)
    truth = chance.normal(0, 0.5, (UNITS, UNITS)) + np.diag(chance.normal(4, 1, UNITS))
    out = np.tile(np.eye(UNITS, dtype=bool), (each, 1))
    scores = chance.normal(5, 1, UNITS) - out @ truth
    scores = scores + chance.normal(0, noise, scores.shape)
    names = tuple(f"unit {k}" for k in range(UNITS))
    return Held(names=names, out=out, scores={MAIN: scores}), truth


def expected(truth: np.ndarray) -> np.ndarray:
    """What holding out i does beyond holding out another: the estimand, entry by entry."""
    found = np.empty_like(truth)
    for i, j in product(range(UNITS), repeat=2):
        others = [h for h in range(UNITS) if h not in (i, j)]
        found[i, j] = truth[i, j] - truth[others, j].mean()
    return found


def test_planted_influence_is_recovered_exactly_where_there_is_no_noise() -> None:
    held, truth = planted(noise=0)
    found, errors = influence(held.scores[MAIN], held.out)
    assert np.allclose(found, expected(truth))
    assert np.allclose(np.diag(errors)[:1], np.sqrt(truth[1:, 0].var() * 12 / 11 / 220), rtol=0.1)


@pytest.mark.parametrize("unseen", [False, True])
def test_influence_is_the_definition_whatever_the_models_hold_out(unseen: bool) -> None:
    """Against a loop over models, which hold out none, one or several units."""
    chance = np.random.default_rng(0)
    out, scores = chance.random((90, 5)) < 0.3, chance.normal(size=(90, 5))
    found, errors = influence(scores, out, unseen=unseen)
    for i, j in product(range(5), repeat=2):
        if unseen and i == j:
            assert np.isnan(found[i, j])
            continue
        asked = [m for m in range(90) if i == j or out[m, j] == unseen]
        away = scores[[m for m in asked if out[m, i]], j]
        there = scores[[m for m in asked if not out[m, i]], j]
        assert found[i, j] == pytest.approx(there.mean() - away.mean())
        error = np.sqrt(there.var(ddof=1) / len(there) + away.var(ddof=1) / len(away))
        assert errors[i, j] == pytest.approx(error)


def test_what_no_model_can_tell_is_nan() -> None:
    out = np.array([[1, 1], [0, 0]], dtype=bool)  # always held out together
    found, errors = influence(np.array([[0.0, 1], [2, 5]]), out)
    assert np.array_equal(found, [[2, np.nan], [np.nan, 4]], equal_nan=True)
    assert np.isnan(errors).all()


def test_standard_errors_are_the_spread_over_repetitions() -> None:
    held, truth = planted(0.0, each=8)
    noisy = planted(1.0, each=8)[0]
    errors = influence(noisy.scores[MAIN], noisy.out)[1]
    chance = np.random.default_rng(1)
    noise = chance.normal(0, 1, (300, *held.out.shape))
    repeated = np.array([influence(held.scores[MAIN] + n, held.out)[0] for n in noise])
    other = ~np.eye(UNITS, dtype=bool)
    assert repeated.std(0)[other].mean() == pytest.approx(errors[other].mean(), rel=0.1)
    assert np.allclose(repeated.mean(0), expected(truth), atol=0.1)


def test_halves_agree_as_much_as_theory_says() -> None:
    """Of signal variance S and noise variance N in a half, halves correlate by S / (S + N)."""
    noise, half, seeds = 2.0, EACH / 2, range(8)
    tables = [agreement_table(planted(noise, s)[0], splits=10, seed=s) for s in seeds]
    truths = [expected(planted(noise, s)[1]) for s in seeds]
    for part, is_own in ((OTHER, False), (OWN, True)):
        entries = np.array([truth[np.eye(UNITS, dtype=bool) == is_own] for truth in truths])
        within = noise**2 / half * (1 + 1 / (UNITS - 1 - (not is_own)))
        signal = entries.var(1)
        found = {
            name: np.array([table.loc[table["part"] == part, name].iloc[0] for table in tables])
            for name in ("r", "spearman_brown", "needed", "rms", "null_r")
        }
        near = 0.15 if is_own else 0.05  # of eight correlations over 12 entries, and over 132
        reliable = (signal / (signal + within)).mean()
        assert found["r"].mean() == pytest.approx(reliable, abs=near)
        whole = (signal / (signal + within / 2)).mean()
        assert found["spearman_brown"].mean() == pytest.approx(whole, abs=near)
        assert (found["rms"] ** 2).mean() == pytest.approx((entries**2).mean(), rel=0.2)
        assert abs(found["null_r"].mean()) < 0.1
        assert np.median(found["needed"]) == pytest.approx(EACH * within / signal.mean(), rel=0.5)


def test_halves_have_every_model_once_and_half_of_each_kind() -> None:
    held, _ = planted(1.0, each=7)
    first, second = halves(held.out, 0)
    assert sorted([*first, *second]) == list(range(7 * UNITS))
    counts = np.array([held.out[half].sum(0) for half in (first, second)])
    assert set(counts.ravel()) == {3, 4} and (counts.sum(0) == 7).all()
    assert not np.array_equal(halves(held.out, 1)[0], first)


def test_what_makes_a_model_good_at_everything_is_taken_off() -> None:
    held, truth = planted(0.3)
    chance = np.random.default_rng(3)
    level = chance.normal(0, 3, (len(held.out), 1))
    raw = held.scores[MAIN] + level
    cleared = beyond_level(raw, held.out)
    other = ~np.eye(UNITS, dtype=bool)

    def off(scores: np.ndarray) -> float:
        found = influence(scores, held.out)[0] - expected(truth)
        return float(np.sqrt((found[other] ** 2).mean()))

    assert off(cleared) < off(raw) / 2
    own = np.diag(influence(cleared, held.out)[0])
    assert own == pytest.approx(np.diag(expected(truth)), abs=0.8)


def pairs_held(help_of_sums: float) -> Held:
    """Models that each hold out their own pair, where pairs of one sum help each other."""
    pairs = list(combinations_with_replacement(range(6), 2))
    names = tuple(f"{a},{b}" for a, b in pairs)
    same = np.array([[sum(p) == sum(q) and p != q for q in pairs] for p in pairs])
    out = np.tile(np.eye(len(pairs), dtype=bool), (4, 1))
    scores = -(out @ (3 * np.eye(len(pairs)) + help_of_sums * same))
    scores = scores + np.random.default_rng(0).normal(0, 1, scores.shape)
    return Held(names=names, out=out, scores={MAIN: scores, "right": scores})


def test_pairs_that_help_each_other_are_found_by_what_they_are_to_each_other() -> None:
    helped = relation_table(pairs_held(1.0)).set_index("relation")
    assert helped.loc["of the same sum", "influence"] == pytest.approx(1.0, abs=0.3)
    assert helped.loc["of the same sum", "p"] == 0.01
    assert (helped.drop(index=[OWN, "of the same sum"])["p"] > 0.01).all()
    nothing = relation_table(pairs_held(0.0)).set_index("relation")
    assert nothing.loc[OWN, "p"] == 0.01
    assert (nothing.drop(index=OWN)["p"] > 0.02).all()
    assert nothing["pairs"].sum() == 21**2


def test_what_a_pair_is_to_another_it_is_to_the_other() -> None:
    names = [f"{a},{b}" for a, b in combinations_with_replacement(range(10), 2)]
    assert all(relation(p, q) == relation(q, p) for p, q in product(names, repeat=2))
    assert relation("3,4", "3,9") == relation("3,4", "0,4") == "sharing an operand"
    assert relation("3,4", "4,4") == relation("5,7", "6,7") == "one step away"
    assert relation("3,4", "7,9") == relation("<5+7=", "<1+2=") == "unrelated"
    assert relation("x", "x") == OWN


def test_a_run_s_pairs_are_scored_as_its_answers_are(pairs_run: Run) -> None:
    subject = Subject.of_run(pairs_run)
    held = held_of(subject)
    assert held.names == ("0,1", "5,7", "9,9")
    assert np.array_equal(held.out, np.tile(np.eye(3, dtype=bool), (4, 1)))
    answers = evaluate_run(pairs_run).table
    for unit, pair in enumerate(({0, 1}, {5, 7}, {9})):
        labels = [{e.labels["a"], e.labels["b"]} == pair for e in subject.examples]
        mine = answers[np.tile(labels, 12)].groupby("seed")
        assert held.scores["margin"][:, unit] == pytest.approx(mine["margin"].mean(), abs=1e-4)
        assert held.scores["right"][:, unit] == pytest.approx(mine["right"].mean())
    table, agreement = influence_table(held), agreement_table(held, splits=3)
    assert table.loc[table["of"] == table["on"], "held_out"].tolist() == [4, 4, 4]
    assert (table.loc[table["of"] != table["on"], "trained"] == 4).all()
    relations = relation_table(held, draws=9)
    findings = influence_findings(table, agreement, relations)
    assert str(findings[0]).startswith("being trained on a pair rights ")
    assert "each held out by 4 or more of 12 models" in influence_notes(table, agreement)[0]
    figure = figures.influence(table, half_table(held), relations)
    matrix = figure.data[0].z
    assert np.isnan(np.diag(matrix)).all() and np.isfinite(matrix[0, 1])


def test_help_for_a_pair_that_no_model_here_was_trained_on_is_found() -> None:
    """Models are dealt hands of pairs, and what helps acts on held-out pairs alone."""
    pairs = list(combinations_with_replacement(range(5), 2))
    same = np.array([[sum(p) == sum(q) and p != q for q in pairs] for p in pairs])
    chance = np.random.default_rng(0)
    hands = [np.array_split(chance.permutation(len(pairs)), 3) for _ in range(80)]
    out = np.array([np.isin(np.arange(len(pairs)), hand) for deal in hands for hand in deal])
    scores = np.where(out, -5 - out @ same, 0.0) + chance.normal(0, 0.5, out.shape)
    names = tuple(f"{a},{b}" for a, b in pairs)
    held = Held(names=names, out=out, scores={MAIN: scores})
    relations = relation_table(held).set_index(["part", "relation"])
    assert relations.loc[(UNSEEN, "of the same sum"), "influence"] == pytest.approx(1, abs=0.15)
    assert relations.loc[(UNSEEN, "of the same sum"), "p"] == 0.01
    assert abs(relations.loc[(OTHER, "of the same sum"), "influence"]) < 0.1
    agreement = agreement_table(held, splits=5).set_index("part")
    assert agreement.loc[UNSEEN, "r"] > 0.5 > abs(agreement.loc[OTHER, "r"])
    halved = half_table(held)
    assert set(halved["part"]) == {OWN, OTHER, UNSEEN}
    drawn = figures.influence(influence_table(held), halved, relation_table(held, draws=9))
    assert [trace.type for trace in drawn.data].count("heatmap") == 3


def test_what_is_held_out_together_is_one_unit(pairs_run: Run) -> None:
    subject = Subject.of_run(pairs_run)
    away = subject.held_out.copy()
    away[:, 0] = True  # <0+0= by all: nothing to compare
    away[:, 2] = away[:, 1]  # <0+2= whenever <0+1=
    names, unit, _ = units_of(dataclasses.replace(subject, held_out=away))
    assert names == ("0,1", "5,7", "9,9") and unit[0] == -1 and unit[2] == unit[1] == 0
    bare = tuple(dataclasses.replace(e, labels={}) for e in subject.examples)
    assert units_of(dataclasses.replace(subject, examples=bare))[0] == ("<0+1=", "<5+7=", "<9+9=")
    figure = figures.influence(
        *(f(held_of(dataclasses.replace(subject, examples=bare)))
          for f in (influence_table, half_table, relation_table))
    )  # fmt: skip
    assert "bar" in {trace.type for trace in figure.data}


def test_many_models_are_trained_by_one_command_and_not_all_are_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "--recipe", "influence", "--seeds", "14", "--steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "runs/arithmetic-small-line-influence: 2 steps" in out
    assert "Of 70 models the first 63, then all; --json has every one." in out
    assert "\n62 " in out and "\n63 " not in out


def test_models_that_hold_out_the_same_have_none_to_read_off(line_run: Run) -> None:
    with pytest.raises(TbttError, match="holds out the same, so there is no influence to read off"):
        units_of(Subject.of_run(line_run))

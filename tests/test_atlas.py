"""The holdout atlas: strata, slopes and deviations are what was planted."""

import atlas as study
import pytest
from planted_tables import PAIRS, by_rule, fitted_slopes, held_out_answers, planted_shares
from scipy import stats

from tbtt_interp.errors import TbttError
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import load_task
from tbtt_interp.train.sweep import read_sweep

atlas_equations, atlas_result = study.atlas_equations, study.atlas_result


def test_what_is_still_seen_is_what_counting_the_task_s_lines_says() -> None:
    table = atlas_equations(held_out_answers(lambda *_: 1.0, seeds=1))
    table = table[table["size"] == "small"].set_index("prompt")
    for pair in PAIRS:
        task = load_task("arithmetic", held_out=(pair,))
        for asked in (example for example in task.examples if example.held_out):
            same = [
                seen for seen in task.examples
                if not seen.held_out and seen.answer == asked.answer and seen.group == asked.group
            ]  # fmt: skip
            row = table.loc[asked.prompt]
            assert row["left"] == len(same) and row["gone"] == (not same), asked.prompt
            assert row["rim"] == bool({0, 9} & set(pair)) and row["equal"] == (pair[0] == pair[1])


def test_a_slope_that_is_none_is_seldom_called_one_though_pairs_differ_in_theirs() -> None:
    wrong = naive = 0
    for seed in range(100):
        shares = planted_shares(pairs=20, by_slope=0.15, seed=seed)
        slopes = study.own_slopes(shares)
        assert slopes.tolist() == pytest.approx(fitted_slopes(shares)), "by least squares"
        interval = mean_over_models(slopes)
        wrong += not interval.low <= 0 <= interval.high
        within = shares["share"] - shares.groupby("pair")["share"].transform("mean")
        naive += stats.linregress(shares["doublings"], within).pvalue < 0.05
    assert wrong <= stats.binom.ppf(0.999, 100, 0.05)
    assert naive > 30, "models taken to be independent would be fooled"


def test_deviations_between_pairs_and_sizes_are_exact_without_noise() -> None:
    shares = planted_shares(noise=0.0, slope=0.2, seed=3)
    found = study.pair_and_size(shares)
    of_pairs = shares.groupby("pair")["share"].mean().std()
    assert found["pairs"].mean == pytest.approx(of_pairs)
    assert found["sizes"].mean == pytest.approx(0.2), "of -0.2, 0 and 0.2"
    assert found["pairs minus sizes"].mean == pytest.approx(of_pairs - 0.2)


def test_what_seeds_differ_by_is_not_taken_for_a_difference_between_pairs() -> None:
    shares = planted_shares(pairs=400, by_pair=0.0, by_seed=0.3, noise=0.3, seed=4)
    assert shares.groupby("pair")["share"].mean().std() > 0.14, "which it would look like"
    assert study.pair_and_size(shares)["pairs"].mean < 0.05


def test_planted_effects_are_what_the_claims_come_to() -> None:
    result = atlas_result(held_out_answers(by_rule))
    assert [claim.text for claim in result.claims] == list(read_sweep("atlas").expected[1:])
    assert [claim.verdict for claim in result.claims] == ["supported"] * 2
    assert result.claims[1].effect.mean > 0.5 and result.claims[1].effect.n == 660
    cells = result.tables["atlas-cells"]
    never = [pair for pair, rows in cells.groupby("pair") if not rows["right"].any()]
    assert "0,9" in never and f"{len(never)} are answered by no model" in result.summary[0]


def test_what_one_seed_per_pair_cannot_show_is_not_decided() -> None:
    result = atlas_result(held_out_answers(by_rule, pairs=PAIRS[10:30], seeds=1))
    assert result.claims[0].verdict == "undecided"
    assert "between pairs is not known" in result.summary[0]


def test_strata_are_means_over_pairs_each_counted_once() -> None:
    table = held_out_answers(
        lambda operator, a, b, size: a == b or operator == "+",
        pairs=[(2, 2), (2, 3), (0, 4)], seeds=2,
    )  # fmt: skip
    strata = study.strata_table(study.pairs_table(atlas_equations(table)))
    strata = strata.set_index(["stratum", "size"])
    assert strata.loc[("all", "large"), "share"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert strata.loc[("subtraction", "small"), "share"] == pytest.approx(1 / 3)
    rim = strata.loc[("an operand at the rim", "small"), ["share", "n_models"]]
    assert rim.tolist() == [0.5, 1]
    assert strata.loc[("subtraction", "small"), ["nearest", "additive"]].tolist() == [0, 1]


def test_answers_that_are_gone_are_compared_with_pairs_that_have_all() -> None:
    equations = atlas_equations(held_out_answers(by_rule))
    gone = equations[equations["gone"]].groupby("pair")["right"].mean()
    seen = equations[~equations["pair"].isin(gone.index)].groupby("pair")["right"].mean()
    assert (len(gone), len(seen)) == (5, 50)
    oracle = stats.ttest_ind(seen, gone, equal_var=False).confidence_interval()
    found = study.seen_less_gone(equations)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"framing": "file"}, "no model here holds out one pair and trains on whole lines"),
        ({"seed": 0}, "pairs of this atlas share seeds"),
    ],
)
def test_a_table_that_is_no_atlas_is_refused(changed: dict[str, object], message: str) -> None:
    table = held_out_answers(lambda *_: 1.0, pairs=[(0, 1), (2, 2)]).assign(**changed)
    with pytest.raises(TbttError, match=message):
        atlas_equations(table)

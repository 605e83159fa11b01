"""The holdout atlas: planted effects come back, and nulls stay null."""

from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import complete
from tbtt_interp.evidence import models as measured
from tbtt_interp.evidence.atlas import (
    atlas_equations,
    atlas_evidence,
    cells_table,
    seen_less_gone,
    strata_table,
)
from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.evidence.mixed import (
    answered_shares,
    interval_over_pairs,
    logistic_check,
    mixed_model,
    pair_and_size,
    slopes_of_pairs,
)
from tbtt_interp.evidence.models import (
    finished_runs,
    held_out_table,
    models_table,
    ship_tables,
    sweep_table,
)
from tbtt_interp.figures.atlas import atlas_maps, atlas_strata
from tbtt_interp.runs import Run
from tbtt_interp.tasks import load_task
from tbtt_interp.train.sweep import read_sweep

PAIRS = list(combinations_with_replacement(range(10), 2))
WIDTHS = {"small": 14, "medium": 28, "large": 56}


def planted(
    chance: Callable[[str, int, int, str], float], *, pairs=PAIRS, seeds: int = 4, seed: int = 0
) -> pd.DataFrame:
    """A table as `held_out_table` has it, with each equation right by its chance."""
    generator = np.random.default_rng(seed)
    rows = []
    for k, (low, high) in enumerate(pairs):
        for number in range(seeds):
            for size, width in WIDTHS.items():
                for operator in "+-":
                    for a, b in dict.fromkeys([(low, high), (high, low)]):
                        right = generator.random() < chance(operator, a, b, size)
                        rows.append(
                            {"task": "arithmetic", "framing": "line", "size": size,
                             "width": width, "seed": seeds * k + number,
                             "held_out": f"{low},{high}", "prompt": f"<{a}{operator}{b}=",
                             "operator": operator, "a": a, "b": b, "margin": right - 0.5,
                             "right": right, "nearest": False, "additive": operator == "-"}
                        )  # fmt: skip
    return pd.DataFrame(rows)


def planted_shares(
    *, pairs: int = 55, seeds: int = 4, slope: float = 0.0, by_pair: float = 0.3,
    by_slope: float = 0.0, by_operator: float = 0.0, by_seed: float = 0.0, noise: float = 0.1,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """A table as `answered_shares` has it, with normal effects of known deviations."""
    draw = np.random.default_rng(seed).normal
    shape = (pairs, seeds, 3, 2)
    doublings, operator = np.array([-1.0, 0, 1])[:, None], np.array([0.5, -0.5])
    share = (
        0.5 + by_pair * draw(size=(pairs, 1, 1, 1)) + by_seed * draw(size=(pairs, seeds, 1, 1))
        + (slope + by_slope * draw(size=(pairs, 1, 1, 1))) * doublings
        + (0.1 + by_operator * draw(size=(pairs, 1, 1, 1))) * operator + noise * draw(size=shape)
    )  # fmt: skip
    pair, number, size, sign = np.indices(shape).reshape(4, -1)
    return pd.DataFrame(
        {"pair": pair, "seed": pair * seeds + number, "size": np.array(list(WIDTHS))[size],
         "width": 14 * 2**size, "operator": np.array(["+", "-"])[sign], "share": share.ravel(),
         "doublings": size - 1.0, "addition": 0.5 - sign, "gone": 0.0, "rim": 0.0,
         "equal": (pair % 5 == 0) * 1.0}
    ).assign(model=lambda t: t["seed"].astype(str) + t["size"])  # fmt: skip


def test_what_is_still_seen_is_what_counting_the_task_s_lines_says() -> None:
    table = atlas_equations(planted(lambda *_: 1.0, seeds=1))
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
    gone = table.index[table["gone"]]
    assert set(gone) == {"<0+0=", "<0+1=", "<1+0=", "<8+9=", "<9+8=", "<9+9=", "<0-9=", "<9-0="}


@pytest.fixture(scope="module")
def shares() -> pd.DataFrame:
    return planted_shares(slope=-0.1, by_slope=0.06, by_operator=0.1, by_seed=0.08, seed=1)


@pytest.fixture(scope="module")
def fitted(shares: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return mixed_model(shares)


def test_the_mixed_model_is_the_mean_of_pairs_own_slopes_where_all_is_balanced(
    fitted, shares: pd.DataFrame
) -> None:
    own = [np.polyfit(rows["doublings"], rows["share"], 1)[0] for _, rows in shares.groupby("pair")]
    oracle = stats.ttest_1samp(own, 0).confidence_interval()
    found = fitted[0].set_index("term").loc["doublings"]
    assert found["effect"] == pytest.approx(np.mean(own), abs=1e-6)
    assert found["low"] == pytest.approx(oracle.low, abs=5e-4)  # variances come by iteration
    assert found["high"] == pytest.approx(oracle.high, abs=5e-4)
    ours = interval_over_pairs(slopes_of_pairs(shares))
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high))


def test_the_mixed_model_recovers_planted_effects_and_deviations(fitted) -> None:
    fixed, deviations = fitted
    fixed, sd = fixed.set_index("term"), deviations.set_index("between")["sd"]
    for term, planted_effect in (("doublings", -0.1), ("addition", 0.1), ("equal", 0.0)):
        assert fixed.loc[term, "low"] < planted_effect < fixed.loc[term, "high"], term
    assert not {"gone", "rim"} & set(fixed.index), "what does not vary has no effect"
    # four standard errors of a deviation over 55 pairs are some four tenths of it
    assert sd["pairs"] == pytest.approx(0.3, rel=0.4)
    assert sd["doubling of width, by pair"] == pytest.approx(0.06, rel=0.4)
    assert sd["operator, by pair"] == pytest.approx(0.1, rel=0.4)
    assert sd["seeds of a pair"] == pytest.approx(0.08, rel=0.4)
    assert sd["shares of a model"] == pytest.approx(0.1, rel=0.2)


def test_the_mixed_model_finds_its_optimum_where_variances_are_zero() -> None:
    """Gradient methods stop on their way there and have no interval, or one that is too wide."""
    shares = planted_shares(pairs=30, seeds=3, by_operator=0.1, noise=0.15, seed=0)
    fixed, deviations = mixed_model(shares)
    own = interval_over_pairs(slopes_of_pairs(shares))
    found = fixed.set_index("term").loc["doublings"]
    assert found["high"] - found["low"] == pytest.approx(own.high - own.low, rel=0.05)
    sd = deviations.set_index("between")["sd"]
    assert sd["seeds of a pair"] < 0.03 and sd["doubling of width, by pair"] < 0.03


def test_a_slope_that_is_none_is_seldom_called_one_though_pairs_differ_in_theirs() -> None:
    wrong = naive = 0
    for seed in range(200):
        shares = planted_shares(pairs=20, seeds=2, by_slope=0.15, seed=seed)
        interval = interval_over_pairs(slopes_of_pairs(shares))
        wrong += not interval.low <= 0 <= interval.high
        within = shares["share"] - shares.groupby("pair")["share"].transform("mean")
        naive += stats.linregress(shares["doublings"], within).pvalue < 0.05
    assert wrong <= stats.binom.ppf(0.999, 200, 0.05)
    assert naive > 60, "models taken to be independent would be fooled"


def test_a_model_that_cannot_be_fitted_says_what_it_needs() -> None:
    few = planted_shares(pairs=5)
    with pytest.raises(
        TbttError, match=r"needs 10 pairs, two sizes and answers that differ, got 5"
    ):
        mixed_model(few)
    with pytest.raises(TbttError, match=r"got 55 pairs and 3 sizes: train more of the atlas"):
        mixed_model(planted_shares().assign(share=1.0))


def test_the_logistic_check_takes_pairs_and_not_rows_as_its_evidence() -> None:
    def chance(operator: str, a: int, b: int, size: str) -> float:
        return 1 / (1 + np.exp(0.7 * np.log2(WIDTHS[size] / 28)))

    equations = atlas_equations(planted(chance))
    found = logistic_check(equations).set_index("term").loc["doublings"]
    assert found["low"] < -0.7 < found["high"] < 0
    again = logistic_check(pd.concat([equations] * 4)).set_index("term").loc["doublings"]
    width, once = again["high"] - again["low"], found["high"] - found["low"]
    assert width == pytest.approx(once, rel=0.1), "rows that are copies tell nothing new"


def test_deviations_between_pairs_and_sizes_are_exact_without_noise() -> None:
    shares = planted_shares(noise=0.0, slope=0.2, seed=3)
    found = pair_and_size(shares)
    of_pairs = shares.groupby("pair")["share"].mean().std()
    assert found["pairs"].mean == pytest.approx(of_pairs)
    assert found["sizes"].mean == pytest.approx(0.2), "of -0.2, 0 and 0.2"
    assert found["pairs less sizes"].mean == pytest.approx(of_pairs - 0.2)
    assert found["pairs"].low < found["pairs"].mean < found["pairs"].high


def test_what_seeds_differ_by_is_not_taken_for_a_difference_between_pairs() -> None:
    shares = planted_shares(pairs=400, by_pair=0.0, by_seed=0.3, noise=0.3, seed=4)
    assert shares.groupby("pair")["share"].mean().std() > 0.14, "which it would look like"
    assert pair_and_size(shares)["pairs"].mean < 0.05


def test_a_pair_of_one_seed_does_not_undo_what_the_others_say() -> None:
    shares = planted_shares(seed=5)
    some = shares[(shares["pair"] > 0) | (shares["seed"] == 0)]
    found, whole = pair_and_size(some), pair_and_size(shares)
    for name in ("pairs", "sizes", "pairs less sizes"):
        assert found[name].mean == pytest.approx(whole[name].mean, abs=0.02), name
        assert found[name].low == pytest.approx(whole[name].low, abs=0.03), name


def test_what_one_seed_a_pair_cannot_tell_is_not_said() -> None:
    found = atlas_evidence(planted(by_rule, pairs=PAIRS[10:30], seeds=1))
    assert found.claims[1].verdict == "undecided"
    assert not any("nan" in sentence for sentence in found.sentences)


def by_rule(operator: str, a: int, b: int, size: str) -> float:
    gone = abs(a - b) == 9 or (operator == "+" and a + b in (0, 1, 17, 18))
    inner = 0.9 - 0.2 * (operator == "-") - 0.1 * np.log2(WIDTHS[size] / 28)
    return 0.0 if gone else inner - 0.4 * bool({0, 9} & {a, b})


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return atlas_evidence(planted(by_rule))


def test_planted_effects_are_what_the_claims_come_to(evidence: Evidence) -> None:
    claims = evidence.claims
    assert [claim.says for claim in claims[:3]] == list(read_sweep("atlas").expected)
    assert {claim.by for claim in claims[:3]} == {"expected before the run"}
    assert {claim.by for claim in claims[3:]} == {"explored"}
    assert [claim.verdict for claim in claims] == ["supported"] * 5
    size, _, covered, addition, rim = (claim.effect for claim in claims)
    assert size.mean == pytest.approx(-0.1, abs=0.03)
    assert covered.mean > 0.5
    assert addition.mean == pytest.approx(0.2, abs=0.06)
    assert rim.mean == pytest.approx(-0.4, abs=0.1)
    assert "each of 55 pairs held out in turn" in evidence.sentences[0]
    cells = evidence.tables["cells"]
    never = [pair for pair, rows in cells.groupby("pair") if not rows["right"].any()]
    assert f"{len(never)} of 55 pairs are answered by no model" in evidence.sentences[1]
    assert "0,9" in never and "0,9" in evidence.sentences[1]


def test_effects_come_by_several_methods_that_agree(evidence: Evidence) -> None:
    effects = evidence.tables["effects"].set_index(["method", "term"])
    assert effects.loc[("own slopes", "doublings"), "effect"] == pytest.approx(
        effects.loc[("mixed model", "doublings"), "effect"], abs=1e-4
    )
    apart = effects.loc["sizes apart", "effect"]
    assert list(apart.index) == ["medium less small", "large less medium"]
    assert apart.mean() == pytest.approx(effects.loc[("own slopes", "doublings"), "effect"])
    assert effects.loc[("logistic", "doublings"), "high"] < 0


def test_an_effect_the_other_way_contradicts_the_expectation() -> None:
    def larger_is_better(operator: str, a: int, b: int, size: str) -> float:
        return 0.5 + 0.3 * np.log2(WIDTHS[size] / 28)

    found = atlas_evidence(planted(larger_is_better, pairs=PAIRS[10:30], seeds=2))
    assert found.claims[0].verdict == "contradicted"
    assert found.claims[1].verdict == "contradicted", "all pairs are alike"


def test_an_atlas_that_has_just_begun_is_shown_without_claims() -> None:
    found = atlas_evidence(planted(by_rule, pairs=PAIRS[:3]))
    assert not found.claims and len(found.shown)
    assert found.notes[-1].startswith("Effects are not fitted: a mixed model of held-out answers")


def test_strata_are_means_over_pairs_each_counted_once() -> None:
    def chance(operator: str, a: int, b: int, size: str) -> float:
        return float(a == b or operator == "+")

    equations = atlas_equations(planted(chance, pairs=[(2, 2), (2, 3), (0, 4)], seeds=2))
    strata = strata_table(equations).set_index(["stratum", "size"])
    assert strata.loc[("all", "large"), "share"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert strata.loc[("addition", "large"), "share"] == 1
    assert strata.loc[("subtraction", "small"), "share"] == pytest.approx(1 / 3)
    assert strata.loc[("an operand at the rim", "small"), ["share", "pairs"]].tolist() == [0.5, 1]
    assert strata.loc[("equal operands", "small"), ["share", "equations"]].tolist() == [1, 2]
    assert strata.loc[("subtraction", "small"), ["nearest", "additive"]].tolist() == [0, 1]
    assert strata.loc[("all", "small"), "slope"] == pytest.approx(0)


def test_answers_that_have_gone_are_held_against_pairs_that_have_all() -> None:
    shares = answered_shares(atlas_equations(planted(by_rule)))
    gone = shares[shares["gone"] == 1].groupby("pair")["share"].mean()
    seen = shares.groupby("pair").filter(lambda rows: rows["gone"].max() == 0)
    seen = seen.groupby("pair")["share"].mean()
    assert (len(gone), len(seen)) == (5, 50)
    oracle = stats.ttest_ind(seen, gone, equal_var=False).confidence_interval()
    found = seen_less_gone(shares)
    assert found.mean == pytest.approx(seen.mean() - gone.mean())
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


def test_a_table_that_is_no_atlas_is_refused() -> None:
    table = planted(lambda *_: 1.0, pairs=[(0, 1), (2, 2)])
    with pytest.raises(TbttError, match=r"no model here holds out one pair and trains on whole"):
        atlas_equations(table.assign(framing="file"))
    with pytest.raises(TbttError, match=r"no model here holds out one pair"):
        atlas_equations(table.assign(held_out="0,1 2,2"))
    with pytest.raises(TbttError, match=r"pairs of this atlas share seeds"):
        atlas_equations(table.assign(seed=0))


def test_maps_have_each_equation_at_its_operands() -> None:
    def only(operator: str, a: int, b: int, size: str) -> float:
        return float((operator, a, b, size) == ("-", 3, 8, "medium"))

    cells = cells_table(atlas_equations(planted(only, seeds=2)))
    figure = atlas_maps(cells)
    titles = [note.text for note in figure.layout.annotations]
    assert titles[:5] == [*WIDTHS, "nearest seen equation", "additive model"]
    heat = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(heat) == 10
    lit = {(k, *map(int, place)) for k, trace in enumerate(heat[:6])
           for place in np.argwhere(np.asarray(trace.z, float) > 0)}  # fmt: skip
    assert lit == {(3, 3, 8)}, "the second size's second map, a downwards and b to the right"
    assert np.all(np.asarray(heat[9].z, float) == 1), "the additive model's differences"
    marks = [trace for trace in figure.data if trace.type == "scatter"]
    assert set(zip(marks[1].y, marks[1].x, strict=True)) == {(0, 9), (9, 0)}
    part = atlas_maps(cells[cells["pair"] == "3,8"])
    assert np.isnan(np.asarray(part.data[0].z, float)).sum() == 98, "what is not trained is blank"


def test_strata_are_drawn_by_size_beside_the_baselines(evidence: Evidence) -> None:
    strata = evidence.tables["strata"]
    figure = evidence.figures["atlas-strata"]()
    assert [trace.name for trace in figure.data[:5]] == [
        *WIDTHS, "nearest seen equation", "additive model",
    ]  # fmt: skip
    assert list(figure.data[0].x) == strata[strata["size"] == "small"]["share"].tolist()
    low, high = atlas_strata(strata).layout.xaxis2.range
    assert low == -high, "changes diverge around zero"


def test_held_out_equations_are_right_where_greedy_completion_is(line_run: Run) -> None:
    table = held_out_table([line_run])
    assert len(table) == 8 and table["right"].any()
    for row in table.to_dict("records"):
        place = line_run.seed_index(row["seed"])
        said = complete(
            line_run.parameters(), line_run.shape, row["prompt"], line_run.task.vocabulary,
            line_run.task.terminators,
        )[place].text  # fmt: skip
        value = row["a"] + row["b"] if row["operator"] == "+" else row["a"] - row["b"]
        assert row["answer"] == f"{value}>"
        assert row["right"] == (said == row["answer"])
        assert row["right"] == (row["margin"] > 0)
    # a neighbour's sum or difference is one off
    assert not table["nearest"].any()


def test_a_sweep_s_tables_agree_and_ship(
    sweeps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = finished_runs(sweeps / "atlas")
    table, counts = held_out_table(runs), models_table(runs)
    asked = table.groupby(["run", "seed"])["right"].agg(["sum", "size"])
    told = counts.set_index(["run", "seed"])[["held_out_right", "held_out_of"]]
    assert asked.sort_index().to_numpy().tolist() == told.sort_index().to_numpy().tolist()
    assert set(table["held_out"]) == {"0,9", "3,3"}
    ship_tables("mine", sweeps / "atlas", tmp_path / "shipped")
    monkeypatch.setattr(measured, "MEASURED", tmp_path / "shipped")
    shipped = sweep_table("mine", "held out")
    pd.testing.assert_frame_equal(shipped, table, check_dtype=False, rtol=1e-4)
    with pytest.raises(TbttError, match=r"table 'heldout' is unknown \(did you mean 'held out'"):
        sweep_table("mine", "heldout")
    with pytest.raises(TbttError, match=r"tables of sweep yours do not come with this package"):
        sweep_table("yours", "held out")


def test_runs_that_hold_out_no_equations_have_no_rows(facts_run: Run) -> None:
    table = held_out_table([facts_run])
    assert table.empty
    with pytest.raises(TbttError, match=r"no model here holds out one pair"):
        atlas_evidence(table)
    with pytest.raises(TbttError, match=r"there is no finished run to tabulate"):
        held_out_table([])

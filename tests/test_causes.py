"""Studies of what makes models extrapolate or forget find what their tables were made with."""

import numpy as np
import pandas as pd
import pytest
import size
import timing
import transplants
import why
from measures import fits_table, measures_over_training
from tiny import short

from tbtt_interp.errors import TbttError
from tbtt_interp.results import Result
from tbtt_interp.runs import Run
from tbtt_interp.train.sweep import read_sweep
from tbtt_interp.train.training import train_models


def verdicts(result: Result) -> list[str]:
    return [claim.verdict for claim in result.claims]


def fifteen(chance: np.random.Generator, share: float, *, end: float = 1.0, **cell) -> pd.DataFrame:
    """Models with such a share of forty held-out equations right at the fit, later `end` times."""
    right = chance.binomial(40, share, size=15)
    return pd.DataFrame({
        "seed": range(15), "fit_step": 100.0, "later_step": 200.0, "held_out_of": 40, "loss": 0.7,
        "fit_right": right, "later_right": right, "best_right": right, "end_seen_accuracy": 1.0,
        "end_right": (right * end).astype(int), "end_accuracy": right * end / 40,
    }).assign(**cell)  # fmt: skip


def of_sizes(shares: dict[tuple[str, str], float], end: float = 1.0) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    return pd.concat([
        fifteen(chance, shares.get((name, framing), 0.5), end=end, framing=framing, size=name,
                learning_rate=rate, run=f"{name}-{framing}-{rate}", held_out="1,2 3,4")
        for framing in size.FRAMINGS for name in size.SIZES for rate in (1e-3, 1e-2)
    ], ignore_index=True)  # fmt: skip


def test_without_effects_only_the_sizes_are_equal() -> None:
    found = verdicts(size.size_result(of_sizes({})))
    assert found == ["undecided"] * 4 + ["supported"] * 2 + ["undecided"]


def test_what_order_costs_and_what_is_forgotten_is_found() -> None:
    costly = {(name, "file"): 0.2 for name in size.SIZES}
    assert verdicts(size.size_result(of_sizes(costly, end=0.3))) == ["supported"] * 7
    small = of_sizes({("large", "shuffled"): 0.1})
    assert verdicts(size.size_result(small))[5] == "contradicted"


def test_a_cell_counts_who_fits_and_who_loses_the_rule() -> None:
    fits = of_sizes({}, end=0.4)
    fits.loc[fits.index[:5], ["fit_step", "later_step"]] = np.nan
    result = size.size_result(fits)
    first = result.tables["size"].iloc[0]
    assert (first["models"], first["fit"], first["lost"]) == (15, 10, 10)
    assert first["at fit"].startswith(f"{fits.iloc[5:15]['fit_right'].sum() / 400:.2f}")
    assert result.figures["size"]().data


CONTRASTS = [c for name in why.SWEEPS for c in read_sweep(name).contrasts]
ALL = {c.second: 0.6 for c in CONTRASTS}


def of_contrasts(shares: dict[str, float], seen: float = 1.0) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    runs = dict.fromkeys((c.sweep, run) for c in CONTRASTS for run in (c.first, c.second))
    return pd.concat([
        fifteen(chance, shares.get(run, 0.1), sweep=sweep, run=run, size="large", framing="line",
                end_seen_accuracy=seen).assign(held_out=lambda t: t["seed"].astype(str))
        for sweep, run in runs
    ], ignore_index=True)  # fmt: skip


@pytest.mark.parametrize("account", dict.fromkeys(c.account for c in CONTRASTS))
def test_where_an_account_is_true_it_survives_and_the_others_do_not(account: str) -> None:
    shares = {c.second: 0.6 for c in CONTRASTS if c.account == account}
    found = why.why_result(of_contrasts(shares), CONTRASTS)
    judged = found.tables["accounts"].set_index("account")["verdict"]
    others = judged.drop(account)
    assert judged[account] == "survives" and not (others == "survives").any()
    shared = {c.account for c in CONTRASTS if shares.keys() & {c.first, c.second}}
    assert (others.drop(shared - {account}) == "refuted").all()
    words = {"supported": "supported", "refuted": "contradicted"}
    assert verdicts(found) == [words.get(v, "undecided") for v in found.tables["why"]["verdict"]]
    assert found.figures["why"]().data


def test_where_nothing_is_true_all_are_refuted_and_where_nothing_is_known_there_is_no_verdict():
    judged = why.why_result(of_contrasts({}), CONTRASTS).tables["accounts"]["verdict"]
    assert (judged == "refuted").all()
    unequal = why.contrasts_table(of_contrasts(ALL, seen=0.9), CONTRASTS)
    assert set(unequal.loc[unequal["read"] == "end", "verdict"]) == {"no verdict"}
    assert set(why.contrasts_table(of_contrasts({}).head(0), CONTRASTS)["verdict"]) == {"not run"}


def test_p_values_are_corrected_for_all_contrasts_but_those_of_few_models() -> None:
    rng = np.random.default_rng(1)
    least = [min(why.smallest_p([pd.Series(rng.normal(size=12)) for _ in range(5)]))
             for _ in range(60)]  # fmt: skip
    assert np.mean(np.array(least) <= 0.05) <= 0.13
    strong = pd.Series(rng.normal(0.2, 0.1, 15))
    alone, empty = why.smallest_p([strong, pd.Series(dtype=float)])
    assert np.isnan(empty)
    few = [pd.Series(rng.normal(0, 0.1, 4), index=range(100 * k, 100 * k + 4)) for k in range(5)]
    assert why.smallest_p([strong, *few])[0] == pytest.approx(alone, abs=1e-3)
    copies = why.smallest_p([strong, strong, strong])
    assert copies == pytest.approx([alone] * 3), "the same models keep their signs"


def test_without_tables_it_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(why, "SHIPPED", tmp_path)
    with pytest.raises(TbttError, match="no table of the sweeps why-\\* ships yet: train them"):
        why.read_fits([])


def test_at_the_fit_models_are_read_where_they_first_know_the_seen(line_run: Run) -> None:
    """And later where the sum of learning rates since is the same for both."""
    fits, metrics = fits_table([line_run]), line_run.metrics()
    for row in fits.itertuples():
        own = metrics[metrics["seed"] == row.seed].set_index("step")
        seen = own["seen_addition_right"] + own["seen_subtraction_right"]
        right = own["held_out_right"]
        assert row.fit_step == seen[seen >= 0.99 * 196].index.min()
        assert (row.fit_right, row.later_right) == tuple(right[[row.fit_step, row.later_step]])
        assert (row.best_right, row.end_right) == (right.max(), right[2_500])
    first, last = fits.sort_values("fit_step").itertuples()
    assert last.later_step == 2_500 > first.later_step or first.fit_step == last.fit_step


def courses(lead: float, spread: float = 400.0) -> pd.DataFrame:
    """Fifteen models: the margin falls at a step of its own, each line `lead` steps before."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(15):
        falls = rng.uniform(800, 800 + spread)
        early = falls - (lead if np.isfinite(lead) else rng.uniform(-spread, spread))
        for step in range(0, 3001, 50):
            line = 1 / (1 + np.exp((step - early) / 20))
            rows.append({
                "run": "made", "seed": seed, "held_out": "5,7", "step": step,
                "margin": 10 - 20 / (1 + np.exp((falls - step) / 20)), "share": 1.0,
                **dict.fromkeys(timing.LINES, line),
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_a_measure_that_leads_is_found_to_lead_and_one_that_follows_to_follow() -> None:
    lags = timing.lags_table(courses(200.0)).set_index("measure")
    assert lags["lag"].to_list() == pytest.approx([-200] * 3, abs=60)
    assert (lags["first"] == 1).all()
    result = timing.timing_result(courses(0.0))
    lags = result.tables["timing"]
    assert (lags["together_low"] > 0.5).all() and (lags["p"] < 0.01).all()
    assert result.figures["timing"]().data


def test_a_measure_that_falls_at_random_or_not_at_all_does_not_follow() -> None:
    assert (timing.lags_table(courses(np.nan))["p"] > 0.05).all()
    flat = timing.lags_table(courses(100.0).assign(line_after=0.3)).set_index("measure")
    assert flat.loc["line_after", "n_models"] == 0 and np.isnan(flat.loc["line_after", "p"])


def test_number_lines_of_a_run_are_those_of_its_models() -> None:
    run = train_models(short(**{"changes.digits": "line", "training.checkpoint_every": 3}), "run")
    measured = measures_over_training([run])
    assert len(measured) == 2 * len(run.checkpoints)
    last = measured[measured["step"] == 12].sort_values("seed")
    assert last["line_embedding"].to_list() == pytest.approx([1.0, 1.0], abs=1e-5)
    weights = run.parameters(12)
    for column, part in (("norm", ""), ("norm_mlp", ".mlp.")):
        expected = [sum(float(p[k].square().sum()) for name, p in weights.items() if part in name)
                    for k in range(2)]  # fmt: skip
        assert (last[column] ** 2).to_list() == pytest.approx(expected, rel=1e-5)


def transplanted(shares: dict[str, float]) -> Result:
    """Sixteen models of four held-out equations each; after 200 steps the shares are as given."""
    words = [f"transplant-{part}-{donor}" for part in transplants.PARTS
             for donor in transplants.DONORS]  # fmt: skip
    return transplants.transplants_result(pd.concat([
        pd.DataFrame({"run": f"arithmetic-large-shuffled-{word}", "seed": range(16), "step": step,
                      "held_out_right": int(4 * share) + np.arange(16) % 2, "held_out_of": 4,
                      "seen_right": 196, "seen_of": 196})
        for word in ["unchanged", *words]
        for step, share in ((7_800, 0.1), (8_000, shares.get(word, 0.1)))
    ], ignore_index=True))  # fmt: skip


def test_parts_that_bring_the_rule_back_are_found_and_no_others() -> None:
    result = transplanted({"transplant-digits-own": 0.9})
    assert verdicts(result)[:3] == ["supported"] * 3
    table = result.tables["transplants"].set_index(["part", "donor", "when"])["share"]
    assert table["digits", "early self", "200 steps later"] == pytest.approx(0.9, abs=0.1)
    assert table["digits", "early self", "at once"] < 0.3
    assert result.figures["transplants"]().data
    reverse = {"transplant-mlp-own": 0.9, "transplant-mlp-other": 0.9}
    assert verdicts(transplanted(reverse))[1] == "contradicted"
    assert set(verdicts(transplanted({}))) == {"undecided"}

"""The study of causes finds the account that made its table, and no other."""

import numpy as np
import pandas as pd
import pytest
import why
from measures import fits_table
from tiny import short

from tbtt_interp.errors import TbttError
from tbtt_interp.train.sweep import Contrast, read_sweep
from tbtt_interp.train.training import train_models

CONTRASTS = [c for name in why.SWEEPS for c in read_sweep(name).contrasts]
ACCOUNTS = list(dict.fromkeys(c.account for c in CONTRASTS))


def made(shares: dict[str, float], seen: float = 1.0) -> pd.DataFrame:
    """Fifteen models per run with such a share of forty held-out equations right."""
    rng, rows = np.random.default_rng(0), []
    for sweep, run in dict.fromkeys((c.sweep, r) for c in CONTRASTS for r in (c.first, c.second)):
        share = shares.get(run, 0.1)
        for seed in range(15):
            right = int(rng.binomial(40, share))
            rows.append({
                "sweep": sweep, "run": run, "size": "large", "framing": "line", "seed": seed,
                "held_out": f"{seed}",
                "fit_step": 100.0, "fit_right": right, "best_right": right, "end_right": right,
                "held_out_of": 40, "end_seen_accuracy": seen, "end_accuracy": right / 40,
            })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_where_an_account_is_true_it_survives_and_the_others_do_not(account: str) -> None:
    shares = {c.second: 0.6 for c in CONTRASTS if c.account == account}
    found = why.why_result(made(shares), CONTRASTS)
    judged = found.tables["accounts"].set_index("account")["verdict"]
    assert judged[account] == "survives"
    others = judged.drop(account)
    shared = {c.account for c in CONTRASTS if shares.keys() & {c.first, c.second}}
    assert (others.drop(shared - {account}) == "refuted").all()
    assert not (others == "survives").any()
    assert found.figures["why"]().data


def test_where_nothing_is_true_all_are_refuted() -> None:
    judged = why.why_result(made({}), CONTRASTS).tables["accounts"]["verdict"]
    assert (judged == "refuted").all()


def test_without_equal_knowledge_there_is_no_verdict_at_the_end() -> None:
    shares = {c.second: 0.6 for c in CONTRASTS}
    table = why.contrasts_table(made(shares, seen=0.9), CONTRASTS)
    assert set(table.loc[table["read"] == "end", "verdict"]) == {"no verdict"}
    empty = why.contrasts_table(made({}).head(0), CONTRASTS)
    assert set(empty["verdict"]) == {"not run"}


def test_p_values_are_corrected_for_all_contrasts() -> None:
    rng = np.random.default_rng(1)
    strong, *weak = (pd.Series(rng.normal(0.5 * (k == 0), 0.1, 15)) for k in range(10))
    alone, among = why.smallest_p([weak[0]])[0], why.smallest_p([strong, *weak])
    assert among[0] <= 10 * 2 / 2**15 + 2e-3
    assert among[1] > alone
    least = [min(why.smallest_p([pd.Series(rng.normal(size=12)) for _ in range(5)]))
             for _ in range(60)]  # fmt: skip
    assert np.mean(np.array(least) <= 0.05) <= 0.13


def test_contrasts_of_few_models_do_not_weigh_on_others() -> None:
    rng = np.random.default_rng(2)
    strong = pd.Series(rng.normal(0.2, 0.1, 15))
    few = [pd.Series(rng.normal(0, 0.1, 4), index=range(100 * k, 100 * k + 4)) for k in range(5)]
    alone, *_, empty = why.smallest_p([strong, pd.Series(dtype=float)])
    assert np.isnan(empty)
    assert why.smallest_p([strong, *few])[0] == pytest.approx(alone, abs=1e-3)
    copies = why.smallest_p([strong, strong, strong])
    assert copies == pytest.approx([alone] * 3), "the same models keep their signs"


def test_a_claim_says_what_the_table_says() -> None:
    expected = {"supported": "supported", "refuted": "contradicted", "undecided": "undecided",
                "no verdict": "undecided", "not run": "undecided"}  # fmt: skip
    second = {c.second: 0.6 for c in CONTRASTS[:3]}
    for models in (made(second), made({}), made(second, seen=0.9), made(second).head(30)):
        found = why.why_result(models, CONTRASTS)
        verdicts = found.tables["why"]["verdict"]
        assert [c.verdict for c in found.claims] == [expected[v] for v in verdicts]


def test_without_tables_or_folders_it_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(why, "SHIPPED", tmp_path)
    with pytest.raises(TbttError, match="no table of the sweeps why-\\* ships yet: train them"):
        why.read_fits([])
    with pytest.raises(TbttError, match="there is no finished run below"):
        why.read_fits([tmp_path])


def test_at_the_fit_models_are_read_where_they_first_know_the_seen() -> None:
    flags = {"model.size": "large", "training.steps": 600, "training.decay_until": 500,
             "training.evaluate_every": 50, "training.learning_rate": 1e-2}  # fmt: skip
    run = train_models(short(**flags), "run")
    fits, metrics = fits_table([run]), run.metrics()
    assert len(fits) == 2
    for row in fits.itertuples():
        own = metrics[metrics["seed"] == row.seed].set_index("step")
        seen = (own["seen_addition_right"] + own["seen_subtraction_right"]) / 196
        first = seen[seen >= 0.99].index.min()
        assert row.fit_step == first or np.isnan(row.fit_step)
        assert row.end_right == own.loc[600, "held_out_right"]
        assert row.best_right == own["held_out_right"].max()
        if not np.isnan(row.fit_step):
            assert row.fit_right == own.loc[first, "held_out_right"]
            assert row.later_right == own.loc[int(row.later_step), "held_out_right"]
    assert fits["later_step"].max() == 600, "who fits last is read at its end"
    assert (fits["later_step"] >= fits["fit_step"]).all()
    contrast = Contrast(sweep="s", account="a", claim="b", first="run", second="run", read="fit")
    assert (
        why.contrasts_table(fits.assign(sweep="s"), [contrast])["difference"].dropna().eq(0).all()
    )
    slow = train_models(short(**flags | {"changes.rate_mlp": 0.2}), "slow")
    other = train_models(short(**flags | {"training.learning_rate": 5e-3}), "other")
    both = fits_table([run, slow, other])
    assert both[both["run"] == "other"]["later_step"].max() == 600, "rates are not compared"
    faster = both[both["run"] == "run"]
    assert (faster["later_step"] < fits["later_step"].to_numpy()).all()

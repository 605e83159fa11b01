"""The study of size, order and rate reads made tables as they were made."""

import numpy as np
import pandas as pd
import pytest
import size


def made(shares: dict[tuple[str, str], float], end: float = 1.0) -> pd.DataFrame:
    """Fifteen models a cell, with such a share by size and framing at the fit; `end` times it."""
    rng, rows = np.random.default_rng(0), []
    for framing in size.FRAMINGS:
        for name in size.SIZES:
            for rate in (1e-3, 1e-2):
                for seed in range(15):
                    right = int(rng.binomial(40, shares.get((name, framing), 0.5)))
                    rows.append({
                        "run": f"{name}-{framing}-{rate}", "framing": framing, "size": name,
                        "learning_rate": rate, "seed": seed, "held_out": "1,2 3,4",
                        "fit_step": 100.0, "later_step": 200.0, "fit_right": right,
                        "later_right": right, "best_right": right, "end_right": int(right * end),
                        "held_out_of": 40, "end_seen_accuracy": 1.0, "loss": 0.7,
                        "end_accuracy": right * end / 40,
                    })  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(fits: pd.DataFrame) -> list[str]:
    return [claim.verdict for claim in size.size_result(fits).claims]


def test_without_effects_only_the_sizes_are_equal() -> None:
    order, equal, forgets = (verdicts(made({}))[at] for at in (slice(4), slice(4, 6), slice(6, 7)))
    assert order == ["undecided"] * 4 and equal == ["supported"] * 2 and forgets == ["undecided"]


def test_what_order_costs_and_what_is_forgotten_is_found() -> None:
    costly = {(name, "file"): 0.2 for name in size.SIZES}
    assert verdicts(made(costly, end=0.3)) == ["supported"] * 7
    assert verdicts(made({("large", "shuffled"): 0.1}))[5] == "contradicted"


def test_a_cell_counts_who_fits_and_who_loses_the_rule() -> None:
    fits = made({}, end=0.4)
    fits.loc[fits.index[:5], ["fit_step", "later_step"]] = np.nan
    result = size.size_result(fits)
    first = result.tables["size"].iloc[0]
    assert (first["models"], first["fit"], first["lost"]) == (15, 10, 10)
    share = fits.iloc[5:15]["fit_right"].sum() / 400
    assert first["at fit"].startswith(f"{share:.2f}")
    assert len(result.figures["size"]().data) >= 9 * 2


@pytest.mark.parametrize(("pairs", "named"), [("5,7", "one pair"), ("1,2 3,4", "eleven pairs")])
def test_hands_and_single_pairs_are_told_apart(pairs: str, named: str) -> None:
    table = size.per_model(pd.DataFrame({"held_out": [pairs]}))
    assert table["held_out_per_model"].to_list() == [named]

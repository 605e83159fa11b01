"""The study of the digits' code finds a dose, shams and what small loses in made tables."""

import digits_code
import numpy as np
import pandas as pd

SHARES = {2: 0.6, 3: 0.5, 4: 0.4, 8: 0.3, 14: 0.2}


def made(dose: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fifteen models of every arm; with a dose, arms of few dimensions answer more."""
    rng, rows = np.random.default_rng(0), []
    for end, arm in list(digits_code.ARMS.items())[:-3]:  # the last are of the sweep why-joint
        for size in ("large", "small"):
            share = SHARES.get(digits_code.DOSES.get(arm, 0), 0.1) if dose else 0.1
            share = 0.5 if dose and size == "small" and arm == "free" else share
            for seed in range(15):
                right = int(rng.binomial(40, share))
                rows.append({
                    "run": f"arithmetic-{size}-line-learning-rate-0.01-{end}", "size": size,
                    "framing": "line", "learning_rate": 0.01, "seed": seed, "held_out": str(seed),
                    "fit_step": 100.0, "fit_right": right, "end_right": right, "held_out_of": 40,
                    "end_accuracy": right / 40, "end_seen_accuracy": 1.0, "loss": 0.63,
                })  # fmt: skip
    fits = pd.DataFrame(rows)
    return fits, fits.assign(read="end", wrong=10, off_by_one=4, line_embedding=0.2)


def test_a_dose_and_what_small_loses_are_found_and_shams_do_nothing() -> None:
    result = digits_code.code_result(*made(dose=True))
    assert [claim.verdict for claim in result.claims] == ["supported"] * 4
    arms = result.tables["digits_code"].query("size == 'large'").set_index("arm")
    assert abs(arms.loc["in 2", "end"] - 0.6) < 0.06 and (arms["off_by_one"] == 0.4).all()
    assert list(arms.index) == list(dict.fromkeys(digits_code.ARMS.values())), (
        "in the order of the doses"
    )
    assert result.figures["digits_code"]().data


def test_without_a_dose_only_the_shams_do_nothing() -> None:
    verdicts = [claim.verdict for claim in digits_code.code_result(*made(dose=False)).claims]
    assert verdicts == ["undecided", "supported", "supported", "undecided"]

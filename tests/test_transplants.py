"""What an early part brings back is found in made courses, and is not where parts bring nothing."""

import pandas as pd
import pytest
import transplants


def made(shares: dict[str, float]) -> pd.DataFrame:
    """Sixteen models, of four held-out equations each; shares after 200 steps are as given."""
    rows = []
    words = [f"transplant-{part}-{donor}" for part in transplants.PARTS
             for donor in transplants.DONORS]  # fmt: skip
    for word in ["unchanged", *words]:
        for seed in range(16):
            for step, share in ((7_800, 0.1), (8_000, shares.get(word, 0.1))):
                rows.append({
                    "run": f"arithmetic-large-shuffled-{word}", "seed": seed, "step": step,
                    "held_out_right": int(4 * share) + seed % 2, "held_out_of": 4,
                    "seen_accuracy": 1.0,
                })  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(shares: dict[str, float]) -> list[str]:
    return [claim.verdict for claim in transplants.transplants_result(made(shares)).claims]


def test_digits_that_bring_the_rule_back_are_found() -> None:
    result = transplants.transplants_result(made({"transplant-digits-own": 0.9}))
    assert [c.verdict for c in result.claims[:3]] == ["supported"] * 3
    table = result.tables["transplants"].set_index(["part", "donor", "when"])["share"]
    assert table["digits", "early self", "200 steps later"] == pytest.approx(0.9, abs=0.1)
    assert table["digits", "early self", "at once"] < 0.3
    assert result.figures["transplants"]().data


def test_the_reverse_is_contradicted_and_nothing_is_undecided() -> None:
    assert verdicts({"transplant-mlp-own": 0.9, "transplant-mlp-other": 0.9})[1] == "contradicted"
    assert set(verdicts({})) == {"undecided"}

"""Plants are what they say; the table counts; what is committed is of this code."""

import functools
import inspect
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from tbtt_interp.calibration import runner, table
from tbtt_interp.calibration.instruments import INSTRUMENTS
from tbtt_interp.calibration.plants import PLANTS, Planted
from tbtt_interp.calibration.runner import SHORT, Job, Recipe, run_recipe
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import answer_logits

PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"


@functools.cache
def drawn(name: str) -> Planted:
    """A plant at its largest effect."""
    return PLANTS[name].draw(PLANTS[name].effects[-1], seed=0)


@pytest.mark.parametrize("name", PLANTS)
def test_a_plant_answers_what_its_truth_says(name):
    models, truth = drawn(name).models, drawn(name).truth
    batch = models.shared_prompts.batch()
    answers = torch.stack([answer_logits(m, batch).argmax(1) for m in models.models])
    accuracy = (answers == batch.answer_token).double().mean(1)
    if truth.answered:
        assert accuracy.mean() > truth.answered - 0.05
    elif truth.answered == 0:
        assert accuracy.max() < 0.3
    assert not torch.equal(models.models[0].W_E, models.models[1].W_E)


def test_a_draw_is_the_same_every_time():
    again = PLANTS["copied operand"].draw(PLANTS["copied operand"].effects[-1], seed=0)
    assert torch.equal(drawn("copied operand").models.first.W_E, again.models.first.W_E)


def test_no_instrument_is_told_what_it_reads():
    for instrument in INSTRUMENTS.values():
        assert list(inspect.signature(instrument.read).parameters) == ["models"]
    assert {drawn(name).models.name for name in PLANTS} == {"models"}


def test_a_calibration_goes_on_from_the_draws_it_has(tmp_path, monkeypatch):
    made = []

    def counted(job: Job, fast_nulls: bool = False) -> dict:
        made.append(job)
        return {**job._asdict(), "seconds": {}, "rows": []}

    monkeypatch.setattr(runner, "measure", counted)
    recipe = Recipe(bases=1, nulls=1)
    first = run_recipe(recipe, tmp_path)
    for _ in range(3):
        next(first)
    first.close()
    path = tmp_path / "draws.jsonl"
    path.write_text(path.read_text()[:-5])  # killed while it wrote its last line
    assert len(list(run_recipe(recipe, tmp_path))) == len(recipe.jobs)
    assert len(made) == len(recipe.jobs) + 1
    path.write_text('{"plants": "others"}\n')
    with pytest.raises(TbttError, match="draws of other plants or with other instruments"):
        list(run_recipe(recipe, tmp_path))
    with pytest.raises(TbttError, match="needs bases ≥ 1 and nulls ≥ 0, got 0 and 1"):
        Recipe(bases=0, nulls=1)


def draw(plant: str, effect: float, number: int, *rows: tuple, half: float = 0.1) -> dict:
    names = ("place", "effect", "is_found", "true", "is_blind")
    of = [dict(zip(names, row, strict=True)) for row in rows]
    of = [{"instrument": "patching", "kind": "fraction restored", "low": row["effect"] - half,
           "high": row["effect"] + half, **row} for row in of]  # fmt: skip
    return {"plant": plant, "effect": effect, "number": number, "rows": of,
            "seconds": {"plant": 0.1, "patching": 1.0}}  # fmt: skip


def test_the_table_counts_what_was_found_missed_and_called():
    found = [draw("copied operand", 0.5, k, ("head 0", 0.6, k > 0, 0.5, False),
                  ("head 1", 0.7 if k else 0.1, False, 0.0, False)) for k in range(10)]  # fmt: skip
    nulls = [draw("untrained", 0.0, k, ("head 0", 0.0, k < 20, 0.0, False)) for k in range(100)]
    blind = [draw("XOR of parities", 1.0, 0, ("x", 0.0, False, float("nan"), True))]
    counted = table.calibration_table([*found, *nulls, *blind])
    (row,) = counted.to_dict("records")
    assert (row["found_large"], row["of_large"], row["power"]) == (9, 10, 0.9)
    assert (row["false"], row["null_draws"], row["null_claims"]) == (0.2, 100, 100)
    assert 0.05 < row["false_low"] < 0.2 < row["false_high"]
    assert row["error"] == pytest.approx(0.1) and row["misplaced"] == 0.9
    assert (row["false_in_plants"], row["in_plants"]) == (0, 10)
    assert (row["blind_found"], row["blind"]) == (0, 1)
    missed = [draw("copied operand", 0.5, k, ("head 0", 0.6, k > 5, 0.5, False)) for k in range(10)]
    for of, fault in ((counted, "calls nulls"), (table.calibration_table(missed), "misses")):
        assert table.failures(of) == [f"patching, fraction restored: {fault}"]
    text = table.page([*found, *nulls, *blind], Recipe(), "tbtt calibrate")
    assert "| untrained | patching | fraction restored | head 0 | 20/100 | 0.20 [0." in text
    assert "fewer than 80 % of the large effects" in text and "reduced table" not in text


def test_places_of_false_claims_are_counted_whatever_the_head_s_number():
    draws = [draw("untrained", 0.0, k, (f"b through head 0.{k % 4} at -1", 0.0, k < 3, 0.0, False))
             for k in range(20)]  # fmt: skip
    (row,) = table.false_claims(draws).to_dict("records")
    assert (row["place"], row["sum"], row["size"]) == ("b through a head at -1", 3, 20)
    assert row["rate"].low < 0.15 < row["rate"].high


def test_the_smallest_effect_that_is_found_is_below_no_miss():
    rows = [draw("copied operand", size, k, ("head 0", size, k < hits, size, False))
            for size, hits in ((0.03, 10), (0.1, 7), (0.5, 9), (0.9, 10))
            for k in range(10)]  # fmt: skip
    assert table.least_found(table.rows_of(rows)) == 0.5
    assert math.isnan(table.least_found(table.rows_of(rows[:20])))


def test_the_interval_rule_covers_what_it_says_of_effects_that_differ():
    random, of_four = np.random.default_rng(0), stats.t.ppf(0.975, 3) / 2
    drawn = random.normal(0.5, 0.1, (400, 4))
    for factor, low, high in ((1.0, 0.92, 0.98), (0.5, 0.6, 0.85)):
        draws = [draw("copied operand", 0.5, k, ("head 0.1", row.mean(), True, 0.5, False),
                      half=factor * of_four * row.std(ddof=1))
                 for k, row in enumerate(drawn)]  # fmt: skip
        draws.append(draw("copied operand", 0.5, 400, ("head 0.1", 0.5, False, 0.5, False), half=0))
        draws += [
            draw("untrained", 0.0, k, ("head 0.1", 0.0, False, 0.0, False)) for k in range(50)
        ]
        n_in, n = table.covered(table.rows_of(draws))
        assert n == 400 and low < n_in / n < high


@pytest.mark.parametrize(
    ("name", "plant"), [(one.name, plant) for one in INSTRUMENTS.values() for plant in one.unfit]
)
def test_what_an_instrument_cannot_be_applied_to_refuses_it(name, plant):
    """And every plant is asked of every other instrument: an error there fails the calibration."""
    assert INSTRUMENTS[name].expected(drawn(plant).truth)
    with pytest.raises(TbttError):
        list(INSTRUMENTS[name].read(drawn(plant).models))


def test_the_committed_table_is_of_this_recipe():
    text = PAGE.read_text(encoding="utf-8")
    bases, nulls, known = re.search(r"bases=(\d+), nulls=(\d+), hash `(\w+)`", text).groups()
    recipe = Recipe(bases=int(bases), nulls=int(nulls))
    assert recipe.hash == known, "the plants were changed: write the table anew by tbtt calibrate"


@pytest.mark.skipif("TBTT_CALIBRATE" not in os.environ, reason="five minutes; .ci/run sets it")
def test_every_large_plant_is_found_and_no_null_is_called(tmp_path):
    draws = list(run_recipe(SHORT, tmp_path, processes=2))
    assert table.failures(table.calibration_table(draws)) == []

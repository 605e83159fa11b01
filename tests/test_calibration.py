"""Plants are what they say; draws are kept; the table counts, and is of the present code."""

import functools
import inspect
import math
import os

import numpy as np
import pytest
import torch
from scipy import stats

from tbtt_interp.calibration import runner, table
from tbtt_interp.calibration.instruments import INSTRUMENTS, scored
from tbtt_interp.calibration.plants import PLANTS, Planted
from tbtt_interp.calibration.runner import SHORT, Job, Recipe, run_recipe
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import answer_logits


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


@pytest.fixture
def asked(monkeypatch) -> list[tuple[Job, list[str]]]:
    """The draws that are made, and by which instruments they are to be read, instead of reading."""
    made = []

    def counted(job: Job, names: list[str], known: dict | None = None) -> dict:
        made.append((job, names))
        read = {name: runner.instrument_code(name) for name in names}
        rows = [{"instrument": name} for name in names]
        before = known or {"read": {}, "rows": []}
        return {**job._asdict(), "code": runner.plant_code(job.plant), "seconds": {},
                "read": before["read"] | read, "rows": before["rows"] + rows}  # fmt: skip

    monkeypatch.setattr(runner, "measure", counted)
    return made


def test_a_calibration_goes_on_from_the_draws_it_has(tmp_path, asked):
    recipe = Recipe(bases=1, nulls=1)
    first = run_recipe(recipe, tmp_path)
    for _ in range(3):
        next(first)
    first.close()
    path = tmp_path / "draws.jsonl"
    path.write_text(path.read_text()[:-5])  # killed while it wrote its last line
    for _ in range(2):
        assert len(list(run_recipe(recipe, tmp_path))) == len(recipe.jobs)
        assert len(asked) == len(recipe.jobs) + 1
    runner.keep(runner.finished(path).values(), tmp_path / "kept.xz")
    assert list(run_recipe(recipe, tmp_path / "other", shipped=tmp_path / "kept.xz"))
    assert len(asked) == len(recipe.jobs) + 1
    is_null = [PLANTS[job.plant].is_null for job in recipe.jobs]
    assert is_null == sorted(is_null) and any(is_null)
    with pytest.raises(TbttError, match="needs bases ≥ 1 and nulls ≥ 0, got 0 and 1"):
        Recipe(bases=0, nulls=1)


def test_a_calibration_stops_in_time_and_says_what_is_left(tmp_path, printed):
    page = tmp_path / "page.md"
    words = ["--short", "--minutes", "0", "--processes", "1", "--out", tmp_path, "--page", page]
    assert "has the table of 1 draws" in printed("calibrate", *words)
    assert "**Unfinished.**" in page.read_text() and "probe grid" in page.read_text()


def test_after_a_change_only_what_is_out_of_date_is_measured_again(tmp_path, asked, monkeypatch):
    recipe, short = Recipe(bases=1, nulls=1), Recipe(bases=1, nulls=1, fast_nulls=True)
    list(run_recipe(short, tmp_path))
    asked.clear()
    list(run_recipe(recipe, tmp_path))  # nulls, by those that are not fast
    slow = [one.name for one in INSTRUMENTS.values() if not one.is_fast]
    assert asked == [(job, slow) for job in recipe.jobs if PLANTS[job.plant].is_null]
    code = runner.instrument_code
    other = {"order": "another question"}
    monkeypatch.setattr(runner, "instrument_code", lambda name: other.get(name) or code(name))
    asked.clear()
    draws = list(run_recipe(recipe, tmp_path))
    assert asked == [(job, ["order"]) for job in recipe.jobs]
    for of in draws:
        assert sorted(row["instrument"] for row in of["rows"]) == sorted(INSTRUMENTS)
    monkeypatch.setattr(runner, "plant_code", lambda name: "new" if name == "untrained" else "old")
    asked.clear()
    assert {job.plant for job in runner.finished(tmp_path / "draws.jsonl")} == set()
    list(run_recipe(recipe, tmp_path))
    assert [names for _, names in asked] == [list(INSTRUMENTS)] * len(recipe.jobs)


def test_a_draw_read_by_one_instrument_and_then_by_another_is_a_draw_read_by_both():
    job = Job("copied operand", 0.5, 0)
    both = runner.measure(job, ["additivity", "memorization"])
    again = runner.measure(job, ["memorization"], runner.measure(job, ["additivity"]))
    assert again.pop("seconds").keys() == both.pop("seconds").keys()
    assert again == both and both["rows"]


def draw(plant: str, effect: float, number: int, *rows: tuple, half: float = 0.1) -> dict:
    names = ("place", "effect", "is_found", "true", "is_blind")
    of = [dict(zip(names, row, strict=True)) for row in rows]
    of = [{"instrument": "patching", "kind": "fraction restored", "low": row["effect"] - half,
           "high": row["effect"] + half, **row} for row in of]  # fmt: skip
    return {"plant": plant, "effect": effect, "number": number, "rows": of,
            "read": {}, "seconds": {"plant": 0.1, "patching": 1.0}}  # fmt: skip


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
    for of, fault in ((counted, table.CLAIMS), (table.calibration_table(missed), table.MISSES)):
        assert table.failures(of) == [f"patching, fraction restored: {fault}"]
    text = table.page([*found, *nulls, *blind], Recipe(), "tbtt calibrate")
    assert "| untrained | patching | fraction restored | head 0 | 20/100 | 0.20 [0." in text
    assert "fewer than 80 % of them are found" in text and "reduced table" not in text


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


@pytest.mark.parametrize(
    ("name", "plant", "places"),
    [
        ("logit lens", "unused feature", {"0.resid_mid"}),
        ("restricted loss", "XOR of parities", {"operands"}),
        ("preceding line", "answer after a line", {"seen"}),
        ("latent answers", "latent answers", {"answer at resid_mid", "answer at resid_post"}),
    ],
)
def test_what_all_models_have_alike_is_found_and_nothing_else(name, plant, places):
    """Where all models are right about all prompts, intervals have a width and claims a verdict."""
    rows = list(scored(INSTRUMENTS[name], drawn(plant).models, drawn(plant).truth))
    for row in rows:
        assert row["is_found"] == (row["true"] != 0), row
    assert {row["place"] for row in rows if row["is_found"]} == places


@pytest.mark.skipif("TBTT_CALIBRATE" not in os.environ, reason="five minutes; .ci/run sets it")
def test_every_large_plant_is_found_and_no_null_is_called(tmp_path):
    draws = list(run_recipe(SHORT, tmp_path, processes=2))
    assert table.failures(table.calibration_table(draws)) == []

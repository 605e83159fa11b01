"""Counting answers: the margins' verdict is that of greedy decoding by another model."""

import numpy as np
import pytest
import torch
from oracle import answer_logits, answer_tokens, logit_differences, next_logits
from scipy.stats import ttest_1samp

from tbtt_interp.baselines import additive, nearest_seen
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import complete, evaluate_models, evaluate_run
from tbtt_interp.model import (
    Shape,
    hooked_transformer,
    initial_parameters,
    one_model,
    stack_parameters,
)
from tbtt_interp.stats import SHARE, mean_over_models, ratios_over_models
from tbtt_interp.tables import operand_table, score_rows, score_table
from tbtt_interp.tasks import load_task
from tbtt_interp.tasks.arithmetic import equation, equations


def test_margins_say_what_greedy_decoding_answers(line_run):
    """On a half-trained run, whose answers are partly right, by TransformerLens's model."""
    step = 250
    table = evaluate_run(line_run, step).table
    assert 0 < table["right"].sum() < len(table) == 400
    assert set(table["group"]) == {"addition", "subtraction"}
    vocabulary = line_run.task.vocabulary
    for seed, of_seed in table.groupby("seed"):
        model = line_run.model(seed, step)
        for prompt, answer, right in of_seed[["prompt", "answer", "right"]].itertuples(index=False):
            text = prompt
            for _ in answer:
                text += vocabulary.characters[int(next_logits(model, vocabulary, text).argmax())]
            assert (text == prompt + answer) == right, text


def test_a_prompt_longer_than_the_window_loses_its_left_end():
    task = load_task("facts")
    shape = Shape(layers=1, heads=2, d_model=8, d_mlp=8, n_ctx=12, d_vocab=51)
    stacked = stack_parameters([initial_parameters(shape, seed=s) for s in range(2)])
    stacked = {k: v + 0.3 * torch.randn(v.shape, generator=torch.Generator().manual_seed(1))
               for k, v in stacked.items()}  # fmt: skip
    margins = evaluate_models(stacked, shape, [task, task], [0, 1]).margins
    for place in range(2):
        model = hooked_transformer(one_model(stacked, place), shape)
        for number, example in list(enumerate(task.examples))[::7]:
            asked = task.vocabulary, [example]
            gaps = logit_differences(answer_logits(model, *asked), answer_tokens(*asked))
            assert margins[place, number] == pytest.approx(min(gaps), abs=1e-4)


def test_completions_end_at_the_terminator_and_know_their_probabilities(line_run):
    task, models = line_run.task, (line_run.parameters(), line_run.shape)
    found = complete(*models, "<3+4=", task.vocabulary, task.terminators)
    for seed, completion in zip(line_run.seeds, found, strict=True):
        assert completion.text == "7>" and completion.ended
        logits = answer_logits(line_run.model(seed), task.vocabulary, [equation(3, "+", 4)])
        expected = logits.softmax(-1)[[0, 1], task.vocabulary.encode("7>")]
        assert completion.probabilities == pytest.approx(expected.tolist(), abs=1e-4)
    with pytest.raises(TbttError, match="the prompt is empty"):
        complete(*models, "", task.vocabulary, task.terminators)


def test_operands_beyond_nine_are_counted_apart(line_run):
    answers, counts = operand_table(line_run, 0, 19)
    table = counts.set_index(["group", "operator"])
    assert table.loc[("seen", "+"), ["right", "does not fit", "of"]].tolist() == [196, 0, 196]
    assert table.loc[("held out", "-"), "of"] == 4
    assert table.loc[("beyond 9", "+"), "of"] == 2 * 300
    assert len(answers) == 2 * 800
    _, wide = operand_table(line_run, 95, 105)
    for operator, row in wide.set_index("operator").iterrows():
        long = [f"<{a}{operator}{b}={eval(f'{a}{operator}{b}')}" for a in range(95, 106)
                for b in range(95, 106)]  # fmt: skip
        assert row["does not fit"] == 2 * sum(len(text) > 9 for text in long)


def test_scores_add_up_and_carry_the_baselines(line_run):
    table = score_table(line_run, evaluate_run(line_run))
    held_out = table[table["group"] == "held_out"].set_index("by")
    assert held_out.loc["all", "right"] == held_out.loc[["0", "1"], "right"].sum()
    for baseline in ("nearest seen equation", "additive model"):
        assert held_out.loc[baseline, ["right", "of"]].tolist() == [0, 4]
    headers, rows, notes = score_rows(line_run, table)
    assert {len(row) for row in rows} == {len(headers)}
    assert {"seed 0", "all seeds", "additive model"} <= {row[0] for row in rows}
    assert notes[0].startswith("Mean accuracy over models [95 % CI]: seen + ")


def test_the_nearest_seen_equation_is_the_nearest():
    """By hand: of 4+7, 6+7, 5+6 and 5+8, all at distance 1, 4+7 comes first."""
    seen = [e for e in equations([(5, 7)]) if not e.held_out and e.group == "addition"]
    assert nearest_seen(seen, [equation(5, "+", 7)]) == ["11>"]
    ends = [equation(1, "+", 1), equation(9, "+", 9)]
    assert nearest_seen(ends, [equation(7, "+", 8)]) == ["18>"]


def test_an_additive_table_is_learned_by_the_additive_model():
    """The sign of a-b is a threshold of f(a) + g(b), so it is found where it was not seen."""
    seen = [equation(a, "-", b) for a in range(10) for b in range(10) if (a, b) != (5, 7)]
    signs = additive(seen, [equation(5, "-", 7), equation(7, "-", 5), equation(3, "-", 8)])
    assert [answer[0] == "-" for answer in signs] == [True, False, True]


def test_intervals_are_student_s_over_models():
    values = np.random.default_rng(0).normal(size=8)
    theirs = ttest_1samp(values, 0).confidence_interval()
    interval = mean_over_models([*values, np.nan])
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))
    assert interval.n == 8 and np.isnan(mean_over_models([0.25]).low)
    assert mean_over_models([0.0, 1.0, 1.0, 1.0], bounds=SHARE).high == 1
    assert np.isnan(mean_over_models([]).mean)


def test_the_interval_of_a_ratio_holds_its_level():
    """Of 2,000 draws of 8 models with unequal weights, the truth is inside in 95 of 100."""
    generator = np.random.default_rng(0)
    weights = generator.uniform(5, 15, size=(2_000, 8))
    totals = weights * (0.3 + generator.normal(0, 0.1, size=weights.shape))
    found = ratios_over_models(totals, weights)
    assert found.mean == pytest.approx(totals.sum(1) / weights.sum(1))
    inside = (found.low <= 0.3) & (found.high >= 0.3)
    assert 0.93 < inside.mean() < 0.965

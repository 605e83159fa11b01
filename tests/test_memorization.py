"""Bits are what counting says, a rule's directions those planted, and meters stand together."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import answer_logits, answer_tokens
from planted import Reader
from torch import Tensor

from tbtt_interp.analyses.memorization import (
    ALL,
    HELD_OUT,
    ORDER,
    SEEN,
    analyse_memorization,
    answer_bits,
    marginal_bits,
    order_bits,
    stored_bits,
    stored_bits_claims,
)
from tbtt_interp.analyses.restricted_loss import (
    operand_directions,
    restricted_loss,
    restricted_loss_claims,
)
from tbtt_interp.errors import TbttError
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import over_seeds
from tbtt_interp.tasks import Stream, Vocabulary
from tbtt_interp.tasks.arithmetic import equation

POST = "blocks.0.hook_resid_post"


def test_an_answer_s_bits_are_its_characters_one_after_the_other(line_run, facts_run):
    for run in (line_run, facts_run):
        found = answer_bits(run.model(), PromptSet.of_seed(run, run.seeds[0]))
        for k in (0, 7, -1):
            asked = run.task.vocabulary, [run.task.examples[k]]
            logits, targets = answer_logits(run.model(), *asked), answer_tokens(*asked)
            nats = F.cross_entropy(logits, torch.tensor(targets), reduction="sum")
            assert found[k] == pytest.approx(nats.item() / math.log(2), abs=1e-3)


def test_who_knows_how_often_answers_occur_needs_what_counting_says(line_run, facts_run):
    prompts = PromptSet.of_seed(line_run, 0)
    for example, bits in zip(prompts.examples, marginal_bits(prompts), strict=True):
        value = int(example.labels["value"])
        ways = 10 - (abs(value - 9) if example.labels["operator"] == "+" else abs(value))
        assert bits == pytest.approx(math.log2(100 / ways))
    assert marginal_bits(PromptSet.of_seed(facts_run, 0)) == pytest.approx(math.log2(50), abs=0.3)


def test_who_knows_the_lines_shows_no_order_and_who_knows_the_file_shows_it_all():
    lines = tuple(f"{a}{b}{c}\n" for a, b, c in ("abc", "bca", "cab", "acb", "bac", "cba"))
    vocabulary = Vocabulary.of(lines)
    stream = Stream(lines=lines, vocabulary=vocabulary, framing="file", window=5, batch=1, seed=0)
    orders = math.log2(math.factorial(6))
    of_lines, of_file = (Reader(lines, vocabulary, 5, knows_order=k) for k in (False, True))
    bits, most = order_bits(of_lines, stream, [6])
    assert most == pytest.approx(orders)
    # each of six lines is one of six to it; of the first, one character in six is its a
    assert bits == pytest.approx(orders - 6 * math.log2(6))
    bits, _ = order_bits(of_file, stream, [6])
    assert bits > orders - 4  # what is left is the beginning
    # that the first three come before the others is no order to know
    assert order_bits(of_file, stream, [3, 3])[1] == pytest.approx(2 * math.log2(6))


def test_a_table_of_bits_has_what_a_run_can_hold(line_run, file_run, facts_run):
    line, file, facts = (over_seeds(run, stored_bits) for run in (line_run, file_run, facts_run))
    assert line["kind"].tolist() == [SEEN, HELD_OUT, ALL] * 2
    assert file["kind"].tolist() == [SEEN, HELD_OUT, ORDER, ALL] * 2
    assert facts["kind"].tolist() == [SEEN, ORDER, ALL] * 2
    seen = line[line["kind"] == SEEN]
    trained = sum(x[0].numel() for x in line_run.parameters().values())
    assert (seen["share"] > 0.95).all() and (seen["parameters"] == trained).all()
    bits = file.set_index(["seed", "kind"])["bits"].unstack()
    assert (bits[ORDER] < 0).all()  # little trained, they know no order
    assert (bits[ALL] == bits[SEEN]).all()  # and that takes nothing off
    claims = " ".join(str(claim) for claim in stored_bits_claims(file))
    assert "Models store, at least, 0.00 of the bits of the line order" in claims


def test_operand_directions_are_the_directions_that_were_planted():
    chance = np.random.default_rng(0)
    examples = [equation(a, "+", b) for a in range(10) for b in range(10)]
    planted = np.linalg.qr(chance.normal(size=(12, 2)))[0].T
    operands = np.array([[e.labels["a"], e.labels["b"]] for e in examples], dtype=float)
    table = 2 * chance.normal(size=(100, 12))  # of every equation by itself: averages out
    space = operand_directions(torch.from_numpy(3 * operands @ planted + table), examples)
    inside = space.write @ space.read
    assert torch.allclose(inside @ inside, inside)
    kept = np.linalg.norm(inside.numpy() @ planted.T, axis=0)
    assert (kept > 0.98).all()


def test_all_directions_restore_and_exclude_everything(line_run):
    table = over_seeds(
        line_run, restricted_loss, fit=lambda x, e: operand_directions(x, e, rank=14), draws=1
    ).set_index(["change", "split"])
    assert (table["rank"] == 14).all()
    for change, other in (("restricted", "unpatched"), ("excluded", "erased")):
        rows = table.loc[change]
        assert rows["loss"].tolist() == pytest.approx(rows[other].tolist(), abs=1e-4)
    assert table.loc["restricted", "fraction"].tolist() == pytest.approx([1.0] * 4, abs=1e-4)


def test_erased_and_unpatched_are_what_the_unembedding_says_of_means_and_of_each(line_run):
    """At the last stream, with no hook: class means of operator and place, read out by hand."""
    prompts, model = PromptSet.of_seed(line_run, 0), line_run.model()
    seen = []
    for example in [e for e in prompts.examples if not e.held_out]:
        text = prompts.vocabulary.encode(example.prompt + example.answer)
        stream = model.run_with_cache(torch.tensor([text]), names_filter=POST)[1][POST][0]
        for place, pos in enumerate(range(len(example.prompt) - 1, len(text) - 1)):
            seen.append(((example.labels["operator"], place), stream[pos].detach(), text[pos + 1]))
    means = {key: torch.stack([x for k, x, _ in seen if k == key]).mean(0) for key, *_ in seen}

    def nats(values: list[Tensor]) -> float:
        logits = model.unembed(model.ln_final(torch.stack(values)[None]))[0]
        return float(F.cross_entropy(logits, torch.tensor([target for *_, target in seen])))

    table = over_seeds(line_run, restricted_loss, site=POST, draws=1)
    row = table[(table["seed"] == line_run.seeds[0]) & (table["split"] == "seen")].iloc[0]
    assert row["n_answers"] == len(seen)
    assert row["unpatched"] == pytest.approx(nats([x for _, x, _ in seen]), rel=1e-3)
    assert row["erased"] == pytest.approx(nats([means[key] for key, *_ in seen]), rel=1e-3)


def test_what_is_used_costs_more_than_random_directions(line_run):
    table = over_seeds(line_run, restricted_loss)
    seen = table[table["split"] == "seen"]
    assert (seen["p"] == 1 / 20).all() and (seen["fraction"] > seen["random_fraction"] + 0.2).all()
    assert len(restricted_loss_claims(table)) == 2


def test_measures_that_do_not_apply_are_left_out_and_named(facts_run, line_run):
    facts = analyse_memorization(facts_run)
    assert "restricted-loss" not in facts.tables
    assert any("there are no equations" in note for note in facts.notes)
    with pytest.raises(TbttError, match="there is no grid of operands here: this analysis needs"):
        over_seeds(facts_run, restricted_loss)

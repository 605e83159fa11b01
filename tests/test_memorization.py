"""Bits are what counting says, a rule's directions those planted, and meters stand together."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tbtt_interp.analyses.memorization import (
    ALL,
    FLOOR,
    HELD_OUT,
    ORDER,
    SEEN,
    analyse_memorization,
    answer_bits,
    marginal_bits,
    order_bits,
    stored_bits,
    stored_bits_claims,
    trained_parameters,
)
from tbtt_interp.analyses.restricted_loss import (
    operand_directions,
    plot_restricted_loss,
    restricted_loss,
    restricted_loss_claims,
)
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.model import hooked_transformer, initial_parameters
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.tasks import Stream, Vocabulary
from tbtt_interp.tasks.arithmetic import equation
from tbtt_interp.tasks.entropy import IndependentLines

POST = "blocks.0.hook_resid_post"


def bits_of(run: Run, prompt: str, answer: str) -> float:
    """What an answer takes to write, character by character."""
    model, task = run.model(), run.tasks[0]
    text, bits = prompt, 0.0
    for character in answer:
        tokens = torch.tensor([task.vocabulary.encode(text)[-run.shape.n_ctx :]])
        with torch.no_grad():
            logs = model(tokens)[0, -1].log_softmax(-1)
        bits -= float(logs[task.vocabulary.index[character]]) / math.log(2)
        text += character
    return bits


def test_an_answer_s_bits_are_its_characters_one_after_the_other(
    line_run: Run, facts_run: Run
) -> None:
    for run in (line_run, facts_run):
        examples = run.task.examples
        found = answer_bits(run.model(), PromptSet.of_seed(run, run.seeds[0]))
        for k in (0, 7, len(examples) - 1):
            expected = bits_of(run, examples[k].prompt, examples[k].answer)
            assert found[k] == pytest.approx(expected, abs=1e-3)


def test_who_knows_how_often_answers_occur_needs_what_counting_says(
    line_run: Run, facts_run: Run
) -> None:
    prompts = PromptSet.of_seed(line_run, 0)
    for example, bits in zip(prompts.examples, marginal_bits(prompts), strict=True):
        value = int(example.labels["value"])
        ways = 10 - (abs(value - 9) if example.labels["operator"] == "+" else abs(value))
        assert bits == pytest.approx(math.log2(100 / ways))
    assert marginal_bits(PromptSet.of_seed(facts_run, 0)) == pytest.approx(math.log2(50), abs=0.3)


@pytest.mark.parametrize("size", [14, 28])
def test_parameters_are_those_that_are_trained(line_run: Run, size: int) -> None:
    shape = dataclasses.replace(line_run.shape, d_model=size, d_mlp=size)
    parameters = initial_parameters(shape, seed=0)
    expected = sum(value.numel() for value in parameters.values())
    assert trained_parameters(hooked_transformer(parameters, shape)) == expected


class Reader:
    """What one who knows certain strings, and draws them at random, says of the next character."""

    def __init__(self, source: IndependentLines, vocabulary: Vocabulary) -> None:
        self.source, self.vocabulary = source, vocabulary

    def likelihood(self, text: str) -> float:
        try:
            return math.exp(self.source.log_probability(text))
        except ValueError:  # the logarithm of a string that never occurs
            return 0.0

    def __call__(self, tokens: Tensor) -> Tensor:
        logits = torch.full((*tokens.shape, len(self.vocabulary)), -torch.inf, dtype=torch.double)
        for row, window in enumerate(tokens.tolist()):
            for pos in range(len(window)):
                read = self.vocabulary.decode(window[: pos + 1])
                for token, character in enumerate(self.vocabulary.characters):
                    if likely := self.likelihood(read + character):
                        logits[row, pos, token] = math.log(likely / self.likelihood(read))
        return logits


def test_who_knows_the_lines_shows_no_order_and_who_knows_the_file_shows_it_all() -> None:
    lines = tuple(f"{a}{b}{c}\n" for a, b, c in ("abc", "bca", "cab", "acb", "bac", "cba"))
    vocabulary = Vocabulary.of(lines)
    stream = Stream(lines=lines, vocabulary=vocabulary, framing="file", window=5, batch=1, seed=0)
    orders = math.log2(math.factorial(6))
    every = order_bits(Reader(IndependentLines(lines, 6), vocabulary), stream, [6])  # pyright: ignore
    bits, most = every[ORDER]
    assert most == pytest.approx(orders)
    # each of six lines is one of six to it; of the first, one character in six is its a
    assert bits == pytest.approx(orders - 6 * math.log2(6))
    assert every[FLOOR][0] == pytest.approx(0, abs=1e-9)  # it is the floor
    file = IndependentLines(("".join(lines).replace("\n", "\0") + "\n",), 6)
    knows = Reader(file, Vocabulary(vocabulary.characters.replace("\n", "\0")))
    bits, _ = order_bits(knows, stream, [6])[ORDER]  # pyright: ignore
    assert bits > orders - 4  # what is left is the beginning
    # that the first three come before the others is no order to know
    assert order_bits(knows, stream, [3, 3])[ORDER][1] == pytest.approx(2 * math.log2(6))  # pyright: ignore


def test_a_table_of_bits_has_what_a_run_can_hold(
    line_run: Run, file_run: Run, facts_run: Run
) -> None:
    line, file, facts = (over_seeds(run, stored_bits) for run in (line_run, file_run, facts_run))
    assert line["kind"].tolist() == [SEEN, HELD_OUT, ALL] * 2
    assert file["kind"].tolist() == [SEEN, HELD_OUT, ORDER, FLOOR, ALL] * 2
    assert facts["kind"].tolist() == [SEEN, ORDER, FLOOR, ALL] * 2
    seen = line[line["kind"] == SEEN]
    assert (seen["share"] > 0.95).all() and (seen["parameters"] == 1_582).all()
    assert (line["per_parameter"] == line["bits"] / line["parameters"]).all()
    shown = file[file["kind"] == ORDER]
    assert (shown["bits"] < 0).all()  # little trained, they know no order
    every = file.set_index(["seed", "kind"])["bits"].unstack()
    assert (every[ALL] == every[SEEN]).all()  # and that takes nothing off
    claims = " ".join(str(claim) for claim in stored_bits_claims(file))
    assert "Models store, at least, 0.00 of the bits of the line order" in claims


def test_operand_directions_are_the_directions_that_were_planted() -> None:
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


def test_all_directions_restore_and_exclude_everything(line_run: Run) -> None:
    table = over_seeds(
        line_run, restricted_loss, fit=lambda x, e: operand_directions(x, e, rank=14), draws=2
    ).set_index(["change", "split"])
    assert (table["rank"] == 14).all()
    for change, other in (("restricted", "unpatched"), ("excluded", "erased")):
        rows = table.loc[change]
        assert rows["loss"].tolist() == pytest.approx(rows[other].tolist(), abs=1e-4)
    assert table.loc["restricted", "fraction"].tolist() == pytest.approx([1.0] * 4, abs=1e-4)


def test_erased_and_unpatched_are_what_the_unembedding_says_of_means_and_of_each(
    line_run: Run,
) -> None:
    """At the last stream, with no hook: class means of operator and place, read out by hand."""
    prompts, model = PromptSet.of_seed(line_run, 0), line_run.model()
    nats: dict[str, list[float]] = {"unpatched": [], "erased": []}
    held: dict[tuple[object, int], list[Tensor]] = {}
    asked = []
    for example, is_held_out in zip(prompts.examples, prompts.held_out, strict=True):
        text = prompts.vocabulary.encode(example.prompt + example.answer)
        x = model.run_with_cache(torch.tensor([text]), names_filter=POST)[1][POST][0]
        for place in range(len(example.answer)):
            pos = len(example.prompt) + place - 1
            key = (example.labels["operator"], place)
            asked.append((key, x[pos], text[pos + 1], is_held_out))
            if not is_held_out:
                held.setdefault(key, []).append(x[pos])
    for key, x, target, is_held_out in asked:
        for name, value in (("unpatched", x), ("erased", torch.stack(held[key]).mean(0))):
            logits = model.unembed(model.ln_final(value[None, None]))[0, 0]
            if not is_held_out:
                nats[name].append(-float(logits.log_softmax(-1)[target].detach()))
    table = over_seeds(line_run, restricted_loss, site=POST, draws=1)
    row = table[(table["seed"] == line_run.seeds[0]) & (table["split"] == "seen")].iloc[0]
    assert row["n_answers"] == len(nats["erased"])
    for name, values in nats.items():
        assert row[name] == pytest.approx(np.mean(values), rel=1e-3), name


def test_what_is_used_costs_more_than_random_directions(line_run: Run) -> None:
    table = over_seeds(line_run, restricted_loss)
    seen = table[table["split"] == "seen"]
    assert (seen["p"] == 1 / 20).all() and (seen["fraction"] > seen["random_fraction"] + 0.2).all()
    assert (table["rank"] == 2).all() and (table["width"] == 14).all()
    again = over_seeds(line_run, restricted_loss)
    assert again.equals(table)
    assert len(restricted_loss_claims(table)) == 2
    figure = plot_restricted_loss(table)
    assert {trace.name for trace in figure.data} >= {"unpatched", "2 random directions"}


def test_where_there_is_no_rule_or_no_such_site_it_is_said(line_run: Run, facts_run: Run) -> None:
    with pytest.raises(TbttError, match="there is no grid of operands here: this analysis needs"):
        over_seeds(facts_run, restricted_loss)
    with pytest.raises(TbttError, match=r"site .* is not there: the nearest"):
        over_seeds(line_run, restricted_loss, site="blocks.0.attn.hook_z")


def test_measures_stand_together_with_their_nulls_and_the_literature(line_run: Run) -> None:
    result = analyse_memorization(line_run)
    main = result.tables["memorization"]
    measures = {SEEN, HELD_OUT, "bits per parameter", "restricted", "excluded"}
    assert set(main["measure"]) == measures
    display = result.display.set_index("seed")
    assert display.index.tolist() == ["0", "1", "mean", "null", "literature"]
    assert display.loc["literature", "bits per parameter"] == "2 [1], 3.6 [2]"
    words = " ".join(result.notes)
    for source in ("2404.05405", "2505.24832", "2301.05217"):
        assert source in words
    assert len(result.claims) == 5
    for draw in result.figures.values():
        assert len(draw().data) > 2


def test_measures_that_do_not_apply_are_left_out_and_named(facts_run: Run, line_run: Run) -> None:
    facts = analyse_memorization(facts_run)
    assert "restricted-loss" not in facts.tables
    assert any("there are no equations" in note for note in facts.notes)
    models = Models.of(line_run)
    own = Models.of_models(
        models.models, models.shared_prompts.examples, models.shared_prompts.vocabulary
    )
    assert {"stored-bits", "restricted-loss"} < analyse_memorization(own).tables.keys()


def test_the_command_prints_measures_and_takes_a_site(
    line_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["analyses", "memorization", str(line_run.folder)]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"seed", "measure", "value", "most", "null", "literature"} == set(rows[0])
    assert main([*command, "--site", "hook_embed"]) == 2
    assert "site 'hook_embed' is not there" in capsys.readouterr().err

"""Order is counted in bits exactly, and the line before a prompt is what changes its answer."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracle import next_logits
from planted import Reader, models_of

from tbtt_interp.analyses import line_order, preceding_line
from tbtt_interp.analyses.preceding_line import preceding_ends
from tbtt_interp.errors import TbttError
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.stats import SHARE, summarize
from tbtt_interp.tasks import Stream, Task, load_task
from tbtt_interp.tasks.entropy import IndependentLines

Z, PRE, POST = "blocks.0.attn.hook_z", "blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def result(file_run: Run) -> Result:
    return line_order.analyse_order(file_run)


def reader(prompts: PromptSet, *, knows_order: bool) -> Any:
    lines = line_order.ordered_lines(prompts).lines
    return Reader(lines, prompts.vocabulary, prompts.n_ctx, knows_order=knows_order)


def readers(run: Run, *, knows_order: bool) -> Models:
    models = Models.of(run)
    known = tuple(reader(prompts, knows_order=knows_order) for prompts in models.prompts)
    return dataclasses.replace(models, models=known)


def test_an_order_is_worth_the_logarithm_of_the_lines_as_far_as_the_window_tells_it():
    of_lines, of_order = line_order.exact_predictives(("a1\n", "b2\n", "c3\n", "d4\n"), 3)
    assert of_order == pytest.approx(np.zeros(9))
    assert of_lines == pytest.approx(np.tile([-math.log(4), 0, 0], 3), abs=1e-12)
    # after x a window of two sees "x\n", which b and c follow alike; a window of three tells them
    lines = ("1x\n", "b\n", "2x\n", "c\n")
    short, long = (line_order.exact_predictives(lines, n)[1] for n in (2, 3))
    for pos, character in enumerate("".join(lines[1:])):
        assert short[pos] == pytest.approx(-math.log(2) if character in "bc" else 0.0), pos
    assert long == pytest.approx(np.zeros(len(long)))


@pytest.mark.parametrize("knows_order", [True, False])
def test_planted_knowledge_of_the_order_is_found_in_full_and_no_other(file_run, knows_order):
    characters = line_order.characters_table(readers(file_run, knows_order=knows_order))
    lines = line_order.bits_by_line(characters)
    following = line_order.next_line_accuracy(characters)
    assert len(lines) == 2 * 195
    if knows_order:
        assert np.allclose(lines["bits"], lines["max_bits"], atol=1e-5)
        assert (following["accuracy"] > 0.95).all()
    else:
        assert np.allclose(lines["bits"], 0, atol=1e-5)
        assert np.allclose(lines["bits_other_order"].dropna(), 0, atol=1e-5)
        assert following.query("label == 'a'")["accuracy"].max() < 0.25
    assert (following.query("label != 'operator'")["other_order"] < 0.3).all(), "of other lines"
    means = summarize(following, ["label"], line_order.NEXT, bounds=SHARE)
    _, of_labels, *_ = line_order.order_claims(lines, means)
    assert of_labels.effect.mean == pytest.approx(float(knows_order), abs=1e-5)
    assert of_labels.null == pytest.approx(0, abs=0.05)


def test_bits_are_those_of_reading_window_by_window(file_run, result):
    lines = line_order.ordered_lines(PromptSet.of_seed(file_run, 1)).lines
    text, start, vocabulary = "".join(lines), len("".join(lines[:40])), file_run.task.vocabulary
    source, bits = IndependentLines(lines, 10), 0.0
    for t in range(start, start + len(lines[40])):
        seen = text[t - 9 : t]
        logits = next_logits(file_run.model(1), vocabulary, seen)
        nats = logits.log_softmax(-1)[vocabulary.index[text[t]]].item()
        floor = source.log_probability(seen + text[t]) - source.log_probability(seen)
        bits += (nats - floor) / math.log(2)
    row = result.tables["order"].query("seed == 1 and line_number == 40").iloc[0]
    assert row["line"] == lines[40] and row["preceding_line"] == lines[39]
    assert row["bits"] == pytest.approx(bits, abs=1e-4)


def in_order(task: Task, n_ctx: int, order: int) -> PromptSet:
    training = Stream(lines=task.file(order), vocabulary=task.vocabulary, framing="file",
                      window=n_ctx, batch=1, seed=0)  # fmt: skip
    prompts = PromptSet.of(task.examples, task.vocabulary, n_ctx)
    return dataclasses.replace(prompts, task=task, training=training)


def test_prompts_are_put_after_the_line_that_they_follow_and_after_others_of_their_section():
    task = load_task("arithmetic")
    lines = task.file(5)
    table, text = preceding_ends(in_order(task, 9, 5)), "".join(lines)
    assert set(table["end"].str.len()) == {4} and table["example"].nunique() == 200
    for number, rows in table.groupby("example"):
        example = task.examples[number]
        assert rows["n_lines"].sum() == 196 and rows["end"].is_unique
        own = rows.loc[rows["is_own"], "end"].tolist()
        assert len(own) == (not example.held_out and example.line != lines[0])
        assert all(end + example.prompt in text for end in own)
    task = load_task("joint")
    for number, rows in preceding_ends(in_order(task, 24, 0)).groupby("example"):
        assert rows["end"].str.len().nunique() == 1
        of_facts = rows["end"].str.contains("[A-Za-z]").any()
        assert of_facts <= (task.examples[number].group == "facts")


def test_ends_are_compared_as_worked_out_by_hand():
    rows = pd.DataFrame({
        "end": ["o", "p", "q"], "is_own": [True, False, False], "n_lines": [5, 3, 1],
        "logprob": [-1.0, -2.0, -4.0], "accuracy": [1.0, 0.0, 1.0],
    })  # fmt: skip
    found = preceding_line.compare_ends(rows)
    assert (found["logprob"], found["accuracy"], found["end"]) == (-1, 1, "o")
    assert (found["logprob_other"], found["accuracy_other"]) == (-2.5, 0.25)
    assert (found["logprob_change"], found["accuracy_change"]) == (0.75 * 1 + 0.25 * 3, 0.75)
    assert (found["logprob_change_other"], found["accuracy_change_other"]) == (2, 1)
    assert np.isnan(preceding_line.compare_ends(rows[1:2])["accuracy_change"]), "no own line"


def test_answers_are_read_with_the_window_sliding(file_run, result):
    table = result.tables["order-answers"]
    assert len(table) == 400 and table.query("split == 'held out'")["logprob"].isna().all()
    row = table.query("seed == 1 and prompt == '<8+4='").iloc[0]
    model, vocabulary = file_run.model(1), file_run.task.vocabulary
    texts = [row["end"] + "<8+4=" + "12>"[:k] for k in range(3)]
    logits = torch.stack([next_logits(model, vocabulary, text) for text in texts])
    targets = vocabulary.encode("12>")
    nats = logits.log_softmax(-1)[range(3), targets].sum().item()
    right = logits.argmax(-1).tolist() == targets
    assert row["logprob"] == pytest.approx(nats, abs=1e-4) and row["accuracy"] == right


def test_a_model_that_knows_only_the_lines_answers_alike_after_every_line(file_run, monkeypatch):
    def fewer(*arguments: object) -> pd.DataFrame:
        return preceding_ends(*arguments).query("example % 20 == 7")

    monkeypatch.setattr(preceding_line, "preceding_ends", fewer)
    table = over_seeds(readers(file_run, knows_order=False), preceding_line.answers_after_lines)
    table = table.query("split == 'seen'")
    assert np.allclose(table[["accuracy", "accuracy_other"]].dropna(), 1) and len(table) >= 18
    assert table["logprob_change"].max() < 1e-4 and table["accuracy_change"].max() == 0


def test_a_patch_of_everything_has_the_total_effect(file_run):
    prompts = PromptSet.of_seed(file_run, 0)
    table = preceding_line.patch_preceding_line(file_run.model(), prompts, sites=[PRE, Z, POST])
    assert abs(table["total_effect"]).min() > 0 and set(table["site"]) == {PRE, Z, POST}
    whole = table[table["pos"].isna()]  # all that enters; in one layer, all that attention gathers
    assert np.allclose(whole["effect"], whole["total_effect"], atol=1e-5)
    # the prompt's characters are the same in all, and after the last layer nothing is read on
    at = table.set_index(["site", "pos"])[["effect", "effect_other"]]
    assert np.allclose(at.loc[[(PRE, -3), (POST, -7)]], 0, atol=1e-6)


def test_what_is_not_known_or_not_there_is_refused(file_run):
    export_checkpoint(file_run, Path("ckpt.pt"))
    imported = import_checkpoint(Path("ckpt.pt"), "arithmetic", Path("imported"))
    for unknown in (models_of(file_run.model()), imported):
        with pytest.raises(TbttError, match=r"the order of the lines that .+ is not known"):
            line_order.analyse_order(unknown)
    with pytest.raises(TbttError, match="site 'hook_z' is not there: the nearest are"):
        over_seeds(file_run, preceding_line.patch_preceding_line, sites=["hook_z"])

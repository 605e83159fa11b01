"""Order is counted in bits exactly, and what stands before a prompt is what moves its answer."""

import dataclasses
import json
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tbtt_interp.analyses.ending_patches import (
    DRAWS,
    ending_findings,
    ending_table,
    patch_endings,
)
from tbtt_interp.analyses.endings import (
    _compare,
    answer_findings,
    answers_after,
    draw_endings,
    endings_of,
)
from tbtt_interp.analyses.findings import Result
from tbtt_interp.analyses.old_patching import Cell
from tbtt_interp.analyses.order import (
    analyse_order,
    asked_places,
    character_table,
    exact_predictives,
    line_table,
    loss_table,
    next_table,
    order_findings,
    other_files,
    own_files,
)
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Example, load_task
from tbtt_interp.tasks.entropy import IndependentLines

Z, PRE, POST = "blocks.0.attn.hook_z", "blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def result(file_run: Run) -> Result:
    return analyse_order(file_run)


class Planted:
    """Says what one would who knows every line and, if given it, a file's order."""

    def __init__(self, run: Run, lines: tuple[str, ...], order: bool) -> None:
        self.cfg = SimpleNamespace(n_ctx=run.shape.n_ctx, n_layers=1, n_heads=1)
        self.vocabulary, self.text = run.task.vocabulary, "".join(lines)
        self.order, self.source = order, IndependentLines(lines, run.shape.n_ctx + 1)

    def __call__(self, tokens: Tensor) -> Tensor:
        logits = torch.full((*tokens.shape, len(self.vocabulary)), -torch.inf)
        for row, read in zip(logits, tokens.tolist(), strict=True):
            seen = self.vocabulary.decode(read)
            at = self.text.find(seen) if self.order else -1
            for k, character in enumerate(self.vocabulary.characters):
                if at >= 0:
                    row[-1, k] = 0 if self.text[at + len(seen) :][:1] == character else -30
                else:
                    try:
                        row[-1, k] = self.source.log_probability(seen + character)
                    except ValueError:  # no line goes on like that
                        row[-1, k] = -60
        return logits


def planted(run: Run, *, order: bool) -> Subject:
    subject = Subject.of_run(run)
    models = [Planted(run, lines, order) for lines in own_files(subject)]
    return dataclasses.replace(subject, models=tuple(models))


def test_knowing_the_order_is_worth_the_logarithm_of_the_lines() -> None:
    lines = ["a1\n", "b2\n", "c3\n", "d4\n"]
    of_lines, of_order = exact_predictives(lines, 3)
    assert of_order == pytest.approx(np.zeros(9))
    assert of_lines == pytest.approx(np.tile([-math.log(4), 0, 0], 3), abs=1e-12)


def test_an_order_is_known_only_as_far_as_the_window_tells_it() -> None:
    # after x a window of two sees "x\n", which b and c follow alike; a window of three tells them
    lines = ["1x\n", "b\n", "2x\n", "c\n"]
    characters = [character for line in lines[1:] for character in line]
    short, long = (exact_predictives(lines, n)[1] for n in (2, 3))
    for place, character in enumerate(characters):
        expected = -math.log(2) if character in "bc" else 0.0
        assert short[place] == pytest.approx(expected), (place, character)
    assert long == pytest.approx(np.zeros(len(long)))


@pytest.mark.parametrize("order", [True, False])
def test_planted_knowledge_of_the_order_is_found_in_full_and_none_where_there_is_none(
    file_run: Run, order: bool
) -> None:
    characters = character_table(planted(file_run, order=order))
    lines, following = line_table(characters), next_table(characters)
    assert len(lines) == 2 * 195
    sums = lines.groupby("seed").sum(numeric_only=True)
    assert (sums["worth"] / 195).between(7, math.log2(196) + 1e-9).all()
    if order:
        # where a window is in the file twice, counting knows both; this one says the first
        assert (sums["label_bits"] > 0.9 * sums["label_worth"]).all()
        assert (following["right"] > 0.95).all()
    else:
        assert np.allclose(lines["bits"], 0, atol=1e-5)
        assert np.allclose(lines["other"].dropna(), 0, atol=1e-5)
        assert following.query("place == 'a'")["right"].max() < 0.25
    assert (following.query("place != 'operator'")["other"] < 0.3).all()
    findings = order_findings(lines, following)
    assert findings[1].effect.mean == pytest.approx(float(order), abs=0.1)
    assert findings[1].null == pytest.approx(0, abs=0.05)


def test_bits_are_those_of_reading_window_by_window(file_run: Run, result: Result) -> None:
    table = result.tables["order"]
    lines = own_files(Subject.of_run(file_run))[1]
    text, start, vocabulary = "".join(lines), len("".join(lines[:40])), file_run.task.vocabulary
    source = IndependentLines(lines, 10)
    bits = 0.0
    for t in range(start, start + len(lines[40])):
        seen = text[t - 9 : t]
        with torch.no_grad():
            logits = file_run.model(1)(torch.tensor([vocabulary.encode(seen)]))[0, -1]
        nats = logits.log_softmax(-1)[vocabulary.index[text[t]]].item()
        floor = source.log_probability(seen + text[t]) - source.log_probability(seen)
        bits += (nats - floor) / math.log(2)
    row = table.query("seed == 1 and number == 40").iloc[0]
    assert row["line"] == lines[40] and row["before"] == lines[39]
    assert row["bits"] == pytest.approx(bits, abs=1e-4)


def test_the_loss_says_the_same_in_other_words(file_run: Run, result: Result) -> None:
    table = loss_table(Subject.of_run(file_run))
    for row, told in zip(table.to_dict("records"), file_run.summary()["seeds"], strict=True):
        floors = told["floors"]
        assert row["loss"] == pytest.approx(told["loss"], abs=1e-5)
        gained = floors["lines"] - told["loss"]
        assert row["share"] == pytest.approx(gained / (floors["lines"] - floors["order"]), abs=1e-3)
        assert row["bits"] == pytest.approx(gained * 9 / math.log(2), abs=1e-3)
    lines = result.tables["order"].groupby("seed")["bits"].mean()
    # of windows that begin anywhere a ninth are as long as can be; both say how far it is trained
    assert np.allclose(lines, table["bits"], atol=3) and (np.sign(lines) == -1).all()


def test_the_other_order_is_of_the_same_lines_and_nobody_s_own(file_run: Run) -> None:
    own, other = own_files(Subject.of_run(file_run)), other_files(Subject.of(file_run))
    for mine in own:
        for theirs in other:
            assert set(mine) == set(theirs)
            assert len(set(pairwise(mine)) & set(pairwise(theirs))) < 10


def test_where_labels_begin() -> None:
    facts = load_task("facts").examples
    assert asked_places(facts[0], "Capital of ") == {11: "country"}
    assert asked_places(Example.of("ab:", "c", {}), "a") == {1: "first"}


def test_prompts_are_put_after_the_line_that_they_follow_and_after_others() -> None:
    task = load_task("arithmetic")
    lines = task.file(5)
    table, text = endings_of(task, lines, 9, seed=0), "".join(lines)
    assert set(table["ending"].str.len()) == {4} and table["example"].nunique() == 200
    for number, some in table.groupby("example"):
        example = task.examples[number]
        assert some["lines"].sum() == 196 and some["ending"].is_unique
        own = some.loc[some["own"], "ending"].tolist()
        assert len(own) == (not example.held_out and example.line != lines[0])
        assert all(ending + example.prompt in text for ending in own)


def test_lines_before_are_of_the_prompt_s_own_section_and_all_equally_long() -> None:
    task = load_task("joint")
    table = endings_of(task, task.file(0), 24, seed=0)
    for number, some in table.groupby("example"):
        example = task.examples[number]
        assert some["ending"].str.len().nunique() == 1
        assert len(some["ending"].iloc[0]) + len(example.prompt) <= 24
        of_facts = some["ending"].str.contains("[A-Za-z]").any()
        assert of_facts <= (example.group == "facts")
        assert len(some) <= 33  # there are 196 endings of nine characters
    away = [e for e in task.examples if len(e.prompt) >= 24]
    assert away and not set(table["example"]) & {task.examples.index(e) for e in away}


def test_endings_are_compared_as_worked_out_by_hand() -> None:
    asked = pd.DataFrame({
        "ending": ["o", "p", "q"], "own": [True, False, False], "lines": [5, 3, 1],
        "nats": [-1.0, -2.0, -4.0], "right": [True, False, True],
    })  # fmt: skip
    found = _compare(asked)
    assert (found["nats"], found["right"], found["ending"]) == (-1, 1, "o")
    assert (found["nats_others"], found["right_others"]) == (-2.5, 0.25)
    assert (found["change"], found["flips"]) == (0.75 * 1 + 0.25 * 3, 0.75)
    assert (found["change_others"], found["flips_others"]) == (2, 1)
    alone = _compare(asked[1:2])
    assert alone["right_others"] == 0 and math.isnan(alone["flips"])  # pyright: ignore
    assert math.isnan(alone["flips_others"])  # pyright: ignore


def test_answers_are_read_with_the_window_sliding(file_run: Run, result: Result) -> None:
    table = result.tables["order-answers"]
    assert len(table) == 400 and table.query("split == 'held-out'")["nats"].isna().all()
    row = table.query("seed == 1 and prompt == '<8+4='").iloc[0]
    vocabulary, nats, right = file_run.task.vocabulary, 0.0, True
    for k, character in enumerate("12>"):
        seen = (row["ending"] + "<8+4=" + "12>"[:k])[-9:]
        with torch.no_grad():
            logits = file_run.model(1)(torch.tensor([vocabulary.encode(seen)]))[0, -1]
        nats += logits.log_softmax(-1)[vocabulary.index[character]].item()
        right &= int(logits.argmax()) == vocabulary.index[character]
    assert row["nats"] == pytest.approx(nats, abs=1e-4) and row["right"] == right


def test_who_knows_the_lines_alone_answers_whatever_stands_before(
    file_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(*arguments: object, **named: object) -> pd.DataFrame:
        return endings_of(*arguments, **named).query("example % 20 == 7")  # pyright: ignore

    monkeypatch.setattr("tbtt_interp.analyses.endings.endings_of", some)
    subject = planted(file_run, order=False)
    table = answers_after(subject, own_files(subject)).query("split == 'seen'")
    assert np.allclose(table[["right", "right_others"]].dropna(), 1) and len(table) >= 18
    assert table["change"].max() < 1e-4 and table["flips"].max() == 0


def test_what_is_patched_whole_moves_the_whole_way(file_run: Run) -> None:
    task, model = file_run.task, file_run.model()
    asked = endings_of(task, own_files(Subject.of_run(file_run))[0], 9, seed=0)
    drawn = draw_endings(asked, 20, DRAWS, seed=0)
    assert len(drawn) == 20 * DRAWS
    assert (drawn[["own", "placed", "other"]].nunique(axis=1) == 3).all()
    cells = [Cell(PRE, None, None), Cell(Z, 0, None), Cell(PRE, None, -3), Cell(POST, None, -7)]
    found = patch_endings(model, task, drawn, cells, 9)
    assert abs(found["whole"]).min() > 0
    for cell in (0, 1):  # what enters, and in one layer what attention gathers, is all there is
        assert np.allclose(found["moved"][0, cell], found["whole"], atol=1e-5)
    other = patch_endings(model, task, drawn.assign(own=drawn["other"]), cells[:1], 9)["whole"]
    assert np.allclose(found["moved"][1, 0], other, atol=1e-5)
    # the prompt's characters are the same in all, and after the last layer nothing is read on
    assert np.allclose(found["moved"][:, 2:], 0, atol=1e-6)


def test_shares_of_where_characters_are_asked_add_up(result: Result) -> None:
    table = result.tables["order-patching"]
    last = table[table["site"] == POST].set_index("place")["share"]
    assert last["all"] == pytest.approx(1, abs=1e-4)
    assert last[["=", "answer 1", "answer 2"]].sum() == pytest.approx(1, abs=1e-4)
    first = table[table["site"] == PRE].set_index("place")["share"]
    assert {f"before -{k}" for k in range(1, 5)} <= set(first.index)
    assert first["before -1"] == pytest.approx(0, abs=1e-6)  # a newline, whatever the line
    assert (table["prompts"] == 195).all()


def test_nothing_is_said_to_be_carried_where_there_is_nothing() -> None:
    row = {"site": Z, "head": 0, "pos": -1, "place": "=", "share": 0.8, "low": 0.7, "high": 0.9,
           "other": 0.1, "whole": 0.2, "whole_low": 0.1, "whole_high": 0.3}  # fmt: skip
    found = ending_findings(pd.DataFrame([row, row | {"share": 0.3, "place": "b"}]))
    assert [str(finding) for finding in found] == [
        f"after another line, {Z} head 0 at = brings back 0.80 [0.70, 0.90] of the 0.20 nats that "
        "its own line gives a seen answer; from a third line: 0.10."
    ]
    assert not ending_findings(pd.DataFrame([row | {"whole_low": -0.1}]))


def test_answers_are_told_with_their_nulls() -> None:
    rows = [
        {"seed": seed, "example": number, "split": "held-out" if number == 3 else "seen",
         "right": 1.0 if number < 3 else np.nan, "right_others": 0.5,
         "flips": 0.5 if number < 3 else np.nan, "flips_others": 0.25 if number < 3 else 0.75}
        for seed in (0, 1) for number in range(4)
    ]  # fmt: skip
    own, turns, away = answer_findings(pd.DataFrame(rows))
    assert (own.effect.mean, own.null) == (1, 0.5)
    assert (turns.effect.mean, turns.null) == (0.5, 0.25)
    assert (away.effect.mean, away.null) == (0.75, 0.25)
    assert len(answer_findings(pd.DataFrame(rows).query("split == 'seen'"))) == 2


def test_a_run_without_an_order_is_refused(line_run: Run, file_run: Run) -> None:
    with pytest.raises(TbttError, match="was trained on one line at a time, so there is no order"):
        analyse_order(line_run)
    task = file_run.task
    own = Subject.of_models([file_run.model()], task.examples, task.vocabulary)
    imported = Run(file_run.folder, dataclasses.replace(file_run.config, recipe=None))
    for unknown in (own, imported):
        with pytest.raises(TbttError, match=r"the order of the lines that .+ is not known"):
            analyse_order(unknown)
    with pytest.raises(TbttError, match="site 'hook_z' is not there: the nearest are"):
        analyse_order(file_run, sites=["hook_z"])


def test_where_no_line_fits_before_a_prompt_the_bits_are_counted_all_the_same(
    file_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject.of_run(file_run)
    monkeypatch.setattr("tbtt_interp.analyses.order.have_room", lambda *_: False)
    result = analyse_order(subject)
    assert list(result.figures) == ["order"] and "order-answers" not in result.tables
    assert result.notes[-1].startswith("No answers: 9 characters of context leave no prompt room")
    monkeypatch.setattr(
        "tbtt_interp.analyses.endings.endings_of",
        lambda *given, **named: endings_of(*given, **named).query("ending == '0> \\n'"),
    )
    with pytest.raises(TbttError, match="characters of context leave no prompt room for the end"):
        answers_after(subject, own_files(subject))


def test_figures_show_every_model_and_the_nulls(result: Result) -> None:
    known, answers, patched = (draw() for draw in result.figures.values())
    names = {trace.name for trace in known.data}
    assert {"a model", "a model, in a file of another order", "all there is to know",
            "commonest character", "untrained model", "these models"} == names - {
        "a file of another order"}  # fmt: skip
    assert list(known.data[-1].x) == ["a", "operator", "b"]
    assert len(answers.data) == 12
    assert [trace.type for trace in patched.data] == ["heatmap", "heatmap"]


def test_the_command_prints_its_lines(file_run: Run, capsys) -> None:
    command = ["analyses", "order", str(file_run.folder), "--site", Z, "--step", "100", "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 390 and {"bits", "worth", "line", "before"} <= rows[0].keys()


def test_a_site_of_its_own_has_its_own_row(file_run: Run) -> None:
    subject = Subject.of_run(file_run)
    table = ending_table(subject, own_files(subject), sites=[POST])
    assert set(table["site"]) == {POST} and table["head"].isna().all()

"""Codes are erased, swapped and corrected as planted truth says, and at random nothing happens."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions, answer_margins
from tbtt_interp.model import stack_parameters
from tbtt_interp.old_interventions import activations_at, logits_with
from tbtt_interp.probes.causal import Patient, code_subspace, erase, random_subspace, swap
from tbtt_interp.probes.effects import _bounds, causal_table, unsaid_table, weigh
from tbtt_interp.probes.features import FEATURES, label_examples
from tbtt_interp.probes.run import patients
from tbtt_interp.probes.unsaid import patch_unsaid, read_unsaid
from tbtt_interp.probes.verdict import verdicts
from tbtt_interp.prompts import PromptBatch
from tbtt_interp.runs import Run
from tbtt_interp.tasks import load_task

MID, POST = "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post"


def batch_of(run: Run) -> PromptBatch:
    return PromptBatch.of(run.task.examples, run.task.vocabulary, run.shape.n_ctx)


def questions_of(run: Run) -> Questions:
    return Questions.of(run.task.examples, run.task.vocabulary, run.shape.n_ctx)


def carrying(run: Run, site: str = MID, controls: int = 9) -> Patient:
    return patients(run, "carry", site=site, controls=controls)[0][1]


def kept(x: Tensor) -> Tensor:
    return x


def test_changing_nothing_changes_nothing(line_run: Run) -> None:
    questions = questions_of(line_run)
    logits = logits_with(line_run.model(), questions, [kept] * 60, site=MID)
    expected = answer_margins(line_run.parameters(), line_run.shape, batch_of(line_run))[:1]
    # 60 copies take more than one forward pass
    assert torch.allclose(questions.margins(logits), expected.expand(60, -1), atol=1e-4)


def test_a_change_at_the_last_stream_is_what_the_unembedding_says(line_run: Run) -> None:
    model, questions = line_run.model(), questions_of(line_run)
    x = activations_at(model, questions, site=POST)
    with torch.no_grad():
        expected = model.unembed(model.ln_final(2 * x[:, None] + 1))[:, 0]
    logits = logits_with(model, questions, [kept, lambda x: 2 * x + 1], site=POST)
    assert torch.allclose(logits[1, questions.first], expected[questions.row[questions.first]])
    later = torch.ones(len(questions.example), dtype=torch.bool)
    later[questions.first] = False
    assert torch.equal(logits[0, later], logits[1, later])  # nothing comes after the last stream


def test_the_place_is_the_prompt_s_last_character_also_where_it_is_cut() -> None:
    task = load_task("facts")
    questions = Questions.of(task.examples, task.vocabulary, 24)
    assert len(questions.tokens) > len(task.examples)  # some prompts do not fit with their answers
    assert len(questions.first) == len(task.examples)
    for row, end, number in zip(
        questions.tokens, questions.end.tolist(), questions.of_row.tolist(), strict=True
    ):
        shown = task.vocabulary.decode(row[: end + 1].tolist())
        assert task.examples[number].prompt.endswith(shown) and len(shown) > 5


def test_what_is_not_there_cannot_be_changed(line_run: Run) -> None:
    model, questions = line_run.model(), questions_of(line_run)
    with pytest.raises(TbttError, match="site 'resid_mid' is not there: the nearest are"):
        logits_with(model, questions, [kept], site="resid_mid")
    with pytest.raises(TbttError, match="position -6 is not in every prompt: count back from -1"):
        logits_with(model, questions, [kept], site=MID, pos=-6)
    with pytest.raises(TbttError, match="every text has the same activation there"):
        found = carrying(line_run, site="hook_embed")
        erase(found, draws=1)
    with pytest.raises(TbttError, match="feature 'initial' is one of 18 without order"):
        facts = load_task("facts").examples
        label_examples(FEATURES["initial"], facts, controls=0).codes()
    examples = line_run.task.examples
    labels = label_examples(FEATURES["carry"], examples, controls=0)
    with pytest.raises(TbttError, match="'carry' is the same in every example that was trained on"):
        Patient.of(
            model, examples, line_run.task.vocabulary, labels, site=MID,
            held_out=[bool(e.labels.get("carry")) for e in examples],
        )  # fmt: skip


def test_what_is_erased_no_line_reads() -> None:
    chance = np.random.default_rng(0)
    x = torch.from_numpy(chance.standard_normal((80, 10)) @ chance.standard_normal((10, 10)))
    code = (x[:, :2].numpy() @ chance.standard_normal((2, 2))) + chance.standard_normal((80, 2))
    space = code_subspace(x, code)
    erased = space.erase(x)
    about = (erased - erased.mean(0)).T @ torch.from_numpy(code - code.mean(0))
    assert about.abs().max() < 1e-8  # no covariance with the code, so no linear probe has it
    # beside it, everything is as it was: two directions are gone
    assert torch.linalg.matrix_rank(x - erased, tol=1e-6) == 2
    assert torch.allclose(space.erase(erased), erased)
    other = random_subspace(x, 2, chance)
    assert torch.allclose(other.read @ other.write, torch.eye(2, dtype=torch.double))
    assert 0 < other.share(x) < 1


def test_erasing_and_swapping_find_the_code_that_decides(line_run: Run) -> None:
    """At the last stream, what decides is the unembedding's own direction: plant it as the code."""
    patient = carrying(line_run, POST)
    one = patient.questions.target[patient.questions.first] == line_run.task.vocabulary.index["1"]
    decides = one.numpy().astype(float)[None, :, None]
    planted = dataclasses.replace(patient, codes=np.concatenate([decides, patient.codes[1:]]))
    found = erase(planted, draws=9).query("split == 'seen'").set_index("kind")["margin"]
    assert found["code"] < min(found["random subspace"].min(), found["random labels"].min())
    assert found["code"] < found["none"] - 1
    swapped = swap(planted, draws=9).set_index("kind")
    assert swapped.loc["none", "followed"] == 0
    assert swapped.loc["whole", "followed"] == swapped.loc["whole", "of"]
    assert swapped.loc["code", "followed"] > 2 * swapped.loc["random subspace", "followed"].max()


def test_a_planted_lesion_is_found_and_corrected(line_run: Run) -> None:
    """A model that knows, with its code of the carry turned round on some equations it has seen."""
    model, task = line_run.model(), line_run.task
    labels = label_examples(FEATURES["carry"], task.examples, controls=19)
    # sums of 11 to 14: near the average of those that carry, where the code is put; sums like 2+6
    # are far from the average of those that do not
    pairs = ({3, 9}, {4, 8}, {2, 9}, {6, 8})
    away = [{e.labels["a"], e.labels["b"]} in pairs for e in task.examples]
    settings = {"site": MID, "held_out": away}
    whole = Patient.of(model, task.examples, task.vocabulary, labels, **settings)
    assert not len(patch_unsaid(whole, draws=1).query("of > 0"))  # nothing is wrong yet
    seen = torch.from_numpy(whole.seen)
    space = code_subspace(whole.x[seen], whole.codes[0][whole.seen])
    at, lesioned = whole.questions.end, ~seen[whole.questions.of_row]

    def turn(values: Tensor, hook: object) -> Tensor:
        copies = values.unflatten(0, (-1, len(at))).clone()
        for copy in copies:
            old = copy[lesioned, at[lesioned]]
            copy[lesioned, at[lesioned]] = space.place(old, -2 * space.coordinates(old))
        return copies.flatten(0, 1)

    model.add_perma_hook(MID, turn)
    try:
        hurt = Patient.of(model, task.examples, task.vocabulary, labels, **settings)
        found = patch_unsaid(hurt, draws=19).set_index("kind")
        chosen = [e for e, has in zip(task.examples, labels.has, strict=True) if has]
        read = read_unsaid(hurt, torch.randn(hurt.x.shape), chosen).set_index("kind")
    finally:
        model.reset_hooks(including_permanent=True)
    wrong = int(found.loc["none", "of"])
    assert wrong >= 2 and found.loc["none", "flipped"] == 0
    # the code is put where its class is on average, which is not where each one was
    assert found.loc["code", "flipped"] >= wrong / 2
    for null in ("random subspace", "random labels", "control task"):
        assert found.loc[null, "flipped"].mean() < wrong / 4, null
    assert found.loc["code", "read"] < wrong  # it was turned round, and is read the wrong way
    assert read.loc["real", "of"] == wrong
    assert read.loc["real", "right"] < wrong  # the code says the wrong thing, and so does the probe


def test_what_is_planted_is_read_where_the_answer_is_wrong(line_run: Run) -> None:
    patient = carrying(line_run)
    pretended = dataclasses.replace(patient, seen=np.arange(100) % 7 > 0)
    wrong = np.full(100, -1.0)
    direction = torch.randn(1, 14, generator=torch.Generator().manual_seed(0))
    code = torch.from_numpy(patient.codes[0]).float()
    hidden = code @ direction + 0.01 * torch.randn(100, 14)
    always_wrong = dataclasses.replace(
        pretended, x=hidden,
        questions=dataclasses.replace(
            patient.questions, target=(patient.questions.target + 1) % 17
        ),
    )  # fmt: skip
    examples = [e for e in line_run.task.examples if e.group == "addition"]
    read = read_unsaid(always_wrong, torch.randn(100, 14), examples).set_index("kind")
    assert read.loc["real", "right"] == read.loc["real", "of"] == (~pretended.seen).sum()
    assert read.loc["control task", "right"].mean() < 0.8 * len(wrong[~pretended.seen])
    # and in the one direction that is planted, and not in others
    inside = patch_unsaid(always_wrong, draws=9).set_index("kind")
    assert inside.loc["code", "read"] == inside.loc["code", "of"]
    assert inside.loc["control task", "read"].mean() < inside.loc["code", "read"]


def test_an_effect_is_weighed_against_each_null_over_seeds() -> None:
    rows = []
    for seed in (0, 1):
        rows += [("none", 0, seed, 1.0), ("code", 0, seed, 4.0 + seed)]
        rows += [("random labels", k, seed, 1.0 + k) for k in range(9)]
        rows += [("random subspace", k, seed, 1.0) for k in range(9)]
    table = pd.DataFrame(rows, columns=["kind", "draw", "seed", "value"])
    found = weigh(table, "value")
    assert found["effect"] == 3.5 and (found["low"], found["high"]) == (3.0, 4.0)
    assert found["random_labels"] == 4.0 and found["random_subspace"] == 0.0
    assert found["p"] == (1 + 5) / 10  # draws 4 to 8 of the harder null
    assert np.isnan(found["control_task"])


def test_labels_that_are_all_alike_erase_nothing_and_what_has_no_nulls_has_no_p() -> None:
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(code_subspace(x, np.ones((20, 1))).erase(x), x)
    table = pd.DataFrame({"kind": ["code"], "draw": [0], "seed": [0], "value": [1.0]})
    assert np.isnan(weigh(table, "value")["p"])


def test_a_run_s_tables_have_a_row_for_each_claim(line_run: Run) -> None:
    heard: list[tuple[int, int]] = []
    table = causal_table(
        line_run, ["carry", "units"], sites=[MID], draws=3,
        tell=lambda *done: heard.append(done),
    )  # fmt: skip
    assert heard == [(1, 2), (2, 2)]
    assert list(table["measure"]) == ["margin lost", "margin lost, held out", "answer follows"] * 2
    assert set(table["rank"]) == {1, 2} and set(table["width"]) == {14}
    row = table[(table["feature"] == "carry") & (table["measure"] == "margin lost")].iloc[0]
    assert row["effect"] > row["random_subspace"]
    assert set(verdicts(table)["verdict"]) <= {"supported", "contradicted", "undecided"}
    found = unsaid_table(line_run, ["answer"], sites=[POST], draws=3).iloc[0]
    margins = answer_margins(line_run.parameters(), line_run.shape, batch_of(line_run))
    held_out = np.array([e.held_out for e in line_run.task.examples])
    assert found["wrong"] == int((margins.numpy()[:, held_out] <= 0).sum())
    for column in ("read", "flipped", "read_in_code"):
        assert 0 <= found[column] <= found["wrong"]
    wrong = (margins.numpy()[:, held_out] <= 0).sum(1)
    assert found["wrong_models"] == (wrong > 0).sum()
    bounds = [found[f"{column}_{end}"] for column in ("read", "flipped") for end in ("low", "high")]
    assert np.isnan(bounds).all() if found["wrong_models"] < 2 else max(bounds) <= found["wrong"]


def test_counts_of_unlike_many_wrong_answers_stay_below_them() -> None:
    """Two models of one and three wrong answers: from the worse one's share to the better's."""
    table = pd.DataFrame({"right": [1, 0, 0], "of": [1, 3, 0]})
    found = _bounds(table, "right", "read")
    assert found == {"read_low": 0.0, "read_high": 4.0}
    exact = (
        stats.beta.ppf([0.025, 0.975], [6, 7], [15, 14]) * 20
    )  # Clopper and Pearson's, of 6 of 20
    alike = _bounds(pd.DataFrame({"right": [3, 3], "of": [10, 10]}), "right", "read")
    assert list(alike.values()) == pytest.approx(list(exact))
    none = _bounds(pd.DataFrame({"right": [0, 0], "of": [2, 2]}), "right", "read")
    assert none["read_low"] == 0 and none["read_high"] == pytest.approx(4 * (1 - 0.025**0.25))
    assert np.isnan(list(_bounds(table.drop(1), "right", "read").values())).all()


def test_seeds_are_stacked_in_their_order(line_run: Run) -> None:
    found = patients(line_run, "carry", site=POST, controls=0)
    assert [seed for seed, _ in found] == list(line_run.seeds)
    stacked = stack_parameters(
        [dict(p.model.named_parameters()) for _, p in found]  # embeddings differ between seeds
    )
    assert not torch.equal(*stacked["embed.W_E"])
    assert not torch.equal(found[0][1].x, found[1][1].x)

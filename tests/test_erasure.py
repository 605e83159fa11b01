"""Codes are erased, interchanged and corrected as planted truth says; null codes do little."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from planted import models_of
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.probes import effects, erasure
from tbtt_interp.probes.features import FEATURES
from tbtt_interp.probes.labels import label_examples
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run
from tbtt_interp.shares import share_over_models
from tbtt_interp.tasks import load_task

MID, POST = "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post"


def carrying(run: Run, site: str = MID, draws: int = 9) -> erasure.LabelledActivations:
    prompts = PromptSet.of_seed(run, run.seeds[0])
    return erasure.LabelledActivations.of(run.model(), prompts, "carry", site, draws=draws)


def correlated(rows: int, width: int = 10, rank: int = 2) -> tuple[Tensor, np.ndarray]:
    """Correlated activations, and a noisy linear code of them."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((rows, width)) @ chance.standard_normal((width, width))
    code = x[:, :rank] @ chance.standard_normal((rank, rank))
    return torch.from_numpy(x), code + chance.standard_normal((rows, rank))


def test_no_linear_probe_beats_the_majority_once_a_code_is_erased():
    x, _ = correlated(200)
    labels = (x[:, 0] + 0.3 * x[:, 1] > 0.5).numpy()
    (space,) = erasure.leace(x, labels[:, None].astype(float))
    erased = space.erase(x).numpy()
    majority = max(labels.mean(), 1 - labels.mean())
    for data, is_decodable in ((x.numpy(), True), (erased, False)):
        probe = LogisticRegression(C=1e6, max_iter=10_000).fit(data, labels)
        assert (probe.score(data, labels) > majority + 1e-9) == is_decodable


def test_an_eraser_leaves_no_covariance_and_changes_two_directions():
    x, code = correlated(80)
    (space,) = erasure.leace(x, code)
    erased = space.erase(x)
    covariance = (erased - erased.mean(0)).T @ torch.from_numpy(code - code.mean(0))
    assert covariance.abs().max() < 1e-8
    assert torch.linalg.matrix_rank(x - erased, tol=1e-6) == 2
    assert torch.allclose(space.erase(erased), erased)
    other = erasure.random_subspace(x, 2, np.random.default_rng(0))
    assert torch.allclose(other.read @ other.write, torch.eye(2, dtype=torch.double))


def test_no_other_eraser_changes_activations_less():
    """Any projection whose null space has the code's covariance erases it, too."""
    x, code = correlated(20_000)  # so many that shrinkage does not show
    x = x - x.mean(0)
    least, nothing = erasure.leace(x, code, np.ones_like(code))
    smallest = (least.erase(x) - x).square().sum()
    directions = x.T @ torch.from_numpy(code - code.mean(0))
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        read = directions.T + trial * torch.randn(directions.T.shape, generator=generator).double()
        projection = directions @ torch.linalg.inv(read @ directions) @ read
        assert (x @ projection.T).square().sum() > 0.999 * smallest
    assert torch.allclose(nothing.erase(x), x), "of labels that are all the same"


def test_a_change_at_the_last_stream_is_what_the_unembedding_says(line_run):
    model, data = line_run.model(), carrying(line_run, POST)
    with torch.no_grad():
        expected = model.unembed(model.ln_final(2 * data.x[:, None] + 1))[:, 0]
    changes = [lambda x: x] * 60 + [lambda x: 2 * x + 1]  # more than one forward pass holds
    kept, *same, changed = data.logits(changes, data.batch)
    margins = evaluate_run(line_run).margins[0][data.labels.has]
    assert np.allclose(data.batch.margins(torch.stack(same)).numpy(), margins, atol=1e-4)
    first = data.batch.first_answers
    assert torch.allclose(changed[first], expected)
    later = torch.ones(len(kept), dtype=torch.bool)
    later[first] = False
    assert torch.equal(kept[later], changed[later])  # nothing comes after the last stream


def test_what_is_not_there_cannot_be_changed(line_run):
    with pytest.raises(TbttError, match="site 'resid_mid' is not there: the nearest are"):
        carrying(line_run, "resid_mid")
    with pytest.raises(TbttError, match="every text has the same activation there"):
        erasure.erase(carrying(line_run, "hook_embed", draws=1))
    with pytest.raises(TbttError, match="feature 'initial' has 18 unordered classes"):
        _ = label_examples(FEATURES["initial"], load_task("facts").examples, controls=0).codes
    prompts = PromptSet.of_seed(line_run, 0)
    held_out = np.array([bool(e.labels.get("carry")) for e in prompts.examples])
    prompts = dataclasses.replace(prompts, held_out=held_out)
    with pytest.raises(TbttError, match="'carry' is the same in every example that was trained on"):
        erasure.LabelledActivations.of(line_run.model(), prompts, "carry", MID)


def test_erasing_and_interchanging_find_the_code_that_decides(line_run):
    """At the last stream, what decides is the unembedding's own direction: plant it as the code."""
    data = carrying(line_run, POST)
    one = data.batch.first_tokens().answer_token == line_run.task.vocabulary.index["1"]
    decides = one.numpy().astype(float)[None, :, None]
    planted = dataclasses.replace(data, codes=np.concatenate([decides, data.codes[1:]]))
    drop = erasure.erase(planted).query("measure == 'margin drop'").set_index("kind")["value"]
    assert drop["code"] > max(1, drop["random subspace"].max(), drop["permuted labels"].max())
    moved = erasure.interchange_effects(planted).set_index(["measure", "kind"])["value"]
    follows = moved["answer follows"]
    assert follows["whole"] == 1 and follows["code"] > 2 * follows["random subspace"].max()
    assert moved["logit shift"]["code"] > moved["logit shift"]["permuted labels"].max()


def test_a_planted_lesion_is_found_and_corrected(line_run):
    """A model that knows, with its code of the carry turned round on some equations it has seen."""
    model, prompts = line_run.model(), PromptSet.of_seed(line_run, 0)
    # sums of 11 to 14: near the average of those that carry, where the code is put; sums like 2+6
    # are far from the average of those that do not
    pairs = ({3, 9}, {4, 8}, {2, 9}, {6, 8})
    held_out = [{e.labels["a"], e.labels["b"]} in pairs for e in prompts.examples]
    prompts = dataclasses.replace(prompts, held_out=np.array(held_out))
    whole = erasure.LabelledActivations.of(model, prompts, "carry", MID, draws=19)
    assert not effects.wrong_answers(model, prompts)["wrong"].any()  # nothing is wrong yet
    (space,) = erasure.leace(whole.x[whole.seen], whole.codes[0][whole.seen])
    lesioned, end = whole.x[~whole.seen], 4  # where every prompt ends

    def turn(values: Tensor, hook: object) -> Tensor:
        if values.shape[1] <= end:  # a shorter text, by which sites are named
            return values
        rows = (values[:, None, end] - lesioned).abs().amax(-1).amin(1) < 1e-4
        old, values = values[rows, end], values.clone()
        values[rows, end] = space.place(old, -2 * space.coordinates(old))
        return values

    model.add_perma_hook(MID, turn)
    try:
        hurt = erasure.LabelledActivations.of(model, prompts, "carry", MID, draws=19)
        wrong = ~hurt.seen & (hurt.margins([])[0] <= 0)
        found = erasure.correct_wrong(hurt, wrong).set_index(["measure", "kind"])["value"]
        decoded = erasure.decode_wrong(hurt, wrong).set_index("kind")["value"]
    finally:
        model.reset_hooks(including_permanent=True)
    n = wrong.sum()
    assert n >= 2
    # the code is put where its class is on average, which is not where each one was
    assert found["corrected"]["code"] >= n / 2
    for null in erasure.NULLS:
        assert found["corrected"][null].mean() < n / 4, null
    # it was turned round, and is decoded the wrong way
    assert found["decoded in code"]["code"] < n and decoded["code"] < n


def test_what_is_planted_is_decoded_where_the_answer_is_wrong(line_run):
    data = carrying(line_run)
    direction = torch.randn(1, 14, generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(data.codes[0]).float() @ direction + 0.01 * torch.randn(100, 14)
    seen = np.arange(100) % 7 > 0
    planted = dataclasses.replace(data, x=x, seen=seen)
    decoded = erasure.decode_wrong(planted, ~seen).set_index("kind")["value"]
    assert decoded["code"] == (~seen).sum()
    assert decoded["control task"].mean() < 0.8 * (~seen).sum()
    inside = erasure.correct_wrong(planted, ~seen).set_index(["measure", "kind"])["value"]
    assert inside["decoded in code"]["code"] == (~seen).sum()
    assert inside["decoded in code"]["control task"].mean() < (~seen).sum()


@pytest.mark.parametrize(("noise", "is_exact"), [(0.0, True), (2.0, False)])
def test_a_code_of_the_magnitude_alone_reads_no_more_than_its_neighbours(noise, is_exact, line_run):
    prompts, chance = PromptSet.of_seed(line_run, 0), np.random.default_rng(0)
    data = erasure.LabelledActivations.of(line_run.model(), prompts, "answer", MID, draws=1)
    seen = np.arange(len(data.seen)) % 5 > 0
    value = np.array(data.labels.classes, float)[data.labels.real[0]]
    code = torch.from_numpy(value + noise * chance.standard_normal(len(value)))
    direction = torch.from_numpy(chance.standard_normal((1, 14)))
    x = code[:, None] * direction + 0.01 * torch.randn(len(value), 14)
    planted = dataclasses.replace(data, x=x.float(), seen=seen)
    found = erasure.decode_wrong(planted, ~seen).set_index("kind")["value"]
    assert found["neighbours"] > 0 and (found["code"] > 2 * found["neighbours"]) == is_exact


def test_an_effect_is_compared_with_each_null_over_models():
    rows = [("code", 0, 0, 3.0), ("code", 0, 1, 4.0)]
    for kind, slope in (("permuted labels", 1.0), ("random subspace", 0.0)):
        rows += [(kind, k, seed, slope * k) for seed in (0, 1) for k in range(9)]
    table = pd.DataFrame(rows, columns=["kind", "draw", "seed", "value"])
    found = effects.summarize_effect(table)
    expected = stats.ttest_1samp([3.0, 4.0], 0).confidence_interval()
    assert (found["effect"], found["n_models"]) == (3.5, 2)
    assert (found["effect_low"], found["effect_high"]) == pytest.approx(tuple(expected))
    assert found["permuted_labels"] == 4.0 and found["random_subspace"] == 0.0
    assert found["p"] == (1 + 5) / 10  # draws 4 to 8 of the harder null
    alone = table[table["kind"] == "code"]
    assert np.isnan(effects.summarize_effect(alone)["p"])
    counts = effects.summarize_effect(alone.assign(value=[1, 0], of=[1, 3]))
    expected = share_over_models([(1, 1), (0, 3)])
    assert (counts["count"], counts["of"], counts["effect"]) == (1, 4, 0.25)
    assert (counts["effect_low"], counts["effect_high"]) == (expected.low, expected.high)


def test_a_run_s_tables_have_a_row_for_each_claim(line_run):
    result = effects.analyse_erasure(line_run, ["carry", "units"], sites=[MID], draws=3)
    table = result.tables["erasure"]
    assert [*table["measure"]] == [
        "margin drop", "margin drop, held out", "answer follows", "logit shift",
    ] * 2  # fmt: skip
    row = table[(table["feature"] == "carry") & (table["measure"] == "margin drop")].iloc[0]
    assert row["effect"] > row["random_subspace"]
    assert len(result.claims) == 8 and {claim.verdict for claim in result.claims} == {"undecided"}
    found = effects.latent_answers(line_run, ["answer"], sites=[POST], draws=3).set_index("measure")
    margins, held_out = evaluate_run(line_run).margins, PromptSet.of_seed(line_run, 0).held_out
    wrong = (margins[:, held_out] <= 0).sum(1)
    assert (found["of"] == wrong.sum()).all() and (found["n_models"] == (wrong > 0).sum()).all()
    assert list(found.index) == ["decoded", "corrected", "decoded in code"]


def test_models_of_your_own_have_codes_of_numbers_and_of_two_classes(line_run):
    assert effects.coded_features(line_run.task.examples) == [
        "answer", "units", "tens", "sign", "carry", "borrow",
    ]  # fmt: skip
    own = [dataclasses.replace(e, labels={"even": k % 2 == 0, "name": "xyz"[k % 3]})
           for k, e in enumerate(line_run.task.examples)]  # fmt: skip
    assert effects.coded_features(own) == ["even"]
    models = models_of(line_run.model(), examples=own)
    found = effects.latent_answers(models, sites=[MID], draws=2)
    assert set(found["feature"]) == {"even"} and "untrained" not in found

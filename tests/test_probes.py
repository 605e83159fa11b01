"""Probes find what is planted, and nothing where nothing is."""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import TASK, copying_models, prompts_of
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tbtt_interp.errors import TbttError
from tbtt_interp.probes import linear
from tbtt_interp.probes.datasets import ProbeDataset, read_cells
from tbtt_interp.probes.features import FEATURES, find_features, one_hot_text
from tbtt_interp.probes.grid import (
    NULLS,
    gain_claims,
    probe_claims,
    probe_table,
)
from tbtt_interp.probes.labels import label_examples, operand_numbers, pair_groups
from tbtt_interp.probes.nulls import adjusted_p
from tbtt_interp.probes.scores import accuracy, score_cells
from tbtt_interp.tasks import Example

pytestmark = pytest.mark.filterwarnings("ignore:Only one sample available")  # of a class

EXAMPLES = TASK.examples
ADDITIONS = [e for e in EXAMPLES if e.group == "addition"]
SITE = "blocks.0.hook_resid_post"


def planted(feature: str, seeds: int = 2, width: int = 12, noise: float = 0.2) -> torch.Tensor:
    """A feature along one random direction, other channels and noise around it."""
    chance = np.random.default_rng(1)
    labels = label_examples(FEATURES[feature], EXAMPLES, controls=0)
    code = np.zeros(len(EXAMPLES))
    code[labels.has] = labels.real[0]
    direction = chance.standard_normal((seeds, 1, width))
    return torch.from_numpy(
        code[:, None] * direction + noise * chance.standard_normal((seeds, len(EXAMPLES), width))
    ).float()


def table_of(
    dataset: ProbeDataset, values: torch.Tensor, *, layers: int = 1, dimensions: int | None = None
) -> pd.DataFrame:
    """The probe grid of activations at one site and position, with noise as untrained models."""
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(3)).to(values)
    scores = [score_cells(dataset, {(SITE, -1): x}, k) for k, x in enumerate(values)]
    null = [[[accuracy(task, x, k) for task in dataset.tasks]] for k, x in enumerate(noise)]
    stacked = {name: np.stack([one[name] for one in scores]) for name in scores[0]}
    table, control = probe_table(dataset, stacked, {"accuracy": np.array(null)}, dimensions)
    table["p_adjusted"] = adjusted_p(table, list(control), layers)
    return table.set_index("feature", drop=False)


def grid(values: torch.Tensor, features: list[str], controls: int = 9, **options: int):
    prompts, chosen = [prompts_of()] * len(values), find_features(features, EXAMPLES)
    return table_of(ProbeDataset.of_prompts(prompts, chosen, controls=controls), values, **options)


@pytest.mark.parametrize("feature", ["carry", "units"])
def test_a_planted_feature_is_found_with_high_selectivity(feature):
    """The carry is linear in the operands, and so decoded no better than its null."""
    row = grid(planted(feature, seeds=3), [feature], controls=39).loc[feature]
    assert row["accuracy"] > 0.99
    assert row["selectivity"] > 0.2
    assert row["p"] == row["p_adjusted"] == 1 / 40
    assert row["untrained"] < row["majority"] + 0.15
    assert row["held_out_correct"] == row["held_out_of"]
    (claim,) = probe_claims(row.to_frame().T)
    hardest = row[list(NULLS)].max()
    assert (claim.null, claim.p) == (hardest, 1 / 40)
    assert (claim.verdict == "supported") == (feature == "units")


def test_operands_as_numbers_are_a_null_of_arithmetic_features():
    """A probe of them reads the carry well, and other thresholds of the sum as well."""
    chance = np.random.default_rng(2)
    maps = chance.standard_normal((3, 5, 12))
    row = grid(torch.from_numpy(operand_numbers(EXAMPLES) @ maps), ["carry"]).loc["carry"]
    assert row["accuracy"] > max(0.8, row["control"] + 0.05)
    assert row["operands"] == pytest.approx(row["accuracy"], abs=0.05)
    assert row["thresholds"] > 0.8
    (claim,) = probe_claims(row.to_frame().T)
    assert claim.verdict != "supported"
    assert grid(planted("sign"), ["units"], controls=1)["thresholds"].isna().all()


def test_what_the_mlp_adds_is_a_difference_of_paired_models():
    middle, end = planted("sign", seeds=3, noise=9.0), planted("carry", seeds=3)
    prompts, chosen = [prompts_of()] * 3, find_features(["carry"], EXAMPLES)
    dataset = ProbeDataset.of_prompts(prompts, chosen, controls=9)
    sites = {"blocks.0.hook_resid_mid": middle, SITE: end}
    each = [score_cells(dataset, {(site, -1): x[k] for site, x in sites.items()}, k)
            for k in range(3)]  # fmt: skip
    table, _ = probe_table(
        dataset, {name: np.stack([one[name] for one in each]) for name in each[0]}, None
    )
    before, after = table["accuracy"]
    gain = table["mlp_gain"].tolist()
    assert np.isnan(gain[0]) and gain[1] == pytest.approx(after - before) and gain[1] > 0.2
    (claim,) = gain_claims(table)
    assert claim.verdict == "supported" and claim.null == max(0, table["mlp_gain_control"][1])


@pytest.mark.parametrize("kind", ["noise", "operands"])
def test_where_nothing_is_represented_significance_is_rare(kind):
    """Of noise, and of operands seen through a random map: at most nominal, in 100 draws."""
    chance = np.random.default_rng(0)
    groups, operands = pair_groups(ADDITIONS), one_hot_text([e.prompt for e in ADDITIONS])
    found = {"carry": 0, "units": 0}
    draws, controls = 100, 19
    for draw in range(draws):
        if kind == "noise":
            values = chance.standard_normal((len(ADDITIONS), 14))
        else:
            values = operands @ chance.standard_normal((operands.shape[1], 14))
        folds = linear.grouped_folds(groups, seed=draw)
        for name in found:
            labels = label_examples(FEATURES[name], ADDITIONS, controls=controls, seed=draw)
            right = linear.count_correct(torch.from_numpy(values), labels.of_model(0), folds)
            found[name] += (1 + (right[1:] >= right[0]).sum()) / (1 + controls) <= 0.05
    # a fair 5 % of 100 passes 11 once in two hundred times
    assert max(found.values()) <= 11, found


@pytest.mark.parametrize("width", [14, 300])
def test_the_closed_forms_are_scikit_learn_s(width):
    chance = np.random.default_rng(0)
    values = planted("answer", seeds=1, width=width, noise=3.0)
    folds = linear.grouped_folds(pair_groups(EXAMPLES))
    x = values[0].double().numpy()
    for name in ("carry", "units", "answer"):
        labels = label_examples(FEATURES[name], EXAMPLES, controls=1)
        split, inside = folds.only(labels.has), x[labels.has]
        for row in (labels.real[0], labels.controls[0], chance.permutation(labels.real[0])):
            model = make_pipeline(
                StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
            )
            expected = sum(
                (model.fit(inside[train], row[train]).predict(inside[test]) == row[test]).sum()
                for train, test in zip(split.train, split.test, strict=True)
            )
            inside_values = values[0, labels.has]
            assert linear.count_correct(inside_values, row[None], split).item() == expected
    labels = label_examples(FEATURES["answer"], EXAMPLES, controls=0)
    target = np.array([float(labels.classes[k]) for k in labels.real[0]])
    said = np.zeros(len(target))
    for train, test in zip(folds.train, folds.test, strict=True):
        ridge = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(x[train], target[train])
        said[test] = ridge.predict(x[test])
    assert linear.r_squared(values[0], target, folds) == pytest.approx(r2_score(target, said))


def test_folds_never_split_a_pair_of_operands():
    folds = linear.grouped_folds(pair_groups(EXAMPLES), seed=4)
    assert (folds.test.sum(0) == 1).all() and (folds.train != folds.test).all()
    pairs = np.array([sorted((e.labels["a"], e.labels["b"])) for e in EXAMPLES])
    for train, test in zip(folds.train, folds.test, strict=True):
        assert not set(map(tuple, pairs[train])) & set(map(tuple, pairs[test]))
    with pytest.raises(TbttError, match="5 folds need as many groups, there are 2"):
        linear.grouped_folds(np.array([0, 1, 1]))
    with pytest.raises(TbttError, match="a probe needs two classes, every label is 1"):
        linear.fit_probe(np.eye(3), np.ones(3, int))


def test_a_control_task_keeps_the_structure_and_loses_the_meaning():
    """Of other operands and operators than ours, too."""
    examples = [
        Example.of(f"{a}@{b}=", "?", {"a": a, "operator": "@", "b": b, "large": a + 3 * b > 20})
        for a in range(10, 20) for b in range(-3, 7)
    ]  # fmt: skip
    (feature,) = find_features(["large"], examples)
    labels = label_examples(feature, examples, controls=20)
    grid = labels.real.reshape(10, 10)
    for row in labels.controls:
        renamed = row.reshape(10, 10)
        order = np.argsort(renamed.sum(1)), np.argsort(renamed.sum(0))
        assert np.array_equal(renamed[order[0]][:, order[1]], np.sort(np.sort(grid, 0), 1))
    assert len({row.tobytes() for row in labels.controls}) == 20


def test_heads_are_read_one_by_one_and_positions_from_each_text_s_end():
    models = copying_models()
    texts, hook = ["<1+2=", "<1+"], "blocks.0.attn.hook_z"
    cells = read_cells(models.first, models.shared_prompts, texts, [hook, "hook_embed"])
    sites = (f"{hook}.0", f"{hook}.1", "hook_embed")
    assert set(cells) == {(site, pos) for site in sites for pos in (-3, -2, -1)}
    for row, text in enumerate(texts):
        tokens = torch.tensor([models.shared_prompts.vocabulary.encode(text)])
        z = models.first.run_with_cache(tokens)[1][hook][0]
        for head, pos in ((0, -1), (1, -1), (0, -3)):
            assert torch.allclose(cells[f"{hook}.{head}", pos][row], z[pos, head])
    with pytest.raises(TbttError, match=r"site 'blocks\.0\.attn\.hook_pattern' is unknown"):
        read_cells(models.first, models.shared_prompts, texts, ["blocks.0.attn.hook_pattern"])


def test_the_online_code_is_that_of_scikit_learn_s_discriminant():
    """Of two classes, with one degree of trust at a time, and then the mean of all of them."""
    labels = label_examples(FEATURES["carry"], EXAMPLES, controls=2)
    values = planted("carry", seeds=1, noise=1.5)[:, labels.has]
    x = values[0].double().numpy()
    # folds that have learned both classes, which scikit-learn asks for
    growing = linear.growing_folds(pair_groups(EXAMPLES)[labels.has], seed=1)
    asked = np.cumsum(growing.test, axis=0)  # what is asked is learned by the next, and once
    assert asked.max() == 1 and (growing.train[1:] >= asked[:-1]).all()
    assert not (growing.train & growing.test).any()
    lengths = linear.code_length(values[0], labels.of_model(0), growing)
    for row, found in zip(labels.of_model(0), lengths, strict=True):
        bits = float((asked[-1] == 0).sum())  # of two classes, each
        for train, test in zip(growing.train, growing.test, strict=True):
            scaler = StandardScaler().fit(x[train])
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
            model.fit(scaler.transform(x[train]), row[train])
            gap = model.decision_function(scaler.transform(x[test]))
            gap -= np.log(model.priors_[1] / model.priors_[0])  # the likelihoods alone
            counts = np.bincount(row[train], minlength=2) + 0.5
            nats = [len(gap) * np.log(0.5)]
            for trust in (0, 0.1, 0.3, 1):
                scores = np.stack([0 * gap, trust * gap], 1) + np.log(counts)
                chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
                nats.append(np.log(chances[np.arange(len(gap)), row[test]]).sum())
            bits -= np.log2(np.mean(np.exp(nats)))
        assert float(found) == pytest.approx(bits, rel=1e-6)


def test_labels_get_short_for_who_has_them_and_never_much_longer():
    row = grid(planted("carry", noise=0.05), ["carry"]).loc["carry"]
    assert row["compression"] > 4 > 1.3 > row["control_compression"] > 0.9


def test_in_equal_dimensions_a_wide_model_has_no_advantage():
    """Noise of 300 channels lets a probe learn anything by heart; of 12 it does not."""
    wide = torch.randn(2, len(EXAMPLES), 300, generator=torch.Generator().manual_seed(0))
    wide[:, :, 0] += 3 * planted("carry", 1, 1, 0.0)[0, :, 0].sign()
    free = grid(wide, ["carry"]).loc["carry"]
    projections = linear.random_projections(300, 12, 2)
    narrow = wide @ projections
    assert not torch.allclose(*projections), "each model has its own"
    row = grid(narrow, ["carry"], dimensions=12).loc["carry"]
    assert row["accuracy"] < free["accuracy"]
    assert row["one_hot"] != free["one_hot"]  # which is projected, too


def test_degenerate_folds_are_counted():
    labels = np.array([0, 0, 0, 0, 1, 1])
    test = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 1]], bool)
    # the first fold is tested on one class; the others learn both and see 0 most often
    expected = {"majority": 4, "unseen": 0, "degenerate": 1}
    assert linear.fold_counts(linear.Split(~test, test), labels) == expected


def test_features_of_one_operand_have_no_control_task_and_own_labels_are_features():
    assert len(label_examples(FEATURES["a"], EXAMPLES, controls=3).controls) == 0
    with pytest.raises(TbttError, match=r"feature 'operator' is \+ in every example here"):
        find_features(["operator"], ADDITIONS)
    own = [
        Example.of(f"{k}", "?", {"colour": "red" if k % 3 else "blue", "weight": k})
        for k in range(10)
    ]
    found = {feature.name: feature for feature in find_features(None, own)}
    assert set(found) == {"colour", "weight"}
    assert found["weight"].is_ordinal and not found["colour"].is_ordinal
    labels = label_examples(found["colour"], own, controls=4)
    assert labels.codes.tolist() == [[0.0], [1.0]]
    assert all(sorted(row) == sorted(labels.real[0]) for row in labels.controls)


def test_what_only_looks_like_our_equations_has_its_own_labels():
    modular = [
        Example.of(f"{a}+{b}=", str((a + b) % 7), {"a": a, "operator": "+", "b": b,
                                                   "value": (a + b) % 7, "odd": bool((a + b) % 2)})
        for a in range(7) for b in range(7)
    ]  # fmt: skip
    for examples in (modular, modular[:-1]):  # without a full grid, labels are permuted
        found = {feature.name: feature for feature in find_features(None, examples)}
        assert set(found) == {"a", "b", "value", "odd"}
        labels = label_examples(found["value"], examples, controls=5)
        assert [sorted(row) for row in labels.controls] == [sorted(labels.real[0])] * 5
    gates = [Example.of(f"{x}&{y}=", str(x & y), {"operator": "and", "x": x, "y": y})
             for x in (0, 1) for y in (0, 1)]  # fmt: skip
    assert len(set(pair_groups(gates))) == 3, "0&1 and 1&0 are one, whatever operands are called"


def test_digits_have_a_code_on_a_circle_and_numbers_on_a_line():
    units, answer = (
        label_examples(FEATURES[name], EXAMPLES, controls=0).codes for name in ("units", "answer")
    )
    gaps = np.linalg.norm(units - np.roll(units, 1, axis=0), axis=1)
    assert units.shape == (10, 2) and np.allclose(gaps, gaps[0])  # 9 is as near to 0 as to 8
    assert answer[:, 0].tolist() == [*range(-9, 19)]

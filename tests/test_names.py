"""The field's names take a run, a model or several, and what a person passes first."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from planted import copying_models, random_transformer
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

import tbtt_interp as tbtt
from tbtt_interp.errors import TbttError
from tbtt_interp.probes.grid import analyse_probes
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Example, Vocabulary, load_task

Z, POST = "blocks.0.attn.hook_z", "blocks.0.hook_resid_post"
LETTERS = [(f"{x}{y}:", min(x, y), {"x": x, "y": y, "in order": x < y})
           for x in "abcdef" for y in "abcdef" if x != y]  # fmt: skip
VOCABULARY = Vocabulary.of(x + y for x, y, _ in LETTERS)
NAMES = {
    "probe_grid": {"features": "carry", "sites": POST, "positions": -1, "controls": 2},
    "activation_patching": {"sites": Z, "n_pairs": 4},
    "path_patching": {"n_pairs": 4},
    "attention_knockout": {}, "logit_lens": {}, "direct_logit_attribution": {},
    "interchange": {"features": "carry", "sites": POST, "draws": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def letters():
    return random_transformer(d_vocab=len(VOCABULARY), n_layers=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:No untrained models")
def test_a_run_a_model_and_a_list_of_models_give_the_same_table(name: str, line_run: Run) -> None:
    analyse, options = getattr(tbtt, name), NAMES[name]
    of_run = analyse(line_run, **options)
    models, task = list(line_run.models), line_run.task
    of_models = analyse(models, prompts=task, **options)
    known = [
        c
        for c in of_models
        if not c.startswith("untrained") and pd.api.types.is_numeric_dtype(of_run[c])
    ]
    assert len(known) > 3 and len(of_run) == len(of_models)
    np.testing.assert_allclose(of_run[known].astype(float), of_models[known].astype(float))
    one = analyse(models[0], prompts=task.prompts(), encoder=task.vocabulary, **options)
    assert len(one) == len(of_run) and [*one] == [*of_models]


def test_texts_alone_are_answered_by_the_model_itself(line_run: Run) -> None:
    model = line_run.model()
    table = tbtt.logit_lens(model, prompts="<3+4=")
    last = table[(table["stream"] == POST) & (table["metric"] == "accuracy")]
    assert last["value"].tolist() == [1.0] * len(last), "what it says comes first where it ends"
    of_run = tbtt.logit_lens(line_run, prompts=["<3+4=", "<5+7="])
    assert set(of_run["split"]) == {"seen", "held out"}
    paths = tbtt.path_patching(model, clean="<3+4=", corrupted="<3-9=")
    assert set(paths["changed"]) == {"prompt"} and paths["fraction_restored"].notna().all()
    other = tbtt.Models.of(list(line_run.models), prompts=[("<3+4=", "7>")])
    assert len(other.models) == len(line_run.seeds) and other.prompts[0].examples[0].answer == "7>"


def test_two_texts_are_patched_with_any_tokenizer(letters) -> None:
    words = Tokenizer(WordLevel(VOCABULARY.index, unk_token=":"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")

    class Sums:  # a tokenizer that knows nothing of special tokens
        def encode(self, text: str) -> list[int]:
            return VOCABULARY.encode(text)

    pair = {"clean": "ab:", "corrupted": "ac:", "answers": ("a", "b"), "sites": [POST]}
    tables = [tbtt.activation_patching(letters, **pair, encoder=x)
              for x in (VOCABULARY, words, Sums())]  # fmt: skip
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    models = tbtt.Models.of(letters, prompts=LETTERS, encoder=words)
    pd.testing.assert_frame_equal(tbtt.activation_patching(models, **pair), tables[0])


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("model", {}, "a model by itself has no labelled prompts: give prompts=, such as"),
        ("model", {"prompts": [("<3+4=", "7>"), "<3+5="]}, "a text needs an answer beside it"),
        ("model", {"prompts": pd.DataFrame({"prompt": ["<"]})}, "no column answer"),
        ("number", {}, "a Vocabulary is no model: give a run, a model, or a list of models"),
        ("run", {"prompts": "<99+1="}, "has no known answer: give one of the task's own"),
    ],
)
def test_what_is_no_model_or_has_no_prompts_is_said(given, options, message, line_run) -> None:
    model = line_run.model()
    what = {"model": model, "run": line_run, "number": [VOCABULARY]}[given]
    with pytest.raises(TbttError, match=message):
        tbtt.logit_lens(what, **options)


def parity(example: Example) -> int:
    return (example.labels["a"] + example.labels["b"]) % 2


def test_a_feature_is_a_function_an_array_or_a_mapping_and_a_string_is_one_name(line_run: Run):
    models = tbtt.Models.of(line_run)
    values = [parity(e) for e in models.shared_prompts.examples]
    options = {"sites": POST, "positions": -1, "controls": 9}
    forms = (parity, {"parity": np.array(values)}, [parity],
             {"parity": torch.tensor(values)}, [tbtt.Feature("parity", "", parity)],
             {"parity": pd.Series(values)})  # fmt: skip
    first, *others = (tbtt.probe_grid(models, form, **options) for form in forms)
    assert first["feature"].tolist() == ["parity"] and first["p"].notna().all()
    assert first[["control_tasks", "groups"]].to_numpy().tolist() == [
        ["operands renamed", "operand pairs"]
    ]
    for other in others:
        pd.testing.assert_frame_equal(other, first)
    unnamed = tbtt.probe_grid(models, np.array(values), **options)
    assert unnamed["accuracy"].tolist() == first["accuracy"].tolist()
    both = tbtt.probe_grid(models, ["carry", parity], **options)
    assert both["feature"].tolist() == ["carry", "parity"]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"short": [1, 0]}, "feature 'short' has 2 labels and there are 200 prompts: give a label"),
        ({"bad": lambda e: e.labels["c"]}, r"feature 'bad' fails on '<0\+0=' \(KeyError: 'c'\): r"),
        ({"same": lambda e: 1}, "feature 'same' is 1 in every example here"),
        ({"none": lambda e: None}, "feature 'none' has no label in every example here"),
        ("cary", r"feature 'cary' is unknown \(did you mean 'carry'\?\)"),
    ],
)
def test_a_feature_that_cannot_be_probed_is_named(features, message, line_run) -> None:
    with pytest.raises(TbttError, match=message):
        tbtt.probe_grid(line_run, features, sites=POST, positions=-1)


def test_controls_depend_on_the_prompts_and_not_on_what_labels_are_called(line_run: Run) -> None:
    """The same equations with operands called otherwise, and a label called carry that is none."""
    renamed = {"a": "left", "b": "right", "operator": "sign of it", "carry": "ten"}
    examples = [
        Example.of(e.prompt, e.answer, {renamed[k]: v for k, v in e.labels.items() if k in renamed},
                   held_out=e.held_out)
        for e in line_run.task.examples
    ]  # fmt: skip
    options = {"sites": POST, "positions": -1, "controls": 9}
    of_label = tbtt.probe_grid(line_run, "ten", prompts=examples, **options)
    own = tbtt.probe_grid(line_run, {"ten": lambda e: e.labels.get("carry")}, **options)
    pd.testing.assert_frame_equal(of_label, own)
    assert own["operands"].item() == 1 and own["p_adjusted"].isna().all()
    other = [
        Example.of(e.prompt, e.answer, {"x": e.labels["a"], "sign": e.labels["operator"],
                                        "y": e.labels["b"], "carry": e.labels["a"] > 6})
        for e in line_run.task.examples
    ]  # fmt: skip
    mine = tbtt.probe_grid(line_run, "carry", prompts=other, **options)
    assert mine["p_adjusted"].isna().all(), "its name does not make it a primary cell"


def test_what_a_user_s_feature_lacks_is_said(letters) -> None:
    untold = [Example.of(x, y, {"in order": z["in order"]}) for x, y, z in LETTERS]
    options = {"features": "in order", "sites": POST, "positions": -1, "controls": 3,
               "encoder": VOCABULARY}  # fmt: skip
    with pytest.warns(UserWarning) as said:
        table = tbtt.probe_grid(letters, prompts=untold, **options)
    texts = [str(one.message) for one in said]
    for words in ("'in order' permute its labels", "keep nothing together", "No untrained models"):
        assert any(words in text for text in texts), words
    assert table[["control_tasks", "groups"]].to_numpy().tolist() == [["labels permuted", "none"]]
    result = analyse_probes(letters, prompts=untold, **options)
    assert [note for note in result.summary if note in texts] == texts
    with pytest.warns(UserWarning, match="permute its labels") as said:
        table = tbtt.probe_grid(letters, prompts=untold, untrained=[letters],
                                groups=lambda e: e.prompt[0], **options)  # fmt: skip
    assert len(said) == 1 and table["groups"].tolist() == ["as given"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tbtt.probe_grid(tbtt.Models.of("arithmetic-small-line").take(1), {"parity": parity},
                        sites=POST, positions=-1, controls=3)  # fmt: skip


def test_folds_of_a_user_s_feature_are_stratified_and_those_of_its_control_tasks_too() -> None:
    from tbtt_interp.probes.datasets import ProbeDataset
    from tbtt_interp.probes.features import find_features

    models, task = tbtt.Models.of("arithmetic-small-line"), load_task("arithmetic")
    features = find_features({"double": lambda e: e.labels["a"] == e.labels["b"]}, task.examples)
    (of,) = ProbeDataset.of_prompts(models.prompts[:1], features, controls=9).tasks
    for labels, folds in zip(of.labels.of_model(0), [of.folds, *of.control_folds], strict=True):
        counts = [int(labels[test].sum()) for test in folds.test]
        assert max(counts) - min(counts) <= 2, "20 of 200, in pairs of equations"
    pairs = [frozenset((e.labels["a"], e.labels["b"])) for e in task.examples]
    for test in of.folds.test:
        inside = {pair for pair, tested in zip(pairs, test, strict=True) if tested}
        outside = {pair for pair, tested in zip(pairs, test, strict=True) if not tested}
        assert not inside & outside


def test_an_accuracy_below_chance_is_explained() -> None:
    """The parity of a + b at "=" before the MLP: next to an even sum is an odd one."""
    result = analyse_probes(copying_models(), {"large": lambda e: e.labels["b"] > 4}, controls=3,
                            sites="hook_embed", positions=-2)  # fmt: skip
    assert not any(note.startswith("Below chance") for note in result.summary)
    result = analyse_probes("arithmetic-small-line", {"odd": parity}, controls=3,
                            sites="blocks.0.hook_resid_mid", positions=-1)  # fmt: skip
    row = result.tables["probes"].iloc[0]
    assert row["accuracy"] < row["chance"] == pytest.approx(0.5)
    assert any(note.startswith("Below chance: 1 of 1 rows, odd at") for note in result.summary)

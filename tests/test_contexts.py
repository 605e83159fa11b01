"""Features of the next line are labelled in each model's own file, and only order tells them."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_probes import table_of

from tbtt_interp.errors import TbttError
from tbtt_interp.probes.datasets import (
    ProbeDataset,
    features_of,
    label_next_lines,
    preceding_lines,
    shortened_prompts,
)
from tbtt_interp.probes.features import FEATURES, find_features
from tbtt_interp.probes.grid import probe_grid
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Example, load_task

TASK = load_task("arithmetic")
BEFORE = preceding_lines(TASK, window=9)
NEXT, LINE = FEATURES["next"], FEATURES["line"]


def files(*orders: int) -> list[list[Example]]:
    known = {example.line: example for example in TASK.examples}
    return [[known[line] for line in TASK.file(order)] for order in orders]


def test_the_next_line_is_the_one_that_follows_in_the_seed_s_own_file() -> None:
    labels = label_next_lines(LINE, BEFORE, files(0, 1), controls=5)
    texts = [text for text, has in zip(BEFORE.texts, labels.has, strict=True) if has]
    assert not len(labels.controls)  # another order only renames the lines
    for order, row in zip((0, 1), labels.real, strict=True):
        whole = "".join(TASK.file(order))
        for text, number in zip(texts, row, strict=True):
            assert text.removesuffix("<") + str(labels.classes[number]) in whole


def test_next_is_the_operand_of_that_line_and_its_controls_are_other_orders() -> None:
    file = files(3)[0]
    labels = label_next_lines(NEXT, BEFORE, [file], controls=20)
    after = {one.line: other.labels["a"] for one, other in pairwise(file)}
    kept = [e for e, has in zip(BEFORE.examples, labels.has, strict=True) if has]
    assert [labels.classes[k] for k in labels.real[0]] == [after[e.line] for e in kept]
    lines = BEFORE.line[labels.has]
    for row in labels.controls:
        assert np.array_equal(np.bincount(row), np.bincount(labels.real[0]))
        assert len(np.unique([lines, row], axis=1).T) == len(np.unique(lines)), "one answer a line"
        assert (row != labels.real[0]).any()


def test_folds_split_by_how_much_is_shown_and_held_out_lines_by_line() -> None:
    labels = label_next_lines(NEXT, BEFORE, files(0, 1), controls=2)
    task = ProbeDataset.of_contexts(BEFORE, [labels], n_models=2).tasks[0]
    lengths, lines = BEFORE.length[labels.has], BEFORE.line[labels.has]
    for train, test in task.folds:
        assert not np.intersect1d(lengths[train], lengths[test]).size
        assert np.array_equal(np.unique(lines[train]), np.unique(lines[test]))
    split, other = task.held_out
    assert split is not None and other == split
    for train, test in split:
        assert not np.intersect1d(lines[train], lines[test]).size


@pytest.mark.filterwarnings("ignore:Only one sample available")
@pytest.mark.parametrize("knows", [True, False])
def test_order_is_read_from_those_who_have_it(knows: bool) -> None:
    """Two models, each with its own file's next operand along one direction, or with none's."""
    labels = label_next_lines(NEXT, BEFORE, files(0, 1), controls=39)
    chance = np.random.default_rng(5)
    values = 0.3 * chance.standard_normal((2, len(BEFORE.texts), 8))
    code = np.zeros((2, len(BEFORE.texts)))
    code[:, labels.has] = labels.real
    if knows:
        values += code[:, :, None] * chance.standard_normal((2, 1, 8))
    dataset = ProbeDataset.of_contexts(BEFORE, [labels], n_models=2)
    row = table_of(dataset, torch.from_numpy(values)).iloc[0]
    if knows:
        assert row["accuracy"] > 0.95 and row["p_adjusted"] == 1 / 40
        assert row["held_out_correct"] > 0.95 * row["held_out_of"]
    else:
        assert row["accuracy"] < 0.2 and row["p"] > 0.05
        assert row["held_out_correct"] < 0.2 * row["held_out_of"]
    assert row["untrained"] < 0.2


def test_countries_are_shown_whole_however_much_is_cut() -> None:
    contexts = shortened_prompts(load_task("facts"), window=24)
    for text, example in zip(contexts.texts, contexts.examples, strict=True):
        assert text.endswith(f"{example.labels['country']} is ") and len(text) <= 24
        assert example.prompt.endswith(text)
    assert len(set(contexts.texts)) == len(contexts.texts)
    assert np.unique(contexts.length).size >= 4


def test_a_task_has_the_features_that_its_lines_have() -> None:
    everywhere = ("prompt", "shortened", "preceding line")
    names = {task: {f.name for f in find_features(None, load_task(task).examples, everywhere)}
             for task in ("arithmetic", "facts", "joint")}  # fmt: skip
    assert names["facts"] == {"initial", "length", "country", "line"}
    assert {"line", "next", "carry", "units"} <= names["arithmetic"]
    assert names["joint"] == names["arithmetic"] | names["facts"] | {"task"}


def test_order_is_asked_only_where_windows_were_cut_from_a_known_file(line_run, file_run):
    imported = Run(file_run.folder, dataclasses.replace(file_run.config, recipe=None))
    for run in (line_run, imported):
        features = features_of(PromptSet.of_seed(run, run.seeds[0]))
        assert {feature.texts for feature in features} == {"prompt"}
    with pytest.raises(TbttError, match="feature 'next' is unknown"):
        probe_grid(line_run, ["next"])
    table = probe_grid(file_run, ["next", "line"], controls=3, positions=[-1], sites=["hook_embed"])
    assert set(table["feature"]) == {"next", "line"}
    row = table[table["feature"] == "next"].iloc[0]
    assert row["held_out_of"] == row["of"]  # every line is once not fitted on


def test_where_lines_open_alike_for_a_whole_window_order_is_not_asked() -> None:
    examples = tuple(Example.of("abcdefgh" * 2, letter, {}) for letter in "xyz")
    task = dataclasses.replace(TASK, sections=(examples,))
    assert not preceding_lines(task, window=9).texts
    assert not shortened_prompts(task, window=9).texts

"""The explorer without a browser: addresses, and that its numbers are the library's own."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tbtt_interp.analyses.pairs import one_pair
from tbtt_interp.analyses.patching import patch_pairs
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import complete, evaluate_run
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.patching import CLOSE, patched_of
from tbtt_interp.explore.probing import Jobs, reading_part
from tbtt_interp.explore.scene import count_right, scene_of
from tbtt_interp.explore.state import (
    Pane,
    Patch,
    Reading,
    State,
    read_patch,
)
from tbtt_interp.explore.views import Views
from tbtt_interp.interventions import Location
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.runs import Run


def test_what_is_said_is_what_the_library_completes(catalogue: Catalogue, line_run: Run) -> None:
    for seed in line_run.seeds:
        scene = scene_of(catalogue, Pane(run="line", seed=seed), "3+4")
        task = line_run.tasks[0]
        said = complete(
            line_run.parameters(), line_run.shape, "<3+4=", task.vocabulary, task.terminators
        )[line_run.seed_index(seed)]
        assert scene.answer(scene.said) == said.text
        assert scene.said.probabilities == pytest.approx(said.probabilities, abs=1e-5)
        table = evaluate_run(line_run).table.query("seed == @seed and prompt == '<3+4='")
        assert scene.margin == pytest.approx(table["margin"].item(), abs=1e-4)


def test_a_prompt_longer_than_the_window_slides_in_it(catalogue: Catalogue, facts_run: Run) -> None:
    scene = scene_of(catalogue, Pane(run="facts"), "Capital of France is ")
    task = facts_run.tasks[0]
    said = complete(
        facts_run.parameters(), facts_run.shape, scene.text, task.vocabulary, task.terminators
    )[0]
    assert scene.answer(scene.said) == said.text
    margins = evaluate_run(facts_run).table.query("seed == 0 and prompt == @scene.text")["margin"]
    assert scene.margin == pytest.approx(margins.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["line", "deep"])
def test_cut_edges_cost_what_the_library_says(catalogue: Catalogue, name: str) -> None:
    run = catalogue.run(name)
    layer = run.shape.layers - 1
    head = run.shape.heads - 1
    pane = Pane(run=name).act("cut", f"{layer}.{head}.4.1")
    scene = scene_of(catalogue, pane, "3+4")
    model = run.model()
    example = next(e for e in run.tasks[0].examples if e.prompt == "<3+4=")
    batch = PromptBatch.of([example], run.tasks[0].vocabulary, run.shape.n_ctx)

    def without(pattern: torch.Tensor, hook: object) -> torch.Tensor:
        scores = pattern.clone()
        scores[:, head, 4, 1] = 0
        scores[:, head, 4] /= scores[:, head, 4].sum(-1, keepdim=True)
        return scores

    site = f"blocks.{layer}.attn.hook_pattern"
    with torch.no_grad():
        logits = model.run_with_hooks(batch.tokens, fwd_hooks=[(site, without)])
    margin = float(batch.margins(batch.at_answers(logits)[None])[0, 0])
    assert scene.margin == pytest.approx(margin, abs=1e-4)
    assert scene.margin_before != pytest.approx(scene.margin, abs=1e-6)


def test_counts_over_all_prompts_are_the_evaluations(catalogue: Catalogue, line_run: Run) -> None:
    scene = scene_of(catalogue, Pane(run="line", seed=1), "3+4")
    found = count_right(scene.opened, scene.run, 1, ())
    table = evaluate_run(line_run).table.query("seed == 1")
    for side, is_held_out in (("seen", False), ("held out", True)):
        some = table[table["held_out"] == is_held_out]["right"]
        assert (found[side].hits, found[side].total) == (some.sum(), len(some))
    with pytest.raises(TbttError, match="longer than the window"):
        facts = scene_of(catalogue, Pane(run="facts").act("cut", "0.0.4.1"), "France")
        count_right(facts.opened, facts.run, 0, facts.cuts)


@pytest.mark.parametrize(("name", "corrupt"), [("line", "3+5"), ("line", "9+4"), ("deep", "3-4")])
def test_the_patching_map_is_the_librarys(catalogue: Catalogue, name: str, corrupt: str) -> None:
    """Of the first character in which the answers differ, every site, head and position."""
    pane = Pane(run=name)
    state = State(view="patching", prompt="3+4", corrupt=corrupt, panes=(pane, pane))
    table = Views(catalogue).parts(state, "a")[0].table
    run = catalogue.run(name)
    prompts = PromptSet.of_seed(run, run.seeds[0])
    pairs = one_pair(prompts, "3+4", corrupt)
    clean, corrupted = (prompts.examples[prompts.find(p)].answer for p in ("3+4", corrupt))
    first = [a == b for a, b in zip(clean, corrupted, strict=False)].index(False)
    patches = [read_patch(act.removeprefix("patch ")) for act in table["act"]]
    locations = [Location(p.site, p.head, p.pos - 5) for p in patches]
    total, effect = patch_pairs(run.model(), pairs, locations)
    of_patch = effect[0, :, 0, first]
    np.testing.assert_allclose(table["effect"], of_patch, rtol=1e-5, atol=1e-4)
    if abs(total[0, first]) < CLOSE:  # a fraction of next to nothing is not shown
        assert table["value"].isna().all()
    else:
        np.testing.assert_allclose(table["value"], of_patch / total[0, first], atol=1e-4)


def test_patching_everything_gives_the_clean_answer(catalogue: Catalogue) -> None:
    pane = Pane(run="line")
    for pos in range(5):
        pane = pane.act("patch", f"blocks.0.hook_resid_pre@{pos}")
    found = patched_of(catalogue, pane, "3+4", "8-2")
    assert found.recovered == pytest.approx(1.0, abs=1e-4)
    assert found.said.answer == found.clean.said.answer
    nothing = patched_of(catalogue, Pane(run="line"), "3+4", "8-2")
    assert nothing.recovered == 0
    assert nothing.said.answer == nothing.corrupt.said.answer


@pytest.mark.parametrize(
    ("prompt", "corrupt", "said"),
    [
        ("3+4", "<3+4=7", "of equal length"),
        ("3+4", "4+3", "have the same answer"),
        ("3+4", "", "the prompt is empty"),
    ],
)
def test_pairs_that_cannot_be_patched_say_why(
    catalogue: Catalogue, prompt: str, corrupt: str, said: str
) -> None:
    state = State(view="patching", prompt=prompt, corrupt=corrupt, panes=(Pane(run="line"),) * 2)
    with pytest.raises(TbttError, match=said):
        Views(catalogue).parts(state, "a")


@pytest.mark.parametrize("name", ["line", "deep", "facts"])
def test_attribution_sums_to_the_logit_difference(catalogue: Catalogue, name: str) -> None:
    prompt = "Capital of France is " if name == "facts" else "<3+4="
    for character in (0, 1):
        pane = Pane(run=name, character=character)
        state = State(view="answer", prompt=prompt, panes=(pane, pane))
        part = Views(catalogue).part(state, "a", "attribution")
        scene = scene_of(catalogue, pane, prompt)
        logits = scene.said.logits[min(character, len(scene.said.answer) - 1)]
        first, second = logits.topk(2).values.tolist()
        assert part.table["value"].sum() == pytest.approx(first - second, abs=1e-3)


def test_the_last_stream_says_what_the_model_says(catalogue: Catalogue) -> None:
    state = State(view="answer", prompt="<3+4=", panes=(Pane(run="deep"),) * 2)
    parts = {part.name: part.table for part in Views(catalogue).parts(state, "a")}
    last = parts["lens"].query("row == row.max()").set_index("column")["text"]
    best = parts["next"].query("row == 1").set_index("column")["text"]
    assert last.to_dict() == best.to_dict()


@pytest.mark.parametrize(
    ("name", "prompt"), [("deep", "3+4"), ("facts", "Capital of France is "), ("facts", "aaaa" * 9)]
)
def test_what_is_shown_was_read_where_the_answer_was_said(
    catalogue: Catalogue, name: str, prompt: str
) -> None:
    """Also of answers that do not end, and of prompts as long as the window, or longer."""
    views = Views(catalogue)
    state = State(view="answer", prompt=prompt, panes=(Pane(run=name),) * 2)
    scene = scene_of(catalogue, state.panes[0], prompt)
    table = views.part(state, "a", "next").table.query("row == 1").set_index("column")
    n_ctx = scene.run.shape.n_ctx
    inside = [k for k in range(len(scene.said.answer)) if scene.said.asked + k <= n_ctx] or [0]
    for k in inside:
        at = table.loc[scene.said.asked + k - 1]
        assert at["text"] == scene.names[scene.said.asked + k] == at["next"]
        assert at["value"] == pytest.approx(scene.said.probabilities[k], abs=1e-5)
    assert table.index.max() == scene.said.asked + inside[-1] - 1
    assert len(scene.later) == len(scene.said.answer) - len(inside)
    read = views.part(dataclasses.replace(state, view="attention"), "a", "attention").table
    assert read["row"].max() == table.index.max() and read["row"].min() == scene.lost


def test_means_over_prompts_are_means_of_prompts(catalogue: Catalogue) -> None:
    """By position over all equations, and by role; the last by hand from each prompt's pattern."""
    views, pane = Views(catalogue), Pane(run="deep", layer=1, head=1)
    run = catalogue.run("deep")
    model, task = run.model(), run.tasks[0]
    site = "blocks.1.attn.hook_pattern"
    by_hand = []
    for example in task.examples:
        tokens = torch.tensor([task.vocabulary.encode(example.prompt + example.answer[:-1])])
        with torch.no_grad():
            by_hand.append(model.run_with_cache(tokens)[1][site][0, 1])
    state = State(prompt="<3+4=", panes=(pane, pane))
    for shown in ("equations", "roles"):
        mine = dataclasses.replace(state, shown=shown)
        table = views.parts(mine, "a")[0].table
        for query, key, q, k in (("=", "a", 4, 1), ("b", "operator", 3, 2)):
            row = table[(table["row_name"] == query) & (table["column_name"] == key)]
            mean = float(torch.stack([pattern[q, k] for pattern in by_hand]).mean())
            assert row["value"].item() == pytest.approx(mean, abs=1e-5)


def test_a_probe_reads_the_prompt_without_having_learned_it(catalogue: Catalogue) -> None:
    pane = Pane(run="line").act("probe", "operator@blocks.0.hook_resid_post@-1")
    scene = scene_of(catalogue, pane, "3+4")
    assert pane.probe is not None
    table = reading_part(scene, pane.probe).table
    assert table.groupby("column")["value"].sum().to_numpy() == pytest.approx(np.ones(5))
    at_operator = table[(table["column"] == -3) & (table["row_name"] == "+")]
    assert at_operator["value"].item() > 0.99
    before = table[(table["column"] == -4) & (table["row_name"] == "+")]  # no token of it yet
    assert 0.3 < before["value"].item() < 0.7


def test_what_another_model_has_no_place_for_is_said(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an address by hand, or kept from a deeper model."""
    views = Views(catalogue)
    pane = Pane(run="line", patches=(
        Patch("blocks.1.attn.hook_z", 2, 4), Patch("blocks.0.attn.hook_z", None, 4),
        Patch("blocks.0.hook_resid_pre", 3, 4), Patch("blocks.0.attn.hook_result", None, 4),
        Patch("blocks.0.hook_resid_pre", None, 4),
    ))  # fmt: skip
    state = State(view="patching", prompt="3+4", corrupt="8-2", panes=(pane, pane))
    found = patched_of(catalogue, pane, "3+4", "8-2")
    assert found.there == pane.patches[-1:]
    assert str(views.body(state, "a", "")).count("not in this model") == 4
    monkeypatch.setattr(Jobs, "_run", lambda self, key, job, make: None)
    reading = Reading("carry", "blocks.0.attn.hook_z.1", -1)
    for wrong, said in (
        ({"probe": reading}, "there is no head 1"), ({"place": -9}, "is not in every prompt")
    ):  # fmt: skip
        state = State(view="probes", prompt="3+4", panes=(Pane(run="line", **wrong),) * 2)
        page = str(views.body(state, "a", ""))
        assert said in page and "Probe at" in page
    state = State(prompt="3+4", panes=(Pane(run="line", layer=1, head=2),) * 2)
    page = str(views.body(state, "a", ""))
    assert "there is no head 1.2" in page and "layer 0, head 0" in page


def test_a_way_of_nothing_is_not_divided_by(catalogue: Catalogue) -> None:
    """Every edge into = is cut, so that both prompts are read alike."""
    pane = Pane(run="line")
    for key in range(4):
        pane = pane.act("cut", f"0.0.4.{key}")
    found = patched_of(catalogue, pane, "3+4", "8-2")
    assert math.isnan(found.recovered)
    state = State(view="patching", prompt="3+4", corrupt="8-2", panes=(pane, pane))
    assert Views(catalogue).parts(state, "a")[0].table["value"].isna().all()

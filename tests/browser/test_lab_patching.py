"""Patches, paths and ablations in the page, as a person makes them, and the library's numbers."""

import re

import pytest
import torch
from browser.pointing import Page, expect, pane, values

from tbtt_interp.analyses import graph
from tbtt_interp.analyses.pairs import one_pair
from tbtt_interp.interventions import (
    Hook,
    Location,
    answer_logits,
    edit,
    knock_out_attention,
    split_inputs,
)
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run

VIEW = "view=patching&prompt=3%2B4&corrupt=8-2&a.run=line&b.run=line"


def cell(page: Page, row: int, column: int, map_: str) -> Page:
    return pane(page).locator(f"rect[data-key='0/{map_}/{row}/{column}']")


def test_paths_are_put_in_together_and_undone_one_by_one(opened, line_run: Run) -> None:
    page = opened("served", VIEW)
    pairs = one_pair(PromptSet.of_seed(line_run, line_run.seeds[0]), "3+4", "8-2")
    model = line_run.model()
    base, source = pairs.batch(pairs.corrupted), pairs.batch(pairs.clean)
    with split_inputs(model), torch.no_grad():
        run = graph.PathPatching(model, base, source, pairs.corrupted_tokens)
        none, total = run.differences(), run.total_effects()

        def restored(hooks: list[Hook]) -> float:
            return float(((run.differences(hooks) - none) / total)[0])

        v, k = (run.path_hooks((f"{role} 0.0", "MLP 0")) for role in "vk")
        head = run.edge_hooks([graph.Edge("head 0.0", "logits", None)])
        together = [restored(hooks) for hooks in ([*v, *k], [*v, *k, *head], [*k, *head])]
    share = pane(page).locator(".patched b").nth(1)
    expected = [f"{value:.2f}".replace("-", "−").replace("−0.00", "0.00") for value in together]
    for row, column in ((0, 7), (0, 6)):
        cell(page, row, column, "paths").click()
    expect(share).to_have_text(expected[0])
    cell(page, 1, 0, "paths").focus()
    page.keyboard.press("Enter")
    expect(share).to_have_text(expected[1])
    expect(page).to_have_url(re.compile("head0.0"))
    page.reload()
    expect(share).to_have_text(expected[1])
    pane(page).get_by_role("button", name="✕ embedding → v 0.0 → MLP 0 → logits").click()
    expect(share).to_have_text(expected[2])
    page.get_by_label("Corrupted prompt").fill("8-3")
    expect(page.locator("#dropped")).to_have_text(
        "2 patches made for 8-2 were dropped with that prompt."
    )


def _zeroed(site: str, head: int | None = None, unit: int | None = None) -> Hook:
    def change(values: torch.Tensor) -> torch.Tensor:
        new = values.clone()
        new[..., slice(None) if unit is None else unit] = 0
        return new

    return edit(Location(f"blocks.0.{site}", head), change)


@pytest.mark.parametrize(("name", "hook"), [
    ("head 0.0", lambda _: _zeroed("attn.hook_z", 0)),
    ("MLP 0", lambda _: _zeroed("hook_mlp_out")),
    ("neuron 3, click to set it to 0", lambda _: _zeroed("mlp.hook_post", unit=3)),
    ("edge", lambda tokens: knock_out_attention(0, 0, _edge(tokens, 4, 1))),
])  # fmt: skip
def test_grids_and_counts_follow_what_is_ablated(opened, line_run, name, hook) -> None:
    page = opened("served", VIEW)
    prompts = PromptSet.of_seed(line_run, line_run.seeds[0])
    model, batch = line_run.model(), prompts.batch()
    with torch.no_grad():
        before, after = (
            batch.margins(answer_logits(model, batch, hooks)[None])[0]
            for hooks in ([], [hook(batch.tokens)])
        )
    assert float((after - before).abs().max()) > 0.1
    cells = pane(page).locator("svg[data-map^='0/grid'] rect[data-value]")
    assert values(cells) == pytest.approx(before.tolist(), abs=0.01)
    if name == "edge":
        cell(page, 4, 1, "attention").click()
    else:
        pane(page).get_by_role("button", name=name, exact=True).click()
    expect(pane(page).locator(".chips").first).to_contain_text("Changed:")
    assert values(cells) == pytest.approx(after.tolist(), abs=0.01)
    if name == "edge":  # a second one, and the first put back: only its query is computed anew
        cell(page, 5, 3, "attention").click()
        cell(page, 4, 1, "attention").click()
        with torch.no_grad():
            other = knock_out_attention(0, 0, _edge(batch.tokens, 5, 3))
            after = batch.margins(answer_logits(model, batch, [other])[None])[0]
        assert values(cells) == pytest.approx(after.tolist(), abs=0.01)
    seen = [k for k, example in enumerate(prompts.examples) if not example.held_out]
    right = int((after[seen] > 0).sum())
    expect(pane(page).locator(".counts")).to_contain_text(f"seen in training {right}/196")
    pane(page).get_by_role("button", name="undo all").click()
    assert values(cells) == pytest.approx(before.tolist(), abs=0.01)


def _edge(tokens: torch.Tensor, query: int, key: int) -> torch.Tensor:
    found = torch.zeros(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    found[:, query, key] = True
    return found

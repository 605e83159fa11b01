"""The page that computes models in the browser, served, as a folder and as one file."""

import re

import pytest
import torch
from browser.pointing import Page, cell, expect, pane, value, values

from tbtt_interp.analyses.pairs import one_pair
from tbtt_interp.analyses.patching import patch_pairs
from tbtt_interp.evaluate import complete, evaluate_run
from tbtt_interp.interventions import Location
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run


def margins(page: Page, operator: str, name: str = "A") -> list[float]:
    return values(pane(page, name).locator(f"svg[data-map$='grid{operator}'] rect[data-value]"))


@pytest.mark.parametrize("form", ["served", "file", "folder"])
def test_the_grids_are_the_library_s_margins(opened, form: str, line_run: Run) -> None:
    page = opened(form, "prompt=5%2B7&a.run=line&a.seed=1&b.run=line")
    table = evaluate_run(line_run).table.query("seed == 1")
    expected = table["margin"].tolist()
    assert margins(page, "+") + margins(page, "-") == pytest.approx(expected, abs=0.01)
    seen = table.query("not held_out")["right"].sum()
    expect(pane(page).locator(".counts")).to_contain_text(f"seen in training {seen}/196")
    assert pane(page).locator("svg[data-map='0/grid+'] .ring").count() == 2
    page.locator("svg[data-map='0/grid+'] rect[data-key='0/grid+/3/4']").click()
    expect(page).to_have_url(re.compile(r"prompt=3%2B4"))
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("3+4")


@pytest.mark.parametrize("name", ["file", "facts"])
def test_wrong_answers_are_what_the_library_completes(opened, name: str, request) -> None:
    """As far as six characters and the context; of facts, the context slides over the prompt."""
    run: Run = request.getfixturevalue(f"{name}_run")
    page = opened("served", f"prompt=3%2B4&a.run={name}&b.run=line")
    tips = (
        pane(page)
        .locator("svg.cells rect[data-value]")
        .evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    )
    examples = run.task.examples
    assert len(tips) == len(examples)
    said = {e.prompt: found[1] for e, tip in zip(examples, tips, strict=True)
            if (found := re.search("wrong, says (.*?)(?:, off by .*)?, margin", tip))}  # fmt: skip
    assert len(said) > 20
    for prompt in list(said)[::8]:
        expected = complete(
            run.parameters(), run.shape, prompt, run.task.vocabulary, run.task.terminators
        )[0].text.replace("\n", "⏎").replace(" ", "␣")  # fmt: skip
        assert expected.startswith(said[prompt]) and said[prompt], prompt
        assert len(said[prompt]) >= min(len(expected), 5), prompt


def test_patches_restore_what_the_library_says(opened, line_run: Run) -> None:
    page = opened("served", "view=patching&prompt=3%2B4&corrupt=8-2&a.run=line&b.run=line")
    pairs = one_pair(PromptSet.of_seed(line_run, line_run.seeds[0]), "3+4", "8-2")
    places = {"0/1": Location("blocks.0.hook_resid_pre", pos=-4),
              "3/3": Location("blocks.0.attn.hook_v", 0, -2)}  # fmt: skip
    total, effect = patch_pairs(line_run.model(), pairs, list(places.values()))
    shown = [value(page, f"0/patching/{place}") for place in places]
    assert shown == pytest.approx((effect[0, :, 0, 0] / total[0, 0]).tolist(), abs=1e-3)
    expect(pane(page).locator(".patched b").first).to_have_text("6>")
    for column in (1, 2, 3):
        cell(page, f"0/patching/0/{column}").click()
    expect(pane(page).locator(".patched b")).to_have_text(["7>", "1.00"])
    pane(page).get_by_role("button", name="take all out").click()
    expect(pane(page).locator(".patched b").first).to_have_text("6>")


def test_neurons_heads_and_examples(opened, line_run: Run) -> None:
    page = opened("served", "view=inside&prompt=3%2B4&a.run=line&b.run=line&b.seed=1")
    sums = page.locator("#shared rect[data-tip^='sum, model A']")
    parts = page.locator("#shared rect[data-tip*=', model A']")
    *terms, logit = values(parts)
    assert float(sums.get_attribute("data-value")) == pytest.approx(sum(terms), abs=1e-6)
    with torch.no_grad():
        tokens = line_run.task.vocabulary.encode("<3+4=")
        logits = line_run.model(seed=0)(torch.tensor([tokens]))[0, -1]
    title = page.locator("#shared h3").inner_text()
    right, wrong = line_run.task.vocabulary.encode(
        "".join(re.search("What writes (.) and not (.),", title).groups())
    )
    assert logit == pytest.approx(float(logits[right] - logits[wrong]), abs=1e-3)
    page.get_by_role("button", name="Examples").click()
    page.get_by_role("button", name="held-out").click()
    expect(pane(page).locator("tbody tr")).to_have_count(4)


@pytest.mark.parametrize("form", ["served", "file"])
def test_a_model_is_trained_in_the_page(opened, form: str) -> None:
    page = opened(form, "view=train&prompt=3%2B4&a.run=line&b.run=line")
    page.get_by_role("button", name="Train from scratch").click()
    words = page.locator("#train-words")
    expect(words).to_contain_text("steps per second", timeout=60_000)
    expect(pane(page)).to_contain_text("trained here, width 14, seed 0")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Go on")).to_be_enabled()
    assert float(re.search(r"loss ([\d.]+)", words.inner_text())[1]) < 3.2


def test_the_file_s_order_is_foretold_or_not(opened, file_run: Run) -> None:
    page = opened("served", "view=order&prompt=3%2B4&a.run=file&b.run=line")
    lines = file_run.task.file(file_run.config.order_seeds[0])
    line = next(line for line in lines if line.startswith("<3+4="))
    row = pane(page).locator("tr.now td")
    expect(row.nth(0)).to_have_text(str(lines.index(line) + 1))
    after = lines[lines.index(line) + 1].replace(" ", "␣").replace("\n", "⏎")
    expect(row.nth(2)).to_have_text(after)
    expect(pane(page).get_by_role("status")).to_contain_text("of 195)", timeout=60_000)
    expect(pane(page, "B")).to_contain_text("it had no order to learn")


def test_bad_prompts_and_addresses_are_sentences(opened) -> None:
    page = opened("served", "view=maps&prompt=15%2B27&a.run=line&a.cuts=x&b.run=nowhere")
    expect(page.get_by_role("alert").first).to_contain_text("view “maps” is unknown: choose story")
    expect(pane(page, "B")).to_contain_text("The run nowhere is not open here")
    expect(pane(page)).to_contain_text("15+27 is 42")
    box = page.get_by_label("Prompt", exact=True)
    box.fill("5 + 7 =")
    expect(pane(page)).to_contain_text("the answer is 12")
    box.fill("3+x")
    expect(pane(page)).to_contain_text("no token for “x”")


def test_the_slider_moves_both_models_by_keyboard(opened, line_run: Run) -> None:
    page = opened("served", "prompt=3%2B4&a.run=line&b.run=line&b.seed=1")
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(page).to_have_url(re.compile("step=0"))
    first = evaluate_run(line_run, 0).table
    for name, seed in (("A", 0), ("B", 1)):
        expected = first[first["seed"] == seed]["margin"].tolist()
        found = margins(page, "+", name) + margins(page, "-", name)
        assert found == pytest.approx(expected, abs=0.01)


def test_a_page_that_would_be_too_large_says_what_to_leave_out(line_run, monkeypatch, refused):
    monkeypatch.setattr("tbtt_interp.explore.export.LIMIT", 1_000)
    error = refused("explore", line_run.folder, "--out", "page.html")
    assert "at most 0 MB are allowed: give fewer runs, --seed N for some seeds" in error

"""The explorer as a person uses it: what is done, and what the page then shows."""

import re

import pytest
from browser.pointing import Page, cell, drawn, expect, figure, margin, pane, plot

from tbtt_interp.analyses.pairs import one_pair
from tbtt_interp.analyses.patching import patch_pairs
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.scene import scene_of
from tbtt_interp.explore.state import Pane
from tbtt_interp.interventions import Location
from tbtt_interp.probes.grid import NULLS, probe_grid
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run


def test_two_models_stand_side_by_side(page: Page, address: str, catalogue: Catalogue) -> None:
    page.goto(address)
    for name in "AB":
        expect(figure(page, "Head 0.0 on this prompt", name)).to_be_visible()
        expect(pane(page, name).locator(".verdict").first).to_contain_text("held out from this")
    page.get_by_label("Prompt", exact=True).fill("3+4")
    expect(pane(page, "A").locator(".verdict").first).to_contain_text("seen in training")
    pane(page, "B").locator("button.run").click()
    page.get_by_role("option", name="line", exact=True).click()
    expect(page).to_have_url(re.compile("b.run=line"))
    pane(page, "B").locator("button.seed").click()
    page.get_by_role("option", name="1", exact=True).click()
    scene = scene_of(catalogue, Pane(run="line", seed=1), "3+4")
    expect(pane(page, "B").locator(".margin")).to_have_text(f"margin {scene.margin:+.2f}")
    pane(page, "B").get_by_role("slider").focus()
    page.keyboard.press("Home")
    first = min(catalogue.run("line").checkpoints)
    expect(pane(page, "B").locator(".steps span").first).to_contain_text(f"step {first:,}, 1 of")
    scene = scene_of(catalogue, Pane(run="line", seed=1, step=first), "3+4")
    expect(pane(page, "B").locator(".margin")).to_have_text(f"margin {scene.margin:+.2f}")


def test_a_prompt_is_checked_as_it_is_typed(page: Page, address: str) -> None:
    page.goto(f"{address}?a.run=line&b.run=facts")
    box = page.get_by_label("Prompt", exact=True)
    expect(figure(page, "Head 0.0 on this prompt")).to_be_visible()
    box.fill("3+x")
    expect(pane(page, "A").locator("mark")).to_have_text(["x"])
    expect(pane(page, "A").get_by_role("alert")).to_contain_text("no token for 'x'")
    box.fill("1+" * 200 + "x")
    expect(pane(page, "A").locator("mark")).to_have_text(["x"])
    box.fill("")
    expect(pane(page, "A").get_by_role("alert")).to_contain_text("the prompt is empty")
    box.fill("3+4=7> 9-2=")
    expect(pane(page, "A").locator("del")).to_have_text("3+")
    expect(pane(page, "A").get_by_text("falls off its left end")).to_be_visible()
    box.fill("1" * 10_000)
    expect(pane(page, "A").locator("del")).to_contain_text("characters")
    expect(
        pane(page, "A").get_by_text("Of a prompt the last 500 characters are kept")
    ).to_be_visible()
    box.fill("France")
    expect(pane(page, "B").locator(".verdict").first).to_contain_text("seen in training")


def test_a_token_is_pinned_and_its_edge_cut(page: Page, address: str, catalogue: Catalogue) -> None:
    page.goto(f"{address}?a.run=line&prompt=3%2B4")
    mine = pane(page)
    expect(figure(page, "Head 0.0 on this prompt")).to_be_visible()
    before = margin(page)
    mine.get_by_role("button", name="pin =, token 5").click()
    pinned = mine.locator(".pinned")
    expect(pinned).to_have_count(1)
    shown = [float(text) for text in pinned.locator("small").all_inner_texts()]
    values = drawn(figure(page, "Head 0.0 on this prompt"))["z"][4]
    assert shown == pytest.approx(values[:5], abs=0.006)
    cell(figure(page, "Head 0.0 on this prompt"), 1, 4)
    expect(mine.locator(".chips")).to_contain_text("0.0: = (5) → 3 (2)")
    scene = scene_of(catalogue, Pane(run="line").act("cut", "0.0.4.1"), "3+4")
    expect(mine.locator(".margin")).to_have_text(f"margin {scene.margin:+.2f}")
    answer = scene.answer(scene.said)
    assert mine.locator(".completion .token").all_inner_texts()[0].startswith(answer[0])
    expect(mine.locator(".before")).to_contain_text(f"margin {before:+.2f}")
    expect(mine.locator(".counts")).to_contain_text("(before: ")
    text = drawn(figure(page, "Head 0.0 on this prompt"))["text"]
    assert text[4][1] == "✕"
    pinned.get_by_role("button", name="undo the cut from = to 3").press("Enter")  # by keyboard
    expect(mine.locator(".chips")).to_have_count(0)
    assert margin(page) == before
    mine.get_by_role("button", name="unpin =, token 5").click()
    expect(pinned).to_have_count(0)


def test_attention_is_averaged_and_circuits_are_shown(page: Page, address: str) -> None:
    page.goto(f"{address}?a.run=deep&prompt=3%2B4")
    mine = pane(page)
    expect(mine.get_by_role("button", name=re.compile(r"^layer \d, head \d$"))).to_have_count(6)
    mine.get_by_role("button", name="layer 1, head 2").click()
    expect(figure(page, "Head 1.2 on this prompt")).to_be_visible()
    cell(figure(page, re.compile("^All heads from")), 0, 3)
    expect(figure(page, "Head 1.0 on this prompt")).to_be_visible()
    for choice, title in (
        ("mean over prompts like it", "mean over 200 prompts like this one"),
        ("mean by role", "by role, mean over all 200 examples"),
        ("QK circuit", "QK circuit of head 1.0"),
        ("OV circuit", "OV circuit of head 1.0"),
    ):
        page.get_by_text(choice, exact=True).click()
        expect(figure(page, re.compile(re.escape(title)))).to_be_visible()
    values = drawn(figure(page, "OV circuit of head 1.0"))
    assert values["columns"] == values["rows"]
    assert min(min(row) for row in values["z"]) < 0 < max(max(row) for row in values["z"])


def test_the_answer_is_taken_apart(page: Page, address: str, line_run: Run) -> None:
    page.goto(f"{address}?a.run=line&prompt=8%2B4&view=answer")
    mine = pane(page)
    expect(mine.locator(".verdict").first).to_have_text("right, seen in training")
    table = evaluate_run(line_run).table.query("seed == 0 and prompt == '<8+4='")
    assert margin(page) == pytest.approx(table["margin"].item(), abs=0.006)
    following = drawn(figure(page, "What comes next, after each token"))
    assert len(following["z"]) == 5
    assert [following["text"][0][k] for k in (-3, -2, -1)] == ["1", "2", ">"]
    lens = drawn(figure(page, re.compile("^Logit lens")))
    assert lens["rows"] == ["0 resid_pre", "0 resid_mid", "0 resid_post"]
    assert lens["text"][2] == following["text"][0]
    mine.get_by_role("button", name="character 2 of the answer").click()
    bars = figure(page, re.compile("^What writes 2 and not"))
    expect(bars).to_be_visible()
    values = plot(bars).evaluate("g => Array.from(g._fullData[0].x)")
    title = bars.get_by_role("heading").inner_text()
    assert sum(values) == pytest.approx(float(title.split(": ")[1].split()[0]), abs=0.01)
    page.get_by_label("Prompt", exact=True).fill("7+5")
    expect(mine.locator(".verdict").first).to_contain_text("held out from this model")


def test_patches_stack_and_are_undone_one_by_one(page: Page, address: str, line_run: Run) -> None:
    page.goto(f"{address}?a.run=line&view=patching&prompt=3%2B4&corrupt=8-2")
    mine, title = pane(page), re.compile("^Recovered of the logit difference")
    expect(figure(page, title)).to_be_visible()
    values = drawn(figure(page, title))
    pairs = one_pair(PromptSet.of_seed(line_run, line_run.seeds[0]), "3+4", "8-2")
    location = Location("blocks.0.hook_resid_pre", pos=-4)
    total, effect = patch_pairs(line_run.model(), pairs, [location])
    assert values["rows"][0] == "0 resid_pre"
    assert values["z"][0][1] == pytest.approx(float(effect[0, 0, 0, 0] / total[0, 0]), abs=1e-4)
    answered = mine.locator("tr.patched .answered")
    expect(answered).to_have_text("6>")
    for pos in (1, 2, 3):
        cell(figure(page, title), pos, 0)
        expect(mine.get_by_role("button", name=re.compile("^take the patch"))).to_have_count(pos)
    expect(answered).to_have_text("7>")
    expect(mine.locator("tr.patched td").last).to_have_text("1.00")
    mine.get_by_role("button", name="take the patch blocks.0.hook_resid_pre@2 out").click()
    expect(mine.get_by_role("button", name=re.compile("^take the patch"))).to_have_count(2)
    mine.get_by_role("button", name="take all patches out").click()
    expect(answered).to_have_text("6>")
    page.get_by_label("Corrupted prompt").fill("4+3")
    expect(mine.get_by_role("alert")).to_contain_text("have the same answer")


def test_probes_are_read_on_the_prompt(page: Page, address: str, line_run: Run) -> None:
    page.goto(f"{address}?a.run=line&b.run=line&view=probes&prompt=3%2B4")
    title = "Features read, above the strongest of their nulls"
    page.set_default_timeout(90_000)
    expect(figure(page, title)).to_be_visible(timeout=90_000)
    values = drawn(figure(page, title))
    row, column = values["rows"].index("carry"), values["columns"].index("0 resid_post")
    table = probe_grid(
        line_run, ["carry"], sites=["blocks.0.hook_resid_post"], positions=[-1], controls=19
    ).iloc[0]
    nulls = table[list(NULLS)].max()
    assert values["z"][row][column] == pytest.approx(table["accuracy"] - nulls, abs=1e-6)
    cell(figure(page, title), column, row)
    reading = figure(page, "carry read at 0 resid_post, place by place")
    expect(reading).to_be_visible()
    shown = drawn(reading)
    assert shown["rows"] == ["False", "True"]
    assert shown["columns"] == ["<", "3", "+", "4", "="]
    assert shown["z"][0][4] > 0.9  # 3+4 does not carry
    pane(page).get_by_role("button", name="position -2").click()
    there = pane(page).get_by_role("button", name="position -2", pressed=True)
    expect(there).to_be_visible()
    expect(figure(page, title)).to_be_visible(timeout=90_000)
    assert drawn(figure(page, title))["z"] != values["z"]


def test_a_dot_of_the_ladder_opens_its_model(page: Page, address: str) -> None:
    page.goto(f"{address}?view=ladder")
    ladder = figure(page, "Every model at its last step", "")
    expect(ladder).to_be_visible()
    dots = plot(ladder).evaluate(
        "g => g.data.flatMap((t, k) => t.xaxis === 'x' || !t.xaxis"
        " ? Array.from(g._fullData[k].x, (x, n) => [x, g._fullData[k].y[n], t.customdata[n]]) : [])"
    )
    assert len(dots) == 7  # two of line, file and facts, one deep
    page.locator("#into").get_by_text("A", exact=True).click()
    expect(page).to_have_url(re.compile("into=a"))
    x, y, data = next(dot for dot in dots if dot[2][1] == "deep")
    cell(ladder, x, y)
    expect(page).to_have_url(re.compile("a.run=deep"))
    expect(pane(page).locator(".run")).to_contain_text("deep")
    assert data[0] == "open deep:0"

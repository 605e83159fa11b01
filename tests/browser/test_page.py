"""The explorer as a person uses it: what is done, and what the page then shows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tbtt_interp.analyses.pairs import one_pair
from tbtt_interp.analyses.patching import Cell, patch_pairs
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.explore.app import Explorer
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.parts import Part
from tbtt_interp.explore.scene import scene_of
from tbtt_interp.explore.state import Pane, State
from tbtt_interp.explore.views import Views
from tbtt_interp.probes.run import probe_run
from tbtt_interp.runs import Run
from tbtt_interp.scores import evaluate_run

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=20_000)  # a loaded machine is no failure
Page = Any


@pytest.fixture(scope="module")
def catalogue(line_run: Run, file_run: Run, facts_run: Run, deep_run: Run) -> Catalogue:
    return Catalogue.of([run.folder for run in (line_run, file_run, facts_run, deep_run)])


def pane(page: Page, name: str = "A") -> Any:
    return page.get_by_role("region", name=f"Model {name}")


def figure(page: Page, title: str | re.Pattern, name: str = "A") -> Any:
    where = page.locator("#shared") if name == "" else pane(page, name)
    return where.locator("figure", has=page.get_by_role("heading", name=title))


def plot(graph: Any) -> Any:
    """What plotly drew in a figure, once it can be clicked."""
    return graph.locator(".js-plotly-plot[data-heard]")


def drawn(graph: Any) -> dict[str, Any]:
    """What plotly drew, and how its axes count."""
    return plot(graph).evaluate(
        "g => { const {z, text} = g._fullData[0]; const {xaxis, yaxis} = g.layout;"
        " const lists = rows => Array.from(rows, row => Array.from(row));"
        " return {z: lists(z), text: lists(text), columns: xaxis.ticktext, rows: yaxis.ticktext} }"
    )


def cell(graph: Any, column: float, row: float) -> None:
    """Clicks the cell of a map whose axes have these values.

    What was done before has to be seen first: a figure drawn anew meanwhile would not be clicked.
    """
    place = plot(graph).evaluate(
        "(g, at) => { g.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const {xaxis, yaxis} = g._fullLayout; const box = g.getBoundingClientRect();"
        " return [box.left + xaxis._offset + xaxis.d2p(at[0]),"
        " box.top + yaxis._offset + yaxis.d2p(at[1])] }",
        [column, row],
    )
    graph.page.mouse.move(*place)
    graph.page.mouse.click(*place)


def margin(page: Page, name: str = "A") -> float:
    return float(pane(page, name).locator(".margin").inner_text().removeprefix("margin "))


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
    pairs = one_pair(Subject.of_run(line_run), "3+4", "8-2")
    whole, moved = patch_pairs(
        line_run.model(), pairs, [Cell("blocks.0.hook_resid_pre", None, -4)], "denoising", 0
    )
    assert values["rows"][0] == "0 resid_pre"
    assert values["z"][0][1] == pytest.approx(float(moved[0, 0, 0, 0] / whole[0, 0]), abs=1e-4)
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
    title = "Features read, above the hardest of their nulls"
    page.set_default_timeout(90_000)
    expect(figure(page, title)).to_be_visible(timeout=90_000)
    values = drawn(figure(page, title))
    row, column = values["rows"].index("carry"), values["columns"].index("0 resid_post")
    table = probe_run(
        line_run, ["carry"], sites=["blocks.0.hook_resid_post"], positions=[-1], controls=19
    ).iloc[0]
    nulls = table[["control", "one_hot", "untrained", "majority"]].max()
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


def test_an_address_shows_the_same_to_another(page: Page, address: str) -> None:
    page.goto(f"{address}?a.run=line&prompt=3%2B4")
    pane(page).get_by_role("button", name="pin =, token 5").click()
    expect(pane(page).locator(".pinned")).to_have_count(1)
    cell(figure(page, "Head 0.0 on this prompt"), 2, 4)
    expect(pane(page).locator(".chips")).to_contain_text("= (5) → + (3)")
    page.get_by_text("Answer", exact=True).click()
    expect(figure(page, "What comes next, after each token")).to_be_visible()
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    there = margin(page)
    other = page.context.new_page()
    other.goto(link)
    expect(pane(other).locator(".chips")).to_contain_text("= (5) → + (3)")
    expect(other.get_by_label("Prompt", exact=True)).to_have_value("3+4")
    expect(figure(other, "What comes next, after each token")).to_be_visible()
    assert margin(other) == there
    # what is done in one window is not done in the other
    pane(other).get_by_role("button", name="undo all cuts").click()
    expect(pane(other).locator(".chips")).to_have_count(0)
    page.get_by_text("Attention", exact=True).click()
    expect(pane(page).locator(".chips")).to_contain_text("= (5) → + (3)")
    page.go_back()
    expect(figure(page, "What comes next, after each token")).to_be_visible()


def test_every_figure_is_given_away(page: Page, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}?a.run=line&prompt=3%2B4")
    mine = figure(page, "Head 0.0 on this prompt")
    expect(plot(mine)).to_be_visible()
    starts: dict[str, Callable[[bytes], bool]] = {
        "PNG": lambda content: content.startswith(b"\x89PNG"),
        "SVG": lambda content: b"<svg" in content[:200] and b"run line, seed 0, step" in content,
        "CSV": lambda content: content.startswith(b"row,row_name,column"),
        "HTML": lambda content: (
            b"run line, seed 0, step" in content and b"<script src" not in content
        ),
    }
    for kind, is_right in starts.items():
        with page.expect_download() as found:
            mine.locator(".files").get_by_text(kind, exact=True).click()
        path = tmp_path / found.value.suggested_filename
        found.value.save_as(path)
        assert path.suffix == f".{kind.lower()}"
        assert is_right(path.read_bytes()), kind
    table = pd.read_csv(tmp_path / "attention-a.csv")
    assert set(table["run"]) == {"line"} and set(table["prompt"]) == {"'<3+4='"}
    grid = drawn(mine)["z"]
    for record in table.to_dict("records"):
        assert grid[record["row"]][record["column"]] == pytest.approx(record["value"])


def test_what_breaks_is_said_and_the_server_lives(page: Page, address: str) -> None:
    page.goto(f"{address}?a.run=gone&view=cinema&a.cuts=x&prompt=3%2B4&b.run=line&b.step=17")
    expect(pane(page).get_by_role("alert")).to_contain_text("run 'gone' is not open here")
    expect(pane(page, "B").get_by_role("alert")).to_contain_text("no checkpoint at step 17")
    expect(page.locator("#problems")).to_contain_text("view 'cinema' is unknown")
    expect(page.locator("#problems")).to_contain_text("'a.cuts=x' says nothing")
    page.goto(f"{address}?a.run=line&prompt=3%2B4&a.layer=7")
    expect(pane(page).get_by_role("alert")).to_contain_text("there is no head 7.0")
    page.goto(address)
    expect(figure(page, "Head 0.0 on this prompt")).to_be_visible()


def test_what_nobody_foresaw_is_said_too(
    page: Page, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    page.goto(f"{address}?a.run=line&prompt=3%2B4")
    expect(figure(page, "Head 0.0 on this prompt")).to_be_visible()
    parts = Views.parts

    def breaking(views: Views, state: State, pane: str) -> list[Part]:
        return parts(views, state, pane)[: 1 // (state.prompt != "4+4")]

    monkeypatch.setattr(Views, "parts", breaking)
    page.get_by_label("Prompt", exact=True).fill("4+4")
    expect(pane(page).get_by_role("alert")).to_contain_text("ZeroDivisionError")
    expect(pane(page, "B").get_by_role("alert")).to_contain_text("ZeroDivisionError")
    assert "ZeroDivisionError" in caplog.text
    page.get_by_label("Prompt", exact=True).fill("3+4")
    expect(page.get_by_role("alert")).to_have_count(0)
    with monkeypatch.context() as patched:
        patched.setattr(Pane, "act", lambda pane, verb, argument: {}[verb])
        pane(page).get_by_role("button", name="pin =, token 5").click()
        expect(page.locator("#broken")).to_contain_text("KeyError: 'pin'")
        expect(page.locator("#done")).to_have_text("1")  # and so the next click is sent
    pane(page).get_by_role("button", name="pin =, token 5").click()
    expect(pane(page).locator(".pinned")).to_have_count(1)
    expect(page.locator("#broken")).to_be_empty()


def test_what_is_not_typed_is_shown_in_its_control(page: Page, address: str) -> None:
    """A prompt that is clicked, and pages that one comes back to."""
    page.goto(f"{address}?a.run=line&prompt=3%2B4")
    box = page.get_by_label("Prompt", exact=True)
    expect(figure(page, "Head 0.0 on this prompt")).to_be_visible()
    box.fill("8-2")
    expect(page).to_have_url(re.compile("prompt=8-2"))
    page.locator("#examples").get_by_role("button", name=re.compile("5-7|5\\+7")).first.click()
    expect(page).to_have_url(re.compile("prompt=%3C5"))
    expect(box).to_have_value(re.compile("^<5[-+]7=$"))
    page.get_by_text("Answer", exact=True).click()
    expect(figure(page, "What comes next, after each token")).to_be_visible()
    for go, view in ((page.go_back, "Attention"), (page.go_forward, "Answer")):
        go()
        expect(page.get_by_role("radio", name=view, exact=True)).to_be_checked()
    expect(figure(page, "What comes next, after each token")).to_be_visible()


def test_what_is_typed_is_one_page_to_come_back_to(page: Page, address: str) -> None:
    page.goto(f"{address}?a.run=line&prompt=3%2B4")
    box = page.get_by_label("Prompt", exact=True)
    expect(plot(figure(page, "Head 0.0 on this prompt"))).to_be_visible()
    box.press("End")
    for key, then in (("Backspace", "3%2B"), ("5", "3%2B5"), ("Backspace", "3%2B"), ("6", "3%2B6")):
        box.press(key)
        expect(page).to_have_url(re.compile(re.escape(f"prompt={then}&")))
    expect(pane(page).locator(".strip").first).to_contain_text("6")
    pane(page).get_by_role("button", name="pin =, token 5").click()
    expect(pane(page).locator(".pinned")).to_have_count(1)
    for go, value, pinned in ((page.go_back, "3+6", 0), (page.go_back, "3+4", 0),
                              (page.go_forward, "3+6", 0)):  # fmt: skip
        go()
        expect(box).to_have_value(value)
        expect(pane(page).locator(".pinned")).to_have_count(pinned)


def test_another_run_or_seed_is_shown_from_where_it_can_be(page: Page, address: str) -> None:
    page.goto(f"{address}?a.run=deep&a.layer=1&a.head=2&a.patches=blocks.1.attn.hook_z.2@4"
              "&prompt=3%2B4&b.run=file&b.step=17")  # fmt: skip
    expect(figure(page, "Head 1.2 on this prompt")).to_be_visible()
    pane(page).locator("button.run").click()
    page.get_by_role("option", name="line", exact=True).click()
    expect(figure(page, "Head 0.0 on this prompt")).to_be_visible()
    expect(page).to_have_url(re.compile("a.run=line&a.seed=0&a.step="))
    expect(pane(page, "B").get_by_role("alert")).to_contain_text("no checkpoint at step 17")
    pane(page, "B").locator("button.seed").click()
    page.get_by_role("option", name="1", exact=True).click()
    expect(figure(page, "Head 0.0 on this prompt", "B")).to_be_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_phone_and_a_laptop(page: Page, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for view in ("attention", "answer", "patching", "probes", "ladder"):
        page.goto(f"{address}?view={view}&a.run=line&b.run=line&prompt=3%2B4&corrupt=3%2B5")
        page.locator("figure .js-plotly-plot").first.wait_for(timeout=90_000)  # probes take theirs
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, view


def test_every_control_has_a_name_and_is_reached_by_keyboard(page: Page, address: str) -> None:
    page.goto(f"{address}?a.run=deep&prompt=3%2B4")
    expect(figure(page, re.compile("^Head 0.0"))).to_be_visible()
    nameless = page.evaluate(
        "Array.from(document.querySelectorAll('button, input, a')).filter(e =>"
        " !(e.getAttribute('aria-label') || e.textContent.trim() || e.title ||"
        " (e.labels && e.labels.length && e.labels[0].textContent.trim()))).map(e => e.outerHTML)"
    )
    assert nameless == []
    reached = set()
    for _ in range(75):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(
            "(e => e.getAttribute('aria-label') || e.id || e.textContent)(document.activeElement)"
        ))  # fmt: skip
    assert {"prompt", "pin =, token 5", "layer 1, head 2"} <= {str(name) for name in reached}
    pin = pane(page).get_by_role("button", name="pin =, token 5")
    pin.focus()
    page.keyboard.press("Enter")
    expect(pane(page).get_by_role("button", name="unpin =, token 5")).to_be_focused()


def test_maps_are_gone_through_by_keyboard(page: Page, address: str) -> None:
    """Where nothing but a cell does it: a patch is put in and taken out, a head is chosen."""
    page.goto(f"{address}?a.run=line&view=patching&prompt=3%2B4&corrupt=8-2")
    graph = plot(figure(page, re.compile("^Recovered of the logit difference")))
    graph.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        graph.press(key)
    values = drawn(figure(page, re.compile("^Recovered of the logit difference")))
    name, value = values["rows"][1], values["z"][1][1]
    expect(page.locator("#heard")).to_have_text(f"{name}, token 8→3: {value:.3f}")
    graph.press("Enter")
    patch = pane(page).get_by_role("button", name=re.compile("^take the patch blocks.0.attn.*@1"))
    expect(patch).to_have_count(1)
    expect(graph).to_be_focused()
    graph.press("Enter")
    expect(patch).to_have_count(0)


def test_the_page_is_all_its_own(catalogue: Catalogue) -> None:
    client = Explorer(catalogue).app.server.test_client()
    page = client.get("/").text
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "http" not in client.get("/_dash-layout").text

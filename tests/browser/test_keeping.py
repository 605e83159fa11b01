"""What is kept, shared, typed, broken and reached by keyboard, as a person does it."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from browser.pointing import Page, cell, drawn, expect, figure, margin, pane, plot

from tbtt_interp.explore.app import Explorer
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.parts import Part
from tbtt_interp.explore.state import Pane, State
from tbtt_interp.explore.views import Views


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


def test_panels_stand_one_below_the_other_on_a_phone(page: Page, address: str) -> None:
    page.goto(f"{address}?view=ladder")
    page.locator("#shared figure [data-heard]").wait_for()
    titles = page.locator("#shared .xtitle, #shared .x2title, #shared .x3title")

    def apart() -> bool:
        # plotly draws titles anew when the page's width changes: they may be gone for a while
        for _ in range(50):
            boxes = [box for title in titles.all() if (box := title.bounding_box())]
            if len(boxes) == 3 and all(
                a["x"] + a["width"] < b["x"] or a["y"] + a["height"] < b["y"]
                for a, b in pairwise(boxes)
            ):
                return True
            page.wait_for_timeout(100)
        return False

    before = page.locator("#shared .graph").bounding_box()
    assert apart() and before
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.querySelector('#shared .js-plotly-plot').isStacked")
    after = page.locator("#shared .graph").bounding_box()
    assert apart() and after and after["height"] > 2 * before["height"]
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function("!document.querySelector('#shared .js-plotly-plot').isStacked")
    assert apart()
    assert page.locator("#shared .graph").bounding_box() == before


@pytest.mark.parametrize("view", ["attention", "patching", "probes"])
def test_a_map_s_numbers_do_not_run_into_each_other_on_a_phone(
    page: Page, address: str, view: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{address}?view={view}&a.run=line&b.run=line&prompt=3%2B4&corrupt=3%2B5")
    page.locator("figure [data-heard]").first.wait_for(timeout=90_000)
    page.wait_for_function("document.querySelector('figure [data-heard]').isNarrow")
    page.wait_for_function("!document.querySelector('figure [data-heard] .colorbar')")
    rows: dict[int, list[tuple[float, float]]] = {}
    for left, right, top in page.evaluate(
        "Array.from(document.querySelector('figure').querySelectorAll('.heatmap-label text'))"
        ".filter(e => e.textContent).map(e => e.getBoundingClientRect())"
        ".map(b => [b.left, b.right, b.top])"
    ):
        rows.setdefault(round(top), []).append((left, right))
    assert max(map(len, rows.values())) >= 5
    assert all(a[1] < b[0] for row in rows.values() for a, b in pairwise(sorted(row)))


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

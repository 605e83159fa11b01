"""What is kept: figures as files, the address, and the page in a notebook."""

import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser.pointing import Page, expect, pane, values

import tbtt_interp as tbtt
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import Run

PROMPTS = "prompt=3%2B4&corrupt=8-2&a.run=line&b.run=deep"
FIGURES = {"story": 3, "flow": 3, "attention": 3, "patching": 7, "inside": 5, "ladder": 2}


def saved(page: Page, figure: Page, kind: str) -> bytes:
    with page.expect_download() as found:
        figure.locator(f"[data-act='save {kind}']").click()
    assert found.value.suggested_filename.endswith(f".{kind}")
    return Path(found.value.path()).read_bytes()


@pytest.mark.parametrize("view", FIGURES)
def test_every_figure_is_saved_with_what_it_is_of(opened, view: str) -> None:
    page = opened("served", f"view={view}&{PROMPTS}")
    figures = page.locator("#shared figure, #pane-0 figure").all()
    place = "#prompt=3%2B4" if view == "story" else f"#view={view}&prompt=3%2B4"
    assert len(figures) >= FIGURES[view]
    if view == "story":  # alone: Chromium stops downloads that come long after their click
        assert saved(page, figures[0], "png").startswith(b"\x89PNG")
    for figure in figures:
        drawing = ElementTree.fromstring(saved(page, figure, "svg"))
        words = [element.text or "" for element in drawing.iter() if element.text]
        assert any("line/0/2500 and deep/0/" in text and place in text for text in words)
        rows = list(csv.DictReader(io.StringIO(saved(page, figure, "csv").decode())))
        assert rows and all(place in row["address"] and "line/0" in row["models"] for row in rows)
        assert all(re.fullmatch(r"-?[\d.e-]+|NaN|", row["value"]) for row in rows), rows[0]


def test_what_is_trained_stands_in_the_address(opened) -> None:
    page = opened("served", f"view=train&{PROMPTS}")
    page.locator("#shared").get_by_label("trained on").select_option("shuffled windows")
    for name, value in (("width", "20"), ("learning rate", "0.003"), ("hold out", "3,4")):
        page.get_by_role("combobox", name=name, exact=True).select_option(value)
    for part in ("framing=shuffled", "width=20", "rate=0.003", "out=3,4"):
        expect(page).to_have_url(re.compile(re.escape(f"train.{part}")))
    page.reload()
    expect(page.get_by_role("combobox", name="width", exact=True)).to_have_value("20")
    page = opened("served", f"view=train&{PROMPTS}&train.width=99")
    expect(page.locator("#problems")).to_contain_text("the page cannot train with width “99”")


def test_a_notebook_s_frame_holds_the_page(browser, line_run: Run) -> None:
    page = browser.new_page()
    page.set_content(tbtt.show(line_run)._repr_html_())
    frame = page.frame_locator("iframe")
    expect(frame.locator("body[data-drawn]")).to_be_visible()
    shown = values(frame.locator("#pane-0 svg[data-map^='0/grid'] rect[data-value]"))
    expected = evaluate_run(line_run).table.query("seed == 0")["margin"].tolist()
    assert shown == pytest.approx(expected, abs=0.01)
    frame.get_by_role("button", name="Attention").click()
    expect(pane(frame).locator("rect[data-key='0/attention/4/1']")).to_be_visible()
    page.close()

"""Targets, contrast, names and the fold, measured in every view as a person sees it."""

from pathlib import Path
from typing import Any

import pytest
from browser.pointing import Page, expect

from tbtt_interp.explore.bundle import WEB

MEASURES = (Path(__file__).parent / "measures.js").read_text(encoding="utf-8")
VIEWS = WEB.joinpath("state.js").read_text(encoding="utf-8").split("export const VIEWS = [")[1]
VIEWS = [name.strip(' "') for name in VIEWS.split("]")[0].split(",")]
CHANGED = "a.cuts=0.0.4.1&a.off=neuron.0.3&a.paths=embed-v0.0-mlp0&pins=4"


def measured(page: Page, name: str, *given: Any) -> Any:
    return page.evaluate(f"given => {{ {MEASURES}; return {name}(...given); }}", list(given))


def view_of(opened: Any, view: str) -> Page:
    prompt = "prompt=3%2B4&corrupt=8-2"
    return opened("served", f"view={view}&{prompt}&a.run=line&b.run=deep&{CHANGED}")


@pytest.mark.parametrize("width", [1440, 390])
def test_targets_are_large_enough_and_the_page_fits(opened: Any, width: int) -> None:
    for view in VIEWS:
        page = view_of(opened, view)
        page.set_viewport_size({"width": width, "height": 844})
        expect(page.locator("main section").first).to_be_visible()
        page.wait_for_function("document.querySelector('#page').getAttribute('aria-busy') === null")
        assert measured(page, "smallTargets", 24) == [], view
        assert measured(page, "overlapping") == [], view
        assert measured(page, "nameless") == [], view
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        assert measured(page, "firstPicture") < 844 - 24, view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_every_state(opened: Any, scheme: str) -> None:
    """4.5 to 1, in each kind of control, pressed and not, hovered and focused."""
    for view in VIEWS:
        page = view_of(opened, view)
        page.emulate_media(color_scheme=scheme)
        assert measured(page, "faint", 4.5, "body") == [], view
        for kind in measured(page, "kinds"):
            for state in ("hover", "focus"):
                measured(page, "kinds")  # the page may have been drawn anew
                getattr(page.locator(f"[data-measured='{kind}']"), state)()
                for part in (f"[data-measured='{kind}']", "#tip"):
                    assert measured(page, "faint", 4.5, part) == [], (view, kind, state)


def test_the_measures_find_what_is_wrong(opened: Any) -> None:
    page = view_of(opened, "story")
    page.evaluate(
        "Object.assign(document.getElementById('play').style,"
        " {minHeight: 0, height: '20px', color: '#999', background: '#fff'})"
    )
    assert len(measured(page, "smallTargets", 24)) == 1
    page.evaluate("document.getElementById('play').style.marginRight = '-40px'")
    assert measured(page, "overlapping") == ["BUTTON play and INPUT step"]
    assert [words for words, _ in measured(page, "faint", 4.5, "body")] == ["▶ play training"]

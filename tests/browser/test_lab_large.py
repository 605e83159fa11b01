"""A model of ten million weights opens and answers when served."""

import threading

import pytest
from browser.pointing import cell, expect, pane, value

from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.server import PageServer
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.training import train_models


def test_it_answers_in_a_worker_and_the_page_goes_on(opened, forms: dict[str, str]) -> None:
    """mlt after one step on one window: its weights are as good as any."""
    flags = {"training.batch": 1, "steps": 1, "training.warmup": 0, "training.decay_until": 1}
    mlt = train_models(resolve_recipe("mlt-cpu", flags), "mlt")
    server = PageServer(Catalogue.of([mlt.folder]), host="127.0.0.1", port=8500)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    forms["large"] = f"http://127.0.0.1:{server.port}/"
    page = opened("large", "view=attention&prompt=3%2B4")
    page.set_default_timeout(120_000)
    status = pane(page).get_by_role("status").first
    expect(status).to_contain_text("in the background", timeout=60_000)
    page.get_by_role("button", name="Story").click()  # meanwhile
    expect(page.locator("svg[data-map='0/grid+']")).to_be_visible()
    table = evaluate_run(mlt).table
    margins = dict(zip(table["prompt"], table["margin"], strict=True))
    answer = pane(page).locator(".answer .quiet b")
    page.get_by_label("Prompt", exact=True).fill("8-2")
    expect(answer).not_to_have_text("no number", timeout=240_000)
    expect(pane(page).locator(".asked")).to_have_text("<8-2=", timeout=240_000)
    shown = float(answer.inner_text().replace("−", "-"))
    assert shown == pytest.approx(margins["<8-2="], abs=0.02)
    expect(pane(page)).to_contain_text("of 200 examples asked so far", timeout=240_000)
    first = cell(page, "0/grid+/0/3")
    expect(first).not_to_have_attribute("data-value", "NaN", timeout=240_000)
    assert value(page, "0/grid+/0/3") == pytest.approx(margins["<0+3="], abs=0.02)
    page.get_by_role("button", name="Patching").click()
    expect(pane(page)).to_contain_text("would take minutes here for a model of 10,6")
    server.shutdown()

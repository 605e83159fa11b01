"""A model of ten million weights opens and answers when served, and is too large for a file."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser.pointing import expect, pane

from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.server import PageServer
from tbtt_interp.runs import Run
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.training import train_models


@pytest.fixture(scope="module")
def mlt(session_folder: Path) -> Run:
    """mlt after one step on one window: its weights are as good as any."""
    recipe = resolve_recipe("mlt-cpu", {"training.batch": 1})
    once = dataclasses.replace(recipe.training, steps=1, warmup=0, decay_until=1, evaluate_every=1)
    return train_models(dataclasses.replace(recipe, training=once), session_folder / "runs/mlt")


@pytest.fixture(scope="module")
def served(mlt: Run) -> Iterator[str]:
    server = PageServer(Catalogue.of([mlt.folder]), host="127.0.0.1", port=8500)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()


def test_it_answers_in_a_worker_and_the_page_goes_on(
    opened, forms: dict[str, str], mlt: Run, served: str
) -> None:
    forms["large"] = served
    page = opened("large", "view=attention&prompt=3%2B4")
    page.set_default_timeout(120_000)
    expect(pane(page).get_by_role("status").first).to_contain_text("in a worker", timeout=60_000)
    page.get_by_role("button", name="Story").click()  # meanwhile
    expect(page.locator("svg[data-map='0/grid+']")).to_be_visible()
    table = evaluate_run(mlt).table
    margins = dict(zip(table["prompt"], table["margin"], strict=True))
    answer = pane(page).locator(".answer .quiet b")
    for prompt in ("3+4", "8-2"):
        page.get_by_label("Prompt", exact=True).fill(prompt)
        expect(answer).not_to_have_text("no number", timeout=240_000)
        expect(pane(page).locator(".asked")).to_have_text(f"<{prompt}=", timeout=240_000)
        shown = float(answer.inner_text().replace("−", "-"))
        assert shown == pytest.approx(margins[f"<{prompt}="], abs=0.02)
    expect(pane(page)).to_contain_text("of 200 examples asked so far", timeout=240_000)
    first = page.locator("svg[data-map='0/grid+'] rect[data-key='0/grid+/0/3']")
    expect(first).not_to_have_attribute("data-value", "NaN", timeout=240_000)
    value = float(first.get_attribute("data-value"))
    assert value == pytest.approx(margins["<0+3="], abs=0.02)
    page.get_by_role("button", name="Attention").click()
    expect(pane(page).locator("rect[data-key='0/attention/4/1']")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Patching").click()
    expect(pane(page)).to_contain_text("would take minutes here for a model of 10,6")


def test_a_file_of_it_is_refused_by_its_size(mlt: Run, refused: Callable[..., str]) -> None:
    error = refused("explore", mlt.folder, "--out", "page.html")
    assert "MB of weights" in error and "at most 25 MB are allowed" in error

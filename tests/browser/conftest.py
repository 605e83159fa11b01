"""A real browser on a real server; skipped, and said so, where there is no Chromium."""

import os
import shutil
import threading
from collections.abc import Iterator

import pytest

from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.serving import make_server

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip


@pytest.fixture(scope="session")
def address(catalogue: Catalogue) -> Iterator[str]:
    """Of an explorer of those runs."""
    server = make_server(catalogue, host="127.0.0.1", port=8050)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator["playwright.Browser"]:
    """Chromium. Where TBTT_BROWSER is set it has to be there, as in CI."""
    if CHROMIUM is None:
        if os.environ.get("TBTT_BROWSER"):
            pytest.fail("TBTT_BROWSER is set and there is no Chromium: apt-get install chromium")
        pytest.skip("there is no Chromium to drive: apt-get install chromium")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield found
        found.close()


@pytest.fixture
def page(browser: "playwright.Browser", address: str) -> Iterator["playwright.Page"]:
    """A new window. Whatever is asked of another machine, or said as an error, fails the test."""
    wrong: list[str] = []
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, accept_downloads=True,
        permissions=["clipboard-read", "clipboard-write"],
    )  # fmt: skip
    page = context.new_page()
    watch(page, address, wrong)
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert not wrong


def watch(page: "playwright.Page", address: str, wrong: list[str]) -> None:
    """Refuses every request to elsewhere, and notes it and every error."""

    def only_here(route: "playwright.Route") -> None:
        url = route.request.url
        if url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            wrong.append(f"asked of elsewhere: {url}")
            route.abort()

    page.route("**/*", only_here)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda said: wrong.append(f"console: {said.text}")
            if said.type == "error" else None)  # fmt: skip

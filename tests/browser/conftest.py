"""A real browser on a real server; skipped, and said so, where there is no Chromium."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tbtt_interp.cli import main
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.export import write_site
from tbtt_interp.explore.server import PageServer
from tbtt_interp.runs import Run

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip


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


@pytest.fixture(scope="session")
def lab(catalogue: Catalogue) -> Iterator[str]:
    """The address of a server of the page."""
    server = PageServer(catalogue, host="127.0.0.1", port=8300)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def forms(
    lab: str, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory, line_run: Run
) -> Iterator[dict[str, str]]:
    """The page's three forms: served, one file from disk, and a folder on a plain host."""
    own = tmp_path_factory.mktemp("forms")  # each worker's
    folder, out = own / "lab-site", own / "lab.html"
    write_site(catalogue, folder)
    assert main(["explore", str(line_run.folder), "--out", str(out)]) == 0
    plain = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), plain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "served": lab, "file": out.as_uri(), "folder": f"http://127.0.0.1:{server.server_port}/",
    }  # fmt: skip
    server.shutdown()


@pytest.fixture
def opened(
    browser: "playwright.Browser", forms: dict[str, str]
) -> Iterator[Callable[[str, str], "playwright.Page"]]:
    """Opens a form of the page at an address. Requests elsewhere and errors fail the test."""
    wrong: list[str] = []
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, accept_downloads=True,
        permissions=["clipboard-read", "clipboard-write"],
    )  # fmt: skip
    page = context.new_page()

    def go(form: str, address: str) -> "playwright.Page":
        watch(page, forms[form], wrong)
        page.goto(f"{forms[form]}#{address}")
        playwright.expect(page.locator("body[data-drawn]")).to_be_visible()
        return page

    yield go
    context.close()
    assert not wrong

"""A picture of the explorer's opening page, as a person sees it.

python tests/browser/screenshot.py explorer.png [RUN ...]
"""

import shutil
import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.serving import make_server

WIDTH, HEIGHT = 1280, 860


def main(out: str, *runs: str) -> None:
    """Opens the runs, or the models that ship, pins the last token of the prompt, and takes it."""
    server = make_server(Catalogue.of([Path(run) for run in runs]), host="127.0.0.1", port=8050)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(f"http://127.0.0.1:{server.port}/?a.pins=4&b.pins=4")
        page.wait_for_function("document.querySelectorAll('[data-heard]').length === 2")
        page.wait_for_timeout(1_000)
        page.screenshot(path=out, full_page=True)
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

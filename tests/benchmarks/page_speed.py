"""How long the page takes from an event to changed pixels, in Chromium, and how soon it opens.

python tests/benchmarks/page_speed.py  # 1 min on a free machine; needs Chromium

Both panes show one run, two seeds of it. Time runs from the event to the first frame after the
page was drawn, at the median; frames are not held back for a screen. Beside it stands the mean CPU
time of the page's thread, which says more where the machine is busy.
"""

import argparse
import re
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.server import PageServer

RUNS = ("arithmetic-small-file", "arithmetic-medium-file", "arithmetic-large-file")
TIMES, WARM = 24, 4
LIMITS = {"arithmetic-large-file": 50}  # ms; of others FAST
FAST, OPEN, BYTES = 16, 1.0, 1_500_000
ANSWER, SPEED, MEMORY = 50, 50, 200  # ms, steps per second and MB while the page trains
VIEWPORT: Any = {"width": 1280, "height": 800}
FLAGS = ["--disable-frame-rate-limit", "--disable-gpu-vsync", "--no-sandbox"]
EVENT = """async ([kind, k]) => {
  const prompt = document.getElementById("prompt");
  const step = document.getElementById("step");
  const all = (words) => [...document.querySelectorAll(`#pane-0 ${words}`)];
  const acts = {
    prompt: () => {
      prompt.value = `${k % 10}+${(3 * k + 1) % 10}`;
      prompt.dispatchEvent(new Event("input"));
    },
    pin: () => { const found = all("[data-act^='pin ']"); found[k % found.length].click(); },
    edge: () => {
      const found = all("rect[data-act^='cut ']");
      found[k % found.length].dispatchEvent(new MouseEvent("click", { bubbles: true }));
    },
    step: () => {
      step.value = (Number(step.value) + 1) % (Number(step.max) + 1);
      step.dispatchEvent(new Event("input"));
    },
  };
  const before = document.body.dataset.drawn;  // the page draws while it trains, too
  const drawn = new Promise((done) => {
    const observer = new MutationObserver(() => {
      if (document.body.dataset.drawn !== before) { observer.disconnect(); done(); }
    });
    observer.observe(document.body, { attributes: true, attributeFilter: ["data-drawn"] });
  });
  const began = performance.now();
  acts[kind]();
  await drawn;
  await new Promise((done) => requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage(0);
  }));
  return performance.now() - began;
}"""
OPENED = """() => {
  const all = ["resource", "navigation"].flatMap((kind) => performance.getEntriesByType(kind));
  const sizes = all.filter((e) => !e.name.endsWith(".safetensors")).map((e) => e.encodedBodySize);
  return sizes.reduce((a, b) => a + b, 0);
}"""
VIEWS = {"prompt": "story", "step": "story", "pin": "attention", "edge": "attention"}


class Measured(NamedTuple):
    """Milliseconds of one kind of event on one run."""

    wall: float
    cpu: float


def measure(page: Page, address: str, run: str, kind: str) -> Measured:
    """The median time of an event, and the CPU time of the page's thread."""
    page.goto("about:blank")
    page.goto(f"{address}#view={VIEWS[kind]}&prompt=5%2B7&a.run={run}&b.run={run}&b.seed=1")
    page.wait_for_selector("body[data-drawn]")
    session: Any = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def used() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1_000 * next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    for k in range(WARM):
        page.evaluate(EVENT, [kind, k])
    before = used()
    times = [page.evaluate(EVENT, [kind, k]) for k in range(WARM, WARM + TIMES)]
    return Measured(statistics.median(times), (used() - before) / TIMES)


def opening(browser: Any, address: str) -> tuple[float, int]:
    """Median seconds until the first view is drawn in a new window, and bytes before weights."""
    times, size = [], 0
    for _ in range(5):
        context = browser.new_context()
        fresh = context.new_page()
        fresh.goto(address)
        fresh.wait_for_selector("body[data-drawn]")
        times.append(fresh.evaluate("() => performance.now()"))
        size = fresh.evaluate(OPENED)
        context.close()
    return statistics.median(times) / 1_000, size


class Training(NamedTuple):
    """A page that trains a small: ms from prompt to pixels, steps per second, its process's MB."""

    prompt: float
    speed: float
    memory: float


def while_training(browser: Any, address: str) -> Training:
    """The median time of a prompt while a new page trains small on whole lines."""
    page = browser.new_page(viewport=VIEWPORT)
    page.goto(f"{address}#view=train&prompt=5%2B7")
    page.get_by_role("button", name="Train from scratch").click()
    page.wait_for_function("() => /steps per second/.test(document.body.innerText)")
    began, first = time.perf_counter(), _step(page)
    times = [page.evaluate(EVENT, ["prompt", k]) for k in range(WARM + TIMES)]
    page.wait_for_timeout(5_000)
    speed = (_step(page) - first) / (time.perf_counter() - began)
    session = browser.new_browser_cdp_session()
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    renderers = [Path(f"/proc/{one['id']}/status") for one in found if one["type"] == "renderer"]
    used = [int(re.findall(r"RssAnon:\s+(\d+)", path.read_text())[0]) for path in renderers]
    return Training(statistics.median(times[WARM:]), speed, max(used) / 1e3)


def _step(page: Page) -> int:
    """How many steps the page says that it has trained."""
    words = page.locator("#train-words").inner_text()
    return int(re.findall(r"step ([\d,]+)", words)[0].replace(",", ""))


def main() -> None:
    """Prints a table; status 1 if a median is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help=f"runs; {', '.join(RUNS)} if none")
    given = parser.parse_args().runs or [Path(name) for name in RUNS]
    server = PageServer(Catalogue.of(given), host="127.0.0.1", port=8300)
    shipped = PageServer(Catalogue.of([]), host="127.0.0.1", port=8400)
    for one in (server, shipped):
        threading.Thread(target=one.serve_forever, daemon=True).start()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    over: list[str] = []
    names = [str(place) for place in given]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport=VIEWPORT)
        page.set_default_timeout(120_000)
        found = {
            (kind, run): measure(page, f"http://127.0.0.1:{server.port}/", run, kind)
            for kind in VIEWS for run in names
        }  # fmt: skip
        page.close()
        seconds, size = opening(browser, f"http://127.0.0.1:{shipped.port}/")
        training = while_training(browser, f"http://127.0.0.1:{shipped.port}/")
        browser.close()
    table = Table(title=f"ms from event to changed pixels: median of {TIMES} (CPU of the page)")
    for name in ("event", *names):
        table.add_column(name, justify="left" if name == "event" else "right")
    for kind in VIEWS:
        table.add_row(kind, *(f"{found[kind, run].wall:.0f} ({found[kind, run].cpu:.0f})"
                              for run in names))  # fmt: skip
        over += [f"{kind} on {run}" for run in names
                 if found[kind, run].wall > LIMITS.get(run, FAST)]  # fmt: skip
    console = Console(width=110)
    console.print(table)
    console.print(
        f"first view of the models that ship: {seconds:.2f} s, {size / 1e6:.2f} MB before weights"
    )
    console.print(
        f"while it trains a small on whole lines: {training.prompt:.0f} ms for a prompt, "
        f"{training.speed:.0f} steps per second, {training.memory:.0f} MB (the page's process)"
    )
    over += ["a prompt while it trains"] * (training.prompt > ANSWER)
    over += ["steps per second"] * (training.speed < SPEED)
    over += ["memory"] * (training.memory > MEMORY)
    over += ["first view"] * (seconds > OPEN) + ["bytes before weights"] * (size > BYTES)
    console.print(f"over the limits: {', '.join(over) or 'none'}")
    sys.exit(bool(over))


if __name__ == "__main__":
    main()

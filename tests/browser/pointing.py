"""Where things are on the page, and the numbers that stand in them."""

from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=60_000)  # a loaded machine is no failure
Page = Any


def pane(page: Page, name: str = "A") -> Page:
    return page.get_by_role("region", name=f"Model {name}")


def cell(page: Page, key: str) -> Page:
    return page.locator(f"rect[data-key='{key}']")


def value(page: Page, key: str) -> float:
    return float(cell(page, key).get_attribute("data-value"))


def values(places: Page) -> list[float]:
    return places.evaluate_all("all => all.map(e => Number(e.dataset.value))")

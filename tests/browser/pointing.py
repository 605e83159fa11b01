"""Where things are on the explorer's page, and how they are pointed at."""

import re
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=20_000)  # a loaded machine is no failure
Page = Any


def pane(page: Page, name: str = "A") -> Any:
    return page.get_by_role("region", name=f"Model {name}")


def figure(page: Page, title: str | re.Pattern, name: str = "A") -> Any:
    where = page.locator("#shared") if name == "" else pane(page, name)
    return where.locator("figure", has=page.get_by_role("heading", name=title))


def plot(graph: Any) -> Any:
    """What plotly drew in a figure, once it can be clicked."""
    return graph.locator(".js-plotly-plot[data-heard]")


def drawn(graph: Any) -> dict[str, Any]:
    """What plotly drew, and how its axes count."""
    return plot(graph).evaluate(
        "g => { const {z, text} = g._fullData[0]; const {xaxis, yaxis} = g.layout;"
        " const lists = rows => Array.from(rows, row => Array.from(row));"
        " return {z: lists(z), text: lists(text), columns: xaxis.ticktext, rows: yaxis.ticktext} }"
    )


def cell(graph: Any, column: float, row: float) -> None:
    """Clicks the cell of a map whose axes have these values.

    What was done before has to be seen first: a figure drawn anew meanwhile would not be clicked.
    """
    place = plot(graph).evaluate(
        "(g, at) => { g.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const {xaxis, yaxis} = g._fullLayout; const box = g.getBoundingClientRect();"
        " return [box.left + xaxis._offset + xaxis.d2p(at[0]),"
        " box.top + yaxis._offset + yaxis.d2p(at[1])] }",
        [column, row],
    )
    graph.page.mouse.move(*place)
    graph.page.mouse.click(*place)


def margin(page: Page, name: str = "A") -> float:
    return float(pane(page, name).locator(".margin").inner_text().removeprefix("margin "))

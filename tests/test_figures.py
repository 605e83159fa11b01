"""Figures are drawn from tables, and say what is missing to draw them."""

from pathlib import Path

import plotly.graph_objects as go
import pytest

from tbtt_interp import plots
from tbtt_interp.errors import TbttError


def test_a_figure_is_saved_whole_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = go.Figure()
    plots.save(figure, "figure.html")
    assert len(Path("figure.html").read_text()) > 1_000_000, "plotly itself is inside"
    with pytest.raises(TbttError, match=r"figure\.pdf has no known ending: give \.html"):
        plots.save(figure, "figure.pdf")

    def no_browser(*_: object, **__: object) -> None:
        raise RuntimeError("Kaleido requires Google Chrome to be installed.")

    monkeypatch.setattr(go.Figure, "write_image", no_browser)
    with pytest.raises(TbttError, match=r"needs a browser to be drawn \(Kaleido requires Google"):
        plots.save(figure, "figure.png")

"""Figures are drawn from tables, and say what is missing to draw them."""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from tbtt_interp import figures
from tbtt_interp.errors import TbttError


def test_learning_curves_show_every_model_their_mean_and_the_floors() -> None:
    rows = [
        {"step": step, "seed": seed, "loss": 1 - step / 100, "seen": step / 50, "framing": "file",
         "held_out": 0.5, "floor_order": 0.5, "floor_lines": 0.7, "floor_line": 0.6}
        for step in (0, 25, 50) for seed in (0, 1)
    ]  # fmt: skip
    figure = figures.learning_curves(pd.DataFrame(rows))
    names = [trace.name for trace in figure.data]
    for name in ("loss", "seen", "held-out"):
        assert {f"{name}, seed 0", f"{name}, seed 1", f"{name}, mean of 2 models"} <= set(names)
    mean = figure.data[names.index("seen, mean of 2 models")]
    assert list(mean.x) == [0, 25, 50] and list(mean.y) == [0, 0.5, 1]
    levels = {trace.name: trace.y[0] for trace in figure.data[-2:]}
    assert levels == pytest.approx({"knows every line": 0.7, "knows their order, too": 0.5})


def test_a_figure_is_saved_whole_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = go.Figure()
    figures.save(figure, "figure.html")
    assert len(Path("figure.html").read_text()) > 1_000_000, "plotly itself is inside"
    with pytest.raises(TbttError, match=r"figure\.pdf has no known ending: give \.html"):
        figures.save(figure, "figure.pdf")

    def no_browser(*_: object, **__: object) -> None:
        raise RuntimeError("Kaleido requires Google Chrome to be installed.")

    monkeypatch.setattr(go.Figure, "write_image", no_browser)
    with pytest.raises(TbttError, match=r"needs a browser to be drawn \(Kaleido requires Google"):
        figures.save(figure, "figure.png")

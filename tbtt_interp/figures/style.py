"""What figures share: colours, and how they are written to files."""

from pathlib import Path
from typing import TYPE_CHECKING

from tbtt_interp.errors import TbttError, listed

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colours: told apart with any colour vision (Wong, Nature Methods 8, 441, 2011).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
OKABE_ITO = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ENDINGS = (".html", ".png", ".svg")  # of files that figures are written to


def save(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as self-contained HTML or, where a browser is there to draw it, PNG or SVG.

    Raises:
        TbttError: on another ending, or if kaleido or its browser is missing.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise TbttError(f"figure {path} has no known ending: give {listed(ENDINGS)}")
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
        return
    try:
        figure.write_image(path, scale=2)
    except (ValueError, RuntimeError) as error:
        raise TbttError(
            f"figure {path} needs a browser to be drawn ({str(error).strip().splitlines()[0]}): "
            "pip install kaleido and have Chromium, or give a name that ends in .html"
        ) from error

"""The page in a notebook's cell."""

import html
from dataclasses import dataclass
from pathlib import Path

from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.export import single_page
from tbtt_interp.runs import Run


@dataclass(frozen=True)
class EmbeddedPage:
    """The page with some runs in it; a notebook shows it in a frame."""

    page: str  # HTML
    height: int = 900  # pixels

    def __repr__(self) -> str:
        return f"EmbeddedPage({len(self.page) / 1e6:.1f} MB)"

    def _repr_html_(self) -> str:
        content = html.escape(self.page, quote=True)
        style = f"width: 100%; height: {self.height}px; border: 0"
        allowed = "allow-scripts allow-downloads"
        return f'<iframe srcdoc="{content}" sandbox="{allowed}" style="{style}"></iframe>'


def show(*runs: Run | str | Path, height: int = 900) -> EmbeddedPage:
    """The page over some runs, which a notebook shows where this is a cell's last value.

    Args:
        runs: runs, their folders, or names of models that come with the package.
        height: of the frame, in pixels.

    Raises:
        TbttError: if a run cannot be read, or the page would be larger than 25 MB.
    """
    places = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    return EmbeddedPage(single_page(Catalogue.of(places)), height)

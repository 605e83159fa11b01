"""A part of a page: a table, and the figure that is drawn of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


TOLD = ("run", "seed", "step", "prompt", "corrupted", "cut")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One figure with what it is drawn of.

    Attributes:
        table: in a map's, `act` is what a click on a cell does.
        note: what it takes to read it.
        of: which of TOLD it depends on, for who has the figure alone.
    """

    name: str
    title: str
    table: pd.DataFrame
    draw: Callable[[pd.DataFrame], "Figure"]
    note: str = ""
    of: tuple[str, ...] = ("run", "seed", "step", "prompt", "cut")

    @property
    def figure(self) -> "Figure":
        """The figure, drawn anew."""
        return self.draw(self.table)

    @property
    def data(self) -> pd.DataFrame:
        """The table as it is given away: without what only a click needs."""
        return self.table.drop(columns="act", errors="ignore")

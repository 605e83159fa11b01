"""Every finished model that is open: what it answers, by its parameters."""

from functools import lru_cache, partial

import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.explore import maps
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.parts import Part
from tbtt_interp.explore.state import State
from tbtt_interp.model import count_parameters
from tbtt_interp.model_tables import models_table
from tbtt_interp.runs import Run


def ladder_part(catalogue: Catalogue, state: State) -> tuple[Part, list[str]]:
    """The figure, and which runs are not in it and why.

    Raises:
        TbttError: if no run is finished.
    """
    tables, problems = [], [f"{name}: {why}" for name, why in catalogue.problems.items()]
    for name in catalogue.names:
        try:
            tables.append(_rows(name, catalogue.run(name)))
        except TbttError as error:
            problems.append(f"{name}: {error}")
    if not tables:
        raise TbttError(f"no run here is finished, so there is no ladder: {'; '.join(problems)}")
    shown = []
    for pane in state.panes:
        try:
            shown.append((pane.run, catalogue.which(pane.run, pane.seed, pane.step).seed))
        except TbttError:
            continue  # the pane itself says so
    part = Part(
        name="ladder", title="Every model at its last step",
        table=pd.concat(tables, ignore_index=True),
        draw=partial(maps.ladder, shown=shown), of=(),
        note="A dot is a model; ringed are those in the panes. Click one to open it. Order known: "
        "the share of the order's bits that the loss shows, on file alone.",
    )  # fmt: skip
    return part, problems


@lru_cache(maxsize=512)
def _rows(name: str, run: Run) -> pd.DataFrame:
    if run.config.recipe is None:
        raise TbttError("it was not trained here, so that what it answers was not written down")
    table = models_table([run])
    found = table[["task", "size", "framing", "seed", "order_known"]].assign(
        run=name, parameters=count_parameters(run.shape), seen=table["seen_accuracy"],
        held_out=table["held_out_accuracy"],
    )  # fmt: skip
    acts = [f"open {name}:{seed}" for seed in found["seed"]]
    return found.assign(act=acts)

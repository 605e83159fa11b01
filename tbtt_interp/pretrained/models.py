"""Models that come with the package, by name: no training needed to open one."""

from pathlib import Path

import pandas as pd

from tbtt_interp import runs
from tbtt_interp.errors import TbttError, guess
from tbtt_interp.runs import Run, load_run, shipped_runs
from tbtt_interp.tables import list_runs

OVER_TRAINING = "-over-training"  # ends the name of the run that has one model's checkpoints
NONE_SHIP = (
    "no models come with this copy of the package: train some (`tbtt sweep ladder`), pack them "
    "(`tbtt models --pack runs/ladder --out models`), and load them by their folders"
)


def load_pretrained(name: str, *, over_training: bool = False) -> Run:
    """A run that comes with the package: several models of one configuration, trained.

    Its folder is for reading only. `tbtt models` lists the names; every command that takes a run's
    folder takes them, too.

    Args:
        over_training: one model at a dozen steps of its training, not all models at the last.
    Raises:
        TbttError: if none is called so, naming the nearest.
    """
    shipped = shipped_runs()
    wanted = name + OVER_TRAINING if over_training else name
    if not shipped:
        raise TbttError(f"model '{name}' is not here: {NONE_SHIP}")
    if wanted not in shipped:
        raise TbttError(
            f"model '{wanted}' does not come with the package{guess(wanted, shipped)}: "
            "`tbtt models` lists those that do"
        )
    return load_run(shipped[wanted])


def list_pretrained(folder: Path | None = None) -> pd.DataFrame:
    """A row a name: what was trained, and what all its models together answer at the last step.

    Args:
        folder: of packed runs; None is those that come with the package.

    Columns: name, task, size, framing, seeds, steps, seen_right, seen_of, held_out_right,
    held_out_of, loss (mean over models, nats a character), over_training (how many checkpoints of
    one model there are), problem (why a run cannot be read; nothing else is known of it then).
    """
    root = runs.SHIPPED if folder is None else folder
    table = list_runs(root)
    if table.empty:
        return table
    table["name"] = [Path(run).name for run in table["run"]]
    kept = {
        name: len(list((root / name / "checkpoints").glob("step-*.safetensors")))
        for name in table["name"]
        if name.endswith(OVER_TRAINING)
    }
    table = table[~table["name"].isin(kept)].reset_index(drop=True)
    table["over_training"] = [kept.get(name + OVER_TRAINING, 0) for name in table["name"]]
    names = ["name", "task", "size", "framing", "seeds", "steps", "seen_right", "seen_of",
             "held_out_right", "held_out_of", "loss", "over_training", "problem"]  # fmt: skip
    return table.reindex(columns=names)

"""The models that come with the package, by name."""

from pathlib import Path

import pandas as pd

from tbtt_interp import runs
from tbtt_interp.errors import TbttError, guess
from tbtt_interp.runs import Run, load_run, shipped_runs
from tbtt_interp.tables import list_runs

OVER_TRAINING = "-over-training"  # ends the name of the run with one model's checkpoints
NONE_SHIP = (
    "no models come with this copy of the package: train some (`tbtt sweep ladder`), and load them "
    "by their folders"
)


def load_pretrained(name: str, *, over_training: bool = False) -> Run:
    """A run that comes with the package: several trained models of one configuration.

    `tbtt models` lists the names; every command that takes a run's folder takes a name as well.
    With `over_training`: one model at a dozen steps, instead of all models at the last step.
    """
    shipped = shipped_runs()
    wanted = name + OVER_TRAINING if over_training else name
    if wanted not in shipped:
        near, then = guess(wanted, shipped), "`tbtt models` lists those that do"
        then = then if shipped else NONE_SHIP
        raise TbttError(f"model '{wanted}' does not come with the package{near}: {then}")
    return load_run(shipped[wanted])


def list_models() -> pd.DataFrame:
    """One row per run that comes with the package, with the counts of all its models at the end.

    Columns: name, then those of `list_runs`, and over_training, the number of checkpoints of one
    model over training.
    """
    table = list_runs(runs.SHIPPED)
    if table.empty:
        return table
    folders = {Path(path).name: Path(path) for path in table["run"]}
    table.insert(0, "name", list(folders))
    counts = {name: len(list(path.glob("checkpoints/step-*"))) for name, path in folders.items()}
    table["over_training"] = [counts.get(name + OVER_TRAINING, 0) for name in folders]
    table = table[~table["name"].str.endswith(OVER_TRAINING)].reset_index(drop=True)
    return table[["name", "task", "size", "framing", "seeds", "steps", "seen_right", "seen_of",
                  "held_out_right", "held_out_of", "loss", "over_training", "problem"]]  # fmt: skip

"""Packs the finished runs below a folder as the models that ship, all or nothing.

    python .ci/pack_models.py runs/ladder models

Of each run it takes the first 8 models after the last step. A second run, whose name ends in
"-over-training", has the first model after up to a dozen earlier steps as well. The same runs give
the same bytes.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tbtt_interp import files, runs
from tbtt_interp.errors import TbttError
from tbtt_interp.integrity import write_summary
from tbtt_interp.metrics import read_metrics, write_metrics
from tbtt_interp.pretrained.card import model_card, trained_recipe
from tbtt_interp.pretrained.models import OVER_TRAINING
from tbtt_interp.runs import Run, load_run

MODELS = 8  # per run at most: the first, so that none is picked
EARLIER = 12  # checkpoints of one model, before its last
LIMIT = 23_000_000  # bytes of all that ships


def pack_models(folder: Path, to: Path) -> dict[str, str]:
    """The reasons why runs below a folder were left out, once the others are packed.

    Args:
        to: a folder that is new or empty.
    Raises:
        TbttError: if no run is finished, two have one name, or they come to more than 23 MB.
    """
    runs.check_free(to)
    finished: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    for path in runs.find_runs(folder):
        if path.name in finished:
            raise TbttError(f"two runs below {folder} are called {path.name}: rename one of them")
        try:
            trained_recipe(run := load_run(path))
            finished[path.name] = run
        except TbttError as error:
            left_out[path.name] = str(error)
    if not finished:
        raise TbttError(f"there is no finished run below {folder}: train some with `tbtt sweep`")
    with TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
        draft = Path(scratch) / to.name
        for name, run in finished.items():
            *earlier, last = run.checkpoints
            spread = np.linspace(0, len(earlier) - 1, min(EARLIER, len(earlier))).round()
            steps = [*(earlier[int(k)] for k in spread), last]
            pack_run(run, draft / name, models=min(MODELS, len(run.seeds)), steps=[last])
            if earlier:
                pack_run(run, draft / (name + OVER_TRAINING), models=1, steps=steps)
        if (total := folder_bytes(draft)) > LIMIT:
            largest = max(draft.iterdir(), key=folder_bytes)
            raise TbttError(
                f"the packed models come to {total / 1e6:.1f} MB, of which {largest.name} "
                f"{folder_bytes(largest) / 1e6:.1f}; at most {LIMIT / 1e6:.0f} ship: leave out "
                "the largest"
            )
        os.replace(draft, to)
    return left_out


def pack_run(run: Run, folder: Path, *, models: int, steps: Sequence[int]) -> Run:
    """A copy of a finished run with its first models at some of its steps, and with a card.

    The copy is a run like any other; its recipe trains the models that the copy has.
    """
    recipe: dict[str, Any] = trained_recipe(run) | {"seeds": models}
    recipe["held_out_each"] = recipe["held_out_each"][:models]
    per_seed = ("seeds", "held_out", "order_seeds")
    fewer: dict[str, Any] = {key: getattr(run.config, key)[:models] for key in per_seed}

    def fill(draft: Path) -> None:
        for step in steps:
            kept = {name: stacked[:models] for name, stacked in run.parameters(step).items()}
            runs.write_checkpoint(draft, config, step, kept)
        summary, *lines = (part | {"seeds": part["seeds"][:models]}
                           for part in (run.summary(), *read_metrics(run.folder)))  # fmt: skip
        write_metrics(draft, lines)
        write_summary(draft, summary, kept)
        files.write_whole(draft / "README.md", model_card(load_run(draft), folder.name).encode())

    config = dataclasses.replace(run.config, recipe=recipe, **fewer)
    return runs.create_run(folder, config, run.tasks[0], fill)


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Packs, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="a folder of runs, as a sweep leaves it")
    parser.add_argument("to", type=Path, help="a new or empty folder")
    asked = parser.parse_args()
    try:
        left_out = pack_models(asked.runs, asked.to)
    except TbttError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)
    print(f"{folder_bytes(asked.to) / 1e6:.1f} MB in {asked.to}.")
    for name, reason in left_out.items():
        print(f"Left out: {name}: {reason}")


if __name__ == "__main__":
    main()

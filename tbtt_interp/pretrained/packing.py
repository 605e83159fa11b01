"""Making the runs that ship of a sweep's: fewer seeds, fewer checkpoints, and a card each."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tbtt_interp.errors import TbttError
from tbtt_interp.pretrained.cards import model_card
from tbtt_interp.pretrained.models import OVER_TRAINING
from tbtt_interp.runs import (
    Run,
    check_free,
    checkpoint_path,
    create_run,
    find_runs,
    load_run,
    read_metrics,
    write_json,
    write_metrics,
    write_tensors,
    write_whole,
)
from tbtt_interp.tables import check_whole

MODELS = 8  # of a run at most: the first, so that none is picked
EARLIER = 12  # checkpoints of one model, before its last
LIMIT = 20_000_000  # bytes of all that ships


def pack_models(
    folder: Path, to: Path, tell: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, str]:
    """Packs every finished run below a folder, all or nothing; the same runs give the same bytes.

    Of each run its first 8 models after the last step, and as a second run, whose name ends in
    "-over-training", its first model after a dozen earlier steps as well.

    Args:
        to: a folder that is new or empty.
    Returns:
        the runs that were left out, with the reason.
    Raises:
        TbttError: if no run is finished, two have one name, or they come to more than 20 MB.
    """
    check_free(to)
    left_out: dict[str, str] = {}
    finished: dict[str, Run] = {}
    for path in find_runs(folder):
        try:
            run = load_run(path)
            trained_recipe(run)
        except TbttError as error:
            left_out[path.name] = str(error)
            continue
        if path.name in finished:
            raise TbttError(f"two runs below {folder} are called {path.name}: rename one of them")
        finished[path.name] = run
    if not finished:
        raise TbttError(f"there is no finished run below {folder}: train some with `tbtt sweep`")
    draft = to.with_name(f".{to.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for done, (name, run) in enumerate(finished.items()):
            tell(done, len(finished))
            steps = spread_steps(list(run.checkpoints))
            pack_run(run, draft / name, models=min(MODELS, len(run.seeds)), steps=steps[-1:])
            if len(steps) > 1:
                pack_run(run, draft / (name + OVER_TRAINING), models=1, steps=steps)
        _check_size(draft)
        os.replace(draft, to)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return left_out


def pack_run(run: Run, folder: Path, *, models: int, steps: Sequence[int]) -> Run:
    """A copy of a finished run, of its first models after some of its steps, with a card.

    The copy is a run like any other, and its recipe is that of the models that it has.

    Raises:
        TbttError: if the run is unfinished or imported, or the folder has something in it.
    """
    recipe: dict[str, Any] = trained_recipe(run) | {"seeds": models}
    config, summary = run.config, run.summary()
    recipe["held_out_each"] = recipe["held_out_each"][:models]
    fewer = dataclasses.replace(
        config, seeds=config.seeds[:models], held_out=config.held_out[:models],
        order_seeds=config.order_seeds[:models], recipe=recipe,
    )  # fmt: skip

    def fill(draft: Path) -> None:
        for step in steps:
            kept = {name: stacked[:models] for name, stacked in run.parameters(step).items()}
            write_tensors(checkpoint_path(draft, step), kept)
        lines = read_metrics(run.folder)
        write_metrics(draft, [line | {"seeds": line["seeds"][:models]} for line in lines])
        write_json(draft / "summary.json", summary | {"seeds": summary["seeds"][:models]})
        write_whole(draft / "README.md", model_card(load_run(draft), folder.name).encode())

    return create_run(folder, fewer, run.tasks[0], fill)


def trained_recipe(run: Run) -> dict[str, Any]:
    """The recipe that a run was trained to the end by, as its config.json has it.

    Raises:
        TbttError: if the run is unfinished, damaged or imported.
    """
    check_whole(run)
    if run.config.recipe is None:
        raise TbttError(f"{run.folder} is an imported model, of whose training no card can tell")
    return dict(run.config.recipe)


def spread_steps(steps: Sequence[int], earlier: int = EARLIER) -> list[int]:
    """The last of some steps and a dozen before it, spread evenly from the first on.

    >>> spread_steps([0, 1, 2, 3, 4, 5], earlier=3)
    [0, 2, 4, 5]
    """
    *before, last = steps
    places = np.linspace(0, len(before) - 1, min(earlier, len(before))).round().astype(int)
    return [*(before[place] for place in places), last]


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_size(folder: Path) -> None:
    sizes = {path.name: folder_bytes(path) for path in folder.iterdir()}
    if (total := sum(sizes.values())) > LIMIT:
        largest = max(sizes, key=lambda name: sizes[name])
        raise TbttError(
            f"the packed models come to {total / 1e6:.1f} MB, of which {largest} "
            f"{sizes[largest] / 1e6:.1f}; at most {LIMIT / 1e6:.0f} ship: leave out the largest"
        )

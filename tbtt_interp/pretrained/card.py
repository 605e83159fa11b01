"""Packed runs: trained runs with fewer seeds and checkpoints, and with a model card."""

import dataclasses
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import numpy as np

from tbtt_interp import runs, tables
from tbtt_interp.baselines import baseline_counts
from tbtt_interp.errors import TbttError
from tbtt_interp.model import count_parameters
from tbtt_interp.pretrained.models import OVER_TRAINING
from tbtt_interp.runs import Run, load_run

MODELS = 8  # per run at most: the first, so that none is picked
EARLIER = 12  # checkpoints of one model, before its last
LIMIT = 20_000_000  # bytes of all that ships


def pack_models(folder: Path, to: Path) -> dict[str, str]:
    """Packs every finished run below a folder, all or nothing; the same runs give the same bytes.

    Of each run it takes the first 8 models after the last step. A second run, whose name ends in
    "-over-training", has the first model after up to a dozen earlier steps as well.

    Args:
        to: a folder that is new or empty.
    Returns:
        The runs that were left out, each with the reason.
    Raises:
        TbttError: if no run is finished, two have one name, or they come to more than 20 MB.
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
        sizes = {path.name: folder_bytes(path) for path in draft.iterdir()}
        if (total := sum(sizes.values())) > LIMIT:
            largest = max(sizes, key=lambda name: sizes[name])
            raise TbttError(
                f"the packed models come to {total / 1e6:.1f} MB, of which {largest} "
                f"{sizes[largest] / 1e6:.1f}; at most {LIMIT / 1e6:.0f} ship: leave out the largest"
            )
        os.replace(draft, to)
    return left_out


def pack_run(run: Run, folder: Path, *, models: int, steps: Sequence[int]) -> Run:
    """A copy of a finished run with its first models at some of its steps, and with a card.

    The copy is a run like any other; its recipe trains the models that the copy has.

    Raises:
        TbttError: if the run is unfinished or imported, or the folder has something in it.
    """
    recipe: dict[str, Any] = trained_recipe(run) | {"seeds": models}
    recipe["held_out_each"] = recipe["held_out_each"][:models]
    per_seed = ("seeds", "held_out", "order_seeds")
    fewer: dict[str, Any] = {key: getattr(run.config, key)[:models] for key in per_seed}

    def fill(draft: Path) -> None:
        for step in steps:
            kept = {name: stacked[:models] for name, stacked in run.parameters(step).items()}
            runs.write_tensors(runs.checkpoint_path(draft, step), kept)
        summary, *lines = (part | {"seeds": part["seeds"][:models]}
                           for part in (run.summary(), *runs.read_metrics(run.folder)))  # fmt: skip
        runs.write_metrics(draft, lines)
        runs.write_json(draft / "summary.json", summary)
        runs.write_whole(draft / "README.md", model_card(load_run(draft), folder.name).encode())

    config = dataclasses.replace(run.config, recipe=recipe, **fewer)
    return runs.create_run(folder, config, run.tasks[0], fill)


def trained_recipe(run: Run) -> dict[str, Any]:
    """The recipe of a run; raises a TbttError if it is unfinished, damaged or imported."""
    tables.check_whole(run)
    if run.config.recipe is None:
        raise TbttError(f"{run.folder} is an imported model: a card has nothing on its training")
    return dict(run.config.recipe)


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def model_card(run: Run, name: str) -> str:
    """The README.md of a trained run's folder: metadata for model hubs as YAML, then the card."""
    table = tables.training_table(run)
    headers, rows = tables.training_rows(table if len(run.seeds) > 1 else table[:1])
    sentences = [
        tables.accuracy_sentence(tables.accuracy_intervals(table[:-1])),
        *tables.late_sentences(run),
    ]
    if same_split := len(set(run.config.held_out)) == 1:
        for baseline, counts in baseline_counts(run.task).groupby("baseline", sort=False):
            cells = zip(counts["group"], counts["right"], counts["of"], strict=True)
            words = ", ".join(
                f"{tables.group_label(group)} {right}/{of}" for group, right, of in cells
            )
            sentences.append(f"Without a transformer, {baseline}: {words}.")
    environment = jinja2.Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    text = (files("tbtt_interp.pretrained") / "card.md.jinja").read_text("utf-8")
    return environment.from_string(text).render(
        name=name, run=run, task=run.tasks[0], parameters=count_parameters(run.shape),
        same_split=same_split, headers=[header.replace("\n", " ") for header in headers],
        rows=rows, sentences=[*sentences, *tables.TRAINING_NOTES],
    )  # fmt: skip

"""The tables of runs that the page reads: examples, checkpoints, metrics, as plain data."""

import math
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tbtt_interp.errors import TbttError
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.probe_tables import feature_labels, ready_table
from tbtt_interp.files import AGAIN
from tbtt_interp.integrity import check_hash
from tbtt_interp.metrics import read_metrics
from tbtt_interp.model import count_parameters
from tbtt_interp.model_tables import models_table, over_training_table
from tbtt_interp.runs import Run
from tbtt_interp.shares import share_over_models
from tbtt_interp.stats import SHARE, mean_over_models
from tbtt_interp.tasks import Task

Table = dict[str, Any]
SHARES = {"seen": "seen_accuracy", "held_out": "held_out_accuracy", "order": "order_known"}


class Checkpoint(NamedTuple):
    """A file of weights, and the seeds whose weights are in it."""

    step: int
    seeds: tuple[int, ...]
    run: Run


def catalogue_table(catalogue: Catalogue) -> Table:
    """The runs by name, with what they are chosen by, and what was left out of them."""
    rows = []
    for name in catalogue.names:
        run = catalogue.run(name)
        config = run.config
        rows.append({
            "name": name, "task": config.task, "framing": config.framing, "size": config.size,
            "seeds": list(config.seeds), "steps": config.steps, "shape": dict(config.shape),
            "weights": count_parameters(run.shape), **_at_the_end(run),
        })  # fmt: skip
    return {"runs": rows, "left_out": list(catalogue.problems.values())}


def run_table(catalogue: Catalogue, name: str) -> Table:
    """One run: its configuration, each seed's examples and file order, checkpoints, metrics."""
    run = catalogue.run(name)
    config = run.config
    training = (config.recipe or {}).get("training")
    shared: list[list[Table]] = []  # the examples of tasks with the same answers
    seeds = []
    for index, seed in enumerate(run.seeds):
        task = run.tasks[index]
        rows = _example_rows(task)
        if rows not in shared:
            shared.append(rows)
        lines = {e.line: k for k, e in enumerate(task.examples)}
        order = None
        if config.recipe is not None or task.order_is_given:
            order = [lines[line] for line in task.file(config.order_seeds[index])]
        held_out = [k for k, e in enumerate(task.examples) if e.held_out]
        seeds.append({
            "seed": seed, "examples": shared.index(rows), "held_out": held_out, "order": order,
        })  # fmt: skip
    task = run.tasks[0]
    return {
        "name": name, "task": config.task, "framing": config.framing, "size": config.size,
        "shape": dict(config.shape), "vocabulary": config.vocabulary, "steps": config.steps,
        "training": dict(training) if training else None,
        "terminators": "".join(sorted(task.terminators)),
        "short_forms": [[short, _replacement(whole)] for short, whole in task.short_forms],
        "varied": list(task.varied), "examples": shared, "seeds": seeds,
        "checkpoints": [checkpoint_row(c, c.seeds) for c in checkpoints(catalogue, name)],
        "features": feature_labels(task),
        "metrics": _metrics(run),
    }  # fmt: skip


def checkpoint_row(checkpoint: Checkpoint, seeds: Iterable[int]) -> Table:
    """A checkpoint with some of its seeds, and whether its probes are there."""
    ready = ready_table(checkpoint.run, checkpoint.step) is not None
    return {"step": checkpoint.step, "seeds": list(seeds), "probes": ready}


def checkpoints(catalogue: Catalogue, name: str) -> list[Checkpoint]:
    """The kept checkpoints, in order of steps."""
    return [Checkpoint(step, run.seeds, run) for step, run in catalogue.steps(name).items()]


def weights_of(checkpoint: Checkpoint) -> bytes:
    """A checkpoint's file, whose hash is as the run's summary says.

    Raises:
        TbttError: if it is gone or damaged.
    """
    path = checkpoint.run.checkpoints[checkpoint.step]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TbttError(f"{path} is gone: {AGAIN}") from error
    check_hash(path, content, checkpoint.run.folder)
    return content


def weights_of_seeds(checkpoint: Checkpoint, seeds: Iterable[int]) -> bytes:
    """A checkpoint's file with the weights of some of its seeds alone, in the order given."""
    from safetensors.numpy import load, save

    index = [checkpoint.seeds.index(seed) for seed in seeds]
    tensors = load(weights_of(checkpoint))
    return save({name: np.ascontiguousarray(value[index]) for name, value in tensors.items()})


def size_of_weights(checkpoint: Checkpoint, seeds: int) -> int:
    """The bytes that some seeds' weights of a checkpoint take, without reading them."""
    path = checkpoint.run.checkpoints[checkpoint.step]
    with path.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    total = path.stat().st_size - 8 - header
    return math.ceil(total / len(checkpoint.seeds)) * seeds + header


def _replacement(whole: str) -> str:
    """A replacement in JavaScript's manner: $1 where Python has a backslash and 1."""
    return whole.replace("\\", "$")


def _example_rows(task: Task) -> list[Table]:
    return [
        {"line": e.line, "prompt": e.prompt, "answer": e.answer, "group": e.group,
         "labels": dict(e.labels)}
        for e in task.examples
    ]  # fmt: skip


def _metrics(run: Run) -> Table:
    """The evaluations by seed: loss, shares of seen and held-out answered, the order known."""
    if not (steps := [line["step"] for line in read_metrics(run.folder)]):
        return {"steps": [], "seeds": {}}
    table = over_training_table([run])
    columns = {"loss": "loss"} | SHARES
    found = {
        str(seed): {name: [_rounded(x) for x in rows[of]] for name, of in columns.items()}
        for seed, rows in table.groupby("seed", sort=False)
    }
    return {"steps": steps, "seeds": found}


@lru_cache(maxsize=512)
def _at_the_end(run: Run) -> Table:
    """Each model's shares at the last step, and their means with intervals over models."""
    if not (run.is_complete and run.config.recipe):
        return {"final": {}, "intervals": {}}
    table = models_table([run])
    counts = {
        side: table[[f"{side}_right", f"{side}_of"]].fillna(0).astype(int)
        for side in ("seen", "held_out")
    }
    intervals = {side: share_over_models(list(of.itertuples(index=False, name=None)))
                 for side, of in counts.items()}  # fmt: skip
    intervals["order"] = mean_over_models(table["order_known"], bounds=SHARE)
    final = {str(row["seed"]): {name: _rounded(row[of]) for name, of in SHARES.items()}
             for row in table.to_dict("records")}  # fmt: skip
    shown = {name: [_rounded(i.mean), _rounded(i.low), _rounded(i.high)]
             for name, i in intervals.items() if math.isfinite(i.low)}  # fmt: skip
    return {"final": final, "intervals": shown}


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None

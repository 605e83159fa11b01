"""The tables of runs that the page reads: examples, checkpoints, metrics, as plain data."""

import math
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tbtt_interp.errors import TbttError
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.probe_tables import feature_labels, ready_table
from tbtt_interp.files import AGAIN
from tbtt_interp.integrity import check_hash
from tbtt_interp.metrics import read_metrics
from tbtt_interp.runs import Run
from tbtt_interp.shares import share_over_models
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import Task

Table = dict[str, Any]


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
            "weights": _count_weights(config.shape), **_at_the_end(run),
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
    """The kept checkpoints, in order of steps; those of all seeds before those of one."""
    run = catalogue.run(name)
    found: dict[tuple[int, Path], Checkpoint] = {}
    for seed in run.seeds:
        for step, (owner, _) in catalogue.steps(name, seed).items():
            key = step, owner.folder
            found.setdefault(key, Checkpoint(step, owner.seeds, owner))
    return sorted(found.values(), key=lambda c: (c.step, -len(c.seeds)))


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
    lines = read_metrics(run.folder)
    floors: dict[int, Table] = {}
    if run.is_complete:
        floors = {row["seed"]: row.get("floors") or {} for row in run.summary()["seeds"]}
    found: dict[str, Table] = {}
    for line in lines:
        for row in line["seeds"]:
            own = found.setdefault(
                str(row["seed"]), {"loss": [], "seen": [], "held_out": [], "order": []}
            )
            own["loss"].append(_rounded(row["loss"]))
            seen = [value for key, value in row.items() if key.startswith("seen_")]
            own["seen"].append(_share(seen))
            own["held_out"].append(_share([row["held_out"]] if "held_out" in row else []))
            known = _order_known(run, row["loss"], floors.get(row["seed"], {}))
            own["order"].append(known)
    return {"steps": [line["step"] for line in lines], "seeds": found}


@lru_cache(maxsize=512)
def _at_the_end(run: Run) -> Table:
    """Each model's shares at the last step, and their means with intervals over models."""
    rows = run.summary()["seeds"] if run.is_complete and run.config.recipe else []
    final: dict[str, Table] = {}
    counts: dict[str, list[tuple[int, int]]] = {"seen": [], "held_out": []}
    known: list[float] = []
    for row in rows:
        seen = [value for key, value in row.items() if key.startswith("seen_")]
        own = {"seen": seen, "held_out": [row["held_out"]] if "held_out" in row else []}
        for side, parts in own.items():
            counts[side].append((sum(right for right, _ in parts), sum(of for _, of in parts)))
        order = _order_known(run, row["loss"], row.get("floors") or {})
        known += [] if order is None else [order]
        final[str(row["seed"])] = {s: _share(p) for s, p in own.items()} | {"order": order}
    intervals = {side: share_over_models(of) for side, of in counts.items()}
    intervals |= {"order": mean_over_models(known, bounds=(0.0, 1.0))} if len(known) > 1 else {}
    shown = {
        name: [_rounded(i.mean), _rounded(i.low), _rounded(i.high)]
        for name, i in intervals.items() if math.isfinite(i.low)
    }  # fmt: skip
    return {"final": final, "intervals": shown}


def _order_known(run: Run, loss: float, floors: Table) -> float | None:
    """The share of the line order that a loss shows; see `model_tables.order_known`."""
    if run.config.framing != "file" or not {"lines", "order"} <= floors.keys():
        return None
    return _rounded(max(0.0, (floors["lines"] - loss) / (floors["lines"] - floors["order"])))


def _count_weights(shape: Mapping[str, int | bool]) -> int:
    """The trained parameters of one model, without positions, as `model.count_parameters` counts.

    Here without torch, so that the page opens at once.
    """
    d, m = shape["d_model"], shape["d_mlp"]
    matrices = shape["layers"] * (4 * d * d + 2 * d * m + 2 * d) + d
    biases = (shape["layers"] * (6 * d + m) + d) if shape.get("bias") else 0
    return matrices + biases + d * shape["d_vocab"] * (1 if shape.get("tied", True) else 2)


def _share(counts: list[list[int]]) -> float | None:
    total = sum(of for _, of in counts)
    return _rounded(sum(right for right, _ in counts) / total) if total else None


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None

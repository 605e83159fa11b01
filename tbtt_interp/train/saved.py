"""Saved states of a training: the two newest and those a recipe keeps, written and read again."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tbtt_interp import files, runs
from tbtt_interp.errors import TbttError
from tbtt_interp.integrity import check_identity, identity
from tbtt_interp.metrics import Row, read_metrics
from tbtt_interp.model import Parameters
from tbtt_interp.runs import Run
from tbtt_interp.train.stacks import TrainingCallback
from tbtt_interp.train.step import ModelStack


class Saved(NamedTuple):
    """The state of a stack after a step, and the evaluations up to there."""

    step: int
    seconds: float
    state: Parameters
    lines: Sequence[Row]


def write_newest(
    run: Run, step: int, state: Parameters, lines: Sequence[Row], seconds: float
) -> None:
    """Writes the state to resume from, and keeps the one before it."""
    path = run.folder / "resume" / "state.safetensors"
    try:
        if path.is_file():
            os.replace(path, path.with_name("previous.safetensors"))
    except OSError as error:
        raise files.unwritable(path, error) from error
    write_state(path, run, step, state, lines, seconds)


def write_state(
    path: Path, run: Run, step: int, state: Parameters, lines: Sequence[Row], seconds: float = 0.0
) -> None:
    """Writes a state, with the seconds of training, what identifies it and what it belongs to.

    These are config.json, the evaluations up to its step, and the steps of earlier checkpoints.
    """
    paths = (run.folder / "checkpoints").glob("step-*.safetensors")
    kept = sorted(int(path.stem.removeprefix("step-")) for path in paths)
    known = identity(run.config.recipe, run.seeds, step, state) | _beside(run, lines)
    known |= {"seconds": seconds, "checkpoints": [k for k in kept if k < step]}
    files.write_tensors(path, state, known)


def _beside(run: Run, lines: Sequence[Row]) -> Row:
    """SHA-256 of what a state belongs to."""
    config = (run.folder / "config.json").read_bytes()
    return {"config.json": hashlib.sha256(config).hexdigest(),
            "metrics.jsonl": hashlib.sha256(json.dumps(lines).encode()).hexdigest()}  # fmt: skip


def newest_saved(run: Run, stack: ModelStack, callback: TrainingCallback) -> Saved | None:
    """The newest whole state of an unfinished run; None where there is none, to begin again.

    States that are damaged or another run's are passed over with a message.

    Raises:
        TbttError: if config.json, metrics.jsonl or a checkpoint is not as it was at the state.
    """
    folder, found, problems = run.folder, [], []
    lines = read_metrics(folder)
    for path in (*folder.glob("resume/*.safetensors"), *folder.glob("states/step-*.safetensors")):
        try:
            found.append(_read_state(path, run, stack))
        except TbttError as error:
            problems.append(str(error).removesuffix(f": {files.AGAIN}"))
    if not found:
        if problems:
            callback.on_message(f"{'; '.join(problems)}. Training begins again.")
        return None
    saved, known = max(found, key=lambda pair: pair[0].step)
    if problems:
        then = f"Training goes on from the state of step {saved.step:,}"
        callback.on_message(f"{'; '.join(problems)}. {then}.")
    saved = saved._replace(lines=[line for line in lines if line["step"] <= saved.step])
    for name, digest in _beside(run, saved.lines).items():
        if known.get(name, digest) != digest:
            what = f"{folder / name} is not as it was when training saved step {saved.step:,}"
            raise TbttError(f"{what}: {files.AGAIN}")
    for step in sorted(set(known.get("checkpoints", ())) - run.checkpoints.keys()):
        what = f"{folder} has lost its checkpoint of step {step:,}"
        raise TbttError(f"{what}: {files.AGAIN}")
    for step, path in run.checkpoints.items():
        if step <= saved.step:
            runs.read_checkpoint(path, run)
    return saved


def _read_state(path: Path, run: Run, stack: ModelStack) -> tuple[Saved, Row]:
    """A state without its evaluations, and its metadata."""
    state, known, _ = files.read_with_metadata(path)
    step = known.get("step", -1)
    check_identity(path, known, identity(run.config.recipe, run.seeds, step, {}))
    own = {name: x.shape for name, x in stack.state().items() if "/" in name}
    if step < 0 or any(name not in state or state[name].shape != own[name] for name in own):
        raise TbttError(f"{path} is not this run's (it has other tensors): {files.AGAIN}")
    return Saved(step, known.get("seconds", 0.0), state, ()), known

"""Attacks on run folders, each by its seed: damaged files, full disks, kills, two at once.

An attack is survived if a command is unaffected, or refuses in one line with exit status 2, or
names the run and shows the rest. Anything else is lost: a traceback, another exit status, or
another answer without a word.
"""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from unittest.mock import patch

from faults.attack import REFUSED, SAME, Tally
from tiny import contents, short

from tbtt_interp import files
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.train import training
from tbtt_interp.train.stacks import Runtime, TrainingCallback
from tbtt_interp.train.training import train_models

RUNTIME = Runtime(compiled=False, threads=1)
FORK = multiprocessing.get_context("fork")  # which has imported what it trains with
READERS = {  # of the run runs/a, beside the sound run runs/b
    "runs": ["runs", "runs", "--json"],
    "evaluate": ["evaluate", "runs/a", "--json"],
    "ask": ["ask", "runs/a", "3+4=", "--json"],
    "compare": ["compare", "runs/a", "runs/b", "--json"],
    "report": ["report", "runs", "--only", "answers", "--json"],
    "patching": ["analyses", "patching", "runs/a", "--json"],
    "probes over steps": ["probes", "runs/a", "--over-steps", "--controls", "1", "--json"],
}
QUICK = ("runs", "evaluate", "ask", "compare")
KINDS = ("flip", "flips", "truncate", "zeros", "delete", "swap")


def damage(path: Path, other: Path, random: Random) -> str:
    """Damages a file in one way; `other` is what it may be swapped with. Returns the way."""
    content, kind = bytearray(path.read_bytes()), random.choice(KINDS)
    if kind == "delete":
        path.unlink()
        return kind
    if kind == "swap":
        content = bytearray(other.read_bytes())
    elif kind == "truncate":
        del content[random.randrange(len(content)) :]
    elif kind == "zeros":
        start = random.randrange(len(content))
        content[start : start + 64] = bytes(len(content[start : start + 64]))
    else:
        for _ in range(1 if kind == "flip" else random.randint(2, 40)):
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    return kind


def answer(words: Sequence[str]) -> tuple[int | str, str, str]:
    """A command's exit status, or its traceback, and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: int | str = main(list(words))
        except SystemExit as end:
            status = f"exit {end.code}"
        except Exception as error:
            status = f"{type(error).__name__}: {error}"
    return status, out.getvalue(), err.getvalue()


def outcome(name: str, sound: tuple[int | str, str, str]) -> str:
    """What a reader makes of runs/a now, compared with its answer when the run was sound."""
    status, out, err = answer(READERS[name])
    if status == 2 and not out and err.startswith("error: ") and err.count("\n") == 1:
        return REFUSED
    if status != 0:
        return f"{name} ends with {status} {err[-200:]}"
    if out == sound[1]:
        return SAME
    if name == "report":
        return REFUSED if "left out, runs/a" in err else "report is another, silently"
    if name == "runs":
        rows = {row["run"]: row for row in json.loads(out)}
        others = {row["run"]: row for row in json.loads(sound[1])}
        named = rows.get("runs/a", {}).get("problem") or "unfinished" in out
        return REFUSED if named and rows["runs/b"] == others["runs/b"] else f"runs lists {out}"
    return f"{name} answers otherwise, silently"


def attack_quickly(count: int, readers: Sequence[str] = QUICK) -> Tally:
    """As `attack_finished`, before the commands that take a moment."""
    return attack_finished(count, readers)


def attack_finished(count: int, readers: Sequence[str] = tuple(READERS), seed: int = 0) -> Tally:
    """One damaged file in a finished run, before each of some commands."""
    train_models(short(), "runs/a", runtime=RUNTIME)
    train_models(short(first_seed=5), "runs/b", runtime=RUNTIME)
    shutil.copytree("runs/a", "whole")
    sound = {name: answer(READERS[name]) for name in readers}
    assert not [status for status, *_ in sound.values() if status], sound
    found = Tally(f"a finished run, one file damaged, then read by {len(readers)} commands")
    for number in range(seed, seed + count):
        random = Random(number)
        name = random.choice(sorted(contents(Path("whole"))))
        kind = damage(Path("runs/a", name), Path("runs/b", name), random)
        for reader in readers:
            found.add(f"seed {number}, {kind} of {name}", outcome(reader, sound[reader]))
        shutil.rmtree("runs/a")
        shutil.copytree("whole", "runs/a")
    return found


class Stopped(BaseException):
    """The process is gone."""


class Stopping(TrainingCallback):
    """Stops a training at a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, step: int) -> None:
        """Stops."""
        if step >= self.at:
            raise Stopped


def untimed(folder: str) -> dict[str, bytes]:
    """A run's files, without the seconds it took."""
    found = contents(Path(folder))
    summary = json.loads(found["summary.json"]) | {"seconds": 0}
    return found | {"summary.json": json.dumps(summary).encode()}


def resumed(expected: dict[str, bytes]) -> str:
    """How the run `cut` goes on."""
    try:
        train_models(short(), "cut", resume=True, runtime=RUNTIME)
    except TbttError:
        return REFUSED
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    found = untimed("cut")
    other = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    return f"finishes with another {other}" if other else SAME


def attack_unfinished(count: int, seed: int = 0) -> Tally:
    """One damaged file in a run that was stopped, then resumed."""
    expected = untimed(str(train_models(short(), "sound", runtime=RUNTIME).folder))
    found = Tally("an unfinished run, one file damaged, then --resume")
    with patch.object(training, "SAVING", float("inf")):
        for name, first_seed in (("stopped", 0), ("other", 5)):
            with contextlib.suppress(Stopped):
                recipe = short(first_seed=first_seed)
                train_models(recipe, name, runtime=RUNTIME, callback=Stopping(10))
        for number in range(seed, seed + count):
            random = Random(number)
            shutil.copytree("stopped", "cut")
            name = random.choice(sorted(contents(Path("cut"))))
            kind = damage(Path("cut", name), Path("other", name), random)
            found.add(f"seed {number}, {kind} of {name}", resumed(expected))
            shutil.rmtree("cut")
    return found


def attack_full_disk(count: int, seed: int = 0) -> Tally:
    """A disk that is full at a random write, then resumed on one that has room."""
    expected = untimed(str(train_models(short(), "roomy", runtime=RUNTIME).folder))
    found = Tally("a disk that is full, then --resume")
    for number in range(seed, seed + count):
        left = Random(number).randrange(20)
        fsync = os.fsync

        def full(descriptor: int, fsync: Callable[[int], None] = fsync) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        said = ""
        with patch.object(files.os, "fsync", full), contextlib.suppress(TbttError):
            try:
                train_models(short(), "cut", resume=True, runtime=RUNTIME)
                said = "make room"  # the disk was full too late
            except TbttError as error:
                said = str(error)
        result = resumed(expected)
        found.add(f"seed {number}", result if "make room" in said else f"says {said}")
        shutil.rmtree("cut")
    return found


def _train(delay: float = 0.0) -> str:
    """Trains in the folder `cut`, and returns what stopped it."""
    time.sleep(delay)
    try:
        train_models(short(), "cut", resume=True, runtime=RUNTIME)
    except TbttError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def attack_together(count: int, seed: int = 0) -> Tally:
    """Two processes that train in one folder, one of them a moment later."""
    expected = untimed(str(train_models(short(), "alone", runtime=RUNTIME).folder))
    found = Tally("two processes train in one folder")
    for number in range(seed, seed + count):
        delays = (0.0, Random(number).random() / 5)
        with patch.object(files, "WAIT", 0), ProcessPoolExecutor(2, FORK) as pool:
            said = [text for text in pool.map(_train, delays) if text]
        strange = [text for text in said if "is being trained by process" not in text]
        is_other = untimed("cut") != expected
        outcome = str(strange) if strange else "mixed" if is_other else REFUSED if said else SAME
        found.add(f"seed {number}", outcome)
        shutil.rmtree("cut")
    return found


def attack_killed(count: int, seed: int = 0) -> Tally:
    """A process that is killed at a random moment while it trains, then resumed by another."""
    expected = untimed(str(train_models(short(), "uncut", runtime=RUNTIME).folder))
    found = Tally("a training killed, then --resume")
    for number in range(seed, seed + count):
        owner = FORK.Process(target=_train)
        owner.start()
        time.sleep(Random(number).random() / 2)
        owner.kill()
        owner.join()
        found.add(f"seed {number}", resumed(expected))
        shutil.rmtree("cut")
    return found

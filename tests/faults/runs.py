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
from tiny import contents, short, untimed

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
QUICK = ("runs", "evaluate", "ask", "compare")  # those that take a moment
KINDS = ("flip", "flips", "truncate", "zeros", "delete", "swap")


def damage_one(folder: Path, other: Path, random: Random) -> str:
    """Damages a file of a run in one way; it may be swapped with another run's. Returns the way."""
    name, kind = random.choice(sorted(contents(folder))), random.choice(KINDS)
    path = folder / name
    content = bytearray((other / name if kind == "swap" else path).read_bytes())
    if kind == "delete":
        path.unlink()
        return f"{kind} of {name}"
    if kind == "truncate":
        del content[random.randrange(len(content)) :]
    elif kind == "zeros":
        start = random.randrange(len(content))
        content[start : start + 64] = bytes(len(content[start : start + 64]))
    elif kind != "swap":
        for _ in range(1 if kind == "flip" else random.randint(2, 40)):
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    return f"{kind} of {name}"


def ending(act: Callable[[], object]) -> object:
    """What an act returns, or the error that it ends in."""
    try:
        return act()
    except (Exception, SystemExit) as error:
        return error


def answer(words: Sequence[str]) -> tuple[object, str, str]:
    """A command's exit status, or its error, and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = ending(lambda: main(list(words)))
    return status, out.getvalue(), err.getvalue()


def outcome(name: str, sound: tuple[object, str, str]) -> str:
    """What a reader makes of runs/a now, compared with its answer when the run was sound."""
    status, out, err = answer(READERS[name])
    if status == 2 and not out and err.startswith("error: ") and err.count("\n") == 1:
        return REFUSED
    if status != 0:
        return f"{name} ends with {status!r} {err[-200:]}"
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


def attack_finished(count: int, readers: Sequence[str] = tuple(READERS)) -> Tally:
    """One damaged file in a finished run, before each of some commands."""
    train_models(short(), "whole", runtime=RUNTIME)
    train_models(short(first_seed=5), "runs/b", runtime=RUNTIME)
    shutil.copytree("whole", "runs/a")
    sound = {name: answer(READERS[name]) for name in readers}
    assert not any(status for status, *_ in sound.values()), sound
    found = Tally(f"a finished run, one file damaged, then read by {len(readers)} commands")
    for number in range(count):
        kind = damage_one(Path("runs/a"), Path("runs/b"), Random(number))
        for reader in readers:
            found.add(f"seed {number}, {kind}", outcome(reader, sound[reader]))
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


def train(folder: str = "cut", delay: float = 0.0) -> str:
    """Trains in a folder, or goes on, and returns what stopped it."""
    time.sleep(delay)
    end = ending(lambda: train_models(short(), folder, resume=True, runtime=RUNTIME))
    if isinstance(end, TbttError):
        return str(end)
    return repr(end) if isinstance(end, Exception) else ""


def resumed() -> str:
    """How the run `cut` goes on, compared with the run `whole`, which nothing disturbed."""
    end = ending(lambda: train_models(short(), "cut", resume=True, runtime=RUNTIME))
    if isinstance(end, TbttError):
        return REFUSED
    if isinstance(end, Exception):
        return repr(end)
    found, expected = untimed(Path("cut")), untimed(Path("whole"))
    other = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    return f"finishes with another {other}" if other else SAME


def tally_of(name: str, count: int, attack: Callable[[Random], str]) -> Tally:
    """An attack by each seed, beside the run `whole`; it leaves a run `cut` and returns how."""
    assert not train("whole")
    found = Tally(name)
    for number in range(count):
        found.add(f"seed {number}", attack(Random(number)))
        shutil.rmtree("cut")
    return found


def attack_unfinished(count: int) -> Tally:
    """One damaged file in a run that was stopped, then resumed."""

    def attack(random: Random) -> str:
        shutil.copytree("stopped", "cut")
        kind = damage_one(Path("cut"), Path("other"), random)
        result = resumed()
        return result if result in (REFUSED, SAME) else f"{kind}: {result}"

    with patch.object(training, "SAVING", float("inf")):
        for name, first_seed in (("stopped", 0), ("other", 5)):
            with contextlib.suppress(Stopped):
                recipe = short(first_seed=first_seed)
                train_models(recipe, name, runtime=RUNTIME, callback=Stopping(10))
        return tally_of("an unfinished run, one file damaged, then --resume", count, attack)


def attack_full_disk(count: int) -> Tally:
    """A disk that is full at a random write, then resumed on one that has room."""

    def attack(random: Random) -> str:
        left, fsync = random.randrange(20), os.fsync

        def full(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        with patch.object(files.os, "fsync", full):
            said = train()
        # nothing is said where the disk was full too late
        return resumed() if not said or "make room" in said else f"says {said}"

    return tally_of("a disk that is full, then --resume", count, attack)


def attack_together(count: int) -> Tally:
    """Two processes that train in one folder, one of them a moment later."""

    def attack(random: Random) -> str:
        delays = (0.0, random.random() / 5)
        with patch.object(files, "WAIT", 0), ProcessPoolExecutor(2, FORK) as pool:
            said = [text for text in pool.map(train, ("cut", "cut"), delays) if text]
        if strange := [text for text in said if "is being trained by process" not in text]:
            return str(strange)
        if untimed(Path("cut")) != untimed(Path("whole")):
            return "mixed"
        return REFUSED if said else SAME

    return tally_of("two processes train in one folder", count, attack)


def attack_killed(count: int) -> Tally:
    """A process that is killed at a random moment while it trains, then resumed by another."""

    def attack(random: Random) -> str:
        owner = FORK.Process(target=train)
        owner.start()
        time.sleep(random.random() / 2)
        owner.kill()
        owner.join()
        return resumed()

    return tally_of("a training killed, then --resume", count, attack)

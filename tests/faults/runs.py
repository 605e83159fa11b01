"""Attacks on run folders, each by its seed: how many were tried, survived and lost.

    python tests/faults/runs.py --attacks 200

prints the table of the long set. An attack is survived if a command is unaffected, or refuses in
one line with exit status 2, or names the run and shows the rest. Anything else is lost: a
traceback, another exit status, or another answer without a word.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny import contents, short

from tbtt_interp import files
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.train import training
from tbtt_interp.train.stacks import Runtime, TrainingCallback
from tbtt_interp.train.training import train_models

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


@dataclass
class Count:
    """What became of some attacks."""

    name: str
    tried: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, what: str, outcome: str) -> None:
        """Counts one attack: same, refused, or why it is lost."""
        self.tried += 1
        self.refused += outcome == "refused"
        if outcome not in ("same", "refused"):
            self.lost.append(f"{what}: {outcome}")


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
        return "refused"
    if status != 0:
        return f"{name} ends with {status} {err[-200:]}"
    if out == sound[1]:
        return "same"
    if name == "report":
        return "refused" if "left out, runs/a" in err else "report is another, silently"
    if name == "runs":
        rows = {row["run"]: row for row in json.loads(out)}
        others = {row["run"]: row for row in json.loads(sound[1])}
        named = rows.get("runs/a", {}).get("problem") or "unfinished" in out
        return "refused" if named and rows["runs/b"] == others["runs/b"] else f"runs lists {out}"
    return f"{name} answers otherwise, silently"


def attack_finished(count: int, readers: Sequence[str] = tuple(READERS), seed: int = 0) -> Count:
    """One damaged file in a finished run, before each of some commands."""
    train_models(short(), "runs/a", runtime=Runtime(compiled=False, threads=1))
    train_models(short(first_seed=5), "runs/b", runtime=Runtime(compiled=False, threads=1))
    shutil.copytree("runs/a", "whole")
    sound = {name: answer(READERS[name]) for name in readers}
    assert not [status for status, *_ in sound.values() if status], sound
    found = Count("finished run, one file damaged")
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
        train_models(short(), "cut", resume=True, runtime=Runtime(compiled=False, threads=1))
    except TbttError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    found = untimed("cut")
    other = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    return f"finishes with another {other}" if other else "same"


def attack_unfinished(count: int, seed: int = 0) -> Count:
    """One damaged file in a run that was stopped, then resumed."""
    runtime = Runtime(compiled=False, threads=1)
    expected = untimed(str(train_models(short(), "sound", runtime=runtime).folder))
    found = Count("unfinished run, one file damaged, --resume")
    with patch.object(training, "SAVING", float("inf")):
        for name, first_seed in (("stopped", 0), ("other", 5)):
            with contextlib.suppress(Stopped):
                recipe = short(first_seed=first_seed)
                train_models(recipe, name, runtime=runtime, callback=Stopping(10))
        for number in range(seed, seed + count):
            random = Random(number)
            shutil.copytree("stopped", "cut")
            name = random.choice(sorted(contents(Path("cut"))))
            kind = damage(Path("cut", name), Path("other", name), random)
            found.add(f"seed {number}, {kind} of {name}", resumed(expected))
            shutil.rmtree("cut")
    return found


def attack_full_disk(count: int, seed: int = 0) -> Count:
    """A disk that is full at a random write, then resumed on one that has room."""
    runtime = Runtime(compiled=False, threads=1)
    expected = untimed(str(train_models(short(), "roomy", runtime=runtime).folder))
    found = Count("full disk, then --resume")
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
                train_models(short(), "cut", resume=True, runtime=runtime)
                said = "make room"  # the disk was full too late
            except TbttError as error:
                said = str(error)
        result = resumed(expected)
        found.add(f"seed {number}", result if "make room" in said else f"says {said}")
        shutil.rmtree("cut")
    return found


def attack_together(count: int, seed: int = 0) -> Count:
    """Two trainings at once in one folder."""
    runtime = Runtime(compiled=False, threads=1)
    expected = untimed(str(train_models(short(), "alone", runtime=runtime).folder))
    found = Count("two trainings in one folder")
    for number in range(seed, seed + count):
        said: list[str] = []

        def train(said: list[str] = said) -> None:
            try:
                train_models(short(), "cut", resume=True, runtime=runtime)
            except TbttError as error:
                said.append(str(error))
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=train) for _ in range(2)]
        with patch.object(files, "WAIT", 0):
            threads[0].start()
            threads[1].join(Random(number).random() / 5) if threads[1].ident else None
            threads[1].start()
            for thread in threads:
                thread.join()
        strange = [text for text in said if "is being trained by process" not in text]
        result = "refused" if said else "same"
        other = untimed("cut") != expected
        found.add(f"seed {number}", str(strange) if strange else "mixed" if other else result)
        shutil.rmtree("cut")
    return found


@contextmanager
def elsewhere() -> Iterator[None]:
    """A new folder to work in."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def table(counts: Sequence[Count]) -> str:
    """The counts as a table in Markdown."""
    rows = ["| attack | tried | refused or named | unaffected | lost |", "|---|---|---|---|---|"]
    for count in counts:
        same = count.tried - count.refused - len(count.lost)
        rows.append(f"| {count.name} | {count.tried} | {count.refused} | {same} | "
                    f"{len(count.lost)} |")  # fmt: skip
    return "\n".join(rows)


def run(attacks: int) -> int:
    """Runs the long set, prints its table and what was lost; returns the exit status."""
    counts = []
    for attack, number in ((attack_finished, attacks), (attack_unfinished, attacks),
                           (attack_full_disk, attacks // 5), (attack_together, 12)):  # fmt: skip
        with elsewhere():
            counts.append(attack(number))
        print(table(counts[-1:]).splitlines()[-1], flush=True)
    print(f"\n{table(counts)}")
    for count in counts:
        print(*count.lost, sep="\n")
    return int(any(count.lost for count in counts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attacks", type=int, default=200, help="on each kind of run")
    sys.exit(run(parser.parse_args().attacks))

"""What all attacks share: a case, a place to try it in, its limits, and the tally.

An attack is survived if it is answered, or refused by one short line, within the limits, and
nothing is written elsewhere. Where it must be refused, an answer is a loss, too.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tbtt_interp.errors import TbttError

SECONDS, MEGABYTES = 1.0, 200  # of the processor and memory, above the same process before
WORKING = 15.0, 1_000  # one that is answered: a corpus of 4 KB takes no gigabytes
HUGE = 10**9
OWN = ("mine.toml", "c.txt", "c.tsv", "c.csv", "secret.txt")  # what attacks themselves write
REFUSED, SAME = "refused", "same"  # outcomes of what is survived; any other says what was lost
Attack = Callable[[], object]


class Case(NamedTuple):
    """One attack: what it is, what is measured, what is made before, and whether it must fail."""

    name: str
    act: Attack
    make: Attack = lambda: None
    must_fail: bool = False


@dataclass
class Tally:
    """Attacks of one kind: how many were tried, and refused, and what was lost."""

    name: str
    tried: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, what: str, outcome: str) -> None:
        """Counts one attack by its outcome."""
        self.tried += 1
        self.refused += outcome == REFUSED
        if outcome not in (REFUSED, SAME):
            self.lost.append(f"{what}: {outcome}"[:400])

    @property
    def row(self) -> str:
        """A line of the table in docs/tested.md."""
        same = self.tried - self.refused - len(self.lost)
        counts = (self.tried, self.refused, same, len(self.lost))
        return f"| {self.name} | " + " | ".join(f"{n:,}" for n in counts) + " |"


class Hang(BaseException):
    """An attack that did not end."""


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder inside another one, as the present folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as outer:
        inner = Path(outer, "a", "b")
        inner.mkdir(parents=True)
        os.chdir(inner)
        try:
            yield inner
        finally:
            os.chdir(before)


def attempt(attack: Attack) -> str:
    """An attack's outcome."""
    inner = Path.cwd()
    outer = inner.parents[1]
    before = set(outer.rglob("*"))
    if (peak := Path("/proc/self/clear_refs")).exists():
        peak.write_text("5")  # resets the peak of memory
    memory, started = _memory("VmRSS"), time.process_time()
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(600)  # of the wall, also where the machine is busy
    error: BaseException | None = None
    try:
        attack()
    except (Exception, Hang) as raised:
        error = raised
    finally:
        signal.alarm(0)
    seconds, more = time.process_time() - started, (_memory("VmHWM") - memory) / 1_024
    was_refused = isinstance(error, TbttError)
    if error is not None and not was_refused:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if error is not None and not (str(error).strip() and len(str(error)) < 2_000):
        return f"a message of {len(str(error)):,} characters"
    most_seconds, most_megabytes = (SECONDS, MEGABYTES) if was_refused else WORKING
    if seconds > most_seconds or more > most_megabytes:
        return f"it took {seconds:.1f} s and {more:.0f} MB"
    may = {inner / name for name in ("runs", *OWN)}
    if new := [p for p in {*outer.rglob("*")} - before if not may & {p, *p.parents}]:
        return f"it wrote {min(new).relative_to(outer)}"
    return REFUSED if was_refused else SAME


def _hang(*_: object) -> None:
    raise Hang("it did not end within ten minutes")


def _memory(name: str) -> int:
    """A figure of this process, in kilobytes; 0 where there is no /proc."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


@contextmanager
def restored(make: Attack) -> Iterator[Callable[[Case], str]]:
    """What tries a case in a folder with what `make` makes, and nothing else, each time."""
    with workspace() as inner:
        make()
        kept = inner.parent / "kept"
        shutil.copytree(inner, kept)

        def once(case: Case) -> str:
            for path in inner.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(kept, inner, dirs_exist_ok=True)
            case.make()
            return attempt(case.act)

        def tried(case: Case) -> str:
            outcome = once(case)
            if outcome.startswith("it took"):  # the first time may import
                outcome = once(case)
            return "it was accepted" if case.must_fail and outcome == SAME else outcome

        yield tried


def try_cases(name: str, cases: Iterable[Case], make: Attack, every: int = 1) -> Tally:
    """Tries every case of a kind, or every few, each beside what `make` makes."""
    tally = Tally(name)
    with restored(make) as outcome_of:
        for number, case in enumerate(cases):
            if number % every == 0:
                tally.add(case.name, outcome_of(case))
    return tally


def fuzz(
    name: str, strategy: st.SearchStrategy[Any], attack_of: Callable[[Any], Attack], examples: int,
    make: Attack,
) -> Tally:  # fmt: skip
    """Tries so many inputs from Hypothesis, the same ones every time."""
    tally = Tally(name)
    with restored(make) as outcome_of:

        @seed(0)
        @settings(max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(strategy)
        def run(value: Any) -> None:
            tally.add(f"{value!a}", outcome_of(Case("", attack_of(value))))

        run()
    return tally

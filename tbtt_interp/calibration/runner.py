"""Draws of every plant, read by every instrument; kept one by one, so that a run can be resumed.

A draw stands in a file with the name of its plant's code and of each instrument that read it. After
a change of plants or instruments only what this makes out of date is measured again.
"""

import functools
import hashlib
import inspect
import json
import lzma
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tbtt_interp.calibration import design, further_instruments, further_plants, nulls, plants
from tbtt_interp.calibration.instruments import INSTRUMENTS, scored
from tbtt_interp.calibration.plants import PLANTS
from tbtt_interp.errors import TbttError
from tbtt_interp.files import write_whole
from tbtt_interp.threads import use_one_thread

Draw = dict[str, Any]
REGISTERED = further_instruments, further_plants, nulls  # each adds to INSTRUMENTS or PLANTS


class Job(NamedTuple):
    """One draw of a plant."""

    plant: str
    effect: float
    number: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How much is drawn.

    Attributes:
        bases: draws of each plant at each effect size; each model has a random basis of its own.
        nulls: draws of each null.
        largest_only: whether plants have their largest effect size alone.
        fast_nulls: whether nulls are read by the fast instruments alone.
    """

    bases: int = 20
    nulls: int = 200
    largest_only: bool = False
    fast_nulls: bool = False

    def __post_init__(self) -> None:
        if self.bases < 1 or self.nulls < 0:
            raise TbttError(
                f"a calibration needs bases ≥ 1 and nulls ≥ 0, got {self.bases} and {self.nulls}"
            )

    @property
    def jobs(self) -> list[Job]:
        """Every draw: the plants by turns, then the nulls by turns.

        So a part of the table has some draws of each plant.
        """
        found = [
            Job(plant.name, effect, number)
            for plant in PLANTS.values()
            for effect in plant.effects[-1 if self.largest_only else 0 :]
            for number in range(self.nulls if plant.is_null else self.bases)
        ]
        return sorted(found, key=lambda job: (PLANTS[job.plant].is_null, job.number))

    def instruments(self, job: Job) -> list[str]:
        """The instruments that are to read a draw."""
        fast_alone = self.fast_nulls and PLANTS[job.plant].is_null
        return [one.name for one in INSTRUMENTS.values() if one.is_fast or not fast_alone]

    def unread(self, draws: Iterable[Draw]) -> dict[str, int]:
        """How many of the recipe's draws an instrument has not read, where there are any."""
        read = {Job(draw["plant"], draw["effect"], draw["number"]): draw["read"] for draw in draws}
        left = Counter(name for job in self.jobs for name in self.instruments(job)
                       if name not in read.get(job, ()))  # fmt: skip
        return dict(left)


SHORT = Recipe(bases=1, largest_only=True, fast_nulls=True)


@functools.cache
def plant_code(name: str) -> str:
    """A name for the code that decides what a plant's models are."""
    own = sys.modules[PLANTS[name].build.__module__]
    return _digest(map(inspect.getsource, dict.fromkeys((design, plants, own))))


@functools.cache
def instrument_code(name: str) -> str:
    """A name for an instrument's question, how it reads models, and what it should find."""
    one = INSTRUMENTS[name]
    return _digest([one.question, *map(inspect.getsource, (one.read, one.expected))])


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def measure(job: Job, names: Sequence[str], known: Draw | None = None) -> Draw:
    """One draw, read by some instruments, after what others have read of it.

    Returns:
        the job; `code`, of the plant; `read`, by instrument its code, also where it has nothing to
        be scored against; CPU `seconds` by instrument; and the `rows` of `scored`, to four digits.
    """
    plant, start = PLANTS[job.plant], time.process_time()
    planted = plant.draw(job.effect, job.number)
    seconds = {"plant": time.process_time() - start}
    read, rows = {name: instrument_code(name) for name in names}, []
    for name in names:
        instrument, start = INSTRUMENTS[name], time.process_time()
        if plant.name in instrument.unfit or not instrument.expected(planted.truth):
            continue
        rows += scored(instrument, planted.models, planted.truth)
        seconds[name] = time.process_time() - start
    seconds = {name: round(x, 3) for name, x in seconds.items()}
    rows = [{name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in row.items()}
            for row in rows]  # fmt: skip
    if known:
        read, rows = known["read"] | read, known["rows"] + rows
        seconds = known["seconds"] | seconds
    return {**job._asdict(), "code": plant_code(plant.name), "read": read, "seconds": seconds,
            "rows": rows}  # fmt: skip


def finished(*paths: Path) -> dict[Job, Draw]:
    """The draws that files have of the present plants, as far as present instruments read them.

    Of several lines with the same draw the last one counts. A file that is not there has none.
    """
    found: dict[Job, Draw] = {}
    for path in filter(Path.is_file, paths):
        read = lzma.open if path.suffix == ".xz" else open
        with read(path, "rt", encoding="utf-8") as file:
            for line in file:
                try:
                    draw = json.loads(line)
                except ValueError:  # where a run was killed
                    continue
                job = Job(draw.get("plant", ""), draw.get("effect", 0.0), draw.get("number", 0))
                if job.plant in PLANTS and draw.get("code") == plant_code(job.plant):
                    found[job] = _up_to_date(draw)
    return found


def _up_to_date(draw: Draw) -> Draw:
    """A draw without what other instruments read, or these when their question was another."""
    read = {name: code for name, code in draw["read"].items()
            if name in INSTRUMENTS and code == instrument_code(name)}  # fmt: skip
    kept = {"plant", *read}
    return {
        **draw, "read": read, "rows": [row for row in draw["rows"] if row["instrument"] in read],
        "seconds": {name: x for name, x in draw["seconds"].items() if name in kept},
    }  # fmt: skip


def keep(draws: Iterable[Draw], path: Path) -> None:
    """Writes draws into one compressed file, from which another machine can go on."""
    text = "".join(json.dumps(draw) + "\n" for draw in draws)
    write_whole(path, lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def run_recipe(
    recipe: Recipe, folder: Path, *, shipped: Path | None = None, processes: int = 1
) -> Iterator[Draw]:
    """Every draw of a recipe, in any order, of which finished ones are not made again.

    A draw does not depend on how many there are, so that a larger recipe goes on from a smaller.
    Where an instrument has not read a finished draw, the same models are made for it alone.

    Args:
        folder: gets `draws.jsonl`, a line for each draw.
        shipped: a file of `keep` with finished draws.
    """
    path = folder / "draws.jsonl"
    known = finished(*([shipped] if shipped else []), path)
    left: dict[Job, list[str]] = {}
    for job in recipe.jobs:
        names = recipe.instruments(job)
        if job in known:
            names = [name for name in names if name not in known[job]["read"]]
        if names or job not in known:
            left[job] = names
        else:
            yield known[job]
    folder.mkdir(parents=True, exist_ok=True)
    is_cut = path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n" * bool(is_cut))
        for draw in _measured([(job, left[job], known.get(job)) for job in left], processes):
            file.write(json.dumps(draw) + "\n")
            file.flush()
            yield draw


def _measured(jobs: Sequence[tuple[Job, list[str], Draw | None]], processes: int) -> Iterator[Draw]:
    if processes == 1:
        yield from (measure(*job) for job in jobs)
        return
    from concurrent.futures import as_completed

    from loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(processes, initializer=use_one_thread)
    try:
        for future in as_completed(pool.submit(measure, *job) for job in jobs):
            yield future.result()
    finally:  # also where nobody asks for the rest
        pool.shutdown(kill_workers=True)

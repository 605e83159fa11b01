"""Draws of every plant, read by every instrument; kept one by one, so that a run can be resumed."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tbtt_interp.calibration import design, nulls, plants
from tbtt_interp.calibration.instruments import INSTRUMENTS, scored
from tbtt_interp.calibration.plants import PLANTS
from tbtt_interp.errors import TbttError
from tbtt_interp.files import write_whole
from tbtt_interp.threads import use_one_thread

Draw = dict[str, Any]


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
        """Every draw, plants and nulls by turns, so that a part of the table has some of each."""
        found = [
            Job(plant.name, effect, number)
            for plant in PLANTS.values()
            for effect in plant.effects[-1 if self.largest_only else 0 :]
            for number in range(self.nulls if plant.is_null else self.bases)
        ]
        return sorted(found, key=lambda job: job.number)

    @property
    def hash(self) -> str:
        """A name for the recipe, the plants' code and the instruments' questions."""
        return _digest([dataclasses.asdict(self), plants_hash()])


def plants_hash() -> str:
    """A name for the plants' own code and the instruments' questions.

    A table is only as new as its hash says: other plants need a new table.
    """
    code = [Path(str(module.__file__)).read_text(encoding="utf-8").replace("\r\n", "\n")
            for module in (design, plants, nulls)]  # fmt: skip
    return _digest([code, [(one.name, one.question) for one in INSTRUMENTS.values()]])


def _digest(plain: object) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


SHORT = Recipe(bases=1, largest_only=True, fast_nulls=True)


def measure(job: Job, fast_nulls: bool = False) -> Draw:
    """One draw, read by every instrument that has a truth to be scored against, and the seconds."""
    plant = PLANTS[job.plant]
    start = time.process_time()
    planted = plant.draw(job.effect, job.number)
    rows, seconds = [], {"plant": time.process_time() - start}
    for name, instrument in INSTRUMENTS.items():
        is_asked = instrument.expected(planted.truth) and plant.name not in instrument.unfit
        if not is_asked or (fast_nulls and plant.is_null and not instrument.is_fast):
            continue
        start = time.process_time()
        rows += scored(instrument, planted.models, planted.truth)
        seconds[name] = time.process_time() - start
    return {**job._asdict(), "seconds": seconds, "rows": rows}


def finished(path: Path, fast_nulls: bool = False) -> list[Draw]:
    """The draws that a file has; none where it is not there.

    Raises:
        TbttError: if they are of other plants.
    """
    if not path.is_file():
        return []
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    if json.loads(first) != _header(fast_nulls):
        raise TbttError(
            f"{path} has draws of other plants or with other instruments: nothing was written; "
            "give another --out FOLDER"
        )
    draws = []
    for line in lines:
        try:
            draws.append(json.loads(line))
        except ValueError:  # the last one, where a run was killed
            break
    return draws


def _header(fast_nulls: bool) -> dict[str, object]:
    return {"plants": plants_hash(), "fast_nulls": fast_nulls}


def run_recipe(recipe: Recipe, folder: Path, *, processes: int = 1) -> Iterator[Draw]:
    """Every draw of a recipe, in any order, of which those in the folder are not made again.

    A draw does not depend on how many there are, so that a larger recipe goes on from a smaller.

    Args:
        folder: gets `draws.jsonl`, a line for each draw.
    """
    path = folder / "draws.jsonl"
    known = finished(path, recipe.fast_nulls)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_header(recipe.fast_nulls)), *map(json.dumps, known)]
    write_whole(path, ("\n".join(lines) + "\n").encode())
    left = set(recipe.jobs)
    for draw in known:
        if (job := Job(draw["plant"], draw["effect"], draw["number"])) in left:
            left.remove(job)
            yield draw
    jobs = [job for job in recipe.jobs if job in left]
    with open(path, "a", encoding="utf-8") as file:
        for draw in _measured(jobs, recipe.fast_nulls, processes):
            file.write(json.dumps(draw) + "\n")
            file.flush()
            yield draw


def _measured(jobs: Sequence[Job], fast_nulls: bool, processes: int) -> Iterator[Draw]:
    if processes == 1:
        yield from (measure(job, fast_nulls) for job in jobs)
        return
    from concurrent.futures import as_completed

    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(processes, initializer=use_one_thread) as pool:
        for future in as_completed(pool.submit(measure, job, fast_nulls) for job in jobs):
            yield future.result()

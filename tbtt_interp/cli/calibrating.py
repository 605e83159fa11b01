"""`tbtt calibrate`: every instrument on planted models and on nulls."""

import math
import sys
import time
from pathlib import Path
from typing import Annotated

from typer import Option

from tbtt_interp.errors import TbttError


def calibrate_command(
    bases: Annotated[int, Option(help="Draws of each planted mechanism at each effect size.")] = 20,
    nulls: Annotated[int, Option(help="Draws of each null, where there is nothing to find.")] = 200,
    short: Annotated[
        bool,
        Option(
            "--short",
            help="Each mechanism once, at its largest effect; fast nulls only.",
        ),
    ] = False,
    processes: Annotated[int | None, Option(help="Draws made at once. [one per core]")] = None,
    minutes: Annotated[
        float | None, Option(help="Stop then, and write what is finished. [when all is]")
    ] = None,
    out: Annotated[
        Path, Option(help="Folder of finished draws; the same command goes on from them.")
    ] = Path("runs/calibration"),
    page: Annotated[
        Path | None,
        Option(
            help="File of the table, with finished draws in a file beside it. "
            "[docs/calibration.md; with --short none]"
        ),
    ] = None,
) -> int:
    """Do analyses find a mechanism that was planted, and nothing else?

    tbtt calibrate

    tbtt calibrate --short --out runs/calibration-short

    Draws that are finished are not made again, unless their plant has changed. After a change of an
    instrument they are made for it alone.
    """
    from loky import cpu_count
    from rich.console import Console
    from rich.progress import track

    from tbtt_interp.calibration.runner import Recipe, finished, keep, run_recipe
    from tbtt_interp.calibration.table import DRAWS, SOUND, calibration_table, failures
    from tbtt_interp.calibration.table import page as written
    from tbtt_interp.files import write_whole
    from tbtt_interp.lens import lens_version

    if lens_version() >= (4,):
        raise TbttError(
            "calibration plants models of attention alone, which need TransformerLens 3.9: "
            "pip install 'transformer-lens>=3.9,<4'"
        )
    if processes is not None and processes < 1:
        raise TbttError(f"processes must be at least 1, got {processes}")
    recipe = Recipe(bases=1 if short else bases, nulls=nulls, largest_only=short, fast_nulls=short)
    page = Path("docs/calibration.md") if page is None and not short else page
    shipped = page and page.with_name(DRAWS)
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    for _ in track(
        run_recipe(recipe, out, shipped=shipped, processes=processes or cpu_count()), "calibrating",
        total=len(recipe.jobs), console=Console(stderr=True), transient=True,
        disable=not sys.stderr.isatty(),
    ):  # fmt: skip
        if time.monotonic() > end:
            break
    known = finished(*([shipped] if shipped else []), out / "draws.jsonl")
    draws = [known[job] for job in sorted(recipe.jobs) if job in known]
    table = calibration_table(draws)
    if page and shipped:
        options = f" --bases {bases}" * (bases != 20) + f" --nulls {nulls}" * (nulls != 200)
        command = "tbtt calibrate" + (" --short" if short else options)
        page.parent.mkdir(parents=True, exist_ok=True)
        write_whole(page, written(draws, recipe, command).encode())
        keep((known[job] for job in sorted(known)), shipped)
        print(f"{page} has the table of {len(draws):,} draws.")
    columns = ["instrument", "kind", "found_large", "of_large", "false", "null_draws", "verdict"]
    print(table[columns].round(3).to_string(index=False))
    failed = failures(table)
    print("\n".join(["Problems:", *failed] if failed else [f"Problems: {SOUND}"]))
    return 1 if failed else 0

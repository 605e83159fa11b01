"""`tbtt train`, which is also `python -m tbtt_interp.train`."""

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tbtt_interp.cli.output import AsJson, print_json, print_table
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.train.recipe import Recipe

HeldOut = Annotated[
    list[str] | None,
    typer.Option(help="Operands never trained on together, repeatable. [5,7]", metavar="A,B"),
]
DEFAULT_RECIPE = "quick"
LONG = 1  # hours
SHOWN = 64  # rows of the table


def train_command(
    size: Annotated[
        str | None, typer.Option(help="small, medium, large or mlt (n14, n28, n56). [medium]")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="arithmetic, facts, joint, or the path of your own lines. [arithmetic]"),
    ] = None,
    framing: Annotated[
        str | None,
        typer.Option(help="file, shuffled or line: how lines become training windows. [file]"),
    ] = None,
    held_out: HeldOut = None,
    seeds: Annotated[int | None, typer.Option(help="Models, trained side by side. [4]")] = None,
    first_seed: Annotated[int | None, typer.Option(help="The first model's seed. [0]")] = None,
    corpus_seed: Annotated[
        int | None, typer.Option(help="Seed of the file's line order. [0]")
    ] = None,
    same_file: Annotated[
        bool | None,
        typer.Option("--same-file", help="One line order for all seeds, not one each."),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(help="quick, paper, paper-wd, mlt-cpu, grokking, influence, or a TOML file."),
    ] = DEFAULT_RECIPE,
    steps: Annotated[
        int | None, typer.Option(help="Training steps; the recipe's schedule scales with them.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Windows a step, or 'all' lines with framing line.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's weight decay.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. [runs/TASK-SIZE-FRAMING…]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was cut off.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps. [cpu]")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads. [all cores]")] = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile the step. [where that pays]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train capacity-scaled models side by side, and say what they answer.

    python -m tbtt_interp.train --size medium

    python -m tbtt_interp.train --size small --framing line --held-out 9,9 --seeds 8
    """
    from tbtt_interp.train.resolve import resolve_recipe

    flags: dict[str, Any] = {
        "model.size": size,
        "task": task,
        "framing": framing,
        "held_out": None if held_out is None else [list(parse_pair(pair)) for pair in held_out],
        "seeds": seeds,
        "first_seed": first_seed,
        "corpus_seed": corpus_seed,
        "same_file": same_file,
        "steps": steps,
        "training.batch": int(batch) if batch and re.fullmatch(r"-?\d+", batch) else batch,
        "training.learning_rate": learning_rate,
        "training.weight_decay": weight_decay,
    }
    resolved = resolve_recipe(recipe, flags)
    folder = out or Path("runs") / default_name(resolved)
    _train_and_report(
        resolved, folder, resume=resume, as_json=as_json,
        device=device, threads=threads, compiled=compiled,
    )  # fmt: skip


def _train_and_report(
    recipe: "Recipe",
    folder: Path,
    *,
    resume: bool,
    as_json: bool,
    device: str | None,
    threads: int | None,
    compiled: bool | None,
) -> None:
    from tbtt_interp.cli.progress import ProgressBar
    from tbtt_interp.scores import share_sentence
    from tbtt_interp.train.cost import estimated_hours
    from tbtt_interp.train.existing import existing_run
    from tbtt_interp.train.table import (
        NOTES,
        groups_of,
        next_step,
        share_interval,
        training_rows,
        training_table,
    )
    from tbtt_interp.train.training import Machine, train_models

    machine = Machine(device=device, threads=threads, compiled=compiled)
    known = existing_run(recipe, folder, resume=resume)
    with ProgressBar() as progress:
        if known is not None and known.is_complete:
            progress.said(f"{folder} is trained already; this is its report.")
        elif device in (None, "cpu") and (hours := estimated_hours(recipe)) > LONG:
            is_mlt = recipe.model.size == "mlt" and recipe.name != "mlt-cpu"
            hint = "; --recipe mlt-cpu is made for them" if is_mlt else ""
            progress.said(
                f"This is about {hours:,.{0 if hours > 10 else 1}f} hours of two CPU cores{hint}. "
                "It can be cut off at any moment and resumed."
            )
        try:
            run = train_models(recipe, folder, resume=resume, machine=machine, watcher=progress)
        except KeyboardInterrupt:
            progress.bar.stop()
            if (folder / "config.json").is_file():
                print(f"\ninterrupted; to go on: {_again('--resume')}", file=sys.stderr)
            else:
                print("\ninterrupted before training began; nothing was written", file=sys.stderr)
            raise typer.Exit(130) from None
    table = training_table(run)
    if as_json:
        print_json(table)
        return
    headers, rows = training_rows(table)
    more = []
    if len(rows) > SHOWN:
        more = [f"Of {len(rows) - 1} models the first {SHOWN - 1}, then all; --json has every one."]
        rows = rows[: SHOWN - 1] + rows[-1:]
    words, framing = next_step(run)
    shares = {group: share_interval(table[:-1], group) for group in groups_of(table)}
    print_table(
        headers,
        rows,
        title=f"{folder}: {recipe.training.steps:,} steps",
        notes=[
            *more,
            share_sentence(shares),
            *NOTES,
            "",
            f"Next: {words}: {_again('--framing', framing)}",
        ],
        rule_before_last=1,
    )


def _again(*more: str) -> str:
    """This command once more, with other options at its end; another framing is another run."""
    dropped = {"--framing": 1, "--out": 1} if "--framing" in more else {}
    dropped |= {"--resume": 0, "--json": 0}
    words, kept = list(sys.argv[1:]), []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name == "--batch" and "--framing" in more and "all" in (value, *words[:1]):
            words = words if equals else words[1:]
        elif name not in dropped:
            kept.append(word)
        elif not equals:
            words = words[dropped[name] :]
    program = Path(sys.argv[0]).name
    start = ["python", "-m", "tbtt_interp.train"] if program == "__main__.py" else [program]
    return shlex.join([*start, *kept, *more])


def parse_pair(text: str) -> tuple[int, int]:
    """An operand pair from the command line.

    >>> parse_pair("5,7")
    (5, 7)
    """
    if not re.fullmatch(r"\s*-?\d+\s*,\s*-?\d+\s*", text):
        raise TbttError(f"held-out pair '{text}' is no pair: give two operands, as in 5,7")
    a, b = text.split(",")
    return int(a), int(b)


def default_name(recipe: "Recipe") -> str:
    """The run's folder name: task, size, framing; recipe and held-out pairs if not the default."""
    parts = [Path(recipe.task).stem, recipe.model.size, recipe.framing]
    if recipe.name != DEFAULT_RECIPE:
        parts.append(recipe.name)
    if recipe.held_out and recipe.held_out != ((5, 7),):
        parts.append("without-" + "-".join(f"{a}{b}" for a, b in recipe.held_out))
    return "-".join(parts)

"""`tbtt train`, also `python -m tbtt_interp.train`, and `tbtt verify`."""

import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from tbtt_interp.cli.output import AsJson, RunFolder, print_json, print_table
from tbtt_interp.errors import TbttError, folder_word, listed, printable

if TYPE_CHECKING:
    from tbtt_interp.runs import Run
    from tbtt_interp.train.recipe import Recipe

HeldOut = Annotated[
    list[str] | None,
    Option(help="Operands never trained on together, repeatable. [5,7]", metavar="A,B"),
]
DEFAULT_RECIPE = "quick"
LONG = 1  # hours above which training announces its time
SHOWN = 64  # rows of the printed table
TRUE_IS_A_WORD = ("changes.order", "changes.answers")  # keys of which "true" is no boolean


def train_command(
    size: Annotated[
        str | None,
        Option(help="small, medium, large, mlt, or a shape such as L2H4D32M128. [medium]"),
    ] = None,
    task: Annotated[
        str | None, Option(help="arithmetic, facts, joint, or a file of lines. [arithmetic]")
    ] = None,
    framing: Annotated[
        str | None,
        Option(help="How lines become windows: file, shuffled, line, aligned, cut. [file]"),
    ] = None,
    window: Annotated[
        int | None, Option(help="Characters in a window. [the task's; of your own: two lines]")
    ] = None,
    held_out: HeldOut = None,
    seeds: Annotated[int | None, Option(help="Models, trained side by side. [4]")] = None,
    first_seed: Annotated[int | None, Option(help="The first model's seed. [0]")] = None,
    corpus_seed: Annotated[int | None, Option(help="Seed of the file's line order. [0]")] = None,
    same_file: Annotated[
        bool | None, Option("--same-file", help="One line order for all seeds, not one per seed.")
    ] = None,
    recipe: Annotated[
        str, Option(help="quick, paper, paper-wd, mlt-cpu, grokking, influence, or a TOML file.")
    ] = DEFAULT_RECIPE,
    steps: Annotated[int | None, Option(help="Training steps; scales the schedule.")] = None,
    settings: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of the recipe, as in training.learning_rate=3e-3. Repeatable.",
        ),
    ] = None,
    origin: Annotated[
        str | None, Option("--from", help="A run to go on from, by its recipe.", metavar="RUN")
    ] = None,
    step: Annotated[int | None, Option(help="The step of that run. [its last]")] = None,
    out: Annotated[Path | None, Option(help="The run's folder. [runs/TASK-SIZE-FRAMING…]")] = None,
    resume: Annotated[
        Path | None, Option(help="Continue the interrupted run in this folder.", metavar="DIR")
    ] = None,
    device: Annotated[str | None, Option(help="cpu, cuda or mps. [cpu]")] = None,
    threads: Annotated[int | None, Option(help="Processor threads. [all cores]")] = None,
    compiled: Annotated[
        bool | None, Option("--compile/--no-compile", help="Compile the step. [where possible]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train models of one size side by side, and count their answers.

    python -m tbtt_interp.train --size medium

    python -m tbtt_interp.train --size small --framing line --held-out 9,9 --seeds 8

    python -m tbtt_interp.train --framing line --set changes.digits=arc

    python -m tbtt_interp.train --resume runs/arithmetic-medium-file
    """
    from tbtt_interp.train.progress import ProgressBar
    from tbtt_interp.train.recipe import resolve_recipe
    from tbtt_interp.train.stacks import Runtime
    from tbtt_interp.train.sweep import estimated_hours
    from tbtt_interp.train.training import existing_run, train_models

    flags = {
        "model.size": size, "task": task, "framing": framing, "seeds": seeds,
        "held_out": None if held_out is None else [list(parse_pair(pair)) for pair in held_out],
        "first_seed": first_seed, "corpus_seed": corpus_seed, "same_file": same_file,
        "steps": steps, "training.window": window, "from": origin, "from_step": step,
        **dict(map(parse_setting, settings or [])),
    }  # fmt: skip
    if resume is None:
        resolved = resolve_recipe(recipe, flags)
        folder = out or Path("runs") / default_name(resolved)
    elif out or recipe != DEFAULT_RECIPE or any(value is not None for value in flags.values()):
        raise TbttError(
            "--resume continues a run with the settings it was begun with: beside it, give only "
            "--device, --threads, --compile or --json"
        )
    else:
        resolved, folder = recipe_of(resume), resume
    runtime = Runtime(device=device, threads=threads, compiled=compiled)
    existing = existing_run(resolved, folder, resume=resume is not None)
    progress = ProgressBar()
    hours = estimated_hours(resolved)
    if existing is None and window is None and Path(resolved.task).is_file():
        length = resolved.training.window
        progress.on_message(f"Windows have {length} characters; --window N gives them others.")
    if existing is not None and existing.is_complete:
        progress.on_message(f"{folder} is already trained; its table follows.")
    elif device in (None, "cpu") and hours > LONG:
        is_mlt = resolved.model.size == "mlt" and resolved.name != "mlt-cpu"
        progress.on_message(
            f"This takes about {hours:,.{0 if hours > 10 else 1}f} hours of two CPU cores"
            f"{'; --recipe mlt-cpu is made for them' if is_mlt else ''}. "
            "It can be interrupted at any moment and resumed."
        )
    try:
        with progress.bar:
            run = train_models(
                resolved, folder, resume=resume is not None, runtime=runtime, callback=progress
            )
    except KeyboardInterrupt:
        if (folder / "config.json").is_file():
            again = ["--resume", str(folder)]
            print(f"\ninterrupted; to resume: {_program()} {shlex.join(again)}", file=sys.stderr)
        else:
            print("\ninterrupted before training began; nothing was written", file=sys.stderr)
        raise typer.Exit(130) from None
    _print_run(run, as_json=as_json)


def verify_command(
    run_folder: RunFolder,
    steps: Annotated[int | None, Option(help="Train at most this many steps. [all]")] = None,
    threads: Annotated[int | None, Option(help="Processor threads. [all cores]")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a run again, and compare the bytes of its weights.

    tbtt verify runs/arithmetic-medium-file --steps 1000

    The exit status is 1 if they differ.
    """
    from tbtt_interp.runs import load_run
    from tbtt_interp.train.progress import ProgressBar
    from tbtt_interp.train.verify import verify_run

    run = load_run(run_folder)
    progress = ProgressBar()
    with progress.bar:
        found = verify_run(run, steps, threads=threads, callback=progress)
    if as_json:
        print_json([found._asdict() | {"same": found.is_same}])
    else:
        verdict = "the same bytes" if found.kept == found.again else "DIFFERENT BYTES"
        count = f"{len(run.seeds)} models after {found.step:,} steps"
        print(f"{printable(str(run.folder))}, {count}: {verdict}")
        print(f"SHA-256  stored {found.kept}\n  trained again {found.again}")
        if found.altered:
            altered = printable(listed(found.altered, "and"))
            print(f"Altered or lost since training: {altered}.")
    if not found.is_same:
        raise typer.Exit(1)


def _print_run(run: "Run", *, as_json: bool) -> None:
    from tbtt_interp import tables

    table = tables.training_table(run)
    if as_json:
        print_json(table)
        return
    headers, rows = tables.training_rows(table)
    accuracy = tables.accuracy_sentence(tables.accuracy_intervals(table[:-1]))
    notes = [accuracy, *tables.TRAINING_NOTES]
    if len(rows) > SHOWN:
        notes.insert(0, f"The first {SHOWN - 1} of {len(rows) - 1} models; --json prints all.")
        rows = rows[: SHOWN - 1] + rows[-1:]
    reason, framing = tables.next_step(run)
    if not any(word.startswith("--resume") for word in sys.argv):  # it has none of the options
        notes += ["", f"Next: {reason}: {_again('--framing', framing)}"]
    title = f"{run.folder}: {run.config.steps:,} steps"
    print_table(headers, rows, title=title, notes=notes, rule_before_last=1)


def _again(*more: str) -> str:
    """The present command with other options at its end; another framing is another run."""
    dropped = "json"
    if "--framing" in more:
        dropped += r"|set[= ]training\.batch=all|(framing|out)[= ]('[^']*'|\S+)"
    words = sys.argv[1:] if sys.argv[1:2] != ["train"] else sys.argv[2:]
    given = re.sub(rf" --({dropped})(?= |$)", "", f" {shlex.join(words)}")
    return f"{_program()}{given} {shlex.join(more)}"


def _program() -> str:
    name = Path(sys.argv[0]).name
    return "python -m tbtt_interp.train" if name == "__main__.py" else f"{name} train"


def recipe_of(folder: Path) -> "Recipe":
    """The recipe by which the run in a folder was begun; its own lines are read from there."""
    from tbtt_interp.runs import load_run
    from tbtt_interp.train.recipe import recorded_recipe
    from tbtt_interp.train.source import own_recipe

    run = load_run(folder)
    if run.config.recipe is None:
        raise TbttError(f"{folder} holds an imported model, which has no training to resume")
    return recorded_recipe(own_recipe(run.config.recipe, run.folder))


def parse_pair(text: str) -> tuple[int, int]:
    """An operand pair from the command line.

    >>> parse_pair("5,7")
    (5, 7)
    """
    if not re.fullmatch(r"\s*-?\d{1,9}\s*,\s*-?\d{1,9}\s*", text):
        raise TbttError(f"held-out pair '{text}' is no pair: give two operands, as in 5,7")
    a, b = text.split(",")
    return int(a), int(b)


def parse_setting(text: str) -> tuple[str, object]:
    """A recipe's key and value from the command line; the value is TOML, or else a text.

    >>> parse_setting("changes.smooth=0.5"), parse_setting("changes.digits=arc")
    (('changes.smooth', 0.5), ('changes.digits', 'arc'))
    >>> parse_setting("changes.order=true"), parse_setting("model.tied=true")
    (('changes.order', 'true'), ('model.tied', True))
    """
    key, found, value = (part.strip() for part in text.partition("="))
    if not found or not key:
        raise TbttError(f"--set {text} is no setting: give KEY=VALUE, as in changes.digits=arc")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
        return key, value if isinstance(read, bool) and key in TRUE_IS_A_WORD else read
    except (ValueError, RecursionError):  # also a number of thousands of digits
        return key, value


def default_name(recipe: "Recipe") -> str:
    """The run's folder name: task, size, framing; what is not the default; what is changed."""
    words = [folder_word(Path(recipe.task).stem), recipe.model.size, recipe.framing]
    if recipe.name != DEFAULT_RECIPE:
        words.append(recipe.name)
    if recipe.held_out and recipe.held_out != ((5, 7),):
        words.append("without-" + "-".join(f"{a}{b}" for a, b in recipe.held_out))
    words += [re.sub(r"[^\w.]+", "-", f"{key}-{value}")
              for key, value in recipe.changes.table().items()]  # fmt: skip
    words += [f"from-{recipe.first_step}"] * ("from" in recipe.sources)
    return "-".join(words)

"""`tbtt analyses NAME RUN`: a command for each registered analysis, made from its signature."""

import hashlib
import inspect
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from tbtt_interp.analyses.registry import ANALYSES
from tbtt_interp.cli.output import (
    RUN,
    AsJson,
    Step,
    fitted,
    name_diverged,
    print_json,
    print_table,
)
from tbtt_interp.errors import TbttError, printable

if TYPE_CHECKING:
    from tbtt_interp.results import Result
    from tbtt_interp.runs import Run

Out = Annotated[Path | None, typer.Option(
    help="A folder for tables (CSV, JSON) and figures (HTML, PNG); an interrupted analysis keeps "
    "its finished seeds there."
)]  # fmt: skip
OverSteps = Annotated[
    bool, typer.Option("--over-steps", help="At every kept checkpoint: claims over training.")
]
Wide = Annotated[bool, typer.Option("--wide", help="All of the table's columns.")]
Explain = Annotated[bool, typer.Option("--explain", help="What columns and nulls mean.")]
EXAMPLE = "runs/arithmetic-medium-file"
SHARED: dict[str, tuple[Any, Any]] = {
    "step": (Step, None), "over_steps": (OverSteps, False), "out": (Out, None),
    "wide": (Wide, False), "explain": (Explain, False), "as_json": (AsJson, False),
}  # fmt: skip


def analysis_command(name: str, analysis: "Callable[..., Result]") -> Callable[..., None]:
    """The command of an analysis: its run, its own options, and those that all analyses share."""
    own = inspect.signature(analysis).parameters.values()
    takes_several = any(p.kind is p.VAR_POSITIONAL for p in own)
    options = [p for p in own if p.kind is p.KEYWORD_ONLY and p.name != "seed"]

    def command(**values: Any) -> None:
        chosen = {p.name: values[p.name] for p in options}
        folders = values["run"] if takes_several else [values["run"]]
        run_analysis(name, analysis, folders, chosen, **{k: values[k] for k in SHARED})

    kind, several = (list[Path], "; several to compare") if takes_several else (Path, "")
    run = Annotated[kind, typer.Argument(metavar="RUN", help=f"{RUN}{several}.")]
    parameter = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    question, _, examples = (inspect.getdoc(analysis) or "").partition("\n")
    command.__doc__ = f"{question}\n\ntbtt analyses {name} {EXAMPLE}\n{examples}"
    command.__signature__ = inspect.Signature([  # pyright: ignore
        parameter("run", annotation=run),
        *(p.replace(annotation=_option(p.annotation)) for p in options),
        *(parameter(key, default=default, annotation=kind)
          for key, (kind, default) in SHARED.items()),
    ])  # fmt: skip
    return command


def _option(annotation: Any) -> Any:
    """`Annotated[type, "help"]` as typer has it."""
    if get_origin(annotation) is Annotated:
        kind, text = get_args(annotation)[:2]
        return Annotated[kind, typer.Option(help=text)] if isinstance(text, str) else annotation
    return annotation


def run_analysis(
    name: str, analysis: "Callable[..., Result]", folders: Sequence[Path], options: dict[str, Any],
    *, step: int | None, over_steps: bool, out: Path | None, wide: bool, explain: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Runs an analysis, prints its display and claims, and writes its files."""
    from tbtt_interp.integrity import check_none_lost
    from tbtt_interp.runs import load_run

    if over_steps and step is not None:
        raise TbttError("--over-steps reads every checkpoint: leave out --step")
    if over_steps and len(folders) > 1:
        raise TbttError("--over-steps reads one run: leave out the others")
    parts = None if out is None else out / "parts"
    if out is not None and out.exists() and not any((out / "parts").glob("*/settings.json")):
        raise TbttError(f"{out} exists: nothing was written; give another --out FOLDER")
    runs = [load_run(folder) for folder in folders]
    if over_steps:
        check_none_lost(runs[0].folder)
    steps = sorted(runs[0].checkpoints) if over_steps else [step]
    for run in runs:
        name_diverged(run, step)
    with _kept(parts):
        result = _result(name, analysis, runs, steps, parts, options)
    at = "" if over_steps else f" at step {max(runs[0].checkpoints) if step is None else step:,}"
    models = len(runs[0].sound_seeds(step))
    title = f"{folders[0]}{at}, {models} model{'s' if models > 1 else ''}"
    question = result.question or (inspect.getdoc(analysis) or name).partition("\n")[0]
    written = [] if out is None else _write(result, out, question, title)
    if as_json:
        print_json(next(iter(result.tables.values())))
        return
    rows = [[str(x) for x in row] for row in result.display.itertuples(index=False)]
    headers = [str(c).replace("_", " ") for c in result.display.columns]
    headers, rows, hidden = (headers, rows, []) if wide else fitted(headers, rows)
    more = [f"--wide shows {', '.join(hidden)}"] if hidden else []
    more += ["--explain says what columns mean"] if result.notes and not explain else []
    notes = [*result.summary, *(result.notes if explain else []), *written]
    notes += [f"{'; '.join(more)}."] if more else []
    print_table(headers, rows, title=title, notes=notes)
    ranked = [] if over_steps else result.ranked()
    if ranked:
        print(f"\n{result.claims_heading}")
    for claim in ranked[: result.n_printed]:
        print(printable(str(claim), keep="\n"))


def _result(
    name: str, analysis: "Callable[..., Result]", runs: "Sequence[Run]",
    steps: Sequence[int | None], parts: Path | None, options: dict[str, Any],
) -> "Result":  # fmt: skip
    from tbtt_interp.results import over_steps
    from tbtt_interp.seeds import Models, seed_cache
    from tbtt_interp.versions import versions

    found = {}
    for step in steps:
        models = [Models.of(run, step) for run in runs]
        at = max(runs[0].checkpoints) if step is None else step
        read = runs[0].checkpoints[at].read_bytes()
        settings = {"analysis": name, **options, "of": [str(r.folder.resolve()) for r in runs],
                    "models": hashlib.sha256(read).hexdigest(), **versions()}  # fmt: skip
        with seed_cache(None if parts is None else parts / f"step-{step}", settings):
            found[step] = analysis(*models, **options)
    return over_steps(found) if len(steps) > 1 else found[steps[0]]


@contextmanager
def _kept(parts: Path | None) -> Iterator[None]:
    is_new = parts is not None and not parts.exists()
    try:
        yield
    except TbttError:
        if parts is not None and is_new:  # the analysis could not start: leave no folder
            shutil.rmtree(parts.parent, ignore_errors=True)
        raise
    except KeyboardInterrupt as interruption:
        kept = (
            "give --out FOLDER to keep finished seeds"
            if parts is None
            else f"finished seeds are in {parts}: the same command goes on from there"
        )
        print(f"interrupted; {printable(kept)}", file=sys.stderr)
        raise typer.Exit(130) from interruption


def _write(result: "Result", out: Path, title: str, of: str) -> list[str]:
    """Writes every table and figure; returns a note where a figure could not be drawn.

    Args:
        title, of: a figure's, where it has none, and the run that it shows.
    """
    from tbtt_interp import plots
    from tbtt_interp.files import write_whole
    from tbtt_interp.results import claims_table

    notes: list[str] = []
    tables = {**result.tables, "claims": claims_table(result.ranked())}
    for name, table in tables.items():
        write_whole(out / f"{name}.csv", table.to_csv(index=False).encode())
        write_whole(out / f"{name}.json", table.to_json(orient="records", indent=1).encode())
    for name, draw in result.figures.items():
        figure = draw()
        plots.save(figure, out / f"{name}.html", title=title, of=of)
        try:
            if not notes:
                plots.save(figure, out / f"{name}.png", title=title, of=of)
        except TbttError as error:
            notes.append(f"No PNG: {error}")
    shutil.rmtree(out / "parts")
    return notes


analyses = typer.Typer(
    help="What moves an answer, and how is the task represented?",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_commands() -> None:
    """Adds a command for each registered analysis that has none yet."""
    present = {command.name for command in analyses.registered_commands}
    for name, analysis in ANALYSES.items():
        if name not in present:
            question = (analysis.__doc__ or "").splitlines()[0]
            analyses.command(name, short_help=question)(analysis_command(name, analysis))

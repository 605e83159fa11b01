"""Commands for trained runs: `tbtt runs`, `models`, `evaluate`, `ask`, `import` and `export`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from tbtt_interp.cli.output import AsJson, RunFolder, Step, name_diverged, print_json, print_table
from tbtt_interp.cli.training import HeldOut, parse_pair
from tbtt_interp.errors import TbttError, listed, printable, unknown

if TYPE_CHECKING:
    import pandas as pd

SHARED = ("task", "size", "framing", "seeds")  # columns of both lists of runs


def runs_command(
    root: Annotated[Path, Argument(help="The folder to search.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs below a folder: task, progress, held-out answers.

    tbtt runs
    """
    from tbtt_interp.tables import list_runs

    table = list_runs(root)
    if table.empty and not as_json:
        begin = "train one with python -m tbtt_interp.train --size medium"
        raise TbttError(f"there are no runs below {root}: {begin}")
    if as_json:
        print_json(table)
    else:
        _print_runs(table, ["run", *SHARED, "held-out", "loss", "status"])


def models_command(as_json: AsJson = False) -> None:
    """List the models that come with the package.

    Each name can stand for a run's folder in other commands.

    tbtt models
    """
    from tbtt_interp.pretrained.models import NONE_SHIP, list_models

    notes = [
        "Answers of all seeds after the last step; loss in nats per character, mean over seeds.",
        "Checkpoints of one seed over training: the name with -over-training at its end.",
    ]
    table = list_models()
    if as_json:
        print_json(table)
    elif table.empty:
        print(NONE_SHIP)
    else:
        own = ["steps", "seen", "held-out", "loss", "checkpoints\nof one seed"]
        _print_runs(table, ["name", *SHARED, *own], notes)


def _print_runs(table: "pd.DataFrame", headers: list[str], notes: Sequence[str] = ()) -> None:
    """Prints one row per run, or its problem in the last column."""
    rows = []
    for row in table.to_dict("records"):
        if row["problem"]:
            rows.append([row[headers[0]], *[""] * (len(headers) - 2), row["problem"]])
            continue
        cells = row | {
            "seen": f"{row['seen_right']}/{row['seen_of']}", "steps": f"{row['steps']:,}",
            "held-out": f"{row['held_out_right']}/{row['held_out_of']}" * bool(row["held_out_of"]),
            "loss": "" if row["loss"] is None else f"{row['loss']:.3f}",
            "status": f"{row.get('status')}, {row.get('step', 0):,}/{row['steps']:,} steps",
            "checkpoints\nof one seed": row.get("over_training") or "",
        }  # fmt: skip
        rows.append([cells[header] for header in headers])
    print_table(headers, rows, notes=notes)


def evaluate_command(
    run_folder: RunFolder,
    step: Step = None,
    operands: Annotated[
        str | None, Option(help="Every equation of these operands.", metavar="LO-HI")
    ] = None,
    out: Annotated[
        Path | None, Option(help="Also write one row per prompt and seed, as CSV.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count a run's right answers, and those of two baselines.

    Answers are decoded greedily, and right if every character is.

    tbtt evaluate runs/arithmetic-medium-file

    tbtt evaluate runs/arithmetic-medium-file --operands 0-19
    """
    from tbtt_interp import tables
    from tbtt_interp.evaluate import evaluate_run
    from tbtt_interp.files import write_new
    from tbtt_interp.runs import load_run

    run = load_run(run_folder)
    name_diverged(run, step)
    if operands is None:
        evaluation = evaluate_run(run, step)
        answers, table = evaluation.table, tables.score_table(run, evaluation)
        headers, rows, notes = tables.score_rows(run, table)
    else:
        answers, table = tables.operand_table(run, *parse_range(operands), step=step)
        headers, rows = table, table.to_numpy()
        notes = ["Counts are over all seeds. What is longer than the window counts as wrong."]
    if out is not None:
        write_new(out, answers.to_csv(index=False).encode())
    if as_json:
        print_json(table)
    else:
        at = max(run.checkpoints) if step is None else step
        print_table(headers, rows, title=f"{run_folder} at step {at:,}", notes=notes)


def parse_range(text: str) -> tuple[int, int]:
    """A range of operands from the command line.

    >>> parse_range("0-19")
    (0, 19)
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*-\s*(\d{1,9})\s*", text)
    if not match or int(match[1]) > int(match[2]) or int(match[2]) > 99:
        raise TbttError(f"operands '{text}' is no range: give two numbers up to 99, as in 0-19")
    return int(match[1]), int(match[2])


def ask_command(
    run_folder: RunFolder,
    prompt: Annotated[str, Argument(help="A prompt, or its short form: 3+4, France.")],
    seed: Annotated[int | None, Option(help="One model only. [all]")] = None,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Complete a prompt, with the probability of each character.

    Each model's greedy completion is shown.

    tbtt ask runs/arithmetic-medium-file "3+4="
    """
    from tbtt_interp.evaluate import complete
    from tbtt_interp.prompts import VISIBLE
    from tbtt_interp.runs import load_run

    run = load_run(run_folder)
    sound = run.sound_seeds(step)
    if seed is not None and run.seed_index(seed) >= 0 and seed not in sound:
        raise TbttError(f"seed {seed} of {run_folder} diverged: choose {listed(sound)}")
    name_diverged(run, step)
    chosen = [run.seed_index(one) for one in (sound if seed is None else [seed])]
    task = run.tasks[chosen[0]]
    text = task.complete_prompt(prompt)
    stacked = {name: value[chosen] for name, value in run.parameters(step).items()}
    limit = max(32, *(len(example.answer) for example in task.examples))
    completions = complete(stacked, run.shape, text, task.vocabulary, task.terminators, limit=limit)
    records: list[dict[str, Any]] = []
    for k, completion in zip(chosen, completions, strict=True):
        example = next((e for e in run.tasks[k].examples if e.prompt == text), None)
        records.append(
            {"seed": run.seeds[k], "completion": completion.text,
             "right": None if example is None else completion.text == example.answer,
             "held_out": None if example is None else example.held_out, "ended": completion.ended,
             "probabilities": [round(p, 4) for p in completion.probabilities]}
        )  # fmt: skip
    if as_json:
        print_json(records)
        return
    visible = str.maketrans(VISIBLE)
    rows = [
        [row["seed"], row["completion"].translate(visible) + ("" if row["ended"] else " …"),
         {True: "right", False: "wrong", None: ""}[row["right"]],
         {True: "held out", False: "seen", None: "not of the task"}[row["held_out"]],
         "  ".join(f"{character.translate(visible)} {probability:.3f}" for character, probability
                   in zip(row["completion"], row["probabilities"], strict=True))]
        for row in records
    ]  # fmt: skip
    read, notes = text[-run.shape.n_ctx :].translate(visible), []
    if len(text) > run.shape.n_ctx:
        notes = [f"The prompt is longer than the window: the models read {read!r}."]
    what = "equation" if "+" in text or "-" in text else "prompt"
    print_table(["seed", "completion", "", what, "probability of each character"], rows,
                title=text.translate(visible), notes=notes)  # fmt: skip


def import_command(
    checkpoint: Annotated[
        Path, Argument(metavar="CKPT", help="nanoGPT's ckpt.pt, or a folder for transformers.")
    ],
    out: Annotated[Path, Option(help="The run's folder, new or empty.")],
    task: Annotated[
        str | None,
        Option(help="Its task: arithmetic, facts, joint, or a text file. [as a folder names it]"),
    ] = None,
    held_out: HeldOut = None,
    text: Annotated[
        Path | None, Option(help="The text whose characters are its vocabulary. [the task's]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a run of a nanoGPT or Hugging Face checkpoint.

    No code in it is executed.

    tbtt import out-math/ckpt.pt --task arithmetic --out runs/theirs

    tbtt import models/medium --out runs/theirs
    """
    from tbtt_interp.nanogpt import PUBLISHED_HELD_OUT, import_checkpoint
    from tbtt_interp.pretrained.gpt2 import import_huggingface

    pairs = PUBLISHED_HELD_OUT if held_out is None else [parse_pair(pair) for pair in held_out]
    if checkpoint.is_dir():
        run = import_huggingface(checkpoint, out, task=task, held_out=pairs)
    elif task is None:
        raise TbttError(f"{checkpoint} does not say its task: give --task, as in --task arithmetic")
    else:
        run = import_checkpoint(checkpoint, task, out, text=text, held_out=pairs)
    shape = run.shape
    if as_json:
        print_json([{"run": str(out), "step": run.config.steps, **vars(shape)}])
        return
    place = printable(str(out))
    print(f"{place}: {shape.layers} layers, {shape.heads} heads, width {shape.d_model}, "
          f"MLP {shape.d_mlp}, window {shape.n_ctx}; next: tbtt evaluate {place}")  # fmt: skip


def export_command(
    run_folder: RunFolder,
    out: Annotated[Path, Option(help="The checkpoint or the folder to write.")],
    to: Annotated[
        str, Option(help="nanogpt (one model) or huggingface (a folder per seed).")
    ] = "nanogpt",
    seed: Annotated[
        int | None, Option(help="Which model. [the first for nanogpt, else all]")
    ] = None,
    step: Step = None,
    all_steps: Annotated[
        bool, Option("--all-steps", help="For huggingface: every kept checkpoint.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write models for nanoGPT or Hugging Face's transformers.

    An import gives back the same bits.

    tbtt export runs/arithmetic-medium-file --seed 0 --out ckpt.pt

    tbtt export runs/arithmetic-medium-file --to huggingface --out models/medium
    """
    from tbtt_interp.nanogpt import export_checkpoint
    from tbtt_interp.pretrained.gpt2 import export_huggingface
    from tbtt_interp.runs import load_run

    if to not in ("nanogpt", "huggingface"):
        raise unknown("format", to, ["nanogpt", "huggingface"])
    if all_steps and (to == "nanogpt" or step is not None):
        raise TbttError("--all-steps goes with --to huggingface and without --step: give one")
    run = load_run(run_folder)
    chosen = run.seeds[run.seed_index(seed)]
    if to == "nanogpt":
        export_checkpoint(run, out, seed=seed, step=step)
        rows = [{"checkpoint": str(out), "run": str(run_folder), "seed": chosen}]
        said = f"{out}: seed {chosen} of {run_folder}, for nanoGPT"
    else:
        steps = list(run.checkpoints) if all_steps else None if step is None else [step]
        seeds = None if seed is None else [chosen]
        written = export_huggingface(run, out, seeds=seeds, steps=steps)
        rows = [{"folder": str(folder), "run": str(run_folder)} for folder in written]
        models = f"{len(written)} model{'s' if len(written) > 1 else ''}"
        said = f"{out}: {models} of {run_folder}, for transformers; the first is {written[0]}"
    if as_json:
        print_json(rows)
    else:
        print(printable(said))

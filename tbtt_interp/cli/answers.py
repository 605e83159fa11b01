"""`tbtt runs`, `tbtt evaluate` and `tbtt ask`: what is there, what it answers, how sure it is."""

import re
from pathlib import Path
from typing import Annotated

import typer

from tbtt_interp.cli.output import AsJson, print_json, print_table
from tbtt_interp.errors import TbttError

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, or a name that `tbtt models` lists.")
]
Step = Annotated[int | None, typer.Option(help="A kept checkpoint's step. [the last]")]


def runs_command(
    root: Annotated[Path, typer.Argument(help="The folder to look below.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs below a folder: what they train, how far they are, what they answer.

    tbtt runs
    """
    import pandas as pd

    from tbtt_interp.tables import list_runs

    table = list_runs(root)
    if as_json:
        print_json(table)
        return
    if table.empty:
        print(f"no runs below {root}: train one with python -m tbtt_interp.train --size medium")
        return
    rows = []
    for record in table.to_dict("records"):
        if record["problem"]:
            rows.append([record["run"], *[""] * 6, str(record["problem"])])
            continue
        of = int(record["held_out_of"])
        rows.append(
            [
                record["run"],
                record["task"],
                record["size"],
                record["framing"],
                str(record["seeds"]),
                f"{int(record['held_out_right'])}/{of}" if of else "",
                "" if pd.isna(record["loss"]) else f"{record['loss']:.3f}",
                f"{record['status']}, {record['step']:,}/{record['steps']:,} steps",
            ]
        )
    headers = ["run", "task", "size", "framing", "seeds", "held-out", "loss", "status"]
    print_table(headers, rows)


def evaluate_command(
    run_folder: RunFolder,
    step: Step = None,
    operands: Annotated[
        str | None,
        typer.Option(help="Every equation of these operands instead, as in 0-19.", metavar="LO-HI"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write a row a question and seed, as CSV.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count what a run's models answer, exactly and greedily, beside two baselines.

    tbtt evaluate runs/arithmetic-medium-file

    tbtt evaluate runs/arithmetic-medium-file --operands 0-19
    """
    from tbtt_interp.evaluate import evaluate_run
    from tbtt_interp.runs import load_run, write_new
    from tbtt_interp.tables import operand_table, score_rows, score_table

    run = load_run(run_folder)
    if operands is not None:
        answers, table = operand_table(run, *parse_range(operands), step=step)
        headers, rows = list(table.columns), [list(map(str, row)) for row in table.to_numpy()]
        notes = ["Counts are over all seeds. What does not fit the window is not answered whole."]
    else:
        evaluation = evaluate_run(run, step)
        answers, table = evaluation.table, score_table(run, evaluation)
        headers, rows, notes = score_rows(run, table)
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
    match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", text)
    if not match or int(match[1]) > int(match[2]) or int(match[2]) > 99:
        raise TbttError(f"operands '{text}' is no range: give two numbers up to 99, as in 0-19")
    return int(match[1]), int(match[2])


def ask_command(
    run_folder: RunFolder,
    prompt: Annotated[str, typer.Argument(help="A prompt, or its short form: 3+4, France.")],
    seed: Annotated[int | None, typer.Option(help="One model only. [all]")] = None,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Ask a run's models: each one's greedy completion, and how sure it is of each character.

    tbtt ask runs/arithmetic-medium-file "3+4="
    """
    import pandas as pd

    from tbtt_interp.evaluate import complete
    from tbtt_interp.model import one_model, stack_parameters
    from tbtt_interp.runs import load_run

    run = load_run(run_folder)
    task = run.tasks[run.seed_index(seed)]
    stacked = run.parameters(step)
    seeds = run.seeds if seed is None else (seed,)
    if seed is not None:
        stacked = stack_parameters([one_model(stacked, run.seed_index(seed))])
    text = task.complete_prompt(prompt)
    longest = max(len(example.answer) for example in task.examples)
    completions = complete(
        stacked, run.shape, text, task.vocabulary, task.terminators, limit=max(32, longest)
    )
    known = {example.prompt: example for example in task.examples}.get(text)
    held_out = {
        s: next(e.held_out for e in run.tasks[run.seed_index(s)].examples if e.prompt == text)
        for s in seeds
        if known is not None
    }
    records = [
        {
            "seed": s,
            "completion": c.text,
            "right": None if known is None else c.text == known.answer,
            "held_out": held_out.get(s),
            "ended": c.ended,
            "probabilities": [round(p, 4) for p in c.probabilities],
        }
        for s, c in zip(seeds, completions, strict=True)
    ]
    if as_json:
        print_json(pd.DataFrame(records))
        return
    rows = [
        [
            str(record["seed"]),
            visible(record["completion"]) + ("" if record["ended"] else " …"),
            {True: "right", False: "wrong", None: ""}[record["right"]],
            {True: "held out", False: "seen", None: "not of the task"}[record["held_out"]],
            "  ".join(
                f"{visible(character)} {probability:.3f}"
                for character, probability in zip(
                    record["completion"], record["probabilities"], strict=True
                )
            ),
        ]
        for record in records
    ]
    notes = []
    if len(text) > run.shape.n_ctx:
        kept = text[-run.shape.n_ctx :]
        notes.append(f"The prompt is longer than the window: the models read {visible(kept)!r}.")
    print_table(
        [
            "seed",
            "completion",
            "",
            "equation" if "+" in text or "-" in text else "prompt",
            "probability of each character",
        ],
        rows,
        title=visible(text),
        notes=notes,
    )


def visible(text: str) -> str:
    """Text with its newlines and blanks shown.

    >>> visible("Rome \\n")
    'Rome␣⏎'
    """
    return text.replace("\n", "⏎").replace(" ", "␣")

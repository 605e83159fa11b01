"""`tbtt import` and `tbtt export`: checkpoints to and from nanoGPT."""

from pathlib import Path
from typing import Annotated

import typer

from tbtt_interp.cli.answers import RunFolder, Step
from tbtt_interp.cli.output import AsJson, print_json_rows
from tbtt_interp.cli.training import HeldOut, parse_pair


def import_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="nanoGPT's ckpt.pt.")],
    task: Annotated[
        str, typer.Option(help="What it was trained on: arithmetic, facts, joint, or a text file.")
    ],
    out: Annotated[Path, typer.Option(help="The run's folder, new or empty.")],
    held_out: HeldOut = None,
    text: Annotated[
        Path | None,
        typer.Option(help="The text whose characters are its vocabulary. [the task's]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a run of a nanoGPT checkpoint. Nothing in the file is executed.

    tbtt import out-math/ckpt.pt --task arithmetic --out runs/theirs
    """
    from tbtt_interp.nanogpt import import_checkpoint

    pairs = None if held_out is None else [parse_pair(pair) for pair in held_out]
    run = import_checkpoint(checkpoint, task, out, text=text, held_out=pairs)
    if as_json:
        print_json_rows([{"run": str(out), "step": run.config.steps, **vars(run.shape)}])
        return
    shape = run.shape
    print(
        f"{out}: {shape.layers} layers, {shape.heads} heads, width {shape.d_model}, "
        f"MLP {shape.d_mlp}, window {shape.n_ctx}; next: tbtt evaluate {out}"
    )


def export_command(
    run_folder: RunFolder,
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")] = Path("ckpt.pt"),
    seed: Annotated[int | None, typer.Option(help="Which model. [the first]")] = None,
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Write one model as a nanoGPT checkpoint; importing it back gives the same bits.

    tbtt export runs/arithmetic-medium-file --seed 0 --out ckpt.pt
    """
    from tbtt_interp.nanogpt import export_checkpoint
    from tbtt_interp.runs import load_run

    run = load_run(run_folder)
    export_checkpoint(run, out, seed=seed, step=step)
    chosen = run.seeds[run.seed_index(seed)]
    if as_json:
        print_json_rows([{"checkpoint": str(out), "run": str(run_folder), "seed": chosen}])
    else:
        print(f"{out}: seed {chosen} of {run_folder}, for nanoGPT")

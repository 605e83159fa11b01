"""`tbtt probes`: what a run's models represent, where, and whether they use it."""

from typing import Annotated, Any

from typer import Option

from tbtt_interp.cli.output import AsJson, RunFolder, Step
from tbtt_interp.cli.registered import Explain, Out, OverSteps, Wide, run_analysis
from tbtt_interp.errors import TbttError


def probes_command(
    run: RunFolder,
    feature: Annotated[
        list[str] | None,
        Option(help="Features, repeatable or as in a,b. [all of the task]"),
    ] = None,
    site: Annotated[
        list[str] | None, Option(help="A hook point to probe, repeatable. [all streams]")
    ] = None,
    position: Annotated[
        list[int] | None, Option(help="A position; -1 is the text's last. Repeatable. [all]")
    ] = None,
    groups: Annotated[
        str | None,
        Option(help="A label whose values folds keep together. [pairs of operands]"),
    ] = None,
    step: Step = None,
    over_steps: OverSteps = False,
    dimensions: Annotated[
        int | None, Option(help="Project onto this many random directions, to compare widths.")
    ] = None,
    causal: Annotated[
        bool, Option("--causal", help="Erase and interchange each code, and measure the answers.")
    ] = False,
    controls: Annotated[
        int, Option(help="Control tasks per feature, and draws per other null.")
    ] = 99,
    out: Out = None,
    wide: Wide = False,
    explain: Explain = False,
    as_json: AsJson = False,
) -> None:
    """What can linear probes decode from activations, compared with nulls?

    tbtt probes runs/arithmetic-medium-file

    tbtt probes runs/arithmetic-medium-file --feature carry --site blocks.0.mlp.hook_post

    tbtt probes runs/arithmetic-medium-file --feature carry --causal
    """
    if controls < 1:
        raise TbttError(f"controls must be at least 1, got {controls}")
    if over_steps and (causal or step is not None or position or dimensions):
        raise TbttError(
            "--over-steps reads every checkpoint at the last position: leave out --step, "
            "--position, --dimensions and --causal"
        )
    if causal and (dimensions or groups or len(position or []) > 1):
        raise TbttError("--causal takes one --position, and no --dimensions and no --groups")
    features = [name.strip() for names in feature or [] for name in names.split(",")]
    options: dict[str, Any] = {"features": features or None, "sites": site}
    if causal:
        from tbtt_interp.probes.effects import analyse_erasure as analysis

        options |= {"pos": (position or [-1])[0], "draws": controls}
    else:
        from tbtt_interp.probes.grid import analyse_probes as analysis
        from tbtt_interp.probes.grid import last_streams
        from tbtt_interp.runs import load_run

        if over_steps and not site:
            options["sites"] = last_streams(load_run(run))[-1:]
        options |= {"positions": [-1] if over_steps else position, "controls": controls,
                    "dimensions": dimensions, "groups": groups}  # fmt: skip
    run_analysis("probes", analysis, [run], options, step=step, over_steps=over_steps, out=out,
                 wide=wide, explain=explain, as_json=as_json)  # fmt: skip

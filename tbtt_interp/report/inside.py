"""How models hold their operands, by size and framing: additivity and geometry."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import torch

from tbtt_interp import figures
from tbtt_interp.analyses.additivity import EFFECTS, additivity, additivity_table
from tbtt_interp.analyses.findings import Tell, silent
from tbtt_interp.analyses.geometry import (
    DIMENSIONS,
    geometry,
    geometry_table,
    plot_layouts,
    principal_components,
    value_distances,
)
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.evidence.effects import SHARE
from tbtt_interp.over_seeds import Models, over_seeds, over_untrained
from tbtt_interp.probes.grid import last_streams
from tbtt_interp.report.arms import (
    Arm,
    arms_of,
    arms_sentence,
    cells_note,
    contrast_sentence,
    contrasts,
    equation_runs,
    means_of,
    over_arms,
    shown_means,
    size_claims,
)
from tbtt_interp.runs import Run

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DRAWN = 4  # models whose spectra are drawn, the first seeds
STREAMS = ("before the last MLP", "after it")  # at "=", where the answer begins


def in_words(site: str, layers: int) -> str:
    """Which of STREAMS a hook of the last layer is."""
    return STREAMS[site == f"blocks.{layers - 1}.hook_resid_post"]


def additivity_evidence(
    runs: Sequence[Run], *, command: str = "tbtt report", tell: Tell = silent
) -> Evidence:
    """How much of what models hold of a and b is f(a) + g(b), and how much their interaction."""

    def shares(arm: Arm) -> pd.DataFrame:
        table = additivity_table(Subject.of_run(arm.run), sites=last_streams(arm.run))
        mine = table[table["effect"] == EFFECTS[-1]]
        words = [in_words(site, arm.run.shape.layers) for site in mine["site"]]
        mine = mine.assign(panel=words).rename(columns={"share": "value"})
        numbers = ["value", "shuffled", "untrained"]
        return mine.groupby(["panel", "seed"], sort=False)[numbers].mean().reset_index()

    table, left_out = over_arms(equation_runs(runs), shares, tell)
    nulls = {"shuffled": "a shuffled grid", "untrained": "untrained model"}
    means = means_of(table, ["panel"], list(nulls), bounds=SHARE)
    after = table[table["panel"] == STREAMS[1]]
    found = contrasts(after)
    before = means.loc[means["panel"] == STREAMS[0], "value"]
    return Evidence(
        question="How additive is what is held of a and b?",
        tables={"additivity": table},
        shown=shown_means(means, list(nulls)),
        figures={
            "additivity": partial(
                figures.by_size, means, table, title="interaction, share of variance", nulls=nulls
            )
        },
        sentences=[
            contrast_sentence(
                "On {framing}, the interaction of a and b makes {amount} of the variance after the "
                "last MLP in {wide} models than in {narrow} ones",
                found,
                arms_sentence(
                    "The interaction of a and b makes, of the variance after the last MLP",
                    means[means["panel"] == STREAMS[1]],
                ),
            ),
            f"Before it, where attention has only added, it makes {before.min():.2f} to "
            f"{before.max():.2f}; of a shuffled grid {means['shuffled'].mean():.2f}.",
        ],
        claims=size_claims(
            "On {framing}, the interaction of a and b is larger in {wide} models than in {narrow} "
            "ones.", found,
            unit="of the variance after the last MLP", command=command,
        ),
        notes=[
            "Over all equations of an operator what a model holds at = splits exactly into a part "
            "of a, a part of b and their interaction, which no f(a) + g(b) has; the mean of both "
            "operators. Nulls: the same of a grid whose cells are shuffled, a table without any "
            "rule, and of the model before training. It does not tell a rule from a table: a code "
            f"that is nothing but the right sum, one-hot, has {_of_a_rule():.2f}.",
            cells_note(*nulls.values()),
            *left_out,
        ],
        command=command,
    )  # fmt: skip


def _of_a_rule() -> float:
    """The interaction's share of the right sum of two digits, each sum a direction of its own."""
    digits = torch.arange(10)
    sums = digits[:, None] + digits
    return additivity(torch.nn.functional.one_hot(sums).double()).interaction


LINE, TURNED = "a's code: share of a number line", "a − b: cosine of b's code with a's"


def _codes(arm: Arm, dimensions: int) -> pd.DataFrame:
    """Of each model how much of a number line a's code is, and how b's lies to it in a − b."""
    last = f"blocks.{arm.run.shape.layers - 1}.hook_resid_post"
    models = Models.of(arm.run)
    same = tuple(dataclasses.replace(prompts, number=0) for prompts in models.prompts)
    models = dataclasses.replace(models, prompts=same)  # every model in the same random dimensions
    table = over_seeds(models, geometry, dimensions=dimensions)
    table["null"] = table.filter(regex="^draw_").mean(axis=1)
    untrained = over_untrained(models, geometry, dimensions=dimensions, n_draws=1)
    table["untrained"] = untrained["value"]
    table = table[(table["site"] == last) & (table["dimensions"] == dimensions)]
    of_a = (table["measure"] == "number line") & (table["operand"] == "a")
    of_both = (table["measure"] == "alignment") & (table["operator"] == "-")
    table = pd.concat([table[of_a].assign(panel=LINE), table[of_both].assign(panel=TURNED)])
    columns = ["value", "null", "untrained"]
    return table.groupby(["panel", "seed"], sort=False)[columns].mean().reset_index()


def geometry_evidence(
    runs: Sequence[Run], *, command: str = "tbtt report", tell: Tell = silent
) -> Evidence:
    """Whether digits lie on a line, and b of a − b opposite to a, in equal dimensions."""
    chosen = equation_runs(runs)
    dimensions = min(DIMENSIONS, *(run.shape.d_model for run in chosen))
    table, left_out = over_arms(chosen, partial(_codes, dimensions=dimensions), tell)
    nulls = {"null": "digits in random order", "untrained": "untrained model"}
    means = means_of(table, ["panel"], list(nulls), bounds=(-1.0, 1.0))
    lined, turned = (contrasts(table[table["panel"] == panel]) for panel in (LINE, TURNED))
    arms = [arm for arm in arms_of(chosen) if arm.run.shape.d_model == table["width"].max()]
    return Evidence(
        question="How are the operands laid out?",
        tables={"geometry": table},
        shown=shown_means(means, list(nulls)),
        figures={
            "geometry": partial(
                figures.by_size, means, table, title="share, or cosine", nulls=nulls
            )
        }
        | {f"codes of {arm.label}": partial(_layout, arm.run) for arm in (arms[0], arms[-1])},
        sentences=[
            contrast_sentence(
                "On {framing}, a number line makes {amount} of a's code in {wide} models than in "
                "{narrow} ones",
                lined,
                arms_sentence("A number line makes, of a's code", means[means["panel"] == LINE]),
            ),
            contrast_sentence(
                "On {framing}, the cosine of b's code with a's in a − b is {amount} in {wide} "
                "models than in {narrow} ones",
                turned,
                arms_sentence("Cosine of b's code with a's", means[means["panel"] == TURNED]),
            ),
        ],
        claims=[
            *size_claims(
                "On {framing}, digits lie less on a line in {wide} models than in {narrow} ones.",
                lined, unit="of the code's variance", command=command, above=False,
            ),
            *size_claims(
                "On {framing}, b's code is less opposed to a's, in a − b, in {wide} models than in "
                "{narrow} ones.",
                turned, unit="of cosine", command=command,
            ),
        ],
        notes=[
            "A code is what a digit adds at = after the last MLP, on average over the other "
            "operand. Number line: the share of its variance that is linear in the digit, the mean "
            "of + and −. Alignment: the cosine of the codes of a and b in a − b; −1 is one the "
            f"negative of the other, as taking away would have it. All in {dimensions} random "
            "dimensions, so that widths can be compared. Maps are of one model, the first seed.",
            cells_note(*nulls.values()),
            *left_out,
        ],
        command=command,
    )  # fmt: skip


def _layout(run: Run) -> "Figure":
    """Maps and distances of one model's codes, and spectra of the first few."""
    models = Models.of(run).take(DRAWN)
    maps, pairs = (over_seeds(models.take(1), f) for f in (principal_components, value_distances))
    site = f"blocks.{run.shape.layers - 1}.hook_resid_post"
    return plot_layouts(maps, pairs, geometry_table(models), site=site)

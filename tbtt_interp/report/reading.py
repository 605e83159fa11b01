"""What can be read of models, by size and framing: the order of their lines, and probes."""

import math
from collections.abc import Sequence
from functools import partial

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.analyses.findings import Tell, silent
from tbtt_interp.analyses.order import character_table, line_table, next_table
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.probes.features import FEATURES
from tbtt_interp.probes.grid import last_streams, probe_grid
from tbtt_interp.report.arms import (
    Arm,
    arms_of,
    arms_sentence,
    cells_note,
    contrast_sentence,
    contrasts,
    equation_runs,
    extent,
    means_of,
    null_claims,
    over_arms,
    shown_means,
    size_claims,
)
from tbtt_interp.runs import Run

KNOWN, FORETOLD = (
    "bits of order known, share, line by line",
    "next line's first operand, share right",
)
READ = [f.name for f in FEATURES.values() if f.primary and f.texts == "prompt"]
CONTROLS = 19  # control tasks a feature, of the 99 that `tbtt probes` draws


def order_evidence(
    runs: Sequence[Run], *, command: str = "tbtt report", tell: Tell = silent
) -> Evidence:
    """How much of which line follows which is known, line by line."""
    lines, following = {}, {}

    def bits(arm: Arm) -> pd.DataFrame:
        characters = character_table(Subject.of_run(arm.run))
        lines[arm.label], following[arm.label] = line_table(characters), next_table(characters)
        sums = lines[arm.label].groupby("seed").sum(numeric_only=True)
        first = following[arm.label].drop_duplicates("seed").set_index("seed")
        share = pd.DataFrame({"value": sums["bits"], "other": sums["other"].clip(lower=0)})
        parts = [
            share.div(sums["worth"], axis=0).assign(panel=KNOWN),
            first[["other", "majority"]].assign(value=first["right"], panel=FORETOLD),
        ]
        return pd.concat(parts).reset_index(names="seed")

    ordered = [run for run in equation_runs(runs) if run.config.framing != "line"]
    if not ordered:
        raise TbttError("all runs here are of whole lines, where there is no order to know")
    table, left_out = over_arms(ordered, bits, tell)
    nulls = {"other": "a file of another order", "majority": "commonest operand"}
    means = means_of(table, ["panel"], list(nulls), bounds=(-math.inf, 1.0))
    known, foretold = (means[means["panel"] == panel] for panel in (KNOWN, FORETOLD))
    # what is lacked of the lines counts against bits, so these are compared where order is learned
    of_bits = contrasts(table[(table["panel"] == KNOWN) & (table["framing"] == "file")])
    found = contrasts(table[table["panel"] == FORETOLD])
    of_files = arms_of([run for run in ordered if run.config.framing == "file"])
    widest = [arm.label for arm in of_files if arm.label in lines][-1:]
    return Evidence(
        question="How much of the order of the lines is known?",
        tables={"order": table},
        shown=shown_means(means, list(nulls)),
        figures={
            "order": partial(figures.by_size, means, table, title="share", nulls=nulls),
            **{f"order, line by line, {label}":
               partial(figures.order_known, lines[label], following[label]) for label in widest},
        },
        sentences=[
            contrast_sentence(
                "On {framing}, {wide} models know {amount} of the bits of which line follows which "
                "than {narrow} ones",
                of_bits, arms_sentence("Known of the bits of which line follows which", known),
            ),
            contrast_sentence(
                "On {framing}, {wide} models foretell the next line's first operand after {amount} "
                "of lines than {narrow} ones",
                found, arms_sentence("Lines whose first operand is foretold", foretold),
            ),
        ],
        claims=[
            *size_claims(
                "On {framing}, {wide} models know more of the order of their lines than {narrow} "
                "ones.",
                found, unit="of lines whose first operand is foretold", command=command,
            ),
            *null_claims(
                "On {framing}, {size} models know something of the order of their lines.",
                foretold[foretold["framing"] == "file"], nulls,
                unit="of lines whose first operand is foretold", command=command,
            ),
        ],
        notes=[
            "Bits of each line, after the line before it, beyond what knowing every line but not "
            "their order gives, of those that knowing the order gives. What a model lacks of the "
            "lines counts against it, so shares can be below 0, and those of another file, which "
            "are far below it, stand as 0. Whoever was trained on shuffled lines has met no order, "
            "and is the control: asked of the file it would have had. On line there is none.",
            cells_note(*nulls.values()),
            *left_out,
        ],
        command=command,
    )  # fmt: skip


def probes_evidence(
    runs: Sequence[Run], *, command: str = "tbtt report", tell: Tell = silent
) -> Evidence:
    """What linear probes read at the last character, beside all that needs no trained model."""

    def read(arm: Arm) -> pd.DataFrame:
        last = last_streams(arm.run)[-1:]
        table = probe_grid(arm.run, READ, sites=last, positions=[-1], controls=CONTROLS)
        names = {"accuracy": "value", "accuracy_low": "low", "accuracy_high": "high"}
        return table.rename(columns=names).assign(panel=table["feature"], models=len(arm.run.seeds))

    means, left_out = over_arms(equation_runs(runs), read, tell)
    nulls = {"one_hot": "the text in one-hot", "untrained": "untrained model",
             "control": "control task", "majority": "commonest class"}  # fmt: skip
    carry = means[means["feature"] == "carry"]
    gain = carry["value"] - carry[list(nulls)].max(axis=1)
    return Evidence(
        question="What do linear probes read, beside their nulls?",
        tables={"probes": means},
        shown=shown_means(means, list(nulls), largest=True),
        figures={
            "probes": partial(figures.by_size, means, title="accuracy", nulls=nulls),
        },
        sentences=[
            f"The carry is read with an accuracy of {extent(carry['value'])} after the last MLP, "
            f"{extent(gain, '+.2f')} above the hardest of its nulls.",
            arms_sentence("The whole answer is read in", means[means["feature"] == "answer"]),
        ],
        claims=null_claims(
            "On {framing}, the carry is read from {size} models more accurately than from the text "
            "alone, or from any other null.", carry, nulls,
            unit="accuracy", command=command,
        ),
        notes=[
            "Accuracy, cross-validated, of a linear probe at = after the last MLP; folds keep "
            "3+4, 4+3, 3-4 and 4-3 together. Wider models are read in more dimensions: hold each "
            "to its own nulls, not to another size. Control task: the same feature after "
            f"renaming the digits at random, mean of {CONTROLS}. One-hot: a probe of the text "
            "alone. A feature that is read need not "
            "be used: what follows intervenes.",
            cells_note("the hardest of the nulls"),
            *left_out,
        ],
        command=command,
    )  # fmt: skip

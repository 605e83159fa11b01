"""What decides answers, by size and framing: patching, attention cut, and what is not said."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.analyses.findings import Tell, silent
from tbtt_interp.analyses.old_attention import attention_table, summary_of
from tbtt_interp.analyses.old_pairs import MANY_PARAMETERS, chosen_pairs
from tbtt_interp.analyses.old_patching import patching_table
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.answers import answers_table
from tbtt_interp.evidence.claims import Evidence
from tbtt_interp.model import count_parameters
from tbtt_interp.probes.effects import latent_answers
from tbtt_interp.probes.grid import last_streams
from tbtt_interp.report.arms import (
    Arm,
    cells_note,
    equation_runs,
    extent,
    null_claims,
    over_arms,
    shown_means,
)
from tbtt_interp.runs import Run

MODELS = 8  # of a run that are patched, or have their attention cut: the first seeds
PAIRS, FEW_PAIRS = 300, 32  # that are patched, the latter of models beyond a million parameters
UNSAID = ("answer", "sign", "units")
FEWEST = 4  # models with a wrong answer, below which there is no interval
DRAWS = 19  # of every null of what is not said, of the 99 that probes/too_big_to_say.py has


def is_large(run: Run) -> bool:
    """Whether less is asked of its models, for time."""
    return count_parameters(run.shape) > MANY_PARAMETERS


def some_models(run: Run) -> Subject:
    """The first MODELS of a run."""
    return Subject.of_run(run).take(MODELS)


def _patched(arm: Arm) -> pd.DataFrame:
    """Denoising at "=": what the last layer's heads and MLP bring back of each difference."""
    subject, last = some_models(arm.run), arm.run.shape.layers - 1
    pairs = chosen_pairs(subject, count=FEW_PAIRS if is_large(arm.run) else PAIRS)
    sites = [f"blocks.{last}.attn.hook_z", f"blocks.{last}.hook_mlp_out"]
    table = patching_table(subject, pairs, sites=sites)
    first = (table["direction"] == "denoising") & (table["metric"] == "logit difference")
    table = table[first & (table["character"] == "answer") & (table["pos"] == -1)]
    table = table.sort_values("share").groupby(["changed", "site"]).tail(1).sort_index()
    parts = [PARTS[site.endswith("mlp_out")] for site in table["site"]]
    if len(subject.models) == 1:  # the interval of one is over its equations, and not over models
        table = table.assign(low=math.nan, high=math.nan)
    return table.rename(columns={"share": "value"}).assign(
        panel=table["changed"] + " differs: " + pd.Series(parts, table.index), part=parts,
        models=len(subject.models), pairs=len(pairs),
    )  # fmt: skip


PARTS = ("last layer's attention head", "last layer's MLP")


def patching_evidence(
    runs: Sequence[Run], *, command: str = "tbtt report", tell: Tell = silent
) -> Evidence:
    """Through which part what differs reaches the answer, beside two kinds of other donors."""
    means, left_out = over_arms(equation_runs(runs), _patched, tell)
    nulls = {"random": "a random donor", "same_answer": "a donor with the recipient's answer"}
    of_a = means[means["changed"] == "a"]
    head, mlp = (of_a[of_a["part"] == part] for part in PARTS)
    return Evidence(
        question="Through which parts does what differs reach the answer?",
        tables={"patching": means},
        shown=shown_means(means, list(nulls)),
        figures={
            "patching": partial(
                figures.by_size, means, title="share of logit difference restored", nulls=nulls
            )
        },
        sentences=[
            "Where a differs, putting the clean run's activation at = into the corrupted run "
            f"brings back {extent(head['value'])} of the logit difference through the {PARTS[0]} "
            f"(a random donor {extent(head['random'])}), and {extent(mlp['value'])} through the "
            f"{PARTS[1]} ({extent(mlp['random'])}).",
        ],
        claims=null_claims(
            "On {framing}, what differs in a reaches the answer of {size} models through the last "
            "layer's MLP at =, beyond what a donor that should not help brings back.", mlp,
            nulls, unit="of the logit difference", command=command,
        ),
        notes=[
            "One activation of a clean run is put into a run of a prompt that differs in one "
            f"thing; {PAIRS} ordered pairs ({FEW_PAIRS} beyond a million parameters), drawn at "
            f"random, in the first {MODELS} models of each run at most. Intervals are Student's "
            "over models. Of several heads, the one that restores most. A donor that should "
            "restore nothing restores some, since it takes the wrong answer away.",
            cells_note(*nulls.values()),
            *left_out,
        ],
        command=command,
    )  # fmt: skip


def _cut(summary: pd.DataFrame) -> pd.DataFrame:
    """Attention from "=", and what is lost of right seen answers when an edge is cut."""
    mine = summary[(summary["context"] == "prompt") & (summary["query"] == "=")]
    mine = mine.sort_values("flipped").groupby("key", sort=False).tail(1).sort_index()
    columns = {"flipped": "value", "flipped_low": "low", "flipped_high": "high"}
    return mine.rename(columns=columns).assign(panel="from = to " + mine["key"])


def attention_evidence(
    runs: Sequence[Run], *, command: str = "tbtt report", tell: Tell = silent
) -> Evidence:
    """Where the answer's first character looks, and what is lost when it may not."""
    summaries: dict[str, pd.DataFrame] = {}

    def cut(arm: Arm) -> pd.DataFrame:
        if is_large(arm.run):
            raise TbttError(
                "every edge of every head of so large a model takes long, and is asked by tbtt "
                f"analyses attention {arm.run.folder.name}"
            )
        subject = some_models(arm.run)
        summary = summary_of(attention_table(subject))
        if summary["flipped"].isna().all():
            raise TbttError("its models answer nothing rightly, so that nothing can be lost")
        summaries[arm.label] = summary
        return _cut(summary).assign(models=len(subject.models))

    means, left_out = over_arms(equation_runs(runs), cut, tell)
    nulls = {"flipped_random": "as many other keys cut"}
    to_a = means[means["key"] == "a"]
    last = list(summaries)[-1]
    return Evidence(
        question="Where do heads look, and what is lost when they may not?",
        tables={"attention": means},
        shown=shown_means(means, [*nulls, "weight"]),
        figures={
            "attention": partial(
                figures.by_size, means, title="share of right answers lost", nulls=nulls
            ),
            f"attention of {last}": partial(figures.attention, summaries[last]),
        },
        sentences=[
            f"Cutting the edge from = to a loses {extent(to_a['value'])} of the right seen "
            f"answers, that to b {extent(means.loc[means['key'] == 'b', 'value'])}; cutting as "
            f"many other edges, drawn at random, {extent(to_a['flipped_random'])}.",
        ],
        claims=null_claims(
            "On {framing}, cutting the edge from = to a costs {size} models more than cutting as "
            "many other edges, drawn at random.",
            to_a, nulls,
            unit="of right seen answers lost", command=command,
        ),
        notes=[
            f"The first {MODELS} models of each run at most. Attention from =, where the answer's "
            "first character is said; of several heads, the one that costs most. What is paid "
            "explains nothing by itself: it stands beside what cutting the edge costs.",
            cells_note(*nulls.values(), "attention paid"),
            *left_out,
        ],
        command=command,
    )  # fmt: skip


READ = {"control_task": "control task", "one_hot": "the text in one-hot",
        "untrained": "untrained model"}  # fmt: skip
MOVED = {"control_task": "control task", "permuted_labels": "permuted labels",
         "random_subspace": "random subspace"}  # fmt: skip
DONE = {"decoded": "read", "corrected": "turned right"}  # measures, and words


def _unsaid(arm: Arm) -> pd.DataFrame:
    """Of wrong held-out answers the shares read, and turned right, in the last stream."""
    nothing = TbttError("its models answer every held-out equation, so nothing is unsaid")
    known = answers_table(arm.run)
    if known["held_out_right"].sum() == known["held_out_of"].sum():
        raise nothing
    table = latent_answers(arm.run, UNSAID, sites=last_streams(arm.run)[-1:], draws=DRAWS)
    wrong, models = table["of"].max(), table["n_models"].max()
    if not wrong:
        raise nothing
    names = {"effect": "value", "effect_low": "low", "effect_high": "high", "measure": "done"}
    both = pd.concat([table[table["measure"] == measure] for measure in DONE], ignore_index=True)
    both = both.rename(columns=names).assign(wrong=wrong, models=models)
    if models < FEWEST:
        both = both.assign(low=math.nan, high=math.nan)
    return both.assign(panel=both["feature"] + ", " + both["done"].map(DONE))


def _counted(shares: pd.DataFrame, nulls: Mapping[str, str]) -> str:
    """How many wrong answers of all runs, and how many by the hardest null."""
    counts = {name: (shares[name] * shares["wrong"]).sum() for name in ("value", *nulls)}
    hardest = max(nulls, key=lambda null: counts[null])
    return f"{counts['value']:.0f} ({nulls[hardest]}: {counts[hardest]:.1f})"


def unsaid_evidence(
    runs: Sequence[Run], *, command: str = "tbtt report", tell: Tell = silent
) -> Evidence:
    """Whether the right answer is in models that give a wrong one."""
    chosen = [run for run in equation_runs(runs) if any(map(len, run.config.held_out))]
    means, left_out = over_arms(chosen, _unsaid, tell)
    answer = means[means["feature"] == "answer"]
    read, flipped = (answer[answer["done"] == done] for done in DONE)
    return Evidence(
        question="Too big to say? What is right in models that answer wrongly",
        tables={"unsaid": means},
        shown=shown_means(means, [*(READ | MOVED)], largest=True),
        figures={
            "too big to say": partial(
                figures.by_size, means, title="share of wrong held-out answers",
                nulls=MOVED | READ,
            )
        },
        sentences=[
            f"Of {read['wrong'].sum():.0f} held-out equations answered wrongly, a probe fitted on "
            f"what was seen reads the right answer in {_counted(read, READ)}; moving its code "
            f"turns {_counted(flipped, MOVED)} right.",
        ],
        claims=[
            *null_claims(
                "On {framing}, {size} models hold the right answer where they say a wrong one.",
                read, READ,
                unit="of wrong held-out answers", command=command,
            ),
            *null_claims(
                "On {framing}, {size} models say the right answer when its code is moved.",
                flipped, MOVED,
                unit="of wrong held-out answers", command=command,
            ),
        ],
        notes=[
            "Both together would be too big to say: the answer is there and acts, but is not "
            "said. Read: by a probe at = after the last MLP that was fitted on seen equations. "
            "Turned right: the feature's code, one or two directions, is moved to where it should "
            f"be. Nulls of moving have equal rank; {DRAWS} draws of each. Models are those that "
            f"answer something wrongly; of fewer than {FEWEST} there is no interval, and so no "
            "verdict.",
            cells_note("the hardest of the nulls"),
            *left_out,
        ],
        command=command,
    )  # fmt: skip

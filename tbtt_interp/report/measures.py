"""What a report asks of every run: the sections, and the function that measures each."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.analyses.additivity import variance_shares
from tbtt_interp.analyses.attention import knockouts_by_role
from tbtt_interp.analyses.geometry import DIMENSIONS, geometry_table
from tbtt_interp.analyses.line_order import bits_by_line, characters_table, next_line_accuracy
from tbtt_interp.analyses.pairs import chosen_pairs
from tbtt_interp.analyses.patching import patching_table
from tbtt_interp.errors import TbttError
from tbtt_interp.model_tables import models_table, over_training_table, plot_over_training
from tbtt_interp.probes.effects import latent_answers
from tbtt_interp.probes.grid import probe_grid
from tbtt_interp.report.sections import Section
from tbtt_interp.runs import Run
from tbtt_interp.seeds import MANY_PARAMETERS, Models, over_seeds, over_untrained
from tbtt_interp.stats import SHARE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MODELS = 8  # models of a run that are patched, or whose attention is knocked out: the first seeds
PAIRS, FEW_PAIRS = 300, 32  # patched pairs; the second for models beyond a million parameters
N_CONTROLS = 19  # control tasks and null draws, of the 99 that the commands draw
LAST = -1  # the prompt's last position, where the answer begins
ANSWERS = {
    "seen_accuracy": "seen answers right", "held_out_accuracy": "held-out answers right",
    "order_known": "line order known, from the loss",
}  # fmt: skip
FEATURES = ("carry", "borrow", "sign", "tens", "units", "answer")
WRONG_FEATURES = ("answer", "sign", "units")
BITS, NEXT = "bits of the line order known", "next line's first label predicted"
BEFORE, AFTER = "before the last MLP", "after the last MLP"
LINE, COSINE = "number line, share of a's representation", "cosine of a and b in a − b"
HEAD, MLP = "the last layer's heads", "the last layer's MLP"


def models_of(run: Run, count: int | None = None) -> Models:
    """A run's models, or the first so many, for analyses of equations.

    Raises:
        TbttError: if not every example is an equation.
    """
    models = Models.of(run)
    examples = models.shared_prompts.examples
    if not all({"a", "operator", "b"} <= e.labels.keys() for e in examples):
        raise TbttError(
            "its task has lines that are no equations, and this section needs equations alone"
        )
    return models if count is None else models.take(count)


def as_values(table: pd.DataFrame, column: str, panel: "pd.Series | str") -> pd.DataFrame:
    """The table with a column and its interval renamed to `value`, and its `panel`."""
    names = {f"{column}{end}": f"value{end}" for end in ("", "_low", "_high")}
    return table.rename(columns=names).assign(panel=panel)


def last_stream(run: Run) -> str:
    """The residual stream after the last MLP."""
    return f"blocks.{run.shape.layers - 1}.hook_resid_post"


def answers(run: Run) -> pd.DataFrame:
    """The shares of seen and held-out answers that are right, and of the order that is known."""
    table = models_table([run])
    known = [name for name in ANSWERS if name in table and table[name].notna().any()]
    long = table.melt(["seed"], known, "panel", "value")
    return long.assign(panel=long["panel"].map(ANSWERS)).dropna(subset="value")


def training_figures(runs: Sequence[Run]) -> dict[str, "Callable[[], Figure]"]:
    """Answers, loss and order over training, a figure per task, for runs that were trained here."""
    trained = [run for run in runs if run.config.recipe is not None]
    tables = over_training_table(trained).groupby("task", sort=False) if trained else ()
    return {f"training on {task}": partial(plot_over_training, table) for task, table in tables}


def geometry(run: Run) -> pd.DataFrame:
    """How much of a's representation is a number line, and how b's lies to it in a − b."""
    dimensions = min(DIMENSIONS, run.shape.d_model)
    table = geometry_table(models_of(run), dimensions=dimensions)
    table = table[(table["site"] == last_stream(run)) & (table["dimensions"] == dimensions)]
    panels = {
        LINE: (table["measure"] == "number line") & (table["operand"] == "a"),
        COSINE: (table["measure"] == "alignment") & (table["operator"] == "-"),
    }  # fmt: skip
    columns = ["value", "value_low", "value_high", "null", "untrained", "n_models"]
    return pd.DataFrame([
        {"panel": panel} | table.loc[mask, columns].mean().to_dict()
        for panel, mask in panels.items()
    ]).astype({"n_models": int})  # fmt: skip


def patching(run: Run) -> pd.DataFrame:
    """What the last layer's heads and MLP restore of each difference, denoising at "="."""
    models, layer = models_of(run, MODELS), run.shape.layers - 1
    count = FEW_PAIRS if models.n_parameters > MANY_PARAMETERS else PAIRS
    sites = {f"blocks.{layer}.attn.hook_z": HEAD, f"blocks.{layer}.hook_mlp_out": MLP}
    table = patching_table(models, chosen_pairs(models, count=count), sites=list(sites))
    is_denoising = (table["direction"] == "denoising") & (table["metric"] == "logit difference")
    table = table[is_denoising & (table["role"] == "answer") & (table["pos"] == LAST)]
    strongest = table.groupby(["changed", "site"], sort=False)["fraction_restored"].idxmax()
    table = table.loc[strongest]
    panel = table["changed"] + " differs: " + table["site"].map(sites)
    return as_values(table, "fraction_restored", panel)


def attention(run: Run) -> pd.DataFrame:
    """The share of right seen answers lost when attention from "=" to a token is knocked out."""
    models = models_of(run, MODELS)
    if models.n_parameters > MANY_PARAMETERS:
        raise TbttError(
            "knocking out every pair of every head of so large a model takes long: "
            f"tbtt analyses attention {run.folder.name}"
        )
    table = over_seeds(models, knockouts_by_role)
    table = table[(table["context"] == "prompt") & (table["query"] == "=")]
    if table["accuracy_drop"].isna().all():
        raise TbttError("its models answer nothing rightly, so no accuracy can be lost")
    means = table.groupby(["layer", "head", "key"])["accuracy_drop"].mean()
    strongest = means.groupby("key").idxmax()  # of several heads the one that costs most
    table = table.set_index(["layer", "head", "key"]).loc[strongest.tolist()].reset_index()
    table = table.rename(columns={"accuracy_drop_random": "random"})
    return as_values(table, "accuracy_drop", "from = to " + table["key"])


def order(run: Run) -> pd.DataFrame:
    """The share of the line order's bits that is known, and of next lines that are predicted."""
    characters = characters_table(models_of(run))
    lines = bits_by_line(characters).groupby("seed").sum(numeric_only=True)
    bits = pd.DataFrame({
        "seed": lines.index, "panel": BITS, "value": lines["bits"] / lines["max_bits"],
        "other_order": lines["bits_other_order"].clip(lower=0) / lines["max_bits"],
    })  # fmt: skip
    first = as_values(next_line_accuracy(characters).drop_duplicates("seed"), "accuracy", NEXT)
    return pd.concat([bits, first[[*bits, "majority"]]], ignore_index=True)


def additivity(run: Run) -> pd.DataFrame:
    """The interaction's share of the variance over a and b, before and after the last MLP."""
    models, layer = models_of(run), run.shape.layers - 1
    panels = {f"blocks.{layer}.hook_resid_mid": BEFORE, f"blocks.{layer}.hook_resid_post": AFTER}
    table = over_seeds(models, variance_shares, sites=list(panels))
    untrained = over_untrained(models, variance_shares, sites=list(panels), n_shuffles=0)
    table["untrained"] = np.nan if untrained is None else untrained["share"]
    table = as_values(table[table["effect"] == "interaction"], "share", table["site"].map(panels))
    means = table.groupby(["panel", "seed"], sort=False)[["value", "shuffled", "untrained"]].mean()
    return means.reset_index()


def probes(run: Run) -> pd.DataFrame:
    """Accuracy of linear probes at the last position after the last MLP."""
    table = probe_grid(
        models_of(run), FEATURES, sites=[last_stream(run)], positions=[LAST], controls=N_CONTROLS
    )
    return as_values(table, "accuracy", table["feature"])


def latent(run: Run) -> pd.DataFrame:
    """The shares of wrong held-out answers that are decoded, and corrected by moving the code."""
    table = latent_answers(
        models_of(run), WRONG_FEATURES, sites=[last_stream(run)], draws=N_CONTROLS
    )
    table = table[table["measure"].isin(["decoded", "corrected"])]
    if table.empty or not table["of"].sum():
        raise TbttError("its models answer every held-out equation, so no answer is latent")
    return as_values(table, "effect", table["feature"] + ", " + table["measure"])


CELL_NOTE = "At =, the prompt's last token, where a model predicts the answer's first."
SECTIONS = (
    Section(
        name="answers", question="What do these models answer?", measure=answers, bounds=SHARE,
        title="share", unit="of held-out answers", more_figures=training_figures,
        by_size={ANSWERS["held_out_accuracy"]: "On {framing}, {wide} models and {narrow} models "
                 "differ in held-out answers, wide minus narrow:"},
        notes=["All models of a run at the last step, decoded greedily. Line order known: the "
               "share that the loss shows at least."],
    ),
    Section(
        name="order", question="How much of the line order is memorized?", measure=order,
        title="share", unit="of next lines whose first label is predicted",
        nulls={"other_order": "file of another order", "majority": "most frequent label"},
        above_null={NEXT: "On {framing}, {size} models know some of the line order: they predict"},
        by_size={NEXT: "On {framing}, {wide} and {narrow} models differ in the next lines "
                 "predicted, wide minus narrow:"},
        notes=["Bits of each line given the preceding line, beyond what knowing every line and not "
               "their order gives, as a share of what knowing the order gives. What a model lacks "
               "of the lines counts against it, so shares can be below 0. Models trained on "
               "shuffled windows have met no order: they are the control."],
    ),
    Section(
        name="additivity", in_appendix=True,
        question="How additive are the activations in a and b?",
        measure=additivity, bounds=SHARE, title="interaction, share of variance",
        unit="of the variance after the last MLP",
        nulls={"shuffled": "shuffled grid", "untrained": "untrained model"},
        by_size={AFTER: "On {framing}, {wide} and {narrow} models differ in the interaction of a "
                 "and b, wide minus narrow:"},
        notes=[CELL_NOTE, "Over all equations of an operator, an activation splits exactly into a "
               "part of a, a part of b and their interaction. Mean of both operators. A one-hot "
               "representation of the right sum has an interaction of 0.93, so a large interaction "
               "does not distinguish a table from a rule."],
    ),
    Section(
        name="geometry", question="How are the operands represented?", measure=geometry,
        bounds=(-1.0, 1.0), title="share, or cosine", unit="of the representation's variance",
        nulls={"null": "permuted values", "untrained": "untrained model"},
        above_null={LINE: "On {framing}, a's representation in {size} models is a number line for"},
        notes=[CELL_NOTE, "A representation is what a digit adds after the last MLP, on average "
               "over the other operand. Number line: the share of its variance that is linear in "
               "the digit. A cosine of −1 means that b is subtracted. Projected to as many "
               "dimensions as the smallest models have."],
    ),
    Section(
        name="probes", in_appendix=True,
        question="What do linear probes decode?", measure=probes, bounds=SHARE,
        title="accuracy", unit="accuracy",
        nulls={"one_hot": "one-hot text", "untrained": "untrained model",
               "control": "control task", "majority": "majority class"},
        above_null={"carry": "On {framing}, the carry is decoded from {size} models with"},
        notes=[CELL_NOTE, "Cross-validated accuracy; folds keep 3+4, 4+3, 3-4 and 4-3 together. "
               "Wider models are probed in more dimensions: compare each with its own nulls. A "
               "feature that is decoded need not be used."],
    ),
    Section(
        name="patching", in_appendix=True,
        question="Which parts carry a difference to the answer?",
        measure=patching, title="fraction of the logit difference restored",
        unit="of the logit difference",
        nulls={"random": "random source", "same_answer": "source with the base's answer"},
        above_null={f"a differs: {MLP}": "On {framing}, where a differs, the last layer's MLP of "
                    "{size} models restores"},
        notes=[CELL_NOTE, f"Denoising, {PAIRS} random ordered pairs ({FEW_PAIRS} beyond a million "
               f"parameters), the first {MODELS} models of each run. Of several heads the one that "
               "restores most."],
    ),
    Section(
        name="attention", in_appendix=True,
        question="Where do heads attend, and what is lost without it?",
        measure=attention, bounds=SHARE, title="share of right answers lost",
        unit="of right seen answers", nulls={"random": "as many other keys"},
        above_null={"from = to a": "On {framing}, knocking out attention from = to a costs {size} "
                    "models"},
        notes=[f"The first {MODELS} models of each run. Of several heads the one that costs most."],
    ),
    Section(
        name="latent-answers", in_appendix=True,
        question="Can the right answer be decoded where models answer wrongly?", measure=latent,
        bounds=SHARE, title="share of wrong held-out answers", unit="of wrong held-out answers",
        nulls={"control_task": "control task", "one_hot": "one-hot text",
               "untrained": "untrained model", "permuted_labels": "permuted labels",
               "random_subspace": "random subspace"},
        above_null={
            "answer, decoded": "On {framing}, a probe decodes the right answer where {size} models "
            "answer wrongly, for",
            "answer, corrected": "On {framing}, moving the answer's code corrects {size} "
            "models for",
        },
        notes=[CELL_NOTE, "Decoded: by a probe fitted on seen equations. Corrected: the feature's "
               "code is moved to where it should be. Models that answer some held-out equation "
               "wrongly."],
    ),
)  # fmt: skip

"""Runs compared: two side by side, paired by seed, and several by size and framing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tbtt_interp.errors import TbttError, listed
from tbtt_interp.model_tables import models_table, run_settings
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.stats import (
    ANY,
    SHARE,
    UNMEASURED,
    Interval,
    difference_over_models,
    mean_over_models,
)
from tbtt_interp.tasks.arithmetic import pairs_text
from tbtt_interp.tasks.windows import FRAMINGS

# What is compared: its words, its unit, and what has to be alike for the values to be comparable.
SAME_TASK = ("task",)
SAME_TEXT = ("task", "framing", "window")
SAME_SPLIT = ("task", "held out")
MEASURES = {
    "seen_accuracy": ("seen, right", "share", SAME_TASK),
    "held_out_accuracy": ("held out, right", "share", SAME_SPLIT),
    "margin_seen": ("smallest margin, seen", "logits", SAME_TASK),
    "margin_held_out": ("smallest margin, held out", "logits", SAME_SPLIT),
    "loss": ("loss", "nats per character", SAME_TEXT),
    "above_lines": ("loss above the line-entropy floor", "nats per character", SAME_TEXT),
    "order_known": ("line order known, from the loss", "share", SAME_TEXT),
    "late_held_out": ("late evaluations, all held out right", "share", SAME_SPLIT),
}
# Settings of a resolved recipe that are compared elsewhere, or that do not change a model.
NOT_COMPARED = ("name", "model", "training", "seeds", "first_seed", "held_out", "held_out_each",
                "evaluate_every", "checkpoint_every")  # fmt: skip


def compare_runs(first: Run, second: Run) -> Result:
    """Two runs at their last step: every measure, and the second's mean minus the first's.

    Differences are paired by seed where both runs have two seeds or more in common, and between
    two groups of models elsewhere.

    Returns:
        a result with the table `comparison`, one row per measure: `measure`, `unit`; `first` and
        `second`, means over models with `first_low` and so on; `difference` with `low`, `high`,
        `pairs`, `models`; `problem`, why there is no difference.
    Raises:
        TbttError: if both are one run.
    """
    if first.folder.resolve() == second.folder.resolve():
        raise TbttError(f"{first.folder} is given twice: compare it with another run")
    settings = differing_settings(first, second)
    models = [_measured(run).set_index("seed") for run in (first, second)]
    measured = [
        name for name in MEASURES
        if any(name in table and table[name].notna().any() for table in models)
    ]  # fmt: skip
    table = pd.DataFrame([_comparison_row(name, models, settings) for name in measured])
    a, b = first.folder, second.folder
    names = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    rows = table.to_dict("records")
    display = pd.DataFrame({
        "": table["measure"] + ", " + table["unit"],
        names[0]: [_text(row, "first") for row in rows],
        names[1]: [_text(row, "second") for row in rows],
        "difference": [_text(row, "difference") or row["problem"] for row in rows],
    })  # fmt: skip
    differ = [f"{setting}: {x} | {y}" for setting, (x, y) in settings.items()]
    return Result(
        name="compare", display=display,
        tables={"comparison": table.rename(columns=lambda name: name.removeprefix("difference_"))},
        summary=[
            _verdict(rows, names), *_what_it_is_worth(first, second, list(settings)),
            *(f"{name}: seed {seed} diverged by step {step:.0f}, and is left out."
              for name, table in zip(names, models, strict=True) if "diverged" in table
              for seed, step in table["diverged"].dropna().items()),
        ],
        notes=["Differing settings:", *differ] if differ else [],
    )  # fmt: skip


def _measured(run: Run) -> pd.DataFrame:
    """One row per model, with a column for each of MEASURES that it has."""
    table = models_table([run])
    if "loss" in table:
        floor = "floor_line" if run.config.framing == "line" else "floor_lines"
        table["above_lines"] = table["loss"] - table[floor]
    if "late_held_out_of" in table:
        table["late_held_out"] = table["late_held_out_right"] / table["late_held_out_of"]
    return table


def _comparison_row(
    name: str, models: list[pd.DataFrame], settings: Mapping[str, object]
) -> dict[str, Any]:
    words, unit, alike = MEASURES[name]
    first, second = (table.get(name, pd.Series(dtype=float)).dropna() for table in models)
    bounds, reach = (SHARE, (-1.0, 1.0)) if unit == "share" else (ANY, ANY)
    unlike = [setting for setting in alike if setting in settings]
    problem = f"other {listed(unlike, 'and')}" if unlike else ""
    if not problem and (first.empty or second.empty):
        problem = "one run has none"
    difference = UNMEASURED if problem else difference_over_models(first, second, bounds=reach)
    means = [mean_over_models(models, bounds=bounds) for models in (first, second)]
    row: dict[str, Any] = {"measure": words, "unit": unit}
    for column, of in zip(("first", "second", "difference"), (*means, difference), strict=True):
        row |= {column: of.mean, f"{column}_low": of.low, f"{column}_high": of.high}
    n_models = 2 * difference.pairs or difference.n
    return row | {"pairs": difference.pairs, "models": n_models, "problem": problem}


def differing_settings(first: Run, second: Run) -> dict[str, tuple[str, str]]:
    """The settings in which two runs differ, with both values: task, framing, size, training."""
    one, other = _settings(first), _settings(second)
    keys = list({**one, **other})
    if (first.config.recipe is None) != (second.config.recipe is None):
        keys = [*(key for key in one if key in other), "training"]
        known = ("as its recipe says", "not known")
        one["training"], other["training"] = known if first.config.recipe else known[::-1]
    both = {key: (one.get(key, ""), other.get(key, "")) for key in keys}
    return {key: values for key, values in both.items() if values[0] != values[1]}


def _settings(run: Run) -> dict[str, str]:
    config, shape, recipe = run.config, run.shape, run.config.recipe or {}
    held_out = {pairs_text(pairs) or "nothing" for pairs in config.held_out}
    settings: dict[str, Any] = {
        "task": run.tasks[0].name, "framing": config.framing,
        "held out": "; ".join(sorted(held_out)),
        "size": f"{config.size}: {shape.layers} layers, {shape.heads} heads, width "
        f"{shape.d_model}, MLP {shape.d_mlp}",
        "window": shape.n_ctx, "steps": config.steps,
    }  # fmt: skip
    for key, value in {**recipe, **recipe.get("training", {})}.items():
        if key not in (*NOT_COMPARED, *settings):
            settings[key.replace("_", " ")] = value
    return {key: str(value) for key, value in settings.items()}


def _text(row: Mapping[Any, Any], name: str) -> str:
    """A mean with its interval, signed where it is a difference; empty where there is none."""
    if math.isnan(row[name]):
        return ""
    return Interval.of_row(row, name).format(sign="+" if name == "difference" else "")


def _verdict(rows: Sequence[Mapping[Any, Any]], names: tuple[str, str]) -> str:
    """The difference in held-out answers, or in seen ones where none are held out."""
    of_measure = {row["measure"]: row for row in rows}
    row = of_measure.get("held out, right") or of_measure.get("seen, right")
    if row is None:
        return "Neither run has answers to compare."
    side = row["measure"].removesuffix(", right").replace(" ", "-")
    if row["problem"]:
        return f"Answers to {side} prompts are not compared: {row['problem']}."
    over = (f"over the {row['pairs']} seeds that both runs have" if row["pairs"]
            else f"over {row['models']} models, unpaired")  # fmt: skip
    text = f"{names[1]} minus {names[0]} is {_text(row, 'difference')} in share, {over}"
    if math.isnan(row["difference_low"]):
        return (f"Of {side} prompts answered, {text}. A run with one model has no interval, so "
                "the difference is undecided.")  # fmt: skip
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return f"Of {side} prompts answered, the runs do not differ clearly: {text}."
    more = "more" if row["difference"] > 0 else "fewer"
    return f"{names[1]} answers {more} {side} prompts: {text}."


def _what_it_is_worth(first: Run, second: Run, settings: list[str]) -> list[str]:
    """How the models are paired, and what a difference may be attributed to."""
    shared = set(first.seeds) & set(second.seeds)
    sentences = []
    if len(shared) < 2:
        how = "one seed is" if shared else "no seeds are"
        sentences.append(f"Paired: {how} shared, so the runs are compared as two groups.")
    elif len(shared) < max(len(first.seeds), len(second.seeds)):
        sentences.append(f"Paired: differences are over the {len(shared)} shared seeds alone.")
    if not settings:
        return [*sentences, "Both runs have the same settings, apart from their seeds."]
    if len(settings) == 1:
        return [*sentences, f"The runs differ in {settings[0]} alone."]
    return [*sentences, f"The runs differ in {listed(settings, 'and')}, so a difference cannot be "
            "attributed to one of these."]  # fmt: skip


def labelled(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by framing, depth and width, each with a label such as "large on file"."""
    table = pd.DataFrame(map(run_settings, runs)).assign(
        rank=[FRAMINGS.index(run.config.framing) for run in runs],
        folder=[str(run.folder) for run in runs],
    )
    table = table.sort_values(["rank", "layers", "width", "run"])
    labels = table["size"] + " on " + table["framing"]
    if table["task"].nunique() > 1:
        labels += ", " + table["task"]
    names = table["run"].mask(table["run"].duplicated(keep=False), table["folder"])
    labels = labels.mask(labels.duplicated(keep=False), labels + " (" + names + ")")
    return dict(zip(labels, [runs[row] for row in labels.index.tolist()], strict=True))


def size_claims(table: pd.DataFrame, text: str, *, unit: str, command: str = "") -> list[Claim]:
    """One claim per framing and depth with two widths: the widest and narrowest models differ.

    The effect is the widest models' mean minus the narrowest's.

    Args:
        table: one row per model, with `run`, `size`, `width`, `layers`, `framing`, `seed`, `value`.
        text: what the wide models have more or less of, with {wide}, {narrow} and {framing}.
    """
    claims = []
    known = table.dropna(subset="value")
    for (framing, _), models in known.groupby(["framing", "layers"], sort=False):
        ends = [models[models["width"] == width] for width in models["width"].agg(["min", "max"])]
        if models["width"].nunique() < 2 or any(end["run"].nunique() > 1 for end in ends):
            continue
        narrow, wide = (end["size"].iloc[0] for end in ends)
        effect = difference_over_models(*(end.groupby("seed")["value"].mean() for end in ends))
        claims.append(Claim(
            text=text.format(wide=wide, narrow=narrow, framing=framing), unit=unit, null=0.0,
            null_name="no difference", direction="different", effect=effect,
            command=command,
        ))  # fmt: skip
    return claims

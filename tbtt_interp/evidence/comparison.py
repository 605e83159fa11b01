"""Two runs side by side in the same terms, model by model where they share seeds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tbtt_interp.errors import TbttError, listed
from tbtt_interp.evidence.answers import answers_table
from tbtt_interp.evidence.effects import ANY, SHARE, over_models
from tbtt_interp.runs import Run
from tbtt_interp.stats import difference_over_models
from tbtt_interp.train.sweep import pairs_text

# What is compared: its column, words, unit, and what has to be alike for it to be comparable.
ASKED = ("task",)  # the questions are the same
READ = ("task", "framing", "window")  # the text and what is read of it are the same
MEASURES = {
    "seen": ("seen, right", "share", ASKED),
    "held_out_share": ("held out, right", "share", (*ASKED, "held out")),
    "margin_seen": ("margin, weakest seen", "logits", ASKED),
    "margin_held_out": ("margin, weakest held out", "logits", (*ASKED, "held out")),
    "loss": ("loss", "nats a character", READ),
    "above_lines": ("loss above the floor of the lines", "nats a character", READ),
    "order_known": ("order known, from the loss", "share", READ),
    "late_held_out": ("late evaluations, all held out right", "share", (*ASKED, "held out")),
}
# Of a resolved recipe what is said elsewhere, or is nothing to a model.
UNTOLD = ("name", "model", "training", "seeds", "first_seed", "held_out", "held_out_each",
          "evaluate_every", "checkpoint_every")  # fmt: skip
COLUMNS = [
    "measure", "unit", "first", "first_low", "first_high", "second", "second_low", "second_high",
    "difference", "low", "high", "pairs", "models", "problem",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs' measures, what sets them apart, and what may be said of that.

    Attributes:
        table: a row a measure: `measure`, `unit`; `first` and `second`, means over all models of
            each with `first_low` and so on; `difference`, the second less the first, `low`,
            `high`, `pairs` of one seed, `models`; `problem`, why there is none.
        differ: what they were made differently by, with both values.
        sentences: the verdict, and what it is worth.
    """

    names: tuple[str, str]
    table: pd.DataFrame
    differ: Mapping[str, tuple[str, str]]
    sentences: tuple[str, ...]


def compare_runs(first: Run, second: Run) -> Comparison:
    """Two runs at their last step; differences are the second less the first.

    Where both have two seeds or more in common, over these alone and seed by seed; elsewhere both
    are compared as two groups.

    Raises:
        TbttError: if they are one run.
    """
    if first.folder.resolve() == second.folder.resolve():
        raise TbttError(f"{first.folder} is given twice: compare it with another run")
    runs = (first, second)
    differ = made_differently(first, second)
    tables = [_measured(run).set_index("seed") for run in runs]
    rows = [
        _row(name, tables, differ) for name in MEASURES
        if any(name in table and table[name].notna().any() for table in tables)
    ]  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    names = _names(first, second)
    return Comparison(
        names=names, table=table, differ=differ,
        sentences=(*_verdict(table, names), *_worth(runs, differ)),
    )  # fmt: skip


def _names(first: Run, second: Run) -> tuple[str, str]:
    """The folders' names, or where these are the same, their paths."""
    a, b = first.folder, second.folder
    return (a.name, b.name) if a.name != b.name else (str(a), str(b))


def _measured(run: Run) -> pd.DataFrame:
    """A row a model, with a column for each of MEASURES that it has."""
    table = answers_table(run)
    if "loss" in table and run.config.framing != "line":
        table["above_lines"] = table["loss"] - table["floor_lines"]
    elif "loss" in table:
        table["above_lines"] = table["loss"] - table["floor_line"]
    if "late_held_out_of" in table:
        table["late_held_out"] = table["late_held_out_right"] / table["late_held_out_of"]
    return table


def _row(
    name: str, tables: list[pd.DataFrame], differ: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    words, unit, alike = MEASURES[name]
    row: dict[str, Any] = {"measure": words, "unit": unit}
    values = [table.get(name, pd.Series(dtype=float)).dropna() for table in tables]
    for side, some in zip(("first", "second"), values, strict=True):
        if len(some):
            found = over_models(some, SHARE if unit == "share" else ANY)
            row |= {side: found.mean, f"{side}_low": found.low, f"{side}_high": found.high}
    unlike = [what for what in alike if what in differ]
    if unlike:
        return row | {"problem": f"other {listed(unlike, 'and')}"}
    if any(some.empty for some in values):
        return row | {"problem": "one has none"}
    found = difference_over_models(*values)
    reach = 1.0 if unit == "share" else math.inf
    low, high = max(found.interval.low, -reach), min(found.interval.high, reach)
    return row | {"difference": found.interval.mean, "low": low, "high": high,
                  "pairs": found.pairs, "models": found.models, "problem": ""}  # fmt: skip


def made_differently(first: Run, second: Run) -> dict[str, tuple[str, str]]:
    """By what two runs differ: task, framing, what is held out, size and training."""
    one, other = _described(first), _described(second)
    if (first.config.recipe is None) != (second.config.recipe is None):
        known = ("as its recipe says", "not known")
        one["training"], other["training"] = known if first.config.recipe else known[::-1]
        one, other = ({key: some[key] for key in one.keys() & other.keys()}
                      for some in (one, other))  # fmt: skip
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return {key: (one.get(key, ""), other.get(key, "")) for key in keys}


def _described(run: Run) -> dict[str, str]:
    config, shape = run.config, run.shape
    held_out = {pairs_text(pairs) or "nothing" for pairs in config.held_out}
    found: dict[str, Any] = {
        "task": run.tasks[0].name, "framing": config.framing,
        "held out": "; ".join(sorted(held_out)),
        "size": f"{config.size}: {shape.layers} layers, {shape.heads} heads, width "
        f"{shape.d_model}, MLP {shape.d_mlp}",
        "window": shape.n_ctx, "steps": config.steps,
    }  # fmt: skip
    recipe = dict(config.recipe or {})
    for key, value in {**recipe, **recipe.get("training", {})}.items():
        if key not in (*UNTOLD, *found):
            found[key.replace("_", " ")] = value
    return {key: str(value) for key, value in found.items()}


def _verdict(table: pd.DataFrame, names: tuple[str, str]) -> list[str]:
    """What is said of the held-out answers, or where there are none, of the seen ones."""
    for measure in ("held out, right", "seen, right"):
        row = next((r for r in table.to_dict("records") if r["measure"] == measure), None)
        if row is None:
            continue
        if row["problem"]:
            side = measure.removesuffix(", right")
            return [f"Answers of what was {side} are not compared: {row['problem']}."]
        return [_said(row, measure.removesuffix(", right"), names)]
    return ["Neither run has answers to compare."]


def _said(row: Mapping[Any, Any], side: str, names: tuple[str, str]) -> str:
    mean, low, high = row["difference"], row["low"], row["high"]
    over = (
        f"over the {row['pairs']:.0f} seeds that both have"
        if row["pairs"] else f"over {row['models']:.0f} models, no two paired"
    )  # fmt: skip
    bounds = f"{mean:+.2f}" + ("" if pd.isna(low) else f" [{low:+.2f}, {high:+.2f}]")
    if pd.isna(low):
        return (f"Of what was {side}, {names[1]} answers {bounds} in share; one model on a side "
                "has no interval, so nothing is told apart.")  # fmt: skip
    if low <= 0 <= high:
        return (f"Of what was {side}, the two are not told apart: {names[1]} less {names[0]} is "
                f"{bounds} in share, {over}.")  # fmt: skip
    more = "more" if mean > 0 else "less"
    return f"Of what was {side}, {names[1]} answers {more} than {names[0]}: {bounds}, {over}."


def _worth(runs: tuple[Run, Run], differ: Mapping[str, tuple[str, str]]) -> list[str]:
    """What a difference may be read as."""
    shared = sorted(set(runs[0].seeds) & set(runs[1].seeds))
    said = []
    if len(shared) < 2:
        how = "one seed is" if shared else "no seeds are"
        said.append(f"Paired: {how} shared, so the runs are compared as two groups.")
    elif len(shared) < max(len(run.seeds) for run in runs):
        said.append(f"Paired: differences are over the {len(shared)} seeds that both have alone.")
    if not differ:
        said.append("They were made alike but for their seeds.")
    elif len(differ) == 1:
        said.append(f"They differ in {next(iter(differ))} alone.")
    else:
        said.append(
            f"They differ in {listed(differ, 'and')}, so that no difference is of one of these "
            "alone."
        )
    return said

"""Every registered analysis at quick settings, with all claims ranked by distance from the null."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd

from tbtt_interp.analyses.pairs import ordered_pairs
from tbtt_interp.analyses.registry import ANALYSES
from tbtt_interp.errors import TbttError
from tbtt_interp.plots import claims_ranked
from tbtt_interp.results import Result, claims_table
from tbtt_interp.runs import Run
from tbtt_interp.seeds import MANY_PARAMETERS, Models

N_PRINTED = 25
N_TOKENS = 1_500  # tokens of the pairs that are patched, where `patching` by itself patches all
FEWEST_PAIRS = 16


def quick_pairs(models: Models) -> dict[str, int]:
    """How many pairs to patch: about N_TOKENS tokens of them, and FEWEST_PAIRS at least."""
    if models.n_parameters > MANY_PARAMETERS:
        return {"pairs": FEWEST_PAIRS}
    sample = ordered_pairs(models.shared_prompts).sample(FEWEST_PAIRS, seed=0)
    tokens = sample.batch(sample.clean).tokens.numel() / len(sample)
    return {"pairs": max(FEWEST_PAIRS, int(N_TOKENS / tokens))}


def quick_sites(models: Models) -> dict[str, list[str]]:
    """The last layer's heads and MLP."""
    layer = models.first.cfg.n_layers - 1
    return {"site": [f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.hook_mlp_out"]}


def quick_streams(models: Models) -> dict[str, Any]:
    """The last layer's streams, at the last position."""
    block = f"blocks.{models.first.cfg.n_layers - 1}"
    sites = [f"{block}.hook_resid_{part}" for part in ("mid", "post")]
    return {"site": [site for site in sites if site in models.first.hook_dict], "position": [-1]}


QUICK: Mapping[str, Callable[[Models], dict[str, Any]]] = {
    "das": quick_streams, "patching": quick_pairs, "paths": quick_pairs, "order": quick_sites,
}  # fmt: skip


def analyse_overview(run: Models | Run) -> Result:
    """The claims of every analysis that applies to these models, furthest from their nulls first.

    Analyses that do not apply are named with the reason.
    """
    models = Models.of(run)
    tables, notes, claims = [], [], []
    for name, analysis in ANALYSES.items():
        if name == "overview":
            continue
        try:
            result = analysis(models, **QUICK.get(name, lambda _: {})(models))
        except TbttError as error:
            notes.append(f"Does not apply, {name}: {error}.")
            continue
        tables.append(claims_table(result.claims).assign(analysis=name))
        claims += [dataclasses.replace(c, text=f"{name}: {c.text}") for c in result.claims]
    table = pd.concat(tables, ignore_index=True)
    distance = (table["effect"] - table["null"]).abs()
    order = distance.sort_values(ascending=False, kind="stable").index
    table = table.loc[order, ["analysis", *table.columns.drop("analysis")]]
    verdicts = pd.crosstab(table["analysis"], table["verdict"])
    kinds = [v for v in ("supported", "contradicted", "undecided") if v in verdicts]
    display = verdicts.loc[list(dict.fromkeys(table["analysis"])), kinds].reset_index()
    return Result(
        name="overview", tables={"overview": table}, display=display, claims=claims,
        figures={"overview": partial(claims_ranked, table)}, n_printed=N_PRINTED,
        notes=[
            "Claims by analysis and verdict. Effects are shares of all there could be, so that "
            "claims can be ranked by the distance from their nulls. Only some pairs are patched: "
            "run an analysis by itself for all.",
            *notes,
        ],
    )  # fmt: skip

"""Path patching: along which edges and whole paths a difference of prompts reaches the answer.

Each edge, or path, is patched by itself and the model is run on: this is exact. Two approximations
stand beside it with their errors, and circuits: what the strongest edges alone would answer.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from tbtt_interp.analyses.circuits import (
    RANDOM,
    STEPS,
    circuit_scores,
    circuits_table,
    edge_attributions,
)
from tbtt_interp.analyses.graph import (
    EMBED,
    LOGITS,
    edge_hooks,
    edges_of,
    logit_differences,
    path_delta,
    paths_of,
    receivers_of,
    sender_outputs,
)
from tbtt_interp.analyses.pairs import Pairs, chosen_pairs, null_sources
from tbtt_interp.analyses.patching import SOURCES
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import add, split_inputs
from tbtt_interp.plots import GREY, curves, panels, points
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result, strongest_null
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Arrays, Models, over_seeds
from tbtt_interp.stats import Interval, ratios_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

SHOWN = 0.02  # the least fraction restored that is printed and claimed
FAITHFUL = 0.9  # of the smallest circuit that is claimed
FEW = 16  # pairs, where models are large and have thousands of edges
DRAWN = 24  # edges and paths in a figure, the strongest
METHODS = {"eap": "EAP", "eap_ig": "EAP-IG"}


def path_effects(
    model: "HookedTransformer", prompts: PromptSet, pairs: Pairs, seed: int = 0
) -> Arrays:
    """What each edge and path restores of each pair's logit difference, denoising, in nats.

    Returns:
        `total_effect` [pair], of which the clean run differs from the corrupted one; `exact`
        [source, edge + path, pair], nan where there is no null source; `eap` and `eap_ig` [edge,
        pair]; and the arrays of `circuit_scores`.
    """
    batch, wrong = pairs.batch(pairs.corrupted), pairs.corrupted_tokens
    edges, paths = edges_of(model, batch), paths_of(model)
    stream = receivers_of(model)[LOGITS].hook
    before = logit_differences(model, batch, wrong)
    clean = logit_differences(model, pairs.batch(pairs.clean), wrong)
    exact, fast = [], {}
    with split_inputs(model):
        own = sender_outputs(model, batch)
        for kind in SOURCES:
            chosen = (
                pairs.clean if kind == "pair" else null_sources(pairs, kind, pairs.corrupted, seed)
            )
            is_known = torch.from_numpy(chosen >= 0)
            source_batch = pairs.batch(np.where(chosen >= 0, chosen, pairs.corrupted))
            source = sender_outputs(model, source_batch)
            hooks = [
                *(edge_hooks(model, batch, source, [edge]) for edge in edges),
                *([add(stream, path_delta(model, batch, source, own, path))] for path in paths),
            ]
            effects = [logit_differences(model, batch, wrong, hook) - before for hook in hooks]
            exact.append(torch.stack(effects).where(is_known, torch.nan))
            if kind == "pair":
                for name, steps in (("eap", 1), ("eap_ig", STEPS)):
                    rows = edge_attributions(model, batch, wrong, source, own, edges, steps=steps)
                    of_pair = torch.zeros(len(edges), len(pairs), dtype=rows.dtype)
                    fast[name] = of_pair.index_add(1, batch.row_example, rows)
    tensors = {"exact": torch.stack(exact), "total_effect": clean - before, **fast}
    arrays = {name: values.numpy() for name, values in tensors.items()}
    scores = circuit_scores(model, prompts, pairs, arrays["exact"][0, : len(edges)], seed)
    return arrays | scores


def paths_table(models: Models, pairs: Pairs, effects: Arrays) -> pd.DataFrame:
    """What each edge, and in one layer each whole path, restores of the logit difference.

    Whole answers, denoising; fractions, intervals and nulls are as in `patching_table`.

    Args:
        effects: `path_effects` of every model.
    Returns:
        One row per changed label and edge or path: `kind`, `name`, `sender`, `receiver`, `pos`,
        `position`, `fraction_restored` with its interval, `same_answer`, `random`, and for edges
        the approximations `eap` and `eap_ig`.
    """
    edges = edges_of(models.first, pairs.batch(pairs.corrupted))
    offsets = [edge.pos for edge in edges if edge.pos is not None] or [-1]
    names = pairs.prompts.position_names(min(offsets), max(offsets))
    rows = [("edge", f"{e.sender} → {e.receiver}", *e, "all" if e.pos is None else names[e.pos])
            for e in edges]  # fmt: skip
    rows += [("path", " → ".join([EMBED, *path, LOGITS]), None, None, None, "all")
             for path in paths_of(models.first)]  # fmt: skip
    columns = ["kind", "name", "sender", "receiver", "pos", "position"]
    cells = pd.DataFrame(rows, columns=columns).astype({"pos": "Int64"})
    found = []
    for label, numbers in pairs.by_change().items():
        exact, total = effects["exact"][..., numbers], effects["total_effect"][:, numbers]
        weights = (np.isfinite(exact) * total[:, None, None]).sum(-1)
        fraction = ratios_over_models(
            np.moveaxis(np.nan_to_num(exact).sum(-1), 0, -1), np.moveaxis(weights, 0, -1)
        )
        approximations = {
            name: pd.Series(effects[name][..., numbers].sum((0, 2)) / total.sum())
            for name in METHODS
        }
        found.append(cells.assign(
            changed=label, fraction_restored=fraction.mean[0],
            fraction_restored_low=fraction.low[0], fraction_restored_high=fraction.high[0],
            same_answer=fraction.mean[1], random=fraction.mean[2], n_models=fraction.n[0],
            **approximations,
        ))  # fmt: skip
    return pd.concat(found, ignore_index=True)


def approximations_table(pairs: Pairs, effects: Arrays) -> pd.DataFrame:
    """How far the fast approximations are from the exact effects of edges.

    Returns:
        One row per changed label and `method`: `pearson` and `spearman`, correlations over edges
        with the exact fraction; `error`, the summed distance from it over the summed exact
        fractions; `pair_pearson`, the correlation over models, edges and single pairs.
    """
    rows = []
    for label, numbers in pairs.by_change().items():
        total = effects["total_effect"][:, numbers].sum()
        for name in METHODS:
            fast = effects[name][..., numbers]
            exact = effects["exact"][:, 0, : fast.shape[1]][..., numbers]
            of_edge, exact_of_edge = (x.sum((0, 2)) / total for x in (fast, exact))
            rows.append({
                "changed": label, "method": name,
                "pearson": np.corrcoef(of_edge, exact_of_edge)[0, 1],
                "spearman": spearmanr(of_edge, exact_of_edge).statistic,  # pyright: ignore
                "error": np.abs(of_edge - exact_of_edge).sum() / np.abs(exact_of_edge).sum(),
                "pair_pearson": np.corrcoef(fast.ravel(), exact.ravel())[0, 1],
            })  # fmt: skip
    return pd.DataFrame(rows)


def path_claims(table: pd.DataFrame, circuits: pd.DataFrame) -> list[Claim]:
    """What each whole path (in deeper models each edge) restores, and the smallest good circuit."""
    kind = "path" if (table["kind"] == "path").any() else "edge"
    strong = table[(table["kind"] == kind) & (table["fraction_restored"].abs() > SHOWN)]
    claims = [
        Claim(
            text=f"Where {row['changed']} differs, {row['name']} alone restores",
            effect=Interval.of_row(row, "fraction_restored"), unit="of the logit difference",
            null=strongest_null(row["fraction_restored"], [row["same_answer"], row["random"]]),
            null_name="the stronger of the two null sources",
        )
        for row in strong.to_dict("records")
    ]  # fmt: skip
    good = circuits[circuits["faithfulness"] >= FAITHFUL].iloc[0].to_dict()
    if good["edges"] < good["all"]:
        claims.append(Claim(
            text="The smallest faithful circuit, the strongest edges alone, keeps",
            effect=Interval.of_row(good, "faithfulness"), null=good["random_most"],
            unit=f"of the logit difference ({good['edges']:.0f} of {good['all']:.0f} edges)",
            null_name=f"the best of {RANDOM} random circuits of that size",
        ))  # fmt: skip
    return claims


def analyse_paths(
    run: Models | Run, pairs: Pairs | None = None, *, n_pairs: int | None = None, seed: int = 0
) -> Result:
    """Edges, whole paths, the approximations' errors, and circuits.

    Args:
        pairs: None is `n_pairs` pairs of `chosen_pairs`, or all; of large models FEW.
    Raises:
        TbttError: if there are too few pairs, or the models have no MLPs.
    """
    if n_pairs is not None and n_pairs < 4:
        raise TbttError(f"pairs must be at least 4, half of them to rank edges on, got {n_pairs}")
    models = Models.of(run)
    pairs = chosen_pairs(models, count=n_pairs, few=FEW, seed=seed) if pairs is None else pairs
    effects = over_seeds(models, path_effects, pairs, seed)
    table, errors = paths_table(models, pairs, effects), approximations_table(pairs, effects)
    circuits = circuits_table(effects, effects["eap"].shape[1])
    numbers = ["fraction_restored", "fraction_restored_low", "fraction_restored_high",
               "same_answer", "random", *METHODS]  # fmt: skip
    shown = table[table["fraction_restored"].abs() > SHOWN][
        ["changed", "name", "position", *numbers]
    ]
    means = errors.groupby("method")["error"].mean()
    return Result(
        name="paths",
        tables={"paths": table, "approximations": errors, "circuits": circuits},
        display=shown[["changed", "name", "position"]].assign(
            **{n: shown[n].map("{:.2f}".format).replace("nan", "") for n in numbers}
        ),
        claims=path_claims(table, circuits),
        figures={
            "paths": partial(plot_paths, table),
            "approximations": partial(plot_approximations, table),
            "circuits": partial(plot_circuits, circuits),
        },
        notes=[
            f"{len(pairs):,} pairs, denoising, whole answers. Edges and paths that restore less "
            f"than {SHOWN} are not shown.",
            "Fractions of single edges do not add up: what an edge restores depends on the others.",
            f"Summed over edges, attribution patching (EAP) is off by {means['eap']:.0%} of the "
            f"exact fractions, with integrated gradients (EAP-IG, {STEPS} steps) by "
            f"{means['eap_ig']:.0%}.",
            *pairs.notes(),
        ],
    )  # fmt: skip


def plot_paths(table: pd.DataFrame) -> "Figure":
    """What each edge and path restores by itself: exact, approximated, and from null sources.

    Args:
        table: as `paths_table` returns it.
    """
    name = table["name"] + (" at " + table["position"]).where(table["kind"] == "edge", "")
    strength = table["fraction_restored"].abs().groupby(name).max()
    drawn = strength[strength > 0.01].nlargest(DRAWN).index
    rows = table.assign(name=name, panel=table["changed"] + " differs")
    return points(
        rows[name.isin(drawn)], name="name", value="fraction_restored",
        low="fraction_restored_low", high="fraction_restored_high", panel="panel",
        nulls={"random": "random source", "same_answer": "source with the corrupted answer"}
        | METHODS, title="fraction of the logit difference restored", label="exact, 95 % CI",
    )  # fmt: skip


def plot_approximations(table: pd.DataFrame) -> "Figure":
    """The two approximations of each edge against its exact fraction.

    Args:
        table: as `paths_table` returns it.
    """
    rows = table[table["kind"] == "edge"]
    figure, _ = panels([""], width=520, height=420)
    ends = [rows["fraction_restored"].min(), rows["fraction_restored"].max()]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": GREY}, showlegend=False)
    for method, name in METHODS.items():
        figure.add_scatter(
            x=rows["fraction_restored"], y=rows[method], mode="markers", name=name,
            text=rows["name"] + " at " + rows["position"] + ", " + rows["changed"] + " differs",
            hovertemplate="%{text}<br>exact %{x:.2f}, approximated %{y:.2f}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="exact fraction restored")
    return figure.update_yaxes(title="approximated fraction")


def plot_circuits(circuits: pd.DataFrame) -> "Figure":
    """What circuits of each size keep of the logit difference, with as many random edges.

    Args:
        circuits: as `circuits_table` returns it.
    """
    return curves(
        circuits.assign(edges_kept="strongest edges, 95 % CI"), x="edges", y="faithfulness",
        by="edges_kept", low="faithfulness_low", high="faithfulness_high",
        nulls={"random": "random edges, mean", "random_most": "random edges, most"},
        titles=("edges kept", "share of the logit difference kept"),
    )  # fmt: skip

"""Path patching: along which edges and whole paths a difference of prompts reaches the answer.

Each edge, or path, is patched by itself and the model is run on: this is exact. Two approximations
stand beside it with their errors, and circuits: what the strongest edges alone would answer.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from tbtt_interp.analyses import graph
from tbtt_interp.analyses.pairs import SOURCES, Pairs, chosen_pairs
from tbtt_interp.analyses.patching import fraction_claims, fraction_columns, offsets_of
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import answer_logits, split_inputs
from tbtt_interp.plots import curves, points
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Arrays, Models, over_seeds
from tbtt_interp.stats import Interval, ratios_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

    from tbtt_interp.seeds import ModelsLike
    from tbtt_interp.tasks import Prompts

STEPS = 5  # of the integral of EAP-IG, as Hanna et al. 2024 take
RANDOM = 10  # random circuits of each size
SHOWN = 0.02  # the least fraction restored that is printed and claimed
FAITHFUL = 0.9  # of the smallest circuit that is claimed
FEW = 16  # pairs, where models are large and have thousands of edges
DRAWN = 24  # edges and paths in a figure, the strongest
METHODS = {"eap": "EAP", "eap_ig": "EAP-IG"}


def path_effects(
    model: "HookedTransformer", prompts: PromptSet, pairs: Pairs, seed: int = 0,
    n_random: int | None = RANDOM,
) -> Arrays:  # fmt: skip
    """Effect of each edge and path on each pair's logit difference, denoising, in nats.

    Args:
        n_random: random circuits of each size; None leaves circuits out.
    Returns:
        `total_effect` [pair]; `exact` [source, edge + path, pair], nan where there is no null
        source; `eap` and `eap_ig` [edge, pair]; and the arrays of `circuit_scores`.
    """
    edges = graph.edges_of(model, pairs.batch(pairs.corrupted))
    effects = exact_effects(model, prompts, pairs, edges, graph.paths_of(model), seed)
    with split_inputs(model):
        run = patched_from(model, pairs, "pair", seed)[0]
        fast = {"eap": run.attributions(edges), "eap_ig": run.attributions(edges, STEPS)}
    exact = effects["exact"][0, : len(edges)]
    effects |= {name: values.numpy() for name, values in fast.items()}
    if n_random is None:
        return effects
    return effects | circuit_scores(model, prompts, pairs, exact, seed, n_random)


def patched_from(
    model: "HookedTransformer", pairs: Pairs, kind: str, seed: int = 0
) -> tuple[graph.PathPatching, Bool[np.ndarray, " pair"]]:
    """The corrupted run with a source of this kind, and which pairs have one."""
    source, is_known = pairs.source_examples(kind, pairs.corrupted, seed)
    batches = pairs.batch(pairs.corrupted), pairs.batch(source)
    return graph.PathPatching(model, *batches, pairs.corrupted_tokens), is_known


def exact_effects(
    model: "HookedTransformer", prompts: PromptSet, pairs: Pairs, edges: Sequence[graph.Edge],
    paths: Sequence[tuple[str, ...]], seed: int = 0,
) -> Arrays:  # fmt: skip
    """`total_effect` and `exact` of `path_effects`, for some edges and paths alone."""
    exact, total = [], []
    with split_inputs(model):
        for kind in SOURCES:
            run, is_known = patched_from(model, pairs, kind, seed)
            hooks = [*(run.edge_hooks([edge]) for edge in edges), *map(run.path_hooks, paths)]
            effects = torch.stack([run.differences(hook) for hook in hooks]) - run.differences()
            exact.append(np.where(is_known, effects, np.nan))
            total.append(run.total_effects().numpy())
    return {"exact": np.stack(exact), "total_effect": total[0]}


def path_patching(
    models: "ModelsLike", pairs: Pairs | None = None, *, clean: str | None = None,
    corrupted: str | None = None, prompts: "Prompts | None" = None, encoder: Any = None,
    step: int | None = None, n_pairs: int | None = None, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """The fraction of the logit difference that each edge restores, and in one layer each path.

    Args:
        models, prompts, encoder, step: as in `Models.of`.
        clean, corrupted: one pair of prompts; None is all labelled pairs that differ in one label,
            or n_pairs of them drawn at random.
    Returns:
        The rows of `paths_table`, with intervals over models and two null sources.
    Source: Goldowsky-Dill et al. 2023, Localizing Model Behavior with Path Patching.
    """
    if (clean is None) != (corrupted is None):
        raise TbttError("clean and corrupted go together: give both, or neither for all pairs")
    has_prompts = prompts is not None or isinstance(models, Models | Run | str | Path)
    if clean is not None and corrupted is not None and not has_prompts:
        prompts = [clean, corrupted]
    chosen = Models.of(models, step, prompts=prompts, encoder=encoder)
    if pairs is None:
        pairs = chosen_pairs(chosen, clean, corrupted, count=n_pairs, few=FEW, seed=seed)
    return paths_table(chosen, pairs, over_seeds(chosen, path_effects, pairs, seed, None))


def circuit_sizes(n_edges: int) -> list[int]:
    """Numbers of edges that circuits keep: none, powers of two and three times these, and all.

    >>> circuit_sizes(10)
    [0, 1, 2, 3, 4, 6, 8, 10]
    """
    powers = (m * 2**n for n in range(12) for m in (1, 3))
    return sorted({0, *(size for size in powers if size < n_edges), n_edges})


def circuit_scores(
    model: "HookedTransformer", prompts: PromptSet, pairs: Pairs,
    exact: Float[np.ndarray, "edge pair"], seed: int = 0, n_random: int = RANDOM,
) -> Arrays:  # fmt: skip
    """Faithfulness of the strongest edges when all other edges carry the corrupted run.

    Edges are ranked by their exact effects on the pairs of half of the clean prompts, and circuits
    are scored on the others. The null is as many edges drawn at random.

    Returns:
        `kept`, the share of the logit difference, and `right`, the answer tokens that are
        predicted: [size, 1 + n_random], the strongest edges first; and `of`, all answer tokens.
    Source: faithfulness and its null, Shi et al. 2024.
    """
    names = np.unique(pairs.clean)
    if len(names) < 2:
        raise TbttError(
            "a circuit needs at least two clean prompts, one to rank edges and one to score: "
            "give more pairs"
        )
    ranking = np.random.default_rng((seed, 0xC1)).permutation(names)[: len(names) // 2]
    ranks_edges = np.isin(pairs.clean, ranking)
    order = np.argsort(-np.abs(exact[:, ranks_edges].sum(1)))
    edges = graph.edges_of(model, pairs.batch(pairs.corrupted))  # the edges that `exact` is of
    scored = pairs.take(np.flatnonzero(~ranks_edges))
    clean, corrupted = scored.batch(scored.clean), scored.batch(scored.corrupted)
    with split_inputs(model):
        run = graph.PathPatching(model, clean, corrupted, scored.corrupted_tokens)
        whole, total = run.differences().sum(), run.total_effects().sum()

        def answers(order: Int[np.ndarray, " edge"], size: int) -> tuple[float, int]:
            hooks = run.edge_hooks([edges[k] for k in order[size:]])
            logits = answer_logits(model, clean, hooks)
            score = graph.logit_differences(logits, clean, run.wrong).sum()
            n_right = (logits.argmax(1) == clean.answer_token).sum()
            return float(1 - (score - whole) / total), int(n_right)

        generator, found = prompts.random(seed, 0xC1), []
        for size in circuit_sizes(len(edges)):
            orders = [order, *(generator.permutation(len(edges)) for _ in range(n_random))]
            if size in (0, len(edges)):  # no edges, or all: the order does not matter
                found.append([answers(order, size)] * len(orders))
            else:
                found.append([answers(one, size) for one in orders])
    kept, right = np.moveaxis(np.array(found), -1, 0)
    return {"kept": kept, "right": right.astype(int), "of": np.array(len(clean.answer_token))}


def circuits_table(scores: Arrays, n_edges: int) -> pd.DataFrame:
    """`circuit_scores` of every model as one row per size of a circuit.

    Returns:
        `edges`, of the `all` that there are; `faithfulness`, the share of the logit difference
        kept, with its interval; `random` and `random_most`, the mean and the greatest of random
        circuits; `right`, `of` and `right_random`, sums over models.
    """
    kept, right = scores["kept"], scores["right"]
    mean, low, high, n = ratios_over_models(kept[..., 0].T, np.ones(1))
    return pd.DataFrame({
        "edges": circuit_sizes(n_edges), "all": n_edges, "faithfulness": mean,
        "faithfulness_low": low, "faithfulness_high": high, "random": kept[..., 1:].mean((0, 2)),
        "random_most": kept[..., 1:].max(2).mean(0), "right": right[..., 0].sum(0),
        "of": scores["of"].sum(), "right_random": right[..., 1:].mean(2).sum(0), "n_models": n,
    })  # fmt: skip


def paths_table(models: Models, pairs: Pairs, effects: Arrays) -> pd.DataFrame:
    """Fraction restored by each edge, and in one layer by each path, denoising.

    Returns:
        One row per changed label and edge or path: `kind`, `name`, `sender`, `receiver`, `pos`,
        `position`, `fraction_restored` with its interval, the nulls `same_answer` and `random`,
        and for edges the approximations `eap` and `eap_ig`.
    """
    batch = pairs.batch(pairs.corrupted)
    offsets = offsets_of(batch)
    names = {**pairs.prompts.position_names(offsets[0], offsets[-1]), None: "all"}
    rows = [("edge", f"{edge.sender} → {edge.receiver}", *edge, names[edge.pos])
            for edge in graph.edges_of(models.first, batch)]  # fmt: skip
    rows += [("path", " → ".join([graph.EMBED, *path, graph.LOGITS]), None, None, None, "all")
             for path in graph.paths_of(models.first)]  # fmt: skip
    columns = ["kind", "name", "sender", "receiver", "pos", "position"]
    cells = pd.DataFrame(rows, columns=columns).astype({"pos": "Int64"})
    found, numbers = [], pairs.by_change()
    for label, fractions in fractions_by_change(pairs, effects).items():
        total = effects["total_effect"][:, numbers[label]].sum()
        fast = {name: pd.Series(effects[name][..., numbers[label]].sum((0, 2)) / total)
                for name in METHODS}  # fmt: skip
        found.append(cells.assign(changed=label, **fractions, **fast))
    return pd.concat(found, ignore_index=True)


def fractions_by_change(pairs: Pairs, effects: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """For each changed label, `fraction_columns` of the `exact_effects` of all models."""
    found = {}
    for label, numbers in pairs.by_change().items():
        exact = np.moveaxis(effects["exact"][..., numbers], 0, -1)  # [source, edge, pair, model]
        total = effects["total_effect"][:, numbers].T  # [pair, model]
        sums = np.nansum(exact, -2), (np.isfinite(exact) * total).sum(-2)
        found[label] = fraction_columns(*sums)
    return found


def approximations_table(table: pd.DataFrame) -> pd.DataFrame:
    """How far the fast approximations are from the exact fractions of edges.

    Returns:
        One row per changed label and `method`: `pearson`, the correlation over edges, and `error`,
        the summed distance over the summed exact fractions.
    """
    rows = []
    for label, edges in table[table["kind"] == "edge"].groupby("changed", sort=False):
        exact = edges["fraction_restored"]
        for name in METHODS:
            error = (edges[name] - exact).abs().sum() / exact.abs().sum()
            rows.append((label, name, edges[name].corr(exact), error))
    return pd.DataFrame(rows, columns=["changed", "method", "pearson", "error"])


def path_claims(table: pd.DataFrame, by_size: pd.DataFrame) -> list[Claim]:
    """What each whole path (in deeper models each edge) restores, and the smallest good circuit."""
    kind = "path" if (table["kind"] == "path").any() else "edge"
    strong = table[(table["kind"] == kind) & (table["fraction_restored"].abs() > SHOWN)]
    texts = "Where " + strong["changed"] + " differs, " + strong["name"] + " alone restores"
    claims = fraction_claims(strong, texts)
    good = by_size[by_size["faithfulness"] >= FAITHFUL].iloc[0].to_dict()
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
    """Edges, whole paths, the approximations' errors, and circuits; of large models FEW pairs."""
    if n_pairs is not None and n_pairs < 4:
        raise TbttError(f"pairs must be at least 4, half of them to rank edges on, got {n_pairs}")
    models = Models.of(run)
    pairs = chosen_pairs(models, count=n_pairs, few=FEW, seed=seed) if pairs is None else pairs
    effects = over_seeds(models, path_effects, pairs, seed)
    table = paths_table(models, pairs, effects)
    errors = approximations_table(table)
    by_size = circuits_table(effects, effects["eap"].shape[1])
    numbers = ["fraction_restored", "fraction_restored_low", "fraction_restored_high",
               "same_answer", "random", *METHODS]  # fmt: skip
    shown = table[table["fraction_restored"].abs() > SHOWN]
    written = shown[numbers].map("{:.2f}".format).replace("nan", "")
    means = errors.groupby("method")["error"].mean()
    return Result(
        name="paths",
        tables={"paths": table, "approximations": errors, "circuits": by_size},
        display=shown[["changed", "name", "position"]].join(written),
        claims=path_claims(table, by_size),
        figures={
            "paths": partial(plot_paths, table),
            "circuits": partial(plot_circuits, by_size),
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
    """Fraction restored by each edge and path: exact, approximate, and from null sources."""
    name = table["name"] + (" at " + table["position"]).where(table["kind"] == "edge", "")
    strength = table["fraction_restored"].abs().groupby(name).max()
    drawn = strength[strength > 0.01].nlargest(DRAWN).index
    rows = table.assign(name=name, panel=table["changed"] + " differs")
    return points(
        rows[name.isin(drawn)], name="name", value="fraction_restored",
        panel="panel",
        nulls={"random": "random source", "same_answer": "source with the corrupted answer"}
        | METHODS, title="fraction of the logit difference restored", label="exact, 95 % CI",
    )  # fmt: skip


def plot_circuits(by_size: pd.DataFrame) -> "Figure":
    """Faithfulness of circuits by size, and of as many random edges."""
    return curves(
        by_size.assign(edges_kept="strongest edges, 95 % CI"), x="edges", y="faithfulness",
        by="edges_kept",
        nulls={"random": "random edges, mean", "random_most": "random edges, most"},
        titles=("edges kept", "share of the logit difference kept"),
    )  # fmt: skip

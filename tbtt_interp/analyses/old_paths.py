"""Path patching: along which edges and whole paths what differs reaches the answer.

Exact: an edge, or a path, is patched by itself and the model run on. Beside it two approximations
with their errors, and circuits: what the strongest edges alone would answer.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from tbtt_interp import figures
from tbtt_interp.analyses.findings import Finding, Result, Tell, further_null, silent
from tbtt_interp.analyses.old_circuits import RANDOM, circuits_table
from tbtt_interp.analyses.old_edge_attribution import STEPS, edge_attributions
from tbtt_interp.analyses.old_graph import (
    EMBED,
    LOGITS,
    difference,
    edge_hooks,
    edges_of,
    outputs_of,
    path_delta,
    receiver_hooks,
    split_inputs,
)
from tbtt_interp.analyses.old_pairs import Pairs, chosen_pairs, donors
from tbtt_interp.analyses.old_patching import DONORS
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.runs import Run
from tbtt_interp.stats import Interval, crossed_intervals

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

MENTIONED = 0.02  # the least share that is said
FAITHFUL = 0.9  # of the smallest circuit that is said
FEW = 16  # pairs, where models are large and have thousands of edges


def paths_of(model: "HookedTransformer") -> list[tuple[str, ...]]:
    """Every path from the embeddings to the logits of a model of one layer, by its receivers."""
    if model.cfg.n_layers > 1:
        return []
    heads = [(name,) for name in receiver_hooks(model) if name[0] in "qkv"]
    return [(), ("MLP 0",), *heads, *((*head, "MLP 0") for head in heads)]


def _patch_model(subject: Subject, k: int, pairs: Pairs, tell: Tell, seed: int) -> Arrays:
    """One model's effect of every edge and path on each pair, denoising.

    Returns:
        distance `[pair]`; exact `[donor, edge + path, pair]`, nan where a donor is missing; and
        eap, eap_ig `[edge, pair]`.
    """
    model = subject.models[k]
    asked, wrong = pairs.questions(pairs.corrupt), pairs.wrong
    edges = edges_of(model, asked)
    paths = paths_of(model)
    stream = receiver_hooks(model)[LOGITS][0]
    before = difference(model, asked, wrong)
    clean = difference(model, pairs.questions(pairs.clean), wrong)
    found: dict[str, list[Tensor]] = {"exact": []}
    with split_inputs(model):
        own = outputs_of(model, asked)
        for number, kind in enumerate(DONORS):
            given = pairs.clean if kind == "pair" else donors(pairs, kind, pairs.corrupt, seed)
            source = pairs.questions(np.where(given >= 0, given, pairs.corrupt))
            donor = outputs_of(model, source)
            effects = []
            for edge in edges:
                hooks = edge_hooks(model, asked, donor, [edge])
                effects.append(difference(model, asked, wrong, hooks) - before)
            for path in paths:
                delta = path_delta(model, asked, donor, own, path)
                hook = (stream, lambda values, hook, delta=delta: values + delta)
                effects.append(difference(model, asked, wrong, [hook]) - before)
            found["exact"].append(torch.stack(effects))
            found["exact"][-1][:, torch.from_numpy(given < 0)] = torch.nan
            tell(number + 1, len(DONORS))
            if kind == "pair":
                for name, steps in (("eap", 1), ("eap_ig", STEPS)):
                    rows = edge_attributions(model, asked, wrong, donor, own, edges, steps=steps)
                    of_pair = torch.zeros(len(edges), len(pairs), dtype=rows.dtype)
                    found[name] = [of_pair.index_add_(1, asked.of_row, rows)]
    arrays = {name: torch.stack(values).squeeze(0).numpy() for name, values in found.items()}
    return arrays | {"distance": (clean - before).numpy()}


def edge_effects(
    subject: Subject,
    pairs: Pairs,
    *,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Arrays:
    """Every model's effects of every edge and path on each pair, denoising, in nats of logit.

    Returns:
        `distance` between the two runs, `[seed, pair]`; `exact`, `[seed, donor, edge + path,
        pair]`, nan where a donor is missing; `eap` and `eap_ig`, `[seed, edge, pair]`.
    """
    parts, models = parts or Parts(), len(subject.models)
    found = [
        parts.get(
            f"paths-{s}",
            partial(_patch_model, subject, k, pairs, partial(_told, tell, k, models), seed),
        )
        for k, s in enumerate(subject.seeds)
    ]
    return {name: np.stack([part[name] for part in found]) for name in found[0]}


def paths_table(subject: Subject, pairs: Pairs, effects: Arrays, *, seed: int = 0) -> pd.DataFrame:
    """What every edge, and of one layer every whole path, restores of the logit difference.

    All characters of an answer together, denoising; shares, intervals and nulls as in
    `patching_table`.

    Args:
        effects: as `edge_effects` has them.
    Returns:
        a row an edge or path and changed label: `kind`, `name`, `sender`, `receiver`, `pos`,
        `place`, `share`, `low`, `high`, `same_answer`, `random`, and of edges the approximations
        `eap` and `eap_ig`.
    """
    edges = edges_of(subject.models[0], pairs.questions(pairs.corrupt))
    positions = [edge.pos for edge in edges if edge.pos is not None] or [-1]
    places = subject.place_names(min(positions), max(positions))
    found = []
    for label, mine in _by_change(pairs):
        rows = [
            {"changed": label, "kind": "edge", "name": f"{edge.sender} → {edge.receiver}",
             "sender": edge.sender, "receiver": edge.receiver, "pos": edge.pos,
             "place": "all" if edge.pos is None else places[edge.pos]}
            for edge in edges
        ]  # fmt: skip
        rows += [
            {"changed": label, "kind": "path", "place": "all",
             "name": " → ".join([EMBED, *path, LOGITS])}
            for path in paths_of(subject.models[0])
        ]  # fmt: skip
        distance = effects["distance"][:, mine]
        for n, name in enumerate(("share", "same_answer", "random")):
            shares = _shares(
                effects["exact"][:, n][..., mine], distance, pairs.clean[mine],
                resamples=1 if n else 999, seed=seed,
            )  # fmt: skip
            for row, of in zip(rows, shares, strict=True):
                row[name] = of.mean
                if name == "share":
                    row |= {"low": of.low, "high": of.high}
        for name in ("eap", "eap_ig"):
            shares = effects[name][..., mine].sum((0, 2)) / distance.sum()
            for row, of in zip(rows, shares, strict=False):  # of edges alone
                row[name] = float(of)
        found += rows
    return pd.DataFrame(found).astype({"pos": "Int64"})


def approximations_table(pairs: Pairs, effects: Arrays) -> pd.DataFrame:
    """How far the fast approximations are from the exact effects of edges.

    Returns:
        a row a `method` and changed label: `pearson` and `spearman` correlation with the exact
        share over edges; `error`, the summed distance from it over the summed exact shares;
        `pair_pearson`, the correlation over edges and single pairs.
    """
    rows = []
    for label, mine in _by_change(pairs):
        total = effects["distance"][:, mine].sum()
        for name in ("eap", "eap_ig"):
            a = effects[name][..., mine]
            e = effects["exact"][:, 0, : a.shape[1]][..., mine]
            of_a, of_e = (x.sum((0, 2)) / total for x in (a, e))
            rows.append({
                "changed": label, "method": name,
                "pearson": np.corrcoef(of_a, of_e)[0, 1],
                "spearman": np.corrcoef(rankdata(of_a), rankdata(of_e))[0, 1],
                "error": np.abs(of_a - of_e).sum() / np.abs(of_e).sum(),
                "pair_pearson": np.corrcoef(a.ravel(), e.ravel())[0, 1],
            })  # fmt: skip
    return pd.DataFrame(rows)


def _by_change(pairs: Pairs) -> list[tuple[str, np.ndarray]]:
    changed = np.array(pairs.changed)
    return [(label, np.flatnonzero(changed == label)) for label in dict.fromkeys(pairs.changed)]


def _told(tell: Tell, k: int, models: int, done: int, of: int) -> None:
    tell(k * of + done, models * of)


def _shares(
    effect: Float[np.ndarray, "seed cell pair"],
    distance: Float[np.ndarray, "seed pair"],
    groups: Int[np.ndarray, " pair"],
    *,
    resamples: int,
    seed: int,
) -> list[Interval]:
    """Of each cell; intervals are over models, and what is nan counts for nothing."""
    names, which = np.unique(groups, return_inverse=True)
    one_hot = np.eye(len(names))[which]  # [pair, clean example]
    totals = np.nan_to_num(effect) @ one_hot
    weights = (np.isfinite(effect) * distance[:, None]) @ one_hot
    return crossed_intervals(
        totals.swapaxes(0, 1), weights.swapaxes(0, 1), resamples=resamples, seed=seed
    )


def paths_findings(table: pd.DataFrame, circuits: pd.DataFrame) -> list[Finding]:
    """What each whole path restores (of deeper models each edge), and the smallest good circuit."""
    kind = "path" if (table["kind"] == "path").any() else "edge"
    strongest = table[(table["kind"] == kind) & (table["share"].abs() > MENTIONED)]
    found = [
        Finding(
            what=f"where {row['changed']} differs, {row['name']} alone restores",
            effect=Interval(mean=row["share"], low=row["low"], high=row["high"]),
            null=further_null(row["share"], [row["same_answer"], row["random"]]),
            null_is="the better of the two other donors",
            of="the logit difference",
        )
        for row in strongest.to_dict("records")
    ]
    good = circuits[circuits["faithful"] >= FAITHFUL].sort_values("edges").iloc[0]
    if good["edges"] < good["all"]:
        found.append(
            Finding(
                what="the strongest edges alone, as few as are needed, keep",
                effect=Interval(mean=good["faithful"], low=good["low"], high=good["high"]),
                null=good["random_most"],
                null_is=f"the most that {RANDOM} random circuits of that size keep",
                of=f"the logit difference ({good['edges']:.0f} of {good['all']:.0f} edges)",
            )
        )
    return found


def analyse_paths(
    subject: Subject | Run,
    pairs: Pairs | None = None,
    *,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Result:
    """Edges, whole paths, the approximations' errors, and circuits.

    Args:
        pairs: None is `chosen_pairs`, of larger models FEW.
    """
    subject = Subject.of(subject)
    pairs = chosen_pairs(subject, few=FEW) if pairs is None else pairs
    effects = edge_effects(subject, pairs, parts=parts, tell=tell, seed=seed)
    table = paths_table(subject, pairs, effects, seed=seed)
    errors = approximations_table(pairs, effects)
    circuits = circuits_table(subject, pairs, effects, seed=seed)
    strong = table[table["share"].abs() > MENTIONED]
    numbers = ["share", "low", "high", "same_answer", "random", "eap", "eap_ig"]
    shown = strong[["changed", "name", "place", *numbers]]
    means = errors.groupby("method")["error"].mean()
    return Result(
        name="paths",
        tables={"paths": table, "approximations": errors, "circuits": circuits},
        shown=shown.assign(
            **{n: shown[n].map("{:.2f}".format).replace("nan", "") for n in numbers}
        ),
        figures={
            "paths": partial(figures.paths, table),
            "circuits": partial(figures.circuits, table, circuits),
        },
        findings=paths_findings(table, circuits),
        notes=[
            f"{len(pairs):,} pairs, denoising, whole answers. What restores less than "
            f"{MENTIONED} is left out here.",
            "Shares of single edges do not add up: what an edge brings depends on the others.",
            f"Summed over edges, attribution patching (EAP) is off by {means['eap']:.0%} of the "
            f"exact shares, with integrated gradients (EAP-IG, {STEPS} steps) by "
            f"{means['eap_ig']:.0%}.",
            *pairs.notes(),
        ],
    )

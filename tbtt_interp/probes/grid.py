"""The probe grid: each feature at each site and position, compared with its nulls."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from tbtt_interp.activations import as_list
from tbtt_interp.errors import TbttError, listed
from tbtt_interp.plots import curves, heatmaps, points, short_site
from tbtt_interp.probes import linear
from tbtt_interp.probes.datasets import ProbeDataset, features_of, probe_datasets
from tbtt_interp.probes.features import MID, POST, one_hot_text
from tbtt_interp.probes.nulls import (
    adjusted_p,
    below_chance,
    guessed,
    missing_nulls,
    mlp_gains,
    operands_accuracy,
)
from tbtt_interp.probes.scores import CODED, accuracy, score_probes
from tbtt_interp.results import Claim, Result, p_text
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Arrays, Models, over_seeds
from tbtt_interp.shares import share_over_models
from tbtt_interp.stats import ANY, SHARE, Bounds, Interval, ratios_over_models

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

    from tbtt_interp.seeds import ModelsLike
    from tbtt_interp.tasks import Prompts

CONTROLS = 99  # control tasks per feature
LAYER_SITES = (
    "hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post",
    "hook_resid_post",
)  # fmt: skip
NULLS = {"control": "control tasks", "thresholds": "other thresholds",
         "operands": "operands as numbers", "one_hot": "one-hot text",
         "untrained": "untrained models", "majority": "majority class"}  # fmt: skip
DISPLAY = {
    "feature": "", "site": "", "pos": "d", "accuracy": ".2f", "control": ".2f",
    "selectivity": "interval", "operands": ".2f", "p": "p", "thresholds": ".2f", "one_hot": ".2f",
    "untrained": ".2f", "majority": ".2f", "r2": ".2f", "compression": ".2f",
    "control_compression": ".2f", "held_out": "", "p_adjusted": "p",
}  # fmt: skip
NOTES = (
    "accuracy: cross-validated, mean over models; folds keep 3+4, 4+3, 3-4 and 4-3 together. "
    "held out: labels of held-out examples that a probe fitted on seen examples predicts rightly.",
    "control: mean accuracy on control tasks, the feature after operands are renamed at random "
    "or labels permuted. p: the share of control tasks with as high an accuracy. selectivity: "
    "accuracy minus control, with its 95 % CI over models.",
    "thresholds: mean accuracy for the feature's quantity at other thresholds, as a + b ≥ 7 for "
    "the carry. operands: a probe of a, b, the sign and their products as plain numbers, through "
    "random maps of the site's width.",
    "one hot: a probe of the text alone. untrained: of the models before training. majority: the "
    "commonest class. compression: the uniform code's length divided by the online code's.",
)  # fmt: skip


def default_sites(layers: int) -> list[str]:
    """The embedding, and each layer's residual streams, attention heads, attention and MLP."""
    return ["hook_embed", *(f"blocks.{k}.{site}" for k in range(layers) for site in LAYER_SITES)]


def last_streams(run: Run) -> list[str]:
    """The residual stream after attention and after the MLP of the last layer."""
    return [f"blocks.{run.shape.layers - 1}.hook_resid_{part}" for part in ("mid", "post")]


def probe_table(
    dataset: ProbeDataset, scores: Arrays, untrained: Arrays | None, dimensions: int | None = None
) -> tuple[pd.DataFrame, Float[np.ndarray, "row control"]]:
    """One row per cell and feature, as `probe_grid` has them; each control task's mean accuracy."""
    tasks, n_models = dataset.tasks, len(scores["correct"])
    of = np.array([task.folds.n_tested for task in tasks])
    share = scores["correct"] / of[:, None]  # [model, cell, task, draw]
    real, control = share[..., 0], share[..., 1:]
    beaten = (control.mean(0) >= real.mean(0)[..., None] - 1e-12).sum(-1)
    gains = mlp_gains(scores, share)
    p = np.where([len(task.labels.controls) > 0 for task in tasks],
                 (1 + beaten) / (1 + control.shape[-1]), np.nan)  # fmt: skip
    n_texts = [task.labels.has.sum() for task in tasks]
    uniform = n_texts * np.log2([max(2, len(task.labels.classes)) for task in tasks])
    bits, one_hot = scores["bits"].mean(0), torch.from_numpy(one_hot_text(dataset.texts)).double()
    if dimensions is not None:
        directions = linear.random_projections(one_hot.shape[1], dimensions, 1)[0]
        one_hot = one_hot @ directions.to(one_hot)
    text = [[accuracy(task, one_hot, k) for k in range(len(task.labels.real))] for task in tasks]
    folds = [pd.DataFrame([linear.fold_counts(task.folds, row) for row in task.labels.real])
             for task in tasks]  # fmt: skip

    def over_models(name: str, values: np.ndarray, bounds: Bounds) -> dict[str, np.ndarray]:
        mean, low, high, _ = ratios_over_models(np.moveaxis(values, 0, -1), 1.0, bounds=bounds)
        return {name: mean, f"{name}_low": low, f"{name}_high": high}

    correct = scores["correct"][..., 0].astype(int)
    accuracies = over_models("accuracy", real, SHARE)
    for cell, k in np.argwhere(accuracies["accuracy_low"] == accuracies["accuracy_high"]):
        alike = share_over_models([(int(hits), int(of[k])) for hits in correct[:, cell, k]])
        accuracies["accuracy_low"][cell, k] = alike.low  # models that do not differ: of counts
        accuracies["accuracy_high"][cell, k] = alike.high
    columns = {
        "feature": [task.labels.feature.name for task in tasks],
        "site": scores["site"][0][:, None], "pos": scores["pos"][0][:, None],
        "correct": correct.sum(0), "of": of * n_models,
        **accuracies, "n_models": n_models,
        "control": control.mean((0, -1)),
        **over_models("selectivity", real - control.mean(-1), ANY),
        "compression": uniform / bits[..., 0],
        "control_compression": uniform / bits[..., 1 : 1 + CODED].mean(-1),
        "held_out_correct": scores["held_out_correct"][..., 0].sum(0).astype(int),
        "held_out_of": [sum(s.n_tested for s in task.held_out if s is not None) for task in tasks],
        "thresholds": scores["threshold_correct"][..., 0].mean(0) / of,
        "operands": operands_accuracy(dataset, scores["width"][0]),
        **over_models("mlp_gain", gains[..., 0], ANY),
        "mlp_gain_control": gains[..., 1:].mean((0, -1)),
        "one_hot": [np.asarray(x, float).mean() for x in text],
        "p": p, "r2": scores["r2"][..., 0].mean(0),
        "majority": [x["majority"].mean() for x in folds] / of,
        "unseen": [x["unseen"].max() for x in folds],
        "degenerate": [x["degenerate"].max() for x in folds],
        "chance": [np.mean([guessed(row) for row in task.labels.real]) for task in tasks],
        "control_tasks": [task.labels.control_tasks for task in tasks],
        "groups": [task.groups for task in tasks],
        "untrained": np.nan if untrained is None else untrained["accuracy"].mean(0),
    }  # fmt: skip
    flat = {name: np.broadcast_to(x, p.shape).ravel() for name, x in columns.items()}
    return pd.DataFrame(flat), control.mean(0).reshape(p.size, control.shape[-1])


def probe_grid(models: "ModelsLike", features: Any = None, **options: Any) -> pd.DataFrame:
    """Linear probes of each feature at each site and position, compared with their nulls.

    A user's own feature has the controls of a built-in one. Those that its prompts do not allow are
    named in a warning, and in the columns `control_tasks` and `groups`.

    Args:
        models: a run, a model, or several models; see `Models.of`.
        features: names, functions of an example, arrays of labels, or a mapping from names to
            these; see `find_features`. None is all that the prompts have.
        prompts, encoder: labelled prompts, as in `Models.of`; None is the run's own.
        groups: what folds keep together: a label's name, a function of an example, or one value
            per example. None is the pairs of operands, if prompts spell them out.
        sites: by hook name; None is `default_sites`.
        positions: counted from each text's last token, which is -1; None is all.
        dimensions: wider activations are projected onto this many random directions, to compare
            models of several widths.
        untrained: the models before training; None is those of the run.
    Returns:
        one row per feature, site and position. `correct` of `of`, cross-validated, over all models;
        `accuracy`, its mean over models, and that on `control` tasks; `selectivity`, accuracy minus
        control; `p`, the share of control tasks with as high an accuracy; `p_adjusted` of primary
        cells, by max-T over them; the nulls `thresholds` (the same quantity at other thresholds),
        `operands` (as plain numbers), `one_hot`, `untrained` and `majority`; `mlp_gain`, at the end
        of a layer the accuracy minus that before its MLP, and of control tasks. `compression`,
        the uniform code's length divided by the online code's. `r2` of an ordinal feature.
        `held_out_correct` of `held_out_of`, of probes fitted on what the model was trained on.
        `unseen`, test examples of a class that their fold was not trained on; `degenerate`, folds
        with one class; `chance`, the accuracy of guessing classes as often as they occur. Features
        without control tasks have no selectivity and no p.

    >>> models = Models.of("arithmetic-small-line").take(2)
    >>> table = probe_grid(models, {"parity": lambda e: (e.labels["a"] + e.labels["b"]) % 2},
    ...                    sites="blocks.0.hook_resid_post", positions=-1, controls=9)
    >>> table[["feature", "control_tasks", "groups"]].to_numpy().tolist()
    [['parity', 'operands renamed', 'operand pairs']]
    """
    table, warned = scored_grid(models, features, **options)
    for sentence in warned:
        warnings.warn(sentence, stacklevel=2)
    return table


def scored_grid(
    models: "ModelsLike", features: Any = None, *, sites: Sequence[str] | None = None,
    positions: int | Sequence[int] | None = None, step: int | None = None,
    controls: int = CONTROLS, dimensions: int | None = None, seed: int = 0,
    untrained: "Sequence[HookedTransformer] | None" = None, prompts: "Prompts | None" = None,
    encoder: Any = None, groups: Any = None,
) -> tuple[pd.DataFrame, list[str]]:  # fmt: skip
    """The table of `probe_grid`, and a sentence for each control that is missing."""
    if dimensions is not None and dimensions < 1:
        raise TbttError(f"dimensions must be at least 1, got {dimensions}")
    models = Models.of(models, step, prompts=prompts, encoder=encoder)
    layers = models.first.cfg.n_layers
    initial = models.untrained if untrained is None else tuple(untrained)
    options = {"sites": default_sites(layers) if sites is None else sites,
               "positions": positions, "dimensions": dimensions}  # fmt: skip
    tables, controls_of = [], []
    chosen = features_of(models.shared_prompts, features)
    for dataset in probe_datasets(models, chosen, controls=controls, seed=seed, groups=groups):
        scores, null = over_seeds(models, score_probes, dataset, **options), None
        if initial:
            baseline = dataclasses.replace(models, models=initial)
            null = over_seeds(baseline, score_probes, dataset, accuracies_only=True, **options)
        table, control = probe_table(dataset, scores, null, dimensions)
        tables.append(table)
        controls_of += list(control)
    table = pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)
    if table.empty:
        raise TbttError(
            f"no text has a position {listed(as_list(positions))}: count back from -1, its last"
        )
    table = table.assign(p_adjusted=adjusted_p(table, controls_of, layers, chosen))
    return table, missing_nulls(models, chosen, table, has_untrained=bool(initial))


def probe_steps(
    run: Run, features: Any, *, sites: Sequence[str], controls: int = CONTROLS
) -> pd.DataFrame:
    """The probe grid of every kept checkpoint at the texts' last position, with a column `step`."""
    options = {"sites": sites, "positions": [-1], "controls": controls}
    tables = [probe_grid(run, features, step=k, **options).assign(step=k) for k in run.checkpoints]
    return pd.concat(tables, ignore_index=True)


def probe_claims(table: pd.DataFrame, nulls: Mapping[str, str] = NULLS) -> list[Claim]:
    """For each row with control tasks, that its accuracy is above the highest of its nulls."""
    claims = []
    for row in table[table["p"].notna()].to_dict("records"):
        at = row["site"] if row["pos"] == -1 else f"{row['site']}, position {row['pos']}"
        claims.append(Claim.of_row(
            row, "accuracy", nulls, "highest", unit="cross-validated",
            text=f"{row['feature']} at {at} is decoded with an accuracy of",
            p=row["p_adjusted" if row["p_adjusted"] > 0 else "p"],
        ))  # fmt: skip
    return claims


def gain_claims(table: pd.DataFrame) -> list[Claim]:
    """For each end of a layer, that a feature is decoded better there than before the MLP."""
    return [
        Claim(
            text=f"{row['feature']} at {row['site']}, position {row['pos']}, is decoded better "
            "than before the MLP by", unit="of accuracy, paired by model",
            effect=Interval.of_row(row, "mlp_gain"), null=max(0.0, row["mlp_gain_control"]),
            null_name="none, or control tasks",
        )
        for row in table[table["mlp_gain"].notna() & table["p"].notna()].to_dict("records")
    ]  # fmt: skip


def as_text(table: pd.DataFrame, formats: Mapping[str, str]) -> pd.DataFrame:
    """Columns of a table formatted for printing; missing values are empty.

    Args:
        formats: for each column a format, "interval", "p", or "" for text.
    """

    def written(row: dict[Any, Any], name: str, kind: str) -> str:
        if kind == "interval" and not pd.isna(row[name]):
            return Interval.of_row(row, name).format()
        if kind == "p" and not pd.isna(row[name]):
            return p_text(row[name])
        return "" if pd.isna(row[name]) else format(row[name], kind)

    rows = table.to_dict("records")
    return pd.DataFrame({name: [written(row, name, kind) for row in rows]
                         for name, kind in formats.items() if name in table})  # fmt: skip


def analyse_probes(models: "ModelsLike", features: Any = None, **options: Any) -> Result:
    """`probe_grid` with its claims, its display and its figure.

    Where no feature, site or position is named, the display is of residual streams at the last one.
    """
    table, missing = scored_grid(models, features, **options)
    held_out = table["held_out_correct"].astype(str) + "/" + table["held_out_of"].astype(str)
    shown = table.assign(held_out=held_out.where(table["held_out_of"] > 0, ""))
    if not (features is not None or options.get("sites") or options.get("positions")):
        shown = shown[(table["pos"] == -1) & table["site"].str.endswith((MID, POST))]
    primary = table["p_adjusted"].notna().sum()
    notes = [
        *NOTES,
        f"p adjusted: over primary cells, {primary} here; all other cells are exploratory.",
    ]
    if unseen := shown["unseen"].max():
        notes.append(f"Up to {unseen} examples have a class that their fold was not trained on.")
    if degenerate := shown["degenerate"].max():
        notes.append(f"Up to {degenerate} folds of a row have one class only.")
    if len(shown) < len(table):
        notes.append(f"{len(shown)} of {len(table)} rows; --out FOLDER and --json have all.")
    draw = plot_probe_grid if table["selectivity"].notna().any() else plot_probe_accuracies
    return Result(
        name="probes", tables={"probes": table}, display=as_text(shown, DISPLAY), notes=notes,
        claims=[*probe_claims(table), *gain_claims(table)],
        figures={"probes": partial(draw, table)}, summary=[*missing, *below_chance(table)],
    )  # fmt: skip


def plot_probe_grid(table: pd.DataFrame) -> "Figure":
    """Selectivity of each feature at each site and position; hovering shows the nulls."""
    order = {site: k for k, site in enumerate(dict.fromkeys(table["site"]))}
    rows = table.dropna(subset="selectivity").assign(place=_places, order=table["site"].map(order))
    return heatmaps(
        rows.sort_values(["order", "pos"]), row="feature", column="place", value="selectivity",
        title="selectivity", signed=True, bounds=None, text=False,
        hover=["correct", "of", "accuracy", *NULLS, "p"],
        axes=("feature", "site, and position from the text's end"),
    )  # fmt: skip


def plot_probe_steps(table: pd.DataFrame) -> "Figure":
    """Selectivity of each feature over training steps, of a table that `probe_steps` made."""
    return curves(
        table.dropna(subset="selectivity"), x="step", y="selectivity", by="feature",
        titles=("training step", "selectivity"),
    )  # fmt: skip


def plot_probe_accuracies(table: pd.DataFrame) -> "Figure":
    """The accuracy of each row, compared with its nulls."""
    return points(
        table.assign(name=table["feature"] + " at " + _places(table)), name="name",
        value="accuracy", title="accuracy, cross-validated", nulls=NULLS,
    )  # fmt: skip


def _places(table: pd.DataFrame) -> pd.Series:
    return table["site"].map(short_site) + " " + table["pos"].astype(str)

"""Every feature at every site and position, each number beside its nulls."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import Activations, record, run_activations
from tbtt_interp.model import hooked_transformer, initial_parameters
from tbtt_interp.probes.features import (
    Feature,
    Labels,
    find_features,
    label_examples,
    one_hot_operands,
    pair_groups,
)
from tbtt_interp.probes.linear import (
    Split,
    count_right,
    explained,
    grouped_folds,
    unseen_classes,
)
from tbtt_interp.runs import Run
from tbtt_interp.stats import interval_over_seeds
from tbtt_interp.tasks import Example

CONTROLS = 99
SITES = ("hook_embed",)
LAYER_SITES = (
    "hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post",
    "hook_resid_post",
)  # fmt: skip
# The cells that a claim is made of, named beforehand: the last stream at the prompt's last
# character and, of two features, the stream between attention and MLP. The rest is exploratory.
PRIMARY = (
    ("carry", "hook_resid_post"),
    ("borrow", "hook_resid_post"),
    ("units", "hook_resid_post"),
    ("tens", "hook_resid_post"),
    ("sign", "hook_resid_post"),
    ("answer", "hook_resid_post"),
    ("carry", "hook_resid_mid"),
    ("answer", "hook_resid_mid"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One place to read from: `[seed, example, d]`."""

    site: str
    pos: int  # counted back from the prompt's last character, which is -1
    activations: Float[Tensor, "seed example d"]


def cells(activations: Activations) -> Iterator[Cell]:
    """Every site at every position that each text has; a head at a time where there are heads.

    Attention's patterns and scores are left out: their width is the text's.
    """
    lengths = activations.lengths
    rows = torch.arange(len(lengths))
    for site, values in activations.sites.items():
        if site.endswith(("hook_pattern", "hook_attn_scores")):
            continue
        heads = {site: values} if values.ndim == 4 else {
            f"{site}.{head}": values[:, :, :, head] for head in range(values.shape[3])
        }  # fmt: skip
        for name, found in heads.items():
            for pos in range(-int(lengths.min()), 0):
                yield Cell(site=name, pos=pos, activations=found[:, rows, lengths + pos])


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Examples, which of them each seed was trained on, and what is asked of them."""

    examples: tuple[Example, ...]
    held_out: tuple[tuple[bool, ...], ...]  # a row a seed
    labels: tuple[Labels, ...]
    folds: Split

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        features: Sequence[Feature],
        *,
        held_out: Sequence[Sequence[bool]],
        controls: int = CONTROLS,
        seed: int = 0,
    ) -> "Problem":
        """With folds that never split a pair of operands, and with control tasks drawn."""
        labels = [label_examples(f, examples, controls=controls, seed=seed) for f in features]
        return cls(
            examples=tuple(examples),
            held_out=tuple(map(tuple, held_out)),
            labels=tuple(labels),
            folds=grouped_folds(pair_groups(examples), seed=seed),
        )


def probe_battery(
    problem: Problem,
    activations: Activations,
    untrained: Activations,
    *,
    primary: Sequence[tuple[str, str]] = PRIMARY,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> pd.DataFrame:
    """A row a feature, site and position.

    Columns: feature, site, pos; right and of, cross-validated, over all seeds; accuracy, its mean
    over seeds, and low and high by resampling them; control, the mean over control tasks;
    selectivity, accuracy minus control, with its own low and high; one_hot, untrained and
    majority, the nulls' accuracies; r2 of an ordinal feature; held_out_right and held_out_of, of
    probes fitted on what the seed was trained on; unseen, how many asked have a class that their
    fold did not learn; p, the share of control tasks that do as well; and of primary cells
    p_adjusted, by max-T over them. What has no control task has no selectivity and no p.

    Args:
        problem: what is asked; a row of held_out a seed.
        activations: of trained models.
        untrained: of the same models before training, at the same sites.
        primary: features and sites, the latter's last part, that a claim may rest on; the position
            is the prompt's last, the layer the last.
        tell: is told of cells done.
    """
    places = list(cells(activations))
    before = {(cell.site, cell.pos): cell for cell in cells(untrained)}
    one_hot = torch.from_numpy(one_hot_operands(problem.examples)).double()
    rows: list[dict[str, object]] = []
    drawn: list[Float[np.ndarray, " control"]] = []
    for done, cell in enumerate(places):
        early = before[cell.site, cell.pos].activations
        for labels in problem.labels:
            asked = Question.of(problem, labels)
            row, controls = asked.answered_by(cell.activations, early, one_hot)
            rows.append({"feature": labels.feature.name, "site": cell.site, "pos": cell.pos} | row)
            drawn.append(controls)
        tell(done + 1, len(places))
    table = pd.DataFrame(rows)
    return table.assign(p_adjusted=_adjusted(table, drawn, primary))


@dataclass(frozen=True, kw_only=True)
class Question:
    """A feature on the examples that have it, and how they are split."""

    labels: Labels
    folds: Split
    held_out: tuple[Split | None, ...]  # a seed's: fitted on what it has seen, asked the rest

    @classmethod
    def of(cls, problem: Problem, labels: Labels) -> "Question":
        """Of one feature."""
        held_out = []
        for row in problem.held_out:
            asked = np.array(row)[labels.has]
            split = Split(train=~asked[None], test=asked[None]) if asked.any() else None
            held_out.append(split)
        return cls(labels=labels, folds=problem.folds.only(labels.has), held_out=tuple(held_out))

    def answered_by(
        self,
        trained: Float[Tensor, "seed every d"],
        untrained: Float[Tensor, "seed every d"],
        one_hot: Float[Tensor, "every k"],
    ) -> tuple[dict[str, object], Float[np.ndarray, " control"]]:
        """A row of the table, and the accuracy on each control task."""
        has = torch.from_numpy(self.labels.has)
        mine, folds, real = trained[:, has], self.folds, self.labels.real[None]
        total = int(folds.asked.sum())
        every = np.concatenate([real, self.labels.controls])
        found = count_right(mine, every, folds).numpy() / total
        accuracy, control = found[:, 0], found[:, 1:]
        share = interval_over_seeds(accuracy.tolist())
        has_control = control.shape[1] > 0
        gains = accuracy - control.mean(1) if has_control else np.array([np.nan])
        gain = interval_over_seeds(gains.tolist())
        held = [(k, split) for k, split in enumerate(self.held_out) if split is not None]
        row: dict[str, object] = {
            "right": round(accuracy.sum() * total), "of": total * len(accuracy),
            "accuracy": share.mean, "low": share.low, "high": share.high,
            "control": control.mean() if has_control else np.nan,
            "selectivity": gain.mean, "selectivity_low": gain.low, "selectivity_high": gain.high,
            "one_hot": int(count_right(one_hot[None, has], real, folds)) / total,
            "untrained": count_right(untrained[:, has], real, folds).numpy().mean() / total,
            "majority": majority(self.labels.real, folds),
            "held_out_right": sum(int(count_right(mine[k : k + 1], real, s)) for k, s in held),
            "held_out_of": sum(int(split.asked.sum()) for _, split in held),
            "unseen": unseen_classes(folds, self.labels.real),
        }  # fmt: skip
        beaten = int((control.mean(0) >= accuracy.mean() - 1e-12).sum())
        row["p"] = (1 + beaten) / (1 + control.shape[1]) if has_control else np.nan
        if self.labels.feature.is_ordinal:
            values = np.array([float(self.labels.classes[k]) for k in self.labels.real])
            row["r2"] = float(explained(mine, values, folds).mean())
        return row, control.mean(0)


def majority(labels: Int[np.ndarray, " example"], split: Split) -> float:
    """The accuracy of always saying what is most common among what a fold has learned."""
    right = 0
    for train, test in zip(split.train, split.test, strict=True):
        right += int((labels[test] == np.bincount(labels[train]).argmax()).sum())
    return right / int(split.asked.sum())


def _adjusted(
    table: pd.DataFrame,
    controls: Sequence[Float[np.ndarray, " _"]],  # none where a feature has no control
    primary: Sequence[tuple[str, str]],
) -> Float[np.ndarray, " row"]:
    """p of the primary cells, corrected over them by the largest standardised score of each draw.

    Source: Westfall and Young, Resampling-Based Multiple Testing (1993), chapter 2.
    """
    adjusted = np.full(len(table), np.nan)
    chosen = [k for k, row in enumerate(table.itertuples()) if is_primary(table, row, primary)]
    chosen = [k for k in chosen if len(controls[k])]
    if not chosen:
        return adjusted
    picked = np.array([controls[k] for k in chosen])
    mean, deviation = picked.mean(1), np.maximum(picked.std(1), 1e-9)
    largest = ((picked - mean[:, None]) / deviation[:, None]).max(0)
    scores = (table["accuracy"].to_numpy()[chosen] - mean) / deviation
    beaten = (largest[None] >= scores[:, None] - 1e-9).sum(1)
    adjusted[chosen] = (1 + beaten) / (1 + picked.shape[1])
    return adjusted


def is_primary(table: pd.DataFrame, row: object, primary: Sequence[tuple[str, str]]) -> bool:
    """Whether a row is one of the primary cells: last layer, last position."""
    feature, site, pos = (getattr(row, name) for name in ("feature", "site", "pos"))
    layers = [int(name.split(".")[1]) for name in table["site"] if name.startswith("blocks.")]
    named = {(f, f"blocks.{max(layers)}.{part}") for f, part in primary} if layers else set()
    return pos == -1 and (feature, site) in named


def default_sites(layers: int) -> list[str]:
    """The embedding, and of each layer the residual stream, each head's z and what is added."""
    return [*SITES, *(f"blocks.{k}.{site}" for k in range(layers) for site in LAYER_SITES)]


def probe_run(
    run: Run,
    features: Sequence[str] | None = None,
    *,
    sites: Sequence[str] | None = None,
    step: int | None = None,
    controls: int = CONTROLS,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> pd.DataFrame:
    """The battery on every seed of a run; see `probe_battery` for the columns.

    Args:
        features: by name; None is all that the task has.
        sites: by hook name; None is `default_sites`.
        step: of a kept checkpoint; None is the last.
        controls: control tasks a feature.
        seed: of folds and control tasks.
    """
    examples = run.tasks[0].examples
    problem = Problem.of(
        examples,
        find_features(features, examples),
        held_out=[[example.held_out for example in task.examples] for task in run.tasks],
        controls=controls,
        seed=seed,
    )
    sites = default_sites(run.shape.layers) if sites is None else sites
    prompts = [example.prompt for example in examples]
    trained = run_activations(run, prompts, sites=sites, step=step)
    models = [
        hooked_transformer(initial_parameters(run.shape, seed=s), run.shape) for s in run.seeds
    ]
    untrained = record(models, trained.tokens, sites=sites, lengths=trained.lengths)
    return probe_battery(problem, trained, untrained, tell=tell)

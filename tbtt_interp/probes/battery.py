"""Every feature at every site and position, each number beside its nulls."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import Activations, split_head
from tbtt_interp.errors import TbttError, listed, unknown
from tbtt_interp.probes.contexts import Contexts
from tbtt_interp.probes.features import (
    Feature,
    Labels,
    label_examples,
    one_hot_text,
    pair_groups,
)
from tbtt_interp.probes.linear import (
    Split,
    code_length,
    count_right,
    degenerate_folds,
    explained,
    grouped_folds,
    growing_folds,
    project,
    unseen_classes,
)
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import Example

CONTROLS = 99
CODED = 9  # control tasks whose description length is measured, too
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
    ("next", "hook_resid_post"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One place to read from: `[seed, example, d]`."""

    site: str
    pos: int  # counted back from the prompt's last character, which is -1
    activations: Float[Tensor, "seed example d"]


def cells(
    activations: Activations,
    positions: Sequence[int] | None = None,
    sites: Sequence[str] | None = None,
) -> list[Cell]:
    """Every site at every position that each text has; a head at a time where there are heads.

    Attention's patterns and scores are left out: their width is the text's.

    Args:
        positions: counted back from the text's end, which is -1; None is all.
        sites: by hook name, of one head with a dot and its number behind; None is all.
    """
    found = list(_cells(activations, positions))
    names = {cell.site: split_head(cell.site)[0] for cell in found}
    if sites is None:
        return found
    if strange := set(sites) - names.keys() - set(names.values()):
        raise unknown("site", min(strange), names)
    return [cell for cell in found if {cell.site, names[cell.site]} & set(sites)]


def _cells(activations: Activations, positions: Sequence[int] | None) -> Iterator[Cell]:
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
                if positions is None or pos in positions:
                    yield Cell(site=name, pos=pos, activations=found[:, rows, lengths + pos])


@dataclass(frozen=True, kw_only=True)
class Question:
    """A feature on the texts that have it, and how they are split.

    Attributes:
        folds: of cross-validation.
        growing: of the online code.
        held_out: each seed's own: fitted on what it has seen, asked the rest; None where that is
            nothing.
    """

    labels: Labels
    folds: Split
    growing: Split
    held_out: tuple[Split | None, ...]

    def accuracy_of(self, activations: Float[Tensor, "row every d"]) -> float:
        """The mean accuracy on the feature itself; of what all seeds share, one row will do."""
        real = self.labels.real[:, None]
        x = activations[:, torch.from_numpy(self.labels.has)]
        x = x.expand(max(len(x), len(real)), -1, -1)
        right = count_right(x, real, self.folds).double().mean()
        return float(right) / int(self.folds.asked.sum())

    def nulls(self, shown: Float[Tensor, "every k"]) -> dict[str, float]:
        """What no activation is needed for: the text itself, the commonest class; and bad folds."""
        rows = self.labels.real
        return {
            "one_hot": self.accuracy_of(shown[None]),
            "majority": float(np.mean([majority(row, self.folds) for row in rows])),
            "unseen": max(unseen_classes(self.folds, row) for row in rows),
            "degenerate": max(degenerate_folds(self.folds, row) for row in rows),
        }

    def answered_by(
        self, trained: Float[Tensor, "seed every d"]
    ) -> tuple[dict[str, object], Float[np.ndarray, " control"]]:
        """A row of the table without its nulls, and the accuracy on each control task."""
        mine, folds, labels = trained[:, torch.from_numpy(self.labels.has)], self.folds, self.labels
        total = int(folds.asked.sum())
        found = count_right(mine, labels.every, folds).numpy() / total
        accuracy, control = found[:, 0], found[:, 1:]
        share = mean_over_models(accuracy.tolist())
        has_control = control.shape[1] > 0
        gains = accuracy - control.mean(1) if has_control else np.array([np.nan])
        gain = mean_over_models(gains.tolist())
        bits = code_length(mine, labels.every[:, : 1 + CODED], self.growing).numpy().mean(0)
        uniform = labels.real.shape[1] * np.log2(max(2, len(labels.classes)))
        held = [(k, split) for k, split in enumerate(self.held_out) if split is not None]
        row: dict[str, object] = {
            "right": round(accuracy.sum() * total), "of": total * len(accuracy),
            "accuracy": share.mean, "low": share.low, "high": share.high,
            "control": control.mean() if has_control else np.nan,
            "selectivity": gain.mean, "selectivity_low": gain.low, "selectivity_high": gain.high,
            "compression": uniform / bits[0],
            "control_compression": uniform / bits[1:].mean() if has_control else np.nan,
            "held_out_right": sum(
                int(count_right(mine[k : k + 1], labels.of_seed(k)[None, None], split))
                for k, split in held
            ),
            "held_out_of": sum(int(split.asked.sum()) for _, split in held),
        }  # fmt: skip
        beaten = int((control.mean(0) >= accuracy.mean() - 1e-12).sum())
        row["p"] = (1 + beaten) / (1 + control.shape[1]) if has_control else np.nan
        row["r2"] = np.nan
        if labels.feature.is_ordinal:
            values = np.array([float(label) for label in labels.classes])[labels.real]
            row["r2"] = float(explained(mine, values, folds).mean())
        return row, control.mean(0)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is asked of some texts, and what they show."""

    questions: tuple[Question, ...]
    shown: Float[Tensor, "every k"]

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        features: Sequence[Feature],
        *,
        held_out: Sequence[Sequence[bool]] = (),
        controls: int = CONTROLS,
        seed: int = 0,
    ) -> "Problem":
        """Of prompts, with folds that never split a pair of operands, and control tasks drawn.

        Args:
            held_out: which examples each seed was not trained on, a row a seed.
        """
        groups = pair_groups(examples)
        folds = grouped_folds(groups, seed=seed)
        questions = []
        for feature in features:
            labels = label_examples(feature, examples, controls=controls, seed=seed)
            away = [np.array(row)[labels.has] for row in held_out]
            questions.append(Question(
                labels=labels,
                folds=folds.only(labels.has),
                growing=growing_folds(groups[labels.has], seed=seed),
                held_out=tuple(
                    Split(train=~row[None], test=row[None]) if row.any() else None for row in away
                ),
            ))  # fmt: skip
        return cls(
            questions=tuple(questions), shown=_shown([example.prompt for example in examples])
        )

    @classmethod
    def of_contexts(
        cls, contexts: Contexts, labelled: Sequence[Labels], *, seeds: int, seed: int = 0
    ) -> "Problem":
        """Of texts that show lines to several lengths, split by length.

        What is held out is a fifth of the lines at a time, at every length, where a feature has
        fewer classes than there are lines.
        """
        questions = []
        for labels in labelled:
            lines = contexts.line[labels.has]
            by_line = grouped_folds(lines, seed=seed) if len(labels.controls) else None
            questions.append(Question(
                labels=labels,
                folds=contexts.folds().only(labels.has),
                growing=growing_folds(contexts.length[labels.has], seed=seed),
                held_out=(by_line,) * seeds,
            ))  # fmt: skip
        return cls(questions=tuple(questions), shown=_shown(contexts.texts))


def _shown(texts: Sequence[str]) -> Float[Tensor, "text k"]:
    return torch.from_numpy(one_hot_text(texts)).double()


Rows = list[tuple[dict[str, object], Float[np.ndarray, " _"]]]


def ask(
    problem: Problem,
    activations: Activations,
    untrained: Activations,
    *,
    sites: Sequence[str] | None = None,
    positions: Sequence[int] | None = None,
    dimensions: int | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Rows:
    """A row of the battery's table for each feature, site and position, with its control draws.

    None, if not every text has any of the positions.
    """
    shortest = int(activations.lengths.min())
    if positions is not None and not any(-shortest <= pos < 0 for pos in positions):
        return []
    places = cells(activations, positions, sites)
    unlearned = cells(untrained, positions, sites)
    before = {(cell.site, cell.pos): cell.activations for cell in unlearned}
    shown = problem.shown if dimensions is None else project(problem.shown[None], dimensions)[0]
    nulls = [question.nulls(shown) for question in problem.questions]
    rows: Rows = []
    for done, cell in enumerate(places):
        mine, early = cell.activations, before[cell.site, cell.pos]
        if dimensions is not None:
            mine, early = project(mine, dimensions), project(early, dimensions)
        for question, null in zip(problem.questions, nulls, strict=True):
            row, controls = question.answered_by(mine)
            where = {"feature": question.labels.feature.name, "site": cell.site, "pos": cell.pos}
            rows.append((
                where | row | null | {"untrained": question.accuracy_of(early)}, controls
            ))  # fmt: skip
        tell(done + 1, len(places))
    return rows


def as_table(
    rows: Rows,
    primary: Sequence[tuple[str, str]] = PRIMARY,
    *,
    layers: int,
    positions: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Rows of one battery as a table, its primary cells corrected over those that are there.

    Args:
        layers: of the models; primary cells are of the last.
        positions: that were asked for.
    Raises:
        TbttError: if there is no row.
    """
    if not rows:
        raise TbttError(
            f"no text has a position {listed(positions or ())}: count back from -1, its last"
        )
    table = pd.DataFrame([row for row, _ in rows])
    named = {(feature, f"blocks.{layers - 1}.{part}") for feature, part in primary}
    is_named = [
        pos == -1 and (feature, site) in named
        for feature, site, pos in zip(table["feature"], table["site"], table["pos"], strict=True)
    ]
    return table.assign(p_adjusted=_adjusted(table, [drawn for _, drawn in rows], is_named))


def probe_battery(
    problem: Problem,
    activations: Activations,
    untrained: Activations,
    *,
    layers: int,
    primary: Sequence[tuple[str, str]] = PRIMARY,
    positions: Sequence[int] | None = None,
    dimensions: int | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> pd.DataFrame:
    """A row a feature, site and position.

    Columns: feature, site, pos; right and of, cross-validated, over all seeds; accuracy, its mean
    over seeds, with low and high of Student's interval; control, the mean over control tasks;
    selectivity, accuracy minus control, with its own low and high; compression, the uniform code's
    length over the online code's, and control_compression; one_hot, untrained and majority, the
    nulls' accuracies; r2 of an ordinal feature; held_out_right and held_out_of, of probes fitted on
    what the seed was trained on; unseen, how many asked have a class that their fold did not learn,
    and degenerate, how many folds learn or are asked one class only; p, the share of control tasks
    that do as well; and of primary cells p_adjusted, by max-T over them. What has no control task
    has no selectivity and no p.

    Args:
        problem: what is asked; a row of held_out a seed.
        activations: of trained models.
        untrained: of the same models before training, at the same sites.
        layers: of the models.
        primary: features and sites, the latter's last part, that a claim may rest on; the position
            is the prompt's last, the layer the last.
        positions: counted back from the text's end, which is -1; None is all.
        dimensions: onto so many random ones all that is wider is projected first.
        tell: is told of cells done.
    """
    rows = ask(
        problem, activations, untrained, positions=positions, dimensions=dimensions, tell=tell
    )
    return as_table(rows, primary, layers=layers, positions=positions)


def majority(labels: Int[np.ndarray, " example"], split: Split) -> float:
    """The accuracy of always saying what is most common among what a fold has learned."""
    right = 0
    for train, test in zip(split.train, split.test, strict=True):
        right += int((labels[test] == np.bincount(labels[train]).argmax()).sum())
    return right / int(split.asked.sum())


def _adjusted(
    table: pd.DataFrame,
    controls: Sequence[Float[np.ndarray, " _"]],  # none where a feature has no control
    is_named: Sequence[bool],
) -> Float[np.ndarray, " row"]:
    """p of the primary cells, corrected over them by the largest standardised score of each draw.

    Source: Westfall and Young, Resampling-Based Multiple Testing (1993), chapter 2.
    """
    adjusted = np.full(len(table), np.nan)
    chosen = [k for k, named in enumerate(is_named) if named and len(controls[k])]
    if not chosen:
        return adjusted
    picked = np.array([controls[k] for k in chosen])
    mean, deviation = picked.mean(1), np.maximum(picked.std(1), 1e-9)
    largest = ((picked - mean[:, None]) / deviation[:, None]).max(0)
    scores = (table["accuracy"].to_numpy()[chosen] - mean) / deviation
    beaten = (largest[None] >= scores[:, None] - 1e-9).sum(1)
    adjusted[chosen] = (1 + beaten) / (1 + picked.shape[1])
    return adjusted

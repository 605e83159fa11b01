"""What probes are fitted on: texts, the labels of features on them, and how they are split.

Most features are read from the prompts themselves. Probes of line order need other texts: the end
of a line at several lengths. Models trained on windows of a file have met such texts, because a
window begins anywhere in a line. Models trained on whole lines have not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import as_list, read_texts, record, split_head
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.probes.features import Feature, find_features, is_own
from tbtt_interp.probes.labels import (
    NONE,
    Labels,
    given_groups,
    label_examples,
    number_classes,
    operand_numbers,
    pair_groups,
)
from tbtt_interp.probes.linear import (
    FOLDS,
    Split,
    count_correct,
    count_correct_each,
    grouped_folds,
    growing_folds,
    stratified_folds,
)
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import Models
from tbtt_interp.tasks import Example, Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

LENGTHS = 4  # at which the preceding line is shown
OPERANDS, GIVEN, NOTHING = "operand pairs", "as given", "none"  # what folds keep together
Cells = dict[tuple[str, int], Float[Tensor, "text d"]]


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """One feature's labels on the texts of a dataset, and the splits to score its probes on."""

    labels: Labels
    folds: Split  # of the cross-validation; stratified for a user's own feature
    growing: Split  # of the online code
    # per model: its seen examples in training, the rest in test; None where there is no rest
    held_out: tuple[Split | None, ...]
    # where folds are stratified, those of each control task, and of each other threshold
    control_folds: tuple[Split, ...] = ()
    threshold_folds: tuple[Split, ...] = ()
    groups: str = "text lengths"  # what folds keep together

    def count_correct(
        self, x: Float[Tensor, "*pos text d"], number: int
    ) -> Int[np.ndarray, "*pos draw"]:
        """Test examples that are predicted, of the feature and of its control tasks."""
        labels = self.labels.of_model(number)
        if not self.control_folds:
            return count_correct(x, labels, self.folds)
        return count_correct_each(x, labels, [self.folds, *self.control_folds])

    def count_thresholds(
        self, x: Float[Tensor, "*pos text d"]
    ) -> Int[np.ndarray, "*pos threshold"] | None:
        """The same of other thresholds; None where there are none."""
        if (others := self.labels.thresholds) is None:
            return None
        if not self.threshold_folds:
            return count_correct(x, others, self.folds)
        return count_correct_each(x, others, self.threshold_folds)

    def only(self, activations: Float[Tensor, "*pos every d"]) -> Float[Tensor, "*pos text d"]:
        """The activations of texts that have the feature."""
        return activations[..., torch.from_numpy(self.labels.has), :]


class Contexts(NamedTuple):
    """Texts, the example in each, and its number of characters."""

    texts: tuple[str, ...]
    examples: tuple[Example, ...]
    length: Int[np.ndarray, " text"]

    @classmethod
    def of(
        cls, examples: Sequence[Example], lengths: range, show: Callable[[Example, int], str]
    ) -> "Contexts":
        """Each example, shown at each length."""
        return cls(tuple(show(e, n) for e in examples for n in lengths),
                   tuple(e for e in examples for _ in lengths),
                   np.tile(np.array(lengths, dtype=int), len(examples)))  # fmt: skip

    @property
    def line(self) -> Int[np.ndarray, " text"]:
        """A number for each line."""
        return np.unique([e.line for e in self.examples], return_inverse=True)[1]

    @property
    def n_lengths(self) -> int:
        """How many lengths there are."""
        return len(set(self.length.tolist()))


@dataclass(frozen=True)
class ProbeDataset:
    """Texts, their probe tasks, and the operands in them as numbers, where they have any."""

    texts: tuple[str, ...]
    tasks: tuple[ProbeTask, ...]
    operands: Float[np.ndarray, "text column"] | None = None

    @classmethod
    def of_prompts(
        cls, prompts: Sequence[PromptSet], features: Sequence[Feature], *, controls: int,
        seed: int = 0, groups: Any = None,
    ) -> "ProbeDataset":  # fmt: skip
        """The prompts that all models share, in folds that never split a group.

        Folds of a user's own feature are stratified: those of each labelling for itself, so that
        control tasks have no worse ones.

        Args:
            groups: as in `given_groups`; None is the pairs of operands.
        """
        examples, tasks = prompts[0].examples, []
        group = pair_groups(examples) if groups is None else given_groups(groups, examples)
        if groups is None and len(np.unique(group)) < FOLDS:  # of few operands: not enough to fold
            group = np.arange(len(examples))
        kept = OPERANDS if groups is None else GIVEN
        kept = kept if len(np.unique(group)) < len(examples) else NOTHING
        folds = grouped_folds(group, seed=seed)
        for feature in features:
            own = is_own(feature)
            labels = label_examples(feature, examples, controls=controls, seed=seed,
                                    groups=group if own else None)  # fmt: skip
            masks = [p.held_out[None, labels.has] for p in prompts]
            stratify = partial(stratified_folds, groups=group[labels.has], seed=seed)
            others = () if labels.thresholds is None else labels.thresholds
            tasks.append(ProbeTask(
                labels=labels, groups=kept,
                folds=stratify(labels.real[0]) if own else folds.only(labels.has),
                control_folds=tuple(map(stratify, labels.controls)) if own else (),
                threshold_folds=tuple(map(stratify, others)) if own else (),
                growing=growing_folds(group[labels.has], seed=seed),
                held_out=tuple(Split(~mask, mask) if mask.any() else None for mask in masks),
            ))  # fmt: skip
        texts = tuple(example.prompt for example in examples)
        return cls(texts, tuple(tasks), operand_numbers(examples))

    @classmethod
    def of_contexts(
        cls, contexts: Contexts, labelled: Sequence[Labels], *, n_models: int, seed: int = 0
    ) -> "ProbeDataset":
        """Texts at several lengths, in folds of lengths.

        Where a feature has control tasks, a fifth of the lines at a time is held out.
        """
        folds, tasks = grouped_folds(contexts.length, folds=min(contexts.n_lengths, 5)), []
        for labels in labelled:
            lines = contexts.line[labels.has]
            rest = grouped_folds(lines, seed=seed) if len(labels.controls) else None
            tasks.append(ProbeTask(
                labels=labels, folds=folds.only(labels.has), held_out=(rest,) * n_models,
                growing=growing_folds(contexts.length[labels.has], seed=seed),
            ))  # fmt: skip
        return cls(contexts.texts, tuple(tasks))


def features_of(prompts: PromptSet, features: Any = None) -> list[Feature]:
    """Features as in `find_features`; None is all that these prompts can be probed for.

    Shortened prompts and preceding lines need models that were trained on windows of a file. The
    latter also need to know the file: that of an imported model is known if it is the task.
    """
    task, texts = prompts.task, ["prompt"]
    if task is not None and prompts.training is not None and prompts.training.framing != "line":
        if shortened_prompts(task, prompts.n_ctx).n_lengths > 1:
            texts.append("shortened")
        if prompts.order_is_known and preceding_lines(task, prompts.n_ctx).n_lengths > 1:
            texts.append("preceding line")
    return find_features(features, prompts.examples, texts)  # pyright: ignore


def probe_datasets(
    models: Models,
    features: Sequence[Feature],
    *,
    controls: int,
    seed: int = 0,
    groups: Any = None,
) -> Iterator[ProbeDataset]:
    """A dataset for each kind of texts that the features are read from."""
    prompts, settings = models.shared_prompts, {"controls": controls, "seed": seed}
    for kind in dict.fromkeys(feature.texts for feature in features):
        chosen = [feature for feature in features if feature.texts == kind]
        if kind == "prompt" or prompts.task is None:
            yield ProbeDataset.of_prompts(models.prompts, chosen, groups=groups, **settings)
            continue
        if kind == "shortened":
            contexts = shortened_prompts(prompts.task, prompts.n_ctx)
            labelled = [label_examples(x, contexts.examples, controls=0) for x in chosen]
        else:
            contexts = preceding_lines(prompts.task, prompts.n_ctx)
            known = {example.line: example for example in prompts.examples}
            files = [[known[x] for x in p.require_training().lines] for p in models.prompts]
            labelled = [label_next_lines(x, contexts, files, **settings) for x in chosen]
        n_models = len(models.models)
        yield ProbeDataset.of_contexts(contexts, labelled, n_models=n_models, seed=seed)


def opening(lines: Sequence[str]) -> str:
    """The characters that all lines begin with."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*lines, strict=False))
    return "".join(column[0] for column in columns)


def shortened_prompts(task: Task, window: int) -> Contexts:
    """Each prompt about a country, with the lines' common opening shortened from the left.

    >>> from tbtt_interp.tasks import load_task
    >>> shortened_prompts(load_task("facts"), window=24).texts[:3]
    ('France is ', ' France is ', 'f France is ')
    """
    examples = [example for example in task.examples if "country" in example.labels]
    begin = opening([example.line for example in examples])
    longest = max((len(example.prompt) for example in examples), default=window)
    most = min(len(begin), window - longest + len(begin))
    return Contexts.of(examples, range(most + 1), lambda e, n: e.prompt[len(begin) - n :])


def preceding_lines(task: Task, window: int) -> Contexts:
    """The end of each line at several lengths, and the opening that all lines share.

    Only the order of the file tells how the next line goes on from there.

    >>> from tbtt_interp.tasks import load_task
    >>> preceding_lines(load_task("arithmetic"), window=9).texts[:4]
    ('=0> \\n<', '0=0> \\n<', '+0=0> \\n<', '0+0=0> \\n<')
    """
    begin = opening(task.lines)
    seen = [example for example in task.examples if not example.held_out]
    most = min(window - len(begin), *(len(example.line) for example in seen))
    lengths = range(max(1, most - LENGTHS + 1), most + 1)
    return Contexts.of(seen, lengths, lambda e, n: e.line[len(e.line) - n :] + begin)


def label_next_lines(
    feature: Feature, contexts: Contexts, files: Sequence[Sequence[Example]], *, controls: int,
    seed: int = 0,
) -> Labels:  # fmt: skip
    """Labels of a feature of the next line in each model's file.

    A control task is the feature in a file with another random order. `files` are in line order.
    """
    following = [{e.line: feature.of(after) for e, after in pairwise(file)} for file in files]
    lines = [e.line for e in contexts.examples]
    has = np.array([all(after.get(line) is not None for after in following) for line in lines])
    if not has.any():
        raise TbttError(f"no line is followed, in every file, by one with feature '{feature.name}'")
    kept = [line for line, is_kept in zip(lines, has, strict=True) if is_kept]
    classes, real = number_classes([[after[line] for line in kept] for after in following])  # pyright: ignore
    names, first, index = np.unique(kept, return_index=True, return_inverse=True)
    drawn = [
        np.random.default_rng((seed, draw)).permutation(real[0][first])[index]
        for draw in range(controls if len(classes) < len(names) else 0)
    ]
    return Labels(feature=feature, has=has, classes=classes, real=real,
                  controls=np.array(drawn, dtype=int).reshape(-1, len(index)),
                  control_tasks="another order of lines" if drawn else NONE)  # fmt: skip


def read_cells(
    model: "HookedTransformer", prompts: PromptSet, texts: Sequence[str], sites: Sequence[str],
    positions: int | Sequence[int] | None = None,
) -> Cells:  # fmt: skip
    """Activations by site and position, of one head at a time where a site has heads.

    Args:
        prompts: for their vocabulary and context.
        sites: by hook name, of one head with a dot and its number.
        positions: counted from each text's last token, which is -1; None is all positions.
    """
    sites = as_list(sites)
    positions = positions if positions is None else as_list(positions)
    tokens, lengths = read_texts(texts, prompts.vocabulary, prompts.n_ctx)
    recorded = record([model], tokens, sites=list(dict.fromkeys(split_head(s)[0] for s in sites)))
    by_site = {}
    for hook, (values,) in recorded.sites.items():
        if values.ndim == 3:
            by_site[hook] = values
        elif not hook.endswith(("hook_pattern", "hook_attn_scores")):  # as wide as a text is long
            by_site |= {f"{hook}.{head}": values[:, :, head] for head in range(values.shape[2])}
    for site in sites:
        if not any(site in (name, split_head(name)[0]) for name in by_site):
            raise unknown("site", site, by_site)
    rows = torch.arange(len(lengths))
    return {
        (site, pos): values[rows, lengths + pos]
        for site, values in by_site.items() if {site, split_head(site)[0]} & set(sites)
        for pos in range(-int(lengths.min()), 0) if positions is None or pos in positions
    }  # fmt: skip

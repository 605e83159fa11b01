"""What probes are fitted on: texts, the labels of features on them, and how they are split.

Most features are read from the prompts themselves. Probes of line order need other texts: the end
of a line at several lengths. Models trained on windows of a file have met such texts, because a
window begins anywhere in a line. Models trained on whole lines have not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import read_texts, record, split_head
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.probes.features import (
    Feature,
    Labels,
    find_features,
    label_examples,
    number_classes,
    pair_groups,
)
from tbtt_interp.probes.linear import Split, grouped_folds, growing_folds
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import Models
from tbtt_interp.tasks import Example, Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

LENGTHS = 4  # at which the preceding line is shown
Cells = dict[tuple[str, int], Float[Tensor, "text d"]]


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """One feature's labels on the texts of a dataset, and the splits that its probes are scored on.

    Attributes:
        folds: of the cross-validation; growing: those of the online code.
        held_out: for each model the split that is trained on what the model was trained on, and
            tested on the rest; None where there is no rest.
    """

    labels: Labels
    folds: Split
    growing: Split
    held_out: tuple[Split | None, ...]

    @property
    def name(self) -> str:
        """The feature's name."""
        return self.labels.feature.name

    def only(self, activations: Float[Tensor, "every d"]) -> Float[Tensor, "text d"]:
        """The activations of texts that have the feature."""
        return activations[torch.from_numpy(self.labels.has)]


@dataclass(frozen=True, kw_only=True)
class ProbeDataset:
    """Texts and their probe tasks."""

    texts: tuple[str, ...]
    tasks: tuple[ProbeTask, ...]

    @classmethod
    def of(
        cls, texts: Sequence[str], labelled: Sequence[Labels], folds: Split,
        groups: Int[np.ndarray, " text"], held_out: Callable[[Labels], Sequence[Split | None]],
        seed: int = 0,
    ) -> "ProbeDataset":  # fmt: skip
        """A dataset of texts in folds, whose online codes never split a group."""
        return cls(texts=tuple(texts), tasks=tuple(
            ProbeTask(
                labels=labels, folds=folds.only(labels.has), held_out=tuple(held_out(labels)),
                growing=growing_folds(groups[labels.has], seed=seed),
            )
            for labels in labelled
        ))  # fmt: skip

    @classmethod
    def of_prompts(
        cls, prompts: Sequence[PromptSet], features: Sequence[Feature], *, controls: int,
        seed: int = 0,
    ) -> "ProbeDataset":  # fmt: skip
        """The prompts that all models share, in folds that never split a pair of operands."""
        examples = prompts[0].examples

        def held_out(labels: Labels) -> list[Split | None]:
            masks = [p.held_out[labels.has] for p in prompts]
            return [Split.of(~mask, mask) if mask.any() else None for mask in masks]

        groups = pair_groups(examples)
        labelled = [label_examples(x, examples, controls=controls, seed=seed) for x in features]
        texts, folds = [example.prompt for example in examples], grouped_folds(groups, seed=seed)
        return cls.of(texts, labelled, folds, groups, held_out, seed)

    @classmethod
    def of_contexts(
        cls, contexts: "Contexts", labelled: Sequence[Labels], *, n_models: int, seed: int = 0
    ) -> "ProbeDataset":
        """Texts at several lengths, in folds of lengths.

        Where a feature has control tasks, a fifth of the lines at a time is held out.
        """

        def held_out(labels: Labels) -> list[Split | None]:
            lines, has_controls = contexts.line[labels.has], len(labels.controls) > 0
            return [grouped_folds(lines, seed=seed) if has_controls else None] * n_models

        folds = grouped_folds(contexts.length, folds=min(contexts.n_lengths, 5))
        return cls.of(contexts.texts, labelled, folds, contexts.length, held_out, seed)


def features_of(prompts: PromptSet, names: Sequence[str] | None = None) -> list[Feature]:
    """Features by name; None is every feature that these prompts can be probed for.

    Shortened prompts and preceding lines need models that were trained on windows of a file. The
    latter also need to know the file: that of an imported model is known if it is the task.
    """
    task, texts = prompts.task, ["prompt"]
    if task is not None and prompts.training is not None and prompts.training.framing != "line":
        if shortened_prompts(task, prompts.n_ctx).n_lengths > 1:
            texts.append("shortened")
        if prompts.order_is_known and preceding_lines(task, prompts.n_ctx).n_lengths > 1:
            texts.append("preceding line")
    return find_features(names, prompts.examples, texts)  # pyright: ignore


def probe_datasets(
    models: Models, features: Sequence[Feature], *, controls: int, seed: int = 0
) -> Iterator[ProbeDataset]:
    """A dataset for each kind of texts that the features are read from."""
    prompts, settings = models.shared_prompts, {"controls": controls, "seed": seed}
    for kind in dict.fromkeys(feature.texts for feature in features):
        chosen = [feature for feature in features if feature.texts == kind]
        if kind == "prompt" or prompts.task is None:
            yield ProbeDataset.of_prompts(models.prompts, chosen, **settings)
            continue
        if kind == "shortened":
            contexts = shortened_prompts(prompts.task, prompts.n_ctx)
            labelled = [label_examples(x, contexts.examples, controls=0) for x in chosen]
        else:
            contexts = preceding_lines(prompts.task, prompts.n_ctx)
            known = {example.line: example for example in prompts.examples}
            lines = [p.require_training().lines for p in models.prompts]
            files = [[known[line] for line in file] for file in lines]
            labelled = [label_next_lines(x, contexts, files, **settings) for x in chosen]
        n_models = len(models.models)
        yield ProbeDataset.of_contexts(contexts, labelled, n_models=n_models, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Texts, the example that each shows, and at what length."""

    texts: tuple[str, ...]
    examples: tuple[Example, ...]
    length: Int[np.ndarray, " text"]

    @classmethod
    def of(cls, shown: Sequence[tuple[str, Example, int]]) -> "Contexts":
        """From a text, an example and a length each."""
        texts, examples, length = zip(*shown, strict=True) if shown else ((), (), ())
        return cls(texts=texts, examples=examples, length=np.array(length, dtype=int))

    @property
    def line(self) -> Int[np.ndarray, " text"]:
        """A number for each line."""
        return np.unique([e.line for e in self.examples], return_inverse=True)[1]

    @property
    def n_lengths(self) -> int:
        """How many lengths there are."""
        return len(np.unique(self.length))


def opening(lines: Sequence[str]) -> str:
    """The characters that all lines begin with.

    >>> opening(["<1+2=3>", "<1-2=-1>"]), opening(["<1+2=3>", "Capital of"])
    ('<1', '')
    """
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
    rests = [example.prompt.removeprefix(begin) for example in examples]
    most = min(len(begin), window - max(map(len, rests), default=window))
    pairs = list(zip(examples, rests, strict=True))
    return Contexts.of([(begin[len(begin) - n :] + rest, example, n) for example, rest in pairs
                        for n in range(most + 1)])  # fmt: skip


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
    return Contexts.of([(e.line[len(e.line) - n :] + begin, e, n) for e in seen
                        for n in range(max(1, most - LENGTHS + 1), most + 1)])  # fmt: skip


def label_next_lines(
    feature: Feature, contexts: Contexts, files: Sequence[Sequence[Example]], *, controls: int,
    seed: int = 0,
) -> Labels:  # fmt: skip
    """A feature of the line that comes next in each model's file.

    A control task is the feature in a file of another random order.

    Args:
        files: the lines of each model's file, in its order.
    """
    by_file = []
    for file in files:
        following = {e.line: feature.of(after) for e, after in pairwise(file)}
        by_file.append([following.get(e.line) for e in contexts.examples])
    has = np.array([None not in column for column in zip(*by_file, strict=True)])
    if not has.any():
        raise TbttError(f"feature '{feature.name}' is of no line that comes next in every file")
    kept = [[label for label, there in zip(row, has, strict=True) if there] for row in by_file]
    classes, real = number_classes(kept)  # pyright: ignore
    names, first, index = np.unique(contexts.line[has], return_index=True, return_inverse=True)
    drawn = [
        np.random.default_rng((seed, draw)).permutation(real[0][first])[index]
        for draw in range(controls if len(classes) < len(names) else 0)
    ]
    return Labels(feature=feature, has=has, classes=classes, real=real,
                  controls=np.array(drawn, dtype=int).reshape(-1, len(index)))  # fmt: skip


def read_cells(
    model: "HookedTransformer", prompts: PromptSet, texts: Sequence[str], sites: Sequence[str],
    positions: Sequence[int] | None = None,
) -> Cells:  # fmt: skip
    """Activations by site and position, of one head at a time where a site has heads.

    Args:
        prompts: for their vocabulary and context.
        sites: by hook name, of one head with a dot and its number.
        positions: counted from each text's last token, which is -1; None is all positions.
    Raises:
        TbttError: if a site is unknown.
    """
    tokens, lengths = read_texts(texts, prompts.vocabulary, prompts.n_ctx)
    hooks = list(dict.fromkeys(split_head(site)[0] for site in sites))
    recorded = record([model], tokens, sites=hooks, lengths=lengths).sites
    by_site = {}
    for hook in hooks:
        values = recorded[hook][0]
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

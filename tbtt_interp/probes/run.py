"""The battery on a run: its own prompts, its own files, its own seeds before training."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from tbtt_interp.activations import (
    Activations,
    read_texts,
    record,
    split_head,
    untrained_models,
)
from tbtt_interp.errors import TbttError
from tbtt_interp.probes.battery import CONTROLS, Problem, Rows, as_table, ask
from tbtt_interp.probes.causal import Patient
from tbtt_interp.probes.contexts import label_next, lines_before, shortened_prompts
from tbtt_interp.probes.features import Feature, find_features, label_examples
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Encoder, Example

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

SITES = ("hook_embed",)
LAYER_SITES = (
    "hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post",
    "hook_resid_post",
)  # fmt: skip


def default_sites(layers: int) -> list[str]:
    """The embedding, and of each layer the residual stream, each head's z and what is added."""
    return [*SITES, *(f"blocks.{k}.{site}" for k in range(layers) for site in LAYER_SITES)]


def last_streams(run: Run) -> list[str]:
    """The residual stream after attention, and after the MLP, of the last layer."""
    last = run.shape.layers - 1
    return [f"blocks.{last}.hook_resid_mid", f"blocks.{last}.hook_resid_post"]


def features_of(run: Run, names: Sequence[str] | None = None) -> list[Feature]:
    """Features by name; None is all that can be asked of the run.

    Of facts shown in part and of lines to come only where training cut windows from a file, and of
    the latter only where it is known which file: an imported model's is, if it is given as a task.
    """
    task, asked = run.tasks[0], ["prompt"]
    if run.config.framing != "line":
        knows_file = run.config.recipe is not None or task.order_is_given
        shortened = shortened_prompts(task, run.shape.n_ctx)
        before = lines_before(task, run.shape.n_ctx)
        asked += ["shortened"] * (len(set(shortened.length.tolist())) > 1)
        asked += ["before"] * (knows_file and len(set(before.length.tolist())) > 1)
    return find_features(names, task.examples, asked)


def problem_of(
    run: Run, asked: str, features: Sequence[Feature], *, controls: int, seed: int
) -> tuple[list[str], Problem]:
    """The texts that features of one kind are asked of, and the problem; see `Feature.asked`."""
    examples = run.tasks[0].examples
    if asked == "prompt":
        held_out = [[example.held_out for example in task.examples] for task in run.tasks]
        problem = Problem.of(examples, features, held_out=held_out, controls=controls, seed=seed)
        return [example.prompt for example in examples], problem
    if asked == "shortened":
        contexts = shortened_prompts(run.tasks[0], run.shape.n_ctx)
        labelled = [label_examples(f, contexts.examples, controls=0, seed=seed) for f in features]
    else:
        contexts = lines_before(run.tasks[0], run.shape.n_ctx)
        known = {example.line: example for example in examples}
        files = [
            [known[line] for line in task.file(order)]
            for task, order in zip(run.tasks, run.config.order_seeds, strict=True)
        ]
        labelled = [label_next(f, contexts, files, controls=controls, seed=seed) for f in features]
    problem = Problem.of_contexts(contexts, labelled, seeds=len(run.seeds), seed=seed)
    return list(contexts.texts), problem


def before_and_after(
    run: Run, texts: Sequence[str], sites: Sequence[str], step: int | None
) -> tuple[Activations, Activations]:
    """Of every seed, as trained and as initialised."""
    tokens, lengths = read_texts(texts, run.tasks[0].vocabulary, run.shape.n_ctx)
    sites = hooks_of(sites)
    trained = [run.model(seed, step) for seed in run.seeds]
    after, before = (
        record(models, tokens, sites=sites, lengths=lengths)
        for models in (trained, untrained_models(run))
    )
    return before, after


def hooks_of(sites: Sequence[str]) -> list[str]:
    """The hooks that sites are read at, each once: of a head, all of its layer."""
    return list(dict.fromkeys(split_head(site)[0] for site in sites))


def probe_run(
    run: Run,
    features: Sequence[str] | None = None,
    *,
    sites: Sequence[str] | None = None,
    positions: Sequence[int] | None = None,
    step: int | None = None,
    controls: int = CONTROLS,
    dimensions: int | None = None,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> pd.DataFrame:
    """The battery on every seed of a run; see `probe_battery` for the columns.

    Args:
        features: by name; None is all that the task has.
        sites: by hook name; None is `default_sites`.
        positions: counted back from the text's end, which is -1; None is all.
        step: of a kept checkpoint; None is the last.
        controls: control tasks a feature.
        dimensions: onto so many random ones what is wider is projected; None is no projection.
        seed: of folds and control tasks.
    """
    if dimensions is not None and dimensions < 1:
        raise TbttError(f"dimensions must be at least 1, got {dimensions}")
    found = features_of(run, features)
    sites = default_sites(run.shape.layers) if sites is None else sites
    kinds = list(dict.fromkeys(feature.asked for feature in found))
    rows: Rows = []
    for number, kind in enumerate(kinds):
        chosen = [feature for feature in found if feature.asked == kind]
        texts, problem = problem_of(run, kind, chosen, controls=controls, seed=seed)
        before, after = before_and_after(run, texts, sites, step)
        part = number, len(kinds)

        def told(done: int, of: int, part: tuple[int, int] = part) -> None:
            tell(part[0] * of + done, part[1] * of)

        rows += ask(
            problem, after, before, sites=sites, positions=positions, dimensions=dimensions,
            tell=told,
        )  # fmt: skip
    return as_table(rows, layers=run.shape.layers, positions=positions)


def probe_models(
    models: Sequence["HookedTransformer"],
    examples: Sequence[Example],
    vocabulary: Encoder,
    *,
    untrained: Sequence["HookedTransformer"],
    sites: Sequence[str],
    features: Sequence[str] | None = None,
    positions: Sequence[int] | None = None,
    controls: int = CONTROLS,
    dimensions: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The battery on models of one shape from anywhere; see `probe_battery` for the columns.

    Args:
        models: trained alike, a seed each.
        examples: labelled prompts; `Example.of` makes one.
        vocabulary: what turns their text into the models' tokens.
        untrained: the same models before training.
        features: labels by name, or `FEATURES`; None is all that the examples have.
    """
    found = find_features(features, examples)
    away = [example.held_out for example in examples]
    problem = Problem.of(
        examples, found, held_out=[away] * len(models), controls=controls, seed=seed
    )
    prompts = [example.prompt for example in examples]
    tokens, lengths = read_texts(prompts, vocabulary, models[0].cfg.n_ctx)
    after, before = (
        record(some, tokens, sites=hooks_of(sites), lengths=lengths) for some in (models, untrained)
    )
    rows = ask(problem, after, before, sites=sites, positions=positions, dimensions=dimensions)
    return as_table(rows, layers=models[0].cfg.n_layers, positions=positions)


def probe_steps(
    run: Run,
    features: Sequence[str] | None = None,
    *,
    sites: Sequence[str],
    controls: int = CONTROLS,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> pd.DataFrame:
    """The battery at every kept checkpoint, at the texts' last position; a column step is added."""
    tables = []
    for done, step in enumerate(run.checkpoints):
        table = probe_run(
            run, features, sites=sites, positions=[-1], step=step, controls=controls, seed=seed
        )
        tables.append(table.assign(step=step))
        tell(done + 1, len(run.checkpoints))
    return pd.concat(tables, ignore_index=True)


def patients(
    run: Run,
    feature: str,
    *,
    site: str,
    pos: int = -1,
    step: int | None = None,
    controls: int = CONTROLS,
    seed: int = 0,
) -> list[tuple[int, Patient]]:
    """Every seed's model, made ready for its code of a feature to be erased, swapped or corrected.

    Raises:
        TbttError: if the feature is not of prompts, or has no code of one number or two.
    """
    found = find_features([feature], run.tasks[0].examples)[0]
    labels = label_examples(found, run.tasks[0].examples, controls=controls, seed=seed)
    return [
        (s, Patient.of(
            run.model(s, step), task.examples, task.vocabulary, labels, site=site, pos=pos,
            held_out=[example.held_out for example in task.examples],
        ))
        for s, task in zip(run.seeds, run.tasks, strict=True)
    ]  # fmt: skip

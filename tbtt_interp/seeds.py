"""One loop for every analysis: each seed of a run, the untrained models beside it, a bar, a cache.

An analysis is a function `f(model, prompts, **options)` of one model. It returns a long-form table,
or arrays by name where a table would be too long. `over_seeds` calls it for every seed and stacks
what it returns; `summarize` in `stats` then gives means over models with their intervals.

    >>> import pandas as pd
    >>> import tbtt_interp as tbtt
    >>> def weight_norm(model, prompts):
    ...     return pd.DataFrame([{"norm": model.W_E.norm().item()}])
    >>> models = Models.of(tbtt.load_run("arithmetic-small-line"))
    >>> over_seeds(models, weight_norm).columns.tolist()
    ['seed', 'norm']
"""

import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import torch

from tbtt_interp.activations import untrained_models
from tbtt_interp.errors import TbttError, brief
from tbtt_interp.files import write_json, write_whole
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run, load_run
from tbtt_interp.stats import ANY, Bounds, summarize
from tbtt_interp.tasks import (
    Encoder,
    Example,
    Prompts,
    TokenizerEncoder,
    Vocabulary,
    examples_of,
)

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

    ModelsLike: TypeAlias = (
        "Models | Run | str | Path | HookedTransformer | Sequence[HookedTransformer]"
    )

P = ParamSpec("P")
T = TypeVar("T")
Arrays = dict[str, np.ndarray]
SECONDS_BETWEEN_LINES = 10  # of progress, without a terminal
MANY_PARAMETERS = 1_000_000  # larger models get fewer prompts or pairs by default


@dataclass(frozen=True, kw_only=True)
class Models:
    """Trained models of one shape, the prompts of each, and where they come from.

    Attributes:
        prompts: one set per model; they share their examples and may differ in which are held out.
        run: what only a run knows; None for models of your own.
    """

    name: str
    seeds: tuple[int, ...]
    models: tuple["HookedTransformer", ...]
    prompts: tuple[PromptSet, ...]
    run: Run | None = None

    @classmethod
    def of(
        cls, given: "ModelsLike", step: int | None = None, *, prompts: "Prompts | None" = None,
        encoder: Encoder | None = None,
    ) -> "Models":  # fmt: skip
        """Models with labelled prompts, in whichever form they come.

        Args:
            given: a run, its folder or name, of which every seed that did not diverge is taken; a
                model; several models of one shape; or Models.
            step: of a run's kept checkpoint; None is the last.
            prompts: as in `examples_of`, or one or several texts. A text is found among a run's
                own prompts; for other models its answer is the token that they say next. None is
                the run's own.
            encoder: turns text into tokens, for models without a tokenizer.

        >>> from tbtt_interp import load_run
        >>> models = Models.of(load_run("arithmetic-small-line").model(), prompts="<3+4=")
        >>> models.shared_prompts.examples[0].answer
        '7'
        """
        given = load_run(given) if isinstance(given, str | Path) else given
        texts = [prompts] if isinstance(prompts, str) else prompts
        if isinstance(texts, list | tuple) and texts and all(isinstance(x, str) for x in texts):
            prompts = None
        else:
            texts = None
        if isinstance(given, Models | Run):
            models = given if isinstance(given, Models) else cls._of_run(given, step)
            if texts is not None:
                return models.with_examples([models.shared_prompts.find(str(x)) for x in texts])
            return models if prompts is None else models.with_prompts(prompts)
        own = [given] if isinstance(given, torch.nn.Module) else list(given)
        if strange := [x for x in own if not isinstance(x, torch.nn.Module)]:
            raise TbttError(
                f"{brief(strange[0])} is no model: give a run, a model, or a list of models"
            )
        if texts is not None:
            encoder = _encoder(own, encoder)
            return cls.of_models(own, [_answered(own, str(x), encoder) for x in texts], encoder)
        if prompts is None:
            raise TbttError(
                "a model by itself has no labelled prompts: give prompts=, such as "
                '[("ab:", "a", {"in order": True})] or run.task'
            )
        return cls.of_models(own, examples_of(prompts), encoder)

    @classmethod
    def _of_run(cls, run: Run, step: int | None) -> "Models":
        at = max(run.checkpoints, default=0) if step is None else step
        seeds = run.sound_seeds(step)
        left_out = f" ({run.divergence(step)})" if len(seeds) < len(run.seeds) else ""
        return cls(
            name=f"{run.folder} at step {at:,}{left_out}",
            seeds=seeds, models=tuple(run.model(seed, step) for seed in seeds),
            prompts=tuple(dataclasses.replace(PromptSet.of_seed(run, seed), number=k)
                          for k, seed in enumerate(seeds)), run=run,
        )  # fmt: skip

    @classmethod
    def of_models(
        cls, models: Sequence["HookedTransformer"], examples: Sequence[Example],
        vocabulary: Any = None, *, name: str = "models",
    ) -> "Models":  # fmt: skip
        """Models of your own, all of one shape, and your own labelled prompts.

        Args:
            vocabulary: what turns your text into the models' tokens: a Vocabulary, or a tokenizer
                of any library; None is the models' own tokenizer.
        """
        if not models or not examples:
            raise TbttError("an analysis needs at least one model and one example, got none")
        encoder = _encoder(models, vocabulary)
        prompts = PromptSet.of(examples, encoder, models[0].cfg.n_ctx, name=name)
        return cls(
            name=name, seeds=tuple(range(len(models))), models=tuple(models),
            prompts=tuple(dataclasses.replace(prompts, number=k) for k in range(len(models))),
        )  # fmt: skip

    def with_prompts(self, prompts: Prompts) -> "Models":
        """The same models with other labelled prompts; those of their own stay held out or seen."""
        examples = examples_of(prompts)
        if not examples:
            raise TbttError("an analysis needs at least one example, got none")

        def of(own: PromptSet) -> PromptSet:
            known = {e.prompt: x for e, x in zip(own.examples, own.held_out, strict=True)}
            held_out = np.array([known.get(e.prompt, e.held_out) for e in examples])
            return dataclasses.replace(own, examples=examples, held_out=held_out, task=None)

        return dataclasses.replace(self, prompts=tuple(map(of, self.prompts)))

    @property
    def first(self) -> "HookedTransformer":
        """The first model, for what all share: its shape and its hook names."""
        return self.models[0]

    @property
    def shared_prompts(self) -> PromptSet:
        """The first model's prompts, for what all share: examples, tokens and context."""
        return self.prompts[0]

    @cached_property
    def n_parameters(self) -> int:
        """Parameters of each model, as HookedTransformer counts them."""
        return sum(p.numel() for p in self.first.parameters())

    @property
    def title(self) -> str:
        """The name and the number of models, for the head of a table."""
        return f"{self.name}, {len(self.models)} model{'s' if len(self.models) > 1 else ''}"

    @cached_property
    def untrained(self) -> tuple["HookedTransformer", ...]:
        """Each seed's model as it was initialised; empty for models without a run."""
        if self.run is None:
            return ()
        every = dict(zip(self.run.seeds, untrained_models(self.run), strict=True))
        return tuple(every[seed] for seed in self.seeds)

    def take(self, count: int) -> "Models":
        """The first so many models."""
        return dataclasses.replace(
            self, seeds=self.seeds[:count], models=self.models[:count],
            prompts=self.prompts[:count],
        )  # fmt: skip

    def with_examples(self, numbers: Sequence[int]) -> "Models":
        """The same models with only some of their prompts, by number."""
        prompts = [
            dataclasses.replace(
                of, examples=tuple(of.examples[k] for k in numbers),
                held_out=of.held_out[list(numbers)],
            )
            for of in self.prompts
        ]  # fmt: skip
        return dataclasses.replace(self, prompts=tuple(prompts))


def _encoder(models: Sequence["HookedTransformer"], given: Any) -> Encoder:
    """What turns text into tokens, as given or the models' own."""
    tokenizer = getattr(models[0], "tokenizer", None) if given is None else given
    if tokenizer is None:
        raise TbttError("this model has no tokenizer: give encoder=, such as a Vocabulary")
    is_ours = isinstance(tokenizer, Vocabulary | TokenizerEncoder)
    return tokenizer if is_ours else TokenizerEncoder(tokenizer)


def _answered(models: Sequence["HookedTransformer"], text: str, encoder: Any) -> Example:
    """A prompt with the token that the models say next, as its answer."""
    tokens = torch.tensor([encoder.encode(text)])
    with torch.no_grad():
        said = {int(model(tokens)[0, -1].argmax()) for model in models}
    if len(said) > 1:
        raise TbttError(f"the models go on differently after {text!r}: give its answer, too")
    return Example.of(text, encoder.decode([said.pop()]))


def over_seeds(
    models: Models | Run,
    analysis: "Callable[Concatenate[HookedTransformer, PromptSet, P], T]",
    *args: P.args,
    **options: P.kwargs,
) -> T:
    """An analysis of one model, run on every seed.

    Shows a bar on a terminal, and a line now and then elsewhere. Keeps finished seeds where
    `seed_cache` says.

    Args:
        args, options: further arguments of the analysis, the same for every seed.
    Returns:
        the tables below each other with a column `seed` before the others; or each array with a
        leading seed axis.
    """
    models = Models.of(models)
    return _each(models, models.models, analysis, args, options, "")


def over_untrained(models: Any, analysis: Any, *args: Any, **options: Any) -> Any:
    """The same analysis on each seed's untrained model: None for models without a run."""
    models = Models.of(models)
    if not models.untrained:
        return None
    return _each(models, models.untrained, analysis, args, options, "untrained-")


def summarize_over_seeds(
    models: Models | Run,
    analysis: "Callable[Concatenate[HookedTransformer, PromptSet, P], pd.DataFrame]",
    *args: Any,
    by: Sequence[str],
    values: Sequence[str],
    weights: str | None = None,
    bounds: Bounds = ANY,
    untrained: str | None = None,
    **options: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An analysis run on every seed, and its means over models; see `over_seeds`, `summarize`.

    Args:
        by, values, weights, bounds: as in `stats.summarize`.
        untrained: the column of which the untrained models' mean is put beside the others, as
            `untrained`; None leaves it out. It is nan for models without a run.
    Returns:
        one row per seed and group, and one row per group.
    """
    models = Models.of(models)
    table = over_seeds(models, analysis, *args, **options)
    summary = summarize(table, by, values, weights=weights, bounds=bounds)
    if untrained is None:
        return table, summary
    null = over_untrained(models, analysis, *args, **options)
    if null is None:
        return table, summary.assign(untrained=np.nan)
    means = summarize(null, by, [untrained], weights=weights)[[*by, untrained]]
    renamed = means.rename(columns={untrained: "untrained"})
    return table, summary.merge(renamed, "left", list(by))


def _each(
    models: Models, of_seed: Sequence["HookedTransformer"], analysis: Callable[..., Any],
    args: tuple[Any, ...], options: dict[str, Any], prefix: str,
) -> Any:  # fmt: skip
    name = f"{prefix}{getattr(analysis, '__name__', 'analysis')}"
    found, kept = [], _KEPT.get()
    number = next(kept.calls) if kept else 0
    jobs = list(zip(models.seeds, of_seed, models.prompts, strict=True))
    for seed, model, prompts in _with_progress(jobs, name.replace("_", " ")):
        path = kept and kept.folder / f"{number}-{name}-{seed}"
        of_this = path and _read(path)
        if of_this is None:
            of_this = analysis(model, prompts, *args, **options)
            if path is not None:
                _write(path, of_this)
        found.append(of_this)
    if isinstance(found[0], pd.DataFrame):
        tables = [table.assign(seed=s) for s, table in zip(models.seeds, found, strict=True)]
        stacked = pd.concat(tables, ignore_index=True)
        return stacked[["seed", *(c for c in stacked.columns if c != "seed")]]
    return {key: np.stack([arrays[key] for arrays in found]) for key in found[0]}


def _with_progress(jobs: Sequence[T], name: str) -> Iterator[T]:
    """The jobs one by one, with a bar on a terminal and a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console, shown = Console(stderr=True), time.monotonic()  # no terminal in a notebook
    if console.is_terminal:
        yield from track(jobs, name, console=console, transient=True)
        return
    for number, job in enumerate(jobs):
        if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            print(f"{name}: {number} of {len(jobs)} models", file=sys.stderr)
        yield job


class _Kept(NamedTuple):
    folder: Path
    calls: Iterator[int]  # numbers of the calls of `over_seeds`, the same in each session


_KEPT: ContextVar[_Kept | None] = ContextVar("finished seeds", default=None)


@contextmanager
def seed_cache(folder: Path | None, settings: Mapping[str, object]) -> Iterator[None]:
    """Inside this block `over_seeds` keeps finished seeds, so that an interrupted analysis goes on.

    Args:
        folder: None keeps nothing.
        settings: every option that affects the results.
    Raises:
        TbttError: if the folder has seeds of other settings.
    """
    if folder is not None:
        plain = json.loads(json.dumps(settings, default=str))
        path = folder / "settings.json"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, plain)
        elif (known := json.loads(path.read_text(encoding="utf-8"))) != plain:
            other = [key for key in {**known, **plain} if known.get(key) != plain.get(key)]
            raise TbttError(
                f"{folder} has parts of another analysis (other {', '.join(other)}): nothing was "
                "written; finish that one with its own options, or give another --out FOLDER"
            )
    token = _KEPT.set(None if folder is None else _Kept(folder, count()))
    try:
        yield
    finally:
        _KEPT.reset(token)


def _write(path: Path, found: "pd.DataFrame | Arrays") -> None:
    if isinstance(found, pd.DataFrame):
        types = {name: str(kind) for name, kind in found.dtypes.items()}
        text = json.dumps({"columns": found.to_dict("list"), "types": types})
        write_whole(path.with_name(f"{path.name}.json"), text.encode())
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **found)
    write_whole(path.with_name(f"{path.name}.npz"), buffer.getvalue())


def _read(path: Path) -> "pd.DataFrame | Arrays | None":
    table, arrays = (path.with_name(f"{path.name}.{ending}") for ending in ("json", "npz"))
    if table.is_file():
        kept = json.loads(table.read_text(encoding="utf-8"))
        return pd.DataFrame(kept["columns"]).astype(kept["types"])
    if not arrays.is_file():
        return None
    with np.load(arrays, allow_pickle=False) as file:
        return dict(file)

"""Runs on disk: one configuration and several seeds side by side, written to survive interruption.

Every file appears whole or not at all, and none is a pickle. `summary.json` is written last, so its
presence means that the run is complete.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tbtt_interp.bounds import check_config
from tbtt_interp.errors import TbttError, brief, guess, listed
from tbtt_interp.files import (
    AGAIN,
    read_with_metadata,
    stored_shapes,
    unwritable,
    write_folder,
    write_json,
    write_tensors,
)
from tbtt_interp.integrity import (
    check_hash,
    check_identity,
    damaged_summary,
    identity,
    read_json,
    read_summary,
)
from tbtt_interp.metrics import Row, flat_row, group_label, read_metrics
from tbtt_interp.results import table_html
from tbtt_interp.tasks import TASKS, Task, Vocabulary, load_task
from tbtt_interp.tasks.arithmetic import Pair
from tbtt_interp.tasks.corpus import read_corpus, write_corpus

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

    from tbtt_interp.model import Parameters, Shape
    from tbtt_interp.tokenizer import CharacterTokenizer

SHIPPED = Path(__file__).parent / "pretrained" / "weights"  # runs that come with the package


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The content of config.json: what is needed to load a run, and what the run was made from."""

    task: str
    framing: str
    size: str
    shape: Mapping[str, int | bool]
    vocabulary: str
    seeds: tuple[int, ...]
    held_out: tuple[tuple[Pair, ...], ...]  # one set per seed
    order_seeds: tuple[int | None, ...]  # one file order per seed; None is the lines as they stand
    steps: int
    recipe: Mapping[str, Any] | None  # resolved; None for a model trained elsewhere
    environment: Mapping[str, Any]  # device, threads, whether the step was compiled
    versions: Mapping[str, str]
    answer_seeds: tuple[int, ...] | None = None  # of permuted answers, one per model

    def __post_init__(self) -> None:
        check_config(vars(self))

    def table(self) -> Row:
        """The content of config.json."""
        table = dataclasses.asdict(self)
        return table if self.answer_seeds else {k: table[k] for k in table if k != "answer_seeds"}


@dataclass(frozen=True, eq=False)
class Run:
    """A folder of trained models, complete or still in training."""

    folder: Path
    config: RunConfig

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, seeds={self.seeds}, steps={self.config.steps})"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The models' seeds."""
        return self.config.seeds

    @property
    def title(self) -> str:
        """The name and the number of models, for the head of a table or figure."""
        return f"{self.folder.name}, {len(self.seeds)} model{'s' if len(self.seeds) > 1 else ''}"

    def _repr_html_(self) -> str:
        """The latest evaluation of each model as a table, for notebooks."""
        config, lines = self.config, read_metrics(self.folder)
        step, rows = (lines[-1]["step"], lines[-1]["seeds"]) if lines else (config.steps, [])
        what = f"{self.folder.name}: {Path(config.task).stem}, {config.size}, {config.framing}"
        table = pd.DataFrame([flat_row(row) for row in rows] or [{"seed": s} for s in self.seeds])
        shown = table[["seed"]].copy()
        for name in map(str, table.filter(regex="_of$")):
            group = name.removesuffix("_of")
            right = table[f"{group}_right"].astype(str)
            shown[group_label(group)] = right + "/" + table[name].astype(str)
        if "loss" in table:
            shown["loss"] = table["loss"].map("{:.3f}".format)
        at = f"step {step:,} of {config.steps:,}"
        return f"<p>{escape(what)}, {at}</p>\n{table_html(shown)}"

    @property
    def steps(self) -> tuple[int, ...]:
        """The training steps whose models are kept, first to last."""
        return tuple(self.checkpoints)

    @property
    def models(self) -> "tuple[HookedTransformer, ...]":
        """Every seed's model after the last kept step, as `model` gives it."""
        return tuple(map(self.model, self.seeds))

    @property
    def is_complete(self) -> bool:
        """Whether training came to its end."""
        return (self.folder / "summary.json").is_file()

    @cached_property
    def shape(self) -> "Shape":
        """The models' shape, the same for every seed."""
        from tbtt_interp.model import Shape

        try:
            return Shape(**self.config.shape)  # pyright: ignore[reportArgumentType]
        except TypeError as error:
            path = self.folder / "config.json"
            raise TbttError(f"{path} has no valid model shape ({error}): restore it") from error

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Each seed's task; they differ where seeds hold out different pairs."""
        config, corpus, known = self.config, self.folder / "corpus.tsv", {}
        if config.task not in TASKS and not corpus.is_file():  # never a file that a run names
            raise TbttError(
                f"{self.folder} has a task of its own, {brief(config.task)}, and no corpus.tsv: "
                "restore corpus.tsv, or make the task known by register_task"
            )
        own = {"name": Path(config.task).stem, "vocabulary": Vocabulary(config.vocabulary)}
        is_file = corpus.is_file()
        check_hash(corpus, corpus.read_bytes() if is_file else None)
        for pairs in set(config.held_out):
            task = read_corpus(corpus) if is_file else load_task(config.task, held_out=pairs)
            known[pairs] = dataclasses.replace(task, **own)
        tasks = [known[pairs] for pairs in config.held_out]
        if config.answer_seeds:
            seeds = zip(tasks, config.answer_seeds, strict=True)
            tasks = [task.with_permuted_answers(seed) for task, seed in seeds]
        return tuple(tasks)

    @property
    def task(self) -> Task:
        """The one task of every seed; an error where seeds hold out different pairs."""
        if len(set(self.config.held_out)) > 1 or self.config.answer_seeds:
            differ = (
                "have different answers" if self.config.answer_seeds else "hold out different pairs"
            )
            what = f"the seeds of {self.folder} {differ}, so there is no one task"
            raise TbttError(f"{what}: use run.tasks, which has one per seed")
        return self.tasks[0]

    @cached_property
    def checkpoints(self) -> dict[int, Path]:
        """The kept checkpoints by training step, first to last.

        Raises:
            TbttError: if a finished run has lost its last, for which an earlier one would pass.
        """
        paths = (self.folder / "checkpoints").glob("step-*.safetensors")
        steps = {path.stem.removeprefix("step-"): path for path in paths}
        kept = {int(step): steps[step] for step in sorted(filter(str.isdecimal, steps), key=int)}
        if self.is_complete and (last := self.config.steps) not in kept:
            what = f"{self.folder} has lost its last checkpoint, of step {last:,}"
            raise TbttError(f"{what}: {AGAIN}")
        return kept

    @property
    def resuming(self) -> str:
        """What to do with an unfinished run, in words."""
        return f"continue it with tbtt train --resume {self.folder}"

    def parameters(self, step: int | None = None) -> "Parameters":
        """Every seed's parameters at a kept checkpoint, stacked along a leading seed axis.

        They carry HookedTransformer's names. Step None is the last checkpoint.
        """
        if not self.checkpoints:
            raise TbttError(f"{self.folder} has no checkpoint yet: {self.resuming}")
        step = max(self.checkpoints) if step is None else step
        if step not in self.checkpoints:
            kept = listed(self.checkpoints)
            raise TbttError(f"{self.folder} has no checkpoint at step {step}: choose {kept}")
        return read_checkpoint(self.checkpoints[step], self)

    def model(self, seed: int | None = None, step: int | None = None) -> "HookedTransformer":
        """One model as a HookedTransformer that reads text, in eval mode: the first, at the end."""
        from tbtt_interp.model import hooked_transformer, one_model

        parameters = one_model(self.parameters(step), self.seed_index(seed))
        return hooked_transformer(parameters, self.shape, self.tokenizer())

    def tokenizer(self) -> "CharacterTokenizer":
        """A tokenizer of the models, for TransformerLens: one token per character."""
        from tbtt_interp.tokenizer import CharacterTokenizer, end_of_answer

        vocabulary, ends = Vocabulary(self.config.vocabulary), frozenset[str]()
        with suppress(TbttError):  # of a task that is not known here
            ends = self.tasks[0].terminators
        return CharacterTokenizer(vocabulary, end_of_answer(ends, vocabulary), self.shape.n_ctx)

    def diverged(self, step: int | None = None) -> tuple[int, ...]:
        """The seeds of models with a weight that is no finite number, at a kept checkpoint."""
        values = self.parameters(step).values()
        finite = [value.flatten(1).isfinite().all(1).tolist() for value in values]
        return tuple(s for s, of in zip(self.seeds, zip(*finite, strict=True), strict=True)
                     if not all(of))  # fmt: skip

    def sound_seeds(self, step: int | None = None) -> tuple[int, ...]:
        """The seeds of the models that did not diverge, at a kept checkpoint.

        Raises:
            TbttError: if there is none.
        """
        diverged = self.diverged(step)
        if len(diverged) == len(self.seeds):
            what = f"every model of {self.folder} diverged: its weights are no finite numbers"
            raise TbttError(f"{what}; give an earlier --step, or train with a lower learning rate")
        return tuple(seed for seed in self.seeds if seed not in diverged)

    def divergence(self, step: int | None = None) -> str:
        """Which models diverged, and when, in words; nothing where none did."""
        if not (diverged := self.diverged(step)):
            return ""
        rows = [row for line in read_metrics(self.folder) for row in line["seeds"]]
        when = {x["seed"]: f" by step {x['diverged']:,}" for x in rows if "diverged" in x}
        at = [f"seed {seed} diverged{when.get(seed, '')}" for seed in diverged]
        return f"{listed(at, 'and')}, and is left out"

    def seed_index(self, seed: int | None) -> int:
        """Index of a seed in the stack of models."""
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise TbttError(f"{self.folder} has no seed {seed}: choose {listed(self.seeds)}")
        return self.seeds.index(seed)

    def metrics(self) -> pd.DataFrame:
        """One row per evaluation and seed.

        Columns: step, seed, loss, `X_right` and `X_of` for each group X (such as seen_addition and
        held_out), and the smallest margins, `margin_seen` and `margin_held_out`.
        """
        evaluations = ((line["step"], line["seeds"]) for line in read_metrics(self.folder))
        return pd.DataFrame(
            {"step": step, **flat_row(x)} for step, rows in evaluations for x in rows
        )

    def summary(self) -> Row:
        """The content of summary.json: final metrics, floors, late evaluations, seconds."""
        if not self.is_complete:
            raise TbttError(f"{self.folder} is not finished: {self.resuming}")
        summary = read_summary(self.folder)
        try:
            if [row["seed"] for row in summary["seeds"]] == list(self.seeds):
                return summary
        except (KeyError, TypeError):
            pass
        raise damaged_summary(self.folder)


def load_run(folder: str | Path) -> Run:
    """A run from its folder, or by the name of a run that comes with the package."""
    folder = Path(folder)
    if not os.path.isdir(folder):  # false, not an error, for a name too long for a path
        shipped = shipped_runs()
        if str(folder) not in shipped:
            raise TbttError(
                f"run {folder} is not there{guess(folder, shipped)}: `tbtt runs` lists those under "
                "runs/, `tbtt models` those that come with the package"
            )
        folder = shipped[str(folder)]
    if not (path := folder / "config.json").is_file():
        raise TbttError(f"{folder} is not a run: it has no config.json")
    content, table = read_json(path)
    try:
        table["seeds"] = tuple(table["seeds"])
        table["order_seeds"] = tuple(table["order_seeds"])
        if table.get("answer_seeds"):
            table["answer_seeds"] = tuple(table["answer_seeds"])
        table["held_out"] = tuple(tuple(map(tuple, pairs)) for pairs in table["held_out"])
        config = RunConfig(**table)
    except (KeyError, TypeError, TbttError) as error:
        what = f"{path} is not a run's configuration ({error})"
        raise TbttError(f"{what}: restore it, or train anew elsewhere") from error
    check_hash(path, content)
    return Run(folder, config)


def find_runs(root: Path) -> list[Path]:
    """The folders below a folder that hold a run, or what is left of one, by name."""
    found = (path.parent for name in ("config.json", "checkpoints") for path in root.rglob(name))
    return sorted({folder for folder in found if not folder.name.startswith(".")})


def shipped_runs() -> dict[str, Path]:
    """The folders of the runs that come with the package, by name."""
    return {folder.name: folder for folder in find_runs(SHIPPED)}


def create_run(
    folder: Path, config: RunConfig, task: Task, fill: Callable[[Path], None] = lambda folder: None
) -> Run:
    """A new run folder with its configuration, whole or not at all; refuses a folder in use.

    A user's own corpus is stored with it. `fill` puts more into the folder before it appears.
    """

    def write(draft: Path) -> None:
        (draft / "checkpoints").mkdir()
        if task.order_is_given:
            write_corpus(task, draft / "corpus.tsv")
        write_json(draft / "config.json", config.table())
        fill(draft)

    check_free(folder)
    write_folder(folder, write)
    return load_run(folder)


def check_free(folder: Path) -> None:
    """Raises a TbttError where no new run can be created: at a file, or in a folder in use."""
    if folder.resolve() == Path.cwd():
        raise TbttError("a run needs a folder of its own: give --out a name that is new")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = f"{folder} exists and is not a run"
            raise TbttError(f"{what}: nothing was written; give another --out FOLDER")
    except OSError as error:
        raise unwritable(folder, error) from error


def checkpoint_path(folder: Path, step: int) -> Path:
    """The file of the parameters after this many steps."""
    return folder / "checkpoints" / f"step-{step:06d}.safetensors"


def state_path(folder: Path, step: int) -> Path:
    """The file of the optimizer's state after this many steps, where a recipe keeps it."""
    return folder / "states" / f"step-{step:06d}.safetensors"


def write_checkpoint(folder: Path, config: RunConfig, step: int, tensors: "Parameters") -> None:
    """Writes the parameters after this many steps, with what identifies them."""
    metadata = identity(config.recipe, config.seeds, step, tensors)
    write_tensors(checkpoint_path(folder, step), tensors, metadata)


def read_checkpoint(path: Path, run: Run) -> "Parameters":
    """The stacked parameters in a checkpoint of a run.

    Raises:
        TbttError: if the file is damaged, or of another run or step.
    """
    from tbtt_interp.model import parameter_shapes

    expected = {k: (len(run.seeds), *size) for k, size in parameter_shapes(run.shape).items()}
    stored = stored_shapes(path)  # before anything is read: the file may be of any size
    for name in {**expected, **stored}:
        if (size := stored.get(name, "absent")) != (own := expected.get(name, "absent")):
            wrong = f"{name} is {size}, its configuration says {own}"
            raise TbttError(f"{path} is not this run's: {wrong}")
    tensors, metadata, digest = read_with_metadata(path)
    step = int(path.stem.removeprefix("step-"))
    check_identity(path, metadata, identity(run.config.recipe, run.seeds, step, {}))
    check_hash(path, digest, run.folder)
    return tensors

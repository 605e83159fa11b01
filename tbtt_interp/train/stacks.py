"""Models in training, from a recipe: new ones, forked ones, and those of another run's recipe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tbtt_interp.bounds import LOGITS, PARAMETERS
from tbtt_interp.errors import TbttError
from tbtt_interp.files import weights_hash
from tbtt_interp.kernel import Kernel, KernelError, Projection, is_suited
from tbtt_interp.metrics import Row
from tbtt_interp.model import (
    Parameters,
    Shape,
    count_parameters,
    initial_parameters,
    stack_parameters,
)
from tbtt_interp.tasks import Stream, Task
from tbtt_interp.train.changes import OF_DIGITS, Changes
from tbtt_interp.train.effects import DIGITS, project, projection_of, scaled
from tbtt_interp.train.recipe import Recipe, recorded_recipe
from tbtt_interp.train.source import Source, own_recipe
from tbtt_interp.train.step import (
    CompiledStack,
    ModelStack,
    TorchStack,
    keep_freed_memory,
    pick_device,
)


class TrainingCallback:
    """Receives the events of a training run; this base class ignores them."""

    def on_message(self, message: str) -> None:
        """Receives a message for the user."""

    def on_start(self, step: int, steps: int) -> None:
        """Training starts or resumes, with `step` of `steps` steps done."""

    def on_step(self, step: int) -> None:
        """`step` steps are done."""

    def on_evaluation(self, line: Row) -> None:
        """Receives a new line of metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The hardware settings of a training run.

    They change no bit of a compiled run. In a run that torch trains, they change the last bits.
    """

    device: str | None = None  # cpu, cuda or mps; None is cpu, or what a resumed run started on
    threads: int | None = None  # of the processor; None leaves torch's own choice
    compiled: bool | None = None  # whether to compile the step; None does wherever that can be

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= 1_024:
            raise TbttError(f"threads must be from 1 to 1024, got {self.threads}")
        if self.device is not None:
            pick_device(self.device)


def model_shape(recipe: Recipe, task: Task) -> Shape:
    """The shape of a recipe's models on its task."""
    numbers = {key: value for key, value in vars(recipe.model).items() if key != "size"}
    return Shape(**numbers, n_ctx=recipe.training.window, d_vocab=len(task.vocabulary))


def model_streams(recipe: Recipe, tasks: Sequence[Task]) -> list[Stream]:
    """Each model's own training data."""
    batch = recipe.training.batch
    return [
        Stream(
            lines=task.file(recipe.order_seed(seed, task)), vocabulary=task.vocabulary, seed=seed,
            framing=recipe.framing, window=recipe.training.window,
            batch=batch if isinstance(batch, int) else None,
        )
        for seed, task in zip(recipe.seed_list, tasks, strict=True)
    ]  # fmt: skip


def check_cost(shape: Shape, recipe: Recipe, task: Task) -> None:
    """Raises a TbttError where models, or the logits of a step, would not fit into memory."""
    if (numbers := recipe.seeds * count_parameters(shape)) > PARAMETERS:
        raise TbttError(
            f"{recipe.seeds:,} models of {count_parameters(shape):,} parameters are {numbers:,}, "
            f"of which at most {PARAMETERS:,} are trained side by side: give fewer seeds"
        )
    batch = recipe.training.batch
    rows = len(task.lines)
    if isinstance(batch, int):  # windows of a file that are drawn twice are computed once
        rows = min(batch, sum(map(len, task.lines))) if recipe.framing == "file" else batch
    if (logits := rows * shape.n_ctx * shape.d_vocab) > LOGITS:
        raise TbttError(
            f"a step of {rows:,} windows of {shape.n_ctx:,} characters, each one of "
            f"{shape.d_vocab:,}, has {logits:,} logits a model, of which at most {LOGITS:,} are "
            "allowed: give a smaller training.batch or training.window"
        )


def new_stack(recipe: Recipe, runtime: Runtime, callback: TrainingCallback) -> ModelStack:
    """The initial models of a recipe; `begin` makes them those that training starts with."""
    device = pick_device(runtime.device or "cpu")
    tasks = recipe.tasks()
    shape = model_shape(recipe, tasks[0])
    check_cost(shape, recipe, tasks[0])
    streams = model_streams(recipe, tasks)
    models = [initial_parameters(shape, seed=seed) for seed in recipe.seed_list]
    parameters = scaled(stack_parameters(models), recipe.changes)
    stack = _stack_on(device, parameters, shape, recipe, streams, runtime, callback)
    stack.change(recipe.changes, tasks, recipe.first_step)
    return stack


def _stack_on(
    device: torch.device, parameters: Parameters, shape: Shape, recipe: Recipe,
    streams: Sequence[Stream], runtime: Runtime, callback: TrainingCallback,
) -> ModelStack:  # fmt: skip
    """Models in training, with a kernel where one is suited and can be compiled."""
    suited = device.type == "cpu" and is_suited(shape)
    if (runtime.compiled or shape.bias) and not suited:
        callback.on_message("Not compiled: at this width, with biases, or on this device.")
    elif suited and runtime.compiled is not False:
        try:
            kernel = Kernel(shape)
            return CompiledStack(parameters, shape, recipe.training, streams, kernel)
        except KernelError as error:
            callback.on_message(
                f"Not compiled, so training is several times slower and its last bits are this "
                f"machine's: {error}"
            )
    keep_freed_memory()
    return TorchStack(parameters, shape, recipe.training, streams, device)


def begin(
    stack: ModelStack, recipe: Recipe, callback: TrainingCallback, *, resumed: bool = False
) -> None:
    """Makes initial models those that training starts with: forked, transplanted, grafted.

    Models that are to be `resumed` are left as they are; what acts on them at each step is set. A
    forked run's digits are mapped at once only if its origin's are mapped otherwise.
    """
    changes, sources = recipe.changes, recipe.sources
    if sources and stack.kernel is None:
        raise TbttError("taking models from another run needs the compiled kernel: install g++")
    origin, before = sources.get("from"), Changes()
    if origin:
        before = recorded_recipe(origin.recipe).changes
    if origin and not resumed:
        state = origin.stored_state()
        state = train_again(origin, callback).state() if state is None else state
        if changes.transplant:
            transplant(state, _donated(sources["donor"], recipe, callback), changes.transplant,
                       stack.tasks[0])  # fmt: skip
        if (changes.norm, changes.rate) != (before.norm, before.rate):  # fits count anew
            state = {name: value for name, value in state.items() if "/" in name}
        stack.restore(state)
    stack.projections = _projections(stack, recipe, callback)
    is_new = any(getattr(changes, key) != getattr(before, key) for key in OF_DIGITS)
    if stack.projections and not resumed and (is_new or origin is None):
        project(stack.parameters, stack.projections, rate=0.0)
    if not changes.frozen:
        stack.projections = ()


def _projections(stack: ModelStack, recipe: Recipe, callback: TrainingCallback) -> list[Projection]:
    """The map of each model's embedding, where a recipe makes one."""
    donor = recipe.sources.get("graft")
    grafted = None if donor is None else _digit_rows(donor, recipe, callback)
    found = [
        projection_of(recipe.changes, task.vocabulary, stack.shape.d_model, seed,
                      None if grafted is None else grafted[k])
        for k, (seed, task) in enumerate(zip(recipe.seed_list, stack.tasks, strict=True))
    ]  # fmt: skip
    return [projection for projection in found if projection is not None]


def _digit_rows(donor: Source, recipe: Recipe, callback: TrainingCallback) -> list[np.ndarray]:
    """The digits' rows of each donor model."""
    embedding = _donated(donor, recipe, callback)["embed.W_E"].double().numpy()
    index = recipe_of(donor).tasks()[0].vocabulary.index
    return [rows[[index[digit] for digit in DIGITS]] for rows in embedding]


def _donated(donor: Source, recipe: Recipe, callback: TrainingCallback) -> Parameters:
    """The donor's parameters; refused if a donor model was trained on pairs held out here."""
    trained = recipe_of(donor)
    if trained.task != recipe.task and trained.tasks()[0].lines != recipe.tasks()[0].lines:
        what = f"{donor.run} is of task {trained.task} and this recipe of {recipe.task}"
        raise TbttError(f"{what}: take models of the same task")
    if trained.seeds != recipe.seeds:
        what = f"{donor.run} has {trained.seeds} models and this recipe {recipe.seeds}"
        raise TbttError(f"{what}: take them from a run of as many")
    pairs = zip(recipe.held_out_sets, trained.held_out_sets, strict=True)
    if any(set(own) - set(of_donor) for own, of_donor in pairs):
        what = f"models of {donor.run} were trained on pairs that models of this recipe hold out"
        raise TbttError(f"{what}: take models that hold out the same pairs")
    parameters = donor.stored_parameters()
    return train_again(donor, callback).parameters if parameters is None else parameters


def recipe_of(source: Source) -> Recipe:
    """The recipe that trains a source's models again."""
    return recorded_recipe(own_recipe(source.recipe, Path(source.run)))


def train_again(source: Source, callback: TrainingCallback) -> ModelStack:
    """The models of a source, trained again up to its step; their bytes are checked on the way."""
    recipe = recipe_of(source)
    callback.on_message(
        f"{source.run} has no usable saved state at step {source.step:,}, so its "
        f"{recipe.seeds} models are trained again up to there."
    )
    stack = new_stack(recipe, Runtime(compiled=True), callback)
    begin(stack, recipe, callback)

    def check(step: int) -> None:
        if step == source.kept and weights_hash(stack.parameters) != source.weights:
            what = f"{source.run} does not have the bytes that its recipe gives at step {step:,}"
            raise TbttError(f"{what}: restore it, or train it again")

    check(done := stack.first_step)
    for until in sorted({source.kept, source.step}):
        *_, done = done, *stack.steps(done, until)
        check(done)
    return stack


def transplant(state: Parameters, donor: Parameters, part: str, task: Task) -> None:
    """Puts a part of the donor's models into a state, and sets the moments of that part to zero."""
    rows = [task.vocabulary.index[digit] for digit in DIGITS] if part == "digits" else slice(None)
    chosen = {"digits": "embed.W_E", "attention": ".attn.", "mlp": ".mlp."}[part]
    for key, value in state.items():
        what, _, name = key.partition("/")
        if chosen not in name:
            continue
        if donor[name].shape != value.shape:
            what = "a transplant needs as many models of the same shape"
            raise TbttError(f"{what}: give such a donor")
        value[:, rows] = donor[name][:, rows] if what == "weights" else 0


@contextmanager
def threads_of_torch(count: int | None) -> Iterator[None]:
    """Lets torch, and the kernel, use so many threads; None leaves their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

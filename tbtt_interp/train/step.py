"""One training step of many stacked models, each as if it were trained alone."""

import ctypes
import math
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.errors import TbttError, listed, unknown
from tbtt_interp.evaluate import evaluate_models, reference_loss
from tbtt_interp.kernel import Batches, Kernel, Optimizer, Projection, flatten
from tbtt_interp.model import Parameters, Shape, forward, is_matrix
from tbtt_interp.tasks import Stream, Task
from tbtt_interp.tasks.windows import NOTHING, Windows, stack
from tbtt_interp.train.changes import Changes
from tbtt_interp.train.effects import is_fitted, norm_of, project, rate_factors, sine
from tbtt_interp.train.recipe import TrainingRecipe

CALL = 0.25  # seconds of steps in one call of the kernel, so that Ctrl-C and progress come soon


def pick_device(name: str) -> torch.device:
    """A device of this machine; raises a TbttError if the machine has no such device."""
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in has:
        raise unknown("device", name, has)
    if not has[name]:
        present = listed(device for device in has if has[device])
        raise TbttError(f"device '{name}' is not on this machine: choose {present}")
    return torch.device(name)


def learning_rate_at(step: int, training: TrainingRecipe) -> float:
    """The learning rate of one step, counted from 0: linear warm-up, cosine decay, then constant.

    Elementary arithmetic alone, so that it is the same on every machine. Source: `get_lr` of
    nanoGPT's train.py, which the paper's code uses.
    """
    peak, low = training.learning_rate, training.min_learning_rate
    if step < training.warmup:
        return peak * (step + 1) / (training.warmup + 1)
    if step >= training.decay_until:
        return low
    share = (step - training.warmup) / (training.decay_until - training.warmup)
    cosine = sine(math.pi * (0.5 - share))
    return low + 0.5 * (1 + cosine) * (peak - low)


def power(base: float, exponent: int) -> float:
    """A float to a whole power by multiplication alone, the same on every machine."""
    result = 1.0
    while exponent:
        result *= base if exponent & 1 else 1.0
        base *= base
        exponent >>= 1
    return result


class ModelStack(ABC):
    """S models in training: stacked parameters, their optimizer, and steps.

    No model affects another: each has its own windows, gradient and clipping, and AdamW works
    element by element.
    """

    parameters: Parameters

    def __init__(self, shape: Shape, training: TrainingRecipe, streams: Sequence[Stream]) -> None:
        self.shape, self.training, self.streams = shape, training, streams
        self.changes, self.first_step = Changes(), 0
        self.tasks: tuple[Task, ...] = ()
        self.projections: Sequence[Projection] = ()
        self.norms = np.full(len(streams), math.inf)
        self.fitted_at = np.full(len(streams), -1)  # step of each model's fit; -1 is not yet

    def change(self, changes: Changes, tasks: Sequence[Task], first_step: int = 0) -> None:
        """Sets a recipe's interventions, and the step from which a forked run goes on."""
        self.changes, self.tasks, self.first_step = changes, tuple(tasks), first_step

    @abstractmethod
    def advance(self, start: int, until: int) -> None:
        """Trains each model by the steps from `start` up to `until`, counted from 0."""

    def steps(self, done: int, until: int) -> Iterator[int]:
        """Trains from `done` steps up to `until`; yields the steps done, several times a second.

        It stops at every evaluation and checkpoint, and where an intervention begins or ends.

        A call is one step of torch, or many steps of the kernel.
        """
        at_once = 1
        every = [self.training.evaluate_every, self.training.checkpoint_every or until]
        single = [*self.training.keep_states, self.changes.decay_from, self.changes.decay_until]
        if self.changes.needs_fit and done == self.first_step:
            self._find_fits(done)
        while done < until:
            later = [step for step in single if step > done]
            ends = [done - done % each + each for each in every]
            stop = min(until, done + at_once, *ends, *later)
            began = time.monotonic()
            self.advance(done, stop)
            if self.kernel is not None:
                taken = (time.monotonic() - began) / (stop - done)
                at_once = max(1, min(2 * at_once, round(CALL / max(taken, 1e-6))))
            done = stop
            self._end_diverged()
            if self.changes.needs_fit and done % self.training.evaluate_every == 0:
                self._find_fits(done)
            yield done

    def _end_diverged(self) -> None:
        """Sets every weight of a model to nan, once one of its weights is no finite number."""
        finite = [p.detach().flatten(1).isfinite().all(1) for p in self.parameters.values()]
        for model in (~torch.stack(finite).all(0)).nonzero()[:, 0].tolist():
            for parameter in self.parameters.values():
                parameter.data[model] = math.nan

    def _find_fits(self, step: int) -> None:
        """Notes which models have fitted by now, and from which norm on they are bounded."""
        weights = {name: p.detach() for name, p in self.parameters.items()}
        seeds = range(len(self.streams))
        rows = evaluate_models(weights, self.shape, self.tasks, seeds, self.kernel).rows()
        for model, row in enumerate(rows):
            if self.fitted_at[model] < 0 and is_fitted(row):
                self.fitted_at[model] = step
                if self.changes.norm != "free":
                    self.norms[model] = norm_of(weights, model)

    def _weight_decay(self, step: int) -> float:
        """The weight decay of the step after this one."""
        starts, ends = self.changes.decay_from, self.changes.decay_until
        acts = starts <= step and (not ends or step < ends)
        return self.training.weight_decay if acts else 0.0

    def state(self) -> Parameters:
        """The state to resume from: weights, Adam's moments, fits; without the step's number."""
        fits = {"norms": self.norms, "fitted_at": self.fitted_at} if self.changes.needs_fit else {}
        return self._moments() | {name: torch.from_numpy(x) for name, x in fits.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Sets weights, moments and fits to a state that `state` returned."""
        for name, value in self._moments().items():
            value.copy_(state[name])
        if self.changes.needs_fit and "norms" in state:
            self.norms, self.fitted_at = (state[n].numpy().copy() for n in ("norms", "fitted_at"))

    @abstractmethod
    def _moments(self) -> Parameters:
        """Weights and Adam's moments, as views."""

    def reference_loss(self) -> list[float]:
        """Each model's loss on all its windows, in nats per predicted character."""
        weights = {name: p.detach() for name, p in self.parameters.items()}
        return reference_loss(weights, self.shape, self.streams, self.kernel)

    @property
    def kernel(self) -> Kernel | None:
        """The compiled kernel, where one computes the steps."""
        return None


def batches_of(stream: Stream, dtype: np.dtype) -> Batches:
    """A model's training data as the kernel takes it."""
    if stream.framing == "shuffled":
        lengths = np.array([*map(len, stream.lines)])
        return Batches(stream.padded, lengths, None, stream.batch or 0, stream.seed)
    rows = stream.windows
    if stream.batch is not None:
        return Batches(rows, None, None, stream.batch, stream.seed)
    characters = dtype.type((rows[:, 1:] != NOTHING).sum())
    return Batches(rows, None, np.ones(len(rows), dtype) / characters)  # every row once


class CompiledStack(ModelStack):
    """Models whose steps the kernel computes: the same bits on every machine."""

    def __init__(
        self, parameters: Parameters, shape: Shape, training: TrainingRecipe,
        streams: Sequence[Stream], kernel: Kernel,
    ) -> None:  # fmt: skip
        super().__init__(shape, training, streams)
        self._kernel = kernel
        weights = flatten(parameters, shape).astype(kernel.dtype)
        self._arrays = weights, np.zeros_like(weights), np.zeros_like(weights)
        self._sizes = {name: value.shape[1:] for name, value in parameters.items()}
        self.parameters = self._views(weights)
        self.batches = [batches_of(stream, kernel.dtype) for stream in streams]

    @property
    def kernel(self) -> Kernel:
        """The compiled kernel."""
        return self._kernel

    def _views(self, array: np.ndarray) -> Parameters:
        """An array's columns by the parameters' names, in the parameters' shapes."""
        sizes = [math.prod(size) for size in self._sizes.values()]
        parts = torch.from_numpy(array).split(sizes, 1)
        named = zip(self._sizes.items(), parts, strict=True)
        return {name: part.unflatten(1, size) for (name, size), part in named}

    def settings(self, start: int, until: int, *, lowest: bool = False) -> Optimizer:
        """The optimizer's settings at the steps from `start` up to `until`.

        `lowest` takes the schedule's lowest learning rate throughout.
        """
        training, decay = self.training, self._weight_decay(start)
        factors = rate_factors(self.changes, self.shape)
        sizes = {name: math.prod(size) for name, size in self._sizes.items()}
        corrections = [
            (1 / (1 - power(training.beta1, step)), 1 / math.sqrt(1 - power(training.beta2, step)))
            for step in range(start + 1, until + 1)
        ]
        low = training.min_learning_rate
        rates = [low if lowest else learning_rate_at(k, training) for k in range(start, until)]
        return Optimizer(
            rates=np.column_stack([rates, corrections]),
            rate_of=np.concatenate([np.full(size, factors[n]) for n, size in sizes.items()]),
            decay_of=np.concatenate(
                [np.full(size, decay * is_matrix(name)) for name, size in sizes.items()]
            ),
            beta1=training.beta1, beta2=training.beta2,
            epsilon=training.epsilon, clip=training.clip,
        )  # fmt: skip

    def advance(self, start: int, until: int) -> None:
        """See `ModelStack.advance`."""
        slow = (self.fitted_at >= 0) & (self.changes.rate != "scheduled")
        for lowest in set(slow.tolist()):
            chosen = np.flatnonzero(slow == lowest)  # no model's bits depend on the others
            weights, means, squares = arrays = [array[chosen] for array in self._arrays]
            self._kernel.train(
                weights, means, squares, [self.batches[k] for k in chosen.tolist()],
                self.settings(start, until, lowest=lowest), start,
                [self.projections[k] for k in chosen.tolist()] if self.projections else (),
                self.norms[chosen] if np.isfinite(self.norms).any() else None,
            )  # fmt: skip
            for array, part in zip(self._arrays, arrays, strict=True):
                array[chosen] = part

    def _moments(self) -> Parameters:
        """Weights and Adam's moments, as views."""
        return {
            f"{what}/{name}": value
            for what, array in zip(("weights", "exp_avg", "exp_avg_sq"), self._arrays, strict=True)
            for name, value in self._views(array).items()
        }


class TorchStack(ModelStack):
    """Models that torch trains: wide ones, or on other devices; last bits vary by machine."""

    def __init__(
        self, parameters: Parameters, shape: Shape, training: TrainingRecipe,
        streams: Sequence[Stream], device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__(shape, training, streams)
        self.device = device
        self.parameters = {n: value.to(device).requires_grad_() for n, value in parameters.items()}
        groups = [{"params": [parameter], "name": n} for n, parameter in self.parameters.items()]
        betas = (training.beta1, training.beta2)
        self.optimizer = torch.optim.AdamW(
            groups, lr=training.learning_rate, betas=betas, eps=training.epsilon, fused=True
        )
        for parameter in self.parameters.values():  # what AdamW would make at its first step
            zeros = {key: torch.zeros_like(parameter.detach()) for key in ("exp_avg", "exp_avg_sq")}
            step = torch.zeros((), device=device)
            self.optimizer.state[parameter] = {"step": step, **zeros}

    def loss(self, windows: Sequence[Windows]) -> Float[Tensor, " seed"]:
        """Each model's loss on its windows, in nats per predicted character."""
        stacked = stack(windows)
        arrays = (stacked.tokens, stacked.targets, stacked.weights())
        tokens, targets, weights = (torch.from_numpy(x).to(self.device) for x in arrays)
        logits = forward(self.parameters, tokens, self.shape).flatten(0, 2)
        nats = F.cross_entropy(logits, targets.flatten(), ignore_index=NOTHING, reduction="none")
        return (nats.view(targets.shape).sum(-1) * weights.to(nats.dtype)).sum(-1)

    def advance(self, start: int, until: int) -> None:
        """See `ModelStack.advance`."""
        for step in range(start, until):
            self.optimizer.zero_grad()
            self.loss([stream.draw(step) for stream in self.streams]).sum().backward()
            clip_each(list(self.parameters.values()), self.training.clip)
            rate = learning_rate_at(step, self.training)
            factors = rate_factors(self.changes, self.shape)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * factors[group["name"]]
                group["weight_decay"] = self._weight_decay(step) * is_matrix(group["name"])
            self.optimizer.step()
            if self.projections:
                project(self.parameters, self.projections, rate)
            for model, bound in enumerate(self.norms.tolist()):
                if bound < math.inf and (norm := norm_of(self.parameters, model)) > bound:
                    for parameter in self.parameters.values():
                        parameter.data[model] *= bound / norm

    def change(self, changes: Changes, tasks: Sequence[Task], first_step: int = 0) -> None:
        """Sets a recipe's interventions, but a learning rate that differs between models."""
        if changes.rate != "scheduled":
            raise TbttError("changes.rate 'lowest at fit' needs the compiled kernel: drop it here")
        super().change(changes, tasks, first_step)

    def _moments(self) -> Parameters:
        """Weights and Adam's moments, as views."""
        moments = {f"{what}/{name}": value for name, parameter in self.parameters.items()
                   for what, value in self.optimizer.state[parameter].items()}  # fmt: skip
        return {f"weights/{name}": p.detach() for name, p in self.parameters.items()} | moments


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next step; does nothing without glibc.

    Each step of torch allocates the same tens of megabytes. Requested anew from the system, they
    cost a page fault for each 4 KB, a third of the step.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)


def clip_each(parameters: Sequence[Tensor], limit: float) -> None:
    """Scales each model's gradient to at most this norm, as `clip_grad_norm_` does for one."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = sum(g.flatten(1).square().sum(1) for g in gradients)
    scale = (limit / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))

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
from tbtt_interp.evaluate import reference_loss
from tbtt_interp.kernel import Batches, Kernel, Optimizer, Projection
from tbtt_interp.model import Parameters, Shape, forward, is_matrix
from tbtt_interp.tasks import Stream
from tbtt_interp.tasks.windows import NOTHING, Windows, stack
from tbtt_interp.train.recipe import TrainingRecipe

SINE_TERMS = 12  # of the sine's series, exact to the last bit to pi/2
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
    angle = math.pi * (0.5 - share)
    cosine = 0.0  # cos(pi * share) / angle, by the sine's series
    for k in range(SINE_TERMS, -1, -1):
        cosine = cosine * (-angle * angle) + 1 / math.factorial(2 * k + 1)
    return low + 0.5 * (1 + angle * cosine) * (peak - low)


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

    @abstractmethod
    def advance(self, start: int, until: int) -> None:
        """Trains each model by the steps from `start` up to `until`, counted from 0."""

    def steps(self, done: int, until: int) -> Iterator[int]:
        """Trains from `done` steps up to `until`; yields the steps done, several times a second.

        It stops at every evaluation and checkpoint.

        A call is one step of torch, or many steps of the kernel.
        """
        at_once = 1
        every = [self.training.evaluate_every, self.training.checkpoint_every or until]
        while done < until:
            stop = min(until, done + at_once, *(done - done % each + each for each in every))
            began = time.monotonic()
            self.advance(done, stop)
            if self.kernel is not None:
                taken = (time.monotonic() - began) / (stop - done)
                at_once = max(1, min(2 * at_once, round(CALL / max(taken, 1e-6))))
            done = stop
            yield done

    @abstractmethod
    def state(self) -> Parameters:
        """The state to resume from: weights and Adam's moments, without the step's number."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Sets weights and moments to a state that `state` returned."""

    def reference_loss(self) -> list[float]:
        """Each model's loss on all its windows, in nats per predicted character."""
        weights = {name: p.detach() for name, p in self.parameters.items()}
        return reference_loss(weights, self.shape, self.streams, self.kernel)

    @property
    def kernel(self) -> Kernel | None:
        """The compiled kernel, where one computes the steps."""
        return None


class CompiledStack(ModelStack):
    """Models whose steps the kernel computes: the same bits on every machine.

    `rate_of` scales the learning rate of each parameter, in the order of `parameter_shapes`. After
    each step `projections`, one per model, change rows of the embedding, and `norms` bound the norm
    of each model's parameters.
    """

    def __init__(
        self, parameters: Parameters, shape: Shape, training: TrainingRecipe,
        streams: Sequence[Stream], kernel: Kernel,
    ) -> None:  # fmt: skip
        super().__init__(shape, training, streams)
        self._kernel = kernel
        rows = torch.cat([value.flatten(1) for value in parameters.values()], 1)
        weights = rows.numpy(force=True).astype(kernel.dtype)
        self._arrays = weights, np.zeros_like(weights), np.zeros_like(weights)
        self._sizes = {name: value.shape[1:] for name, value in parameters.items()}
        decays = [
            np.full(math.prod(size), training.weight_decay * is_matrix(name))
            for name, size in self._sizes.items()
        ]
        self._decay_of = np.concatenate(decays)
        self.rate_of = np.ones_like(self._decay_of)
        self.projections: list[Projection] = []
        self.norms: Float[np.ndarray, " model"] | None = None
        self.parameters = self._views(weights)
        self.batches = [
            Batches(
                rows=stream.padded if stream.framing == "shuffled" else stream.windows,
                lengths=np.array([*map(len, stream.lines)])
                if stream.framing == "shuffled" else None,
                batch=stream.batch or 0, seed=stream.seed,
            )
            for stream in streams
        ]  # fmt: skip

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

    def settings(self, start: int, until: int) -> Optimizer:
        """The optimizer's settings at the steps from `start` up to `until`."""
        training = self.training
        corrections = [
            (1 / (1 - power(training.beta1, step)), 1 / math.sqrt(1 - power(training.beta2, step)))
            for step in range(start + 1, until + 1)
        ]
        rates = [learning_rate_at(step, training) for step in range(start, until)]
        return Optimizer(
            rates=np.column_stack([rates, corrections]), rate_of=self.rate_of,
            decay_of=self._decay_of, beta1=training.beta1, beta2=training.beta2,
            epsilon=training.epsilon, clip=training.clip,
        )  # fmt: skip

    def advance(self, start: int, until: int) -> None:
        """Trains each model by the steps from `start` up to `until`, counted from 0."""
        settings = self.settings(start, until)
        changes = self.projections, self.norms
        self._kernel.train(*self._arrays, self.batches, settings, start, *changes)

    def state(self) -> Parameters:
        """The state to resume from: weights and Adam's moments, without the step's number."""
        return {
            f"{what}/{name}": value
            for what, array in zip(("weights", "exp_avg", "exp_avg_sq"), self._arrays, strict=True)
            for name, value in self._views(array).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Sets weights and moments to a state that `state` returned."""
        for key, value in self.state().items():
            value.copy_(state[key])


class TorchStack(ModelStack):
    """Models that torch trains: wide ones, or on other devices; last bits vary by machine."""

    def __init__(
        self, parameters: Parameters, shape: Shape, training: TrainingRecipe,
        streams: Sequence[Stream], device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__(shape, training, streams)
        self.device = device
        self.parameters = {n: value.to(device).requires_grad_() for n, value in parameters.items()}
        groups = [
            {"params": [p for name, p in self.parameters.items() if is_matrix(name) == decays],
             "weight_decay": training.weight_decay if decays else 0.0}
            for decays in (True, False)
        ]  # fmt: skip
        betas = (training.beta1, training.beta2)
        self.optimizer = torch.optim.AdamW(
            groups, lr=training.learning_rate, betas=betas, eps=training.epsilon, fused=True
        )

    def loss(self, windows: Sequence[Windows]) -> Float[Tensor, " seed"]:
        """Each model's loss on its windows, in nats per predicted character."""
        stacked = stack(windows)
        arrays = (stacked.tokens, stacked.targets, stacked.weights())
        tokens, targets, weights = (torch.from_numpy(x).to(self.device) for x in arrays)
        logits = forward(self.parameters, tokens, self.shape).flatten(0, 2)
        nats = F.cross_entropy(logits, targets.flatten(), ignore_index=NOTHING, reduction="none")
        return (nats.view(targets.shape).sum(-1) * weights.to(nats.dtype)).sum(-1)

    def advance(self, start: int, until: int) -> None:
        """Trains each model by the steps from `start` up to `until`, counted from 0."""
        for step in range(start, until):
            self.optimizer.zero_grad()
            self.loss([stream.draw(step) for stream in self.streams]).sum().backward()
            clip_each(list(self.parameters.values()), self.training.clip)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate_at(step, self.training)
            self.optimizer.step()

    def state(self) -> Parameters:
        """The state to resume from: weights and Adam's moments, without the step's number."""
        state = {f"weights/{name}": p.detach() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                state[f"{key}/{name}"] = value
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Sets weights and moments to a state that `state` returned."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(state[f"weights/{name}"])
            kept = {key: state[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {key: x.to(self.device) for key, x in kept.items()}


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

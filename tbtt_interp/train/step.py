"""One training step of many stacked models, each as if it were trained alone."""

import ctypes
import math
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.errors import TbttError, listed, unknown
from tbtt_interp.evaluate import reference_loss
from tbtt_interp.model import Parameters, Shape, forward, is_matrix
from tbtt_interp.tasks import Stream
from tbtt_interp.tasks.windows import NOTHING, Windows, stack
from tbtt_interp.train.kernel import Kernel
from tbtt_interp.train.recipe import TrainingRecipe


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

    Source: `get_lr` of nanoGPT's train.py, which the paper's code uses.
    """
    peak, low = training.learning_rate, training.min_learning_rate
    if step < training.warmup:
        return peak * (step + 1) / (training.warmup + 1)
    if step >= training.decay_until:
        return low
    share = (step - training.warmup) / (training.decay_until - training.warmup)
    return low + 0.5 * (1 + math.cos(math.pi * share)) * (peak - low)


class ModelStack:
    """S models in training: stacked parameters, their optimizer, and one step at a time.

    No model affects another: each has its own windows, gradient and clipping, and AdamW works
    element by element. Without a kernel, torch computes the loss and its gradient.
    """

    def __init__(
        self, parameters: Parameters, shape: Shape, training: TrainingRecipe,
        streams: Sequence[Stream], *, device: torch.device, kernel: Kernel | None = None,
    ) -> None:  # fmt: skip
        self.parameters = {n: value.to(device).requires_grad_() for n, value in parameters.items()}
        self.shape, self.training, self.streams = shape, training, streams
        self.device, self.kernel = device, kernel
        groups = [
            {"params": [p for name, p in self.parameters.items() if is_matrix(name) == decays],
             "weight_decay": training.weight_decay if decays else 0.0}
            for decays in (True, False)
        ]  # fmt: skip
        betas = (training.beta1, training.beta2)
        self.optimizer = torch.optim.AdamW(
            groups, lr=training.learning_rate, betas=betas, eps=training.epsilon, fused=True
        )

    def _windows(self, windows: Sequence[Windows]) -> tuple[Tensor, Tensor, Tensor]:
        stacked = stack(windows)
        arrays = (stacked.tokens, stacked.targets, stacked.weights())
        tokens, targets, weights = map(torch.from_numpy, arrays)
        dtype = self.parameters["embed.W_E"].dtype
        return tokens.to(self.device), targets.to(self.device), weights.to(self.device, dtype)

    def _loss(self, tokens: Tensor, targets: Tensor, weights: Tensor) -> Float[Tensor, " seed"]:
        if self.kernel is not None:
            return self.kernel.loss(self.parameters, tokens, targets, weights)
        logits = forward(self.parameters, tokens, self.shape).flatten(0, 2)
        nats = F.cross_entropy(logits, targets.flatten(), ignore_index=NOTHING, reduction="none")
        return (nats.view(targets.shape).sum(-1) * weights).sum(-1)

    def _backward(self, step: int) -> Float[Tensor, " seed"]:
        windows = self._windows([stream.draw(step) for stream in self.streams])
        self.optimizer.zero_grad()
        loss = self._loss(*windows)
        loss.sum().backward()
        return loss.detach()

    def reference_loss(self) -> list[float]:
        """Each model's loss on all its windows, in nats per predicted character."""
        if self.kernel is None:
            weights = {name: p.detach() for name, p in self.parameters.items()}
            return reference_loss(weights, self.shape, self.streams)
        with torch.no_grad():
            return self._loss(*self._windows([s.reference() for s in self.streams])).tolist()

    def step(self, step: int) -> Float[Tensor, " seed"]:
        """Trains each model by one step; returns its loss before the step. Steps count from 0."""
        # torch's own threads keep the setting they began with, so with torch the bits would depend
        # on when its threads began; the kernel's threads begin anew and inherit the setting
        with denormals_as_zero() if self.kernel else nullcontext():
            loss = self._backward(step)
            clip_each(list(self.parameters.values()), self.training.clip)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate_at(step, self.training)
            self.optimizer.step()
            return loss

    def state(self) -> Parameters:
        """The state to resume from: weights and Adam's moments, without the step's number."""
        state = {f"weights/{name}": p.detach() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                state[f"{key}/{name}"] = value
        return state

    def restore(self, state: Parameters) -> None:
        """Sets weights and moments to a state that `state` returned."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(state[f"weights/{name}"])
            kept = {key: state[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {key: x.to(self.device) for key, x in kept.items()}


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Treats floats below the least normal one, 1e-38, as 0 in this thread and threads it starts.

    A trained model has many of them, in probabilities, gradients and Adam's averages. Some
    processors compute with them so slowly that a step takes ten times as long.
    """
    before = not torch.tensor(1e-39).mul(1.0).item()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next step; does nothing without glibc.

    Each step allocates the same tens of megabytes. Requested anew from the system, they cost a
    page fault for each 4 KB, a third of the step.
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

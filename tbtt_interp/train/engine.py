"""The training step of many models side by side, each as if it were alone."""

import ctypes
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import reference_loss
from tbtt_interp.model import Parameters, Shape, forward, is_matrix
from tbtt_interp.tasks import Stream
from tbtt_interp.tasks.windows import NOTHING, Windows, stack
from tbtt_interp.train.kernel import Kernel
from tbtt_interp.train.recipe import TrainingRecipe
from tbtt_interp.train.schedule import learning_rate_at

DEVICES = ("cpu", "cuda", "mps")
# Compiling costs 3 s, once, and makes a step of narrow models some three times faster; in
# activations computed over the whole training (windows × pos × d_model × layers × models × steps)
# that is earned back from about here.
WORTH_COMPILING = 1e8


def pick_device(name: str) -> torch.device:
    """A device of this machine.

    Raises:
        TbttError: if the machine has none of that kind.
    """
    if name not in DEVICES:
        raise TbttError(f"device '{name}' is unknown: choose cpu, cuda or mps")
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not has[name]:
        there = [device for device in DEVICES if has[device]]
        raise TbttError(f"device '{name}' is not on this machine: choose {' or '.join(there)}")
    return torch.device(name)


def is_worth_compiling(shape: Shape, training: TrainingRecipe, batch: int, seeds: int) -> bool:
    """Whether a training is long enough to earn back the time that compiling takes."""
    activations = batch * training.window * shape.d_model * shape.layers * seeds
    return activations * training.steps > WORTH_COMPILING


class Engine:
    """S models in training: stacked parameters, their optimizer, and one step at a time.

    No model sees another: each has its own windows, its own gradient and its own clipping, and
    AdamW works element by element.

    Args:
        parameters: stacked, with a leading seed axis; moved to the device.
        streams: each model's windows.
        kernel: what computes the loss and its gradient; None leaves both to torch.
    """

    def __init__(
        self,
        parameters: Parameters,
        shape: Shape,
        training: TrainingRecipe,
        streams: Sequence[Stream],
        *,
        device: torch.device,
        kernel: Kernel | None = None,
    ) -> None:
        self.parameters = {
            name: value.to(device).requires_grad_() for name, value in parameters.items()
        }
        self.shape = shape
        self.training = training
        self.streams = streams
        self.device = device
        self.kernel = kernel
        decayed = [p for name, p in self.parameters.items() if is_matrix(name)]
        kept = [p for name, p in self.parameters.items() if not is_matrix(name)]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": training.weight_decay},
                {"params": kept, "weight_decay": 0.0},
            ],
            lr=training.learning_rate,
            betas=(training.beta1, training.beta2),
            eps=training.epsilon,
            fused=True,
        )

    def _windows(self, windows: Sequence[Windows]) -> tuple[Tensor, Tensor, Tensor]:
        stacked = stack(windows)
        dtype = self.parameters["embed.W_E"].dtype
        tokens, targets, weights = map(
            torch.from_numpy, (stacked.tokens, stacked.targets, stacked.weights())
        )
        return tokens.to(self.device), targets.to(self.device), weights.to(self.device, dtype)

    def _loss(
        self,
        tokens: Int[Tensor, "seed batch pos"],
        targets: Int[Tensor, "seed batch pos"],
        weights: Float[Tensor, "seed batch"],
    ) -> Float[Tensor, " seed"]:
        if self.kernel is not None:
            return self.kernel.loss(self.parameters, tokens, targets, weights)
        logits = forward(self.parameters, tokens, self.shape)
        nats = F.cross_entropy(
            logits.flatten(0, 2), targets.flatten(), ignore_index=NOTHING, reduction="none"
        )
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
        """One step of every model, counted from 0; returns each one's loss on its windows."""
        # torch's own threads keep what they had when they began, so that with them bits would
        # hang on when that was; the kernel's begin anew and take it over
        with denormals_as_zero() if self.kernel else nullcontext():
            loss = self._backward(step)
            clip_each(list(self.parameters.values()), self.training.clip)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate_at(step, self.training)
            self.optimizer.step()
            return loss

    def state(self) -> Parameters:
        """Everything that training goes on from, besides the step: weights and moments."""
        state = {f"weights/{name}": p.detach() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                state[f"{key}/{name}"] = value
        return state

    def restore(self, state: Parameters) -> None:
        """Takes up a state where `state` left it."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(state[f"weights/{name}"])
            self.optimizer.state[parameter] = {
                key: state[f"{key}/{name}"].to(self.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Takes floats nearer to 0 than the least normal one, 1e-38, for 0 in this thread meanwhile.

    A model that knows its text has many of them, in probabilities, gradients and Adam's averages,
    and some processors compute with them so slowly that a step takes ten times as long. Threads
    that are begun meanwhile do the same (POSIX: they inherit the floating-point environment).
    """
    before = not torch.tensor(1e-39).mul(1.0).item()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def keep_freed_memory() -> None:
    """Tells glibc to keep what tensors free, for the next step, instead of handing it back.

    A step allocates the same tens of megabytes again; getting them anew from the system costs a
    page fault for each 4 KB, a third of the step. Elsewhere than on glibc this does nothing.
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

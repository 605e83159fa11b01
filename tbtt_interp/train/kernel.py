"""The loss and gradient of many small models in one call of compiled C++ (kernel.cpp).

Torch computes a narrow model at a tenth of the processor's speed: its products are too thin, and
all operations between them go through memory. The kernel is compiled once per shape, in seconds,
and kept in the user's cache (`$XDG_CACHE_HOME/tbtt_interp`, or `~/.cache/tbtt_interp`).
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.model import EPSILON, Parameters, Shape, fold_layer_norms

SOURCE = Path(__file__).with_name("kernel.cpp")
HEADER = Path(__file__).with_name("lanes.h")
WIDEST = 128  # d_model above which torch's own products are faster
LONGEST = 256  # n_ctx above which a thread's workspace would take hundreds of megabytes
CHUNKS = 4  # partial sums over a model's windows, so that the total is the same on any threads
REALS = {torch.float32: "float", torch.float64: "double"}


class KernelError(Exception):
    """The reason why no kernel could be compiled: no compiler, or its error."""


def is_suited(shape: Shape, device: torch.device) -> bool:
    """Whether the kernel is faster than torch: narrow models, on the processor."""
    width = max(shape.d_model, shape.d_mlp // 4)
    return device.type == "cpu" and width <= WIDEST and shape.n_ctx <= LONGEST


class Kernel:
    """The loss of stacked models of one shape, differentiable in their parameters.

    It has the same bits on any number of threads. Raises a KernelError if nothing can be compiled.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype, threads: int | None = None) -> None:
        self.shape, self.dtype = shape, dtype
        self.threads = threads or torch.get_num_threads()
        self._call = _library(shape, dtype).loss_and_gradient

    def loss(
        self, stacked: Parameters, tokens: Int[Tensor, "seed batch pos"],
        targets: Int[Tensor, "seed batch pos"], weights: Float[Tensor, "seed batch"],
    ) -> Float[Tensor, " seed"]:  # fmt: skip
        """Each model's sum of cross-entropies in nats, weighted by window; none for targets < 0."""
        flat = flatten(stacked, self.shape)
        # the C++ code trusts the compiled shape and type, so other ones are refused here
        if tokens.shape[2] != self.shape.n_ctx or {flat.dtype, weights.dtype} != {self.dtype}:
            raise TbttError(
                f"this kernel is for {self.shape.n_ctx} positions in {self.dtype}: got "
                f"{tokens.shape[2]} positions, {flat.dtype} and weights in {weights.dtype}"
            )
        arrays = [array.contiguous() for array in (flat, tokens, targets, weights)]
        loss = _Loss.apply(*arrays, self._call, self.threads)
        assert isinstance(loss, Tensor)
        return loss


def flatten(stacked: Parameters, shape: Shape) -> Float[Tensor, "seed parameter"]:
    """Folded parameters in the order in which the kernel reads them."""
    folded, kinds = fold_layer_norms(stacked, shape), ("W", "b") if shape.bias else ("W",)
    flat = [folded["embed.W_E"], folded["pos_embed.W_pos"]]
    for block in (f"blocks.{layer}" for layer in range(shape.layers)):
        for kind in kinds:
            roles = [folded[f"{block}.attn.{kind}_{role}"] for role in "QKV"]
            roles[0] = roles[0] / shape.d_head**0.5
            # [seed, d_model, head · d_head] or [seed, head · d_head], side by side
            sides = [r.transpose(1, 2).flatten(2) if kind == "W" else r.flatten(1) for r in roles]
            flat.append(torch.cat(sides, -1))
        for name in ("attn.{}_O", "mlp.{}_in", "mlp.{}_out"):
            flat += [folded[f"{block}.{name.format(kind)}"] for kind in kinds]
    flat += [folded[f"unembed.{kind}_U"] for kind in kinds]
    return torch.cat([parameter.flatten(1) for parameter in flat], 1)


class _Loss(torch.autograd.Function):
    """The kernel computes the gradient with the loss, and keeps it for the backward pass."""

    @staticmethod
    def forward(ctx, flat, tokens, targets, weights, call, threads):
        seeds, batch, _ = tokens.shape
        losses = flat.new_zeros(seeds, CHUNKS)
        gradients = flat.new_zeros(seeds, CHUNKS, flat.shape[1]) if flat.requires_grad else None
        call(
            *map(_address, (flat, tokens, targets, weights)),
            *(seeds, batch, CHUNKS, threads),
            *map(_address, (losses, gradients)),
        )
        if gradients is not None:
            ctx.save_for_backward(gradients.sum(1))
        return losses.sum(1)

    @staticmethod
    def backward(ctx, *grad_outputs):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0][:, None], None, None, None, None, None


def _address(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


def _library(shape: Shape, dtype: torch.dtype) -> ctypes.CDLL:
    """A shape's kernel from the cache, compiled first if it is not there."""
    names = {
        "REAL": REALS[dtype], "POS": shape.n_ctx, "VOCAB": shape.d_vocab,
        "D_MODEL": shape.d_model, "HEADS": shape.heads, "D_MLP": shape.d_mlp,
        "LAYERS": shape.layers, "BIAS": int(shape.bias), "EPSILON": EPSILON,
    }  # fmt: skip
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    command = [_compiler(), "-std=c++17", "-O3", native, "-ffp-contract=fast", "-fno-math-errno"]
    command += ["-fno-trapping-math", "-shared", "-fPIC", "-pthread"]
    command += [f"-D{name}={value}" for name, value in names.items()]
    command += os.environ.get("CXXFLAGS", "").split()
    # a kernel suits one processor, and machines may share a home folder: hence the node's name
    key = [SOURCE.read_text("utf-8"), HEADER.read_text("utf-8"), *command, platform.node()]
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:32] + ".so"
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tbtt_interp" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.is_file():
            _compile(command, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(str(error)) from error


def _compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if path := next(filter(None, map(shutil.which, names)), None):
        return path
    raise KernelError(f"there is no C++ compiler ({', '.join(names)})")


def _compile(command: list[str], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        done = subprocess.run(
            [*command, str(SOURCE), "-o", str(made)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it printed nothing"]
            reason = next((line for line in lines if "error" in line), lines[-1])
            raise KernelError(f"{command[0]} failed: {reason}")
        made.replace(path)

"""Training steps and logits of many small models, in calls of compiled C++ (kernel.cpp).

A model's weights then have the same bits on every processor with fused multiply-adds, on any number
of threads and with any models beside it. The kernel is compiled once per shape, in seconds, and
kept in the user's cache (`$XDG_CACHE_HOME/tbtt_interp`, or `~/.cache/tbtt_interp`).
"""

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from tbtt_interp.errors import TbttError
from tbtt_interp.files import user_cache
from tbtt_interp.model import EPSILON, Parameters, Shape, parameter_shapes
from tbtt_interp.threads import cpu_info

SOURCES = [Path(__file__).with_name(name) for name in ("kernel.cpp", "tile.h", "lanes.h")]
WIDEST = 128  # d_model above which torch's own products are faster
LONGEST = 256  # n_ctx above which a thread's workspace would take hundreds of megabytes
REALS = {"float32": "float", "float64": "double"}
# Multiply-adds are fused only where the source says so; no sum is reordered.
FLAGS = ["-fno-fast-math", "-std=c++17", "-ffp-contract=off", "-fno-math-errno"]
FLAGS += ["-fno-trapping-math", "-fno-strict-aliasing", "-shared", "-fPIC", "-pthread"]
BITS = 1  # raise when a recipe's weights change; tests/test_golden.py then fails

Array = Float[np.ndarray, "model parameter"]


class KernelError(Exception):
    """The reason why no kernel could be compiled: no compiler, or its error."""


class Batches(NamedTuple):
    """One model's training data; the same fields as `Data` of kernel.cpp."""

    rows: Int[np.ndarray, "row char"]  # windows of pos + 1 characters, or lines; negative is none
    lengths: Int[np.ndarray, " row"] | None = None  # of lines from which windows are cut
    weights: Float[np.ndarray, " row"] | None = None  # of each window's loss; None draws windows
    batch: int = 0  # windows to draw per step
    seed: int = 0


class Projection(NamedTuple):
    """An affine map of rows of W_E after each step.

    (left + rate * left_by_rate) @ rows @ right + constant, with the step's learning rate. The same
    fields as `Projection` of kernel.cpp.
    """

    rows: Int[np.ndarray, " row"]
    left: Float[np.ndarray, "row row"]
    left_by_rate: Float[np.ndarray, "row row"]
    right: Float[np.ndarray, "d_model d_model"]
    constant: Float[np.ndarray, "row d_model"]


class Optimizer(NamedTuple):
    """AdamW's settings; the same fields as `Settings` of kernel.cpp."""

    rates: Float[np.ndarray, "step 3"]  # learning rate, corrections of Adam's mean and square
    rate_of: Float[np.ndarray, " parameter"]  # factor of the learning rate
    decay_of: Float[np.ndarray, " parameter"]  # weight decay
    beta1: float
    beta2: float
    epsilon: float
    clip: float


def is_suited(shape: Shape) -> bool:
    """Whether the kernel takes such models and is faster than torch: narrow ones without biases."""
    is_narrow = max(shape.d_model, shape.d_mlp // 4) <= WIDEST and shape.n_ctx <= LONGEST
    return is_narrow and not shape.bias


class Kernel:
    """Training steps, losses and logits of models of one shape.

    Parameters are a row per model, in the order of `parameter_shapes`. Raises a KernelError if
    nothing can be compiled.
    """

    def __init__(self, shape: Shape, dtype: str = "float32", threads: int | None = None) -> None:
        if shape.bias:
            raise KernelError("the compiled kernel has no biases")
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.threads = torch.get_num_threads() if threads is None else threads
        if not 1 <= self.threads <= 1_024:
            raise TbttError(f"threads must be from 1 to 1024, got {threads}")
        self._library = _library(shape, dtype)
        self.compiler = _compiler()[1]
        real = ctypes.c_float if dtype == "float32" else ctypes.c_double
        self._data = _structure("Data", rows=_P, lengths=_P, weights=_P, count=_I, width=_I,
                                batch=_I, seed=_U)  # fmt: skip
        self._settings = _structure("Settings", rates=_P, rate_of=_P, decay_of=_P, beta1=real,
                                    beta2=real, epsilon=real, clip=real)  # fmt: skip
        self._projection = _structure("Projection", rows=_P, count=_I, left=_P, left_by_rate=_P,
                                      right=_P, constant=_P)  # fmt: skip

    def train(
        self, parameters: Array, means: Array, squares: Array, batches: Sequence[Batches],
        optimizer: Optimizer, start: int, projections: Sequence[Projection] = (),
        norms: Float[np.ndarray, " model"] | None = None,
    ) -> None:  # fmt: skip
        """Trains each model by as many steps as there are rates, in place, from step `start` on.

        After each step, rows of the embedding are projected, and a model whose norm exceeds its
        bound in `norms` is scaled down to it.
        """
        self._run(batches, (parameters, means, squares, None, None, None), optimizer, start,
                  projections, norms)  # fmt: skip

    def losses(
        self, parameters: Array, windows: Int[np.ndarray, "model window pos_and_next"],
        weights: Float[np.ndarray, "model window"], gradients: Array | None = None,
    ) -> Float[np.ndarray, " model"]:  # fmt: skip
        """Each model's summed cross-entropy in nats, weighted by window; skips targets < 0.

        Writes the losses' gradients into `gradients`, unless None.
        """
        losses = np.zeros(len(parameters), self.dtype)
        batches = [Batches(of, None, own) for of, own in zip(windows, weights, strict=True)]
        self._run(batches, (parameters, None, None, losses, gradients, None))
        return losses

    def logits(
        self, parameters: Array, tokens: Int[np.ndarray, "model window pos"]
    ) -> Float[np.ndarray, "model window pos d_vocab"]:
        """Each model's logits on its tokens, of at most the context's length."""
        models, count, pos = tokens.shape
        n_ctx, d_vocab = self.shape.n_ctx, self.shape.d_vocab
        windows = np.full((models, count, n_ctx + 1), -1)
        windows[..., :pos] = tokens
        logits = np.zeros((models, count, n_ctx, d_vocab), self.dtype)
        batches = [Batches(of, None, np.ones(count)) for of in windows]
        self._run(batches, (parameters, None, None, None, None, logits))
        return logits[:, :, :pos]

    def _run(
        self, batches: Sequence[Batches], arrays: Sequence[np.ndarray | None],
        optimizer: Optimizer | None = None, start: int = 0, projections: Sequence[Projection] = (),
        norms: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Calls `run` of kernel.cpp; `arrays` are what it reads and writes in place."""
        keep: list[np.ndarray] = []  # until the call returns

        def address(array: np.ndarray | None, dtype: Any = self.dtype) -> int | None:
            if array is None:
                return None
            keep.append(np.ascontiguousarray(array, dtype))
            return keep[-1].ctypes.data

        for rows in (b.rows for b in batches):
            if rows.shape[1] <= self.shape.n_ctx:
                what = f"windows have {self.shape.n_ctx + 1} characters"
                raise TypeError(f"{what}: got {rows.shape[1]}")
        data = [
            self._data(address(b.rows, np.int32), address(b.lengths, np.int32),
                       address(b.weights), *b.rows.shape, b.batch, b.seed)
            for b in batches
        ]  # fmt: skip
        maps = [
            self._projection(address(p.rows, np.int64), len(p.rows), *map(address, p[1:]))
            for p in projections
        ]
        steps = len(optimizer.rates) if optimizer else 1
        settings = optimizer and self._settings(*map(address, optimizer[:3]), *optimizer[3:])
        done = self._library.run(
            len(data), (self._data * len(data))(*data),
            (self._projection * len(maps))(*maps) if maps else None, _P(address(norms)),
            ctypes.byref(settings) if settings else None, _I(start), _I(start + steps),
            self.threads, *(self._own(array, len(data)) for array in arrays),
        )  # fmt: skip
        if not done:
            what = f"no memory for {self.threads} threads of the compiled kernel"
            raise TbttError(f"{what}: choose fewer threads, models or windows")

    def _own(self, array: np.ndarray | None, models: int) -> ctypes.c_void_p:
        """An array's own address, checked here because the C++ code trusts its type."""
        if array is None:
            return _P(None)
        if array.dtype != self.dtype or len(array) != models or not array.flags.c_contiguous:
            size = math.prod(array.shape[1:])
            wanted = f"{self.dtype}, {models} rows of {size}, side by side"
            raise TypeError(f"parameters must be {wanted}: got {array.dtype}, {len(array)} rows")
        return _P(array.ctypes.data)


def flatten(stacked: Parameters, shape: Shape) -> Array:
    """Stacked parameters in the kernel's layout: a row per model."""
    rows = [stacked[name].flatten(1) for name in parameter_shapes(shape)]
    return torch.cat(rows, 1).numpy(force=True)


_P, _I, _U = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64


def _structure(name: str, **fields: type) -> Any:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


@cache
def source_hash() -> str:
    """SHA-256 of the kernel's source: together with the recipe it decides the bits of a model."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in SOURCES)).hexdigest()


def definitions(shape: Shape, dtype: str) -> list[str]:
    """Compiler definitions (-D) of a shape's sizes and dtype."""
    names = {
        "REAL": REALS[dtype], "POS": shape.n_ctx, "VOCAB": shape.d_vocab,
        "D_MODEL": shape.d_model, "HEADS": shape.heads, "D_MLP": shape.d_mlp,
        "LAYERS": shape.layers, "TIED": int(shape.tied), "EPSILON": EPSILON,
    }  # fmt: skip
    return [f"-D{name}={value}" for name, value in names.items()]


def _library(shape: Shape, dtype: str) -> ctypes.CDLL:
    """A shape's kernel from the cache, compiled if absent or damaged.

    The file name ends in the hash of the content, to detect a damaged file.
    """
    compiler, version = _compiler()
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    command = [compiler, "-O3", native, *os.environ.get("CXXFLAGS", "").split()]
    command += [*FLAGS, *definitions(shape, dtype)]  # last, so that no flag changes the bits
    # a kernel suits one kind of processor, and machines may share a home folder
    machine = (platform.node(), cpu_info("flags", "Features"))
    key = "\0".join([source_hash(), version, *machine, *command])
    start = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = user_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in folder.glob(f"{start}-*.so"):
            if path.stem == f"{start}-{_hash(path)}":
                return ctypes.CDLL(str(path))
            path.unlink(missing_ok=True)
        return ctypes.CDLL(str(_compile(command, folder, start)))
    except OSError as error:
        raise KernelError(str(error)) from error


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


@cache
def _compiler_of(names: tuple[str, ...]) -> tuple[str, str]:
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise KernelError(f"there is no C++ compiler ({', '.join(names)})")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise KernelError(f"{path} cannot be run: {error}") from error
    return path, (done.stdout.splitlines() or ["unknown"])[0]


def _compiler() -> tuple[str, str]:
    """The path of the C++ compiler, and the first line of its --version."""
    return _compiler_of(
        (os.environ["CXX"],) if os.environ.get("CXX") else ("c++", "g++", "clang++")
    )


def _compile(command: list[str], folder: Path, start: str) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        made = Path(inside) / "kernel.so"
        done = subprocess.run(
            [*command, str(SOURCES[0]), "-o", str(made)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it printed nothing"]
            reason = next((line for line in lines if "error" in line), lines[-1])
            raise KernelError(f"{command[0]} failed: {reason}")
        return made.replace(folder / f"{start}-{_hash(made)}.so")

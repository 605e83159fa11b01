"""The compiled kernel: torch's loss, gradient and steps, whatever the shape and the threads."""

import dataclasses
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tbtt_interp import kernel as kernels
from tbtt_interp.errors import TbttError
from tbtt_interp.kernel import Kernel, KernelError, flatten, is_suited
from tbtt_interp.model import (
    Parameters,
    Shape,
    forward,
    initial_parameters,
    stack_parameters,
)
from tbtt_interp.tasks.windows import NOTHING
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.stacks import model_shape, model_streams
from tbtt_interp.train.step import CompiledStack, TorchStack

SHAPES = {
    "small": Shape(layers=1, heads=1, d_model=14, d_mlp=14, n_ctx=9, d_vocab=17),
    "large, of facts": Shape(layers=1, heads=1, d_model=56, d_mlp=56, n_ctx=24, d_vocab=51),
    "untied": Shape(layers=2, heads=3, d_model=12, d_mlp=35, n_ctx=11, d_vocab=21, tied=False),
    "least": Shape(layers=1, heads=2, d_model=2, d_mlp=1, n_ctx=1, d_vocab=2),
}
SMALL = SHAPES["small"]
MODELS = 3


def models(shape: Shape) -> Parameters:
    """Three, with every parameter well away from where it starts, where gradients vanish."""
    noise = torch.Generator().manual_seed(0)
    stacked = stack_parameters([initial_parameters(shape, seed=seed) for seed in range(MODELS)])
    return {n: x.double() + 0.3 * torch.randn(x.shape, generator=noise) for n, x in stacked.items()}


def windows(shape: Shape) -> tuple[Tensor, Tensor]:
    """Random ones with their weights, some of which are 0; some have an end."""
    chance = torch.Generator().manual_seed(1)
    size = (MODELS, 83, shape.n_ctx + 1)
    rows = torch.randint(shape.d_vocab, size, generator=chance)
    ends = torch.randint(2, 3 * size[-1], size[:2], generator=chance)
    rows[torch.arange(size[-1]) >= ends[..., None]] = NOTHING
    weights = torch.randint(3, size[:2], generator=chance).double() / 83
    return rows, weights


def by_torch(
    shape: Shape, rows: Tensor, weights: Tensor, dtype: torch.dtype
) -> tuple[Tensor, np.ndarray]:
    """Each model's loss, and its gradient."""
    stacked = {name: x.to(dtype).requires_grad_() for name, x in models(shape).items()}
    tokens, targets = rows[..., :-1].clamp(min=0), rows[..., 1:]
    logits = forward(stacked, tokens, shape).flatten(0, 2)
    nats = F.cross_entropy(logits, targets.flatten(), ignore_index=NOTHING, reduction="none")
    loss = (nats.view(targets.shape).sum(-1) * weights.to(dtype)).sum(-1)
    slopes = torch.autograd.grad(loss.sum(), list(stacked.values()))
    return loss.detach(), flatten(dict(zip(stacked, slopes, strict=True)), shape)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_loss_gradient_and_logits_are_torch_s(shape: Shape) -> None:
    """In float64 the same; in float32 as near the truth, which is that, as torch's own float32."""
    rows, weights = windows(shape)
    (truth, slope), (_, in_float32) = (
        by_torch(shape, rows, weights, dtype) for dtype in (torch.float64, torch.float32)
    )
    arrays, flat = (rows.numpy(), weights.numpy()), flatten(models(shape), shape)
    kernel, gradients = Kernel(shape, "float64"), np.zeros_like(flat)
    losses = kernel.losses(flat, *arrays, gradients)
    np.testing.assert_allclose(losses, truth, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradients, slope, rtol=0, atol=1e-12)
    logits = forward(models(shape), rows[..., :-1].clamp(min=0), shape).numpy()
    is_there = rows[..., :-1].numpy() >= 0
    found = kernel.logits(flat, rows[..., :-1].numpy())
    np.testing.assert_allclose(found[is_there], logits[is_there], rtol=0, atol=1e-12)
    gradients = np.zeros_like(flat, "float32")
    losses = Kernel(shape).losses(flat.astype("float32"), *arrays, gradients)
    np.testing.assert_allclose(losses, truth, rtol=1e-6, atol=1e-6)
    assert np.abs(gradients - slope).max() <= 3 * np.abs(in_float32 - slope).max() + 1e-7


def test_models_with_biases_and_wide_ones_are_left_to_torch() -> None:
    large, biased = SHAPES["large, of facts"], dataclasses.replace(SMALL, bias=True)
    assert is_suited(large) and not is_suited(biased)
    assert not is_suited(dataclasses.replace(large, d_model=384, d_mlp=1536))
    assert not is_suited(dataclasses.replace(large, n_ctx=1_024))
    with pytest.raises(KernelError, match="has no biases"):
        Kernel(biased)


@pytest.mark.parametrize("framing", ["file", "shuffled", "line"])
def test_steps_are_those_of_torch_on_the_windows_that_numpy_draws(framing: str) -> None:
    """Draws, schedule, clipping, AdamW and decay: each model with its own file and pair."""
    flags = {"model.size": "small", "framing": framing, "seeds": 3, "training.weight_decay": 0.1}
    recipe = resolve_recipe("quick", flags)
    recipe = dataclasses.replace(recipe, held_out_each=(((5, 7),), ((9, 9),), ((0, 3),)))
    tasks = recipe.tasks()
    shape, streams = model_shape(recipe, tasks[0]), model_streams(recipe, tasks)
    start = {name: 3 * x for name, x in models(shape).items()}  # so that gradients are clipped
    ours = CompiledStack(start, shape, recipe.training, streams, Kernel(shape, "float64"))
    theirs = TorchStack(start, shape, recipe.training, streams, torch.device("cpu"))
    for stack in (ours, theirs):
        stack.advance(0, 7)
        stack.advance(7, 12)
    for name, value in theirs.parameters.items():
        torch.testing.assert_close(ours.parameters[name], value.detach(), rtol=0, atol=1e-10)
    assert ours.reference_loss() == pytest.approx(theirs.reference_loss(), abs=1e-10)


@pytest.mark.parametrize("framing", ["file", "shuffled"])
def test_a_model_that_diverged_harms_no_other_in_training(framing: str) -> None:
    """Batches fill less than a tile, whose last places then hold another model's numbers."""
    flags = {"model.size": "small", "framing": framing, "seeds": 3, "training.batch": 20}
    recipe = resolve_recipe("quick", flags)
    streams = model_streams(recipe, recipe.tasks())
    whole, broken = (
        CompiledStack(models(SMALL), SMALL, recipe.training, streams, Kernel(SMALL, threads=1))
        for _ in range(2)
    )
    broken.parameters["embed.W_E"][1] = torch.nan
    for stack in (whole, broken):
        for step in range(9):
            stack.advance(step, step + 1)
    for name, value in broken.parameters.items():
        assert torch.equal(value[[0, 2]], whole.parameters[name][[0, 2]]), name
    assert broken.parameters["embed.W_E"][1].isnan().all()
    assert np.isnan(broken.reference_loss()).tolist() == [False, True, False]


APPROXIMATIONS = """
#include <cstdio>
#include "lanes.h"
double worst = 0;
void compare(vec found, double (*truth)(double), double x, bool relative) {
    float lane[LANES];
    std::memcpy(lane, &found, sizeof lane);
    const double error = std::abs(lane[3] - truth(x));
    worst = std::max(worst, relative ? error / truth(x) : error);
}
double normal(double x) { return x * 0.5 * std::erfc(-x * M_SQRT1_2); }
int main() {
    for (float x = -87; x <= 0; x += 1e-4f) compare(exponential(x), std::exp, x, true);
    std::printf("%g\\n", worst);
    worst = 0;
    for (float x = 1; x < 1e4f; x *= 1.00001f) compare(logarithm(x), std::log, x, false);
    std::printf("%g\\n", worst);
    worst = 0;
    for (float x = -12; x <= 12; x += 1e-4f) {
        vec value, slope;
        gelu(x, value, slope);
        compare(value, normal, x, false);
    }
    std::printf("%g\\n", worst);
}
"""


def test_the_approximations_err_as_little_as_they_say() -> None:
    """Relative error of exp, absolute ones of log up to 1e4 and of GELU."""
    Path("errors.cpp").write_text(APPROXIMATIONS)
    flags = ["-march=native", "-DREAL=float", f"-I{kernels.SOURCES[0].parent}"]
    subprocess.run(
        ["c++", "-O3", *kernels.FLAGS[:5], *flags, "errors.cpp", "-o", "errors"], check=True
    )
    printed = subprocess.run(["./errors"], check=True, capture_output=True, text=True).stdout
    exp, log, gelu = map(float, printed.split())
    assert exp < 2 * 2**-23 and log < 1e-6 and gelu < 2e-6


def compiler_that(does: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell script in the compiler's place, and an empty cache."""
    Path(name).write_text(f"#!/bin/sh\n[ $1 = --version ] && exit\nfor made; do :; done; {does}\n")
    os.chmod(name, 0o755)
    monkeypatch.setenv("CXX", name)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")


def test_a_kernel_is_compiled_once_for_a_shape_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    Kernel(SHAPES["least"])
    (first,) = Path("cache/tbtt_interp").iterdir()
    made = first.stat().st_mtime_ns
    Kernel(SHAPES["least"])
    assert first.stat().st_mtime_ns == made
    assert first.parent.stat().st_mode & 0o777 == 0o700
    Kernel(SHAPES["least"], "float64")
    assert len(list(first.parent.iterdir())) == 2


@pytest.mark.parametrize("damage", [lambda whole: whole[:5_000], lambda whole: whole[:-1] + b"!"])
def test_a_damaged_library_is_compiled_again(damage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    Kernel(SHAPES["least"])
    (path,) = Path("cache/tbtt_interp").iterdir()
    whole = path.read_bytes()
    path.unlink()  # since it is mapped into this process
    path.write_bytes(damage(whole))
    Kernel(SHAPES["least"])
    assert not path.exists() or path.read_bytes() == whole


@pytest.mark.parametrize(
    ("compiler", "does", "reason"),
    [
        ("./broken", "echo x.cpp: error: no vectors >&2; exit 1", "broken failed: .*no vectors"),
        ("./silent", "exit 1", "silent failed: it printed nothing"),
        ("./empty", 'echo > "$made"', r"\.so: file too short|invalid ELF"),
    ],
)
def test_why_there_is_no_kernel(compiler: str, does: str, reason: str, monkeypatch) -> None:
    compiler_that(does, compiler, monkeypatch)
    with pytest.raises(KernelError, match=reason):
        Kernel(SMALL)
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(KernelError, match=r"there is no C\+\+ compiler \(/no/such/compiler\)"):
        Kernel(SMALL)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="this is about x86's instructions")
def test_a_processor_without_fused_multiply_adds_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("CXXFLAGS", "-mno-avx512f -mno-fma")
    with pytest.raises(KernelError, match="this processor has no fused multiply-add of vectors"):
        Kernel(SMALL)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_too_little_memory_is_an_error_and_no_abort() -> None:
    """The limit leaves no room for the stacks of twelve threads."""
    kernel = Kernel(SMALL, threads=64)
    flat = flatten(models(SMALL), SMALL).astype("float32")
    rows, weights = (array.numpy() for array in windows(SMALL))
    whole = kernel.losses(flat, rows, weights)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**22, limits[1]))
    try:
        with pytest.raises(TbttError, match="no memory for 64 threads of the compiled kernel"):
            kernel.losses(flat, rows, weights)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert np.array_equal(kernel.losses(flat, rows, weights), whole)


def test_what_a_kernel_would_misread_is_refused() -> None:
    flat = flatten(models(SMALL), SMALL)
    rows, weights = (array.numpy() for array in windows(SMALL))
    with pytest.raises(TypeError, match=r"parameters must be float32, 3 rows of 1582, side by"):
        Kernel(SMALL).losses(flat, rows, weights)
    with pytest.raises(TypeError, match=r"windows have 10 characters: got 9"):
        Kernel(SMALL, "float64").losses(flat, rows[..., :9], weights)

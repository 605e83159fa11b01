"""The compiled loss and gradient: torch's own, whatever the shape, the threads and the vectors."""

import dataclasses
import os
import platform
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.model import Parameters, Shape, forward, initial_parameters, stack_parameters
from tbtt_interp.tasks.windows import NOTHING
from tbtt_interp.train.kernel import Kernel, KernelError, is_suited

SHAPES = {
    "small": Shape(layers=1, heads=1, d_model=14, d_mlp=14, n_ctx=9, d_vocab=17),
    "large, of facts": Shape(layers=1, heads=1, d_model=56, d_mlp=56, n_ctx=24, d_vocab=51),
    "biased": Shape(layers=2, heads=3, d_model=12, d_mlp=36, n_ctx=11, d_vocab=21, bias=True),
    "least": Shape(layers=1, heads=2, d_model=2, d_mlp=1, n_ctx=1, d_vocab=2),
}
SMALL = SHAPES["small"]
Windows = tuple[Tensor, Tensor, Tensor]


def models(shape: Shape, dtype: torch.dtype) -> Parameters:
    """Three, with every parameter well away from where it starts, where gradients vanish."""
    noise = torch.Generator().manual_seed(0)
    stacked = stack_parameters([initial_parameters(shape, seed=seed) for seed in range(3)])
    return {
        name: (value + 0.3 * torch.randn(value.shape, generator=noise)).to(dtype).requires_grad_()
        for name, value in stacked.items()
    }


def windows(shape: Shape, dtype: torch.dtype, batch: int = 83) -> Windows:
    """Random ones, some drawn often and some never; some characters are not predicted."""
    chance = torch.Generator().manual_seed(1)
    size = (3, batch, shape.n_ctx)
    tokens, targets = torch.randint(shape.d_vocab, (2, *size), generator=chance)
    targets[torch.rand(size, generator=chance) < 0.2] = NOTHING
    weights = torch.randint(3, size[:2], generator=chance).to(dtype) / batch
    return tokens, targets, weights


def by_torch(stacked: Parameters, shape: Shape, drawn: Windows) -> Tensor:
    tokens, targets, weights = drawn
    logits = forward(stacked, tokens, shape).flatten(0, 2)
    nats = F.cross_entropy(logits, targets.flatten(), ignore_index=NOTHING, reduction="none")
    return (nats.view(targets.shape).sum(-1) * weights).sum(-1)


def gradients(loss: Tensor, stacked: Parameters) -> Parameters:
    (loss * torch.tensor([1.0, 2.0, -0.5])).sum().backward()
    found = {}
    for name, parameter in stacked.items():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
        parameter.grad = None
    return found


def check(shape: Shape) -> None:
    """In float64 the same; in float32 as near the truth, which is that, as torch's own float32."""
    stacked, drawn = models(shape, torch.float32), windows(shape, torch.float32)
    doubles = {name: p.detach().double().requires_grad_() for name, p in stacked.items()}
    exact = (drawn[0], drawn[1], drawn[2].double())
    truth, kernel = by_torch(doubles, shape, exact), Kernel(shape, torch.float64)
    torch.testing.assert_close(kernel.loss(doubles, *exact), truth, rtol=0, atol=1e-12)
    slope = gradients(truth, doubles)
    for name, ours in gradients(kernel.loss(doubles, *exact), doubles).items():
        torch.testing.assert_close(ours, slope[name], rtol=0, atol=1e-12)

    def error(loss: Tensor) -> float:
        found = gradients(loss, stacked)
        return max((found[name] - slope[name]).abs().max().item() for name in slope)

    loss = Kernel(shape, torch.float32).loss(stacked, *drawn)
    torch.testing.assert_close(loss.double(), truth, rtol=1e-6, atol=1e-6)
    assert error(loss) <= 3 * error(by_torch(stacked, shape, drawn)) + 1e-7


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_loss_and_gradient_are_torch_s(shape: Shape) -> None:
    check(shape)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are x86's vectors")
@pytest.mark.parametrize("flags", ["-mno-avx512f", "-mno-avx"])
def test_narrower_vectors_give_the_same(flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXXFLAGS", flags)
    check(SHAPES["biased"])


@pytest.mark.parametrize("batch", [1, 5, 16, 83])
def test_a_model_s_bits_depend_on_nothing_but_itself(batch: int) -> None:
    """Not on the threads, nor on the models beside it."""
    stacked, drawn = models(SMALL, torch.float32), windows(SMALL, torch.float32, batch)
    kernels = [Kernel(SMALL, torch.float32, threads) for threads in (1, 2, 7)]
    losses = [kernel.loss(stacked, *drawn) for kernel in kernels]
    first, *others = [gradients(loss, stacked) for loss in losses]
    assert all(torch.equal(losses[0], loss) for loss in losses)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
    for seed in range(3):
        alone = {n: p.detach()[seed : seed + 1].requires_grad_() for n, p in stacked.items()}
        loss = kernels[0].loss(alone, *(array[seed : seed + 1] for array in drawn))
        assert torch.equal(loss[0], losses[0][seed])
        (loss * torch.tensor([1.0, 2.0, -0.5])[seed]).sum().backward()
        for name, parameter in alone.items():
            assert parameter.grad is not None
            assert torch.equal(parameter.grad[0], first[name][seed]), name


def test_a_model_that_diverged_has_no_loss_and_harms_no_other() -> None:
    stacked, drawn = models(SMALL, torch.float32), windows(SMALL, torch.float32)
    whole = by_torch(stacked, SMALL, drawn)
    with torch.no_grad():
        stacked["blocks.0.mlp.W_in"][1, 0, 0] = torch.nan
    loss = Kernel(SMALL, torch.float32).loss(stacked, *drawn)
    assert loss.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(loss[[0, 2]], whole[[0, 2]])


def test_a_kernel_is_compiled_once_for_a_shape_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    Kernel(SHAPES["least"], torch.float32)
    (first,) = Path("cache/tbtt_interp").iterdir()
    made = first.stat().st_mtime_ns
    Kernel(SHAPES["least"], torch.float32)
    assert first.stat().st_mtime_ns == made
    Kernel(SHAPES["least"], torch.float64)
    assert len(list(Path("cache/tbtt_interp").iterdir())) == 2
    assert Path("cache/tbtt_interp").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("compiler", "says", "reason"),
    [
        ("/no/such/compiler", None, r"there is no C\+\+ compiler \(/no/such/compiler\)"),
        ("./broken", "echo x.cpp: error: no vectors >&2; exit 1", "broken failed: .*no vectors"),
        ("./silent", "exit 1", "silent failed: it printed nothing"),
        ("./empty", 'for made; do :; done; echo > "$made"', r"\.so: file too short|invalid ELF"),
    ],
)
def test_why_there_is_no_kernel(compiler: str, says: str | None, reason: str, monkeypatch) -> None:
    if says is not None:
        Path(compiler).write_text(f"#!/bin/sh\n{says}\n")
        os.chmod(compiler, 0o755)
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    with pytest.raises(KernelError, match=reason):
        Kernel(SMALL, torch.float32)


def test_wide_models_and_other_devices_are_left_to_torch() -> None:
    large, cpu = SHAPES["large, of facts"], torch.device("cpu")
    assert is_suited(large, cpu) and not is_suited(large, torch.device("cuda"))
    assert not is_suited(dataclasses.replace(large, d_model=384, d_mlp=1536), cpu)
    assert not is_suited(dataclasses.replace(large, n_ctx=1_024), cpu)


def test_what_a_kernel_would_misread_is_refused() -> None:
    stacked, drawn = models(SMALL, torch.float32), windows(SMALL, torch.float32)
    kernel = Kernel(SMALL, torch.float32)
    tokens, targets, weights = drawn
    with pytest.raises(TbttError, match=r"is for 9 positions in torch\.float32: got 8 positions"):
        kernel.loss(stacked, tokens[..., :8], targets[..., :8], weights)
    with pytest.raises(TbttError, match="and weights in torch"):
        kernel.loss(stacked, tokens, targets, weights.double())
    spread = torch.stack([tokens, tokens], -1)[..., 0]  # the same, not side by side in memory
    assert torch.equal(kernel.loss(stacked, spread, targets, weights), kernel.loss(stacked, *drawn))

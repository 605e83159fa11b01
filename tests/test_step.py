"""Many models side by side, each as if it were alone."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tbtt_interp.errors import TbttError
from tbtt_interp.model import initial_parameters, stack_parameters
from tbtt_interp.tasks import Stream
from tbtt_interp.train import step as steps
from tbtt_interp.train import training
from tbtt_interp.train.kernel import Kernel
from tbtt_interp.train.recipe import Recipe, resolve_recipe
from tbtt_interp.train.step import ModelStack, clip_each, denormals_as_zero, learning_rate_at
from tbtt_interp.train.training import (
    Runtime,
    TrainingCallback,
    model_shape,
    model_streams,
    train_models,
)

# A batched product may sum in another order than a single one: a last bit, which training at 1e-2
# amplifies. So float32 is compared after 20 steps, float64, whose last bit is 5e8 times smaller,
# after 60. Models that shared anything would differ by 1e-1.
ALONE = {torch.float64: (60, {"rtol": 0, "atol": 1e-8}),
         torch.float32: (20, {"rtol": 0, "atol": 1e-4})}  # fmt: skip
SMALL = {"model.size": "small", "training.batch": 32}
ONE_STEP = resolve_recipe("quick", {"model.size": "small", "framing": "line", "steps": 1})


def stack_of(
    recipe: Recipe, *, compiled: bool = False, dtype: torch.dtype = torch.float32
) -> ModelStack:
    tasks = recipe.tasks()
    shape = model_shape(recipe, tasks[0])
    models = [initial_parameters(shape, seed=seed) for seed in recipe.seed_list]
    stacked = {name: value.to(dtype) for name, value in stack_parameters(models).items()}
    return ModelStack(
        stacked, shape, recipe.training, model_streams(recipe, tasks),
        device=torch.device("cpu"), kernel=Kernel(shape, dtype) if compiled else None,
    )  # fmt: skip


def flushes() -> bool:
    return torch.tensor(1e-39).mul(1.0).item() == 0


def test_denormals_count_as_zero_while_it_steps_and_not_after(monkeypatch) -> None:
    recipe = resolve_recipe("quick", SMALL | {"seeds": 1})
    seen = []
    monkeypatch.setattr("tbtt_interp.train.step.clip_each", lambda *_: seen.append(flushes()))
    for compiled in (True, False):
        stack_of(recipe, compiled=compiled).step(0)
        assert not flushes()
    assert seen == [True, False]
    with pytest.raises(KeyError), denormals_as_zero():
        raise KeyError
    assert not flushes()


@pytest.mark.parametrize("threads", [1, 4])
def test_every_thread_of_the_kernel_takes_denormals_for_zero(threads: int) -> None:
    stack = stack_of(resolve_recipe("quick", SMALL | {"seeds": 1}))
    tokens, targets, weights = stack._windows([stream.draw(0) for stream in stack.streams])
    kernel = Kernel(stack.shape, torch.float32, threads)
    tiny = torch.full_like(weights, 1e-39)
    with torch.no_grad():
        stack.parameters["ln_final.w"].mul_(1e10)  # so that what was tiny comes back as 1e-29

    def slope() -> float:
        stack.optimizer.zero_grad()
        kernel.loss(stack.parameters, tokens, targets, tiny).sum().backward()
        gradient = stack.parameters["blocks.0.mlp.W_out"].grad
        return 0.0 if gradient is None else gradient.abs().max().item()

    assert slope() > 1e-30
    with denormals_as_zero():
        assert slope() == 0


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", ALONE, ids=str)
@pytest.mark.parametrize("framing", ["file", "shuffled", "line"])
def test_a_stacked_seed_trains_as_it_would_alone(framing, dtype, compiled):
    """With its own file order and its own held-out pair; {9, 9} leaves 198 lines, others 196."""
    steps, tolerance = ALONE[dtype]
    pairs = ((5, 7), (9, 9), (0, 3))
    flags = {"model.size": "small", "framing": framing, "steps": 60}
    flags |= {} if framing == "line" else {"training.batch": 32}
    recipe = resolve_recipe("quick", flags | {"seeds": 3})
    recipe = dataclasses.replace(recipe, held_out_each=tuple((pair,) for pair in pairs))
    together = stack_of(recipe, compiled=compiled, dtype=dtype)
    for step in range(steps):
        together.step(step)
    for seed, pair in enumerate(pairs):
        own = flags | {"seeds": 1, "first_seed": seed, "held_out": [list(pair)]}
        alone = stack_of(resolve_recipe("quick", own), compiled=compiled, dtype=dtype)
        for step in range(steps):
            alone.step(step)
        for name, value in alone.parameters.items():
            torch.testing.assert_close(together.parameters[name][seed], value[0], **tolerance)


def test_seeds_differ_in_everything_and_share_the_file_only_where_asked() -> None:
    def streams(**flags: object) -> list[Stream]:
        recipe = resolve_recipe("quick", flags)
        return model_streams(recipe, recipe.tasks())

    own, same = streams(), streams(same_file=True)
    assert len({stream.lines for stream in own}) == 4
    assert len({stream.lines for stream in same}) == 1
    assert len({stream.draw(0)[0].tobytes() for stream in same}) == 4
    assert same[0].lines == own[0].lines
    assert streams(first_seed=2, seeds=1)[0].lines == own[2].lines


def test_each_model_s_gradient_is_clipped_as_if_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 4, 5), (3, 7)]
    scale = torch.tensor([10.0, 1.0, 1e-3])  # clipped hard, a little, not at all
    parameters = [torch.zeros(size) for size in sizes]
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.grad = noise * scale.view(-1, *[1] * (parameter.ndim - 1))
    models = [[torch.zeros_like(p[k]) for p in parameters] for k in range(3)]
    for k, alone in enumerate(models):
        for ours, stacked in zip(alone, parameters, strict=True):
            ours.grad = stacked.grad[k].clone()
        torch.nn.utils.clip_grad_norm_(alone, 1.0)
    clip_each(parameters, 1.0)
    for k, alone in enumerate(models):
        for ours, stacked in zip(alone, parameters, strict=True):
            torch.testing.assert_close(stacked.grad[k], ours.grad)


def test_the_published_schedule() -> None:
    training = resolve_recipe("paper").training
    assert learning_rate_at(0, training) == pytest.approx(1e-2 / 2_001)
    assert learning_rate_at(1_999, training) == pytest.approx(1e-2 * 2_000 / 2_001)
    assert learning_rate_at(2_000, training) == pytest.approx(1e-2)
    assert learning_rate_at(13_500, training) == pytest.approx((1e-2 + 1e-4) / 2)
    assert learning_rate_at(25_000, training) == learning_rate_at(29_999, training) == 1e-4


@pytest.mark.parametrize("compiled", [True, False])
def test_a_gradient_is_the_same_every_time(compiled: bool) -> None:
    """To the bit: a compiled lookup's gradient, summed by several threads at once, was not."""
    size = "large" if compiled else "mlt"
    flags = {"model.size": size, "seeds": 1, "training.batch": 128}
    stack = stack_of(resolve_recipe("quick", flags), compiled=compiled)
    gradients = []
    for _ in range(3):
        stack._backward(0)
        gradients.append(torch.cat([p.grad.flatten() for p in stack.parameters.values()]))
    assert all(torch.equal(gradients[0], again) for again in gradients[1:])


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_absent_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(TbttError, match=f"device '{device}' is not on this machine: choose cpu"):
        steps.pick_device(device)


def test_threads_are_taken_and_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run = train_models(ONE_STEP, tmp_path / "run", runtime=Runtime(threads=1))
    assert run.config.environment["threads"] == 1
    assert torch.get_num_threads() == before
    with pytest.raises(TbttError, match="threads must be from 1 to 1024, got 0"):
        Runtime(threads=0)


@pytest.mark.parametrize(
    ("suited", "message"),
    [(False, "Not compiled: at this width, or on this device, torch is as fast."),
     (True, "Not compiled, so training is several times slower: there is no C++ compiler "
      "(/no/such/compiler)")],
)  # fmt: skip
def test_where_nothing_is_compiled_training_goes_on(suited, message, monkeypatch):
    """Where torch is as fast, and on a laptop without a compiler; the user is told."""
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setattr(training, "is_suited", lambda shape, device: suited)
    messages: list[str] = []
    callback = TrainingCallback()
    monkeypatch.setattr(callback, "on_message", messages.append)
    run = train_models(ONE_STEP, "run", runtime=Runtime(compiled=True), callback=callback)
    assert messages == [message]
    assert run.is_complete and run.config.environment["compiled"] is False

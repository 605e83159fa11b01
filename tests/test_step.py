"""Many models side by side, each as if it were alone."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tbtt_interp.errors import TbttError
from tbtt_interp.model import initial_parameters, stack_parameters
from tbtt_interp.tasks import Stream
from tbtt_interp.train import stacks
from tbtt_interp.train import step as steps
from tbtt_interp.train.recipe import Recipe, resolve_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback, model_shape, model_streams
from tbtt_interp.train.step import TorchStack, clip_each, learning_rate_at, power
from tbtt_interp.train.training import train_models

ONE_STEP = resolve_recipe("quick", {"model.size": "small", "framing": "line", "steps": 1})


def stack_of(recipe: Recipe, dtype: torch.dtype) -> TorchStack:
    tasks = recipe.tasks()
    shape = model_shape(recipe, tasks[0])
    models = [initial_parameters(shape, seed=seed) for seed in recipe.seed_list]
    stacked = {name: value.to(dtype) for name, value in stack_parameters(models).items()}
    streams = model_streams(recipe, tasks)
    return TorchStack(stacked, shape, recipe.training, streams, torch.device("cpu"))


@pytest.mark.parametrize("framing", ["file", "shuffled", "line"])
def test_a_stacked_seed_trains_in_torch_as_it_would_alone(framing: str) -> None:
    """With its own file order and its own held-out pair; {9, 9} leaves 198 lines, others 196.

    A batched product may sum in another order than a single one: a last bit, which training at
    1e-2 amplifies. Models that shared anything would differ by 1e-1.
    """
    pairs = ((5, 7), (9, 9), (0, 3))
    flags = {"model.size": "small", "framing": framing, "steps": 60}
    flags |= {} if framing == "line" else {"training.batch": 32}
    recipe = resolve_recipe("quick", flags | {"seeds": 3})
    recipe = dataclasses.replace(recipe, held_out_each=tuple((pair,) for pair in pairs))
    together = stack_of(recipe, torch.float64)
    together.advance(0, 30)
    for seed, pair in enumerate(pairs):
        own = flags | {"seeds": 1, "first_seed": seed, "held_out": [list(pair)]}
        alone = stack_of(resolve_recipe("quick", own), torch.float64)
        alone.advance(0, 30)
        for name, value in alone.parameters.items():
            torch.testing.assert_close(together.parameters[name][seed], value[0], rtol=0, atol=1e-9)


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


@given(step=st.integers(0, 29_999))
def test_schedule_and_powers_are_the_library_s_to_the_last_bits(step: int) -> None:
    training = resolve_recipe("paper").training
    peak, low = training.learning_rate, training.min_learning_rate
    if 2_000 <= step < 25_000:
        cosine = math.cos(math.pi * (step - 2_000) / 23_000)
        expected = low + 0.5 * (1 + cosine) * (peak - low)
        assert learning_rate_at(step, training) == pytest.approx(expected, rel=1e-13)
    assert power(0.99, step) == pytest.approx(0.99**step, rel=1e-12)


def test_a_gradient_of_torch_is_the_same_every_time() -> None:
    """To the bit: a compiled lookup's gradient, summed by several threads at once, was not."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    flags = {"model.size": "mlt", "seeds": 1, "training.batch": 128}
    stack = stack_of(resolve_recipe("quick", flags), torch.float32)
    gradients = []
    for _ in range(3):
        stack.optimizer.zero_grad()
        stack.loss([stream.draw(0) for stream in stack.streams]).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in stack.parameters.values()]))
    torch.set_num_threads(before)
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
    [(False, "Not compiled: at this width, with biases, or on this device."),
     (True, "Not compiled, so training is several times slower and its last bits are this "
      "machine's: there is no C++ compiler (/no/such/compiler)")],
)  # fmt: skip
def test_where_nothing_is_compiled_training_goes_on(suited, message, monkeypatch):
    """Where torch is as fast, and on a laptop without a compiler; the user is told."""
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setattr(stacks, "is_suited", lambda shape: suited)
    messages: list[str] = []
    callback = TrainingCallback()
    monkeypatch.setattr(callback, "on_message", messages.append)
    run = train_models(ONE_STEP, "run", runtime=Runtime(compiled=True), callback=callback)
    assert messages == [message]
    assert run.is_complete and run.config.environment["compiled"] is False

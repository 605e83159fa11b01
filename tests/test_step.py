"""Many models side by side, each as if it were alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tbtt_interp.errors import TbttError
from tbtt_interp.model import initial_parameters, stack_parameters
from tbtt_interp.tasks import Stream
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback, model_shape, model_streams
from tbtt_interp.train.step import TorchStack, learning_rate_at, pick_device, power
from tbtt_interp.train.training import train_models

PAPER = resolve_recipe("paper").training


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


@given(step=st.integers(0, 29_999))
def test_the_published_schedule_and_powers_are_those_of_libm_to_the_last_bits(step: int) -> None:
    expected = 1e-2 * (step + 1) / 2_001
    if step >= 2_000:
        cosine = math.cos(math.pi * min(step - 2_000, 23_000) / 23_000)
        expected = 1e-4 + 0.5 * (1 + cosine) * (1e-2 - 1e-4)
    assert learning_rate_at(step, PAPER) == pytest.approx(expected, rel=1e-13)
    assert power(0.99, step) == pytest.approx(0.99**step, rel=1e-12)


def test_a_gradient_of_torch_is_the_same_every_time() -> None:
    """To the bit: a compiled lookup's gradient, summed by several threads at once, was not."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    recipe = resolve_recipe("quick", {"model.size": "mlt", "seeds": 1, "training.batch": 32})
    (task,) = recipe.tasks()
    shape = model_shape(recipe, task)
    stacked = stack_parameters([initial_parameters(shape, seed=0)])
    streams = model_streams(recipe, [task])
    stack = TorchStack(stacked, shape, recipe.training, streams, torch.device("cpu"))
    gradients = []
    for _ in range(2):
        stack.optimizer.zero_grad()
        stack.loss([stream.draw(0) for stream in stack.streams]).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in stack.parameters.values()]))
    torch.set_num_threads(before)
    assert torch.equal(*gradients)


def test_a_device_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TbttError, match="device 'cuda' is not on this machine: choose cpu"):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("size", "message"),  # where torch is as fast, and on a laptop without a compiler
    [("L1H1D300M300", "Not compiled: at this width, with biases, or on this device."),
     ("small", "Not compiled, so training is several times slower and its last bits are this "
      "machine's: there is no C++ compiler (/no/such/compiler)")],
)  # fmt: skip
def test_where_nothing_is_compiled_training_goes_on_and_the_user_is_told(
    size, message, monkeypatch
) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    messages, callback = [], TrainingCallback()
    callback.on_message = messages.append
    recipe = resolve_recipe("quick", {"model.size": size, "framing": "line", "steps": 1})
    threads = torch.get_num_threads()
    run = train_models(recipe, "run", runtime=Runtime(compiled=True, threads=1), callback=callback)
    assert messages == [message]
    assert run.is_complete and run.config.environment["compiled"] is False
    assert run.config.environment["threads"] == 1 and torch.get_num_threads() == threads

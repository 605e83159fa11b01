"""The architecture is the paper's: a hand-written nanoGPT has the same logits and gradients."""

import dataclasses
import math

import pytest
import torch
from oracle import NanoGPT

from tbtt_interp.errors import TbttError
from tbtt_interp.kernel import Kernel
from tbtt_interp.model import (
    Parameters,
    Shape,
    count_parameters,
    forward,
    hooked_transformer,
    initial_parameters,
    one_model,
    stack_parameters,
)
from tbtt_interp.nanogpt import from_nanogpt, to_nanogpt
from tbtt_interp.train.recipe import SIZES, resolve_recipe
from tbtt_interp.train.stacks import model_streams
from tbtt_interp.train.step import CompiledStack, TorchStack

ODD = Shape(layers=2, heads=3, d_model=12, d_mlp=36, n_ctx=9, d_vocab=17, bias=True)
SHAPES = {size: Shape(**numbers, n_ctx=9, d_vocab=17) for size, numbers in SIZES.items()}
EXACT = {"rtol": 0, "atol": 1e-9}  # float64 agrees to about 1e-14; 1e-9 leaves room for depth


def doubles(shape: Shape, seed: int) -> Parameters:
    """Parameters away from their initial values, so that no term is zero or one."""
    generator = torch.Generator().manual_seed(seed + 100)
    return {
        name: value.double() + 0.1 * torch.randn(value.shape, generator=generator).double()
        for name, value in initial_parameters(shape, seed=seed).items()
    }


def oracle_of(parameters: Parameters, shape: Shape) -> NanoGPT:
    model = NanoGPT(shape).double()
    model.load_state_dict(to_nanogpt(parameters, shape))
    return model


@pytest.mark.parametrize("shape", [*SHAPES.values(), ODD], ids=[*SHAPES, "biased"])
def test_logits_and_gradients_equal_a_hand_written_nanogpt(shape):
    models = [doubles(shape, seed) for seed in range(2)]
    stacked = {k: v.requires_grad_() for k, v in stack_parameters(models).items()}
    tokens = torch.randint(17, (2, 4, 9), generator=torch.Generator().manual_seed(0))
    logits = forward(stacked, tokens, shape)
    logits.square().mean((1, 2, 3)).sum().backward()
    for place, parameters in enumerate(models):
        oracle = oracle_of(parameters, shape)
        expected = oracle(tokens[place])
        expected.square().mean().backward()
        torch.testing.assert_close(logits[place], expected, **EXACT)
        hooked = hooked_transformer(parameters, shape)
        torch.testing.assert_close(hooked(tokens[place]), expected, **EXACT)
        gradients = {k: v.grad for k, v in oracle.named_parameters() if v.grad is not None}
        gradients["lm_head.weight"] = gradients["transformer.wte.weight"]
        ours = {k: v.grad[place] for k, v in stacked.items() if v.grad is not None}
        assert ours.keys() == stacked.keys()
        for name, gradient in from_nanogpt(gradients, shape).items():
            torch.testing.assert_close(ours[name], gradient, **EXACT)


@pytest.mark.parametrize(
    ("size", "compiled"), [("small", True), ("large", True), ("large", False), ("mlt", False)]
)
def test_training_steps_equal_those_of_a_hand_written_nanogpt(size, compiled):
    """AdamW, decay on matrices alone, clipping, schedule and tied embeddings, all at once.

    Two models side by side, each as it would train alone; one of them holds out another pair.
    """
    steps = 2 if size == "mlt" else 5
    flags = {"model.size": size, "seeds": 2, "steps": 50, "training.batch": 8}
    recipe = resolve_recipe("paper-wd", flags)
    recipe = dataclasses.replace(recipe, held_out_each=(((5, 7),), ((9, 9),)))
    shape, training = SHAPES[size], recipe.training
    models = [doubles(shape, seed) for seed in range(2)]
    streams = model_streams(recipe, recipe.tasks())
    stacked = stack_parameters(models)
    stack = (
        CompiledStack(stacked, shape, training, streams, Kernel(shape, "float64"))
        if compiled
        else TorchStack(stacked, shape, training, streams, torch.device("cpu"))
    )
    stack.advance(0, steps)
    for place, parameters in enumerate(models):
        oracle = oracle_of(parameters, shape)
        named = dict(oracle.named_parameters())
        matrices = [p for p in named.values() if p.dim() >= 2]
        vectors = [p for p in named.values() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-8, fused=False)
        for step in range(steps):
            warmup, peak, low = 3, training.learning_rate, training.min_learning_rate
            rate = peak * (step + 1) / (warmup + 1)  # nanoGPT's; 50 steps of 30,000 here
            if step >= warmup:
                cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (41 - warmup)))
                rate = low + cosine * (peak - low)
            for group in optimizer.param_groups:
                group["lr"] = rate
            *windows, counts = streams[place].draw(step)
            tokens, targets = (torch.from_numpy(x.repeat(counts, 0)) for x in windows)
            optimizer.zero_grad()
            oracle.loss(tokens, targets).backward()
            torch.nn.utils.clip_grad_norm_(oracle.parameters(), 1.0)
            optimizer.step()
        ours = one_model({k: v.detach() for k, v in stack.parameters.items()}, place)
        for name, value in from_nanogpt(oracle.state_dict(), shape).items():
            # clipping here works on sums of squares in another order
            torch.testing.assert_close(ours[name], value, **EXACT)
        if size != "mlt":  # whose every window takes seconds
            tokens, targets, _ = map(torch.from_numpy, streams[place].reference())
            loss = oracle.loss(tokens, targets).item()
            assert stack.reference_loss()[place] == pytest.approx(loss, abs=1e-9)


def test_the_hooked_transformer_is_a_usual_one(capsys):
    shape = SHAPES["small"]
    model = hooked_transformer(initial_parameters(shape, seed=0), shape)
    _, cache = model.run_with_cache(torch.arange(9)[None])
    assert not model.training
    assert {"hook_embed", "blocks.0.hook_resid_mid", "blocks.0.attn.hook_pattern"} <= set(cache)
    assert torch.equal(model.W_U, model.W_E.T)
    assert capsys.readouterr().out == "", "a command's --json must not be broken by loading"


def test_parameter_counts_are_the_published_ones():
    counts = {size: count_parameters(shape) for size, shape in SHAPES.items()}
    assert counts["small"] == 1_456
    assert round(counts["medium"] / 1e3, 2) == 5.26
    assert round(counts["large"] / 1e3, 2) == 19.94
    assert round(counts["mlt"] / 1e6, 2) == 10.63


def test_initial_values_follow_nanogpt():
    parameters = initial_parameters(SHAPES["mlt"], seed=0)
    assert parameters["embed.W_E"].std() == pytest.approx(0.02, rel=0.05)
    assert parameters["blocks.3.attn.W_Q"].std() == pytest.approx(0.02, rel=0.01)
    for name in ("attn.W_O", "mlp.W_out"):
        assert parameters[f"blocks.3.{name}"].std() == pytest.approx(0.02 / 12**0.5, rel=0.01)
    assert torch.equal(parameters["ln_final.w"], torch.ones(384))


def test_heads_must_divide_the_width():
    with pytest.raises(TbttError, match="d_model 14 does not divide into 3 heads"):
        Shape(layers=1, heads=3, d_model=14, d_mlp=14, n_ctx=9, d_vocab=17)

"""Other ways to train the same models, for the benchmark of speed.

Each makes a training step: a function of all models' windows, equally many for each, and a learning
rate, that returns the losses before it. Models have no biases; if weights decay, then all of them.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.model import EPSILON, Parameters, Shape, hooked_transformer, one_model
from tbtt_interp.tasks.windows import Windows
from tbtt_interp.tasks.windows import stack as side_by_side
from tbtt_interp.train.recipe import TrainingRecipe
from tbtt_interp.train.step import ModelStack, clip_each, learning_rate_at

Losses = Float[np.ndarray, " model"]
Batch = tuple[Windows, float]
Step = Callable[[Windows, float], Losses]


def adamw(parameters: Iterable[Tensor], training: TrainingRecipe) -> torch.optim.AdamW:
    """torch's AdamW, fused."""
    betas, eps = (training.beta1, training.beta2), training.epsilon
    return torch.optim.AdamW(parameters, 1e-3, betas, eps, training.weight_decay, fused=True)


def drawn(stack: ModelStack, steps: int) -> list[Batch]:
    """Each step's windows and rate; all padded to one number, since others are compiled anew."""
    each = [stream.draw(step) for step in range(steps) for stream in stack.streams]
    arrays = [np.split(array, steps) for array in side_by_side(each)]
    rates = [learning_rate_at(step, stack.training) for step in range(steps)]
    return [(Windows(*parts), rate) for *parts, rate in zip(*arrays, rates, strict=True)]


def train(step: Step, batches: Sequence[Batch], start: int, until: int) -> None:
    """Trains by the steps from `start` up to `until`, counted from 0."""
    for batch in batches[start:until]:
        step(*batch)


def arrays(windows: Windows) -> tuple[np.ndarray, ...]:
    """Tokens, targets, and the weight of each window's loss."""
    return windows.tokens, windows.targets, windows.weights().astype(np.float32)


def hooked_transformer_loop(stacked: Parameters, shape: Shape, training: TrainingRecipe) -> Step:
    """The plain loop: the first model alone, a HookedTransformer, eager, on every window drawn.

    Its unembedding and its biases are trained, too, so that only its first loss is as the others'.
    """
    model = hooked_transformer(one_model(stacked, 0), shape).train().requires_grad_(True)
    optimizer = adamw(model.parameters(), training)

    def step(windows: Windows, rate: float) -> Losses:
        tokens, targets, counts = (torch.from_numpy(array[0]) for array in windows)
        tokens, targets = (x.repeat_interleave(counts, 0) for x in (tokens, targets))
        model.zero_grad()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        return loss.detach().numpy()[None]

    return step


def torch_func(stacked: Parameters, shape: Shape, training: TrainingRecipe, compiled: bool) -> Step:
    """torch.func: vmap over the gradient of one model's loss, in one torch.compile."""
    future = torch.ones(shape.n_ctx, shape.n_ctx, dtype=torch.bool).triu(1)

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return F.layer_norm(x, (shape.d_model,), weight, eps=EPSILON)

    def loss(p: Parameters, tokens: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        one_hot = tokens[..., None] == torch.arange(shape.d_vocab)
        x = one_hot.to(weights.dtype) @ p["embed.W_E"] + p["pos_embed.W_pos"]
        for block in (f"blocks.{k}." for k in range(shape.layers)):
            read = torch.cat([p[f"{block}attn.W_{role}"] for role in "QKV"])
            qkv = norm(x, p[f"{block}ln1.w"]) @ read.transpose(0, 1).flatten(1)
            q, k, v = qkv.unflatten(-1, (3, shape.heads, shape.d_head)).permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(-1, -2) / math.sqrt(shape.d_head)
            z = scores.masked_fill(future, -math.inf).softmax(-1) @ v  # torch's own has no vmap
            x = x + z.transpose(1, 2).flatten(2) @ p[f"{block}attn.W_O"].flatten(0, 1)
            pre = norm(x, p[f"{block}ln2.w"]) @ p[f"{block}mlp.W_in"]
            x = x + F.gelu(pre) @ p[f"{block}mlp.W_out"]
        logits = (norm(x, p["ln_final.w"]) @ p["embed.W_E"].T).flatten(0, 1)
        nats = F.cross_entropy(logits, targets.flatten(), reduction="none")
        return (nats.view(targets.shape).sum(-1) * weights).sum()

    gradients = torch.func.vmap(torch.func.grad_and_value(loss))
    gradients = torch.compile(gradients, disable=not compiled)
    parameters = {name: value.clone() for name, value in stacked.items()}
    optimizer = adamw(parameters.values(), training)

    def step(windows: Windows, rate: float) -> Losses:
        gradient, losses = gradients(parameters, *map(torch.from_numpy, arrays(windows)))
        for name, parameter in parameters.items():
            parameter.grad = gradient[name].contiguous()  # fused AdamW ignores strides
        clip_each(list(parameters.values()), training.clip)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        return losses.numpy()

    return step


def jax_vmap(stacked: Parameters, shape: Shape, training: TrainingRecipe) -> Step | None:
    """JAX: vmap over a whole step of one model, in one jit on the processor; None without JAX."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    past = np.tril(np.ones((shape.n_ctx, shape.n_ctx), bool))

    def norm(x: Any, weight: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight

    def loss(p: dict[str, Any], tokens: Any, targets: Any, weights: Any) -> Any:
        x = jax.nn.one_hot(tokens, shape.d_vocab) @ p["embed.W_E"] + p["pos_embed.W_pos"]
        for block in (f"blocks.{k}." for k in range(shape.layers)):
            read = jnp.stack([p[f"{block}attn.W_{role}"] for role in "QKV"])
            q, k, v = jnp.einsum("bpd,rhde->rbhpe", norm(x, p[f"{block}ln1.w"]), read)
            scores = jnp.einsum("bhqe,bhke->bhqk", q, k) / math.sqrt(shape.d_head)
            pattern = jax.nn.softmax(jnp.where(past, scores, -jnp.inf))
            z = jnp.einsum("bhqk,bhke->bqhe", pattern, v)
            x = x + jnp.einsum("bqhe,hed->bqd", z, p[f"{block}attn.W_O"])
            pre = norm(x, p[f"{block}ln2.w"]) @ p[f"{block}mlp.W_in"]
            x = x + jax.nn.gelu(pre, approximate=False) @ p[f"{block}mlp.W_out"]
        logits = jax.nn.log_softmax(norm(x, p["ln_final.w"]) @ p["embed.W_E"].T)
        one_hot = jax.nn.one_hot(targets, shape.d_vocab)  # all zeros where there is no target
        return -((logits * one_hot).sum((-1, -2)) * weights).sum()

    def adam(old: Any, g: Any, rate: Any, count: Any) -> Any:
        parameter, mean, square = old
        mean = training.beta1 * mean + (1 - training.beta1) * g
        square = training.beta2 * square + (1 - training.beta2) * g * g
        root = jnp.sqrt(square / (1 - training.beta2**count)) + training.epsilon
        change = mean / (1 - training.beta1**count) / root + training.weight_decay * parameter
        return [parameter - rate * change, mean, square]

    def update(state: Any, windows: Any, rate: Any, count: Any) -> Any:
        parameters = {name: values[0] for name, values in state.items()}
        value, gradient = jax.value_and_grad(loss)(parameters, *windows)
        length = jnp.sqrt(sum((g * g).sum() for g in gradient.values()))
        scale = jnp.minimum(1, training.clip / (length + 1e-6))
        return {n: adam(x, scale * gradient[n], rate, count) for n, x in state.items()}, value

    update_all = jax.jit(jax.vmap(update, in_axes=(0, 0, None, None)), donate_argnums=0)
    state = {n: [jnp.array(x.numpy() * k) for k in (1, 0, 0)] for n, x in stacked.items()}
    done = 0

    def step(windows: Windows, rate: float) -> Losses:
        nonlocal state, done
        done += 1
        state, losses = update_all(state, arrays(windows), rate, float(done))
        return np.asarray(losses)

    return step

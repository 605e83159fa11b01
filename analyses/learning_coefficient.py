# %% [markdown]
# # How complex is what a model learned?
# The local learning coefficient counts the directions out of a trained model's minimum that raise
# its loss: each counts a half, a degenerate one less, one that changes nothing 0. So a regular
# model has half its number of parameters, which is the null here. Sources: Lau et al. 2023,
# arXiv 2308.12108; Watanabe, Algebraic Geometry and Statistical Learning Theory (2009).

# %%
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from plotly.graph_objects import Figure
from rich.progress import track
from torch import Tensor

import tbtt_interp as tbtt
from tbtt_interp import plots
from tbtt_interp.errors import TbttError
from tbtt_interp.kernel import Kernel, KernelError, is_suited
from tbtt_interp.model import Parameters, forward, parameter_shapes
from tbtt_interp.results import Claim, Result
from tbtt_interp.seeds import MANY_PARAMETERS, Models
from tbtt_interp.stats import mean_over_models
from tbtt_interp.study import save_figure, study_arguments
from tbtt_interp.tasks.windows import NOTHING, stack

Loss = Callable[[Parameters, int], Float[Tensor, " chain"]]
STEPS, CHAINS = 6_000, 2
BATCH = 64  # windows per step; eight times as many change estimates by less than chains differ
# The posterior's width where the loss is flat, 1/√γ, is 0.1: weights here are 0.1 to 0.3.
LOCALIZATION = 100.0
STEP_SIZE = 1e-5  # estimates are 2 % above those at a third of it, and two thirds above at tenfold
DRIFT = 0.1  # change from the first half of the draws to the second, above which a chain moves
FEW = 8  # models that are sampled, where there are more


# %%
def local_learning_coefficient(
    loss: Loss, parameters: Parameters, n: Int[Tensor, " model"] | int, *, chains: int = CHAINS,
    steps: int = STEPS, step_size: float = STEP_SIZE, localization: float = LOCALIZATION,
    seed: int = 0,
) -> Float[np.ndarray, "model chain step"]:  # fmt: skip
    """nβ (L(w) − L(w*)) along Langevin chains around w*, whose mean estimates λ̂; β = 1/ln n.

    The density is exp(−nβ L(w) − γ/2 |w − w*|²). For a loss Σ h w²/2 the estimate is
    Σ ½ nβh / (nβh + γ): half the directions in which the loss is sharper than the localization.

    Args:
        loss: of stacked parameters at a step: the mean over the step's data, in nats per sample. It
            gets every model's chains, each model's next to each other, and the models themselves.
        parameters, n: w* and samples, by model.
        step_size: ε; the estimate's bias is in proportion.
        localization: γ; a chain forgets its start in 2/(εγ) steps, by default 2,000.
    Source: Lau et al. 2023, algorithm 1; Welling and Teh 2011 for the sampler.

    >>> trace = local_learning_coefficient(
    ...     lambda p, step: (p["w"] ** 2).sum(1) / 2, {"w": torch.zeros(1, 50)}, 1_000,
    ...     steps=200, step_size=1e-3, localization=1.0)
    >>> bool(20 < estimates(trace)[0].mean() < 30)
    True
    """
    if chains < 1 or steps < 4:
        raise TbttError(f"sampling needs a chain and 4 steps at least, got {chains} and {steps}")
    samples = torch.as_tensor(n, dtype=torch.double).expand(len(next(iter(parameters.values()))))
    heat = (samples / samples.log()).repeat_interleave(chains)  # nβ, by chain
    start = {name: w.detach().repeat_interleave(chains, 0) for name, w in parameters.items()}
    moving = {name: w.clone().requires_grad_() for name, w in start.items()}
    generator = torch.Generator().manual_seed(seed)
    trace = np.empty((steps, len(heat)))
    for step in track(range(steps), "sampling", transient=True, disable=not sys.stdout.isatty()):
        nats = loss(moving, step)
        with torch.no_grad():
            nats_at_start = loss(parameters, step).repeat_interleave(chains)
        gradients = torch.autograd.grad(nats.sum(), list(moving.values()))
        trace[step] = (heat * (nats.detach() - nats_at_start).double()).numpy()
        for (name, w), gradient in zip(moving.items(), gradients, strict=True):
            noise = torch.randn(w.shape, generator=generator, dtype=w.dtype)
            with torch.no_grad():
                nb = heat.to(w.dtype).view(-1, *[1] * (w.ndim - 1))
                pull = nb * gradient + localization * (w - start[name])
                w.add_(step_size**0.5 * noise - step_size / 2 * pull)
    return np.moveaxis(trace.reshape(steps, -1, chains), 0, -1)


def estimates(trace: Float[np.ndarray, "model chain step"]) -> tuple[np.ndarray, np.ndarray]:
    """Each chain's coefficient and each model's drift, after the burn-in of half the steps."""
    draws = trace[..., trace.shape[-1] // 2 :]
    earlier, later = (half.mean((1, 2)) for half in np.array_split(draws, 2, axis=-1))
    return draws.mean(-1), (later - earlier) / np.abs(draws.mean((1, 2)))


def windows_loss(
    models: Models, *, batch: int = BATCH, seed: int = 0
) -> tuple[Loss, Parameters, Int[Tensor, " model"]]:
    """The loss on each model's training windows, its parameters, and how many windows it has.

    A window's loss is summed over its characters. Each step draws `batch` windows per model.
    """
    streams = [prompts.training for prompts in models.prompts if prompts.training is not None]
    if models.run is None or not streams:
        words = "give a run, or call local_learning_coefficient with a loss of your own"
        raise TbttError(f"the windows that {models.name} were trained on are not known: {words}")
    tokens, targets, counts = map(torch.from_numpy, stack([s.reference() for s in streams]))
    n, shape, states = counts.sum(1), models.run.shape, [m.state_dict() for m in models.models]
    parameters = {name: torch.stack([s[name] for s in states]) for name in parameter_shapes(shape)}
    dtype = parameters["embed.W_E"].dtype
    name = str(dtype).removeprefix("torch.")
    try:
        kernel = Kernel(shape, name) if is_suited(shape) else None
    except KernelError:  # there is no compiler
        kernel = None

    def loss(stacked: Parameters, step: int) -> Float[Tensor, " chain"]:
        generator = torch.Generator().manual_seed(seed * 2**32 + step)
        drawn = (torch.rand(len(n), batch, generator=generator) * n[:, None]).long()
        drawn = drawn[..., None].expand(-1, -1, tokens.shape[-1])
        chains = len(stacked["embed.W_E"]) // len(n)
        x, y = (t.gather(1, drawn).repeat_interleave(chains, 0) for t in (tokens, targets))
        if kernel is not None:
            flat = torch.cat([stacked[name].flatten(1) for name in parameter_shapes(shape)], 1)
            found = _KernelLoss.apply(flat, kernel, torch.cat([x[..., :1], y], -1))
            assert isinstance(found, Tensor)
            return found / batch
        logits = forward(stacked, x, shape).flatten(0, 2)
        nats = F.cross_entropy(logits, y.flatten(), ignore_index=NOTHING, reduction="none")
        return nats.view(len(x), -1).sum(1) / batch

    return loss, parameters, n


class _KernelLoss(torch.autograd.Function):
    """The kernel computes the gradient with the loss, and keeps it for the backward pass."""

    @staticmethod
    def forward(ctx, flat, kernel, windows):
        weights = np.ones(windows.shape[:2])
        parameters = flat.numpy(force=True)
        gradients = np.zeros_like(parameters)
        losses = kernel.losses(parameters, windows.numpy(), weights, gradients)
        ctx.save_for_backward(torch.from_numpy(gradients))
        return torch.from_numpy(losses)

    @staticmethod
    def backward(ctx, *grad_outputs):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0][:, None], None, None


def learning_coefficients(models: Models, *, steps: int = STEPS, seed: int = 0) -> Result:
    """The coefficient of each of the first models, compared with a regular model's.

    Returns:
        one row per model, with `half_parameters` (a regular model's coefficient), `share` of these
        and `windows`; and one row per model, chain and twentieth of the steps, with its last `step`
        and the mean `value`. The notes explain the other columns.
    """
    if (count := models.n_parameters) > MANY_PARAMETERS:
        raise TbttError(f"sampling {count:,} parameters takes hours: give a run of smaller models")
    models = models.take(FEW)
    loss, parameters, n = windows_loss(models, seed=seed)
    trace = local_learning_coefficient(loss, parameters, n, steps=steps, seed=seed)
    of_chains, drift = estimates(trace)
    coefficient, half = of_chains.mean(1), sum(p[0].numel() for p in parameters.values()) / 2
    table = pd.DataFrame({
        "seed": models.seeds, "coefficient": coefficient, "chain_sd": of_chains.std(1, ddof=1),
        "half_parameters": half, "share": coefficient / half, "drift": drift,
        "windows": n.numpy(),
    })  # fmt: skip
    pieces = np.array_split(np.arange(steps), 20)
    chains = pd.DataFrame([
        {"seed": s, "chain": c, "step": piece[-1] + 1, "value": trace[k, c, piece].mean(),
         "burn_in": piece[-1] < steps // 2}
        for k, s in enumerate(models.seeds) for c in range(CHAINS) for piece in pieces
    ])  # fmt: skip
    return Result(
        name="learning-coefficient", tables={"learning-coefficient": table, "chains": chains},
        display=table.drop(columns=["half_parameters", "windows"]).round(3),
        figures={"chains": lambda: plot_chains(chains)},
        claims=[Claim(
            text="The local learning coefficient is", effect=mean_over_models(table["share"]),
            unit="of half the parameters", null=1.0, null_name="a regular model", direction="below",
        )],
        notes=[
            f"share: of {half:,.0f}, half the parameters. Estimates depend on n ({n[0]:,} windows) "
            "and on the localization: compare models of one framing, on one task.",
            "chain_sd: between a model's chains. drift: later minus earlier draws, as a share. A "
            f"chain that drifts by more than {DRIFT:.0%} still moves; a model whose coefficient is "
            "below 0 is at no minimum.",
        ],
    )  # fmt: skip


def plot_chains(chains: pd.DataFrame) -> Figure:
    """Each chain's nβ (loss − the model's own) over the steps."""
    titles = ("Langevin step; the first half is burn-in", "nβ (loss − the model's own)")
    drawn = chains.assign(**{c: f"{c} " + chains[c].astype(str) for c in ("seed", "chain")})
    return plots.curves(drawn, x="step", y="value", by="chain", panel="seed", titles=titles)


# %%
if __name__ == "__main__":
    (folder, *_), files = study_arguments("runs/arithmetic-small-file")
    run = tbtt.load_run(folder)
    result = learning_coefficients(Models.of(run))
    save_figure(result.figures["chains"](), files, result.question, run.title)
    print(f"{run.title}.\n{result}")

"""The local learning coefficient: how many ways out of its minimum cost a trained model something.

Of a model with as many independent directions as parameters it is half their number; directions
that change nothing count for nothing, and degenerate ones for less than a half.

Source: Lau et al. 2023, The Local Learning Coefficient: A Singularity-Aware Complexity Measure,
arXiv 2308.12108; Watanabe, Algebraic Geometry and Statistical Learning Theory (2009).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.analyses.findings import Tell, silent
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError, listed
from tbtt_interp.model import Parameters, Shape, forward, parameter_shapes
from tbtt_interp.runs import Run
from tbtt_interp.tasks.windows import NOTHING, stack
from tbtt_interp.train.kernel import Kernel, KernelError, is_suited

Loss = Callable[[Parameters, int], Float[Tensor, " chain"]]

STEPS = 6_000
CHAINS = 2
BATCH = 64  # windows a step; eight times as many change the estimate by less than chains differ
# The posterior's width where the loss says nothing, 1/√γ, is 0.1: weights here are 0.1 to 0.3.
LOCALIZATION = 100.0
# At this step size estimates are some 2 % above what a half or a third of it gives; at ten times
# it, of smalls on whole lines, by two thirds. A chain forgets its start in 2/(εγ) = 2,000 steps.
STEP_SIZE = 1e-5
DRIFT = 0.1  # change from the first half of the draws to the second, above which a chain is moving


@dataclass(frozen=True, kw_only=True)
class Chains:
    """Langevin chains around each model.

    Attributes:
        trace: nβ times the loss above the model's own, at each step, burn-in included.
        burn_in: steps that are not counted.
    """

    trace: Float[np.ndarray, "model chain step"]
    burn_in: int

    @property
    def kept(self) -> Float[np.ndarray, "model chain draw"]:
        """What is counted."""
        return self.trace[..., self.burn_in :]

    @property
    def coefficients(self) -> Float[np.ndarray, "model chain"]:
        """Each chain's estimate. Below 0, the chain found less loss: the model is at no minimum."""
        return self.kept.mean(-1)

    @property
    def drift(self) -> Float[np.ndarray, " model"]:
        """How far the second half of the draws is from the first, as a share of their mean."""
        first, second = np.array_split(self.kept.mean(1), 2, axis=-1)
        return (second.mean(-1) - first.mean(-1)) / np.abs(self.coefficients.mean(-1))


def local_learning_coefficient(
    loss: Loss,
    parameters: Mapping[str, Float[Tensor, "model ..."]],
    n: Int[Tensor, " model"] | int,
    *,
    chains: int = CHAINS,
    steps: int = STEPS,
    step_size: float = STEP_SIZE,
    localization: float = LOCALIZATION,
    tell: Tell = silent,
    seed: int = 0,
) -> Chains:
    """Estimates λ̂ = nβ (E[L(w)] − L(w*)), β = 1/ln n, by Langevin sampling around w*.

    The density is exp(−nβ L(w) − γ/2 |w − w*|²). Of a loss Σ h w²/2 the estimate is
    Σ ½ nβh / (nβh + γ): half the number of directions in which the loss is sharper than the
    localization. The first half of the steps is burn-in.

    Args:
        loss: of stacked parameters, mean over the data of a step, in nats a sample; of the whole
            data, if it ignores the step. It is asked of every model's chains, a model's side by
            side, and of the models themselves, on the same step's data.
        parameters: w*, with a leading model axis.
        n: samples, by model.
        step_size: ε; the estimate's bias is in proportion.
        localization: γ; a chain forgets where it began in 2/(εγ) steps.
    Source: Lau et al. 2023, algorithm 1; Welling and Teh 2011 for the sampler.

    >>> import torch
    >>> found = local_learning_coefficient(
    ...     lambda p, step: (p["w"] ** 2).sum(1) / 2, {"w": torch.zeros(1, 50)}, 1_000,
    ...     steps=200, step_size=1e-3, localization=1.0)
    >>> bool(20 < found.coefficients.mean() < 30)
    True
    """
    if chains < 1 or steps < 4:
        raise TbttError(f"sampling needs a chain and 4 steps at least, got {chains} and {steps}")
    centre = {name: value.detach() for name, value in parameters.items()}
    models = len(next(iter(centre.values())))
    samples = torch.as_tensor(n, dtype=torch.double).expand(models)
    heat = (samples / samples.log()).repeat_interleave(chains)  # nβ, by chain
    start = {name: value.repeat_interleave(chains, 0) for name, value in centre.items()}
    moving = {name: value.clone().requires_grad_() for name, value in start.items()}
    generator = torch.Generator().manual_seed(seed)
    trace = np.empty((steps, models * chains))
    for step in range(steps):
        here = loss(moving, step)
        with torch.no_grad():
            there = loss(centre, step).repeat_interleave(chains)
        gradients = torch.autograd.grad(here.sum(), list(moving.values()))
        trace[step] = (heat * (here.detach() - there).double()).numpy()
        for (name, value), gradient in zip(moving.items(), gradients, strict=True):
            nb = heat.to(value.dtype).view(-1, *[1] * (value.ndim - 1))
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            with torch.no_grad():
                pull = nb * gradient + localization * (value - start[name])
                value.add_(step_size**0.5 * drawn - step_size / 2 * pull)
        tell(step + 1, steps)
    return Chains(
        trace=np.moveaxis(trace.reshape(steps, models, chains), 0, -1), burn_in=steps // 2
    )


def windows_loss(
    subject: Subject, run: Run, *, batch: int = BATCH, seed: int = 0
) -> tuple[Loss, Int[Tensor, " model"]]:
    """The loss of a run's models on their own training windows, and how many windows each has.

    A sample is a window, all there are of them, and its loss the sum over its characters, in nats.

    Args:
        batch: windows that are drawn at each step, the same for all chains of a model.
    """
    windows = stack([stream.reference() for stream in subject.streams()])
    tokens, targets = torch.from_numpy(windows.tokens), torch.from_numpy(windows.targets)
    n = torch.from_numpy(windows.counts.sum(1))
    summed = _summed(run.shape, next(subject.models[0].parameters()).dtype)

    def loss(stacked: Parameters, step: int) -> Float[Tensor, " chain"]:
        chance = torch.Generator().manual_seed(seed * 2**32 + step)
        which = (torch.rand(len(n), batch, generator=chance) * n[:, None]).long()
        which = which[..., None].expand(-1, -1, tokens.shape[-1])
        chains = len(stacked["embed.W_E"]) // len(n)
        drawn = (x.gather(1, which).repeat_interleave(chains, 0) for x in (tokens, targets))
        return summed(stacked, *drawn) / batch

    return loss, n


def _summed(shape: Shape, dtype: torch.dtype) -> Callable[..., Float[Tensor, " chain"]]:
    """Each model's loss, summed over its windows: compiled where that pays and works."""
    if is_suited(shape, torch.device("cpu")):
        try:
            kernel = Kernel(shape, dtype)
        except KernelError:
            pass
        else:
            return lambda stacked, tokens, targets: kernel.loss(
                stacked, tokens, targets, torch.ones(tokens.shape[:2], dtype=dtype)
            )

    def by_torch(stacked: Parameters, tokens: Tensor, targets: Tensor) -> Tensor:
        logits = forward(stacked, tokens, shape).flatten(0, 2)
        nats = F.cross_entropy(logits, targets.flatten(), ignore_index=NOTHING, reduction="none")
        return nats.view(len(tokens), -1).sum(1)

    return by_torch


def stacked_parameters(subject: Subject, run: Run) -> Parameters:
    """The trained parameters of a run's models, as they are in its HookedTransformers."""
    states = [model.state_dict() for model in subject.models]
    return {name: torch.stack([s[name] for s in states]) for name in parameter_shapes(run.shape)}


def learning_coefficient_table(
    subject: Subject,
    *,
    steps: int | None = None,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The coefficient of each of a run's models, and the chains that it comes from.

    Estimates are of one n and one localization: compare models of one framing, on one task.

    Args:
        steps: of sampling, half of them burn-in; None is STEPS.
        parts: where finished chains are kept.
    Returns:
        a row a model: seed, `coefficient`, `chain_sd` (between its chains), `half_parameters`
        (what a regular model has), `share` of it, `drift`, `stationary` (drift below DRIFT),
        `negative` (below 0, so that the model is at no minimum) and `windows`; and a row a model,
        chain and twentieth of the steps: seed, chain, `step` (its last), `value`, `burn_in`.
    Raises:
        TbttError: if the models come without a run, so without the windows they were trained on.
    """
    if subject.run is None:
        raise TbttError(
            "a learning coefficient is of the loss that was minimized: give a run, whose training "
            "windows are known, or call local_learning_coefficient with a loss of your own"
        )
    parameters = stacked_parameters(subject, subject.run)
    loss, n = windows_loss(subject, subject.run, seed=seed)

    def compute() -> Arrays:
        chains = local_learning_coefficient(
            loss, parameters, n, steps=steps or STEPS, tell=tell, seed=seed
        )
        return {"trace": chains.trace}

    trace = (parts or Parts()).get("learning-coefficient", compute)["trace"]
    chains = Chains(trace=trace, burn_in=trace.shape[-1] // 2)
    half = sum(value[0].numel() for value in parameters.values()) / 2
    found = chains.coefficients
    table = pd.DataFrame({
        "seed": subject.seeds, "coefficient": found.mean(1), "chain_sd": found.std(1, ddof=1),
        "half_parameters": half, "share": found.mean(1) / half, "drift": chains.drift,
        "stationary": np.abs(chains.drift) < DRIFT, "negative": found.mean(1) < 0,
        "windows": n.numpy(),
    })  # fmt: skip
    pieces = np.array_split(np.arange(trace.shape[-1]), 20)
    rows = [
        {"seed": s, "chain": c, "step": piece[-1] + 1, "value": trace[k, c, piece].mean(),
         "burn_in": piece[-1] < chains.burn_in}
        for k, s in enumerate(subject.seeds) for c in range(trace.shape[1]) for piece in pieces
    ]  # fmt: skip
    return table, pd.DataFrame(rows)


def learning_coefficient_notes(table: pd.DataFrame) -> list[str]:
    """What a reader of it has to know."""
    mean, half = table["coefficient"].mean(), table["half_parameters"].iloc[0]
    notes = [
        f"Local learning coefficient: {mean:,.0f} on average, of {half:,.0f} in a regular model, "
        f"from {table['windows'].iloc[0]:,} windows; it depends on their number and on how "
        "near the sampling stays, so compare sizes of one framing, and with no absolute figure."
    ]
    moving = table.loc[~table["stationary"], "seed"].tolist()
    below = table.loc[table["negative"], "seed"].tolist()
    if moving:
        notes.append(
            f"The chains of seeds {listed(moving, 'and')} still move by more than {DRIFT:.0%}."
        )
    if below:
        notes.append(f"Below 0 for seeds {listed(below, 'and')}, which are at no minimum.")
    return notes

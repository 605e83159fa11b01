"""Sampled learning coefficients are those of models whose own are known."""

import doctest
import math
from collections.abc import Callable

import learning_coefficient as study
import numpy as np
import pytest
import torch
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import reference_loss
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models

N = 1_000
HEAT = N / math.log(N)  # nβ


def sample(
    loss: Callable[[Tensor], Tensor], dimensions: int, **options: float
) -> tuple[np.ndarray, np.ndarray]:
    """The estimates of one model's chains around 0, and its drift, by the loss of its weights."""
    start = {"w": torch.zeros(1, dimensions, dtype=torch.double)}
    trace = study.local_learning_coefficient(lambda p, _: loss(p["w"]), start, N, **options)
    return study.estimates(trace)


def test_a_regular_model_has_half_its_directions_as_the_sampler_sees_them() -> None:
    """Closed form: of precision p a Langevin chain of step ε has the variance 1 / p(1 - εp/4)."""
    curvature = torch.tensor([0.01, 0.1, 1.0, 1.0, 3.0] * 8, dtype=torch.double)
    found, drift = sample(
        lambda w: (curvature * w**2).sum(1) / 2, 40,
        chains=30, steps=3_000, step_size=4e-3, localization=1.0,
    )  # fmt: skip
    sharp = HEAT * curvature.numpy()
    precision = sharp + 1.0
    expected = (sharp / precision / (1 - 4e-3 * precision / 4)).sum() / 2
    assert found.mean() == pytest.approx(expected, rel=0.02)
    assert abs(drift[0]) < 0.05
    assert not doctest.testmod(study).failed


def test_degenerate_directions_count_less_than_a_half() -> None:
    """A quartic direction's coefficient is a quarter."""
    options = {"chains": 40, "steps": 4_000, "step_size": 2e-3, "localization": 1e-3}
    found, _ = sample(lambda w: (w**4).sum(1), 20, **options)
    assert found.mean() == pytest.approx(20 / 4, rel=0.05)


def test_models_are_sampled_each_around_its_own_minimum() -> None:
    centre = torch.tensor([[0.0], [7.0]], dtype=torch.double)
    sharp = torch.tensor([1.0, 3.0], dtype=torch.double)

    def loss(p: dict[str, Tensor], _: int) -> Tensor:
        each = len(p["w"]) // 2
        minima, h = centre.repeat_interleave(each, 0), sharp.repeat_interleave(each)
        return h * (p["w"] - minima).square().sum(1) / 2

    trace = study.local_learning_coefficient(
        loss, {"w": centre}, torch.tensor([N, N]),
        chains=200, steps=400, step_size=1e-3, localization=HEAT,
    )  # fmt: skip
    bias = [1 - 1e-3 * HEAT * p / 4 for p in (2, 4)]
    expected = pytest.approx([0.25 / bias[0], 0.375 / bias[1]], rel=0.1)
    assert study.estimates(trace)[0].mean(1) == expected


def test_chains_that_move_drift() -> None:
    _, drift = study.estimates(np.linspace(0, 1, 100)[None, None])
    assert drift[0] == pytest.approx(1 / 3, rel=0.03)  # from 5/8 to 7/8, of 3/4


def test_a_run_s_loss_is_its_own_on_its_windows(line_run: Run, file_run: Run, monkeypatch) -> None:
    for run in (line_run, file_run):
        models = Models.of(run)
        loss, parameters, _ = study.windows_loss(models, batch=4_000)
        streams = [prompts.training for prompts in models.prompts]
        expected = np.array(reference_loss(parameters, run.shape, streams))
        characters = (streams[0].reference().targets >= 0).sum(1).mean()
        twice = {name: x.repeat_interleave(2, 0) for name, x in parameters.items()}
        found = loss(twice, 0).view(2, 2)
        assert torch.equal(found[:, 0], found[:, 1])  # chains of a model read the same windows
        assert found[:, 0].numpy() == pytest.approx(expected * characters, rel=0.03)
    monkeypatch.setattr(study, "is_suited", lambda *_: False)
    by_torch, *_ = study.windows_loss(models, batch=4_000)
    assert torch.allclose(by_torch(twice, 0).view(2, 2), found, rtol=1e-4)


def test_a_run_s_result_has_a_row_per_model_and_compares_it_with_a_regular_one(file_run) -> None:
    result = study.learning_coefficients(Models.of(file_run), steps=100)
    table, chains = result.tables.values()
    assert table["half_parameters"].tolist() == [791, 791]
    kept = chains[~chains["burn_in"]].groupby("seed")["value"].mean()
    assert kept.tolist() == pytest.approx(table["coefficient"].tolist())
    assert result.claims[0].null_name == "a regular model"
    assert result.claims[0].effect.mean == pytest.approx(table["coefficient"].mean() / 791)
    assert "Estimates depend on n (1,755 windows)" in result.notes[0]
    assert result.figures["chains"]().data


def test_what_cannot_be_sampled_is_said(line_run: Run) -> None:
    models = Models.of(line_run)
    own = Models.of_models(models.models, line_run.task.examples, line_run.task.vocabulary)
    with pytest.raises(TbttError, match="the windows that models were trained on are not known: g"):
        study.learning_coefficients(own)
    with pytest.raises(TbttError, match="needs a chain and 4 steps at least, got 1 and 3"):
        sample(lambda w: w[:, 0], 1, chains=1, steps=3)
    models.__dict__["n_parameters"] = 2_000_000
    with pytest.raises(TbttError, match="sampling 2,000,000 parameters takes hours: give a run of"):
        study.learning_coefficients(models)

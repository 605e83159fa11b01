"""Sampled learning coefficients are those of models whose own are known."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from tbtt_interp import figures
from tbtt_interp.analyses import learning_coefficient
from tbtt_interp.analyses.learning_coefficient import (
    Chains,
    learning_coefficient_notes,
    learning_coefficient_table,
    local_learning_coefficient,
    stacked_parameters,
    windows_loss,
)
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import reference_loss
from tbtt_interp.runs import Run

N = 1_000
HEAT = N / math.log(N)  # nβ


def zeros(dimensions: int) -> dict[str, Tensor]:
    return {"w": torch.zeros(1, dimensions, dtype=torch.double)}


def test_a_regular_model_has_half_its_directions_as_the_sampler_sees_them() -> None:
    """Closed form: of precision p a Langevin chain of step ε has the variance 1 / p(1 - εp/4)."""
    curvature = torch.tensor([0.01, 0.1, 1.0, 1.0, 3.0] * 8, dtype=torch.double)
    step, gamma = 4e-3, 1.0
    found = local_learning_coefficient(
        lambda p, _: (curvature * p["w"] ** 2).sum(1) / 2, zeros(40), N,
        chains=30, steps=3_000, step_size=step, localization=gamma,
    )  # fmt: skip
    sharp = HEAT * curvature.numpy()
    precision = sharp + gamma
    expected = (sharp / precision / (1 - step * precision / 4)).sum() / 2
    assert found.coefficients.mean() == pytest.approx(expected, rel=0.02)
    assert abs(float(found.drift[0])) < 0.05


def test_it_is_half_the_parameters_where_all_are_sharp_and_nothing_where_none_is() -> None:
    def loss(p: dict[str, Tensor], _: int) -> Tensor:
        return (p["w"][:, :20] ** 2).sum(1) / 2  # the other ten change nothing

    found = local_learning_coefficient(
        loss, zeros(30), N, chains=40, steps=2_000, step_size=5e-4, localization=0.1
    )
    # the chain's own bias is 2 % here
    assert found.coefficients.mean() == pytest.approx(10, rel=0.05)


def test_a_quartic_has_a_quarter() -> None:
    found = local_learning_coefficient(
        lambda p, _: (p["w"] ** 4).sum(1), zeros(20), N,
        chains=40, steps=4_000, step_size=2e-3, localization=1e-3,
    )  # fmt: skip
    assert found.coefficients.mean() / 20 == pytest.approx(1 / 4, rel=0.05)


def of_a_product(heat: float, gamma: float) -> float:
    """nβ E[(w1 w2)²] by integration: over w2 in closed form, over w1 by quadrature."""

    def weight(w: float) -> float:
        return math.exp(-gamma * w * w / 2) / math.sqrt(heat * w * w + gamma / 2)

    def value(w: float) -> float:
        return weight(w) * heat * w * w / (heat * w * w + gamma / 2) / 2

    near = [1 / math.sqrt(heat), 10 / math.sqrt(heat)]
    total, below = (quad(f, 0, 8, points=near, limit=400)[0] for f in (value, weight))
    return total / below


def test_of_a_product_it_is_what_integration_says_and_tends_to_a_half() -> None:
    known = [of_a_product(heat, 1.0) for heat in (1e2, 1e4, 1e8)]
    assert known[0] < known[1] < known[2] < 0.5
    assert known[2] > 0.4
    found = local_learning_coefficient(
        lambda p, _: (p["w"][:, ::2] * p["w"][:, 1::2]).square().sum(1), zeros(20), N,
        chains=40, steps=3_000, step_size=1e-3, localization=10.0,
    )  # fmt: skip
    assert found.coefficients.mean() / 10 == pytest.approx(of_a_product(HEAT, 10.0), rel=0.05)


def test_what_a_step_s_data_add_to_every_loss_cancels() -> None:
    def loss(p: dict[str, Tensor], step: int) -> Tensor:
        return (p["w"] ** 2).sum(1) / 2

    def drawn(p: dict[str, Tensor], step: int) -> Tensor:
        return loss(p, step) + 100 * math.sin(step)

    one, other = (
        local_learning_coefficient(f, zeros(5), N, steps=50, step_size=1e-3) for f in (loss, drawn)
    )
    assert np.allclose(one.trace, other.trace)


def test_models_are_sampled_each_around_its_own_place() -> None:
    centre = torch.tensor([[0.0], [7.0]], dtype=torch.double)
    sharp = torch.tensor([1.0, 3.0], dtype=torch.double)

    def loss(p: dict[str, Tensor], _: int) -> Tensor:
        each = len(p["w"]) // 2
        places, h = centre.repeat_interleave(each, 0), sharp.repeat_interleave(each)
        return h * (p["w"] - places).square().sum(1) / 2

    found = local_learning_coefficient(
        loss, {"w": centre}, torch.tensor([N, N]),
        chains=200, steps=400, step_size=1e-3, localization=HEAT,
    ).coefficients.mean(1)  # fmt: skip
    bias = [1 - 1e-3 * HEAT * p / 4 for p in (2, 4)]
    assert found == pytest.approx([0.25 / bias[0], 0.375 / bias[1]], rel=0.1)


def test_where_less_loss_is_near_the_estimate_is_negative_and_said_to_be() -> None:
    found = local_learning_coefficient(
        lambda p, _: ((p["w"] - 1) ** 2).sum(1) / 2, zeros(3), N, steps=400, step_size=1e-3
    )
    assert (found.coefficients < 0).all()
    moving = Chains(trace=np.linspace(0, 1, 100)[None, None], burn_in=50)
    assert moving.drift[0] == pytest.approx(1 / 3, rel=0.03)  # from 5/8 to 7/8, of 3/4


def test_a_run_s_loss_is_its_own_on_its_windows(line_run: Run, file_run: Run, monkeypatch) -> None:
    for run in (line_run, file_run):
        subject = Subject.of_run(run)
        parameters = stacked_parameters(subject, run)
        assert all(torch.equal(parameters[name], x) for name, x in run.parameters().items())
        loss, n = windows_loss(subject, run, batch=4_000)
        expected = np.array(reference_loss(parameters, run.shape, subject.streams()))
        characters = (subject.streams()[0].reference().targets >= 0).sum(1).mean()
        twice = {name: x.repeat_interleave(2, 0) for name, x in parameters.items()}
        found = loss(twice, 0).view(2, 2)
        assert n.tolist() == [len(stream.reference().tokens) for stream in subject.streams()]
        assert torch.equal(found[:, 0], found[:, 1])  # chains of a model read the same windows
        assert found[:, 0].numpy() == pytest.approx(expected * characters, rel=0.03)
    monkeypatch.setattr(learning_coefficient, "is_suited", lambda *_: False)
    by_torch, _ = windows_loss(subject, run, batch=4_000)
    assert torch.allclose(by_torch(twice, 0).view(2, 2), found, rtol=1e-4)


def test_a_run_s_table_has_a_row_a_model_and_says_whether_chains_move(file_run: Run) -> None:
    heard: list[tuple[int, int]] = []
    table, chains = learning_coefficient_table(
        Subject.of_run(file_run), steps=100, tell=lambda *done: heard.append(done)
    )
    assert heard[-1] == (100, 100)
    assert table["half_parameters"].tolist() == [791, 791]
    assert (table["share"] == table["coefficient"] / 791).all()
    kept = chains[~chains["burn_in"]].groupby("seed")["value"].mean()
    assert kept.tolist() == pytest.approx(table["coefficient"].tolist())
    assert chains.groupby(["seed", "chain"]).size().tolist() == [20] * 4
    notes = " ".join(learning_coefficient_notes(table.assign(stationary=False, negative=True)))
    assert "of seeds 0 and 1 still move by more than 10%" in notes and "at no minimum" in notes
    figure = figures.coefficient_chains(chains)
    assert [trace.name for trace in figure.data] == ["seed 0"] * 2 + ["seed 1"] * 2


def test_what_cannot_be_sampled_is_said(line_run: Run) -> None:
    subject = Subject.of_run(line_run)
    mine = Subject.of_models(subject.models, subject.examples, subject.vocabulary)
    with pytest.raises(TbttError, match="give a run, whose training windows are known, or call"):
        learning_coefficient_table(mine)
    with pytest.raises(TbttError, match="what models were trained on is not known: give a run"):
        mine.streams()
    with pytest.raises(TbttError, match="needs a chain and 4 steps at least, got 1 and 3"):
        local_learning_coefficient(lambda p, _: p["w"][:, 0], zeros(1), N, chains=1, steps=3)

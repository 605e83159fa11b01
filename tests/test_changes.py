"""Interventions on training: after every step the changed quantity is exactly what was asked."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny import short

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.runs import load_run
from tbtt_interp.train.changes import Changes
from tbtt_interp.train.effects import (
    digit_code,
    norm_of,
    orthonormal,
    projection_of,
    second_differences,
    sine,
)
from tbtt_interp.train.recipe import Recipe, resolve_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback, begin, new_stack
from tbtt_interp.train.step import CompiledStack, ModelStack, TorchStack
from tbtt_interp.train.training import train_models

QUIET = TrainingCallback()
EVERY = {"training.checkpoint_every": 1}
VOCABULARY = "\n +-0123456789<=>"
DIGITS = np.array([VOCABULARY.index(digit) for digit in "0123456789"])


def stack_of(**changes: Any) -> ModelStack:
    """Two smalls at the beginning of a training with these changes."""
    recipe = short(**{f"changes.{key}": value for key, value in changes.items()})
    stack = new_stack(recipe, Runtime(), QUIET)
    begin(stack, recipe, QUIET)
    return stack


def digits_after(steps: int, **changes: Any) -> np.ndarray:
    """The digits' rows of two models after each step: step, model, digit, channel."""
    stack = stack_of(**changes)
    rows = [stack.parameters["embed.W_E"][:, DIGITS].double().numpy().copy()]
    for step in range(steps):
        stack.advance(step, step + 1)
        rows.append(stack.parameters["embed.W_E"][:, DIGITS].double().numpy().copy())
    return np.array(rows)


@pytest.mark.parametrize("rank", [1, 2, 5, 14])
@pytest.mark.parametrize("axes", ["first", "random"])
def test_confined_digits_span_so_many_dimensions_after_every_step(rank: int, axes: str) -> None:
    rows = digits_after(4, digits="rank", rank=rank, axes=axes)
    values = np.linalg.svd(rows, compute_uv=False)
    assert (values[..., :rank] > 1e-4).all()
    assert (values[..., rank:] < 1e-7).all()
    if axes == "first":
        assert not rows[..., rank:].any()
    elif rank < 14:
        assert rows[..., rank:].any()
        bases = np.linalg.svd(rows[-1])[2][:, :rank]
        assert abs(np.linalg.det(bases[0] @ bases[1].T)) < 0.99, "each seed has its own subspace"


def test_controls_confine_other_rows_or_all() -> None:
    for rows in ("others", "all"):
        stack = stack_of(digits="rank", rank=2, rows=rows)
        stack.advance(0, 3)
        embedding = stack.parameters["embed.W_E"].numpy()
        others = np.setdiff1d(np.arange(17), DIGITS)
        assert len(others) == 7 and not embedding[:, others, 2:].any()
        assert embedding[:, DIGITS, 2:].any() == (rows == "others")


@pytest.mark.parametrize("code", ["line", "arc", "orthogonal"])
def test_frozen_digits_stay_on_their_code(code: str) -> None:
    rows = digits_after(3, digits=code)
    assert (rows == rows[0]).all()
    values = digit_code(code)
    expected = 1.5**2 * values @ values.T
    np.testing.assert_allclose(rows[0] @ rows[0].swapaxes(1, 2), [expected] * 2, atol=1e-6)
    assert np.abs(rows[0, 0] - rows[0, 1]).max() > 0.1, "each seed has its own directions"
    if code == "orthogonal":
        return
    sham = digits_after(3, digits=code, order="random")
    assert (sham == sham[0]).all()
    spectra = [np.linalg.svd(x[0], compute_uv=False) for x in (rows, sham)]
    np.testing.assert_allclose(*spectra, atol=1e-6)
    for true, other in zip(rows[0], sham[0], strict=True):
        order = [int(np.abs(true - row).sum(1).argmin()) for row in other]
        assert sorted(order) == list(range(10)) and order != sorted(order)
        np.testing.assert_allclose(true[order], other, atol=1e-6)


def test_the_codes_are_those_of_their_formulas() -> None:
    x = (np.arange(10) - 4.5) / 4.5
    np.testing.assert_allclose(digit_code("line"), x[:, None])
    arc = np.stack([np.sin(1.2 * x), np.cos(1.2 * x)], 1)
    np.testing.assert_allclose(digit_code("arc"), arc, rtol=0, atol=1e-15)
    for angle in np.linspace(-math.pi / 2, math.pi / 2, 101):
        assert sine(angle) == pytest.approx(math.sin(angle), rel=1e-15, abs=1e-16)
    directions = orthonormal(14, 14, seed=3)
    np.testing.assert_allclose(directions @ directions.T, np.eye(14), atol=1e-15)


def test_smoothing_takes_away_second_differences_and_nothing_else() -> None:
    ordered = Changes(smooth=2.0)
    map_of = projection_of(ordered, short().tasks()[0].vocabulary, 14, seed=0)
    assert map_of is not None
    line = np.outer(np.arange(10), np.ones(14)) + 3.0
    moved = (map_of.left + 0.1 * map_of.left_by_rate) @ line
    np.testing.assert_allclose(moved, line, atol=1e-12)
    d = np.diff(np.eye(10), 2, axis=0)
    np.testing.assert_array_equal(-map_of.left_by_rate / 2, d.T @ d)
    sham = second_differences([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    assert np.abs(sham - d.T @ d).max() > 1
    values = [np.linalg.eigvalsh(x) for x in (sham, d.T @ d)]
    np.testing.assert_allclose(*values, atol=1e-12)
    plain, smooth = stack_of(), stack_of(smooth=8.0)
    for stack in (plain, smooth):
        stack.advance(0, 12)
    bend = [
        np.square(np.diff(stack.parameters["embed.W_E"][:, DIGITS].numpy(), 2, axis=1)).sum()
        for stack in (plain, smooth)
    ]
    assert bend[1] < 0.9 * bend[0]


CHANGED = [
    {"digits": "rank", "rank": 3, "axes": "random"}, {"digits": "arc", "order": "random"},
    {"smooth": 5.0}, {"rate_embed": 0.1, "rate_attention": 3.0, "rate_mlp": 0.5},
    {"initial_scale": 4.0}, {"decay_from": 3, "decay_until": 7},
]  # fmt: skip


@pytest.mark.parametrize("changes", CHANGED, ids=str)
def test_torch_changes_training_as_the_kernel_does(changes: dict[str, Any]) -> None:
    flags = {f"changes.{key}": value for key, value in changes.items()}
    recipe = short(**flags, **{"training.weight_decay": 2.0})
    ours, theirs = (new_stack(recipe, Runtime(compiled=c), QUIET) for c in (True, False))
    plain = new_stack(short(**{"training.weight_decay": 2.0}), Runtime(), QUIET)
    assert isinstance(ours, CompiledStack) and isinstance(theirs, TorchStack)
    for stack in (ours, theirs, plain):
        if stack is not plain:
            begin(stack, recipe, QUIET)
        for _ in stack.steps(0, 9):
            pass
    for name, value in theirs.parameters.items():
        torch.testing.assert_close(ours.parameters[name], value.detach(), rtol=1e-3, atol=1e-5)
    assert any(
        (ours.parameters[name] - x).abs().max() > 1e-3 for name, x in plain.parameters.items()
    )


def test_weight_decay_acts_in_its_window_alone() -> None:
    stack = stack_of(decay_from=3, decay_until=7)
    assert isinstance(stack, CompiledStack)
    stack.training = dataclasses.replace(stack.training, weight_decay=0.1)
    decays = [stack.settings(step, step + 1).decay_of.max() for step in range(10)]
    assert decays == [0.0] * 3 + [0.1] * 4 + [0.0] * 3
    stops = [step for step in stack.steps(0, 10) if step in (3, 7)]
    assert stops == [3, 7], "no call of the kernel spans the window's ends"


@pytest.fixture(scope="module")
def fitting(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two smalls on lines that they soon know."""
    path = tmp_path_factory.mktemp("corpus") / "few.txt"
    letters = "abcdefghijklmnop"  # as many characters as equations have, so that a kernel is there
    path.write_text("".join(f"{letters[k : k + 8]}\n" for k in (0, 1, 2, 3, 4, 8)))
    flags = {"task": str(path), "model.size": "small", "framing": "line", "seeds": 2,
             "training.evaluate_every": 20, "steps": 600}  # fmt: skip
    return resolve_recipe("quick", flags)


def test_a_norm_is_clamped_at_each_model_s_fit(fitting: Recipe) -> None:
    changes = {"norm": "clamp at fit"}
    recipe = dataclasses.replace(fitting, changes=Changes(**changes))
    stack = new_stack(recipe, Runtime(), QUIET)
    begin(stack, recipe, QUIET)
    free = new_stack(fitting, Runtime(), QUIET)
    at_fit = {}
    for step in stack.steps(0, 600):
        for model in np.flatnonzero(stack.fitted_at == step).tolist():
            at_fit[model] = norm_of(stack.parameters, model)
        for model, bound in at_fit.items():
            assert norm_of(stack.parameters, model) <= bound * (1 + 1e-6)
    assert at_fit.keys() == {0, 1}
    for _ in free.steps(0, 600):
        pass
    assert all(norm_of(free.parameters, k) > 1.05 * bound for k, bound in at_fit.items())


def test_the_rate_falls_to_its_lowest_at_each_model_s_fit(fitting: Recipe) -> None:
    recipe = dataclasses.replace(fitting, changes=Changes(rate="lowest at fit"))
    run = train_models(recipe, "slow")
    plain = train_models(fitting, "plain")
    rows = run.metrics(), plain.metrics()
    fits = {
        seed: of[(of["seen_lines_right"] == 6)]["step"].min()
        for seed, of in rows[0].groupby("seed")
    }
    assert all(0 < step < 600 for step in fits.values())
    for seed, fit in fits.items():
        slow, free = (t[(t["seed"] == seed)].set_index("step")["loss"] for t in rows)
        assert (slow.loc[:fit] == free.loc[:fit]).all()
        assert slow.loc[600] > free.loc[600] + 1e-3
    dying = TrainingCallback()

    def die(step: int) -> None:
        if step >= 100:
            raise KeyboardInterrupt

    dying.on_step = die
    with pytest.raises(KeyboardInterrupt):
        train_models(recipe, "killed", callback=dying)
    resumed = train_models(recipe, "killed", resume=True)
    assert resumed.summary()["weights"] == run.summary()["weights"]
    with pytest.raises(TbttError, match=r"'lowest at fit' needs the compiled kernel"):
        train_models(recipe, "torch", runtime=Runtime(compiled=False))


def test_permuted_answers_are_a_table_without_a_rule() -> None:
    recipe = short(**{"changes.answers": "permuted"})
    true, (first, second) = short().tasks()[0], recipe.tasks()
    for task in (first, second):
        assert [e.prompt for e in task.examples] == [e.prompt for e in true.examples]
        for group in task.groups:
            answers = [
                sorted(e.answer for e in t.examples if e.group == group) for t in (task, true)
            ]
            assert answers[0] == answers[1]
        pairs = zip(task.examples, true.examples, strict=True)
        assert sum(e.answer == o.answer for e, o in pairs) < 40
    assert [e.answer for e in first.examples] != [e.answer for e in second.examples]
    run = train_models(recipe, "run")
    assert [t.examples for t in load_run("run").tasks] == [first.examples, second.examples]
    alone = train_models(short(**{"changes.answers": "permuted"}, seeds=1, first_seed=1), "alone")
    margins = [evaluate_run(r).margins[-1] for r in (run, alone)]
    np.testing.assert_array_equal(*margins)


@pytest.mark.usefixtures("by_torch")
def test_an_untied_readout_is_trained_and_loaded() -> None:
    model = train_models(short(**{"model.tied": False}), "run").model()
    assert not torch.equal(model.W_U, model.W_E.T)


REFUSED = [
    ({"changes.digits": "arch"}, "changes.digits 'arch' is unknown (did you mean 'arc'?)"),
    ({"changes.rank": 4}, "changes.rank is for changes.digits 'rank': set that too, or leave"),
    ({"changes.order": "random"}, "changes.order is for digits on a line, an arc or grafted, or"),
    ({"changes.digits": "graft"}, "give changes.graft = 'RUN@STEP', the run and step of the"),
    ({"changes.smooth": -1.0}, "changes.smooth must be 0 or more, got -1.0"),
    ({"changes.rate_mlp": 0.0}, "changes.rate_mlp must be above 0, got 0.0"),
    ({"changes.digits": "arc", "changes.smooth": 1.0}, "no effect on digits that are set"),
    ({"changes.digits": "arc", "task": "facts"}, "the task has no digit 0: changes.digits needs"),
    ({"changes.digits": "rank", "changes.rank": 15}, "changes.rank is 15, the model has 14 chan"),
    ({"changes.transplant": "mlp", "changes.donor": "run@8"}, "is for forked runs: give --from"),
    ({"changes.decay_from": 5, "changes.decay_until": 5}, "give a later decay_until, or 0"),
    ({"changes.smooth": 13.0}, "overshoots at this learning rate: give at most 12.5"),
    ({"changes.answers": "permuted", "task": "joint"}, "is for task arithmetic: leave it out"),
    ({"from": "run@12"}, "the run would go on from step 12 of 12: give an earlier --step"),
    ({"from": "run@99"}, "run has no step 99: give one from 0 to 12"),
    ({"from": "run@8", "seeds": 3}, "a forked run keeps its origin's models and data, so seeds"),
    ({"changes.digit": "arc"}, "recipe flag key 'changes.digit' is unknown (did you mean"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), REFUSED, ids=str)
def test_what_cannot_be_changed_is_one_line(flags, message, refused) -> None:
    recipe = short()
    if "run@" in str(flags):
        train_models(recipe, "run")
    origin = [f"--from={flags['from']}"] if "from" in flags else []
    given = [f"--set={k}={json.dumps(v)}" for k, v in flags.items() if k != "from"]
    base = [] if origin else ["--recipe", "short.toml"]
    assert message in refused("train", *base, "--out", "new", *origin, *given)

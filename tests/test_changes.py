"""Interventions on training: after every step the changed quantity is exactly what was asked."""

import dataclasses
import json
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
    rows = [stack.parameters["embed.W_E"][:, DIGITS].double().numpy()]
    for step in range(steps):
        stack.advance(step, step + 1)
        rows.append(stack.parameters["embed.W_E"][:, DIGITS].double().numpy())
    return np.array(rows)


@pytest.mark.parametrize("rank", [1, 5, 14])
@pytest.mark.parametrize("axes", ["first", "random"])
def test_confined_digits_span_so_many_dimensions_after_every_step(rank: int, axes: str) -> None:
    rows = digits_after(4, digits="rank", rank=rank, axes=axes)
    values = np.linalg.svd(rows, compute_uv=False)
    assert (values[..., :rank] > 1e-4).all()
    assert (values[..., rank:] < 1e-7).all()
    assert rows[..., rank:].any() == (axes == "random" and rank < 14)
    if axes == "random" and rank < 14:
        bases = np.linalg.svd(rows[-1])[2][:, :rank]
        assert abs(np.linalg.det(bases[0] @ bases[1].T)) < 0.99, "each seed has its own subspace"


@pytest.mark.parametrize("rows", ["others", "all"])
def test_controls_confine_other_rows_or_all(rows: str) -> None:
    stack = stack_of(digits="rank", rank=2, rows=rows)
    stack.advance(0, 3)
    embedding = stack.parameters["embed.W_E"].numpy()
    assert not np.delete(embedding, DIGITS, axis=1)[..., 2:].any()
    assert embedding[:, DIGITS, 2:].any() == (rows == "others")


@pytest.mark.parametrize("code", ["line", "arc", "orthogonal"])
def test_frozen_digits_stay_on_their_code(code: str) -> None:
    x = (np.arange(10) - 4.5) / 4.5
    formula = {"line": x[:, None], "arc": np.stack([np.sin(1.2 * x), np.cos(1.2 * x)], 1),
               "orthogonal": np.eye(10)}[code]  # fmt: skip
    rows = digits_after(3, digits=code)
    assert (rows == rows[0]).all()
    expected = 1.5**2 * formula @ formula.T
    np.testing.assert_allclose(rows[0] @ rows[0].swapaxes(1, 2), [expected] * 2, atol=1e-6)
    assert np.abs(rows[0, 0] - rows[0, 1]).max() > 0.1, "each seed has its own directions"


@pytest.mark.parametrize("code", ["line", "arc"])
def test_the_sham_of_a_code_has_its_places_in_another_order(code: str) -> None:
    true, sham = digits_after(1, digits=code), digits_after(1, digits=code, order="random")
    for ordered, other in zip(true[1], sham[1], strict=True):
        order = [int(np.abs(ordered - row).sum(1).argmin()) for row in other]
        assert sorted(order) == list(range(10)) and order != sorted(order)
        np.testing.assert_allclose(ordered[order], other, atol=1e-6)


def test_sines_and_directions_are_exact_by_elementary_arithmetic() -> None:
    for angle in np.linspace(-np.pi / 2, np.pi / 2, 101):
        assert sine(angle) == pytest.approx(np.sin(angle), rel=1e-15, abs=1e-16)
    directions = orthonormal(14, 14, seed=3)
    np.testing.assert_allclose(directions @ directions.T, np.eye(14), atol=1e-15)


def test_smoothing_takes_away_second_differences_and_nothing_else() -> None:
    map_of = projection_of(Changes(smooth=2.0), short().tasks()[0].vocabulary, 14, seed=0)
    assert map_of is not None
    d = np.diff(np.eye(10), 2, axis=0)
    np.testing.assert_array_equal(-map_of.left_by_rate / 2, d.T @ d)
    np.testing.assert_array_equal(map_of.left, np.eye(10))
    sham = second_differences([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    assert np.abs(sham - d.T @ d).max() > 1
    np.testing.assert_allclose(np.linalg.eigvalsh(sham), np.linalg.eigvalsh(d.T @ d), atol=1e-12)
    plain, smooth = (
        np.square(np.diff(digits_after(12, **of)[-1], 2, axis=1)).sum()
        for of in ({}, {"smooth": 8.0})
    )
    assert smooth < 0.9 * plain


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
    for stack in (ours, theirs):
        begin(stack, recipe, QUIET)
    for stack in (ours, theirs, plain):
        list(stack.steps(0, 9))
    for name, value in theirs.parameters.items():
        torch.testing.assert_close(ours.parameters[name], value.detach(), rtol=1e-3, atol=1e-5)
    moved = [(ours.parameters[name] - x).abs().max() for name, x in plain.parameters.items()]
    assert max(moved) > 1e-3


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
    recipe = dataclasses.replace(fitting, changes=Changes(norm="clamp at fit"))
    stack, free = (new_stack(r, Runtime(), QUIET) for r in (recipe, fitting))
    begin(stack, recipe, QUIET)
    at_fit = {}
    for step in stack.steps(0, 600):
        for model in np.flatnonzero(stack.fitted_at == step).tolist():
            at_fit[model] = norm_of(stack.parameters, model)
        for model, bound in at_fit.items():
            assert norm_of(stack.parameters, model) <= bound * (1 + 1e-6)
    list(free.steps(0, 600))
    assert at_fit.keys() == {0, 1}
    assert all(norm_of(free.parameters, k) > 1.05 * bound for k, bound in at_fit.items())


def test_the_rate_falls_to_its_lowest_at_each_model_s_fit(fitting: Recipe) -> None:
    recipe = dataclasses.replace(fitting, changes=Changes(rate="lowest at fit"))
    run, plain = train_models(recipe, "slow"), train_models(fitting, "plain")
    slow, free = (r.metrics().set_index(["seed", "step"]) for r in (run, plain))
    for seed in run.seeds:
        of_slow, of_free = slow.loc[seed], free.loc[seed, "loss"]
        fit = of_slow.index[of_slow["seen_lines_right"] == 6].min()
        assert 0 < fit < 600
        assert (of_slow.loc[:fit, "loss"] == of_free.loc[:fit]).all()
        assert of_slow.loc[600, "loss"] > of_free.loc[600] + 1e-3
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
    permuted = {"changes.answers": "permuted"}
    recipe, true = short(**permuted), short().tasks()[0]
    first, second = recipe.tasks()
    for task in (first, second):
        assert [e.prompt for e in task.examples] == [e.prompt for e in true.examples]
        of_both = ([(e.group, e.answer) for e in t.examples] for t in (task, true))
        assert len({tuple(sorted(answers)) for answers in of_both}) == 1
        pairs = zip(task.examples, true.examples, strict=True)
        assert sum(e.answer == o.answer for e, o in pairs) < 40
    assert first.examples != second.examples
    run = train_models(recipe, "run")
    assert [t.examples for t in load_run("run").tasks] == [first.examples, second.examples]
    alone = train_models(short(**permuted, seeds=1, first_seed=1), "alone")
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
    ({"changes.digits": "arc", "changes.smooth": 1.0}, "no effect on frozen or grafted digits"),
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

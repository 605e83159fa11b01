"""Forks, transplants and grafts: a fork goes on in the same bytes, and a donor's parts arrive."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_changes import DIGITS, QUIET
from tiny import contents, short, unhashed

from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run, load_run
from tbtt_interp.train.recipe import recorded_recipe, resolve_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback, begin, new_stack
from tbtt_interp.train.training import train_models
from tbtt_interp.train.verify import verify_run


def same(one: Run, other: Run) -> bool:
    return one.summary()["weights"] == other.summary()["weights"]


def test_a_fork_that_changes_nothing_ends_in_the_same_bytes() -> None:
    """Whether the run kept its optimizer's state there, or is trained again, or is gone."""
    whole = train_models(short(**{"training.keep_states": [6]}), "whole")
    assert Path("whole/states/step-000006.safetensors").is_file()
    messages: list[str] = []
    callback = TrainingCallback()
    callback.on_message = messages.append
    for step, words in ((6, 0), (8, 1), (7, 1)):
        fork = train_models(
            resolve_recipe("quick", {"from": "whole", "from_step": step}), f"fork-{step}",
            callback=callback,
        )  # fmt: skip
        assert same(fork, whole) and len(messages) == words, step
        assert min(fork.checkpoints) == fork.metrics()["step"].min() == step
        messages.clear()
    assert load_run("fork-6").config.recipe["sources"]["from"]["step"] == 6
    shutil.move("whole", "elsewhere")
    assert verify_run(load_run("fork-6")).is_same
    again = recorded_recipe(load_run("fork-8").config.recipe)
    assert same(train_models(again, "again"), load_run("fork-8"))


def test_a_fork_of_a_damaged_run_is_refused() -> None:
    train_models(short(), "run")
    recipe = resolve_recipe("quick", {"from": "run@8"})
    path = Path("run/checkpoints/step-000008.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TbttError, match="its tensors do not have the SHA-256 in its metadata"):
        resolve_recipe("quick", {"from": "run@8"})
    save_file(load_file(path), path)  # as before files had hashes
    unhashed(Path("run"))
    damaged = resolve_recipe("quick", {"from": "run@8"})
    assert same(train_models(recipe, "sound"), load_run("run")), "trained again, not read"
    with pytest.raises(TbttError, match="run does not have the bytes that its recipe gives at"):
        train_models(damaged, "fork")
    assert not Path("fork").exists()


def test_a_fork_goes_on_with_another_recipe_from_the_same_models() -> None:
    whole = train_models(short(), "whole")
    fork = train_models(
        resolve_recipe("quick", {"from": "whole@4", "changes.digits": "arc"}), "fork"
    )
    start = (run.parameters(4)["pos_embed.W_pos"] for run in (whole, fork))
    assert torch.equal(*start)
    rows = [fork.parameters(step)["embed.W_E"][:, DIGITS] for step in (4, 12)]
    assert torch.equal(*rows) and not same(fork, whole)
    assert fork.metrics()["step"].unique().tolist() == [4, 6, 9, 12]


def test_a_fork_of_confined_or_grafted_digits_changes_nothing_either() -> None:
    """Also where the map is no exact identity, or was made once, at the origin's start."""
    train_models(short(), "donor")
    for name, changes in {
        "confined": {"digits": "rank", "rank": 3, "axes": "random"}, "smooth": {"smooth": 5.0},
        "started": {"digits": "graft", "graft": "donor@8", "frozen": False},
        "frozen": {"digits": "graft", "graft": "donor@8"},
    }.items():  # fmt: skip
        flags = {f"changes.{key}": value for key, value in changes.items()}
        whole = train_models(short(**flags), name)
        fork = train_models(resolve_recipe("quick", {"from": f"{name}@8"}), f"fork-{name}")
        assert same(fork, whole), name
    with pytest.raises(TbttError, match="were trained on pairs that models of this recipe hold"):
        train_models(short(held_out=[[1, 2]]), "other")
        moved = {"changes.transplant": "mlp", "changes.donor": "other"}
        train_models(resolve_recipe("quick", {"from": "donor@8"} | moved), "leak")


@pytest.mark.parametrize(
    ("part", "moved"), [("digits", "embed.W_E"), ("attention", ".attn."), ("mlp", ".mlp.")]
)
def test_a_transplant_moves_one_part_and_clears_its_moments(part: str, moved: str) -> None:
    whole = train_models(short(), "whole")
    changes = {"changes.transplant": part, "changes.donor": "whole@4"}
    recipe = resolve_recipe("quick", {"from": "whole@8"} | changes)
    stack = new_stack(recipe, Runtime(), QUIET)
    begin(stack, recipe, QUIET)
    early, late, state = whole.parameters(4), whole.parameters(8), stack.state()
    for name, value in stack.parameters.items():
        expected, moments = late[name].clone(), state[f"exp_avg/{name}"]
        if moved in name:
            rows = DIGITS if part == "digits" else slice(None)
            expected[:, rows] = early[name][:, rows]
            assert not moments[:, rows].any()
            assert part != "digits" or moments.any()
        else:
            assert moments.any()
        assert torch.equal(value, expected), name


def test_grafted_digits_are_the_donor_s_up_to_a_rotation() -> None:
    donor = train_models(short(), "donor")
    flags = {"changes.digits": "graft", "changes.graft": "donor@8", "model.size": "medium"}
    run = train_models(short(**flags), "frozen")
    own = donor.parameters(8)["embed.W_E"][:, DIGITS].double()
    rows = [run.parameters(step)["embed.W_E"][:, DIGITS].double() for step in (0, 12)]
    assert torch.equal(rows[0], rows[1])
    torch.testing.assert_close(rows[0] @ rows[0].mT, own @ own.mT, rtol=1e-5, atol=1e-6)
    started = train_models(short(**flags, **{"changes.frozen": False}), "started")
    first, last = (started.parameters(step)["embed.W_E"][:, DIGITS].double() for step in (0, 12))
    assert torch.equal(first, rows[0]) and not torch.equal(last, first)
    sham = train_models(short(**flags, **{"changes.order": "random"}), "sham")
    other = sham.parameters()["embed.W_E"][:, DIGITS].double()
    values = [torch.linalg.svdvals(x)[:, :10] for x in (other, own)]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    assert (other @ other.mT - own @ own.mT).abs().max() > 1e-4
    with pytest.raises(TbttError, match="were trained on pairs that models of this recipe hold"):
        train_models(short(**flags, held_out=[[5, 7], [1, 2]]), "leak")
    with pytest.raises(TbttError, match="has 2 models and this recipe 3: take them from a run"):
        train_models(short(**flags, seeds=3), "more")


def test_a_command_forks_and_changes(printed) -> None:
    train_models(short(), "run")
    command = ["train", "--from", "run", "--step", "8", "--set", "changes.smooth=1"]
    printed(*command, "--json")
    (folder,) = Path("runs").iterdir()
    assert folder.name == "arithmetic-small-line-short-smooth-1.0-from-8"
    assert "after 12 steps: the same bytes" in printed("verify", folder)
    before = contents(folder)
    printed(*command)
    assert contents(folder) == before

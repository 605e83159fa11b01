"""Distributed alignment search finds the variables that were planted, and no other."""

import numpy as np
import pandas as pd
import pytest
import torch

import tbtt_interp as tbtt
from tbtt_interp.calibration import nulls  # noqa: F401
from tbtt_interp.calibration.plants import PLANTS
from tbtt_interp.errors import TbttError
from tbtt_interp.probes import counterfactuals, das
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models

PRE, MID, POST = (f"blocks.0.hook_resid_{part}" for part in ("pre", "mid", "post"))
IN_A, IN_B, SUMMED, SAID = (PRE, "a"), (PRE, "b"), (MID, "="), (POST, "=")
PLANTED = {
    # on one line at "=" there is the sum, and neither operand by itself
    ("sum on a number line", 1.0): {"a": {IN_A}, "b": {IN_B}, "answer": {SUMMED, SAID}},
    ("lookup table", 1.0): {"a": {IN_A, SUMMED}, "b": {IN_B, SUMMED}, "answer": {SUMMED, SAID}},
    ("copied operand", 0.5): {"b": {IN_B, SUMMED, SAID}, "answer": {IN_B, SUMMED, SAID}},
}  # fmt: skip


def supported(table) -> dict[str, set[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {}
    for row, claim in zip(table.to_dict("records"), das.das_claims(table), strict=True):
        if claim.verdict == "supported":
            found.setdefault(row["variable"], set()).add((row["site"], row["position"]))
    return found


@pytest.mark.parametrize(("plant", "effect"), PLANTED)
def test_what_is_planted_is_found_where_it_is_and_nothing_else(plant: str, effect: float) -> None:
    models = PLANTS[plant].draw(effect, seed=0).models.take(3)
    table = tbtt.distributed_alignment_search(models)
    assert supported(table) == PLANTED[plant, effect]
    found = table[[c in PLANTED[plant, effect].get(v, ()) for v, c in
                   zip(table["variable"], zip(table["site"], table["position"], strict=True),
                       strict=True)]]  # fmt: skip
    assert (found["accuracy"] > 0.5).all() and (found["permuted_labels"] < 0.5).all()


@pytest.mark.parametrize("plant", ["untrained", "operands as numbers"])
def test_where_nothing_is_planted_nothing_is_claimed(plant: str) -> None:
    models = PLANTS[plant].draw(0.0, seed=0).models.take(3)
    assert not supported(tbtt.distributed_alignment_search(models, steps=30))


def test_counterfactuals_are_what_the_task_says(line_run: Run) -> None:
    """3+4 with another first operand, another answer, or another carry: by hand."""
    prompts = Models.of(line_run).shared_prompts
    known, number = counterfactuals.counterfactuals(prompts), prompts.vocabulary.index
    base, source = prompts.find("3+4"), prompts.find("8-9")
    assert {name: known[name][base, source] for name in known} == {
        "a": number["1"], "b": number["1"], "answer": number["-"], "carry": -1,
    }  # fmt: skip
    base, source = prompts.find("8+5"), prompts.find("2+4")
    assert known["carry"][base, source] == number["3"], "13 without its carry"
    assert known["carry"][source, base] == number["1"], "6 with one is 16"
    assert known["carry"][prompts.find("4+5"), base] == -1, "no sum is 19"
    assert known["a"][prompts.find("3+7"), prompts.find("5-5")] == -1, "5+7 is held out"


def test_rotations_are_orthonormal_and_swap_their_directions_alone() -> None:
    generator = np.random.default_rng(0)
    rotations = das.Rotations([1, 3], generator.standard_normal((2, 6, 6)))
    base, source = torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(0)).unbind()
    moved = rotations(base, source) - base
    assert [int(torch.linalg.matrix_rank(x, tol=1e-4)) for x in moved] == [1, 3]
    assert torch.allclose(rotations.rotation.mT @ rotations.rotation, torch.eye(6), atol=1e-5)
    again = rotations(base + moved, source)
    assert torch.allclose(again, base + moved, atol=1e-5), "what is swapped stays swapped"


def test_nothing_is_learned_from_test_pairs_or_held_out_equations(line_run: Run) -> None:
    prompts = Models.of(line_run).shared_prompts
    found = counterfactuals.alignments(prompts, 14)
    assert {(one.variable, one.kind) for one in found} == {
        (v, k)
        for v in ("a", "b", "answer", "carry")
        for k in (counterfactuals.DAS, counterfactuals.PERMUTED)
    }
    first = prompts.batch().first_tokens().answer_token.numpy()
    known = counterfactuals.counterfactuals(prompts)
    for one in found:
        assert not set(one.train.ravel()) & set(one.test.ravel())
        for pairs in (one.train, one.test):
            assert not prompts.held_out[pairs].any()
            target = one.target[pairs[:, 0], pairs[:, 1]]
            assert (target != first[pairs[:, 0]]).all()
            for name, other in known.items():
                is_other = other[pairs[:, 0], pairs[:, 1]] != target
                assert one.kind != counterfactuals.DAS or is_other.all() or name == one.variable


def test_a_run_gives_a_claim_per_row_and_a_figure(line_run: Run, printed, refused) -> None:
    place = {"sites": POST, "positions": -1, "steps": 5, "rank": 2}
    result = tbtt.analyse_das(line_run, "answer", **place)
    torch.manual_seed(7)  # which nothing depends on
    again = tbtt.distributed_alignment_search(line_run, "answer", **place)
    pd.testing.assert_frame_equal(again, result.tables["das"])
    (row,) = result.tables["das"].to_dict("records")
    assert (row["rank"], row["width"], row["whole"], row["n_models"]) == (2, 14, 1.0, 2)
    assert 0 <= row["untrained"] < 0.5 and len(result.claims) == 1
    assert {"untrained models", "whole activation"} <= {
        t.name for t in result.figures["das"]().data
    }
    command = ["analyses", "das", line_run.folder, "--site", POST, "--position", -1]
    assert "answer" in printed(*command, "--variable", "answer")
    assert "variable 'anser' is unknown (did you mean 'answer'?)" in refused(
        *command, "--variable", "anser"
    )
    with pytest.raises(TbttError, match="rank must be at least 1, got 0"):
        tbtt.analyse_das(line_run, rank=0)
    with pytest.raises(TbttError, match="no interchange there changes an answer"):
        tbtt.analyse_das(line_run, sites=POST, positions=-2)

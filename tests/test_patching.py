"""Patching finds what is planted, agrees with TransformerLens, and loses nothing when cut off."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from planted import copying_subject
from transformer_lens import patching as tl_patching

from tbtt_interp import figures
from tbtt_interp.analyses import patching
from tbtt_interp.analyses.ablation import (
    ablation_summary,
    ablation_table,
    mean_by_place,
    neuron_maps,
)
from tbtt_interp.analyses.pairs import Pairs, chosen_pairs, donors, one_pair, ordered_pairs
from tbtt_interp.analyses.parts import Parts
from tbtt_interp.analyses.patching import (
    METRICS,
    Cell,
    analyse_patching,
    cells_of,
    patch_pairs,
    patching_table,
    sites_of,
)
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run


@pytest.fixture(scope="module")
def subject(line_run: Run) -> Subject:
    return Subject.of_run(line_run)


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    return patching_table(copying_subject())


def whole(table: pd.DataFrame, metric: str = METRICS[0]) -> pd.DataFrame:
    return table[(table["character"] == "answer") & (table["metric"] == metric)]


def test_a_planted_circuit_is_found_there_and_nowhere_else(planted: pd.DataFrame) -> None:
    carries = {
        ("hook_resid_pre", None, "b"), ("attn.hook_v", 0, "b"), ("attn.hook_z", 0, "="),
        ("hook_attn_out", None, "="), ("hook_resid_mid", None, "="),
        ("hook_resid_post", None, "="),
    }  # fmt: skip
    assert set(planted["changed"]) == {"b"}, "where a differs there is one answer for both"
    rows = whole(planted)
    rows = rows[rows["place"] != "all"]
    for row in rows.to_dict("records"):
        head = None if pd.isna(row["head"]) else row["head"]
        key = (row["site"].removeprefix("blocks.0."), head, row["place"])
        assert row["share"] == pytest.approx(float(key in carries), abs=1e-9), key


def test_noising_and_denoising_agree_on_a_planted_chain(planted: pd.DataFrame) -> None:
    directions = [rows for _, rows in whole(planted).groupby("direction")]
    assert len(directions) == 2
    np.testing.assert_allclose(directions[0]["share"], directions[1]["share"], atol=1e-9)


def test_a_donor_with_the_same_answer_moves_nothing_and_a_random_one_half(
    planted: pd.DataFrame,
) -> None:
    """A random donor's b takes the corrupted answer's logit away and does not bring the clean."""
    row = whole(planted).query("direction == 'denoising' and site == 'blocks.0.attn.hook_v'")
    row = row[(row["place"] == "b") & (row["head"] == 0)].iloc[0]
    assert row["same_answer"] == pytest.approx(0, abs=1e-9)
    assert 0.4 < row["random"] < 0.6


def test_patching_a_run_with_itself_changes_nothing(subject: Subject) -> None:
    pairs = ordered_pairs(subject).sample(20, seed=1)
    same = Pairs(subject=subject, clean=pairs.clean, corrupt=pairs.clean, changed=pairs.changed,
                 left_out={})  # fmt: skip
    cells = cells_of(subject, pairs.questions(pairs.clean), sites_of(subject))
    distance, moved = patch_pairs(subject.models[0], same, cells, "denoising", 0)
    assert float(distance.abs().max()) == 0
    assert float(moved[0].abs().max()) < 1e-4  # batches of another size are summed in another order


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_patching_everything_is_the_other_run(subject: Subject, direction: str) -> None:
    pairs = ordered_pairs(subject).sample(50, seed=2)
    cells = [Cell("blocks.0.hook_resid_pre", None, None), Cell("blocks.0.attn.hook_z", 0, None)]
    distance, moved = patch_pairs(subject.models[0], pairs, cells, direction, 0)
    assert float(distance.abs().max()) > 1
    for cell in moved[0]:
        torch.testing.assert_close(cell, distance, atol=1e-3, rtol=1e-3)


def test_the_grid_equals_transformer_lens_on_the_same_pair(subject: Subject) -> None:
    pairs = one_pair(subject, "3+4", "3+9")
    model = subject.models[0]
    clean, corrupt = pairs.questions(pairs.clean), pairs.questions(pairs.corrupt)
    right, wrong = (subject.vocabulary.encode(c)[0] for c in "71")
    cache = model.run_with_cache(clean.tokens)[1]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, 4, right] - logits[0, 4, wrong]

    before = metric(model(corrupt.tokens))
    theirs = {
        "hook_resid_pre": tl_patching.get_act_patch_resid_pre,
        "hook_resid_mid": tl_patching.get_act_patch_resid_mid,
        "hook_attn_out": tl_patching.get_act_patch_attn_out,
        "hook_mlp_out": tl_patching.get_act_patch_mlp_out,
        "attn.hook_z": tl_patching.get_act_patch_attn_head_out_by_pos,
        "attn.hook_v": tl_patching.get_act_patch_attn_head_v_by_pos,
        "attn.hook_pattern": tl_patching.get_act_patch_attn_head_pattern_by_pos,
    }
    for site, function in theirs.items():
        cells = [c for c in cells_of(subject, clean, [f"blocks.0.{site}"]) if c.pos is not None]
        _, moved = patch_pairs(model, pairs, cells, "denoising", 0)
        expected = (function(model, corrupt.tokens, cache, metric).flatten() - before).detach()
        torch.testing.assert_close(moved[0, :, 0, 0].float(), expected, atol=1e-4, rtol=1e-4)
        assert site == "hook_mlp_out" or float(expected.abs().max()) > 0.1


def test_every_ordered_pair_is_there_once(subject: Subject) -> None:
    """2 operators x 10 operands x 90 ordered pairs for a, as many for b, 200 for the operator."""
    pairs = ordered_pairs(subject)
    counts = pd.Series(pairs.changed).value_counts().to_dict()
    assert counts == {"a": 1800, "b": 1800, "operator": 180}
    assert pairs.left_out == {"one answer for both": 20}  # a+0 and a-0
    assert len(set(zip(pairs.clean, pairs.corrupt, strict=True))) == len(pairs)


def test_characters_are_scored_up_to_the_first_end_of_either(subject: Subject) -> None:
    assert one_pair(subject, "3+4", "3+9").roles == ["units", "terminator"]  # 7> and 12>
    assert one_pair(subject, "3+9", "3+4").roles == ["tens", "units"]
    assert one_pair(subject, "8+9", "8+5").roles == ["tens", "units", "terminator"]
    assert one_pair(subject, "3-4", "3-2").roles == ["sign", "units"]


def test_countries_align_by_length_and_long_prompts_are_said_to_be_cut(facts_run: Run) -> None:
    pairs = ordered_pairs(Subject.of_run(facts_run))
    lengths = [len(e.prompt) for e in pairs.subject.examples]
    assert all(lengths[i] == lengths[j] for i, j in zip(pairs.clean, pairs.corrupt, strict=True))
    assert pairs.left_out["prompts that do not align"] > 0
    assert any("lose their left end" in note for note in pairs.notes())
    sites = ["blocks.0.hook_resid_pre"]
    long = np.flatnonzero([lengths[k] > 24 for k in pairs.clean])
    some = pairs.take(np.array([*long[:6], *range(6)]))
    result = analyse_patching(pairs.subject, some, sites=sites, ablate=False)
    drawn = [draw() for draw in result.figures.values()]
    assert any("lose their left end" in figure.layout.title.subtitle.text for figure in drawn)
    table = result.tables["patching"]
    everything = whole(table).query("place == 'all'")
    assert everything["share"].tolist() == pytest.approx([1.0] * len(everything), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["3+4", "3*9"], r"'<3\*9=' has '\*'|'3\*9' has '\*', which this model has no token for"),
        (["3+4", "4+3"], "have the same answer, '7>': give two that differ"),
        (["3+4", "3+4"], "have the same answer"),
        (["3+4", "12"], r"prompt '12' has no known answer: give one of the task's own, such as"),
    ],
)
def test_a_bad_pair_is_one_clear_line(
    subject: Subject, arguments: Sequence[str], said: str
) -> None:
    with pytest.raises(TbttError, match=said):
        one_pair(subject, *arguments)


def test_prompts_that_do_not_align_are_refused(facts_run: Run) -> None:
    with pytest.raises(TbttError, match=r"has 22 tokens and corrupted prompt .* has 21: give two"):
        one_pair(Subject.of_run(facts_run), "Germany", "France")


def test_a_pair_that_is_not_held_out_is_refused(subject: Subject) -> None:
    with pytest.raises(TbttError, match=r"pair 4,7 is not held out in .*: those that are: 5,7"):
        chosen_pairs(subject, held_out="4,7")
    with pytest.raises(TbttError, match="'57' must be two operands, as in 5,7"):
        chosen_pairs(subject, held_out="57")
    pairs = chosen_pairs(subject, held_out="5,7")
    prompts = {subject.examples[k].prompt for k in pairs.clean}
    assert prompts == {"<5+7=", "<7+5=", "<5-7=", "<7-5="}


def test_an_unknown_site_is_refused(subject: Subject) -> None:
    with pytest.raises(TbttError, match=r"site 'blocks\.0\.hook_z' is not there: the nearest are"):
        patching_table(subject, sites=["blocks.0.hook_z"])


def test_donors_are_what_they_are_called(subject: Subject) -> None:
    pairs = ordered_pairs(subject)
    answer = [e.answer for e in subject.examples]
    for k, donor in enumerate(donors(pairs, "same answer", pairs.corrupt, seed=0)):
        if donor >= 0:
            assert answer[donor] == answer[pairs.corrupt[k]]
            assert donor not in (pairs.clean[k], pairs.corrupt[k])
    missing = donors(pairs, "same answer", pairs.corrupt, seed=0) < 0
    assert {answer[k] for k in pairs.corrupt[missing]} >= {"18>", "-9>"}  # 9+9 and 0-9 alone


def test_an_interrupted_grid_goes_on_where_it_was(
    line_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    command = ["analyses", "patching", str(line_run.folder), "--pairs", "40",
               "--site", "blocks.0.attn.hook_z"]  # fmt: skip
    assert main([*command, "--out", "whole"]) == 0
    real, done = patching.patch_model, []

    def cut_off(subject: Subject, k: int, *rest: object) -> dict[str, np.ndarray]:
        if k == 1 and len(done) == 1:
            done.append(k)
            raise KeyboardInterrupt
        done.append(k)
        return real(subject, k, *rest)  # pyright: ignore

    monkeypatch.setattr(patching, "patch_model", cut_off)
    capsys.readouterr()
    assert main([*command, "--out", "cut"]) == 130
    assert "finished parts are in cut/parts: the same command goes on" in capsys.readouterr().err
    assert main([*command[:-2], "--out", "cut"]) == 2
    assert "parts of another analysis (other site)" in capsys.readouterr().err
    assert main([*command, "--out", "cut"]) == 0
    assert done == [0, 1, 1], "the first model was not done again"
    assert Path("cut/patching.csv").read_bytes() == Path("whole/patching.csv").read_bytes()
    assert not Path("cut/parts").exists()
    assert main([*command, "--out", "cut"]) == 2
    assert "cut exists: nothing was written; give another --out FOLDER" in capsys.readouterr().err


def test_parts_of_other_settings_are_refused(tmp_path: Path) -> None:
    Parts(tmp_path / "parts", {"pairs": 3}).get("x", lambda: {"y": np.arange(3)})
    with pytest.raises(TbttError, match=r"has parts of another analysis \(other pairs\)"):
        Parts(tmp_path / "parts", {"pairs": 4})
    again = Parts(tmp_path / "parts", {"pairs": 3}).get("x", lambda: {"y": np.zeros(0)})
    assert again["y"].tolist() == [0, 1, 2]


def test_what_is_ablated_in_a_planted_model_is_what_it_needs() -> None:
    table = ablation_table(copying_subject())
    parts = table[table["kind"] != "random direction"]
    lost = parts.set_index(["kind", "number", "mode"])["lost"]
    for mode in ("zero", "mean", "resample"):
        assert lost["head", 0, mode] > 1
        assert abs(lost["head", 1, mode]) < 1e-9 and abs(lost["MLP", 0, mode]) < 1e-9
    assert abs(lost["head", 0, "same answer"]) < 0.1  # after "=" it looks at everything a little


def test_a_neuron_stands_beside_the_random_direction_of_its_rank(subject: Subject) -> None:
    table = ablation_table(subject)
    summary = ablation_summary(table)
    neurons = summary[(summary["kind"] == "neuron") & (summary["mode"] == "mean")]
    seen = neurons[neurons["split"] == "seen"].sort_values("number")
    assert seen["number"].tolist() == list(range(14))
    assert (np.diff(seen["lost"]) <= 1e-9).all() and (np.diff(seen["lost_null"]) <= 1e-9).all()
    first = table[(table["kind"] == "neuron") & (table["mode"] == "mean") & (table["rank"] == 0)]
    mean = first[first["split"] == "seen"]["lost"].mean()
    assert seen["lost"].iloc[0] == pytest.approx(mean)


def test_means_are_taken_at_the_same_place_from_the_prompt_s_end() -> None:
    values = torch.tensor([[1.0, 2.0, 9.0], [5.0, 6.0, 7.0]])[..., None]
    means = mean_by_place(values, torch.tensor([0, 1]), torch.tensor([2, 3]))
    assert means[..., 0].tolist() == [[3.5, 4.5, 0.0], [5.0, 3.5, 4.5]]  # 9 is padding


def test_neuron_maps_hold_every_equation(subject: Subject) -> None:
    maps = neuron_maps(subject)
    assert len(maps) == 2 * 14 * 200
    row = maps.query("seed == 1 and neuron == 3 and operator == '-' and a == 4 and b == 8").iloc[0]
    tokens = torch.tensor([subject.vocabulary.encode("<4-8=")])
    post = subject.models[1].run_with_cache(tokens)[1]["blocks.0.mlp.hook_post"]
    assert row["activation"] == pytest.approx(float(post[0, -1, 3]), abs=1e-5)


def test_the_whole_is_drawn_said_and_counted(subject: Subject) -> None:
    result = analyse_patching(subject, ordered_pairs(subject).sample(60, seed=0))
    for name, draw in result.figures.items():
        assert draw().data, name
    assert any(re.search(r"head 0.0, taken from another example, costs 0\.", str(f))
               for f in result.findings)  # fmt: skip
    assert result.shown.shape == (3 * len(sites_of(subject)), 2 + 8)
    titles = [a.text for a in figures.patching_grid(result.tables["patching"]).layout.annotations]
    assert any("denoising, a differs" in title and "nats apart" in title for title in titles)


def test_where_no_other_example_has_the_answer_nothing_is_said_of_it(facts_run: Run) -> None:
    summary = ablation_summary(ablation_table(Subject.of_run(facts_run)))
    assert summary["lost_null"][summary["kind"] != "neuron"].isna().all()

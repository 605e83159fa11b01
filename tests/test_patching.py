"""Patching finds what is planted, agrees with TransformerLens, and loses nothing when cut off."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from planted import TASK, copying_models, models_of, prompts_of, random_transformer
from transformer_lens import patching as tl_patching

from tbtt_interp.analyses import patching
from tbtt_interp.analyses.ablation import ablation_table
from tbtt_interp.analyses.pairs import chosen_pairs, one_pair, ordered_pairs
from tbtt_interp.analyses.path_patching import analyse_paths
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import Location, mean_by_position
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.tasks import Example


@pytest.fixture(scope="module")
def models(line_run: Run) -> Models:
    return Models.of(line_run)


@pytest.fixture(scope="module")
def prompts(models: Models) -> PromptSet:
    return models.shared_prompts


def of_answers(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["role"] == "answer") & (table["metric"] == patching.METRICS[0])]


def test_a_planted_circuit_is_found_where_it_is_and_nowhere_else():
    """By denoising and by noising; a source with the same answer restores nothing, any one half.

    A random source's b lowers the corrupted answer's logit and does not raise the clean one.
    """
    planted = patching.patching_table(copying_models())
    carries = {
        ("hook_resid_pre", None, "b"), ("attn.hook_v", 0, "b"), ("attn.hook_z", 0, "="),
        ("hook_attn_out", None, "="), ("hook_resid_mid", None, "="),
        ("hook_resid_post", None, "="),
    }  # fmt: skip
    assert set(planted["direction"]) == {"denoising", "noising"}
    assert set(planted["changed"]) == {"b"}, "where a differs both prompts have one answer"
    rows = of_answers(planted)
    value = rows.query("site == 'blocks.0.attn.hook_v' and head == 0 and position == 'b'").iloc[0]
    assert value["same_answer"] == pytest.approx(0, abs=1e-9)
    assert 0.4 < value["random"] < 0.6
    for row in rows[rows["position"] != "all"].to_dict("records"):
        head = None if pd.isna(row["head"]) else row["head"]
        key = (row["site"].removeprefix("blocks.0."), head, row["position"])
        assert row["fraction_restored"] == pytest.approx(float(key in carries), abs=1e-9), key


def test_patching_a_run_with_itself_changes_nothing(models, prompts):
    pairs = ordered_pairs(prompts).sample(20, seed=1)
    same = dataclasses.replace(pairs, corrupted=pairs.clean)
    locations = patching.locations_of(models.first, pairs.batch(pairs.clean))
    total, effect = patching.patch_pairs(models.first, same, locations)
    assert float(total.abs().max()) == 0
    assert float(effect[0].abs().max()) < 1e-4  # batches of another size sum in another order


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_patching_everything_is_the_other_run(models, prompts, direction, monkeypatch):
    """Also where the pairs do not fit one forward pass."""
    monkeypatch.setattr(patching, "TOKENS_AT_ONCE", 2 * 9 * 20)
    pairs = ordered_pairs(prompts).sample(50, seed=2)
    locations = [Location("blocks.0.hook_resid_pre"), Location("blocks.0.attn.hook_z", 0)]
    total, effect = patching.patch_pairs(models.first, pairs, locations, direction)
    assert float(total.abs().max()) > 1
    torch.testing.assert_close(effect[0], total.expand_as(effect[0]), atol=1e-3, rtol=1e-3)


def test_the_grid_equals_transformer_lens_on_the_same_pair(models, prompts):
    pairs, model = one_pair(prompts, "3+4", "3+9"), models.first
    clean, corrupted = pairs.batch(pairs.clean), pairs.batch(pairs.corrupted)
    right, wrong = (prompts.vocabulary.encode(c)[0] for c in "71")
    cache = model.run_with_cache(clean.tokens)[1]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, 4, right] - logits[0, 4, wrong]

    before = metric(model(corrupted.tokens))
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
        grid = patching.locations_of(model, clean, [f"blocks.0.{site}"])
        _, effect = patching.patch_pairs(model, pairs, [x for x in grid if x.pos is not None])
        expected = (function(model, corrupted.tokens, cache, metric).flatten() - before).detach()
        torch.testing.assert_close(effect[0, :, 0, 0].float(), expected, atol=1e-4, rtol=1e-4)
        assert site == "hook_mlp_out" or float(expected.abs().max()) > 0.1


def test_every_ordered_pair_is_listed_once(prompts):
    """2 operators x 10 operands x 90 ordered pairs for a, as many for b, 200 for the operator."""
    pairs = ordered_pairs(prompts)
    counts = {label: len(numbers) for label, numbers in pairs.by_change().items()}
    assert counts == {"a": 1800, "b": 1800, "operator": 180}
    assert pairs.left_out == {"one answer for both": 20}  # a+0 and a-0
    assert len(set(zip(pairs.clean, pairs.corrupted, strict=True))) == len(pairs)


def test_answers_are_scored_up_to_the_end_of_the_shorter(prompts):
    assert one_pair(prompts, "3+4", "3+9").roles == ["units", "terminator"]  # 7> and 12>
    assert one_pair(prompts, "3-4", "3-2").roles == ["sign", "units"]


def test_countries_align_by_length_and_a_note_says_that_long_prompts_are_cut(facts_run):
    models = Models.of(facts_run)
    pairs, prompts = ordered_pairs(models.shared_prompts), models.shared_prompts
    lengths = np.array([len(e.prompt) for e in prompts.examples])
    assert (lengths[pairs.clean] == lengths[pairs.corrupted]).all()
    assert pairs.left_out["prompts that do not align"] > 0
    chosen = pairs.take(np.array([*np.flatnonzero(lengths[pairs.clean] > 24)[:6], *range(6)]))
    table = patching.patching_table(models, chosen, sites=["blocks.0.hook_resid_pre"])
    figure = patching.plot_patching(table, note=" ".join(chosen.notes()))
    assert "lose their left end" in figure.layout.title.subtitle.text
    everything = of_answers(table).query("position == 'all'")
    np.testing.assert_allclose(everything["fraction_restored"], 1, atol=1e-3)
    with pytest.raises(TbttError, match=r"has 22 tokens and corrupted prompt .* has 21: give two"):
        one_pair(prompts, "Germany", "France")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["3+4", "3*9"], r"3\*9=?' has '\*', which this model has no token for"),
        (["3+4", "4+3"], "have the same answer, '7>': give two that differ"),
        (["3+4", "12"], r"prompt '12' has no known answer: give one of the task's own, such as"),
    ],
)
def test_a_bad_pair_is_one_clear_line(prompts, arguments, message):
    with pytest.raises(TbttError, match=message):
        one_pair(prompts, *arguments)


def test_pairs_of_held_out_equations_are_of_a_pair_that_every_model_holds_out(models, prompts):
    with pytest.raises(TbttError, match=r"4,7 is not held out in every .*: those that are: 5,7"):
        chosen_pairs(models, held_out="4,7")
    with pytest.raises(TbttError, match="'57' must be two operands, as in 5,7"):
        chosen_pairs(models, held_out="57")
    pairs = chosen_pairs(models, held_out="5,7")
    clean = {prompts.examples[k].prompt for k in pairs.clean}
    assert clean == {"<5+7=", "<7+5=", "<5-7=", "<7-5="}


def test_null_sources_have_the_base_s_answer_and_are_not_of_the_pair(prompts):
    pairs = ordered_pairs(prompts)
    answers = np.array([e.answer for e in prompts.examples])
    source, is_known = pairs.source_examples("same answer", pairs.corrupted, seed=0)
    assert (answers[source] == answers[pairs.corrupted]).all()
    assert ((source != pairs.clean) & (source != pairs.corrupted))[is_known].all()
    assert set(answers[pairs.corrupted[~is_known]]) >= {"18>", "-9>"}  # 9+9 and 0-9 alone


def test_an_interrupted_grid_goes_on_where_it_was(line_run, printed, refused, monkeypatch, capsys):
    command = ["analyses", "patching", str(line_run.folder), "--clean", "3+4", "--corrupted", "3+9",
               "--site", "blocks.0.attn.hook_z"]  # fmt: skip
    printed(*command, "--out", "whole")
    real, done = patching.patching_sums, []

    @functools.wraps(real)
    def cut_off(model: object, prompts: PromptSet, *rest: object) -> dict[str, np.ndarray]:
        done.append(prompts.number)
        if done == [0, 1]:
            raise KeyboardInterrupt
        return real(model, prompts, *rest)

    monkeypatch.setattr(patching, "patching_sums", cut_off)
    assert main([*command, "--out", "cut"]) == 130
    assert "finished seeds are in cut/parts: the same command goes on" in capsys.readouterr().err
    assert "parts of another analysis" in refused(*command[:-2], "--out", "cut")
    printed(*command, "--out", "cut")
    assert done == [0, 1, 1], "the first model was not patched again"
    assert Path("cut/patching.csv").read_bytes() == Path("whole/patching.csv").read_bytes()
    assert not Path("cut/parts").exists()


def test_ablating_what_a_planted_model_needs_costs_its_answers():
    table = over_seeds(copying_models(), ablation_table)
    whole = table[table["kind"] != "random direction"]
    drop = whole.set_index(["kind", "number", "mode"])["logprob_drop"]
    for mode in ("zero", "mean", "resample"):
        assert drop["head", 0, mode] > 1
        assert abs(drop["head", 1, mode]) < 1e-9 and abs(drop["MLP", 0, mode]) < 1e-9
    assert abs(drop["head", 0, "same answer"]) < 0.1  # after "=" it attends a little everywhere


def test_a_result_has_figures_claims_and_a_display(models, prompts):
    result = patching.analyse_patching(models, ordered_pairs(prompts).sample(20, seed=0))
    assert "costs 0." in str(result.claim("Head 0.0, resampled from another example,"))
    assert "restores" in str(result.claim("Where a differs, blocks.0.hook_mlp_out at"))
    assert result.display.shape == (3 * 8, 2 + 8)
    titles = [note.text for note in result.figures["patching"]().layout.annotations]
    assert any("denoising, a differs" in title and "nats apart" in title for title in titles)
    assert all(draw().data for draw in result.figures.values())
    neurons = result.tables["ablations"].query("kind == 'neuron' and mode == 'mean'")
    assert sorted(neurons.query("split == 'seen'")["number"]) == list(range(14))


def test_a_model_without_mlps_is_patched_and_its_heads_are_ablated():
    model = random_transformer(d_model=8, n_heads=2, attn_only=True)
    models = models_of(model, examples=TASK.examples[::4])  # enough, and quick
    result = patching.analyse_patching(
        models, ordered_pairs(models.shared_prompts).sample(8, seed=0)
    )
    assert "hook_attn_out" in " ".join(result.tables["patching"]["site"])
    assert set(result.tables["ablations"]["kind"]) == {"head"}
    with pytest.raises(TbttError, match=r"'blocks\.0\.hook_mlp_out' is not there: the nearest"):
        patching.patching_table(models, sites=["blocks.0.hook_mlp_out"])
    with pytest.raises(TbttError, match="paths go through MLPs, and this model has none"):
        analyse_paths(models, n_pairs=4)


def test_means_are_taken_at_the_same_position_from_the_prompt_s_end():
    batch = PromptBatch.of_tokens([([1], [1, 1]), ([1, 1], [1, 1])], n_ctx=9)
    values = torch.tensor([[1.0, 2.0, 9.0], [5.0, 6.0, 7.0]])[..., None]
    means = mean_by_position(values, batch)
    assert means[..., 0].tolist() == [[3.5, 4.5, 0.0], [5.0, 3.5, 4.5]]  # 9 is padding


def test_random_sources_share_the_answer_as_often_as_chance_says():
    """Of ten digits one is the clean one's; the terminator is always the same."""
    examples = [Example.of(f"<{a}+{b}=", f"{b}>", {"a": a, "operator": "+", "b": b})
                for a in range(10) for b in range(10)]  # fmt: skip
    pairs = ordered_pairs(prompts_of(examples))
    assert pairs.shared_by_random(seed=0) == pytest.approx((0.1 + 1) / 2, abs=0.02)

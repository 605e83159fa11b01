"""A run on disk: what loads, and what a damaged one says."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import unhashed

import tbtt_interp as tbtt
from tbtt_interp.errors import TbttError
from tbtt_interp.model import forward
from tbtt_interp.runs import load_run
from tbtt_interp.tables import list_runs


def test_a_run_s_models_are_hooked_transformers_with_the_trained_logits(line_run):
    run = tbtt.load_run(line_run.folder)
    model = run.model(seed=1, step=2_500)
    assert type(model).__name__ == "HookedTransformer"
    assert not model.training
    tokens = torch.tensor([run.task.vocabulary.encode("<3+4=7>")])
    expected = forward(run.parameters(), tokens.expand(2, 1, -1), run.shape)[1]
    # float32, two orders of summation: 3e-5 on logits of size 10
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-4)


def test_a_run_is_a_table_in_a_notebook(line_run, copied):
    page = line_run._repr_html_()
    assert ": arithmetic, small, line, step 2,500 of 2,500</p>" in page
    row = line_run.metrics().query("seed == 1").iloc[-1]
    assert f">{row['held_out_right']:.0f}/{row['held_out_of']:.0f}</td>" in page
    assert f">{row['loss']:.3f}</td>" in page and ">seen −</th>" in page
    (copied / "summary.json").unlink()
    (copied / "metrics.jsonl").unlink()
    bare = load_run(copied.rename("<script>"))._repr_html_()
    assert "&lt;script&gt;" in bare and "<script>" not in bare and ">1</td>" in bare


def test_a_run_s_steps_and_models_are_those_that_are_kept(line_run):
    assert line_run.steps == tuple(range(0, 2_501, 250))
    first, second = line_run.models
    assert torch.equal(second.W_E, line_run.model(seed=1).W_E)
    assert not torch.equal(first.W_E, second.W_E)


def test_trained_tensors_only_are_stored_under_their_usual_names(line_run):
    stored = load_file(line_run.checkpoints[2_500])
    assert "blocks.0.attn.W_Q" in stored and "unembed.W_U" not in stored
    assert not any(".b_" in name or name.endswith(".b") for name in stored)
    assert {len(value) for value in stored.values()} == {2}
    suffixes = {path.suffix for path in line_run.folder.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".jsonl", ".safetensors"}, "no pickle is in a run"


def test_metrics_are_a_row_per_step_and_seed(line_run):
    metrics = line_run.metrics()
    assert set(metrics.columns) == {
        "step", "seed", "loss", "margin_seen", "margin_held_out",
        "seen_addition_right", "seen_addition_of", "seen_subtraction_right",
        "seen_subtraction_of", "held_out_right", "held_out_of",
    }  # fmt: skip
    assert len(metrics) == 2 * (2_500 // 100 + 1)


LAST = "checkpoints/step-002500.safetensors"


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(TbttError, match=r"is not a run: it has no config\.json"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b'{"seeds": ', r"config\.json is damaged .*: restore it from a copy"),
        ("config.json", b'{"seeds": [1]}', r"config\.json is not a run's configuration"),
        *((LAST, content, r"step-002500\.safetensors is damaged or truncated")
          for content in (b"", b"\xff" * 5, b"\xff" * 200)),
        *(("metrics.jsonl", content, r"metrics\.jsonl, line 1 is damaged")
          for content in (b"\xff\xfe\n", b'{"step": 0, "seeds": 3}\n',
                          b'{"step": 0, "seeds": [{}]}\n', b"1\n")),
        *(("summary.json", content, r"summary\.json is damaged")
          for content in (b"{}", b"[]", b'{"seeds": [{"seed": 5}]}')),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_breaks_one_run_and_not_the_list(
    name, content, message, copied, tmp_path
):
    (copied / name).write_bytes(content)
    with pytest.raises(TbttError, match=message):
        run = load_run(copied)
        _ = run.parameters(), run.metrics(), run.summary()
    if name in ("config.json", "metrics.jsonl"):  # which the list reads
        assert re.search(message, list_runs(tmp_path).iloc[0]["problem"])


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json", LAST])
def test_what_reads_well_and_is_not_what_training_wrote_is_refused(name, copied, line_run):
    """One figure is another, or the file is that of another run or step."""
    path = copied / name
    whole = path.read_bytes()
    if name == LAST:
        altered = [min(line_run.checkpoints.values()).read_bytes()]
        tensors = load_file(path)
        tensors["ln_final.w"][0, 0] += 1e-3
        save_file(tensors, path)
        altered.append(path.read_bytes())
    else:
        altered = [re.sub(rb"(?<=[1-9])[1-9](?=[0-9])", lambda m: b"%d" % (10 - int(m[0])), whole)]
    for content in altered:
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(TbttError, match=f"{path.name} is (damaged|not)"):
            run = load_run(copied)
            _ = run.parameters(), run.metrics(), run.summary()
    path.write_bytes(whole)
    run = load_run(copied)
    assert len(run.metrics()) and run.parameters() and run.summary()


def test_a_finished_run_without_its_last_checkpoint_is_not_taken_for_an_earlier_one(copied):
    (copied / LAST).unlink()
    with pytest.raises(TbttError, match="has lost its last checkpoint, of step 2,500: restore it"):
        load_run(copied).parameters()
    (copied / "summary.json").unlink()
    assert max(load_run(copied).checkpoints) == 2_250, "an unfinished run may be read as it is"


def test_a_checkpoint_of_another_run_says_so(copied):
    tensors = load_file(copied / LAST)
    save_file(tensors | {"embed.W_E": torch.zeros(2, 17, 28)}, copied / LAST)
    with pytest.raises(TbttError, match=r"is not this run's: embed\.W_E is \(2, 17, 28\), its c"):
        load_run(copied).parameters()
    del tensors["ln_final.w"]
    save_file(tensors, copied / LAST)
    with pytest.raises(TbttError, match=r"is not this run's: ln_final\.w is absent"):
        load_run(copied).parameters()
    unhashed(copied)
    config = (copied / "config.json").read_text()
    (copied / "config.json").write_text(config.replace('"d_model"', '"width"'))
    with pytest.raises(TbttError, match=r"config\.json is not a run's .*'width' is unknown"):
        load_run(copied).parameters()


def test_checkpoints_are_in_the_order_of_their_steps(copied):
    for step in ("1000000", "200000", "best"):
        (copied / f"checkpoints/step-{step}.safetensors").write_bytes(b"")
    assert list(load_run(copied).checkpoints)[-3:] == [2_500, 200_000, 1_000_000]


def test_a_run_without_checkpoints_or_end_says_so(copied):
    for path in (copied / "checkpoints").iterdir():
        path.unlink()
    (copied / "summary.json").unlink()
    run = load_run(copied)
    assert not run.is_complete
    with pytest.raises(TbttError, match="has no checkpoint yet: train it on with --resume"):
        run.parameters()
    with pytest.raises(TbttError, match="is not finished: train it on with --resume"):
        run.summary()


def test_listing_shows_broken_runs_beside_sound_ones(copied, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{")
    table = list_runs(tmp_path).set_index("run")
    sound = table.loc[str(copied)]
    assert (sound["status"], sound["step"], sound["size"]) == ("finished", 2_500, "small")
    assert sound["held_out_of"] == 8
    assert "is damaged" in table.loc[str(tmp_path / "other"), "problem"]
    assert list_runs(tmp_path / "none").empty

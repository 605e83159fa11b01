"""A run on disk: what loads, and what a damaged one says."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import tbtt_interp as tbtt
from tbtt_interp.errors import TbttError
from tbtt_interp.model import forward, parameter_shapes
from tbtt_interp.runs import Run, load_run
from tbtt_interp.tables import list_runs


def test_a_run_s_models_are_hooked_transformers_with_the_trained_logits(line_run):
    run = tbtt.load_run(line_run.folder)
    assert run.steps == tuple(range(0, 2_501, 250))
    model = run.model(seed=1, step=2_500)
    tokens = torch.tensor([run.task.vocabulary.encode("<3+4=7>")])
    expected = forward(run.parameters(), tokens.expand(2, 1, -1), run.shape)[1]
    # float32, two orders of summation: 3e-5 on logits of size 10
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(run.models[1](tokens), expected, rtol=0, atol=1e-4)


def test_a_run_is_a_table_in_a_notebook(line_run, copied):
    page = line_run._repr_html_()
    row = line_run.metrics().query("seed == 1").iloc[-1]
    assert ": arithmetic, small, line, step 2,500 of 2,500</p>" in page
    assert f">{row['held_out_right']:.0f}/{row['held_out_of']:.0f}</td>" in page
    (copied / "summary.json").unlink()
    (copied / "metrics.jsonl").unlink()
    bare = load_run(copied.rename("<script>"))._repr_html_()
    assert "&lt;script&gt;" in bare and "<script>" not in bare


def test_trained_tensors_only_are_stored_under_their_usual_names(line_run):
    stored = load_file(line_run.checkpoints[2_500])
    assert {name: tuple(value.shape) for name, value in stored.items()} == {
        name: (2, *shape) for name, shape in parameter_shapes(line_run.shape).items()
    }
    suffixes = {path.suffix for path in line_run.folder.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".jsonl", ".safetensors"}, "no pickle is in a run"


LAST = "checkpoints/step-002500.safetensors"


def read(run: Run) -> None:
    _ = run.parameters(), run.metrics(), run.summary()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b'{"seeds": ', r"config\.json is damaged .*: restore it from a copy"),
        ("config.json", b'{"seeds": [1]}', r"config\.json is not a run's configuration"),
        (LAST, b"\xff" * 200, r"step-002500\.safetensors is damaged or truncated"),
        *(("metrics.jsonl", content, r"metrics\.jsonl, line 1 is damaged")
          for content in (b"\xff\xfe\n", b'{"step": 0, "seeds": [{}]}\n')),
        *(("summary.json", content, r"summary\.json is damaged")
          for content in (b"[]", b'{"seeds": [{"seed": 5}]}')),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_breaks_one_run_and_not_the_list(
    name, content, message, copied, tmp_path
):
    (copied / name).write_bytes(content)
    with pytest.raises(TbttError, match=message):
        read(load_run(copied))
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
            read(load_run(copied))
    path.write_bytes(whole)
    read(load_run(copied))


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


def test_checkpoints_are_in_the_order_of_their_steps(copied):
    for step in ("1000000", "200000", "best"):
        (copied / f"checkpoints/step-{step}.safetensors").write_bytes(b"")
    assert list(load_run(copied).checkpoints)[-3:] == [2_500, 200_000, 1_000_000]


def test_a_run_without_checkpoints_or_end_says_so(copied):
    for path in (copied / "checkpoints").iterdir():
        path.unlink()
    (copied / "summary.json").unlink()
    run = load_run(copied)
    with pytest.raises(
        TbttError, match="has no checkpoint yet: continue it with tbtt train --resume"
    ):
        run.parameters()
    with pytest.raises(TbttError, match="is not finished: continue it with tbtt train --resume"):
        run.summary()
    (copied / "config.json").unlink()
    with pytest.raises(TbttError, match=r"is not a run: it has no config\.json"):
        load_run(copied)


def test_listing_shows_broken_runs_beside_sound_ones(copied, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{")
    table = list_runs(tmp_path).set_index("run")
    sound = table.loc[str(copied)]
    assert (sound["status"], sound["step"], sound["held_out_of"]) == ("finished", 2_500, 8)
    assert "is damaged" in table.loc[str(tmp_path / "other"), "problem"]
    assert list_runs(tmp_path / "none").empty

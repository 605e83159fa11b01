"""Models that ship are the sweep's own, small enough, with a true card, and opened by name."""

import dataclasses
import json
import re
import runpy
import shutil
from pathlib import Path

import pack_models as packing
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny import contents, short

import tbtt_interp as tbtt
from tbtt_interp import files
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.pretrained.models import OVER_TRAINING
from tbtt_interp.runs import SHIPPED, find_runs, load_run
from tbtt_interp.train.recipe import recorded_recipe
from tbtt_interp.train.stacks import Runtime
from tbtt_interp.train.training import train_models
from tbtt_interp.train.verify import verify_run

ROOT = Path(__file__).parents[1]
pack_models, pack_run = packing.pack_models, packing.pack_run
TEN, FACTS = "arithmetic-small-line", "facts-small-file"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs as a sweep leaves them: one has ten models and 16 checkpoints, one is unfinished."""
    folder = tmp_path_factory.mktemp("swept") / "ladder"
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder.parent)
        each = tuple(((k, k),) for k in range(10))
        recipe = short(seeds=10, **{"training.steps": 15, "training.checkpoint_every": 1})
        train_models(dataclasses.replace(recipe, held_out_each=each), folder / TEN)
        facts = short(task="facts", framing="file", **{"training.batch": 8})
        train_models(facts, folder / FACTS, runtime=Runtime(compiled=False))
    shutil.copytree(folder / FACTS, folder / "cut-off")
    (folder / "cut-off/summary.json").unlink()
    return folder


@pytest.fixture(scope="module")
def packed(swept: Path) -> Path:
    pack_models(swept, swept.parent / "packed")
    return swept.parent / "packed"


@pytest.fixture
def shipped(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package, as if it came with the packed runs."""
    monkeypatch.setattr("tbtt_interp.runs.SHIPPED", packed)
    return packed


def test_a_packed_run_is_the_first_models_of_the_sweep_s_in_the_same_bytes(swept, packed, tmp_path):
    run, whole = load_run(packed / TEN), load_run(swept / TEN)
    assert run.seeds == tuple(range(8)) and list(run.checkpoints) == [15]
    for name, stacked in whole.parameters().items():
        assert torch.equal(run.parameters()[name], stacked[:8])
    first = whole.metrics().query("seed < 8").reset_index(drop=True)
    pd.testing.assert_frame_equal(run.metrics(), first)
    assert run.summary()["seeds"] == whole.summary()["seeds"][:8]
    recipe = recorded_recipe(run.config.recipe or {})
    assert recipe.seed_list == run.seeds
    assert recipe.held_out_each == run.config.held_out == tuple(((k, k),) for k in range(8))
    orders = tuple(recipe.order_seed(s, run.tasks[0]) for s in run.seeds)
    assert orders == run.config.order_seeds
    assert "Each seed holds out equations of its own" in (run.folder / "README.md").read_text()
    pack_models(swept, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(packed)


def test_one_model_s_checkpoints_are_spread_over_its_training(swept, packed):
    run, whole = load_run(packed / (TEN + OVER_TRAINING)), load_run(swept / TEN)
    steps = list(run.checkpoints)
    assert len(whole.checkpoints) == 16 and len(steps) == 13
    assert run.seeds == (0,) and (steps[0], steps[-1]) == (0, 15)
    for step in steps:
        ours, theirs = (models.parameters(step)["embed.W_E"] for models in (run, whole))
        assert torch.equal(ours, theirs[:1])


def test_what_is_not_packed_is_named_with_the_reason(swept, capsys, monkeypatch):
    shutil.copytree(swept / FACTS, f"mixed/{FACTS}")
    shutil.copytree(swept / "cut-off", "mixed/cut-off")
    monkeypatch.setattr("sys.argv", ["pack_models.py", "mixed", "out"])
    packing.main()
    assert re.fullmatch(r"\d\.\d MB in out\.\nLeft out: cut-off: .* is not finished: .*\n",
                        capsys.readouterr().out)  # fmt: skip
    assert {path.name.removesuffix(OVER_TRAINING) for path in Path("out").iterdir()} == {FACTS}


def test_packing_writes_all_or_nothing(swept, monkeypatch):
    def refused(folder: str, to: str, message: str) -> None:
        before = contents(Path())
        with pytest.raises(TbttError, match=message):
            pack_models(Path(folder), Path(to))
        assert contents(Path()) == before

    shutil.copytree(swept / FACTS, f"one/{FACTS}")
    for place in "ab":
        shutil.copytree(swept / FACTS, f"two/{place}/same")
    refused("none", "out", "there is no finished run below none: train some with")
    refused("one", "two", "two exists and is not a run: nothing was written")
    refused("two", "out", "two runs below two are called same: rename one of them")
    monkeypatch.setattr(packing, "LIMIT", 1_000)
    refused("one", "out", r"come to 0\.\d MB, of which .* at most 0 ship: leave out")


@pytest.mark.parametrize("where", ["packed", "shipped"])
def test_what_ships_is_small_safe_and_answers_as_its_card_says(where, packed, monkeypatch):
    """What was packed here, and what really ships."""
    monkeypatch.setenv("CXX", "/no/such/compiler")  # torch counts the same answers
    weights = packed if where == "packed" else SHIPPED
    assert packing.folder_bytes(weights) < packing.LIMIT
    for folder in find_runs(weights):
        run = load_run(folder)
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".jsonl", ".safetensors", ".md"}, folder
        for step, path in run.checkpoints.items():
            assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float32}
            assert run.parameters(step), "which checks its hash"
        assert run.summary()["weights"] == files.weights_hash(run.parameters())
        assert run.summary()["files"] == files.file_hashes(folder)
        card = ModelCard.load(folder / "README.md")
        assert (card.data.license, card.data.library_name) == ("mit", "tbtt_interp")
        assert {"mechanistic-interpretability", run.tasks[0].name} <= set(card.data.tags)
        evaluation = evaluate_run(run)
        for seed, counts in zip(run.seeds, evaluation.counts(), strict=True):
            cells = " | ".join(f"{right}/{of}" for right, of in counts.values())
            assert f"| {seed} | {cells} |" in card.text, folder
        margins = [row["margin_seen"] for row in run.summary()["seeds"]]
        found = [row["margin_seen"] for row in evaluation.rows()]
        assert found == pytest.approx(margins, abs=1e-3)  # float32, on whatever machine


@pytest.mark.usefixtures("by_torch")
def test_a_card_of_a_reader_s_own_corpus_grants_no_licence(tmp_path):
    (tmp_path / "mine.txt").write_text("ab:a\ncd:c\nef:e\n")
    run = train_models(short(task="mine.txt"), "run")
    packed = pack_run(run, tmp_path / "packed", models=1, steps=[12])
    card = ModelCard.load(packed.folder / "README.md")
    assert "license" not in card.data.to_dict() and card.data.tags[-1] == "mine"
    assert "arXiv" not in card.text and "Nothing is held out." in card.text


def test_a_model_that_ships_is_opened_by_name(shipped):
    run = tbtt.load_pretrained(TEN)
    assert (run.folder, run.seeds) == (shipped / TEN, tuple(range(8)))
    over = tbtt.load_pretrained(TEN, over_training=True)
    assert over.folder == tbtt.load_run(TEN + OVER_TRAINING).folder == shipped / over.folder.name
    nearest = r"model 'arithmetic-small-lime' does not come with the package \(did you mean 'arit"
    with pytest.raises(TbttError, match=nearest):
        tbtt.load_pretrained("arithmetic-small-lime")
    both = r"'arithmetic-small-line'\?\): `tbtt runs` lists those under runs/, `tbtt models` those"
    with pytest.raises(TbttError, match=both):
        load_run("arithmetic-small-lime")
    with pytest.raises(TbttError, match="is not there"):
        load_run("../packed/" + TEN)
    shutil.copytree(shipped / FACTS, TEN)
    assert load_run(TEN).config.task == "facts", "a folder goes before a model of its name"


def test_where_none_ship_it_says_what_to_do(tmp_path, monkeypatch, printed):
    monkeypatch.setattr("tbtt_interp.runs.SHIPPED", tmp_path / "none")
    with pytest.raises(TbttError, match=r"model 'x' does not .* no models come .*`tbtt sweep"):
        tbtt.load_pretrained("x")
    assert "train some (`tbtt sweep ladder`), and load them" in printed("models")
    assert json.loads(printed("models", "--json")) == []


def test_commands_and_studies_take_a_name_and_leave_the_models_as_they_are(
    shipped, printed, capsys, monkeypatch
):
    before = contents(shipped)
    assert TEN in printed("evaluate", TEN)
    monkeypatch.setattr("sys.argv", ["learning.py", FACTS])
    runpy.run_path(str(ROOT / "analyses/learning.py"), run_name="__main__")
    assert "know some of the order" in capsys.readouterr().out
    assert contents(shipped) == before


def test_models_are_listed_with_what_they_answer(shipped, printed):
    rows = {row["name"]: row for row in json.loads(printed("models", "--json"))}
    assert rows.keys() == {TEN, FACTS}
    counts = evaluate_run(load_run(TEN)).counts()
    seen = sum(right for model in counts for group, (right, _) in model.items() if "seen" in group)
    assert (rows[TEN]["seen_right"], rows[TEN]["seen_of"]) == (seen, 8 * 198)
    assert (rows[TEN]["seeds"], rows[TEN]["steps"], rows[TEN]["over_training"]) == (8, 15, 13)
    line = rf"{TEN} +arithmetic +small +line +8 +15 +\d+/1584 +\d+/16 "
    assert re.search(line, printed("models"))


@pytest.mark.parametrize("name", ["arithmetic-small-line", "facts-small-line"])
def test_a_model_that_ships_is_trained_again_to_the_same_bytes(name: str) -> None:
    run = tbtt.load_pretrained(name, over_training=True)
    first = min(step for step in run.checkpoints if step > 0)
    assert verify_run(run, first).is_same

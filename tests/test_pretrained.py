"""Models that ship are the sweep's own, small enough, with a true card, and opened by name."""

import dataclasses
import json
import re
import runpy
import shutil
from itertools import pairwise
from pathlib import Path

import pack_models as packing
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import contents, short

import tbtt_interp as tbtt
from tbtt_interp import files
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.pretrained.models import OVER_TRAINING
from tbtt_interp.runs import SHIPPED, find_runs, load_run
from tbtt_interp.train.recipe import recorded_recipe, resolve_recipe
from tbtt_interp.train.stacks import Runtime
from tbtt_interp.train.training import train_models
from tbtt_interp.train.verify import verify_run

ROOT = Path(__file__).parents[1]
pack_models, pack_run = packing.pack_models, packing.pack_run
MEDIUM, TEN, FACTS = "arithmetic-medium-file", "arithmetic-small-line", "facts-small-file"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs as a sweep leaves them: one has ten models and 16 checkpoints, one is unfinished."""
    folder = tmp_path_factory.mktemp("swept") / "ladder"

    def train(name: str, steps: int, evaluate: int, checkpoint: int, **flags: object) -> None:
        often = {"training.evaluate_every": evaluate, "training.checkpoint_every": checkpoint}
        recipe = resolve_recipe("quick", {"training.steps": steps, **often, **flags})
        # those of capitals are of a shape of their own, which is not compiled for six steps
        compiled = False if recipe.task == "facts" else None
        train_models(recipe, folder / name, runtime=Runtime(compiled=compiled))

    train(MEDIUM, 120, 40, 60, **{"seeds": 3, "training.batch": 32})
    train(TEN, 15, 5, 1, **{"seeds": 10, "model.size": "small", "framing": "line"})
    train(FACTS, 6, 3, 3, **{"seeds": 2, "model.size": "small", "task": "facts"})
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


@pytest.fixture(params=["packed", "shipped"])
def weights(request: pytest.FixtureRequest, packed: Path) -> Path:
    """What was packed here, and what really ships, if anything does."""
    return packed if request.param == "packed" else SHIPPED


def test_a_packed_run_is_the_first_models_of_the_sweep_s(swept, packed):
    run, whole = load_run(packed / TEN), load_run(swept / TEN)
    assert run.seeds == tuple(range(8)) and list(run.checkpoints) == [15]
    for name, stacked in whole.parameters().items():
        assert torch.equal(run.parameters()[name], stacked[:8])
    first = whole.metrics().query("seed < 8").reset_index(drop=True)
    pd.testing.assert_frame_equal(run.metrics(), first)
    assert run.summary()["seeds"] == whole.summary()["seeds"][:8]
    assert run.config.order_seeds == whole.config.order_seeds[:8]
    for folder in find_runs(packed):
        run = load_run(folder)
        recipe = recorded_recipe(run.config.recipe or {})
        assert recipe.seed_list == run.seeds
        assert tuple(recipe.order_seed(s, run.task) for s in run.seeds) == run.config.order_seeds


def test_one_model_s_checkpoints_are_spread_over_its_training(swept, packed):
    run, whole = load_run(packed / (TEN + OVER_TRAINING)), load_run(swept / TEN)
    steps = list(run.checkpoints)
    assert len(whole.checkpoints) == 16 and len(steps) == 13
    assert run.seeds == (0,) and (steps[0], steps[-1]) == (0, 15)
    assert max(later - step for step, later in pairwise(steps)) == 2
    for step in steps:
        ours, theirs = (models.parameters(step)["embed.W_E"] for models in (run, whole))
        assert torch.equal(ours, theirs[:1])
    assert set(run.metrics()["seed"]) == {0}


def test_what_each_model_holds_out_goes_with_it(tmp_path):
    each = (((1, 2),), ((5, 5),), ((9, 9),))
    recipe = dataclasses.replace(short(seeds=3), held_out_each=each)
    run = pack_run(train_models(recipe, "run"), tmp_path / "two", models=2, steps=[12])
    assert run.config.held_out == each[:2]
    assert recorded_recipe(run.config.recipe or {}).held_out_each == each[:2]
    assert "Each seed holds out equations of its own" in (run.folder / "README.md").read_text()


def test_packing_again_gives_the_same_bytes(swept, packed, tmp_path):
    pack_models(swept, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(packed)
    run = load_run(packed / TEN)
    copy = pack_run(run, tmp_path / TEN, models=8, steps=[15])
    assert contents(copy.folder) == contents(run.folder)


def test_what_is_not_packed_is_named_with_the_reason(swept, tmp_path, capsys, monkeypatch):
    export_checkpoint(load_run(swept / TEN), tmp_path / "ckpt.pt")
    folder = tmp_path / "mixed"
    shutil.copytree(swept, folder, ignore=shutil.ignore_patterns(MEDIUM, TEN))
    import_checkpoint(tmp_path / "ckpt.pt", "arithmetic", folder / "theirs")
    for name in ("a", "b", "c"):
        shutil.copytree(swept / TEN, folder / name)
    (folder / "a/config.json").write_text("{")
    (folder / "b/checkpoints/step-000015.safetensors").unlink()
    (folder / "c/metrics.jsonl").unlink()
    monkeypatch.setattr("sys.argv", ["pack_models.py", str(folder), "out"])
    packing.main()
    assert re.match(r"\d\.\d MB in out\.\n", out := capsys.readouterr().out)
    for name, reason in {
        "cut-off": "is not finished: train it on with --resume", "theirs": "is an imported model",
        "a": "is damaged", "b": "has lost its last checkpoint, of step 15",
        "c": "metrics.jsonl is not as training wrote it .it is gone",
    }.items():  # fmt: skip
        assert re.search(rf"^Left out: {name}: .*{reason}", out, flags=re.MULTILINE)
    assert {path.name.removesuffix(OVER_TRAINING) for path in Path("out").iterdir()} == {FACTS}


def test_packing_writes_all_or_nothing(swept, tmp_path, monkeypatch):
    shutil.copytree(swept / FACTS, tmp_path / "one" / FACTS)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TbttError, match="there is no finished run below none: train some with"):
        pack_models(Path("none"), tmp_path / "out")
    monkeypatch.setattr(packing, "LIMIT", 1_000)
    with pytest.raises(TbttError, match=r"come to 0\.\d MB, of which .* at most 0 ship: leave out"):
        pack_models(tmp_path / "one", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(TbttError, match="mine exists and is not a run: nothing was written"):
        pack_models(tmp_path / "one", tmp_path / "mine")
    shutil.copytree(swept / TEN, tmp_path / "two/a/same")
    shutil.copytree(swept / TEN, tmp_path / "two/b/same")
    with pytest.raises(TbttError, match=r"two runs below .* are called same: rename one of them"):
        pack_models(tmp_path / "two", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_ships_is_small_safe_and_answers_as_its_card_says(weights, monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/compiler")  # torch counts the same answers
    assert packing.folder_bytes(weights) < packing.LIMIT
    for folder in find_runs(weights):
        run = load_run(folder)
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".jsonl", ".safetensors", ".md"}, folder
        for step, path in run.checkpoints.items():
            tensors = load_file(path)
            assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
            known = json.loads(metadata["tbtt_interp"])
            assert (known["step"], tuple(known["seeds"])) == (step, run.seeds)
            assert known["weights"] == files.weights_hash(tensors)
        assert run.summary()["weights"] == files.weights_hash(run.parameters())
        assert run.summary()["files"] == files.file_hashes(folder)
        assert len(run.summary()["files"]) == len(run.checkpoints) + 2
        card = ModelCard.load(folder / "README.md")
        assert (card.data.license, card.data.library_name) == ("mit", "tbtt_interp")
        assert {"mechanistic-interpretability", run.tasks[0].name} <= set(card.data.tags)
        evaluation = evaluate_run(run)
        for seed, counts in zip(run.seeds, evaluation.counts(), strict=True):
            cells = " | ".join(f"{rate.hits}/{rate.total}" for rate in counts.values())
            assert f"| {seed} | {cells} |" in card.text, folder
        margins = [row["margin_seen"] for row in run.summary()["seeds"]]
        found = [row["margin_seen"] for row in evaluation.rows()]
        assert found == pytest.approx(margins, abs=1e-3)  # float32, on whatever machine


@pytest.mark.usefixtures("by_torch")
def test_a_card_of_a_reader_s_own_corpus_grants_no_licence(tmp_path):
    (tmp_path / "mine.txt").write_text("ab:a\ncd:c\nef:e\n")
    run = train_models(short(task="mine.txt"), "run")
    packed = pack_run(run, tmp_path / "packed", models=1, steps=[12])
    assert packed.task.examples == run.task.examples
    card = ModelCard.load(packed.folder / "README.md")
    assert "license" not in card.data.to_dict() and card.data.tags[-1] == "mine"
    assert "arXiv" not in card.text and "Nothing is held out." in card.text


def test_a_model_that_ships_is_opened_by_name(shipped):
    run = tbtt.load_pretrained(MEDIUM)
    assert (run.folder, run.seeds) == (shipped / MEDIUM, (0, 1, 2))
    assert type(run.model(seed=2)).__name__ == "HookedTransformer"
    over = tbtt.load_pretrained(MEDIUM, over_training=True)
    assert list(over.checkpoints) == [0, 60, 120] and over.seeds == (0,)
    assert tbtt.load_run(MEDIUM + OVER_TRAINING).folder == over.folder
    nearest = (
        "model 'arithmetic-medum-file' does not come with the package (did you mean "
        "'arithmetic-medium-file'?): `tbtt models` lists those that do"
    )
    with pytest.raises(TbttError, match=re.escape(nearest)):
        tbtt.load_pretrained("arithmetic-medum-file")


def test_where_none_ship_it_says_what_to_do(tmp_path, monkeypatch, printed):
    monkeypatch.setattr("tbtt_interp.runs.SHIPPED", tmp_path / "none")
    with pytest.raises(TbttError, match=r"model 'x' does not .* no models come .*`tbtt sweep"):
        tbtt.load_pretrained("x")
    assert "train some (`tbtt sweep ladder`), and load them" in printed("models")
    assert json.loads(printed("models", "--json")) == []


def test_an_unknown_run_names_both_places_to_look(shipped):
    both = (
        "run arithmetic-small-lime is not there (did you mean 'arithmetic-small-line'?): "
        "`tbtt runs` lists those under runs/, `tbtt models` those that come with the package"
    )
    with pytest.raises(TbttError, match=re.escape(both)):
        load_run("arithmetic-small-lime")
    with pytest.raises(TbttError, match="is not there"):
        load_run("../packed/" + TEN)
    shutil.copytree(shipped / MEDIUM, TEN)
    assert load_run(TEN).config.size == "medium", "a folder goes before a model of its name"


def test_commands_and_studies_take_a_name_and_leave_the_models_as_they_are(
    shipped, printed, capsys, monkeypatch
):
    before = contents(shipped)
    for command in (
        ["evaluate", MEDIUM], ["export", MEDIUM, "--seed", "2", "--out", "ckpt.pt"],
        ["analyses", "additivity", MEDIUM + OVER_TRAINING, "--over-steps"],
    ):  # fmt: skip
        assert MEDIUM in printed(*command)
    printed("ask", MEDIUM, "3+4")
    monkeypatch.setattr("sys.argv", ["learning.py", MEDIUM])
    runpy.run_path(str(ROOT / "analyses/learning.py"), run_name="__main__")
    assert "know some of the order" in capsys.readouterr().out
    assert contents(shipped) == before


def test_models_are_listed_with_what_they_answer(shipped, printed):
    rows = {row["name"]: row for row in json.loads(printed("models", "--json"))}
    assert rows.keys() == {MEDIUM, TEN, FACTS}
    counts = evaluate_run(load_run(TEN)).counts()
    seen = sum(rate.hits for model in counts for group, rate in model.items() if "seen" in group)
    assert (rows[TEN]["seen_right"], rows[TEN]["seen_of"]) == (seen, 8 * 196)
    assert (rows[TEN]["seeds"], rows[TEN]["steps"], rows[TEN]["over_training"]) == (8, 15, 13)
    assert rows[FACTS]["held_out_of"] == 0
    line = rf"{MEDIUM} +arithmetic +medium +file +3 +120 +\d+/588 +\d+/12 "
    assert re.search(line, printed("models"))


@pytest.mark.parametrize("name", ["arithmetic-small-line", "facts-small-line"])
def test_a_model_that_ships_is_trained_again_to_the_same_bytes(name: str) -> None:
    run = tbtt.load_pretrained(name, over_training=True)
    first = min(step for step in run.checkpoints if step > 0)
    assert verify_run(run, first).is_same

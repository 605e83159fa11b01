"""Models for transformers have our logits to rounding, and come back as they were."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import tbtt_interp as tbtt
from tbtt_interp import runs
from tbtt_interp.errors import TbttError
from tbtt_interp.model import Parameters, Shape, forward, initial_parameters
from tbtt_interp.pretrained.gpt2 import export_huggingface, import_huggingface, to_gpt2

SHIPPED = sorted(runs.shipped_runs())
FLOAT32 = 1e-6  # of the largest logit: where sums have one order these are the same bits
TEN, MANY = "arithmetic-small-line", "arithmetic-small-file-over-training"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "small"
    export_huggingface(tbtt.load_run(TEN), out, seeds=[0, 3])
    return out


@pytest.fixture
def broken(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "broken"))


def gpt2(parameters: Parameters, shape: Shape, dtype: torch.dtype) -> GPT2LMHeadModel:
    config = GPT2Config(
        n_layer=shape.layers, n_head=shape.heads, n_embd=shape.d_model, n_inner=shape.d_mlp,
        n_positions=shape.n_ctx, vocab_size=shape.d_vocab, activation_function="gelu",
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, tie_word_embeddings=shape.tied,
        bos_token_id=None, eos_token_id=None, attn_implementation="eager",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).to(dtype)
    lost = model.load_state_dict(to_gpt2(parameters, shape), strict=False)
    assert not lost.unexpected_keys and set(lost.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    return model.eval()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_has_its_logits_in_transformers(name):
    run = tbtt.load_run(name)
    window = run.shape.n_ctx
    text = "".join(run.tasks[0].lines)
    tokens = torch.tensor([run.tasks[0].vocabulary.encode(text[k : k + window])
                           for k in range(0, len(text) - window, 29)])  # fmt: skip
    last, float32 = max(run.checkpoints), (torch.float32, FLOAT32)
    cases = [*((step, *float32) for step in run.checkpoints), (last, torch.float64, 1e-12)]
    for step, dtype, tolerance in cases:
        stacked = {key: value[:1].to(dtype) for key, value in run.parameters(step).items()}
        ours = forward(stacked, tokens[None], run.shape)[0]
        model = gpt2({key: value[0] for key, value in stacked.items()}, run.shape, dtype)
        with torch.no_grad():
            theirs = model(tokens).logits
        assert (theirs - ours).abs().max() <= tolerance * ours.abs().max()


def test_transformers_reads_an_exported_folder_and_writes_the_answers(exported):
    run = tbtt.load_run(TEN)
    folder = exported / "seed-3"
    model, tokenizer = (x.from_pretrained(folder) for x in (AutoModelForCausalLM, AutoTokenizer))
    assert type(model) is GPT2LMHeadModel and model.config.n_inner == run.shape.d_mlp
    assert model.config._attn_implementation == "eager"
    examples = [example for example in run.tasks[0].examples if not example.held_out][:40]
    texts = [example.prompt for example in examples]
    assert tokenizer(texts)["input_ids"] == [run.tasks[0].vocabulary.encode(text) for text in texts]
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    written = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)
    expected = [run.model(3).generate(text, do_sample=False, verbose=False, max_new_tokens=4)
                for text in texts]  # fmt: skip
    assert [text.rstrip(">") for text in expected] == written
    assert sum(w == e.prompt + e.answer[:-1] for w, e in zip(written, examples, strict=True)) > 30


def test_the_card_says_what_the_models_are(exported):
    card = ModelCard.load(exported / "README.md")
    assert card.data.library_name == "transformers" and "arxiv:2506.09099" in card.data.tags
    assert "<5+7=12>" in card.text and "The window is 9 characters" in card.text


@pytest.mark.parametrize(("name", "steps"), [(TEN, None), (MANY, "all")])
def test_a_run_comes_back_exactly(name, steps, tmp_path):
    run = tbtt.load_run(name)
    steps = steps and list(run.checkpoints)
    folders = export_huggingface(run, tmp_path / "out", steps=steps)
    assert len(folders) == len(run.seeds) * len(steps or [1])
    again = import_huggingface(tmp_path / "out", tmp_path / "run")
    for field in ("task", "framing", "size", "shape", "vocabulary", "seeds", "held_out", "steps",
                  "order_seeds"):  # fmt: skip
        assert getattr(again.config, field) == getattr(run.config, field), field
    assert list(again.checkpoints) == (steps or [run.config.steps])
    for step in again.checkpoints:
        ours, theirs = run.parameters(step), again.parameters(step)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    export_huggingface(again, tmp_path / "third", steps=steps)  # a short card; the same models
    for folder in folders:
        inside = folder.relative_to(tmp_path / "out")
        for file in folder.iterdir():
            assert (tmp_path / "third" / inside / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("flags", [{"bias": True}, {"tied": False}, {"bias": True, "tied": False}])
def test_biased_and_untied_models_come_back_exactly(flags, broken):
    shape = Shape(layers=2, heads=2, d_model=8, d_mlp=12, n_ctx=9, d_vocab=17, **flags)
    parameters = {name: torch.randn_like(value)
                  for name, value in initial_parameters(shape, seed=0).items()}  # fmt: skip
    gpt2(parameters, shape, torch.float32)  # takes all of it
    folder = broken / "seed-0"
    config = json.loads((folder / "config.json").read_text())
    config |= {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_inner": 12,
               "tie_word_embeddings": shape.tied}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file(to_gpt2(parameters, shape), folder / "model.safetensors")
    again = import_huggingface(folder, broken / "run")
    assert again.shape == shape
    for name, value in again.parameters().items():
        assert torch.equal(value[0], parameters[name]), name


def test_what_transformers_saved_is_read_with_a_task(broken, tmp_path):
    model, tokenizer = (x.from_pretrained(broken / "seed-0")
                        for x in (AutoModelForCausalLM, AutoTokenizer))  # fmt: skip
    del model.config.tbtt_interp
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    with pytest.raises(TbttError, match=r"does not say which known task .*: give --task"):
        import_huggingface(tmp_path / "saved", tmp_path / "run")
    run = import_huggingface(tmp_path / "saved", tmp_path / "run", task="arithmetic")
    assert torch.equal(run.parameters()["embed.W_E"][0],
                       tbtt.load_run(TEN).parameters()["embed.W_E"][0])  # fmt: skip


def edited(file: str, **changes: object) -> object:
    def edit(folder: Path) -> None:
        table = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(table | changes))

    return edit


def tensors(change: object) -> object:
    def edit(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)  # pyright: ignore
        save_file(state, folder / "model.safetensors")

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edited("config.json", activation_function="gelu_new"),
         "has activation_function 'gelu_new', where these models have 'gelu'"),
        (edited("config.json", model_type="llama"), "has model_type 'llama'"),
        (edited("config.json", n_embd=10**9), "names no model: d_model must be at most 16,384"),
        (edited("config.json", n_layer=200, n_embd=8192), "numbers, of which at most"),
        (edited("config.json", n_head=3), "does not divide into 3 heads"),
        (edited("config.json", n_positions=[9]), "n_ctx is a list, must be a whole number"),
        (edited("config.json", n_inner=15), r"c_fc\.weight \(14, 14\), its config\.json says"),
        (edited("config.json", vocab_size=18), "is no tokenizer of 18 single characters"),
        (edited("config.json", tbtt_interp={"seed": -1}), "seed must be at least 0"),
        (edited("config.json", tbtt_interp={"held_out": 3}), "names no models of ours"),
        (edited("config.json", tbtt_interp={"task": "/etc/passwd"}), "does not say which known"),
        (edited("config.json", tbtt_interp={"task": ["arithmetic"]}), "does not say which known"),
        (edited("tokenizer.json", model={"vocab": {"<5": 0}}), "give a model with a token per ch"),
        (tensors(lambda s: s.pop("transformer.wpe.weight")), r"wpe\.weight absent"),
        (tensors(lambda s: s.update(more=torch.ones(3))), r"has more \(3,\), .* says absent"),
        (tensors(lambda s: s["transformer.wte.weight"].fill_(torch.nan)), "not finite"),
        (tensors(lambda s: s.update({k: v.half() for k, v in s.items()})), "of F16, and param"),
        (lambda f: (f / "config.json").write_text("[" * 10**5), r"config\.json is damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "has activation_function 'gelu_new'"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), "damaged or truncated"),
        (lambda f: (f / "model.safetensors").unlink(), "give a folder that save_pretrained"),
    ],
)  # fmt: skip
def test_a_hostile_folder_is_refused_in_a_line_and_nothing_is_written(edit, message, broken):
    edit(broken / "seed-0")
    with pytest.raises(TbttError, match=message) as caught:
        import_huggingface(broken / "seed-0", broken / "run")
    assert "\n" not in str(caught.value) and not (broken / "run").exists()


def test_folders_that_are_not_of_one_run_are_not_made_one(broken):
    path = broken / "seed-3/config.json"
    table = json.loads(path.read_text())
    path.write_text(json.dumps(table | {"tbtt_interp": {"seed": 3, "step": 4000, "task": "joint"}}))
    with pytest.raises(TbttError, match="differ in shape, characters or task: import them one"):
        import_huggingface(broken, broken / "run")


def test_the_command_line_exports_and_imports(printed, refused, tmp_path):
    printed("export", TEN, "--to", "huggingface", "--out", "models", "--seed", 3)
    assert "next: tbtt evaluate" in printed("import", "models", "--out", "again")
    assert tbtt.load_run("again").seeds == (3,)
    taken = refused("export", TEN, "--to", "huggingface", "--out", "models")
    assert "models exists and is not a run: nothing was written" in taken
    assert "format 'hf' is unknown" in refused("export", TEN, "--to", "hf", "--out", "x")
    assert "--all-steps goes with" in refused("export", TEN, "--all-steps", "--out", "x")

"""nanoGPT checkpoints become runs, and runs nanoGPT checkpoints; nothing in them is executed."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import NanoGPT
from tiny import short

from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.model import Shape
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.runs import Run
from tbtt_interp.train.training import train_models

ARGUMENTS = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 9, "bias": False,
             "vocab_size": 17, "dropout": 0.2, "mlp_expansion": 3}  # fmt: skip
TOKENS = torch.arange(9)[None]


def checkpoint(path: Path = Path("ckpt.pt"), prefix: str = "", **changes: Any) -> NanoGPT:
    """A checkpoint as nanoGPT's train.py writes it, and the model in it."""
    arguments = {**ARGUMENTS, **changes}
    layers, heads, width, n_ctx, bias, tokens, _, expansion = arguments.values()
    torch.manual_seed(0)
    model = NanoGPT(Shape(layers=layers, heads=heads, d_model=width, d_mlp=expansion * width,
                          n_ctx=n_ctx, d_vocab=tokens, bias=bias))  # fmt: skip
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    state = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save({
        "model": state, "model_args": arguments, "iter_num": 700,
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "best_val_loss": torch.tensor(0.5), "config": {"dataset": "as_math"},
    }, path)  # fmt: skip
    return model


def imported(
    folder: str = "run", path: str = "ckpt.pt", task: str = "arithmetic", **of: Any
) -> Run:
    return import_checkpoint(Path(path), task, Path(folder), **of)


def test_an_mlp_of_four_widths_goes_without_saying():
    """As in nanoGPT itself, which has no mlp_expansion and may lack bias."""
    original = checkpoint(mlp_expansion=4, bias=True)
    content = torch.load("ckpt.pt", weights_only=True)
    del content["model_args"]["mlp_expansion"], content["model_args"]["bias"]
    torch.save(content, "ckpt.pt")
    torch.testing.assert_close(imported().model()(TOKENS), original(TOKENS), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("bias", "prefix"), [(False, ""), (True, "_orig_mod.")])
def test_an_imported_model_has_the_original_s_logits_and_comes_back_exactly(bias, prefix):
    original, run = checkpoint(bias=bias, prefix=prefix), imported()
    torch.testing.assert_close(run.model()(TOKENS), original(TOKENS), rtol=0, atol=1e-4)
    assert list(run.checkpoints) == [700] and run.is_complete
    assert len(evaluate_run(run).table) == 200
    export_checkpoint(run, Path("again.pt"))
    written = torch.load("again.pt", weights_only=True)
    assert written["model"].keys() == original.state_dict().keys()
    for name, value in original.state_dict().items():
        assert torch.equal(written["model"][name], value), name
    assert written["model_args"] == {**ARGUMENTS, "bias": bias, "dropout": 0.0}


def test_the_vocabulary_may_come_from_a_text():
    characters = "".join(map(chr, range(33, 33 + 48))) + "abc \n"
    Path("text.txt").write_text(characters)
    checkpoint(vocab_size=len(characters))
    assert imported(text=Path("text.txt")).config.vocabulary == "".join(sorted(characters))


class Harm:
    """What a hostile checkpoint would do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def test_a_pickle_that_would_run_code_is_refused():
    torch.save({"model": {}, "model_args": ARGUMENTS, "config": Harm()}, "ckpt.pt")
    with pytest.raises(TbttError, match=r"ckpt\.pt was refused \(loading it would run code"):
        imported()
    assert not Path("harmed").exists() and not Path("run").exists()


def test_what_cannot_be_imported_says_why_and_writes_nothing():
    def refused(message: str, **arguments: Any) -> None:
        with pytest.raises(TbttError, match=message):
            imported(**arguments)
        assert not Path("run").exists()

    refused(r"ckpt\.pt cannot be read as a torch checkpoint \(.*\): give nanoGPT's ckpt\.pt")
    checkpoint()
    content = torch.load("ckpt.pt", weights_only=True)
    refused(r"ckpt\.pt has 17 tokens and task 'facts' 51 characters: give the text", task="facts")
    Path("text.txt").write_text("<=>")
    refused(r"text\.txt lacks the characters", text=Path("text.txt"))
    refused(r"text nowhere\.txt cannot be read", text=Path("nowhere.txt"))
    own = {"lm_head.weight": content["model"]["lm_head.weight"] + 1}
    for damaged, message in (
        ([1, 2], "no nanoGPT checkpoint, which has the entries model and model_args: give"),
        ({"model": {}, "model_args": {"n_layer": 1}},
         "has model_args that name no model: n_head is None, must be a whole number"),
        ({"model": {}, "model_args": ARGUMENTS},
         r"has no tensor transformer\.wte\.weight, which its model_args ask for"),
        (content | {"model_args": ARGUMENTS | {"n_embd": 16}},
         r"has transformer\.wte\.weight of shape \(17, 8\), its model_args say \(17, 16\)"),
        (content | {"model": content["model"] | own},
         "has an output embedding of its own, .*: give the model as a folder for transformers"),
    ):  # fmt: skip
        torch.save(damaged, "ckpt.pt")
        refused(message)


def test_an_import_that_fails_half_way_leaves_nothing(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    checkpoint()
    with monkeypatch.context() as patched:
        patched.setattr("tbtt_interp.runs.write_checkpoint", full)
        with pytest.raises(TbttError, match=r"run cannot be written \(No space left on device\)"):
            imported()
    assert {path.name for path in Path().iterdir()} == {"ckpt.pt"}


@pytest.mark.usefixtures("by_torch")
def test_what_cannot_be_exported_overwrites_nothing(line_run):
    Path("ckpt.pt").write_bytes(b"mine")
    with pytest.raises(TbttError, match=r"ckpt\.pt exists: nothing was written; give another name"):
        export_checkpoint(line_run, Path("ckpt.pt"))
    assert Path("ckpt.pt").read_bytes() == b"mine"
    run = train_models(short(**{"model.size": "L1H1D4M6", "seeds": 1}), "run")
    with pytest.raises(TbttError, match="nanoGPT's MLP is a whole multiple of the width"):
        export_checkpoint(run, Path("new.pt"))

"""Hostile checkpoints of nanoGPT: each is refused at once, and in little memory."""

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from faults.attack import HUGE, Attack, Case

from tbtt_interp.model import Shape, initial_parameters
from tbtt_interp.nanogpt import import_checkpoint, to_nanogpt

ARGUMENTS = {"n_layer": 1, "n_head": 1, "n_embd": 4, "block_size": 9, "bias": False,
             "vocab_size": 17, "mlp_expansion": 1}  # fmt: skip


def good_state() -> dict[str, Any]:
    shape = Shape(layers=1, heads=1, d_model=4, d_mlp=4, n_ctx=9, d_vocab=17)
    return to_nanogpt(initial_parameters(shape, seed=0), shape)


def save(state: dict[str, Any], name: str = "ckpt.pt", **arguments: Any) -> None:
    torch.save({"model": state, "model_args": ARGUMENTS | arguments, "iter_num": 7}, name)


def _import() -> object:
    return import_checkpoint(Path("ckpt.pt"), "arithmetic", Path("runs/theirs"))


def _repacked(name: str, content: bytes | None, compression: int = zipfile.ZIP_STORED) -> None:
    """The checkpoint with another content of the entry whose name ends so."""
    save(good_state())
    with zipfile.ZipFile("ckpt.pt") as old, zipfile.ZipFile("new.pt", "w", compression) as new:
        for entry in old.infolist():
            is_other = content is not None and entry.filename.endswith(name)
            new.writestr(entry.filename, content if is_other else old.read(entry))
    os.replace("new.pt", "ckpt.pt")


def import_cases() -> Iterator[Case]:
    """Hostile checkpoints, each of which is refused."""
    for name, make in hostile():
        yield Case(name, _import, make, must_fail=True)


def hostile() -> Iterator[tuple[str, Attack]]:
    """What each checkpoint is, and what writes it."""
    wte = "transformer.wte.weight"

    def of(change: Callable[[dict[str, Any]], object], **arguments: Any) -> Attack:
        def make() -> None:
            state = good_state()
            change(state)
            save(state, **arguments)

        return make

    def put(name: str, make: Callable[[torch.Tensor], Any]) -> Attack:
        return of(lambda state: state.update({name: make(state[name])}))

    for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "mlp_expansion"):
        for value in (-1, 0, HUGE, 10**30, 1.5, "4", None, True, [[4] * 9] * 9):
            yield f"{name} is {str(value)[:12]}", of(lambda _: None, **{name: value})
    yield "huge in every size", of(
        lambda _: None, n_layer=200, n_embd=16_000, n_head=1, block_size=8_000)  # fmt: skip
    yield "bias is a text", of(lambda _: None, bias="no")
    ln = "transformer.ln_f.weight"
    for kind in (torch.complex64, torch.int64, torch.int8, torch.bool, torch.uint8):
        yield f"a tensor of {kind}", put(ln, lambda x, kind=kind: x.to(kind))
    yield "a sparse tensor", put(wte, lambda x: x.to_sparse())
    yield (
        "a quantized tensor",
        put(wte, lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.qint8)),
    )
    for value in (float("nan"), float("inf")):
        yield f"a {value}", put(ln, lambda x, value=value: x * value)
    yield "no tensor", put(ln, lambda x: x.tolist())
    yield "a tensor of no dimension", put(ln, lambda x: x[0])
    yield "a tensor with one row more", put(wte, lambda x: torch.cat([x, x[:1]]))
    yield "a tensor that is missing", of(lambda state: state.pop(ln))
    yield "a tensor too many", of(lambda state: state.update({"more": state[wte]}))
    yield "a misnamed tensor", of(lambda state: state.update({"transformer.lnf": state.pop(ln)}))
    yield "a name that is none", of(lambda state: state.update({7: state[wte]}))
    yield "one number as gigabytes", of(
        lambda state: state.update({wte: torch.zeros(1).expand(60_000, 16_000)}),
        n_embd=16_000, vocab_size=60_000)  # fmt: skip
    yield "a tensor without storage", of(
        lambda state: state.update({wte: torch.empty(60_000, 16_000, device="meta")}),
        n_embd=16_000, vocab_size=60_000)  # fmt: skip

    yield "a compressed archive", lambda: _repacked("", None, zipfile.ZIP_DEFLATED)
    yield "a zip bomb", lambda: _repacked("/data/0", bytes(300_000_000), zipfile.ZIP_DEFLATED)
    pickles = {
        "that allocates": b"\x80\x02cbuiltins\nbytearray\n\x8a\x04\x00\x00\x00\x7f\x85R.",
        "that allocates a tensor": b"\x80\x02ctorch\nFloatTensor\n\x8a\x04\x00\x00\x00\x7f\x85R.",
        "that runs code": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        "without end": b"\x80\x02" + b"]" * 100_000,
        "of 4 MB": b"\x80\x02" + b"N0" * 2_000_000 + b"N.",
        "of nested lists": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        "of another protocol": pickle.dumps({"model": {}}, protocol=4),
    }
    for name, content in pickles.items():
        yield f"a pickle {name}", partial(_repacked, "data.pkl", content)
    for name, content in (("empty", b""), ("zeros", bytes(4_096)), ("text", b"PK\x03\x04" * 99)):
        yield f"a file of {name}", partial(Path("ckpt.pt").write_bytes, content)
    yield "a folder", Path("ckpt.pt").mkdir

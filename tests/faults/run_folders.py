"""Hostile run folders: a value of config.json, or a header of safetensors; each is refused."""

import json
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from faults.attack import HUGE, Attack, Case
from faults.checkpoints import good_state, save

from tbtt_interp.nanogpt import import_checkpoint
from tbtt_interp.runs import load_run

GOOD, TENSORS = Path("runs/good"), "checkpoints/step-000007.safetensors"
HASHES = ("files", "summary", "weights")


def good_run() -> None:
    """Makes a checkpoint and a run, whose summary does not say its files' hashes."""
    save(good_state(), "good.pt")
    run = import_checkpoint(Path("good.pt"), "arithmetic", GOOD)
    # an attacker has hashed the changed files again, or says nothing of their hashes
    summary = {key: value for key, value in run.summary().items() if key not in HASHES}
    (run.folder / "summary.json").write_text(json.dumps(summary))


def read_run(folder: Path) -> None:
    """Everything that is read of a run."""
    run = load_run(folder)
    _ = run.shape, run.tasks, run.parameters(), run.summary(), run.metrics()


def config_of(change: dict[str, Any]) -> None:
    path = GOOD / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def run_cases() -> Iterator[Case]:
    """Hostile runs, each of which is refused: a field of config.json, or a checkpoint's header."""
    wrong: list[Any] = [None, -1, HUGE, 10**30, "x", [], {}, [[[]]], True, 0.5]
    fields: dict[str, list[Any]] = {
        "task": [None, 3, [], "../" * 9, "x\x1b[2J", str(Path(__file__))], "framing": wrong,
        "size": [*wrong[:4], [], {}, "../../x", ""], "vocabulary": wrong, "seeds": [
            *wrong, [0, 0], [-1], ["0"], [None], list(range(20_000)), [HUGE * HUGE], [0, 1]],
        "held_out": [*wrong[:5], {"a": 1}, [[[5]]], [[["5", 7]]], [[[5, 12]]], [[[5.0, 7]]],
                     [[[5, 10**30]]]],
        "order_seeds": [*wrong, [-1], ["0"], [0, 1]],
        "answer_seeds": [-1, "x", [-1], ["0"], [0, 1]],
        "steps": [None, -1, 10**30, "x", [], {}, True, 0.5],
        "recipe": [1, "x", [1]], "environment": [None, 1, "x", []], "versions": [None, 1, []],
        "more": [1],
    }  # fmt: skip
    shape = {"layers": 1, "heads": 1, "d_model": 4, "d_mlp": 4, "n_ctx": 9, "d_vocab": 17}
    fields["shape"] = [*wrong, shape | {"width": 4}, shape | {"bias": 1}, shape | {"heads": 3}]
    fields["shape"] += [shape | {name: value} for name in shape
                        for value in (None, 0, -1, HUGE, 10**30, 1.5, "4", True)]  # fmt: skip
    texts = {"nested": "[" * 100_000, "digits": '{"seeds": ' + "9" * 9_999 + "}", "list": "[1]",
             "nothing": "", "zeros": "\0" * 4_096, "large": " " * 2**25}  # fmt: skip
    makes: list[tuple[str, Attack]] = [
        *((f"config.json: {name} is {str(value)[:40]!a}", partial(config_of, {name: value}))
          for name, values in fields.items() for value in values),
        *((f"config.json: {name}", partial((GOOD / "config.json").write_text, text))
          for name, text in texts.items()),
        *((f"safetensors: {name}", partial((GOOD / TENSORS).write_bytes, content))
          for name, content in headers()),
    ]  # fmt: skip
    for name, make in makes:
        yield Case(name, partial(read_run, GOOD), make, must_fail=True)


def tensor_file(header: object, data: bytes = bytes(64), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def headers() -> Iterator[tuple[str, bytes]]:
    """Headers of safetensors that are wrong, or claim more than there is."""

    def one(shape: list[Any], begin: int = 0, end: int = 64, kind: str = "F32") -> dict[str, Any]:
        return {"embed.W_E": {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}}

    yield "a length of 2^63", tensor_file(one([16]), length=2**63)
    yield "a length of 90 MB", tensor_file(one([16]), length=90_000_000)
    yield "a shape of gigabytes", tensor_file(one([HUGE]))
    yield "gigabytes, rightly sized", tensor_file(one([HUGE], 0, 4 * HUGE))
    yield "a shape that overflows", tensor_file(one([2**40, 2**40]))
    yield "nothing, very large", tensor_file(one([0, 2**60], 0, 0), b"")
    yield "a negative shape", tensor_file(one([-16]))
    yield "offsets backwards", tensor_file(one([16], 64, 0))
    for kind in ("C64", "I64", "BF16", "F64", "F8_E5M2", "F4", "X", "BOOL", "U8"):
        for size in (1, 2, 4, 8):
            yield f"{kind} of {size} bytes", tensor_file(one([64 // size], kind=kind))
    yield "no object", tensor_file([1, 2])
    yield "no JSON", tensor_file(b"{" * 60)
    yield "nested", tensor_file(b"[" * 60_000)
    yield "overlapping", tensor_file({f"t{k}": one([16])["embed.W_E"] for k in range(40)})
    yield "missing and misnamed", tensor_file({"embed.w_e": one([16])["embed.W_E"]})
    yield "empty", b""
    yield "eight zeros", bytes(8)

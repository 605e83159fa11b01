"""Hostile inputs: each is answered or refused, quickly, in little memory, and nothing is written.

`python tests/faults/inputs.py` tries all of them and prints how many were tried, survived and lost.
tests/test_faults_inputs.py tries a short set. Every case is the same on every machine.
"""

import io
import json
import os
import pickle
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tbtt_interp.cli import main
from tbtt_interp.cli.training import default_name, parse_setting
from tbtt_interp.errors import TbttError
from tbtt_interp.model import Shape, initial_parameters
from tbtt_interp.nanogpt import import_checkpoint, to_nanogpt
from tbtt_interp.runs import load_run
from tbtt_interp.tasks import FRAMINGS, load_task
from tbtt_interp.tasks.entropy import stream_floors
from tbtt_interp.train.recipe import SCHEMA, resolve_recipe
from tbtt_interp.train.stacks import check_cost, model_shape, model_streams

SECONDS, MEGABYTES = 1.0, 200  # of the processor and memory, above the same process before
WORKING = 15.0, 1_000  # one that is answered: a corpus of 4 KB takes no gigabytes
ARGUMENTS = {"n_layer": 1, "n_head": 1, "n_embd": 4, "block_size": 9, "bias": False,
             "vocab_size": 17, "mlp_expansion": 1}  # fmt: skip
HUGE = 10**9
HASHES = ("files", "summary", "weights")
OWN = ("mine.toml", "c.txt", "c.tsv", "c.csv", "secret.txt")  # what attacks themselves write
SECRET = "the lines of a file that is none of a run's business"
Attack = Callable[[], object]


@dataclass
class Tally:
    """Attacks of one kind: how many were tried, and what was lost."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        return self.tried - len(self.lost)


class Hang(BaseException):
    """An attack that did not end."""


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder inside another one, as the present folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as outer:
        inner = Path(outer, "a", "b")
        inner.mkdir(parents=True)
        os.chdir(inner)
        try:
            yield inner
        finally:
            os.chdir(before)


def attempt(attack: Attack, *, refused: bool = True) -> str:
    """What was lost by an attack; nothing if it was answered, or refused as it should be."""
    inner = Path.cwd()
    outer = inner.parents[1]
    before = set(outer.rglob("*"))
    _reset_peak()
    memory, started = _memory("VmRSS"), time.process_time()
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(60)
    error: BaseException | None = None
    try:
        attack()
    except (Exception, Hang) as raised:
        error = raised
    finally:
        signal.alarm(0)
    seconds, more = time.process_time() - started, (_memory("VmHWM") - memory) / 1_024
    was_refused = isinstance(error, TbttError)
    if error is not None and not was_refused:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if refused and not was_refused:
        return "it was accepted"
    if error is not None and not (str(error).strip() and len(str(error)) < 2_000):
        return f"a message of {len(str(error)):,} characters"
    most_seconds, most_megabytes = (SECONDS, MEGABYTES) if was_refused else WORKING
    if seconds > most_seconds or more > most_megabytes:
        return f"it took {seconds:.1f} s and {more:.0f} MB"
    may = {inner / name for name in ("runs", *OWN)}
    if new := [p for p in {*outer.rglob("*")} - before if not may & {p, *p.parents}]:
        return f"it wrote {min(new).relative_to(outer)}"
    return ""


def _hang(*_: object) -> None:
    raise Hang("it did not end within a minute")


def _memory(name: str) -> int:
    """A figure of this process, in kilobytes; 0 where there is no /proc."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def _reset_peak() -> None:
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


# Checkpoints of nanoGPT


def good_state() -> dict[str, Any]:
    shape = Shape(layers=1, heads=1, d_model=4, d_mlp=4, n_ctx=9, d_vocab=17)
    return to_nanogpt(initial_parameters(shape, seed=0), shape)


def save(state: dict[str, Any], name: str = "ckpt.pt", **arguments: Any) -> None:
    torch.save({"model": state, "model_args": ARGUMENTS | arguments, "iter_num": 7}, name)


def _import() -> object:
    return import_checkpoint(Path("ckpt.pt"), "arithmetic", Path("runs/theirs"))


def _repacked(compression: int, pad: int = 0) -> None:
    """The checkpoint with its entries compressed, and one of them padded by zeros."""
    save(good_state())
    with zipfile.ZipFile("ckpt.pt") as old, zipfile.ZipFile("new.pt", "w", compression) as new:
        for entry in old.infolist():
            new.writestr(
                entry.filename, old.read(entry) + bytes(pad * ("/data/0" in entry.filename))
            )
    os.replace("new.pt", "ckpt.pt")


def _pickled(content: bytes) -> None:
    """A checkpoint whose pickle is these bytes."""
    save(good_state())
    with zipfile.ZipFile("ckpt.pt") as old, zipfile.ZipFile("new.pt", "w") as new:
        for entry in old.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, content if is_pickle else old.read(entry))
    os.replace("new.pt", "ckpt.pt")


def import_cases() -> Iterator[tuple[str, Attack]]:
    """Hostile checkpoints: what each is, and what writes and imports it."""
    wte = "transformer.wte.weight"

    def of(change: Callable[[dict[str, Any]], object], **arguments: Any) -> Attack:
        def attack() -> None:
            state = good_state()
            change(state)
            save(state, **arguments)
            _timed(_import)

        return attack

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

    def packed(*how: int) -> Attack:
        return lambda: (_repacked(*how), _timed(_import))

    yield "a compressed archive", packed(zipfile.ZIP_DEFLATED)
    yield "a zip bomb", packed(zipfile.ZIP_DEFLATED, 300_000_000)

    def pickled(content: bytes) -> Attack:
        return lambda: (_pickled(content), _timed(_import))

    call = b"\x80\x02cbuiltins\nbytearray\n\x8a\x04\x00\x00\x00\x7f\x85R."
    yield "a pickle that allocates", pickled(call)
    yield "a pickle that allocates a tensor", pickled(
        b"\x80\x02ctorch\nFloatTensor\n\x8a\x04\x00\x00\x00\x7f\x85R.")  # fmt: skip
    yield "a pickle that runs code", pickled(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    yield "a pickle without end", pickled(b"\x80\x02" + b"]" * 100_000)
    yield "a pickle of 4 MB", pickled(b"\x80\x02" + b"N0" * 2_000_000 + b"N.")
    yield "nested lists", pickled(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".")
    yield "another pickle", pickled(pickle.dumps({"model": {}}, protocol=4))
    for name, content in (("empty", b""), ("zeros", bytes(4_096)), ("text", b"PK\x03\x04" * 99)):
        yield f"a file of {name}", lambda content=content: (
            Path("ckpt.pt").write_bytes(content), _timed(_import))  # fmt: skip
    yield "a folder", lambda: (Path("ckpt.pt").mkdir(), _timed(_import))


def _timed(attack: Attack) -> None:
    """An attack that is refused within the limits, whatever its making took."""
    if why := attempt(attack):
        raise AssertionError(why)
    raise TbttError("refused")


# Runs: config.json, safetensors


def good_run(folder: str = "runs/good") -> Path:
    save(good_state(), "good.pt")
    run = import_checkpoint(Path("good.pt"), "arithmetic", Path(folder))
    # an attacker has hashed the changed files again, or says nothing of their hashes
    summary = {key: value for key, value in run.summary().items() if key not in HASHES}
    (run.folder / "summary.json").write_text(json.dumps(summary))
    return run.folder


def read_run(folder: Path) -> None:
    """Everything that is read of a run."""
    run = load_run(folder)
    _ = run.shape, run.tasks, run.parameters(), run.summary(), run.metrics()


def config_of(change: dict[str, Any]) -> None:
    path = Path("runs/good/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def run_cases() -> Iterator[tuple[str, Attack]]:
    """Hostile runs: a field of config.json, or a checkpoint's header."""
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

    def of(change: dict[str, Any]) -> Attack:
        return lambda: (config_of(change), _timed(lambda: read_run(Path("runs/good"))))

    for name, values in fields.items():
        for value in values:
            yield f"config.json: {name} is {str(value)[:40]!a}", of({name: value})
    texts = {"nested": "[" * 100_000, "digits": '{"seeds": ' + "9" * 9_999 + "}", "list": "[1]",
             "nothing": "", "zeros": "\0" * 4_096, "large": " " * 2**25}  # fmt: skip
    for name, text in texts.items():
        yield f"config.json: {name}", lambda text=text: (
            Path("runs/good/config.json").write_text(text),
            _timed(lambda: read_run(Path("runs/good"))))  # fmt: skip
    for name, content in headers():
        yield f"safetensors: {name}", lambda content=content: (
            Path("runs/good/checkpoints/step-000007.safetensors").write_bytes(content),
            _timed(lambda: read_run(Path("runs/good"))))  # fmt: skip


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


# Corpora


def corpora() -> Iterator[tuple[str, str, str]]:
    """Names, suffixes and texts of corpora of 4 KB that would take much."""
    yield "one line of 4,000 characters", ".txt", "ab" * 2_000
    yield "two lines of 2,000", ".txt", "ab" * 1_000 + "\n" + "ab" * 999 + "c"
    yield (
        "1,300 lines of two characters",
        ".txt",
        "\n".join(map(chr, range(0x4E00, 0x4E00 + 1_300))),
    )
    yield "4,000 different characters", ".txt", "".join(map(chr, range(0x4E00, 0x4E00 + 4_000)))
    yield (
        "a long line and short ones",
        ".txt",
        "x" * 3_000 + "\n" + "\n".join(map(str, range(99, 399))),
    )
    yield "one character of prompt", ".tsv", "prompt\tanswer\na\t" + "b" * 4_000
    yield "an answer of 60 lines", ".tsv", "prompt\tanswer\n" + "".join(
        f"{k}\t{'b' * 60}\n" for k in range(60))  # fmt: skip
    header = "\t".join(["prompt", "answer", *map(str, range(990))])
    yield "1,000 labels", ".tsv", header + "\na\tb" + "\t1" * 990
    yield "null characters", ".csv", "prompt,answer\n\0,\0\n" + "\0" * 99
    yield "a field that never ends", ".csv", 'prompt,answer\n"' + "a" * 200_000
    yield "carriage returns", ".tsv", "prompt\tanswer\ra\tb\rc\td\r"
    yield "a prompt with newlines", ".csv", 'prompt,answer\n"a\nb",c\n'
    yield "labels of 5,000 digits", ".tsv", f"prompt\tanswer\tx\na\tb\t{'9' * 5_000}\n"
    yield "a header alone", ".tsv", "prompt\tanswer\n"
    yield "columns twice", ".tsv", "prompt\tprompt\tanswer\na\tb\tc\n"
    yield "byte order marks", ".txt", "\ufeff\ufeffa\n\ufeffb\n"
    yield "escape sequences", ".txt", "\x1b[2J\x1b]0;x\x07\n\x9b31mred\n"


def work(path: str, framing: str, **flags: Any) -> None:
    """What training reads and computes of a corpus before its first step."""
    recipe = resolve_recipe("quick", {"task": path, "framing": framing, "model.size": "small",
                                      "seeds": 1} | flags)  # fmt: skip
    tasks = recipe.tasks()
    check_cost(model_shape(recipe, tasks[0]), recipe, tasks[0])
    for stream in model_streams(recipe, tasks):
        stream_floors(stream)
        _ = stream.reference(), stream.draw(0), stream.windows


def corpus_cases() -> Iterator[tuple[str, Attack]]:
    for name, suffix, text in corpora():
        for framing in FRAMINGS:

            def attack(text: str = text, path: str = f"c{suffix}", framing: str = framing) -> None:
                Path(path).write_text(text, encoding="utf-8", newline="")
                work(path, framing)

            yield f"{name}, {framing}", attack
    unreadable = {
        "bytes": b"\xff\xfe\x80",
        "zeros": bytes(4_096),
        "nothing": b"",
        "newlines": b"\n" * 4_096,
    }
    for name, content in unreadable.items():
        yield f"a corpus of {name}", lambda content=content: (
            Path("c.txt").write_bytes(content), work("c.txt", "file"))  # fmt: skip

    def many() -> None:
        Path("c.txt").write_text("\n".join(f"{k:06d}{'x' * 14}" for k in range(30_000)))
        assert len(load_task("c.txt").lines) == 30_000

    yield "30,000 lines of a shared form", many


# Recipes and flags


def recipe_cases() -> Iterator[tuple[str, Attack]]:
    """Recipes and flags that would write elsewhere, or ask for too much."""
    sized = "[model]\nsize = {}\nlayers = 1\nheads = 1\nd_model = 4\nd_mlp = 4"
    for size in (
        "../../x",
        "/tmp/x",
        "..",
        "a/b",
        "a\\\\b",
        "",
        "x" * 300,
        "\\u001b[2J",
        "\\u0000",
    ):
        yield f"a size called {size[:9]}", toml(sized.format(f'"{size}"'))
    for key in ("seeds", "deal_pairs", "training.window", "training.batch", "training.steps",
                "model.layers", "model.d_model", "first_seed",
                "training.evaluate_every"):  # fmt: skip
        for value in (-1, 10**13, 10**400):
            yield f"{key} is {str(value)[:20]}", flags(**{key: value})
    for size in ("L999H1D14M14", "L1H1D99999M14", "L1H3D14M14", "L0H1D1M1", "L" + "9" * 5_000,
                 f"L{'9' * 5_000}H1D1M1", "L200H1D9000M60000"):  # fmt: skip
        yield f"size {size[:20]}", flags(**{"model.size": size})
    for text in ("training.steps=" + "9" * 5_000, "a=" + "[" * 50_000, "=", "x"):
        yield f"--set {text[:20]}", lambda text=text: flags(**dict([parse_setting(text)]))()
    for text in ("x = " + "[" * 50_000, "seeds = " + "9" * 5_000, "\0", "[training]\nclip = nan",
                 "[training]\nlearning_rate = 1" + "0" * 400, "[training]\nkeep_states = ['x']",
                 "[training]\nsteps = 1e9", "[changes]\ndecay_from = 9223372036854775808",
                 'base = "../quick"',
                 'task = "/etc/passwd/x"', "held_out = [[5, 1" + "0" * 4_000 + "]]",
                 "held_out_each = [[[0, 1]], 3]"):  # fmt: skip
        yield f"a recipe {text[:20]!a}", toml(text)
    for name in ("x" * 300, "x/" * 200, "no\0such", "é" * 200):
        yield f"a recipe called {name[:9]!a}", lambda name=name: resolve_recipe(name)
        yield f"a task called {name[:9]!a}", lambda name=name: load_task(name)
        yield f"a run called {name[:9]!a}", lambda name=name: load_run(name)


def toml(text: str) -> Attack:
    def attack() -> None:
        Path("mine.toml").write_text(text, encoding="utf-8")
        _resolve("mine.toml", {})

    return attack


def flags(**given: Any) -> Attack:
    return lambda: _resolve("quick", given)


def _resolve(source: str, given: dict[str, Any]) -> None:
    recipe = resolve_recipe(source, given)
    folder = Path("runs", default_name(recipe))
    assert folder.parent == Path("runs") and folder.name != "..", folder
    tasks = recipe.tasks()
    check_cost(model_shape(recipe, tasks[0]), recipe, tasks[0])
    model_streams(recipe, tasks)


# Commands


def command(*words: str) -> Attack:
    """A command that answers, or ends in one printable line and status 2."""

    def attack() -> None:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(words)
        shown = out.getvalue() + err.getvalue()
        assert status in (0, 2), status
        assert not status or (err.getvalue().count("\n") == 1 and not out.getvalue()), shown
        assert all(c.isprintable() or c == "\n" for c in shown), ascii(shown)
        if status:
            raise TbttError(shown)

    return attack


def command_cases() -> Iterator[tuple[str, Attack]]:
    escape = "\x1b[2J\x9b31m\u202e"

    def named(field: str) -> Attack:
        return lambda: (config_of({field: escape}), command("runs", "runs")())

    long = "x" * 300
    for word in (long, f"{long}/x", escape, "/proc/1/mem", "no\0such", "\udcff"):
        for words in (("evaluate", word), ("ask", word, "3+4"), ("runs", word), ("report", word),
                      ("import", word, "--task", "arithmetic", "--out", "runs/x"),
                      ("import", "good.pt", "--task", word, "--out", "runs/x"),
                      ("export", "runs/good", "--out", f"/proc/{word}"), ("probes", word),
                      ("train", "--recipe", word), ("train", "--task", word), ("sweep", word),
                      ("train", "--from", word), ("ask", "runs/good", word)):  # fmt: skip
            name = " ".join(w if w != word else ascii(w)[:12] for w in words)
            yield name, command(*words)
    for name in ("task", "size", "framing"):
        yield f"a {name} with control characters", named(name)
    for out in ("/proc/x", "/sys/x", f"runs/{long}", "good.pt/x", "."):
        yield f"import to {out[:12]}", command(
            "import", "good.pt", "--task", "arithmetic", "--out", out)  # fmt: skip

    def named_file() -> None:
        Path("secret.txt").write_text(f"{SECRET}\nand another line\n")
        config_of({"task": "secret.txt"})
        for words in (("evaluate",), ("ask",), ("verify",), ("probes",), ("export",)):
            more = {"ask": ["a"], "export": ["--out", "runs/x.pt"]}.get(words[0], [])
            try:
                command(*words, "runs/good", *more)()
            except TbttError as error:
                assert SECRET not in str(error)
        _ = load_run("runs/good").task

    yield "a run that names a local file as its task", named_file


# Fuzzing

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([0, 1, 2, -1, HUGE, 2**63, 10**30, "..", "../x", "\x1b[2J", "arithmetic"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan", "null": '""'}.get(
        text := json.dumps(value), text)  # fmt: skip


def fuzz_recipe(pairs: list[tuple[str, Any]]) -> Attack:
    return toml("\n".join(f"{key} = {as_toml(value)}" for key, value in dict(pairs).items()))


def fuzz_corpus(given: tuple[str, str, str]) -> Attack:
    suffix, text, framing = given

    def attack() -> None:
        Path(f"c{suffix}").write_text(text, encoding="utf-8", newline="")
        work(f"c{suffix}", framing)

    return attack


def fuzz_config(change: dict[str, Any]) -> Attack:
    return lambda: (config_of(change), read_run(Path("runs/good")))


def fuzz_header(given: tuple[dict[str, Any], bytes]) -> Attack:
    def attack() -> None:
        header, data = given
        path = Path("runs/good/checkpoints/step-000007.safetensors")
        path.write_bytes(tensor_file(header, data))
        read_run(Path("runs/good"))

    return attack


def fuzz_prompt(prompt: str) -> Attack:
    return command("ask", "runs/good", "--", prompt)


CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ROWS = st.lists(st.lists(CHARACTERS | st.sampled_from(["true", "1", ""]), min_size=2, max_size=4),
                max_size=8)  # fmt: skip
TABLES = ROWS.map(lambda rows: "\n".join("\t".join(row) for row in [["prompt", "answer"], *rows]))
CORPORA = st.tuples(st.just(".txt"), CHARACTERS | st.lists(CHARACTERS).map("\n".join),
                    st.sampled_from(FRAMINGS)) | st.tuples(
    st.sampled_from([".tsv", ".csv"]), TABLES | CHARACTERS, st.sampled_from(FRAMINGS))  # fmt: skip
FIELDS = st.sampled_from([
    "task", "framing", "size", "shape", "vocabulary", "seeds", "held_out", "order_seeds", "steps",
    "recipe", "environment", "versions", "answer_seeds", "other"])  # fmt: skip
ENTRY = st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "F64", "I64", "C64", "BF16", "F8_E4M3", "x"]) | VALUES,
    "shape": st.lists(st.integers(-1, 2**64), max_size=4) | VALUES,
    "data_offsets": st.lists(st.integers(-1, 2**64), max_size=3) | VALUES,
})  # fmt: skip
TENSORS = st.sampled_from(["embed.W_E", "pos_embed.W_pos", "ln_final.w", "__metadata__", "x"])
FUZZED: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Attack]]] = {
    "fuzzed recipes": (st.lists(st.tuples(st.sampled_from(sorted(SCHEMA)), VALUES), max_size=4),
                       fuzz_recipe),
    "fuzzed corpora": (CORPORA, fuzz_corpus),
    "fuzzed config.json": (st.dictionaries(FIELDS, VALUES, max_size=3), fuzz_config),
    "fuzzed safetensors headers": (
        st.tuples(st.dictionaries(TENSORS, ENTRY | VALUES, max_size=3), st.binary(max_size=64)),
        fuzz_header),
    "fuzzed prompts": (st.text(max_size=60), fuzz_prompt),
}  # fmt: skip
CASES: dict[str, Callable[[], Iterator[tuple[str, Attack]]]] = {
    "nanoGPT checkpoints": import_cases, "runs": run_cases, "corpora": corpus_cases,
    "recipes, flags and names": recipe_cases, "commands": command_cases,
}  # fmt: skip
MUST_REFUSE = ("nanoGPT checkpoints", "runs")


def fresh(kept: Path) -> None:
    """The present folder as it was: a run and its checkpoint, and nothing else."""
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(kept, Path.cwd(), dirs_exist_ok=True)


def twice(attack: Attack, kept: Path) -> str:
    """What was lost by an attack; a second time if it took long, since the first may import."""
    if (why := attempt(attack, refused=False)).startswith("it took"):
        fresh(kept)
        return attempt(attack, refused=False)
    return why


def try_cases(kind: str, every: int = 1) -> Tally:
    """Tries every case of a kind, or every few."""
    tally = Tally()
    with workspace() as inner:
        good_run()
        kept = inner.parent / "kept"
        shutil.copytree(inner, kept)
        for number, (name, attack) in enumerate(CASES[kind]()):
            if number % every:
                continue
            fresh(kept)
            tally.tried += 1
            if kind in MUST_REFUSE:  # which measure themselves, without the making of the file
                try:
                    attack()
                except TbttError:
                    continue
                except (Exception, Hang) as error:
                    tally.lost.append(f"{name}: {error}")
                    continue
                tally.lost.append(f"{name}: it was accepted")
            elif why := twice(attack, kept):
                tally.lost.append(f"{name}: {why}")
    return tally


def fuzz(kind: str, examples: int) -> Tally:
    """Tries so many inputs of a kind from Hypothesis, the same ones every time."""
    strategy, attack_of = FUZZED[kind]
    tally = Tally()
    with workspace() as inner:
        good_run()
        kept = inner.parent / "kept"
        shutil.copytree(inner, kept)

        @seed(0)
        @settings(max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(strategy)
        def run(value: Any) -> None:
            fresh(kept)
            tally.tried += 1
            if why := twice(attack_of(value), kept):
                tally.lost.append(f"{value!a}: {why}"[:400])

        run()
    return tally


def main_table(examples: int = 1_000) -> int:
    """Tries everything and prints the table."""
    lost = []
    print("| attack | tried | survived | lost |\n|---|---|---|---|")
    for kind in (*CASES, *FUZZED):
        tally = try_cases(kind) if kind in CASES else fuzz(kind, examples)
        print(f"| {kind} | {tally.tried} | {tally.survived} | {len(tally.lost)} |", flush=True)
        lost += [f"{kind}: {why}" for why in tally.lost]
    print(*lost, sep="\n", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main_table())

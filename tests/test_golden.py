"""The same recipe, the same bytes: on every processor, compiler, number of threads, in every stack.

The hashes below hold on any machine with fused multiply-adds. Where one does not, that is the bug.
Natively they are tested always; TBTT_MATRIX=1 adds other vectors, clang, arm64 under emulation, and
the README's first table.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import unhashed

from tbtt_interp import kernel as kernels
from tbtt_interp.cli import main
from tbtt_interp.kernel import Kernel, flatten
from tbtt_interp.model import initial_parameters, normal_numbers, stack_parameters
from tbtt_interp.runs import Run, load_run
from tbtt_interp.train.recipe import Recipe, resolve_recipe
from tbtt_interp.train.stacks import Runtime, TrainingCallback, model_shape, model_streams
from tbtt_interp.train.step import CompiledStack
from tbtt_interp.train.training import train_models as train

STEPS = {"small": 300, "medium": 200, "large": 100}
# of weights, and of metrics.jsonl: losses, counts and margins at eleven evaluations
GOLDEN = {
    ("small", "file"): ("02f798096a35d5af", "046ceeee80b3e1f3"),
    ("small", "shuffled"): ("30e9d1c42c6d40e0", "cf9bea571fb0a507"),
    ("small", "line"): ("f342ad3a1cbd6e40", "2016854befd39362"),
    ("medium", "file"): ("cb71a640fe809bf7", "19a8b9f3fc0e36ee"),
    ("medium", "shuffled"): ("7e928065f29c5fab", "40633388368b9d8b"),
    ("medium", "line"): ("3a2c4e46535763a7", "b106c9491a0abff8"),
    ("large", "file"): ("efbf921fc013c8f9", "43587b2f723b33eb"),
    ("large", "shuffled"): ("4e25f36b29be9bfa", "35f8df2024e50764"),
    ("large", "line"): ("e6d4e21a7034ba4d", "73ba8475c854b357"),
}
FRAMINGS = ("file", "shuffled", "line")
IS_MATRIX = os.environ.get("TBTT_MATRIX") == "1"
more = pytest.mark.skipif(
    not IS_MATRIX,
    reason="TBTT_MATRIX=1 tests other compilers and vectors, and the README's 10,000 steps",
)
X86 = ("-march=x86-64-v3", "-march=znver2")
MATRIX = [
    ("c++", ""), ("clang++", ""),
    *((compiler, flags) for compiler in ("g++", "clang++") for flags in X86),
]  # fmt: skip


def recipe_of(size: str, framing: str, seeds: int = 2, steps: int | None = None) -> Recipe:
    steps = STEPS[size] if steps is None else steps
    flags = {"model.size": size, "framing": framing, "seeds": seeds, "steps": steps}
    return resolve_recipe("quick", flags)


def hashes(run: Run) -> tuple[str, str]:
    metrics = (run.folder / "metrics.jsonl").read_bytes()
    return run.summary()["weights"][:16], hashlib.sha256(metrics).hexdigest()[:16]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", STEPS)
def test_a_recipe_s_bytes_are_the_same_on_every_machine(size: str, framing: str) -> None:
    run = train(recipe_of(size, framing), "run")
    assert hashes(run) == GOLDEN[size, framing]
    environment = load_run(run.folder).config.environment
    assert environment["kernel"] == kernels.source_hash() and environment["compiled"] is True
    assert environment["processor"] and environment["compiler"]


@more
@pytest.mark.parametrize(("compiler", "flags"), MATRIX[1:])
@pytest.mark.parametrize("size", STEPS)
def test_and_by_every_compiler_with_any_vectors(size, compiler, flags, monkeypatch) -> None:
    if flags and platform.machine() != "x86_64":
        pytest.skip("these are x86's vectors")
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("CXXFLAGS", flags)
    for framing in FRAMINGS:
        assert hashes(train(recipe_of(size, framing), framing)) == GOLDEN[size, framing]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_seed_s_bytes_are_the_same_in_every_stack_and_on_any_threads(framing: str) -> None:
    """And after a kill, resumed on other threads."""
    whole = train(recipe_of("small", framing, 16, 60), "sixteen", runtime=Runtime(threads=3))
    for seeds, threads in ((1, 1), (2, 2), (3, 1)):
        recipe = recipe_of("small", framing, seeds, 60)
        run = train(recipe, f"{seeds}", runtime=Runtime(threads=threads))
        for name, value in run.parameters().items():
            assert torch.equal(value, whole.parameters()[name][:seeds]), name
    dying = TrainingCallback()

    def die(step: int) -> None:
        if step >= 150:
            raise KeyboardInterrupt

    dying.on_step = die
    recipe = recipe_of("small", framing)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, "killed", callback=dying, runtime=Runtime(threads=1))
    resumed = train(recipe, "killed", resume=True, runtime=Runtime(threads=2))
    assert hashes(resumed) == GOLDEN["small", framing]


def test_initial_weights_are_the_same_normal_numbers_everywhere() -> None:
    numbers = normal_numbers(7, 100_001)
    assert hashlib.sha256(numbers.tobytes()).hexdigest()[:16] == "d9030ab36af76244"
    for power, expected in enumerate((1, 0, 1, 0, 3)):
        assert (numbers**power).mean() == pytest.approx(expected, abs=0.05)
    assert np.array_equal(normal_numbers(7, 100_001), numbers)


@more
def test_the_readme_s_first_table_is_the_same_everywhere(capsys) -> None:
    """Its numbers to six digits, since the floors come from the library's logarithms."""
    assert main(["train", "--size", "medium", "--json"]) == 0
    table = [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
        for row in json.loads(capsys.readouterr().out)
    ]
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    assert digest[:16] == "f225500d49e05f10"


def test_a_run_is_verified_by_training_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(recipe_of("small", "line"), "run")

    def verify(status: int, *options: str) -> str:
        assert main(["verify", "run", *options]) == status
        return "".join(capsys.readouterr())

    first = min(step for step in run.checkpoints if step)
    assert "after 300 steps: the same bytes" in verify(0)
    (found,) = json.loads(verify(0, "--steps", str(first), "--json"))
    assert found["same"] and found["step"] == first and found["kept"] == found["again"]
    assert f"--steps of at least {first}" in verify(2, "--steps", "1")
    assert "threads must be from 1 to 1024, got -1" in verify(2, "--threads", "-1")
    path = Path("run/checkpoints") / run.checkpoints[300].name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    out = verify(1)
    assert "after 300 steps: DIFFERENT BYTES" in out
    assert f"Altered or lost since training: checkpoints/{path.name}." in out
    unhashed(run.folder)
    config = json.loads(Path("run/config.json").read_text())
    for environment, reason in (
        ({"bits": 0}, "was trained by another version of the compiled kernel"),
        ({"compiled": False}, "was not trained by the compiled kernel"),
    ):
        changed = config | {"environment": config["environment"] | environment}
        Path("run/config.json").write_text(json.dumps(changed))
        assert reason in verify(2)


@more
@pytest.mark.parametrize("framing", FRAMINGS)
def test_arm64_computes_the_same_bytes(framing: str) -> None:
    """The C++ alone, compiled for arm64 and run under emulation."""
    compiler, emulator = "aarch64-linux-gnu-g++", shutil.which("qemu-aarch64")
    assert shutil.which(compiler) and emulator, "install g++-aarch64-linux-gnu and qemu-user"
    recipe, steps = recipe_of("small", framing), 12
    tasks = recipe.tasks()
    shape, streams = model_shape(recipe, tasks[0]), model_streams(recipe, tasks)
    start = stack_parameters([initial_parameters(shape, seed=seed) for seed in recipe.seed_list])
    stack = CompiledStack(start, shape, recipe.training, streams, Kernel(shape))
    given = stack.settings(0, steps)
    batches = stack.batches
    none = np.array([])
    lengths, weights = ([none if x is None else x for x in of]
                        for of in zip(*(b[1:3] for b in batches), strict=True))  # fmt: skip
    sizes = [len(batches), steps, *batches[0].rows.shape, batches[0].batch, len(lengths[0]),
             len(weights[0])]  # fmt: skip
    blob = np.array(sizes, "int64").tobytes()
    for numbers in (given.rates, given.decay_of, given[3:]):
        blob += np.array(numbers, "float32").tobytes()
    for batch, length, weight in zip(batches, lengths, weights, strict=True):
        blob += np.array([batch.seed], "uint64").tobytes() + batch.rows.astype("int32").tobytes()
        blob += length.astype("int32").tobytes() + weight.astype("float32").tobytes()
    blob += flatten(start, shape).tobytes()
    driver = Path(__file__).with_name("kernel_driver.cpp")
    flags = ["-O3", *kernels.FLAGS[:-3], "-pthread", "-static", str(driver), "-o", "driver"]
    flags += [f"-I{kernels.SOURCES[0].parent}", *kernels.definitions(shape, "float32")]
    subprocess.run([compiler, *flags], check=True)
    done = subprocess.run([emulator, "./driver"], input=blob, check=True, capture_output=True)
    stack.advance(0, steps)
    assert done.stdout == flatten(stack.parameters, shape).tobytes()

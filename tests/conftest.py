"""Shapes in signatures are checked throughout the tests; trained runs are made once and shared."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # two workers with two threads each would wait on locks
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)  # of numpy, which pytest's plugins may have imported before

from jaxtyping import install_import_hook

install_import_hook("tbtt_interp", "beartype.beartype")

import dataclasses  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402

from tbtt_interp import kernel  # noqa: E402
from tbtt_interp.cli import main  # noqa: E402
from tbtt_interp.explore.catalogue import Catalogue  # noqa: E402
from tbtt_interp.runs import Run  # noqa: E402
from tbtt_interp.train import stacks  # noqa: E402
from tbtt_interp.train.recipe import Recipe, resolve_recipe  # noqa: E402
from tbtt_interp.train.stacks import Runtime  # noqa: E402
from tbtt_interp.train.sweep import read_sweep  # noqa: E402
from tbtt_interp.train.training import train_models  # noqa: E402

hypothesis.settings.register_profile("untimed", deadline=None)  # a loaded machine is no failure
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers, so that a run is trained and a kernel compiled by one of them."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def fresh_cache(session_folder: Path) -> Iterator[None]:
    """Nothing is left in the user's cache; kernels are kept in pytest's, by what they are made of.

    One takes ten seconds to compile, so no two workers or sessions compile the same.
    """
    kept, compile_ = Path(__file__).parents[1] / ".pytest_cache/kernels", kernel._compile
    kept.mkdir(parents=True, exist_ok=True)

    def compile_once(command: list[str], folder: Path, start: str) -> Path:
        if kernel.source_hash.__wrapped__() != kernel.source_hash():
            return compile_(command, folder, start)  # the source changed during this session
        with FileLock(kept / f"{start}.lock"):
            made = next(kept.glob(f"{start}-*.so"), None) or compile_(command, kept, start)
        part = Path(shutil.copy(made, folder / f"{os.getpid()}.part"))
        return part.replace(folder / made.name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(session_folder / "cache"))
        patched.setattr(kernel, "_compile", compile_once)
        yield


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled: for models of few steps whose shape no other test has."""
    monkeypatch.setattr(stacks, "is_suited", lambda shape: False)


def trained(recipe: Recipe, folder: Path) -> Run:
    """The run in a session's folder, trained by the first worker that asks for it.

    By the kernel where the golden hashes need one of that shape, too; else torch is sooner done.
    """
    is_usual = recipe.task == "arithmetic" and recipe.training.window == 9
    is_usual &= recipe.model.size in ("small", "medium", "large")
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        runtime = Runtime(compiled=None if is_usual else False)
        return train_models(recipe, folder, runtime=runtime)


QUICK = """
base = "quick"
[training]
steps = 2_500
warmup = 167
decay_until = 2_083
evaluate_every = 100
checkpoint_every = 250
"""


@pytest.fixture(scope="session")
def quick(session_folder: Path) -> Callable[..., Run]:
    """Trains two smalls by a quarter of quick, changed by flags and fields, under a name."""
    path = session_folder / "quick.toml"
    with FileLock(path.with_suffix(".lock")):
        path.write_text(QUICK)

    def train(name: str, flags: dict[str, object], **fields: object) -> Run:
        recipe = resolve_recipe(str(path), {"model.size": "small", "seeds": 2} | flags)
        return trained(dataclasses.replace(recipe, **fields), session_folder / "runs" / name)

    return train


@pytest.fixture(scope="session")
def line_run(quick: Callable[..., Run]) -> Run:
    """Two smalls, trained on whole lines until they answer what they have seen."""
    return quick("line", {"framing": "line", "training.learning_rate": 9e-3})


@pytest.fixture(scope="session")
def file_run(quick: Callable[..., Run]) -> Run:
    """Two smalls, trained for a little while on windows of their files."""
    return quick("file", {"training.steps": 200, "training.checkpoint_every": 100})


@pytest.fixture(scope="session")
def facts_run(quick: Callable[..., Run]) -> Run:
    """Two smalls, trained for a little while on the capitals."""
    return quick("facts", {"task": "facts", "training.steps": 100, "training.batch": 64})


@pytest.fixture(scope="session")
def deep_run(quick: Callable[..., Run]) -> Run:
    """One model of two layers of three heads, trained until their answers end."""
    size = {"model.size": "L2H3D12M12", "framing": "line", "seeds": 1}
    return quick("deep", {**size, "training.steps": 200, "training.checkpoint_every": 100})


@pytest.fixture(scope="session")
def pairs_run(quick: Callable[..., Run]) -> Run:
    """Twelve smalls, of which four hold out each of three pairs."""
    each = (((0, 1),), ((5, 7),), ((9, 9),)) * 4
    return quick("pairs", {"framing": "line", "seeds": 12, "steps": 120}, held_out_each=each)


@pytest.fixture(scope="session")
def catalogue(line_run: Run, file_run: Run, facts_run: Run, deep_run: Run) -> Catalogue:
    """These four, open to the explorer."""
    return Catalogue.of([run.folder for run in (line_run, file_run, facts_run, deep_run)])


TINY = {  # the sweeps that ship, in a few steps and cells
    "ladder": """
        [[grid]]
        size = ["small", "large"]
        framing = ["file", "shuffled", "line"]
        [[grid]]
        task = ["facts", "joint"]
        size = "small"
        framing = "file"
    """,
    "atlas": """
        [[grid]]
        size = ["small", "medium"]
        framing = "line"
        held_out = [[[0, 9]], [[3, 3]]]
    """,
    "window": """
        [[grid]]
        size = "small"
        window = 24
        batch = [576, 307]
        [[grid]]
        size = "small"
    """,
}


@pytest.fixture(scope="session")
def sweeps(session_folder: Path) -> Path:
    """A folder of sweeps, each of two models a cell, trained for a few steps."""
    root = session_folder / "sweeps"
    root.mkdir(exist_ok=True)
    scale = "[[grid]]\nseeds = 2\nsteps = 3\ncheckpoint_every = 0\n"
    with FileLock(root.with_suffix(".lock")):
        for name, text in TINY.items():
            grids = re.sub(r" *\[\[grid\]\]\n", scale, text)
            (root / f"{name}.toml").write_text(grids)
            for stack in read_sweep(str(root / f"{name}.toml")).jobs:
                trained(stack.recipe, root / name / stack.name)
    return root


@pytest.fixture
def copied(line_run: Run, tmp_path: Path) -> Path:
    """A copy of that run's folder, to be broken."""
    return Path(shutil.copytree(line_run.folder, tmp_path / "copied"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test in a folder of its own, so that none sees or leaves a runs/ in the clone."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command that succeeds prints on standard output."""

    def output(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return output


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line of a command that ends with status 2, and prints and writes nothing else."""

    def error(*words: object) -> str:
        before = set(Path().rglob("*"))
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1, out + err
        assert set(Path().rglob("*")) == before
        return err

    return error

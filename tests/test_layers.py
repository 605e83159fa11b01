"""Dependencies point one way, and what is heavy is imported late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tbtt_interp

ROOT = Path(tbtt_interp.__file__).parent
# Each may import from its own layer and from those above it.
LAYERS = [
    ["errors", "threads", "versions"],
    ["bounds"],
    ["files", "integrity"],
    ["stats", "plots", "results", "tasks"],
    ["shares"],
    ["study"],
    ["tokenizer"],
    ["decoder"],
    ["lens"],
    ["model"],
    ["kernel"],
    ["metrics"],
    ["runs", "prompts"],
    ["evaluate", "baselines", "nanogpt", "activations"],
    ["tables", "interventions", "seeds"],
    ["train"],
    ["probes"],
    ["analyses"],
    ["calibration"],
    ["pretrained", "model_tables"],
    ["compare", "report", "explore"],
    ["cli"],
    ["__init__", "__main__"],
]


def layer(module: str) -> int:
    """The layer of a module, by its longest name that is placed."""
    numbers = {name: number for number, members in enumerate(LAYERS) for name in members}
    if module.endswith("__main__"):
        return numbers["__main__"]
    while module and module not in numbers:
        module = module.rpartition(".")[0]
    assert module, "it has no layer: place it in LAYERS"
    return numbers[module]


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tbtt_interp"):
            inside = (node.module or "").removeprefix("tbtt_interp").lstrip(".")
            found |= {inside} if inside else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("tbtt_interp.")]
            found |= {name.removeprefix("tbtt_interp.") for name in names}
    return found


def test_dependencies_point_one_way() -> None:
    for path in ROOT.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for other in imports(path):
            assert layer(other) <= layer(module), f"{module} imports {other}, which stands on it"


def test_modules_are_short_and_named() -> None:
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, tbtt_interp\n"
        "heavy = {'torch', 'transformer_lens', 'numpy', 'pandas', 'sklearn', 'plotly'}\n"
        "assert not heavy & sys.modules.keys()\n"
        "tbtt_interp.load_task('arithmetic')\n"
        "assert not {'torch', 'transformer_lens'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_everything_that_is_offered_is_there() -> None:
    for name in tbtt_interp.__all__:
        assert getattr(tbtt_interp, name)
        assert name in dir(tbtt_interp)
    with pytest.raises(AttributeError, match="has no attribute 'load_runs'"):
        _ = tbtt_interp.load_runs

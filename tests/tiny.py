"""Recipes and sweeps of a few steps, as files in the folder of the test."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tbtt_interp.train import backends
from tbtt_interp.train.recipe import Recipe, resolve_recipe

SWEEP = """
summary = "Two cells side by side, and two alone."
expected = ["They differ."]
[[grid]]
size = "small"
framing = "line"
held_out = [[[5, 7]], [[9, 9]]]
seeds = 2
steps = 3
[[grid]]
task = ["arithmetic", "facts"]
size = "small"
steps = 3
batch = 8
seeds = 1
name = "alone"
"""


def short(**flags: Any) -> Recipe:
    """Twelve steps, an evaluation every third, a checkpoint every fourth."""
    table = """
        framing = "line"
        seeds = 2
        [model]
        size = "small"
        [training]
        steps = 12
        warmup = 2
        decay_until = 10
        evaluate_every = 3
        checkpoint_every = 4
    """
    Path("short.toml").write_text(table)
    return resolve_recipe("short.toml", flags)


def sweep_file(text: str = SWEEP) -> str:
    """The path of a sweep that says this."""
    Path("mine.toml").write_text(text, encoding="utf-8")
    return "mine.toml"


def unhashed(folder: Path) -> None:
    """Makes a run one of those from before files had hashes, so that a test can alter it."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    kept = {key: value for key, value in summary.items() if key not in ("files", "summary")}
    path.write_text(json.dumps(kept))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def untimed(folder: Path) -> dict[str, bytes]:
    """Every file of a run, but for the seconds it took."""
    summary = json.loads((folder / "summary.json").read_text()) | {"seconds": 0}
    return contents(folder) | {"summary.json": json.dumps(summary).encode()}


def train_here(patched: pytest.MonkeyPatch) -> list[str]:
    """Jobs are trained in this process, one by one; returns the folders of those that started."""
    started: list[str] = []

    @contextmanager
    def here(threads: int) -> Iterator[Any]:
        def run(task: Any) -> str:
            started.append(Path(task.args[1]).name)
            return task()

        yield run

    patched.setattr(backends, "_loky", here)
    patched.setattr("loky.cpu_count", lambda: 1)
    return started

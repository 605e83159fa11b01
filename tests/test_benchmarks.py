"""The benchmarks run and print their tables; no test holds them to a speed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_speed_benchmark_prints_its_tables_and_writes_them() -> None:
    script = str(ROOT / "tests/benchmarks/speed.py")
    command = [sys.executable, script, "--quick", "--out", "s.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "training" in done.stdout and "waiting for" in done.stdout
    results = json.loads(Path("s.json").read_text())
    (row,) = results["training"]
    assert (row["size"], row["models"]) == ("small", 2)
    assert row["times_faster"] > 0 and 0 < row["share_computed"] < row["share"]
    assert "a whole step, 2 of small" in done.stdout
    assert {"processor", "threads", "versions"} == results["machine"].keys()
    assert all(row["measured"] > 0 for row in results["waiting"])
    assert sum(row["limit"] is not None for row in results["waiting"]) == 10


def test_the_benchmark_of_denormals_prints_its_table() -> None:
    script = str(ROOT / "tests/benchmarks/denormals.py")
    command = [sys.executable, script, "arithmetic-small-file", "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, models, exact, flushed, faster = done.stdout.splitlines()[2].split()
    assert (name, models) == ("arithmetic-small-file", "8")
    assert min(map(float, (exact, flushed, faster))) > 0

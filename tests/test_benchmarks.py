"""The benchmarks run; how fast is theirs to say, and no test's."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_speed_benchmark_prints_its_tables_and_writes_them() -> None:
    command = [
        sys.executable,
        str(ROOT / "tests/benchmarks/speed.py"),
        "--quick",
        "--out",
        "s.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "training" in done.stdout and "waiting for" in done.stdout
    found = json.loads(Path("s.json").read_text())
    (row,) = found["training"]
    assert (row["size"], row["models"]) == ("small", 2)
    assert row["times_faster"] > 0 and 0 < row["share_computed"] < row["share"]
    assert "a whole step, 2 of small" in done.stdout
    assert {"processor", "threads", "versions"} == found["machine"].keys()
    assert all(row["found"] > 0 for row in found["waiting"])
    limits = [row for row in found["waiting"] if row["limit"] is not None]
    assert len(limits) == (10 if Path("/proc/self/status").is_file() else 9)


def test_the_benchmark_of_denormals_prints_its_table() -> None:
    script = str(ROOT / "tests/benchmarks/denormals.py")
    command = [sys.executable, script, "arithmetic-small-file", "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, models, exact, flushed, faster = done.stdout.splitlines()[2].split()
    assert (name, models) == ("arithmetic-small-file", "8")
    assert min(map(float, (exact, flushed, faster))) > 0

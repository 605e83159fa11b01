"""The benchmarks run and print their tables; no test holds them to a speed."""

import importlib.util
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
    rivals = {"HookedTransformer", "torch.func", "JAX"}
    assert row["times_faster"].keys() == rivals
    if importlib.util.find_spec("jax") is None:
        assert row["times_faster"].pop("JAX") is None and "jax is not installed" in done.stdout
    assert all(times > 0 for times in row["times_faster"].values())
    assert 0 < row["share_computed"] < row["share"]
    assert {"processor", "threads", "versions"} == results["machine"].keys()
    assert all(row["measured"] > 0 for row in results["waiting"])
    assert sum(row["limit"] is not None for row in results["waiting"]) == 11
    for part in ("cost per model", "two at once", "tbtt train --size medium", "most memory",
                 "that is not steps"):  # fmt: skip
        assert any(part in row["what"] for row in results["waiting"]), part

"""The benchmarks run and print their tables; no test holds them to a speed."""

import importlib.util
import json
from pathlib import Path

import pytest
import speed


def test_the_speed_benchmark_prints_its_tables_and_writes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it but new processes, which take a minute: other tests begin the same commands."""
    begun = ("a process", 1.0, 2.0)
    monkeypatch.setattr(speed, "process_rows", lambda *_: [begun])
    monkeypatch.setattr(speed, "first_command", lambda *_: begun)
    monkeypatch.setattr(speed, "two_at_once", lambda *_: begun)
    monkeypatch.setattr("sys.argv", ["speed.py", "--quick", "--out", "s.json"])
    monkeypatch.setenv("CXXFLAGS", "")  # so that the kernel of the other tests is taken
    speed.main()
    printed, results = capsys.readouterr().out, json.loads(Path("s.json").read_text())
    assert "training" in printed and "waiting for" in printed
    (row,) = results["training"]
    assert (row["size"], row["models"]) == ("small", 2)
    rivals = {"HookedTransformer", "torch.func", "JAX"}
    assert row["times_faster"].keys() == rivals
    if importlib.util.find_spec("jax") is None:
        assert row["times_faster"].pop("JAX") is None and "jax is not installed" in printed
    assert all(times > 0 for times in row["times_faster"].values())
    assert 0 < row["share_computed"] < row["share"]
    assert {"processor", "threads", "versions"} == results["machine"].keys()
    assert all(row["measured"] > 0 for row in results["waiting"])
    for part in ("cost per model", "activations", "evaluation", "that is not steps"):
        assert any(part in row["what"] for row in results["waiting"]), part

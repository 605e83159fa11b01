"""The benchmarks run and print their tables; no test holds them to a speed."""

import importlib.util
import json
from pathlib import Path

import speed


def test_the_speed_benchmark_prints_its_tables_and_writes_them(monkeypatch, capsys):
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
    assert row["times_faster"].keys() == {"HookedTransformer", "torch.func", "JAX"}
    has_jax = importlib.util.find_spec("jax") is not None
    assert [name for name, times in row["times_faster"].items() if times is None] == (
        [] if has_jax else ["JAX"]
    )
    assert all(row["measured"] > 0 for row in results["waiting"])

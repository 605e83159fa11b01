"""How long whole commands take, in this tree and in an earlier one, as a table.

    git worktree add ../earlier 0b0f065  # commands as they were before commands used one thread
    python tests/benchmarks/commands.py runs/arithmetic-medium-file --against ../earlier

The run must be of the earlier tree: this one reads it, too. Both trees run in turns, in processes
of their own, so that the share of the earlier time means something on any idle machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import timeit
from pathlib import Path

from tbtt_interp.cli.output import print_table
from tbtt_interp.threads import processor

HERE = Path(__file__).parents[2]
# what is run, and the share of the earlier time that is wanted
COMMANDS = {
    "ask {run} <3+4=": 0.7,
    "evaluate {run}": 0.6,
    "probes {run} --feature carry": 0.6,
    "probes {run}": 0.4,
    "probes {run} --feature carry --causal": 0.5,
    "analyses attention {run}": 0.45,
    "analyses overview {run}": 0.4,
}


def duration(command: list[str], tree: Path) -> float:
    """Seconds that a command takes whose package is in this tree."""
    run = subprocess.run
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    quiet = {"capture_output": True, "check": True, "cwd": tree, "env": environment}
    return timeit.timeit(lambda: run([sys.executable, *command], **quiet), number=1)


def measured(command: str, run: Path, trees: list[Path], times: int) -> list[float]:
    """The median times of a command in each tree."""
    words = ["-m", "tbtt_interp", *(word.format(run=run) for word in command.split())]
    rounds = [[duration(words, tree) for tree in trees] for _ in range(times)]
    return [statistics.median(turns) for turns in zip(*rounds, strict=True)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--against", type=Path, help="another tree, to be measured in turns")
    arguments.add_argument("--times", type=int, default=2)
    options = arguments.parse_args()
    trees = [HERE, *([options.against.resolve()] if options.against else [])]
    rows = []
    for command, wanted in COMMANDS.items():
        now, *before = measured(command, options.run.resolve(), trees, options.times)
        compared = [f"{before[0]:.1f}", f"{now / before[0]:.2f}", f"{wanted:g}"] if before else []
        rows.append([command.format(run="RUN"), f"{now:.1f}", *compared])
        print(*rows[-1], file=sys.stderr)
    importing = duration(["-c", "import transformer_lens"], HERE)
    rows.append(["import transformer_lens", f"{importing:.1f}"])
    heads = ["tbtt …", "seconds", *(["before", "share", "wanted ≤"] if options.against else [])]
    print_table(heads, rows, title=f"{processor()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

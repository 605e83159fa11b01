"""Whether models that the page trains answer as many held-out equations as the kernel's do.

python tests/benchmarks/page_training.py [--seeds 20]  # 11 min of CPU time

Both train small on whole lines for 3,000 steps, each seed anew; 5 and 7 are held out. The page's
own training module runs in node. Initial weights differ, so models are compared as two samples.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.shares import difference_of_shares, share_over_models
from tbtt_interp.tasks import load_task
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.training import train_models

SCRIPT = Path(__file__).parents[1] / "page" / "train.mjs"
PAIR, STEPS, RATE, WIDTH = (5, 7), 3_000, 0.01, 14
Counts = list[tuple[int, int]]


def trained_by_the_page(seeds: int) -> tuple[Counts, list[dict[str, Any]]]:
    """Each model's right held-out answers, and what node said of its training."""
    task = load_task("arithmetic")
    encode = task.vocabulary.encode
    is_out = [sorted((e.labels["a"], e.labels["b"])) == sorted(PAIR) for e in task.examples]
    given = {
        "lines": [encode(e.line) for e, out in zip(task.examples, is_out, strict=True) if not out],
        "examples": [{"prompt": encode(e.prompt), "answer": encode(e.answer)}
                     for e, out in zip(task.examples, is_out, strict=True) if out],
        "d_vocab": len(task.vocabulary.characters), "width": WIDTH, "framing": "line",
        "rate": RATE,
    }  # fmt: skip
    node = shutil.which("node") or sys.exit("there is no node: apt-get install nodejs")
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(2) as two:  # one process a core
        for own in two.map(partial(_train, node, given), (range(0, seeds, 2), range(1, seeds, 2))):
            rows += own
    return [(row["right"], row["of"]) for row in rows], rows


def _train(node: str, given: dict[str, Any], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """One process that trains these seeds, one after the other; each is told as it ends."""
    with subprocess.Popen(
        [node, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin and running.stdout
        running.stdin.write(json.dumps(given | {"seeds": list(seeds)}))
        running.stdin.close()
        rows = []
        for line in running.stdout:
            rows.append(row := json.loads(line))
            print(f"page, seed {row['seed']}: {row['right']} of {row['of']} held-out, loss "
                  f"{row['loss']:.4f}, {row['cpu']:.0f} s of CPU", flush=True)  # fmt: skip
    return rows


def trained_by_the_kernel(seeds: int) -> Counts:
    """Each model's right held-out answers."""
    changes = {"model.size": "small", "framing": "line", "seeds": seeds, "held_out": [list(PAIR)],
               "training.steps": STEPS, "training.warmup": STEPS // 15,
               "training.decay_until": STEPS * 5 // 6, "training.learning_rate": RATE,
               "training.evaluate_every": STEPS, "training.checkpoint_every": 0}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = train_models(resolve_recipe("quick", changes), Path(folder) / "run")
        table = evaluate_run(run).table.query("held_out")
    own = table.groupby("seed")["right"]
    return list(zip(own.sum().tolist(), own.count().tolist(), strict=True))


def main() -> None:
    """Prints both shares and their difference; status 1 if its interval leaves 0 out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    kernel = trained_by_the_kernel(seeds)
    page, rows = trained_by_the_page(seeds)
    table = Table(title=f"Held-out equations answered after {STEPS:,} steps, {seeds} models each")
    for name in ("trained by", "right", "of", "share [95 % CI]"):
        table.add_column(name, justify="left" if name == "trained by" else "right")
    for name, counts in (("the page", page), ("the kernel", kernel)):
        right, of = (str(sum(column)) for column in zip(*counts, strict=True))
        table.add_row(name, right, of, share_over_models(counts).format())
    console = Console(width=100)
    console.print(table)
    difference = difference_of_shares(kernel, page)
    console.print(f"page minus kernel: {difference.format(sign='+')}")
    speed = sum(row["steps"] for row in rows) / sum(row["cpu"] for row in rows)
    most = max(row["megabytes"] for row in rows)
    console.print(f"page: {speed:.0f} steps per second of CPU, at most {most:.0f} MB (node)")
    sys.exit(not difference.low <= 0 <= difference.high)


if __name__ == "__main__":
    main()

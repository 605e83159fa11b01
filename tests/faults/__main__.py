"""`python tests/faults` tries every attack, and writes docs/tested.md with their counts."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from faults import inputs, runs  # noqa: E402
from faults.attack import Tally, workspace  # noqa: E402

PAGE = """\
# Faults: what was tried, and what was lost

Attacks on what the package reads and writes. One is survived if the command is unaffected, or if it
refuses, or names the bad run and shows the rest. A refusal is one line and exit status 2, within
{seconds:.0f} s of processor time, and {megabytes} MB more memory than before. Lost is anything
else: a traceback, another answer without a word, a hang, or a file written elsewhere.

Each attack is made from its number, so that all are the same on every machine. The tests try a
short set. This command tries them all and writes this page:

```sh
{command}
```

| attack | tried | refused or named | answered or unaffected | lost |
| --- | --- | --- | --- | --- |
{rows}

{lost}
"""


def tallies(examples: int, attacks: int) -> Iterator[Tally]:
    """Every kind of attack, from the quickest to the slowest."""
    yield from (inputs.try_kind(kind) for kind in inputs.CASES)
    yield from (inputs.fuzz_kind(kind, examples) for kind in inputs.FUZZED)
    kinds: tuple[tuple[Callable[[int], Tally], int], ...] = (
        (runs.attack_full_disk, attacks // 5), (runs.attack_killed, attacks // 5),
        (runs.attack_together, 12), (runs.attack_unfinished, attacks),
        (partial(runs.attack_finished, readers=runs.QUICK), attacks),
        (runs.attack_finished, attacks // 10),
    )  # fmt: skip
    for attack, count in kinds:
        with workspace():
            yield attack(count)


def write_page(found: Sequence[Tally], command: str) -> Tally:
    """Writes the page of what was tried so far, and returns all of it as one tally."""
    total = Tally("all", sum(x.tried for x in found), sum(x.refused for x in found),
                  [f"{x.name}: {lost}" for x in found for lost in x.lost])  # fmt: skip
    text = PAGE.format(
        rows="\n".join(tally.row for tally in (*found, total)), command=command,
        lost="\n".join(f"- {text}" for text in total.lost) or "Nothing was lost.",
        seconds=inputs.SECONDS, megabytes=inputs.MEGABYTES,
    )  # fmt: skip
    (ROOT / "docs" / "tested.md").write_text(text, encoding="utf-8")
    return total


def main(words: Sequence[str]) -> int:
    """Tries the long set, writing its page after each kind; the exit status says if any is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000, help="of each kind of fuzzing")
    parser.add_argument("--attacks", type=int, default=200, help="on runs, of the commonest kinds")
    given = parser.parse_args(words)
    found: list[Tally] = []
    for tally in tallies(given.examples, given.attacks):
        found.append(tally)
        print(tally.row, *tally.lost, sep="\n", flush=True)
        total = write_page(found, " ".join(["python tests/faults", *words]))
    return int(bool(total.lost))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Hostile inputs, a short set; `python tests/faults` tries all of them."""

import os
import subprocess
import sys

import pytest
from faults import runs as attacks
from faults.inputs import CASES, FUZZED, fuzz_kind, try_kind

EVERY = {"nanoGPT checkpoints": 4, "config.json and safetensors headers": 10, "corpora": 6,
         "commands": 12}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_a_hostile_input_is_answered_or_refused_at_once_and_writes_nothing(kind: str) -> None:
    tally = try_kind(kind, EVERY.get(kind, 5))
    assert tally.tried > 5 and not tally.lost, "\n".join(tally.lost)


@pytest.mark.parametrize("kind", FUZZED)
def test_a_random_input_is_answered_or_refused(kind: str) -> None:
    tally = fuzz_kind(kind, 25)
    assert tally.tried >= 20 and not tally.lost, "\n".join(tally.lost)


LOCALE = """
import sys
from tbtt_interp.cli import main
short = ["train", "--size", "small", "--framing", "line", "--seeds", "1", "--steps", "2"]
for words, status in (
    (["models"], 0), ([*short, "--out", "run"], 0), (["evaluate", "run"], 0),
    (["ask", "run", "3+4"], 0), (["ask", "run", "\\u00e9"], 2), (["evaluate", "\\u00e9"], 2),
    (["train", "--task", "\\u00e9.txt"], 2), ([*short, "--out", "/proc/x"], 2),
    ([*short, "--out", "x" * 300], 2), ([*short, "--out", "/".join("x" * 150)], 0),
):
    assert main(words) == status, words
"""


def test_an_ascii_locale_a_long_path_and_a_place_without_room_get_an_answer_or_a_line() -> None:
    environment = os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", LOCALE], env=environment, capture_output=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("ascii")
    assert done.stderr.count(b"error: ") == 5 and b"Traceback" not in done.stderr
    done.stdout.decode("ascii")


@pytest.mark.parametrize(
    ("attack", "count"),
    [
        (lambda count: attacks.attack_finished(count, ("evaluate", "runs")), 8),
        (attacks.attack_unfinished, 10), (attacks.attack_full_disk, 4), (attacks.attack_killed, 2),
        (attacks.attack_together, 2),
    ],
    ids=["finished", "unfinished", "full disk", "killed", "together"],
)  # fmt: skip
def test_no_attack_is_lost(attack, count: int) -> None:
    found = attack(count)
    assert found.tried >= count
    assert found.lost == []

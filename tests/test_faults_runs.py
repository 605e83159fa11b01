"""A short set of the attacks in tests/faults/runs.py; none is lost."""

import pytest
from faults import runs as attacks


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

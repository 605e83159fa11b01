"""The package speaks the field's words, and what was taken out of it does not come back."""

import re
from pathlib import Path

import tbtt_interp

ROOT = Path(tbtt_interp.__file__).parent
GONE = (
    r"class (Questions|Subject|Problem|Patient|Aim|Parts|Finding|Evidence|Watcher|Overseer|Machine"
    r"|Held|Characters)\b",
    r"\b(told|silent|mine|unsaid|nearest_null|further_null|takers?)\b|\btell[:=(]",
    r"[dD]ealt anew|[hH]eld against|[oO]ne who knows|beside its null|nats a character",
)
BY_STRING = re.compile(r"\b(import_module|__import__)\(")


def lines_with(pattern: str) -> list[str]:
    """Places in the package that match a pattern."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(ROOT.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]  # fmt: skip


def test_words_that_were_replaced_are_gone() -> None:
    assert [place for pattern in GONE for place in lines_with(pattern)] == []


def test_nothing_is_imported_by_a_string() -> None:
    """The lazy names of the package itself excepted."""
    places = lines_with(BY_STRING.pattern)
    assert [place for place in places if not place.startswith("__init__.py:")] == []


def test_one_module_puts_hooks_into_models() -> None:
    places = lines_with(r"\brun_with_hooks\(|\.hooks\(|\badd_hook\(|\bfwd_hooks=")
    assert places and all(place.startswith("interventions.py:") for place in places)

"""Hostile inputs by kind, and how each is tried; every case is the same on every machine."""

from collections.abc import Callable, Iterator

from faults.attack import MEGABYTES, SECONDS, Case, Tally, fuzz, try_cases
from faults.checkpoints import import_cases
from faults.commands import command_cases
from faults.fuzzing import FUZZED
from faults.run_folders import good_run, run_cases
from faults.texts import corpus_cases, recipe_cases

__all__ = ["CASES", "FUZZED", "MEGABYTES", "SECONDS", "fuzz_kind", "try_kind"]
CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "nanoGPT checkpoints": import_cases, "config.json and safetensors headers": run_cases,
    "corpora": corpus_cases, "recipes, flags and names": recipe_cases, "commands": command_cases,
}  # fmt: skip


def try_kind(kind: str, every: int = 1) -> Tally:
    """Tries every case of a kind, or every few, beside a run and a checkpoint that are sound."""
    return try_cases(kind, CASES[kind](), good_run, every)


def fuzz_kind(kind: str, examples: int) -> Tally:
    """Tries so many random inputs of a kind."""
    return fuzz(f"fuzzed {kind}", *FUZZED[kind], examples, good_run)

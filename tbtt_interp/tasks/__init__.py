"""Corpora, vocabularies, splits, framings, labels and entropy floors. Needs no torch."""

from collections.abc import Iterable
from pathlib import Path

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.tasks.arithmetic import PUBLISHED_HELD_OUT, Pair, equations
from tbtt_interp.tasks.corpus import read_corpus
from tbtt_interp.tasks.entropy import Floors, entropy_floors
from tbtt_interp.tasks.facts import capitals
from tbtt_interp.tasks.task import Encoder, Example, Task, Vocabulary
from tbtt_interp.tasks.windows import FRAMINGS, Stream

TASKS = ("arithmetic", "facts", "joint")

__all__ = [
    "FRAMINGS",
    "PUBLISHED_HELD_OUT",
    "TASKS",
    "Encoder",
    "Example",
    "Floors",
    "Stream",
    "Task",
    "Vocabulary",
    "entropy_floors",
    "load_task",
]


def is_file(name: str) -> bool:
    """Whether a name is a file's, and so a corpus of one's own; no name is too long to ask."""
    try:
        return Path(name).is_file()
    except OSError:
        return False


def load_task(name: str, *, held_out: Iterable[Pair] = PUBLISHED_HELD_OUT) -> Task:
    """A task by name, or from a file of one's own.

    Args:
        name: arithmetic, facts, joint, or the path of a corpus (see `read_corpus`).
        held_out: operand pairs whose equations are not trained on; only arithmetic has any.
    Source: windows and batches are those of arXiv 2506.09099 and its public code.

    >>> task = load_task("arithmetic")
    >>> len(task.lines), len(task.vocabulary), list(task.prompts(held_out=True)["prompt"])
    (196, 17, ['<5+7=', '<7+5=', '<5-7=', '<7-5='])
    """
    if name == "arithmetic":
        sections, window, batch = (equations(held_out),), 9, 882
    elif name == "facts":
        sections, window, batch = (capitals(),), 24, 576
    elif name == "joint":
        sections, window, batch = (equations(held_out), capitals()), 24, 576
    elif is_file(name):
        return read_corpus(Path(name))
    elif Path(name).suffix or Path(name).parent != Path("."):
        raise TbttError(f"corpus {name} is not there: give a text file of lines, or a task's name")
    else:
        raise unknown("task", name, TASKS, "or give the path of a text file")
    vocabulary = Vocabulary.of(example.line for section in sections for example in section)
    return Task(name=name, sections=sections, window=window, batch=batch, vocabulary=vocabulary)

"""Corpora, vocabularies, splits, framings, labels and entropy floors. Needs no torch.

To add a task, write its module and one line of TASKS; from outside the package, call
`register_task`.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.tasks.arithmetic import PUBLISHED_HELD_OUT, Pair, arithmetic
from tbtt_interp.tasks.corpus import check_answers, read_corpus
from tbtt_interp.tasks.entropy import Floors, entropy_floors
from tbtt_interp.tasks.facts import facts, joint
from tbtt_interp.tasks.task import (
    Encoder,
    Example,
    Prompts,
    Task,
    TokenizerEncoder,
    Vocabulary,
    examples_of,
)
from tbtt_interp.tasks.windows import FRAMINGS, Stream

Loader = Callable[[tuple[Pair, ...]], Task]
TASKS: dict[str, Loader] = {"arithmetic": arithmetic, "facts": facts, "joint": joint}

__all__ = [
    "FRAMINGS", "PUBLISHED_HELD_OUT", "TASKS", "Encoder", "Example", "Floors", "Prompts", "Stream",
    "Task", "TokenizerEncoder", "Vocabulary", "entropy_floors", "examples_of", "load_task",
    "register_task",
]  # fmt: skip


def register_task(name: str, loader: Loader) -> None:
    """Makes a task known by name to `load_task`, recipes, sweeps and the command line.

    The loader makes the task from its held-out operand pairs, if it has operands.

    >>> examples = [Example.of("a:", "b", {"letter": "a"}), Example.of("b:", "c", {"letter": "b"})]
    >>> register_task("letters", lambda _: Task.of("letters", examples, window=5, batch=8))
    >>> load_task("letters").varied
    ('letter',)
    >>> del TASKS["letters"]
    """
    if TASKS.get(name, loader) is not loader:
        raise TbttError(f"there is a task '{name}' already: give another name")
    TASKS[name] = loader


def load_task(name: str, *, held_out: Iterable[Pair] = PUBLISHED_HELD_OUT) -> Task:
    """A task by name, or a corpus from a file.

    Args:
        name: arithmetic, facts, joint, a registered task, or the path of a corpus.
        held_out: operand pairs whose equations are not trained on.
    Source: windows and batches are those of arXiv 2506.09099 and its public code.

    >>> task = load_task("arithmetic")
    >>> len(task.lines), len(task.vocabulary), list(task.prompts(held_out=True)["prompt"])
    (196, 17, ['<5+7=', '<7+5=', '<5-7=', '<7-5='])
    """
    if name in TASKS:
        return TASKS[name](tuple(held_out))
    if os.path.isfile(name):  # false, not an error, for a name too long for a path
        task = read_corpus(Path(name))
        check_answers(Path(name), task)
        return task
    if name and os.path.isdir(name):
        raise TbttError(f"task {name} is a folder: give a file of lines, as in {name}/lines.txt")
    if Path(name).suffix or Path(name).parent != Path("."):
        raise TbttError(f"corpus {name} is not there: give a text file of lines, or a task's name")
    raise unknown("task", name, TASKS, "or give the path of a text file")

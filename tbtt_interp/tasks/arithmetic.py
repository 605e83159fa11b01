"""Single-digit addition and subtraction, as in Too Big to Think (arXiv 2506.09099), section 3."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

from tbtt_interp.errors import TbttError, brief
from tbtt_interp.tasks.task import Example, Label, Task

Pair = tuple[int, int]
PUBLISHED_HELD_OUT: tuple[Pair, ...] = ((5, 7),)
OPERANDS, OPERATORS = tuple(range(10)), ("+", "-")
SHORT_FORM = (r"<?(\d+[+-]\d+)=?", r"<\1=")  # 3+4 is short for <3+4=


def arithmetic(held_out: Iterable[Pair] = PUBLISHED_HELD_OUT) -> Task:
    """The task of `equations`."""
    return Task.of(
        "arithmetic", equations(held_out), window=9, batch=882, operands=OPERANDS,
        operators=OPERATORS, short_forms=(SHORT_FORM,),
    )  # fmt: skip


def equation_labels(a: int, operator: str, b: int) -> dict[str, Label]:
    """The labels of an equation; an addition has `carry`, a subtraction `borrow`.

    >>> equation_labels(3, "-", 4)["borrow"], equation_labels(8, "+", 4)["units"]
    (True, 2)
    """
    value = a + b if operator == "+" else a - b
    overflow = {"carry": value >= 10} if operator == "+" else {"borrow": a < b}
    return {
        "a": a, "operator": operator, "b": b, "value": value, "characters": str(value),
        "sign": (value > 0) - (value < 0), "tens": abs(value) // 10, "units": abs(value) % 10,
        "magnitude": abs(value), **overflow,
    }  # fmt: skip


@cache  # thousands of models may each hold out other pairs of the same 200
def equation(a: int, operator: str, b: int, *, held_out: bool = False) -> Example:
    """One labelled equation, padded to the width of the widest single-digit one.

    >>> equation(3, "-", 4)
    Example(line='<3-4=-1>\\n', prompt='<3-4=', answer='-1>', group='subtraction', ...)
    """
    labels = equation_labels(a, operator, b)
    prompt, answer = f"<{a}{operator}{b}=", f"{labels['value']}>"
    group = "addition" if operator == "+" else "subtraction"
    return Example.of(prompt, answer, labels, group=group, held_out=held_out, width=8)


def equations(held_out: Iterable[Pair] = PUBLISHED_HELD_OUT) -> tuple[Example, ...]:
    """All 200 equations of two digits; those of a held-out pair, in either order, are marked.

    >>> sum(example.held_out for example in equations([(5, 7), (9, 9)]))
    6
    """
    unordered = {tuple(sorted(pair)) for pair in held_out}
    for pair in unordered:
        if len(pair) != 2 or not set(pair) <= set(OPERANDS):
            raise TbttError(
                f"held-out pair {','.join(map(brief, pair))} is not of this task: give two "
                f"operands from {OPERANDS[0]} to {OPERANDS[-1]}, as in --held-out 5,7"
            )
    return tuple(
        equation(a, operator, b, held_out=tuple(sorted((a, b))) in unordered)
        for operator, a, b in product(OPERATORS, OPERANDS, OPERANDS)
    )


def operand_grid(low: int, high: int, taught: Sequence[Example]) -> tuple[Example, ...]:
    """Every equation of operands from low to high, as seen or held out in a task, or beyond 9.

    >>> [e.group for e in operand_grid(9, 10, equations())][:2]
    ['seen', 'beyond 9']
    """
    group = {e.prompt: "held out" if e.held_out else "seen" for e in taught}
    operands = range(low, high + 1)
    grid = [equation(a, operator, b) for operator, a, b in product(OPERATORS, operands, operands)]
    beyond = f"beyond {OPERANDS[-1]}"
    return tuple(replace(e, group=group.get(e.prompt, beyond)) for e in grid)


def pairs_text(pairs: Sequence[Pair]) -> str:
    """Held-out pairs as text, the form in tables.

    >>> pairs_text(((5, 7), (9, 9)))
    '5,7 9,9'
    """
    return " ".join(f"{a},{b}" for a, b in pairs)


def as_pairs(value: Any, where: str) -> tuple[Pair, ...]:
    """Operand pairs from plain data, sorted, each once and with its smaller operand first.

    Raises:
        TbttError: if it is no list of pairs of whole numbers.
    """
    pairs: Sequence[Any] = value if isinstance(value, list | tuple) else [None]
    if not all(isinstance(p, list | tuple) and [*map(type, p)] == [int, int] for p in pairs):
        shown = str(value)[:60]
        raise TbttError(f"{where} must be a list of operand pairs, as in [[5, 7]], got {shown}")
    return tuple(sorted({(min(pair), max(pair)) for pair in pairs}))

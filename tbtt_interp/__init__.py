"""tbtt_interp: when does a model learn the rule, and when does it memorize?

Capacity-scaled character-level transformers, trained as in Too Big to Think (arXiv 2506.09099), and
the instruments to open them. Importing this needs neither torch nor TransformerLens; they are
imported when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.activations import run_activations
    from tbtt_interp.runs import Run, load_run
    from tbtt_interp.scores import evaluate_run
    from tbtt_interp.tasks import Task, entropy_floors, load_task
    from tbtt_interp.train.recipe import Recipe
    from tbtt_interp.train.resolve import resolve_recipe
    from tbtt_interp.train.training import train_models

__all__ = [
    "Recipe",
    "Run",
    "Task",
    "TbttError",
    "entropy_floors",
    "evaluate_run",
    "load_run",
    "load_task",
    "resolve_recipe",
    "run_activations",
    "train_models",
]

_HOMES = {
    "Recipe": "train.recipe",
    "Run": "runs",
    "Task": "tasks",
    "entropy_floors": "tasks",
    "evaluate_run": "scores",
    "load_run": "runs",
    "load_task": "tasks",
    "resolve_recipe": "train.resolve",
    "run_activations": "activations",
    "train_models": "train.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tbtt_interp' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tbtt_interp.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""tbtt_interp: when does a model learn the rule, and when does it memorize?

Capacity-scaled character-level transformers, trained as in Too Big to Think (arXiv 2506.09099), and
the instruments to open them. Importing this needs neither torch nor TransformerLens; they are
imported when first used.
"""

# ruff: noqa: F401
import importlib
from typing import TYPE_CHECKING, Any

from tbtt_interp.errors import TbttError
from tbtt_interp.versions import __version__

if TYPE_CHECKING:
    from tbtt_interp.activations import run_activations
    from tbtt_interp.analyses.additivity import analyse_additivity
    from tbtt_interp.analyses.attention import analyse_attention, attention_knockout
    from tbtt_interp.analyses.attribution import analyse_attribution, direct_logit_attribution
    from tbtt_interp.analyses.clean_corrupted import activation_patching
    from tbtt_interp.analyses.geometry import analyse_geometry
    from tbtt_interp.analyses.line_order import analyse_order
    from tbtt_interp.analyses.logit_lens import logit_lens
    from tbtt_interp.analyses.memorization import analyse_memorization
    from tbtt_interp.analyses.overview import analyse_overview
    from tbtt_interp.analyses.patching import analyse_patching
    from tbtt_interp.analyses.path_patching import analyse_paths, path_patching
    from tbtt_interp.analyses.registry import register_analysis
    from tbtt_interp.compare import compare_runs
    from tbtt_interp.evaluate import evaluate_run
    from tbtt_interp.explore.notebook import show
    from tbtt_interp.pretrained.gpt2 import export_huggingface, import_huggingface
    from tbtt_interp.pretrained.hub import load_from_hub, push_pretrained
    from tbtt_interp.pretrained.models import list_models, load_pretrained
    from tbtt_interp.probes.das import analyse_das, distributed_alignment_search
    from tbtt_interp.probes.effects import (
        analyse_erasure,
        erasure_table,
        interchange,
        latent_answers,
    )
    from tbtt_interp.probes.features import Feature, register_feature
    from tbtt_interp.probes.grid import analyse_probes, probe_grid
    from tbtt_interp.probes.linear import fit_probe
    from tbtt_interp.prompts import PromptBatch, PromptSet
    from tbtt_interp.results import Claim, Result
    from tbtt_interp.runs import Run, load_run
    from tbtt_interp.seeds import Models, over_seeds
    from tbtt_interp.stats import summarize
    from tbtt_interp.tasks import Example, Task, entropy_floors, load_task, register_task
    from tbtt_interp.train.progress import ProgressBar
    from tbtt_interp.train.recipe import Recipe, resolve_recipe
    from tbtt_interp.train.training import train_models

_HOMES = {
    "activations": "run_activations",
    "analyses.additivity": "analyse_additivity",
    "analyses.attention": "analyse_attention attention_knockout",
    "analyses.attribution": "analyse_attribution direct_logit_attribution",
    "analyses.clean_corrupted": "activation_patching",
    "analyses.geometry": "analyse_geometry",
    "analyses.line_order": "analyse_order",
    "analyses.logit_lens": "logit_lens",
    "analyses.memorization": "analyse_memorization",
    "analyses.overview": "analyse_overview",
    "analyses.patching": "analyse_patching",
    "analyses.path_patching": "analyse_paths path_patching",
    "analyses.registry": "register_analysis",
    "compare": "compare_runs",
    "evaluate": "evaluate_run",
    "explore.notebook": "show",
    "pretrained.gpt2": "export_huggingface import_huggingface",
    "pretrained.hub": "load_from_hub push_pretrained",
    "pretrained.models": "list_models load_pretrained",
    "probes.das": "analyse_das distributed_alignment_search",
    "probes.effects": "analyse_erasure erasure_table interchange latent_answers",
    "probes.features": "Feature register_feature",
    "probes.grid": "analyse_probes probe_grid",
    "probes.linear": "fit_probe",
    "prompts": "PromptBatch PromptSet",
    "results": "Claim Result",
    "runs": "Run load_run",
    "seeds": "Models over_seeds",
    "stats": "summarize",
    "tasks": "Example Task entropy_floors load_task register_task",
    "train.progress": "ProgressBar",
    "train.recipe": "Recipe resolve_recipe",
    "train.training": "train_models",
}  # the imports above, made when a name is first used
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = ["TbttError", *_HOME]  # noqa: PLE0604  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tbtt_interp' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tbtt_interp.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

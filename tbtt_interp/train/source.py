"""Models that a recipe takes something from: a run's, at a step.

A source is recorded with the recipe that trained it. So it can be trained again, to the same bytes,
if its folder is deleted or has no saved optimizer state.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tbtt_interp.errors import TbttError, guess
from tbtt_interp.files import read_tensors, weights_hash
from tbtt_interp.runs import Run, load_run, shipped_runs, state_path
from tbtt_interp.tasks import TASKS

if TYPE_CHECKING:
    from tbtt_interp.model import Parameters

KEPT_IN_A_FORK = ("seeds", "first_seed", "corpus_seed", "same_file", "task", "held_out",
                  "held_out_each", "deal_pairs", "model.", "training.window",
                  "changes.initial_scale")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run's models after a step, with what is needed to train and to check them."""

    run: str
    step: int
    recipe: Mapping[str, Any]  # as recorded
    kept: int  # the run's last checkpoint up to that step; its bytes are checked
    weights: str  # SHA-256 of the tensors there

    @classmethod
    def of(cls, text: str, step: int | None = None) -> "Source":
        """The source that RUN@STEP names; RUN alone is its last checkpoint."""
        from tbtt_interp.kernel import BITS

        name, _, at = text.rpartition("@")
        if name and not at.isdecimal():
            raise TbttError(
                f"'{text}' is not of the form RUN@STEP: give a step, as in runs/small@500"
            )
        run = _run_of_models(name or text)
        environment = run.config.environment
        is_ours = environment.get("compiled") and environment.get("bits") == BITS
        if run.config.recipe is None or not is_ours:
            what = f"{run.folder} was not trained by this version of the compiled kernel"
            raise TbttError(f"{what}: train it again before you take models from it")
        step = int(at) if name else step
        step = max(run.checkpoints, default=0) if step is None else step
        kept = [k for k in run.checkpoints if k <= step]
        if step > run.config.steps or not kept:
            first = min(run.checkpoints, default=0)
            what = f"{run.folder} has no step {step:,}"
            raise TbttError(f"{what}: give one from {first:,} to {run.config.steps:,}")
        recipe = own_recipe(run.config.recipe, run.folder)
        return cls(run=str(run.folder), step=step, recipe=recipe, kept=max(kept),
                   weights=weights_hash(run.parameters(max(kept))))  # fmt: skip

    @property
    def has_state(self) -> bool:
        """Whether the run keeps the optimizer's state at the step."""
        return self.step == self.kept and state_path(Path(self.run), self.step).is_file()

    def stored_state(self) -> "Parameters | None":
        """The optimizer's state at the step, where the run keeps it and it is the recorded one."""
        if not self.has_state:
            return None
        try:
            state = read_tensors(state_path(Path(self.run), self.step))
        except TbttError:
            return None
        weights = {
            name.removeprefix("weights/"): x for name, x in state.items() if "weights/" in name
        }
        return state if weights_hash(weights) == self.weights else None

    def stored_parameters(self) -> "Parameters | None":
        """The parameters at the step, where the run has them and they are the recorded ones."""
        if self.step != self.kept:
            return None
        try:
            parameters = load_run(self.run).parameters(self.step)
        except TbttError:
            return None
        return parameters if weights_hash(parameters) == self.weights else None


def _run_of_models(name: str) -> Run:
    """The run that models are taken from."""
    from tbtt_interp.train.recipe import recipe_names

    shipped = shipped_runs()
    if os.path.isdir(name) or name in shipped:
        return load_run(name)
    sweep = Path(name).parent.name
    how = f", by tbtt sweep {sweep}" if sweep in recipe_names("sweeps") else ", or give another run"
    what = f"run {name}, from which models are taken, is not there{guess(name, shipped)}"
    raise TbttError(f"{what}: train it first{how}")


def own_recipe(recipe: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A run's recorded recipe, whose corpus is read from the run's folder if it has its own.

    A run from elsewhere may name any file of this machine as its task: that file is never read.
    """
    task = recipe.get("task")
    return {**recipe, "task": task if task in TASKS else str(folder / "corpus.tsv")}


def forked_table(origin: Source, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and table of the recipe that a forked run starts from: its origin's."""
    if fixed := [key for key in given if key.startswith(KEPT_IN_A_FORK)]:
        what = f"a forked run keeps its origin's models and data, so {fixed[0]} cannot be set"
        raise TbttError(f"{what}: leave it out, or train a new run")
    table = json.loads(json.dumps(origin.recipe))
    changes, sources = table.get("changes", {}), table.get("sources", {})
    done = {"transplant", "donor", "initial_scale"}  # applied only when the origin started
    if not changes.get("frozen", True):
        done |= {"digits", "graft", "frozen", "order"}
    table["changes"] = {key: value for key, value in changes.items() if key not in done}
    kept = {key: value for key, value in sources.items() if key == "graft" and key not in done}
    table["sources"] = kept | {"from": dataclasses.asdict(origin)}
    return table.pop("name"), table


def find_sources(table: dict[str, Any]) -> None:
    """Finds the runs that changes take models from."""
    changes, sources = table.get("changes", {}), table.setdefault("sources", {})
    for key in ("graft", "donor"):
        if changes.get(key):
            sources[key] = dataclasses.asdict(Source.of(changes[key]))
    if changes.get("transplant") and "from" not in sources:
        raise TbttError("changes.transplant is for forked runs: give --from RUN --step K as well")

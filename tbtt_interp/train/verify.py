"""Training a run again, to see whether its weights have the same bytes here."""

from typing import NamedTuple

from tbtt_interp.errors import TbttError
from tbtt_interp.files import file_hashes, weights_hash
from tbtt_interp.kernel import BITS
from tbtt_interp.runs import Run
from tbtt_interp.train.recipe import recorded_recipe
from tbtt_interp.train.source import own_recipe
from tbtt_interp.train.stacks import (
    Runtime,
    TrainingCallback,
    begin,
    new_stack,
    threads_of_torch,
)


class Verification(NamedTuple):
    """SHA-256 of a run's weights at one step, stored and trained again, and its altered files."""

    step: int
    kept: str
    again: str
    altered: tuple[str, ...]  # paths of files that are not as summary.json has them

    @property
    def is_same(self) -> bool:
        """Whether every byte is the same."""
        return self.kept == self.again and not self.altered


def verify_run(
    run: Run, steps: int | None = None, *, threads: int | None = None,
    callback: TrainingCallback | None = None,
) -> Verification:  # fmt: skip
    """Trains a run's models again in memory, up to its last checkpoint within `steps`.

    Raises a TbttError for a run trained by torch or by another version of the kernel.
    """
    environment = run.config.environment
    if run.config.recipe is None or not environment.get("compiled"):
        what = f"{run.folder} was not trained by the compiled kernel"
        raise TbttError(f"{what}, so its bits depend on the machine and cannot be verified")
    if environment.get("bits") != BITS:
        what = f"{run.folder} was trained by another version of the compiled kernel"
        raise TbttError(f"{what}: train it again to get this version's bits")
    recipe = recorded_recipe(own_recipe(run.config.recipe, run.folder))
    first = recipe.first_step
    later = [step for step in run.checkpoints if step > first]
    kept = [step for step in later if steps is None or step <= steps]
    if not kept:
        least = f"give --steps of at least {min(later)}" if later else run.resuming
        upto = "" if steps is None else f" up to step {steps}"
        raise TbttError(f"{run.folder} has no checkpoint{upto}: {least}")
    until = max(kept)
    callback = callback or TrainingCallback()
    runtime = Runtime(threads=threads, compiled=True)
    with threads_of_torch(threads):
        stack = new_stack(recipe, runtime, callback)
        if stack.kernel is None:
            raise TbttError(f"{run.folder} cannot be trained again here: it needs a C++ compiler")
        begin(stack, recipe, callback)
        callback.on_start(stack.first_step, until)
        for done in stack.steps(stack.first_step, until):
            callback.on_step(done)
    listed = run.summary().get("files", {}) if run.is_complete else {}
    files = file_hashes(run.folder)
    altered = tuple(path for path, expected in listed.items() if files.get(path) != expected)
    try:
        kept_hash = weights_hash(run.parameters(until))
    except TbttError:  # damaged, so that no tensor of it can be trusted
        kept_hash = files.get(str(run.checkpoints[until].relative_to(run.folder)), "")
    again = weights_hash(stack.parameters)
    return Verification(until, kept_hash, again, altered)

"""A recipe: what to train, on what, and how, as a checked and frozen configuration."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from tbtt_interp.errors import TbttError
from tbtt_interp.tasks import Task, load_task
from tbtt_interp.tasks.arithmetic import Pair

Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """How large the models are. A size's own numbers, or a user's."""

    size: str
    layers: int
    heads: int
    d_model: int
    d_mlp: int
    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How the models are trained: AdamW with warm-up and cosine decay, clipped per model."""

    steps: int
    batch: int | str  # windows a step; "all" is every line once, with framing line
    window: int
    learning_rate: float
    min_learning_rate: float
    warmup: int
    decay_until: int
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    clip: float
    evaluate_every: int
    checkpoint_every: int  # 0 keeps the last step alone

    def __post_init__(self) -> None:
        for name in ("steps", "window", "evaluate_every"):
            if getattr(self, name) < 1:
                raise TbttError(f"training.{name} must be at least 1, got {getattr(self, name)}")
        if self.batch != "all" and (isinstance(self.batch, str) or self.batch < 1):
            raise TbttError(
                f"training.batch must be a number of windows, at least 1, or 'all', "
                f"got {self.batch!r}"
            )
        for name in ("learning_rate", "epsilon", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise TbttError(f"training.{name} must be above 0, got {getattr(self, name)}")
        for name in ("min_learning_rate", "weight_decay", "warmup", "checkpoint_every"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TbttError(f"training.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise TbttError(f"training.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.min_learning_rate > self.learning_rate:
            raise TbttError(
                f"training.min_learning_rate is {self.min_learning_rate}, above "
                f"training.learning_rate, which is {self.learning_rate}: the rate falls to it"
            )
        if self.warmup > self.decay_until:
            raise TbttError(
                f"training.warmup is {self.warmup}, past training.decay_until, which is "
                f"{self.decay_until}: the rate rises first and falls then"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a run trains, resolved and checked."""

    name: str
    task: str
    framing: str
    held_out: tuple[Pair, ...]
    held_out_each: tuple[tuple[Pair, ...], ...]  # one set a model, where models differ
    seeds: int
    first_seed: int
    corpus_seed: int
    same_file: bool
    model: ModelRecipe
    training: TrainingRecipe

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise TbttError(f"seeds must be at least 1, got {self.seeds}")
        for name in ("first_seed", "corpus_seed"):
            if not 0 <= getattr(self, name) < 2**31:
                raise TbttError(f"{name} must be from 0 to 2^31 - 1, got {getattr(self, name)}")
        if self.held_out_each and len(self.held_out_each) != self.seeds:
            raise TbttError(
                f"held_out_each has {len(self.held_out_each)} sets for {self.seeds} seeds: "
                "give one set of pairs a seed, or held_out for all"
            )

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The models' seeds."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    def tasks(self) -> tuple[Task, ...]:
        """Each model's task."""
        sets = self.held_out_each or (self.held_out,) * self.seeds
        known = {held_out: load_task(self.task, held_out=held_out) for held_out in set(sets)}
        return tuple(known[held_out] for held_out in sets)

    def order_seed(self, seed: int, task: Task) -> int | None:
        """Which permutation of the lines a model's file is; None is the file as it stands."""
        if not self.same_file:
            return self.corpus_seed + seed
        return None if task.order_is_given else self.corpus_seed

    def as_table(self) -> Table:
        """The recipe as plain data, as it is stored with a run."""
        return dataclasses.asdict(self)

"""What probes read: of a whole run, each feature at each site; of the prompt, place by place.

The run's map takes seconds, so it is made beside the page, once, and kept.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.activations import split_head
from tbtt_interp.errors import TbttError
from tbtt_interp.explore import maps
from tbtt_interp.explore.asking import changed
from tbtt_interp.explore.catalogue import Opened, stamp_of
from tbtt_interp.explore.parts import Part
from tbtt_interp.explore.scene import Scene
from tbtt_interp.explore.state import Pane, Reading
from tbtt_interp.plots import short_site
from tbtt_interp.probes.datasets import read_cells
from tbtt_interp.probes.features import find_features, label_examples, pair_groups
from tbtt_interp.probes.grid import probe_grid
from tbtt_interp.probes.linear import SHRINKAGE
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run, checkpoint_path

KEPT = 64  # tables
PATIENCE = 3.0  # seconds after which who has not asked again does not wait; the page asks oftener
CONTROLS = 19  # control tasks a feature, of the 99 that `tbtt probes` draws
NULLS = {"control": "control task", "thresholds": "other thresholds",
         "operands": "operands as numbers", "one_hot": "the text in one-hot",
         "untrained": "untrained model", "majority": "commonest class"}  # fmt: skip
HIGHEST = "strongest null"


@dataclass
class Job:
    """A table in the making, and what came of it."""

    table: pd.DataFrame | None = None
    problem: str = ""
    asked: float = field(default_factory=time.monotonic)

    @property
    def is_done(self) -> bool:
        """Whether there is something to show."""
        return self.table is not None or bool(self.problem)


@dataclass
class Jobs:
    """Tables that are made one at a time, beside the page, each once and for who still waits."""

    known: dict[object, Job] = field(default_factory=dict)
    one: threading.Lock = field(default_factory=threading.Lock)
    asking: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: object, make: Callable[[], pd.DataFrame]) -> Job:
        """The job of this key, begun if it is new."""
        with self.asking:
            job = self.known.pop(key, None)
            if job is None or (job.problem and time.monotonic() - job.asked > PATIENCE):
                job = Job()
                threading.Thread(target=self._run, args=(key, job, make), daemon=True).start()
            job.asked = time.monotonic()
            self.known[key] = job  # last, that is: latest
            while len(self.known) > KEPT:
                del self.known[next(iter(self.known))]
            return job

    def _run(self, key: object, job: Job, make: Callable[[], pd.DataFrame]) -> None:
        with self.one:
            with self.asking:
                if time.monotonic() - job.asked > PATIENCE:  # nobody looks any more
                    if self.known.get(key) is job:
                        del self.known[key]
                    return
            try:
                job.table = make()
            except TbttError as error:
                job.problem = str(error)
            except Exception as error:  # the page has to say it, whatever it is
                logging.getLogger(__name__).exception("Probing broke.")
                job.problem = f"probing broke ({type(error).__name__}: {error}); see the log"


def job_of(jobs: Jobs, scene: Scene, place: int) -> Job:
    """The probe grid of every seed of the pane's run, at one position."""
    run, step = scene.run, scene.which.step
    path = checkpoint_path(run.folder, step)
    if not path.is_file():
        raise TbttError(
            f"of step {step:,} there is one model alone, and the map is of all seeds of a run: "
            f"choose step {max(run.checkpoints):,}"
        )
    shortest = min(len(example.prompt) for example in scene.task.examples)
    if not -shortest <= place <= -1:
        raise TbttError(f"position {place} is not in every prompt: choose -{shortest} to -1")
    make = partial(_grid, run, step, place)
    return jobs.get((run, scene.which.run, stamp_of(path), place), make)


def _grid(run: Run, step: int, place: int) -> pd.DataFrame:
    """Of the features that a prompt by itself has; which line comes next is for `tbtt probes`."""
    features = [feature.name for feature in find_features(None, run.tasks[0].examples)]
    return probe_grid(run, features, positions=[place], step=step, controls=CONTROLS)


def probes_part(table: pd.DataFrame, pane: Pane) -> Part:
    """Each feature at each site: accuracy above the strongest of its nulls."""
    sites = {site: k for k, site in enumerate(dict.fromkeys(table["site"]))}
    features = {name: k for k, name in enumerate(dict.fromkeys(table["feature"]))}
    strongest = table[list(NULLS)].max(axis=1)
    acts = [
        Reading(*row)
        for row in table[["feature", "site", "pos"]].itertuples(index=False, name=None)
    ]
    found = table.assign(
        row=table["feature"].map(features), row_name=table["feature"],
        column=table["site"].map(sites), column_name=table["site"].map(short_site),
        value=table["accuracy"] - strongest, null=strongest,
        mark=["●" if act == pane.probe else "" for act in acts],
        act=[f"probe {act}" for act in acts],
    )  # fmt: skip
    hover = {
        "accuracy": "accuracy %{…:.3f}", "accuracy_low": "from %{…:.3f}",
        "accuracy_high": "to %{…:.3f} over models",
        **{name: f"{words} %{{…:.3f}}" for name, words in NULLS.items()
           if table[name].notna().any()},
        "held_out_correct": "held-out right %{…}", "held_out_of": "of %{…}",
    }  # fmt: skip
    return Part(
        name="probes", title="Features read, above the strongest of their nulls", table=found,
        draw=partial(
            maps.cell_map, titles=("feature", "site"), unit="accuracy − " + HIGHEST,
            signed=True, bounds=(-1.0, 1.0), hover=hover,
        ),
        of=("run", "step"),
        note=f"All models of the run, cross-validated; {CONTROLS} control tasks a feature. Hover "
        "for every null; click a cell to read this prompt with that probe.",
    )  # fmt: skip


@lru_cache(maxsize=128)
def _activations(opened: Opened, run: Run, hook: str) -> dict[tuple[str, int], Tensor]:
    """Of every example's prompt, by site and position: `[example, d]`."""
    prompts = PromptSet.of_seed(run, run.seeds[0])
    with opened.alone:
        return read_cells(opened.model, prompts, [e.prompt for e in prompts.examples], [hook])


def reading_part(scene: Scene, reading: Reading) -> Part:
    """What a probe of each position says of this prompt there.

    Fitted on what this model has seen, but for this prompt and, of equations, all of its operands.

    Raises:
        TbttError: if the feature, the site or the position is not there.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    examples = scene.task.examples
    feature = find_features([reading.feature], examples)[0]
    labels = label_examples(feature, examples, controls=0)
    is_learned = np.array([not example.held_out for example in examples])
    if scene.known is not None:
        groups = pair_groups(examples)
        is_learned &= groups != groups[examples.index(scene.known)]
    learned = np.flatnonzero(is_learned & labels.has)
    classes = labels.real[0][np.cumsum(labels.has)[learned] - 1]
    hook, head = split_head(reading.site)
    if head is not None and head >= scene.run.shape.heads:
        raise TbttError(f"there is no head {head} in this model: choose a cell of its own map")
    every = _activations(scene.opened, scene.run, split_head(reading.site)[0])
    here = _of_prompt(scene, hook, head)
    truth = feature.of(scene.known) if scene.known is not None else None
    rows = []
    places = sorted(pos for site, pos in every if site == reading.site and -pos <= len(here))
    if not places:
        raise TbttError(f"there is nothing at {reading.site}: choose a cell of the map")
    probe = make_pipeline(
        StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE)
    )
    for pos in places:
        known = every[reading.site, pos]
        probe.fit(known[torch.from_numpy(learned)].double().numpy(), classes)
        likely = np.zeros(len(labels.classes))
        likely[probe.classes_] = probe.predict_proba(here[pos][None].double().numpy())[0]
        name = scene.names[scene.said.asked + pos]
        rows += [
            {"row": k, "row_name": str(labels.classes[k]), "column": pos, "column_name": name,
             "value": value, "text": f"{value:.2f}{' ✓' * (labels.classes[k] == truth)}"}
            for k, value in enumerate(likely.tolist())
        ]  # fmt: skip
    of_whom = "" if truth is None else f" ✓ is what is true of it: {truth}."
    return Part(
        name="reading",
        title=f"{reading.feature} read at {short_site(reading.site)}, place by place",
        table=pd.DataFrame(rows),
        draw=partial(
            maps.cell_map, titles=(reading.feature, "at"), unit="probability", bounds=(0.0, 1.0)
        ),
        note=f"A probe of each position, fitted on {len(learned)} prompts that this model has "
        f"seen, none with these operands or this prompt.{of_whom}",
    )  # fmt: skip


def _of_prompt(scene: Scene, hook: str, head: int | None) -> Float[Tensor, "pos d"]:
    """This prompt's activations at a site, its edges cut; the last is the prompt's last."""
    asked = scene.said.tokens[: scene.said.asked]
    start = scene.lost
    tokens = torch.tensor([asked[start:]])
    with changed(scene.opened, scene.cuts, start) as model:
        values = model.run_with_cache(tokens, names_filter=hook)[1][hook][0]
    return values if head is None else values[:, head]

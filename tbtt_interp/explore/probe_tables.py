"""Tables of linear probes for the page: accuracy of each feature at each site, and its nulls.

`python -m tbtt_interp.explore.probe_tables` writes those of the models that ship into probes/, one
file per run: the last two tokens of the prompt for the models at the last step, and the last one
for the one model that is kept over training. Tables whose weights have not changed are kept, so
that the command can be stopped and started again. Left out: the embedding without its position,
earlier tokens, features of the next line, p-values and description lengths; `tbtt probes` has them.
For other runs the page's server computes the same tables, of five tokens, when the page asks.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tbtt_interp import runs
from tbtt_interp.errors import TbttError
from tbtt_interp.files import write_whole
from tbtt_interp.probes.features import find_features
from tbtt_interp.runs import Run, load_run, shipped_runs
from tbtt_interp.tasks import Task
from tbtt_interp.tasks.task import Label

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformer_lens import HookedTransformer

    from tbtt_interp.probes.datasets import ProbeTask
    from tbtt_interp.prompts import PromptSet

Table = dict[str, Any]
FOLDER = Path(__file__).parent / "probes"
CONTROLS = 9  # control tasks per feature, of the 99 that `tbtt probes` draws
POSITIONS = (-5, -4, -3, -2, -1)  # counted from the prompt's last token
SHIPPED_POSITIONS = (-2, -1)  # "b" and "=" of an equation: those before have read one operand
IN_TEXT = 0.995  # accuracy from which a probe of the one-hot text leaves nothing to find
ONE = threading.Lock()  # tables are computed one at a time


def probe_table(run: Run, step: int, positions: Sequence[int] = POSITIONS) -> Table:
    """Cross-validated probes of all models of a checkpoint, with the nulls of `probe_grid`.

    Returns:
        features, sites, positions, seeds, controls (the number of control tasks).
        Columns `[feature][site][position]`, in thousandths: accuracy, its 95 % interval low and
        high over models (null for one model), and the nulls control, thresholds (null where a
        feature has none) and untrained; held_out, how many labels of examples that a model has not
        seen its probe predicts; trivial, 1 where every prompt has the same activation, 2 before the
        first layer, 3 where a probe of the one-hot text is always right, else 0. By feature: the
        nulls one_hot and majority, and held_out_of; by feature and site: the null operands.
    """
    from tbtt_interp.probes.datasets import ProbeDataset
    from tbtt_interp.probes.grid import default_sites
    from tbtt_interp.seeds import Models

    models = Models.of(run, step)
    examples = models.shared_prompts.examples
    features = find_features(None, examples)
    shortest = min(len(example.prompt) for example in examples)
    positions = tuple(pos for pos in positions if -pos <= shortest)
    dataset = ProbeDataset.of_prompts(models.prompts, features, controls=CONTROLS)
    cells = default_sites(models.first.cfg.n_layers)[1:], positions
    trained = _activations(models.models, models.prompts, dataset.texts, *cells)
    widths = tuple(x.shape[-1] for x in trained.values())
    one_hot, majority, operands = _text_nulls(run, widths)
    untrained = _untrained(run, models.seeds, *map(tuple, cells))
    scores = [
        [_scores(task, x, site, one_hot[number]) for site, x in trained.items()]
        for number, task in enumerate(dataset.tasks)
    ]
    columns = {
        name: [_thousandths([one[name] for one in of]) for of in scores]
        for name in ("accuracy", "low", "high", "control", "thresholds")
    }
    counts = {
        name: [[one[name] for one in of] for of in scores] for name in ("held_out", "trivial")
    }
    splits = [[s.n_tested for s in task.held_out if s is not None] for task in dataset.tasks]
    return {
        "features": [f.name for f in features], "sites": list(trained),
        "positions": list(positions), "seeds": list(models.seeds),
        "controls": CONTROLS, **columns, **counts, "held_out_of": [sum(of) for of in splits],
        "untrained": [_thousandths(of) for of in untrained], "one_hot": _thousandths(one_hot),
        "majority": _thousandths(majority), "operands": _thousandths(operands.T),
    }  # fmt: skip


def _activations(
    models: "Sequence[HookedTransformer]", prompts: "Sequence[PromptSet]", texts: Sequence[str],
    sites: Sequence[str], positions: Sequence[int],
) -> "dict[str, Float[Tensor, 'model pos text d']]":  # fmt: skip
    """The activations of every model at each site, heads apart."""
    import torch

    from tbtt_interp.probes.datasets import read_cells

    cells = [
        read_cells(model, own, texts, sites, positions)
        for model, own in zip(models, prompts, strict=True)
    ]
    return {
        site: torch.stack([torch.stack([of[site, pos] for pos in positions]) for of in cells])
        for site in dict.fromkeys(site for site, _ in cells[0])
    }


def _scores(
    task: "ProbeTask", x: "Float[Tensor, 'model pos every d']", site: str, one_hot: float
) -> dict[str, Any]:
    """The scores of a feature's probes at a site, by position."""
    from tbtt_interp.probes.linear import count_correct
    from tbtt_interp.shares import share_over_models
    from tbtt_interp.stats import SHARE, ratios_over_models

    labels, of, same = task.labels, task.folds.n_tested, x.std(-2).amax((0, -1)) < 1e-5
    x = task.only(x)
    share = count_correct(x, labels.of_model(0), task.folds) / of  # [model, pos, draw]
    mean, low, high, _ = ratios_over_models(np.moveaxis(share[..., 0], 0, -1), 1.0, bounds=SHARE)
    for pos in np.flatnonzero(low == high):  # models that do not differ: of counts, as in the grid
        alike = share_over_models([(round(hits * of), of) for hits in share[:, pos, 0]])
        low[pos], high[pos] = alike.low, alike.high
    others, right = None, np.zeros(len(mean), int)
    if labels.thresholds is not None:
        others = count_correct(x, labels.thresholds, task.folds).mean((0, -1)) / of
    for values, split in zip(x, task.held_out, strict=True):
        if split is not None:
            right = right + count_correct(values, labels.of_model(0)[:1], split)[:, 0]
    known = 2 if site.endswith(".0.hook_resid_pre") else 3 if one_hot > IN_TEXT else 0
    return {
        "accuracy": mean, "low": low, "high": high, "thresholds": others,
        "control": share[..., 1:].mean((0, -1)) if len(labels.controls) else None,
        "held_out": right.tolist(), "trivial": np.where(same, 1, known).tolist(),
    }  # fmt: skip


@lru_cache(maxsize=4)
def _text_nulls(
    run: Run, widths: tuple[int, ...]
) -> "tuple[list[float], list[float], Float[np.ndarray, 'site feature']]":
    """The nulls that need no model: one-hot text, majority class, operands as plain numbers."""
    import torch

    from tbtt_interp.probes.datasets import ProbeDataset
    from tbtt_interp.probes.features import one_hot_text
    from tbtt_interp.probes.linear import count_correct, fold_counts
    from tbtt_interp.probes.nulls import operands_accuracy
    from tbtt_interp.prompts import PromptSet

    prompts = PromptSet.of_seed(run, run.seeds[0])
    features = find_features(None, prompts.examples)
    dataset = ProbeDataset.of_prompts([prompts], features, controls=0)
    text = torch.from_numpy(one_hot_text(dataset.texts)).double()
    one_hot, majority = [], []
    for task in dataset.tasks:
        labels, of = task.labels.real, task.folds.n_tested
        one_hot.append(int(count_correct(task.only(text), labels, task.folds)[0]) / of)
        majority.append(fold_counts(task.folds, labels[0])["majority"] / of)
    return one_hot, majority, operands_accuracy(dataset, np.array(widths))


@lru_cache(maxsize=4)
def _untrained(
    run: Run, seeds: tuple[int, ...], sites: tuple[str, ...], positions: tuple[int, ...]
) -> "list[list[Float[np.ndarray, ' pos']]]":
    """The accuracies of probes of the models before training, by feature and site."""
    from tbtt_interp.activations import untrained_models
    from tbtt_interp.probes.datasets import ProbeDataset
    from tbtt_interp.probes.linear import count_correct
    from tbtt_interp.prompts import PromptSet

    models = [model for model, seed in zip(untrained_models(run), run.seeds, strict=True)
              if seed in seeds]  # fmt: skip
    prompts = [PromptSet.of_seed(run, seed) for seed in seeds]
    features = find_features(None, prompts[0].examples)
    dataset = ProbeDataset.of_prompts(prompts, features, controls=0)
    found = _activations(models, prompts, dataset.texts, sites, positions)
    return [
        [count_correct(task.only(x), task.labels.real, task.folds)[..., 0].mean(0)
         / task.folds.n_tested for x in found.values()]
        for task in dataset.tasks
    ]  # fmt: skip


def _thousandths(values: Any) -> Any:
    """Shares as whole thousandths, nested as they are; null where undefined."""
    if values is None:
        return None
    if np.ndim(values):
        found = [_thousandths(value) for value in values]
        return None if all(value is None for value in found) else found
    return round(1_000 * float(values)) if np.isfinite(values) else None


def feature_labels(task: Task) -> dict[str, list[Label | None]]:
    """Each example's label, by the feature that probes read from prompts; none for most tasks."""
    try:
        features = find_features(None, task.examples)
    except TbttError:  # these examples have no feature
        return {}
    return {f.name: [f.of(example) for example in task.examples] for f in features}


def weights_digest(path: Path) -> str:
    """The first half of the SHA-256 of a checkpoint's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def ready_table(run: Run, step: int) -> Table | None:
    """The table of a checkpoint that ships, or that was computed since; None if there is none."""
    path = run.checkpoints[step]
    if found := COMPUTED.get((path, path.stat().st_mtime_ns)):
        return found
    if run.folder.parent != runs.SHIPPED:
        return None
    return _shipped(run.folder.name).get(str(step))


def computed_table(run: Run, step: int) -> Table:
    """The table of a checkpoint, computed if it is not there yet; that takes seconds to minutes."""
    with ONE:
        if (found := ready_table(run, step)) is None:
            found = probe_table(run, step)
            path = run.checkpoints[step]
            COMPUTED[path, path.stat().st_mtime_ns] = found
    return found


COMPUTED: dict[tuple[Path, int], Table] = {}


@lru_cache(maxsize=64)
def _shipped(name: str) -> dict[str, Table]:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main() -> None:
    """Writes the tables of the models that ship, and says how large they are."""
    import torch

    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for name, folder in shipped_runs().items():
        run = load_run(folder)
        positions = SHIPPED_POSITIONS if len(run.checkpoints) == 1 else (-1,)
        known = dict(_shipped(name))
        for step, path in run.checkpoints.items():
            digest = weights_digest(path)
            if known.get(str(step), {}).get("weights") == digest:
                continue
            known[str(step)] = probe_table(run, step, positions) | {"weights": digest}
            ordered = {str(k): known[str(k)] for k in run.checkpoints if str(k) in known}
            text = json.dumps(ordered, separators=(",", ":"), allow_nan=False)
            write_whole(FOLDER / f"{name}.json", text.encode())
            print(f"{name}, step {step:,}", flush=True)
    total = sum(path.stat().st_size for path in FOLDER.glob("*.json"))
    print(f"{FOLDER}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

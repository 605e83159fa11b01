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

Table = dict[str, Any]
FOLDER = Path(__file__).parent / "probes"
CONTROLS = 9  # control tasks per feature, of the 99 that `tbtt probes` draws
POSITIONS = (-5, -4, -3, -2, -1)  # counted from the prompt's last token
SHIPPED_POSITIONS = (-2, -1)  # "b" and "=" of an equation: those before have read one operand
COLUMNS = {"accuracy": "accuracy", "low": "accuracy_low", "high": "accuracy_high",
           "control": "control", "thresholds": "thresholds", "untrained": "untrained"}  # fmt: skip
IN_TEXT = 0.995  # accuracy from which a probe of the one-hot text leaves nothing to find
ONE = threading.Lock()  # tables are computed one at a time


def probe_table(run: Run, step: int, positions: Sequence[int] = POSITIONS) -> Table:
    """`probe_grid` of all models of a checkpoint, with fewer control tasks, as the page reads it.

    Returns:
        features, sites, positions, seeds, controls (the number of control tasks).
        Columns `[feature][site][position]`, in thousandths: accuracy, its 95 % interval low and
        high over models (null for one model), and the nulls control, thresholds (null where a
        feature has none) and untrained; held_out, how many labels of examples that a model has not
        seen its probe predicts; trivial, 1 where every prompt has the same activation, 2 before the
        first layer, 3 where a probe of the one-hot text is always right, else 0. By feature: the
        nulls one_hot and majority, and held_out_of; by feature and site: the null operands.
    """
    from tbtt_interp.probes.grid import default_sites, probe_grid
    from tbtt_interp.seeds import Models

    models = Models.of(run, step)
    examples = models.shared_prompts.examples
    prompts = [example.prompt[-run.shape.n_ctx :] for example in examples]
    names = [feature.name for feature in find_features(None, examples)]
    positions = [pos for pos in positions if -pos <= min(map(len, prompts))]
    grid = probe_grid(
        models, names, sites=default_sites(run.shape.layers)[1:], positions=positions,
        controls=CONTROLS,
    )  # fmt: skip
    sites = list(dict.fromkeys(grid["site"]))

    def column(name: str) -> "Float[np.ndarray, 'feature site pos']":
        cells = grid[name].to_numpy().reshape(len(sites), len(positions), len(names))
        return np.moveaxis(cells, -1, 0)

    columns = {name: [*map(_thousandths, column(of))] for name, of in COLUMNS.items()}
    of_features = {name: _thousandths(column(name)[:, 0, 0]) for name in ("one_hot", "majority")}
    trivial = [[[_trivial(site, pos, prompts, one_hot) for pos in positions] for site in sites]
               for one_hot in column("one_hot")[:, 0, 0]]  # fmt: skip
    return {
        "features": names, "sites": sites, "positions": positions, "seeds": list(models.seeds),
        "controls": CONTROLS, **columns, "held_out": column("held_out_correct").tolist(),
        "trivial": trivial, "held_out_of": column("held_out_of")[:, 0, 0].tolist(), **of_features,
        "operands": _thousandths(column("operands")[..., 0]),
    }  # fmt: skip


def _trivial(site: str, pos: int, prompts: Sequence[str], one_hot: float) -> int:
    """Why a cell has nothing to find, as in `probe_table`; 0 where it may."""
    is_first = site.endswith(".0.hook_resid_pre")  # this stream has read no token before its own
    if len({(len(p), p[pos]) if is_first else p[: len(p) + 1 + pos] for p in prompts}) == 1:
        return 1
    return 2 if is_first else 3 if one_hot > IN_TEXT else 0


def _thousandths(values: Any) -> Any:
    """Shares as whole thousandths, nested as they are; null where undefined."""
    if np.ndim(values):
        found = [_thousandths(value) for value in values]
        return None if all(value is None for value in found) else found
    # a mean's last bits do not decide where a half is rounded to
    return round(round(1_000 * float(values), 6)) if np.isfinite(values) else None


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

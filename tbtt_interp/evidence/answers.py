"""What each model of a run answers at its last step, whether it was trained here or imported."""

import pandas as pd

from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.evidence.models import models_table
from tbtt_interp.runs import Run


def answers_table(run: Run) -> pd.DataFrame:
    """A row a model, as `models_table` has it; of an imported run what its weights tell.

    Columns: as there, and `seen` and `held_out_share`, the shares right.
    """
    table = _imported(run) if run.config.recipe is None else models_table([run])
    for side, share in (("seen", "seen"), ("held_out", "held_out_share")):
        if f"{side}_of" in table:
            table[share] = table[f"{side}_right"] / table[f"{side}_of"].where(lambda of: of > 0)
    return table


def _imported(run: Run) -> pd.DataFrame:
    evaluation = evaluate_run(run)
    rows = []
    for seed, counts, margins in zip(
        run.seeds, evaluation.counts(), evaluation.smallest_margins(), strict=True
    ):
        row: dict[str, object] = {"seed": seed, "seen_right": 0, "seen_of": 0}
        for group, rate in counts.items():
            row |= {f"{group}_right": rate.hits, f"{group}_of": rate.total}
            if group.startswith("seen_"):
                row["seen_right"] = int(str(row["seen_right"])) + rate.hits
                row["seen_of"] = int(str(row["seen_of"])) + rate.total
        rows.append(row | {f"margin_{side}": margin for side, margin in margins.items()})
    config = run.config
    return pd.DataFrame(rows).assign(
        run=run.folder.name, task=run.tasks[0].name, size=config.size, width=run.shape.d_model,
        layers=run.shape.layers, framing=config.framing, window=run.shape.n_ctx,
        steps=config.steps,
    )  # fmt: skip

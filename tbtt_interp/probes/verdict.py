"""What a row says of its claim: supported, contradicted or undecided, and by which numbers."""

import math
from typing import Any

import pandas as pd

NULLS = {
    "control": "control task", "one_hot": "one-hot", "untrained": "untrained",
    "majority": "commonest class", "control_task": "control task",
    "random_labels": "random labels", "random_subspace": "random subspace",
}  # fmt: skip
LEVEL = 0.05


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """A verdict a row of a battery's or a causal table, against its hardest null.

    Supported: the interval over models is above every null, and p, corrected where the row was
    named beforehand, at most 0.05. Contradicted: the interval does not reach above the hardest
    null. Undecided: anything else, and always of one model, which has no interval.

    Columns: claim, verdict, value (with its interval), hardest null, its value, p.

    >>> row = {"feature": "carry", "site": "s", "accuracy": 0.9, "low": 0.88, "high": 0.92,
    ...        "control": 0.6, "one_hot": 0.8, "p": 0.01}
    >>> verdicts(pd.DataFrame([row]))["verdict"].tolist()
    ['supported']
    """
    return pd.DataFrame([_verdict(row) for row in table.to_dict("records")])


def _verdict(row: dict[Any, Any]) -> dict[str, object]:
    there = {name: value for name, value in row.items() if not pd.isna(value)}
    nulls = {words: there[name] for name, words in NULLS.items() if name in there}
    hardest = max(nulls, key=lambda words: nulls[words])
    p = there.get("p_adjusted", there.get("p", 1.0))
    low, high = there.get("low", -math.inf), there.get("high", math.inf)
    verdict = "undecided"
    if high <= nulls[hardest]:
        verdict = "contradicted"
    elif low > nulls[hardest] and p <= LEVEL:
        verdict = "supported"
    claim = f"{row['feature']} at {row['site']}"
    value = there.get("effect", there.get("accuracy"))
    return {
        "claim": f"{claim}, {row['measure']}" if "measure" in row else claim,
        "verdict": verdict,
        "value": f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if "low" in there else ""),
        "hardest null": hardest,
        "its value": f"{nulls[hardest]:.2f}",
        "p": f"{p:.3f}" if "p" in there else "",
    }

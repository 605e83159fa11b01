"""What the paper reports of its models, one of each size: its best checkpoint, seed 1337."""

import math

import pandas as pd

SOURCE = "Barron and White, arXiv 2506.09099v2, and the results in its code"
SIZES = ("small", "medium", "large", "mlt")
HELD_OUT = 4  # equations, of operands {5, 7}
_REPORTED = {
    "arithmetic": {"held_out": (4 / HELD_OUT, 0, 0, 0), "knows_all": (1, 1, 1, 1),
                   "loss": (0.746, 0.605, 0.535, 0.532)},
    "facts": {"facts": (0.082, 1, 1, 1), "loss": (0.724, 0.229, 0.179, 0.181)},
    "joint": {"held_out": (0, 0, 0, 0), "addition": (0.326, 0.945, 0.978, 0.978),
              "subtraction": (0.382, 0.967, 0.978, 0.978), "facts": (0.02, 0.884, 1, 1),
              "loss": (0.780, 0.387, 0.201, 0.196)},
}  # fmt: skip


def published_table() -> pd.DataFrame:
    """The paper's figures, a row a task and size, all on framing file.

    Columns: `task`, `size`; shares `held_out`, `addition`, `subtraction` and `facts`; `knows_all`,
    whether it answers all it has seen; `loss`, the last, in nats a character. Addition and
    subtraction on joint have their held-out equations among them: 0.978 is all but these.

    >>> published_table()[["task", "size", "facts"]].dropna().head(2).to_string(header=False)
    '4  facts   small  0.082\\n5  facts  medium  1.000'
    """
    return pd.DataFrame([
        {"task": task, "size": size} | {name: float(v[k]) for name, v in reported.items()}
        for task, reported in _REPORTED.items()
        for k, size in enumerate(SIZES)
    ])  # fmt: skip


def published_share(task: str, size: str, measure: str) -> float:
    """One measure of one size, nan if not reported; of an operator, of seen equations alone.

    The paper's 91 equations of an operator have its two held-out ones among them, of which no size
    answers any on joint: what it has right are seen ones.

    >>> published_share("joint", "large", "addition"), published("joint", "addition")["large"]
    (1.0, 0.978)
    """
    if measure not in _REPORTED.get(task, {}) or size not in SIZES:
        return math.nan
    share = published(task, measure)[size]
    return round(share * 91 / 89, 3) if measure in ("addition", "subtraction") else share


def published(task: str, measure: str) -> dict[str, float]:
    """One measure by size.

    >>> published("arithmetic", "held_out")
    {'small': 1.0, 'medium': 0.0, 'large': 0.0, 'mlt': 0.0}
    """
    return dict(zip(SIZES, map(float, _REPORTED[task][measure]), strict=True))

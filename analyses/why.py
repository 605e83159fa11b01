# %% [markdown]
# # Why do small models extrapolate and large ones memorize?
# Each account of it predicts what an intervention on training does to the share of held-out
# equations. The contrasts, with the bounds that support or refute them, were written into the
# sweeps why-* before their first run; this study applies exactly these. A comparison counts where
# the models of both sides know 99 % of the seen equations.

# %%
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from size import counts_at
from sweeps import SHIPPED, sweep_table

from tbtt_interp import plots
from tbtt_interp.errors import TbttError
from tbtt_interp.results import P_LEVEL, Claim, Result
from tbtt_interp.shares import difference_of_shares, share_over_models
from tbtt_interp.stats import SHARE, UNMEASURED, Interval
from tbtt_interp.study import save_figure, study_arguments
from tbtt_interp.train.effects import FITTED
from tbtt_interp.train.sweep import Contrast, read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SWEEPS = [f"why-{name}" for name in (
    "size", "shape", "code", "code-windows", "joint", "growth", "growth-windows", "memory", "depth",
    "framing",
)]  # fmt: skip
AFTER = ["why-graft"]  # sweeps that start from runs of another, and have no contrast
PERMUTATIONS = 10_000
NOTES = (
    "share: right held-out equations of all that the models were asked, with the 95 % interval of "
    "the beta-binomial. difference: second minus first, as for independent groups.",
    "p: of a sign-flip test over models that hold out the same equations, corrected over all "
    "contrasts by the smallest p. fit: a model's first evaluation with 99 % of the seen right; "
    "later: where the sum of learning rates since the fit is the same for all models of one rate. "
    "Models that never fit are left out of both.",
    "supported: the interval is above the bound that was named, and p is at most 0.05. refuted: it "
    "is below the other bound. no verdict: models of one side do not know 99 % of the seen.",
)


# %%
def models_of(fits: pd.DataFrame, contrast: Contrast, run: str) -> pd.DataFrame:
    """The rows of one side of a contrast; run names are unique in a sweep alone."""
    return fits[(fits["sweep"] == contrast.sweep) & (fits["run"] == run)]


def paired_differences(first: pd.DataFrame, second: pd.DataFrame, read: str) -> pd.Series:
    """Second minus first in held-out share, by seed, of models that hold out the same equations."""
    keys = ["seed", "held_out"]
    both = first.merge(second, on=keys, suffixes=("_first", "_second")).set_index(keys)
    shares = [both[f"{read}_right_{side}"] / both[f"held_out_of_{side}"]
              for side in ("first", "second")]  # fmt: skip
    return (shares[1] - shares[0]).dropna()


def smallest_p(differences: Sequence[pd.Series]) -> list[float]:
    """Each contrast's p-value of a two-sided sign-flip test, corrected by the smallest of all.

    Models of one seed that hold out the same equations keep their sign in all contrasts. Contrasts
    with few models do not make it stricter for the others. nan where there are no pairs.
    Source: Westfall and Young, Resampling-Based Multiple Testing (1993).
    """
    values = pd.concat(dict(enumerate(differences)), axis=1).fillna(0.0).to_numpy(float)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (PERMUTATIONS, len(values)))
    signs[0] = 1.0  # the observed one
    sums = np.abs(signs @ values).round(9)
    own = rankdata(-sums, method="max", axis=0) / PERMUTATIONS
    smallest = own.min(1)
    return [float((smallest <= p).mean()) if len(pairs) else float("nan")
            for p, pairs in zip(own[0], differences, strict=True)]  # fmt: skip


def contrasts_table(fits: pd.DataFrame, contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """One row per contrast: both shares, the difference, whether all know the seen, the verdict."""
    sides = [[models_of(fits, c, run) for run in (c.first, c.second)] for c in contrasts]
    ps = smallest_p([paired_differences(both[0], both[1], c.read)
                     for both, c in zip(sides, contrasts, strict=True)])  # fmt: skip
    rows = []
    for contrast, both, p in zip(contrasts, sides, ps, strict=True):
        counts = [counts_at(models, contrast.read) for models in both]
        known = all((models["end_seen_accuracy"] >= FITTED).all() for models in both)
        found = difference_of_shares(*counts) if all(counts) else UNMEASURED
        shares = [share_over_models(side).format() if side else "" for side in counts]
        rows.append({
            "account": contrast.account, "claim": contrast.claim, "read": contrast.read,
            "first": shares[0], "second": shares[1], "difference": found.mean,
            "difference_low": found.low, "difference_high": found.high, "n_models": found.n, "p": p,
            "knows_seen": known, "verdict": _verdict(contrast, both, known, found, p),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _verdict(
    contrast: Contrast, both: Sequence[pd.DataFrame], known: bool, found: Interval, p: float
) -> str:
    if any(models.empty for models in both):
        return "not run"
    if not found.n or (contrast.read == "end" and not known):
        return "no verdict"
    if found.high < contrast.refutes:
        return "refuted"
    return "supported" if found.low > contrast.supports and p <= P_LEVEL else "undecided"


def accounts_table(contrasts: pd.DataFrame) -> pd.DataFrame:
    """One row per account: refuted if any of its contrasts is, survives if all are supported."""

    def judged(verdicts: pd.Series) -> str:
        if (verdicts == "refuted").any():
            return "refuted"
        return "survives" if (verdicts == "supported").all() else "undecided"

    return contrasts.groupby("account", sort=False)["verdict"].agg(judged).reset_index()


def draw_contrasts(fits: pd.DataFrame, contrasts: Sequence[Contrast]) -> "Figure":
    """Each model's held-out share, without and with what each contrast changes."""
    sides = [
        models_of(fits, contrast, run).assign(contrast=f"{number}: {contrast.account}", side=side)
        for number, contrast in enumerate(contrasts, 1)
        for side, run in (("without", contrast.first), ("with", contrast.second))
    ]
    return plots.models_by_group(
        pd.concat(sides), panel="contrast", x="side", by="side", value="end_accuracy",
        bounds=SHARE, titles=("", "held-out share at the end"), across=3,
    )  # fmt: skip


def _claim(contrast: Contrast, row: dict[Any, Any]) -> Claim:
    """A contrast as a claim: above the supporting bound, or against the refuting one if refuted."""
    is_measured = row["verdict"] in ("supported", "refuted", "undecided")
    is_refuted = row["verdict"] == "refuted"
    return Claim(
        text=contrast.claim, unit="of held-out share", p=row["p"],
        effect=Interval.of_row(row, "difference") if is_measured else UNMEASURED,
        null=contrast.refutes if is_refuted else contrast.supports,
        null_name="at least" if is_refuted else "no difference", origin="expected before the run",
    )  # fmt: skip


def why_result(fits: pd.DataFrame, contrasts: Sequence[Contrast]) -> Result:
    """The result of the study on the models of all sweeps why-*."""
    table = contrasts_table(fits, contrasts)
    accounts = accounts_table(table)
    claims = [
        _claim(contrast, row)
        for contrast, row in zip(contrasts, table.to_dict("records"), strict=True)
    ]
    shown = table.assign(
        difference=[
            Interval.of_row(row, "difference").format(sign="+") if row["n_models"] else ""
            for row in table.to_dict("records")
        ],
        p=table["p"].map(lambda p: "" if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"),
    )
    columns = ["account", "claim", "read", "first", "second", "difference", "p", "verdict"]
    return Result(
        name="why", question="Why do small models extrapolate and large ones memorize?",
        command="python analyses/why.py", tables={"why": table, "accounts": accounts},
        display=shown[columns], claims=claims, notes=NOTES,
        more_displays={"What is left of each account": accounts},
        figures={"why": partial(draw_contrasts, fits, contrasts)},
    )  # fmt: skip


def read_fits(folders: Sequence[Path]) -> pd.DataFrame:
    """The table of fits of the sweeps in these folders, or of those whose tables ship.

    Raises:
        TbttError: if there is none.
    """
    given = {folder.resolve().name: folder for folder in folders}
    shipped = [n for n in [*SWEEPS, *AFTER] if (SHIPPED / f"{n}-fits.csv.gz").is_file()]
    tables = [sweep_table(name, "fits", given.get(name)).assign(sweep=name)
              for name in given or shipped]  # fmt: skip
    if not tables:
        raise TbttError("no table of the sweeps why-* ships yet: train them, give their folders")
    return pd.concat(tables, ignore_index=True)


# %%
if __name__ == "__main__":
    folders, files = study_arguments(most=None)
    result = why_result(
        read_fits(folders), [c for name in SWEEPS for c in read_sweep(name).contrasts]
    )
    save_figure(result.figures["why"](), files, result.question, "the sweeps why-*")
    print(result)

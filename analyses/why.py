# %% [markdown]
# # Why do small models extrapolate and large ones memorize?
# Each account of it predicts what an intervention on training does to the share of held-out
# equations. The contrasts, with the bounds that support or refute them, were written into the
# sweeps why-* before their first run; this study applies exactly these. A comparison counts where
# the models of both sides know 99 % of the seen equations.

# %%
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sweeps import SHIPPED, finished_runs

from tbtt_interp import plots
from tbtt_interp.errors import TbttError
from tbtt_interp.model_tables import fits_table
from tbtt_interp.results import Claim, Result
from tbtt_interp.shares import Counts, difference_of_shares, share_over_models
from tbtt_interp.stats import SHARE, UNMEASURED
from tbtt_interp.study import study_arguments
from tbtt_interp.train.effects import FITTED
from tbtt_interp.train.sweep import Contrast, read_sweep

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NAMES = ("size", "shape", "code", "joint", "growth", "memory", "depth", "framing")
SWEEPS = [f"why-{name}" for name in NAMES]
PERMUTATIONS = 10_000
NOTES = (
    "share: right held-out equations of all that the models were asked, with the 95 % interval of "
    "the beta-binomial. difference: second minus first, as for independent groups.",
    "p: of a sign-flip test over models that hold out the same equations, corrected by max-T over "
    "all contrasts. fit: a model's first evaluation with 99 % of the seen right; models that never "
    "fit are left out there.",
    "refuted: the whole interval is below the bound that was named. no verdict: models of one side "
    "do not know 99 % of the seen.",
)


# %%
def counts_of(models: pd.DataFrame, read: str) -> Counts:
    """Each model's right and asked held-out equations, at its fit or at the end."""
    fitted = models[models["fit_step"].notna()] if read == "fit" else models
    columns = [f"{read}_right", "held_out_of"]
    return [(int(right), int(of)) for right, of in fitted[columns].itertuples(index=False)]


def paired_differences(first: pd.DataFrame, second: pd.DataFrame, read: str) -> pd.Series:
    """Second minus first in held-out share, of models that hold out the same equations."""
    keys = ["seed", "held_out"]
    both = first.merge(second, on=keys, suffixes=("_first", "_second"))
    shares = [both[f"{read}_right_{side}"] / both[f"held_out_of_{side}"]
              for side in ("first", "second")]  # fmt: skip
    return (shares[1] - shares[0]).dropna()


def max_t(differences: Sequence[pd.Series]) -> list[float]:
    """Each contrast's p-value of a two-sided sign-flip test, corrected over all by max-T.

    Source: Westfall and Young, Resampling-Based Multiple Testing (1993).
    """
    rng = np.random.default_rng(0)
    values = [d.to_numpy(float) for d in differences]
    longest = max((len(v) for v in values), default=0)
    if not longest:
        return [float("nan")] * len(values)
    signs = rng.choice([-1.0, 1.0], (PERMUTATIONS, longest))
    signs[0] = 1.0  # the observed one
    ts = np.stack([_t(v * signs[:, : len(v)]) for v in values], 1)
    most = ts.max(1)
    return [float((most >= t - 1e-12).mean()) for t in ts[0]]


def _t(flipped: np.ndarray) -> np.ndarray:
    """The absolute mean over its standard error under the null, where the mean is 0."""
    size = np.sqrt(np.square(flipped).sum(1))
    return np.abs(flipped.sum(1)) / np.where(size > 0, size, 1.0)


def contrasts_table(fits: pd.DataFrame, contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """One row per contrast: both shares, the difference, whether all know the seen, the verdict."""
    rows, differences = [], []
    for contrast in contrasts:
        first, second = (fits[fits["run"] == run] for run in (contrast.first, contrast.second))
        counts = [counts_of(models, contrast.read) for models in (first, second)]
        known = all((models["seen_accuracy"] >= FITTED).all() for models in (first, second))
        found = difference_of_shares(*counts) if all(counts) else UNMEASURED
        differences.append(paired_differences(first, second, contrast.read))
        verdict = "undecided"
        if not found.n:
            verdict = "not run"
        elif contrast.read == "end" and not known:
            verdict = "no verdict"
        elif found.high < contrast.refutes:
            verdict = "refuted"
        elif found.low > contrast.supports:
            verdict = "supported"
        shares = [share_over_models(side).format() if side else "" for side in counts]
        rows.append({
            "account": contrast.account, "claim": contrast.claim, "read": contrast.read,
            "first": shares[0], "second": shares[1], "difference": found.mean,
            "low": found.low, "high": found.high, "n_models": found.n, "knows_seen": known,
            "verdict": verdict,
        })  # fmt: skip
    return pd.DataFrame(rows).assign(p=max_t(differences))


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
        fits[fits["run"] == run].assign(contrast=f"{number}: {contrast.account}", side=side)
        for number, contrast in enumerate(contrasts, 1)
        for side, run in (("without", contrast.first), ("with", contrast.second))
    ]
    return plots.models_by_group(
        pd.concat(sides), panel="contrast", x="side", by="side", value="end_accuracy",
        bounds=SHARE, titles=("", "held-out share at the end"), across=3,
    )  # fmt: skip


def why_result(fits: pd.DataFrame, contrasts: Sequence[Contrast]) -> Result:
    """The result of the study on the models of all sweeps why-*."""
    table = contrasts_table(fits, contrasts)
    accounts = accounts_table(table)
    claims = [
        Claim(
            text=contrast.claim, unit="of held-out share", null=contrast.supports, p=p,
            effect=difference_of_shares(
                *(counts_of(fits[fits["run"] == run], contrast.read)
                  for run in (contrast.first, contrast.second))
            ),
            null_name="no difference", origin="expected before the run",
        )
        for contrast, p in zip(contrasts, table["p"].tolist(), strict=True)
    ]  # fmt: skip
    shown = table.assign(
        difference=[c.effect.format(sign="+") if c.effect.n else "" for c in claims],
        p=table["p"].map("{:.3f}".format),
    )
    columns = ["account", "claim", "read", "first", "second", "difference", "p", "verdict"]
    return Result(
        name="why", question="Why do small models extrapolate and large ones memorize?",
        command="python analyses/why.py", tables={"why": table, "accounts": accounts},
        display=shown[columns], claims=claims, notes=NOTES,
        more_displays={"What is left of each account": accounts},
        figures={"why": lambda: draw_contrasts(fits, contrasts)},
    )  # fmt: skip


def read_fits(folders: Sequence[Path]) -> pd.DataFrame:
    """The table of fits of the sweeps in these folders, or of those whose tables ship.

    Raises:
        TbttError: if there is none.
    """
    shipped = [path for name in SWEEPS if (path := SHIPPED / f"{name}-fits.csv.gz").is_file()]
    tables = [fits_table(finished_runs(folder)) for folder in folders]
    if not (tables := tables or list(map(pd.read_csv, shipped))):
        raise TbttError("no table of the sweeps why-* ships yet: train them, give their folders")
    return pd.concat(tables, ignore_index=True)


# %%
if __name__ == "__main__":
    folders, files = study_arguments(most=None)
    result = why_result(
        read_fits(folders), [c for name in SWEEPS for c in read_sweep(name).contrasts]
    )
    for file in files:
        plots.save(result.figures["why"](), file)
    print(result)

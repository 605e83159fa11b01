# %% [markdown]
# # Does size cost held-out answers, with pair and seed as random effects?
# The atlas' models each hold out one pair of operands, so seeds are nested in pairs, and pairs are
# what is sampled. Pairs differ in difficulty, in what size does to them and in which operator is
# harder: without slopes of their own, one pair's would count once for each of its models. Measure:
# the change of the held-out share per doubling of width, in a linear mixed model. (Without a model,
# atlas.py has the mean of the pairs' own slopes.) Needs statsmodels: pip install
# tbtt_interp[stats]. The expectation stands in train/sweeps/atlas.toml. Takes a folder of runs;
# else the sweep's table.

# %%
import warnings
from typing import Any

import numpy as np
import pandas as pd
from atlas import atlas_equations
from scipy import stats
from statsmodels.formula.api import mixedlm
from statsmodels.tools.sm_exceptions import ModelWarning
from sweeps import answer_as_script

from tbtt_interp import plots
from tbtt_interp.errors import TbttError
from tbtt_interp.results import Claim, Result
from tbtt_interp.stats import Interval
from tbtt_interp.train.sweep import read_sweep

READS = [("atlas", "held out")]
COVARIATES = ("gone", "rim", "equal")
FEWEST_PAIRS = 10  # below which nothing is fitted
NOTES = (
    "doublings: of width, about the sizes' mean; addition: sums minus differences; gone: no seen "
    "equation has the answer; rim: an operand is 0 or 9; equal: both operands are the same.",
    "The mixed model has random effects of pair, of width and operator in each pair, of seed in "
    "pair and of model. Intervals are t's with one degree of freedom fewer than pairs.",
)


# %%
def coded_equations(held_out: pd.DataFrame) -> pd.DataFrame:
    """The atlas' equations with their covariates as numbers, and `doublings` and `addition`."""
    table = atlas_equations(held_out).astype(dict.fromkeys((*COVARIATES, "right"), float))
    doublings = table["width"].map(np.log2)
    return table.assign(
        doublings=doublings - doublings.unique().mean(), addition=(table["operator"] == "+") - 0.5
    )


def model_shares(equations: pd.DataFrame) -> pd.DataFrame:
    """One row per model and operator: `share` of the equations that are right, and COVARIATES."""
    by = ["pair", "seed", "size", "width", "operator", "doublings", "addition"]
    table = equations.groupby(by, as_index=False).agg(
        share=("right", "mean"), **{name: (name, "max") for name in COVARIATES}
    )
    return table.assign(model=table["seed"].astype(str) + table["size"])


def mixed_model(shares: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A linear mixed model of the share, by restricted maximum likelihood.

    A share of two equations is not normal; its means over a pair's models, which decide here,
    nearly are.

    Returns:
        the fixed effects in shares, and one row per random effect: `between` and its `sd`.
    Raises:
        TbttError: if there are too few pairs, sizes or seeds, or shares are all the same.
    Source: Barr, Levy, Scheepers and Tily, Journal of Memory and Language 68 (2013), on slopes;
        Bates, Kliegl, Vasishth and Baayen, arXiv 1506.04967, on leaving their correlations out.
    """
    random = {"doublings": "0 + doublings", "addition": "0 + addition", "model": "0 + C(model)"}
    if shares.groupby("pair")["seed"].nunique().max() > 1:  # else seeds are pairs
        random["seed"] = "0 + C(seed)"
    terms = [name for name in ("doublings", "addition", *COVARIATES) if shares[name].nunique() > 1]
    pairs, widths = shares["pair"].nunique(), shares["width"].nunique()
    if pairs < FEWEST_PAIRS or "doublings" not in terms or shares["share"].nunique() < 2:
        raise TbttError(
            f"a mixed model of held-out answers needs {FEWEST_PAIRS} pairs, two sizes and answers "
            f"that differ, got {pairs} pairs and {widths} sizes: train more of the atlas"
        )
    formula = f"share ~ {' + '.join(terms)}"
    model = mixedlm(formula, shares, groups="pair", re_formula="1", vc_formula=random)
    with warnings.catch_warnings():  # a variance of 0 is a boundary, and an answer
        warnings.simplefilter("ignore", ModelWarning)
        try:  # gradients stop far from the optimum where a variance is 0; Powell's method does not
            fit = model.fit(method="powell")
        except np.linalg.LinAlgError as error:
            raise TbttError(f"a mixed model of {len(shares)} shares has no unique fit ({error}): "
                            "train more seeds of the atlas") from error  # fmt: skip
    names = {"doublings": "doubling of width, by pair", "addition": "operator, by pair",
             "seed": "seeds of a pair", "model": "models of a seed"}  # fmt: skip
    variances = {"pairs": fit.cov_re.iloc[0, 0]}
    variances |= dict(zip((names[name] for name in model.exog_vc.names), fit.vcomp, strict=True))
    variances["shares of a model"] = fit.scale
    deviations = pd.DataFrame({"between": variances.keys(), "sd": np.sqrt([*variances.values()])})
    reach = stats.t.ppf(0.975, pairs - 1) * fit.bse_fe
    bounds = {"low": fit.fe_params - reach, "high": fit.fe_params + reach}
    fixed = pd.DataFrame({"effect": fit.fe_params} | bounds).rename_axis("term").reset_index()
    return (fixed if fit.converged else fixed.assign(low=np.nan, high=np.nan)), deviations


def mixed_result(held_out: pd.DataFrame) -> Result:
    """What width, operator and coverage do to held-out answers, by a mixed model."""
    equations = coded_equations(held_out)
    fixed, deviations = mixed_model(model_shares(equations))
    n = len(equations[["size", "seed"]].drop_duplicates())
    of_term = {
        row["term"]: Interval(mean=row["effect"], low=row["low"], high=row["high"], n=n)
        for row in fixed.to_dict("records")
    }
    terms: list[tuple[str, str, dict[str, Any]]] = [
        ("doublings", read_sweep("atlas").expected[0],
         {"direction": "below", "origin": "expected before the run"}),
        ("addition", "Held-out sums are answered more often than differences, all else equal.", {}),
        ("rim", "Pairs with an operand at the rim, 0 or 9, are answered less often, all else "
         "equal.", {"direction": "below"}),
    ]  # fmt: skip
    claims = [
        Claim(text=text, effect=of_term[term], null=0.0, null_name="no difference",
              unit="of held-out share", **also)
        for term, text, also in terms if term in of_term
    ]  # fmt: skip
    text = [of_term[term].format(3) for term in fixed["term"]]
    return Result(
        name="mixed-model", question="Does size cost held-out answers, all else equal?",
        tables={"mixed-effects": fixed, "mixed-deviations": deviations}, claims=claims,
        display=fixed[["term"]].assign(effect=text), notes=NOTES,
        more_displays={"Standard deviations of the share": deviations.round(3)},
        command="tbtt sweep atlas && python analyses/mixed_model.py runs/atlas",
        figures={"mixed-effects": lambda: plots.points(
            fixed.rename(columns={"low": "effect_low", "high": "effect_high"}), name="term",
            value="effect", title="change of held-out share")},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(mixed_result, READS, "mixed-effects")

"""Does size cost held-out answers? Mixed models with pair and seed as random effects, and checks.

One row is a model's share of one operator's held-out equations. Every seed trains on one pair's
complement alone, at every size, so seeds are nested in pairs and pairs are what is drawn. Pairs
differ in how hard they are, in what size does to them and in which operator is harder: without
slopes of their own, what is one pair's would be counted once for each of its models.
"""

import warnings

import numpy as np
import pandas as pd
from scipy import stats

from tbtt_interp.errors import TbttError
from tbtt_interp.stats import Interval

COVARIATES = ("gone", "rim", "equal")  # of an equation, as the atlas describes it
FEWEST = 10  # pairs, below which nothing is fitted


def answered_shares(equations: pd.DataFrame) -> pd.DataFrame:
    """A row a model and operator: share right, doublings of width about their mean, covariates.

    Args:
        equations: as `atlas_equations` has it.
    """
    by = ["pair", "seed", "size", "width", "operator"]
    table = equations.groupby(by, as_index=False).agg(
        share=("right", "mean"), **{name: (name, "max") for name in COVARIATES}
    )
    return _coded(table)


def _coded(table: pd.DataFrame) -> pd.DataFrame:
    """With doublings about the sizes' mean, addition at a half and subtraction at minus a half."""
    middle = np.log2(table["width"].unique()).mean()
    return table.assign(
        doublings=np.log2(table["width"]) - middle,
        addition=table["operator"].map({"+": 0.5, "-": -0.5}),
        model=table["seed"].astype(str) + table["size"],
        **{name: table[name].astype(float) for name in COVARIATES},
    )


def mixed_model(shares: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A linear mixed model of the share, by restricted maximum likelihood.

    Fixed: doublings of width, addition less subtraction, and what of COVARIATES varies. Random:
    pair, what a doubling and the operator do in each pair, seed in pair, model. Intervals are t's
    with as many degrees of freedom as there are pairs but one. A share of two is no normal
    variable; its means over the models of a pair, which decide here, nearly are.

    Args:
        shares: as `answered_shares` has it.
    Returns:
        fixed effects (term, effect, low, high; in share), and standard deviations (between, sd).
    Raises:
        TbttError: if there are too few pairs, sizes or seeds to fit it, or shares are all the same.
    Source: Barr, Levy, Scheepers and Tily, Journal of Memory and Language 68 (2013), on slopes;
        Bates, Kliegl, Vasishth and Baayen, arXiv 1506.04967, on leaving their correlations out.
    """
    from statsmodels.formula.api import mixedlm
    from statsmodels.tools.sm_exceptions import ModelWarning

    terms = _terms(shares)
    random = {"doublings": "0 + doublings", "addition": "0 + addition", "model": "0 + C(model)"}
    if shares.groupby("pair")["seed"].nunique().max() > 1:  # else seeds are pairs
        random["seed"] = "0 + C(seed)"
    model = mixedlm(
        f"share ~ {' + '.join(terms)}", shares, groups="pair", re_formula="1", vc_formula=random
    )
    with warnings.catch_warnings():  # a variance of 0 is a boundary, and an answer
        warnings.simplefilter("ignore", ModelWarning)
        try:  # gradients stop far from the optimum where a variance is 0; Powell's method does not
            fit = model.fit(method="powell")
        except np.linalg.LinAlgError as error:
            raise TbttError(
                f"a mixed model of {len(shares)} shares has no unique fit ({error}): train more "
                "seeds of the atlas"
            ) from error
    names = {"doublings": "doubling of width, by pair", "addition": "operator, by pair",
             "seed": "seeds of a pair", "model": "models of a seed"}  # fmt: skip
    variances = dict(zip((names[name] for name in fit.model.exog_vc.names), fit.vcomp, strict=True))
    variances = {"pairs": fit.cov_re.iloc[0, 0]} | variances | {"shares of a model": fit.scale}
    deviations = pd.DataFrame({"between": variances.keys(), "sd": np.sqrt([*variances.values()])})
    fixed = _fixed(fit.fe_params, fit.bse_fe, shares["pair"].nunique())
    return (fixed if fit.converged else fixed.assign(low=np.nan, high=np.nan)), deviations


def logistic_check(equations: pd.DataFrame) -> pd.DataFrame:
    """The same fixed effects on the logit of each answer, by estimating equations over pairs.

    Effects are of the average over pairs, nearer to 0 than a pair's own. Standard errors come from
    the pairs themselves, whatever is correlated within them, with Mancl and DeRouen's correction
    for few of them.

    Args:
        equations: as `atlas_equations` has it.
    Returns:
        term, effect, low, high; in log-odds.
    Source: Liang and Zeger, Biometrika 73 (1986); Mancl and DeRouen, Biometrics 57 (2001).
    """
    from statsmodels.genmod.cov_struct import Exchangeable
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    table = _coded(equations)
    # where all answers are wrong the odds have no logarithm
    terms = [name for name in _terms(table) if name != "gone"]
    fit = GEE.from_formula(
        f"right ~ {' + '.join(terms)}", "pair", table.astype({"right": float}),
        cov_struct=Exchangeable(), family=Binomial(),
    ).fit(cov_type="bias_reduced")  # fmt: skip
    if fit is None or not fit.converged:
        return pd.DataFrame({"term": ["Intercept", *terms], "effect": np.nan, "low": np.nan,
                             "high": np.nan})  # fmt: skip
    return _fixed(fit.params, fit.bse, table["pair"].nunique())


def slopes_of_pairs(shares: pd.DataFrame) -> pd.Series:
    """What a doubling of width does to each pair's share, by least squares; nan of one width."""
    x = shares["doublings"] - shares.groupby("pair")["doublings"].transform("mean")
    return (x * shares["share"]).groupby(shares["pair"]).sum() / (x**2).groupby(
        shares["pair"]
    ).sum()


def interval_over_pairs(values: pd.Series) -> Interval:
    """The mean over pairs and Student's interval."""
    known = values.dropna()
    mean = float(known.mean())
    reach = float(stats.t.ppf(0.975, len(known) - 1)) * float(
        np.std(known, ddof=1) / np.sqrt(len(known))
    )  # nan of one pair
    return Interval(mean=mean, low=mean - reach, high=mean + reach)


def pair_and_size(
    shares: pd.DataFrame, *, resamples: int = 2_000, seed: int = 0
) -> dict[str, Interval]:
    """The share's standard deviations between pairs and between sizes, and how they differ.

    Analysis of variance, with what seeds alone would make of each taken off: between pairs, what
    the seeds of a pair differ by; between sizes, what pairs and sizes have together. Pairs are
    resampled.

    Returns:
        intervals of "pairs", "sizes" and "pairs less sizes".
    Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 4.
    """
    models = shares.groupby(["pair", "seed", "size"])["share"].mean()
    of_seeds = models.groupby(["pair", "seed"]).mean().groupby("pair")
    cells = models.groupby(["pair", "size"]).mean().unstack("size").dropna()
    variance = of_seeds.var()  # unknown of one seed, which is taken to vary as others do
    noise = (variance.fillna(variance.mean()) / of_seeds.size()).reindex(cells.index).to_numpy()
    grid = cells.to_numpy()
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(grid), size=(resamples, len(grid)))
    found = np.array([_deviations(grid, noise), *(_deviations(grid[k], noise[k]) for k in drawn)])
    found = np.column_stack([found, found[:, 0] - found[:, 1]])
    low, high = np.quantile(found[1:], [0.025, 0.975], axis=0)
    names = ("pairs", "sizes", "pairs less sizes")
    return {
        name: Interval(mean=float(found[0, k]), low=float(low[k]), high=float(high[k]))
        for k, name in enumerate(names)
    }


def _deviations(grid: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Between pairs and between sizes, from a share a pair and size; noise is of a pair's mean."""
    pairs, sizes = grid.mean(1), grid.mean(0)
    rest = grid - pairs[:, None] - sizes + grid.mean()
    together = (rest**2).sum() / (len(pairs) - 1) / (len(sizes) - 1)
    between_pairs = pairs.var(ddof=1) - noise.mean()
    between_sizes = sizes.var(ddof=1) - together / len(pairs)
    return np.sqrt(np.maximum(0, between_pairs)), np.sqrt(np.maximum(0, between_sizes))


def _terms(table: pd.DataFrame) -> list[str]:
    terms = [name for name in ("doublings", "addition", *COVARIATES) if table[name].nunique() > 1]
    outcome = "share" if "share" in table else "right"
    if table["pair"].nunique() < FEWEST or "doublings" not in terms or table[outcome].nunique() < 2:
        raise TbttError(
            f"a mixed model of held-out answers needs {FEWEST} pairs, two sizes and answers that "
            f"differ, got {table['pair'].nunique()} pairs and {table['width'].nunique()} sizes: "
            "train more of the atlas"
        )
    return terms


def _fixed(effects: pd.Series, errors: pd.Series, pairs: int) -> pd.DataFrame:
    reach = stats.t.ppf(0.975, pairs - 1) * errors[effects.index]
    table = pd.DataFrame({"effect": effects, "low": effects - reach, "high": effects + reach})
    return table.rename_axis("term").reset_index()

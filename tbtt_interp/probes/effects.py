"""Effects of erasure, interchange and correction over models, compared with nulls of equal rank."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tbtt_interp.plots import points, short_site
from tbtt_interp.probes import erasure
from tbtt_interp.probes.erasure import DRAWS, NULLS, LabelledActivations
from tbtt_interp.probes.features import find_features
from tbtt_interp.probes.grid import as_text, highest_null
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds
from tbtt_interp.stats import Interval, ratios_over_models
from tbtt_interp.tasks import Example

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

NULL_NAMES = {
    "control_task": "control tasks", "permuted_labels": "permuted labels",
    "random_subspace": "random subspaces", "one_hot": "one-hot text",
    "untrained": "untrained models",
}  # fmt: skip
MEASURES = {  # what a claim says, and the unit
    "margin drop": ("Erasing the code of {} lowers the margin by", "nats"),
    "margin drop, held out": ("Erasing the code of {} lowers the held-out margin by", "nats"),
    "answer follows": ("With the code of {} interchanged, the answer follows in", "of pairs"),
    "logit shift": ("Interchanging the code of {} shifts the logit difference by", "nats"),
    "decoded": ("Where the answer is wrong, {} is decoded in", "of held-out answers"),
    "decoded in code": ("Where the answer is wrong, the code alone gives {} in", "of answers"),
    "corrected": ("Moving the code of {} corrects", "of wrong held-out answers"),
}
DISPLAY = {"feature": "", "site": "", "measure": "", "effect": "interval", "count": ".0f",
           "of": ".0f", **dict.fromkeys(NULL_NAMES, ".2f"), "whole": ".2f", "p": ".3f",
           "rank": ".0f", "width": ".0f", "variance": ".2f"}  # fmt: skip
NOTE = (
    "Nulls, of the code's rank: control tasks, permuted labels and random directions. p: the share "
    "of draws with as large an effect, of the null where it is largest; not corrected for rows. "
    "Brackets: 95 % CI over models."
)
ERASURE_NOTE = (
    "margin drop: nats of logit that answers lose, on average, when the code is erased (LEACE). "
    "answer follows: share of pairs where the first token becomes the source's when its code, or "
    "its whole activation, is put in; logit shift: the rise of that token's logit over the base's, "
    "in nats. variance: the share erased."
)
LATENT_NOTE = (
    "Effects are shares of the held-out answers that are wrong. decoded: by a probe fitted on seen "
    "examples. corrected: right after the code is moved to where it should be. Both together are "
    "a latent answer. decoded in code: from the directions that are moved."
)


def coded_features(examples: Sequence[Example]) -> list[str]:
    """The features whose codes are erased where none is named; else all features with a code."""
    known = find_features(None, examples)
    has_code = [f.name for f in known if f.is_ordinal or len({*map(f.of, examples)} - {None}) == 2]
    return [f.name for f in known if f.is_erased] or has_code


def erasure_effects(model: "HookedTransformer", prompts: PromptSet, **place: Any) -> pd.DataFrame:
    """One model's effects of erasure and interchange, at a place of `LabelledActivations.of`."""
    data = LabelledActivations.of(model, prompts, **place)
    return pd.concat([erasure.erase(data), erasure.interchange(data)])


def latent_effects(
    model: "HookedTransformer", prompts: PromptSet, *, wrong: np.ndarray, is_trained: bool = True,
    **place: Any,
) -> pd.DataFrame:  # fmt: skip
    """Labels that are decoded, and answers that are corrected, where one model answers wrongly.

    Args:
        wrong: which examples each trained model answers wrongly.
        is_trained: False leaves out what only trained models are asked.
    """
    data = LabelledActivations.of(model, prompts, **place)
    mask = wrong[prompts.number][data.labels.has]
    decoded = erasure.decode_wrong(data, mask)
    if is_trained:
        return pd.concat([decoded, erasure.correct_wrong(data, mask)])
    return decoded[decoded["kind"] == "code"].assign(kind="untrained")


def summarize_effect(table: pd.DataFrame) -> dict[str, float]:
    """Mean effect over models with its interval, the mean of each null, and the permutation p.

    Args:
        table: one row per seed, kind and draw: value, or a count where there is a column `of`.
    Returns:
        effect, effect_low, effect_high and n_models; for counts, whose effects are shares, count
        and of; the mean of each other kind; and p, the share of draws with as large an effect, of
        the null where it is largest. The interval is Student's; for shares it is no narrower than
        Clopper and Pearson's.
    """
    from scipy.stats import binomtest

    is_count = table.get("of", pd.Series([np.nan])).notna().any()
    table = table.assign(of=table["of"] if is_count else 1)
    sums = table.groupby(["kind", "draw"])[["value", "of"]].sum()
    means = sums["value"] / sums["of"]
    own = table[(table["kind"] == "code") & (table["of"] > 0)]
    mean, low, high, n = (x.item() for x in ratios_over_models(own["value"], own["of"]))
    counts = {}
    if is_count:
        counts = {"count": int(own["value"].sum()), "of": int(own["of"].sum())}
        if n > 1:
            exact = binomtest(counts["count"], counts["of"]).proportion_ci()
            low, high = max(0.0, min(low, exact.low)), min(1.0, max(high, exact.high))
    drawn = [means[null] for null in NULLS if null in means]
    shares = [(1 + (~(x < mean - 1e-9)).sum()) / (1 + len(x)) for x in drawn]
    others = means.drop("code", level="kind").groupby("kind").mean()
    return {
        "effect": mean, "effect_low": low, "effect_high": high, "n_models": n, **counts,
        **{str(kind).replace(" ", "_"): value for kind, value in others.items()},
        "p": max(shares, default=np.nan),
    }  # fmt: skip


def _effect_table(
    models: Models, features: Sequence[str] | None, sites: Sequence[str] | None,
    effects_of: Callable[..., pd.DataFrame],
) -> pd.DataFrame:  # fmt: skip
    """One row per feature, site and measure.

    Args:
        effects_of: gives the effects of all models, by feature and site.
    """
    if features is None:
        features = coded_features(models.shared_prompts.examples)
    if sites is None:
        sites = [f"blocks.{layer}.hook_resid_{part}" for layer in range(models.first.cfg.n_layers)
                 for part in ("mid", "post")]  # fmt: skip
    rows = []
    for feature, site in product(features, sites):
        effects = effects_of(feature=feature, site=site)
        for measure, table in effects.groupby("measure", sort=False):
            size = table[table["kind"] == "code"].filter(["rank", "width", "variance"]).mean()
            place = {"feature": feature, "site": site, "measure": measure}
            rows.append(place | summarize_effect(table) | size.to_dict())
    return pd.DataFrame(rows)


def erasure_table(
    models: Run | Models,
    features: Sequence[str] | None = None,
    *,
    sites: Sequence[str] | None = None,
    pos: int = -1,
    step: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """What erasing a feature's code costs the answer, and how often the answer follows a source's.

    Args:
        features: by name; None is `coded_features`.
        sites: by hook name; None is the stream after attention and after the MLP of each layer.
        pos: counted from the prompt's last token, which is -1.
        draws: of each null.
    Returns:
        one row per feature, site and measure of `erase` and `interchange`. Columns as in
        `summarize_effect`, with whole for the whole activation; variance, the share that is erased;
        rank and width.
    """
    models = Models.of(models, step)
    options = {"pos": pos, "draws": draws, "seed": seed}
    run = partial(over_seeds, models, erasure_effects, **options)
    return _effect_table(models, features, sites, run)


def latent_answers(
    models: Run | Models,
    features: Sequence[str] | None = None,
    *,
    sites: Sequence[str] | None = None,
    step: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Wrong held-out answers whose right label is decoded, or that moving its code corrects.

    Args:
        features, sites, draws: as in `erasure_table`.
    Returns:
        one row per feature, site and measure: "decoded" by a probe fitted on seen examples;
        "corrected" by moving the code to where it should be; and "decoded in code", from the
        directions that are moved. `count` of `of` wrong answers of all models; effect, that share,
        over the n_models models that answer wrongly. Other columns as in `summarize_effect`.
    """
    models = Models.of(models, step)
    wrong = over_seeds(models, erasure.wrong_answers)["wrong"]
    early = dataclasses.replace(models, models=models.untrained)

    def effects_of(**place: Any) -> pd.DataFrame:
        options = {**place, "wrong": wrong, "seed": seed}
        effects = over_seeds(models, latent_effects, draws=draws, **options)
        if not early.models:
            return effects
        null = over_seeds(early, latent_effects, draws=0, is_trained=False, **options)
        return pd.concat([effects, null], ignore_index=True)

    return _effect_table(models, features, sites, effects_of)


def effect_claims(table: pd.DataFrame) -> list[Claim]:
    """For each row, that its effect is above the highest of its nulls."""
    claims = []
    for row in table.to_dict("records"):
        null, null_name = highest_null(row, NULL_NAMES)
        text, unit = MEASURES[row["measure"]]
        claims.append(Claim(
            text=text.format(f"{row['feature']} at {row['site']}"), unit=unit, p=row["p"],
            effect=Interval.of_row(row, "effect"), null=null, null_name=null_name,
        ))  # fmt: skip
    return claims


def analyse_erasure(
    models: Run | Models, features: Sequence[str] | None = None, **options: Any
) -> Result:
    """`erasure_table` with its claims, its display and its figure."""
    return _result("erasure", erasure_table(models, features, **options), ERASURE_NOTE)


def analyse_latent_answers(
    models: Run | Models, features: Sequence[str] | None = None, **options: Any
) -> Result:
    """`latent_answers` with its claims, its display and its figure."""
    return _result("latent-answers", latent_answers(models, features, **options), LATENT_NOTE)


def _result(name: str, table: pd.DataFrame, note: str) -> Result:
    return Result(
        name=name, tables={name: table}, display=as_text(table, DISPLAY), notes=[note, NOTE],
        claims=effect_claims(table), figures={name: partial(plot_effects, table)},
    )  # fmt: skip


def plot_effects(table: pd.DataFrame) -> "Figure":
    """Each share of a table of erasure or latent answers, compared with its nulls."""
    rows = table[~table["measure"].str.startswith(("margin", "logit"))]
    return points(
        rows.assign(name=rows["feature"] + " at " + rows["site"].map(short_site)), name="name",
        value="effect", low="effect_low", high="effect_high", panel="measure", nulls=NULL_NAMES,
        title="share of pairs" if "whole" in rows else "share of wrong held-out answers",
    )  # fmt: skip


causal_table, unsaid_table = erasure_table, latent_answers  # old names, until nothing imports them

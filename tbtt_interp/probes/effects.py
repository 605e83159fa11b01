"""Effects of erasure, interchange and correction over models, compared with nulls of equal rank."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tbtt_interp.activations import as_list
from tbtt_interp.interventions import answer_logits
from tbtt_interp.plots import points, short_site
from tbtt_interp.probes.erasure import (
    DRAWS,
    NULLS,
    LabelledActivations,
    correct_wrong,
    decode_wrong,
    erase,
    interchange_effects,
)
from tbtt_interp.probes.features import Feature, find_features
from tbtt_interp.probes.grid import as_text
from tbtt_interp.probes.labels import missing_controls
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Arrays, Models, over_seeds, over_untrained
from tbtt_interp.shares import share_over_models
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import Example

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

    from tbtt_interp.seeds import ModelsLike
    from tbtt_interp.tasks import Prompts

Names = Sequence[str] | None
NULL_NAMES = {
    "control_task": "control tasks", "other_threshold": "other thresholds",
    "permuted_labels": "permuted labels",
    "random_subspace": "random subspaces", "neighbours": "a third of near readings",
    "one_hot": "one-hot text",
    "untrained": "untrained models",
}  # fmt: skip
MEASURES = {  # what a claim says, and the unit
    "margin drop": ("Erasing the code of {} lowers the margin by", "nats"),
    "margin drop, held out": (
        "Erasing the code of {} lowers the held-out margin by",
        "nats",
    ),
    "answer follows": (
        "With the code of {} interchanged, the answer follows in",
        "of pairs",
    ),
    "logit shift": ("Interchanging the code of {} shifts the logit difference by", "nats"),
    "decoded": ("Where the answer is wrong, {} is decoded in", "of held-out answers"),
    "decoded in code": ("Where the answer is wrong, the code alone gives {} in", "of answers"),
    "corrected": ("Moving the code of {} corrects", "of wrong held-out answers"),
}
DISPLAY = {"feature": "", "site": "", "measure": "", "effect": "interval", "p": "p",
           "count": ".0f", "of": ".0f", **dict.fromkeys(NULL_NAMES, ".2f"), "whole": ".2f",
           "rank": ".0f", "width": ".0f", "variance": ".2f"}  # fmt: skip
NOTE = (
    "Nulls, with as many directions as the code: control tasks, permuted labels and random "
    "directions. p: the share of a null's draws with as large an effect, the largest of the nulls; "
    "not corrected for the number of rows. Other thresholds: of the feature's quantity, such as "
    "a + b ≥ 7 for the carry; they have no p. "
    "Brackets: 95 % CI over models."
)
ERASURE_NOTE = (
    "margin drop: nats of logit that answers lose, on average, when the code is erased (LEACE). "
    "answer follows: share of pairs where the first token becomes the source's when its code, or "
    "its whole activation, is put in; logit shift: the rise of that token's logit over the base's, "
    "in nats. variance: the share erased. Erasure and interchange see linear codes alone. A "
    "feature that is used through a table or an XOR shows no effect, so no effect does not "
    "mean unused."
)
LATENT_NOTE = (
    "Effects are shares of the held-out answers that are wrong. decoded: by a probe fitted on seen "
    "examples. corrected: right after the code is moved to where it should be. Both together are "
    "a latent answer. decoded in code: from the directions that are moved. neighbours: a third of "
    "the readings that are right or off by one, as a probe of the magnitude alone would have."
)


def coded_features(examples: Sequence[Example]) -> list[str]:
    """The features whose codes are erased where none is named; else all features with a code."""
    known = find_features(None, examples)
    has_code = [f.name for f in known if f.is_ordinal or len({*map(f.of, examples)} - {None}) == 2]
    return [f.name for f in known if f.is_erased] or has_code


def erasure_effects(
    model: "HookedTransformer", prompts: PromptSet, **location: Any
) -> pd.DataFrame:
    """One model's effects of erasure and interchange, at a place of `LabelledActivations.of`."""
    data = LabelledActivations.of(model, prompts, **location)
    return pd.concat([erase(data), interchange_effects(data)])


def interchanged(model: "HookedTransformer", prompts: PromptSet, **location: Any) -> pd.DataFrame:
    """One model's effects of interchange, at a place of `LabelledActivations.of`."""
    return interchange_effects(LabelledActivations.of(model, prompts, **location))


def wrong_answers(model: "HookedTransformer", prompts: PromptSet) -> Arrays:
    """Which examples are held out and answered wrongly: `wrong`, one per example."""
    batch = prompts.batch()
    margins = batch.margins(answer_logits(model, batch)[None])[0].numpy()
    return {"wrong": prompts.held_out & (margins <= 0)}


def latent_effects(
    model: "HookedTransformer", prompts: PromptSet, *, wrong: np.ndarray, **location: Any
) -> pd.DataFrame:
    """Decoded labels and corrected answers, on the examples that a trained model gets wrong.

    Args:
        wrong: which examples each trained model answers wrongly.
        location: as in `LabelledActivations.of`; without draws nothing is corrected.
    """
    data = LabelledActivations.of(model, prompts, **location)
    mask = wrong[prompts.number][data.labels.has]
    effects = [decode_wrong(data, mask), *([correct_wrong(data, mask)] if data.draws else [])]
    return pd.concat(effects)


def summarize_effect(table: pd.DataFrame) -> dict[str, float]:
    """Mean effect over models with its interval, the mean of each null, and the permutation p.

    Args:
        table: one row per seed, kind and draw: value, or a count where there is a column `of`.
    Returns:
        effect, effect_low, effect_high and n_models; for counts, whose effects are shares, count
        and of; the mean of each other kind; and p, the share of draws with as large an effect, of
        the null where it is largest. The interval is Student's, of counts the beta-binomial's.
    """
    is_count = "of" in table and table["of"].notna().any()
    table = table if is_count else table.assign(of=1)
    sums = table.groupby(["kind", "draw"])[["value", "of"]].sum()
    means = sums["value"] / sums["of"]
    own = table[(table["kind"] == "code") & (table["of"] > 0)]
    if is_count:
        found = share_over_models(
            [(int(hits), int(of)) for hits, of in own[["value", "of"]].to_numpy()]
        )
        counts = {"count": int(own["value"].sum()), "of": int(own["of"].sum())}
    else:
        found, counts = mean_over_models(own["value"]), {}
    beaten = (~(means < found.mean - 1e-9)).groupby("kind").agg(["sum", "size"]).reindex(NULLS)
    others = means.drop("code", level="kind").groupby("kind").mean()
    return {
        "effect": found.mean, "effect_low": found.low, "effect_high": found.high,
        "n_models": found.n, **counts,
        **{str(kind).replace(" ", "_"): value for kind, value in others.items()},
        "p": ((1 + beaten["sum"]) / (1 + beaten["size"])).max(),
    }  # fmt: skip


def _effect_table(
    models: Models, features: Any, sites: Names, effects_of: Callable[..., pd.DataFrame]
) -> pd.DataFrame:
    """One row per feature, site and measure of the effects of all models."""
    layers, chosen = range(models.first.cfg.n_layers), _chosen(features, models)
    if sites is None:
        sites = [f"blocks.{k}.hook_resid_{part}" for k in layers for part in ("mid", "post")]
    rows = []
    for feature, site in product(chosen, as_list(sites)):
        for measure, table in effects_of(feature=feature, site=site).groupby("measure", sort=False):
            size = table[table["kind"] == "code"].filter(["rank", "width", "variance"]).mean()
            key = {"feature": feature.name, "site": site, "measure": measure}
            rows.append(key | summarize_effect(table) | size.to_dict())
    return pd.DataFrame(rows)


def interchange(
    models: "ModelsLike", features: Any = None, *, sites: Names = None, pos: int = -1,
    step: int | None = None, draws: int = DRAWS, seed: int = 0, prompts: "Prompts | None" = None,
    encoder: Any = None,
) -> pd.DataFrame:  # fmt: skip
    """How answers follow a feature's code when it is taken from another prompt's activation.

    Args:
        models, step, prompts, encoder: as in `Models.of`.
        features: as in `find_features`; None is `coded_features`.
        sites, pos, draws: as in `erasure_table`.
    Returns:
        One row per feature, site and measure ("answer follows", the share of pairs whose first
        token becomes the source's; "logit shift"), with columns as in `summarize_effect`, and
        `whole` for the whole activation.
    Source: interchange interventions, Geiger et al. 2021.
    """
    chosen = Models.of(models, step, prompts=prompts, encoder=encoder)
    options = {"pos": pos, "draws": draws, "seed": seed}
    _warn(features, chosen)
    return _effect_table(chosen, features, sites,
                         partial(over_seeds, chosen, interchanged, **options))  # fmt: skip


def _warn(features: Any, models: Models) -> None:
    for sentence in missing_controls(_chosen(features, models), models.shared_prompts.examples):
        warnings.warn(sentence, stacklevel=3)


def _chosen(features: Any, models: Models) -> list[Feature]:
    """The features, or those whose codes are erased where none is named."""
    examples = models.shared_prompts.examples
    return find_features(coded_features(examples) if features is None else features, examples)


def erasure_table(
    models: Run | Models, features: Any = None, *, sites: Names = None, pos: int = -1,
    step: int | None = None, draws: int = DRAWS, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """What erasing a feature's code costs the answer, and how often the answer follows a source's.

    Args:
        features: as in `find_features`; None is `coded_features`.
        sites: by hook name; None is the stream after attention and after the MLP of each layer.
        pos: counted from the prompt's last token, which is -1.
        draws: of each null.
    Returns:
        one row per feature, site and measure of `erase` and `interchange`. Columns as in
        `summarize_effect`, with whole for the whole activation; variance, the share that is erased;
        rank and width.
    """
    models, options = Models.of(models, step), {"pos": pos, "draws": draws, "seed": seed}
    run = partial(over_seeds, models, erasure_effects, **options)
    return _effect_table(models, features, sites, run)


def latent_answers(
    models: Run | Models, features: Any = None, *, sites: Names = None,
    step: int | None = None, draws: int = DRAWS, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Wrong held-out answers whose label is decoded, or that moving the label's code corrects.

    Args:
        features, sites, draws: as in `erasure_table`.
    Returns:
        one row per feature, site and measure of `decode_wrong` and `correct_wrong`. `count` of `of`
        wrong answers of all models; effect, that share, over the n_models models that answer
        wrongly. Other columns as in `summarize_effect`.
    """
    models = Models.of(models, step)
    wrong = over_seeds(models, wrong_answers)["wrong"]

    def effects_of(**location: Any) -> pd.DataFrame:
        options = {**location, "wrong": wrong, "seed": seed}
        effects = over_seeds(models, latent_effects, draws=draws, **options)
        null = over_untrained(models, latent_effects, draws=0, **options)
        if null is None:
            return effects
        null = null[null["kind"] == "code"].assign(kind="untrained")
        return pd.concat([effects, null], ignore_index=True)

    return _effect_table(models, features, sites, effects_of)


def effect_claims(table: pd.DataFrame) -> list[Claim]:
    """For each row, that its effect is above the highest of its nulls."""
    claims = []
    for row in table.to_dict("records"):
        text, unit = MEASURES[row["measure"]]
        is_linear = row["measure"] not in ("decoded", "decoded in code", "corrected")
        claims.append(Claim.of_row(
            row, "effect", NULL_NAMES, "highest", unit=unit, p=row["p"],
            text=text.format(f"{row['feature']} at {row['site']}"),
            blind_to="a feature that is used nonlinearly" if is_linear else "",
        ))  # fmt: skip
    return claims


def analyse_erasure(models: "ModelsLike", features: Any = None, **options: Any) -> Result:
    """`erasure_table` with its claims, its display and its figure."""
    models = Models.of(models, options.pop("step", None))
    missing = missing_controls(_chosen(features, models), models.shared_prompts.examples)
    return _result("erasure", erasure_table(models, features, **options), ERASURE_NOTE, missing)


def analyse_latent_answers(models: "ModelsLike", features: Any = None, **options: Any) -> Result:
    """`latent_answers` with its claims, its display and its figure."""
    models = Models.of(models, options.pop("step", None))
    missing = missing_controls(_chosen(features, models), models.shared_prompts.examples)
    table = latent_answers(models, features, **options)
    return _result("latent-answers", table, LATENT_NOTE, missing)


def _result(name: str, table: pd.DataFrame, note: str, missing: list[str]) -> Result:
    return Result(
        name=name, tables={name: table}, display=as_text(table, DISPLAY), notes=[note, NOTE],
        summary=missing,
        claims=effect_claims(table), figures={name: partial(plot_effects, table)},
    )  # fmt: skip


def plot_effects(table: pd.DataFrame) -> "Figure":
    """Each share of a table of erasure or latent answers, compared with its nulls."""
    rows = table[~table["measure"].str.startswith(("margin", "logit"))]
    return points(
        rows.assign(name=rows["feature"] + " at " + rows["site"].map(short_site)), name="name",
        value="effect", panel="measure", nulls=NULL_NAMES,
        title="share of pairs" if "whole" in rows else "share of wrong held-out answers",
    )  # fmt: skip

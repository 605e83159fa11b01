"""What models do when codes are erased, swapped or corrected, over seeds and beside nulls."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from tbtt_interp.activations import untrained_models
from tbtt_interp.errors import TbttError
from tbtt_interp.probes.causal import DRAWS, NULLS, Patient, erase, swap
from tbtt_interp.probes.features import Feature, find_features, label_examples
from tbtt_interp.probes.run import patients
from tbtt_interp.probes.unsaid import patch_unsaid, read_unsaid
from tbtt_interp.runs import Run
from tbtt_interp.stats import crossed_intervals, mean_over_models
from tbtt_interp.tasks import Example

CODED = ("carry", "borrow", "sign", "tens", "units", "answer", "length")


def coded_features(run: Run) -> list[str]:
    """Those of CODED that the run's task has."""
    examples = run.tasks[0].examples
    known = {feature.name: feature for feature in find_features(None, examples)}
    coded = [name for name in CODED if name in known]
    return coded or [name for name, feature in known.items() if _has_code(feature, examples)]


def _has_code(feature: Feature, examples: Sequence[Example]) -> bool:
    try:
        return len(label_examples(feature, examples, controls=0).codes()) > 0
    except TbttError:
        return False


def weigh(table: pd.DataFrame, value: str, *, of: str = "code") -> dict[str, float]:
    """An effect over seeds, its nulls, and how often these do as much.

    Keys: effect, its mean over seeds, low and high of its interval; the mean of each null; and p,
    the share of draws that do as much, of that null which does it most often.

    Args:
        table: a row a seed, kind and draw; an effect is a value less that of the kind none, if any.
        of: the kind that is weighed.
    """
    base = table[table["kind"] == "none"].set_index("seed")[value]
    effect = table[value] - table["seed"].map(base).fillna(0.0)
    table = table.assign(effect=effect.astype(float))
    mine = mean_over_models(table.loc[table["kind"] == of, "effect"].tolist())
    row = {"effect": mine.mean, "low": mine.low, "high": mine.high}
    shares = []
    for null in NULLS:
        draws = table[table["kind"] == null].groupby("draw")["effect"].mean()
        row[null.replace(" ", "_")] = draws.mean()
        if len(draws):
            shares.append((1 + (draws >= mine.mean - 1e-9).sum()) / (1 + len(draws)))
    return row | {"p": max(shares, default=float("nan"))}


def causal_table(
    run: Run,
    features: Sequence[str],
    *,
    sites: Sequence[str] | None = None,
    pos: int = -1,
    step: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> pd.DataFrame:
    """What erasing a feature's code does to the answer, and what taking another's does.

    A row a feature, site and measure: "margin lost" (erased, seen examples, nats of logit), "margin
    lost, held out", and "answer follows" (swapped, the share of givers whose first character the
    model says). Columns as in `weigh`, and whole, for what taking the whole activation does;
    variance, the share that is erased; rank and width; models.

    Args:
        sites: by hook name; None is the stream after attention and after the MLP of each layer.
    """
    rows = []
    for feature, site, found in _places(run, features, sites, pos, step, draws, seed, tell):
        erased = _of_all(found, lambda p: erase(p, draws=draws, seed=seed))
        swapped = _of_all(found, lambda p: swap(p, draws=draws, seed=seed))
        erased["lost"] = -erased["margin"]
        swapped["followed"] = swapped["followed"] / swapped["of"]
        code = erased[erased["kind"] == "code"]
        where = {"feature": feature, "site": site, "pos": pos, "models": len(found)}
        size = {"rank": code["rank"].iloc[0], "width": code["width"].iloc[0]}
        for split, part in erased.groupby("split", sort=False):
            name = "margin lost" + ("" if split == "seen" else ", held out")
            rows.append(where | {"measure": name} | weigh(part, "lost") | size
                        | {"variance": code["variance"].mean()})  # fmt: skip
        whole = swapped.loc[swapped["kind"] == "whole", "followed"].mean()
        measured = weigh(swapped, "followed") | {"whole": whole}
        rows.append(where | {"measure": "answer follows"} | measured | size)
    return pd.DataFrame(rows)


def unsaid_table(
    run: Run,
    features: Sequence[str],
    *,
    sites: Sequence[str] | None = None,
    step: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> pd.DataFrame:
    """What is right in models that answer held-out equations wrongly.

    A row a feature and site: wrong, the wrong held-out answers of all models, and wrong_models, how
    many have any; read, of how many a
    probe fitted on what was seen reads the feature rightly, with the nulls read_control (mean),
    read_one_hot and read_untrained, and read_p; flipped, how many answers turn right when the code
    is moved to where it should be, with the nulls by name, and flipped_p; of both read_low,
    read_high, flipped_low and flipped_high over models, if as many are wrong; read_in_code, how
    many are read in the very directions that are moved, read_in_null, the largest mean of its
    nulls, and read_in_code_p; rank and width.
    """
    rows = []
    untrained = untrained_models(run)
    for feature, site, found in _places(run, features, sites, -1, step, draws, seed, tell):
        labels = found[0][1].labels
        chosen = [e for e, has in zip(run.tasks[0].examples, labels.has, strict=True) if has]
        read = pd.concat(
            read_unsaid(
                patient, dataclasses.replace(patient, model=early).at_place(), chosen
            ).assign(seed=s)
            for (s, patient), early in zip(found, untrained, strict=True)
        )
        patched = _of_all(found, lambda p: patch_unsaid(p, draws=draws, seed=seed))
        weighed = weigh(read, "right", of="real")
        flips, inside = weigh(patched, "flipped"), weigh(patched, "read")
        count = len(found)
        names = [null.replace(" ", "_") for null in NULLS]
        totals = read.groupby("kind")["right"].sum()
        rows.append({
            "feature": feature, "site": site,
            "wrong": int(patched.loc[patched["kind"] == "none", "of"].sum()),
            "wrong_models": int((patched.loc[patched["kind"] == "none", "of"] > 0).sum()),
            "read": int(totals["real"]),
            **_bounds(read[read["kind"] == "real"], "right", "read"),
            "read_control": count * weighed["control_task"],
            "read_one_hot": int(totals["one-hot operands"]),
            "read_untrained": int(totals["untrained"]), "read_p": weighed["p"],
            "flipped": round(count * flips["effect"]),
            **_bounds(patched[patched["kind"] == "code"], "flipped", "flipped"),
            **{null: count * flips[null] for null in names},
            "flipped_p": flips["p"],
            "read_in_code": round(count * inside["effect"]),
            "read_in_null": count * pd.Series(inside)[names].max(),
            "read_in_code_p": inside["p"],
            "rank": found[0][1].rank, "width": found[0][1].width,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _bounds(table: pd.DataFrame, value: str, name: str) -> dict[str, float]:
    """Where a count comes to when models are resampled, if as many are wrong; nan of one model.

    No narrower than Clopper and Pearson's interval, for none of few is not none of all.
    """
    from scipy.stats import binomtest

    table = table[table["of"] > 0]
    if len(table) < 2:
        return {f"{name}_low": float("nan"), f"{name}_high": float("nan")}
    right, of = (table[column].to_numpy(float)[None, :, None] for column in (value, "of"))
    found = crossed_intervals(right, of)[0]
    exact = binomtest(round(right.sum()), round(of.sum())).proportion_ci()
    low, high = min(found.low, exact.low), max(found.high, exact.high)
    return {f"{name}_low": low * of.sum(), f"{name}_high": high * of.sum()}


def _of_all(
    found: Sequence[tuple[int, Patient]], operation: Callable[[Patient], pd.DataFrame]
) -> pd.DataFrame:
    parts = [operation(patient).assign(seed=seed) for seed, patient in found]
    return pd.concat(parts, ignore_index=True)


def _places(
    run: Run, features: Sequence[str], sites: Sequence[str] | None, pos: int, step: int | None,
    draws: int, seed: int, tell: Callable[[int, int], None],
) -> Iterator[tuple[str, str, list[tuple[int, Patient]]]]:  # fmt: skip
    layers = range(run.shape.layers)
    parts = ("hook_resid_mid", "hook_resid_post")
    sites = [f"blocks.{k}.{part}" for k in layers for part in parts] if sites is None else sites
    places = [(feature, site) for feature in features for site in sites]
    for done, (feature, site) in enumerate(places):
        yield (
            feature,
            site,
            patients(run, feature, site=site, pos=pos, step=step, controls=draws, seed=seed),
        )
        tell(done + 1, len(places))

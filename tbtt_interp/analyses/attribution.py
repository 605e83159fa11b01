"""What an answer is made of: the logit lens at every stream, and what each part writes towards it.

A logit difference is the right character's logit minus the best wrong one's.
"""

import json
from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tbtt_interp import figures
from tbtt_interp.analyses.characters import SPLITS, WHOLE, Characters, Group, in_double, means
from tbtt_interp.analyses.decomposition import (
    ALL,
    Component,
    attribute,
    places_of,
    pooled,
    units,
)
from tbtt_interp.analyses.findings import Finding, Result, Tell, nearest_null, silent
from tbtt_interp.analyses.lens import lens_findings, lens_table
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.runs import Run
from tbtt_interp.stats import Interval

TOP = 3  # neurons that are printed
STATS = ("effect", "low", "high", "share", "share_low", "share_high", "mismatched", "untrained",
         "logit_difference")  # fmt: skip


def readings(
    logits: Float[Tensor, "character d_vocab"], characters: Characters
) -> tuple[Float[Tensor, "character d_vocab"], Float[Tensor, "character d_vocab"]]:
    """The weights of logits in a logit difference, and in a mismatched one.

    In the mismatched one another example's character stands for the right one: the mean over all
    that are right at the same place of an answer, and not here; where all are the same, at any.
    """
    right = F.one_hot(characters.questions.target, logits.shape[1]).to(logits)
    wrong = F.one_hot(logits.masked_fill(right > 0, -torch.inf).argmax(-1), logits.shape[1])
    at = F.one_hot(characters.place).to(logits)
    there = (at.T @ right)[characters.place] * (1 - right)
    anywhere = right.sum(0) * (1 - right)
    other = torch.where(there.sum(-1, keepdim=True) > 0, there, anywhere)
    return right - wrong, other / other.sum(-1, keepdim=True) - wrong


def _part(subject: Subject, k: int, characters: Characters, seed: int) -> Arrays:
    """Of one model, what is pooled over models, and what is not.

    Returns:
        own, mismatched, untrained: `[component, role, example]`, summed over characters.
        units: `[group, stat, component]`, over the examples of this model.
        pooled_names, unit_names: their components, as JSON.
    """
    model = in_double(subject.models[k])
    logits = torch.cat([logits for _, logits, _ in characters.read(model, [])])
    own, mismatched = readings(logits, characters)
    found = {
        "own": attribute(model, characters, own),
        "mismatched": attribute(model, characters, mismatched),
    }
    found["untrained"] = (
        attribute(in_double(subject.untrained[k]), characters, own)
        if subject.untrained
        else {name: x * torch.nan for name, x in found["own"].items()}
    )

    def sums(of: Mapping[Component, Tensor]) -> np.ndarray:
        return characters.by_role(torch.stack(list(of.values())).numpy())

    arrays = {name: sums(pooled(parts, characters)) for name, parts in found.items()}
    of_units = {name: [sums(units(parts, characters))] for name, parts in found.items()}
    whole = [arrays["own"][-1:]]
    groups = characters.groups([k])
    return arrays | {
        "units": np.stack([_stats(of_units, whole, group, seed) for group in groups]),
        "pooled_names": np.array([json.dumps(c) for c in pooled(found["own"], characters)]),
        "unit_names": np.array([json.dumps(c) for c in units(found["own"], characters)]),
    }


def _stats(
    sums: Mapping[str, list[np.ndarray]], whole: list[np.ndarray], group: Group, seed: int
) -> Float[np.ndarray, "stat component"]:
    """STATS of each component; shares only where the logit difference is clear of 0."""
    own, difference = group.of(sums["own"]), group.of(whole)
    mean, low, _ = means(difference, group.count, seed=seed)[:, 0]
    is_clear = mean > 0 and not low <= 0
    share = means(own, difference[0], seed=seed) if is_clear else np.full((3, len(own)), np.nan)
    nulls = [
        means(group.of(sums[name]), group.count, resamples=1)[0]
        for name in ("mismatched", "untrained")
    ]
    return np.stack([
        *means(own, group.count, seed=seed), *share, *nulls, np.full(len(own), mean)
    ])  # fmt: skip


def attribution_table(
    subject: Subject,
    *,
    characters: Characters | None = None,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """What every part writes towards the answer, character by character.

    Layers' attention and MLP are pooled over models. Heads and neurons are not, since those of one
    number have nothing to do with each other in two models: their rows have a `seed`, and their
    intervals are over examples.

    Returns:
        a row a split, role (`answer` is all characters) and component, by `kind`, `layer`, `head`,
        `neuron`, `pos` (where a head reads, counted from the prompt's last) and in words as `part`:
        `effect`, nats of logit a character, `low`, `high`; `share` of the logit difference,
        `share_low`, `share_high`, nan unless that is clear of 0; the effects `mismatched` (on
        another example's character in the right one's place) and `untrained`; `logit_difference`,
        the sum of all parts, and `characters` of each model.
    """
    characters = characters or Characters.of(subject)
    parts = parts or Parts()
    found: list[Arrays] = []
    for k, name in enumerate(subject.seeds):
        compute = partial(_part, subject, k, characters, seed)
        found.append(parts.get(f"attribution-{name}", compute))
        tell(k + 1, len(subject.models))
    sums = {name: [part[name] for part in found] for name in ("own", "mismatched", "untrained")}
    whole = [part["own"][-1:] for part in found]
    places = subject.place_names(*places_of(characters))
    rows = [
        _rows(_stats(sums, whole, group, seed), found[0]["pooled_names"], group, places)
        for group in characters.groups()
    ]
    for k, (name, part) in enumerate(zip(subject.seeds, found, strict=True)):
        for stats, group in zip(part["units"], characters.groups([k]), strict=True):
            rows.append(_rows(stats, part["unit_names"], group, places).assign(seed=name))
    table = pd.concat(rows, ignore_index=True)
    return table.astype(dict.fromkeys(("layer", "head", "neuron", "pos", "seed"), "Int64"))


def _rows(
    stats: Float[np.ndarray, "stat component"],
    names: np.ndarray,
    group: Group,
    places: Mapping[int, str],
) -> pd.DataFrame:
    components = [Component(*json.loads(name)) for name in names]
    return pd.DataFrame(components).assign(
        part=[component.name(places) for component in components],
        seed=None, split=group.split, character=group.role, **dict(zip(STATS, stats, strict=True)),
        characters=group.characters,
    )  # fmt: skip


def attribution_findings(table: pd.DataFrame) -> list[Finding]:
    """The share of whole answers' logit difference that each pooled part writes.

    Of the places that attention reads from only the one that matters most in seen answers.
    """
    found = []
    for row in _main(table).dropna(subset="share").to_dict("records"):
        difference = row["logit_difference"]
        null, null_is = nearest_null(
            row["share"],
            {
                "another example's character": row["mismatched"] / difference,
                "the untrained model": row["untrained"] / difference,
            },
        )
        found.append(
            Finding(
                what=f"{row['part']} writes",
                effect=Interval(mean=row["share"], low=row["share_low"], high=row["share_high"]),
                null=null, null_is=null_is, of=f"the logit difference, {row['split']}",
            )
        )  # fmt: skip
    return found


def _main(table: pd.DataFrame) -> pd.DataFrame:
    """Of whole answers the rows of pooled parts, and of each layer's sources the greatest."""
    rows = table[(table["character"] == WHOLE) & table["seed"].isna()]
    rows = rows[(rows["effect"] != 0) & (rows["kind"] != ALL)]  # biases that are not there
    from_places = rows[rows["pos"].notna() & (rows["split"] == rows["split"].iloc[0])]
    greatest = from_places.assign(size=from_places["effect"].abs()).sort_values("size")
    kept = greatest.groupby("layer")["part"].last()
    return rows[rows["pos"].isna() | rows["part"].isin(kept)]


def _shown(lens: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Whole answers: a row a stream, pooled part and top neuron, seen and held out beside nulls."""
    streams = lens[(lens["character"] == WHOLE) & (lens["metric"] == "right")]
    streams = streams.assign(part=streams["stream"], measure="lens, share right")
    units = table[(table["character"] == WHOLE) & (table["kind"] == "neuron")]
    units = units.assign(part=units["part"] + " of seed " + units["seed"].astype(str))
    seen = units[units["split"] == units["split"].iloc[0]] if len(units) else units
    order = seen["effect"].abs().sort_values(ascending=False).index[:TOP]
    whole = table[(table["character"] == WHOLE) & (table["kind"] == ALL)]
    written = pd.concat([_main(table), units[units["part"].isin(seen.loc[order, "part"])], whole])
    written = written.assign(measure="writes, nats", value=written["effect"])
    both = pd.concat([streams, written])
    both = both.assign(
        value=[
            Interval(mean=mean, low=low, high=high).format()
            for mean, low, high in both[["value", "low", "high"]].itertuples(index=False)
        ],
        mismatched=both["mismatched"].map("{:.2f}".format),
        untrained=both["untrained"].map("{:.2f}".format),
    )
    columns = ["value", "mismatched", "untrained"]
    wide = pd.concat(
        [
            both[both["split"] == split].set_index(["measure", "part"])[columns]
            .rename(columns={"value": split}).add_suffix("" if split == SPLITS[0] else " ")
            for split in dict.fromkeys(both["split"])
        ], axis=1,
    )  # fmt: skip
    return wide.reset_index()


def analyse_attribution(
    subject: Subject | Run,
    *,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Result:
    """`lens_table` and `attribution_table`, drawn and said; their arguments."""
    subject = Subject.of(subject)
    characters, count = Characters.of(subject), len(subject.models)
    lens = lens_table(
        subject, characters=characters, parts=parts, seed=seed,
        tell=lambda done, _: tell(done, 2 * count),
    )  # fmt: skip
    table = attribution_table(
        subject, characters=characters, parts=parts, seed=seed,
        tell=lambda done, _: tell(count + done, 2 * count),
    )  # fmt: skip
    return Result(
        name="attribution",
        tables={"attribution": table, "lens": lens},
        shown=_shown(lens, table),
        figures={
            "lens": partial(figures.lens_curves, lens),
            "attribution": partial(figures.attribution_bars, table),
        },
        findings=[*lens_findings(lens), *attribution_findings(table)],
        notes=[
            "Lens: how often the right character is first when a stream is read as the last one "
            "is; mismatched: read from another example's stream at the same place of its answer.",
            "Writes: nats of the right character's logit minus the best wrong one's, a "
            "character; all parts sum to it. Mismatched: towards another example's character in "
            "the right one's place.",
            f"Neurons are of one model each; the {TOP} that write most are shown.",
        ],
    )

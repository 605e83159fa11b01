"""What a run's models answer, group by group, beside what baselines answer."""

import math
from collections.abc import Mapping

import pandas as pd

from tbtt_interp.baselines import baseline_counts
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Evaluation, answer_margins
from tbtt_interp.prompts import PromptBatch
from tbtt_interp.runs import Run
from tbtt_interp.stats import Interval, Rate, mean_over_models
from tbtt_interp.tasks.arithmetic import operand_grid


def group_words(group: str) -> str:
    """A group's name as tables have it.

    >>> group_words("seen_addition"), group_words("seen_mine")
    ('seen +', 'seen mine')
    """
    short = {"seen_addition": "seen +", "seen_subtraction": "seen −", "held_out": "held-out"}
    return short.get(group, group.replace("_", " "))


def share_sentence(shares: Mapping[str, Interval]) -> str:
    """The mean share right over models by group, with its 95 % interval over models."""
    words = [f"{group_words(group)} {share.format()}" for group, share in shares.items()]
    return f"Mean share right over models [95 %]: {', '.join(words)}."


def run_scores(run: Run, evaluation: Evaluation) -> pd.DataFrame:
    """A row a group and answerer: each seed, all seeds, and the two baselines.

    Where seeds hold out different pairs, a baseline answers each of those splits once.

    Columns: group; by (a seed, "all", or a baseline's name); right; of; for "all" the mean share
    over seeds and its 95 % interval (share, low, high); for a seed the group's smallest margin.
    """
    counts, table = evaluation.counts(), evaluation.table
    rows = []
    for group in counts[0]:
        name = group.removeprefix("seen_")
        inside = (
            table["held_out"]
            if group == "held_out"
            else ~table["held_out"] & (table["group"] == name)
        )
        margins = table[inside].groupby("seed")["margin"].min()
        rates = {seed: found[group] for seed, found in zip(run.seeds, counts, strict=True)}
        for seed, rate in rates.items():
            rows.append(
                {"group": group, "by": str(seed), "right": rate.hits, "of": rate.total,
                 "margin": float(margins.get(seed, math.nan))}
            )  # fmt: skip
        interval = mean_over_models([rate.value for rate in rates.values() if rate.total])
        together = sum(rates.values(), Rate(hits=0, total=0))
        rows.append(
            {"group": group, "by": "all", "right": together.hits, "of": together.total,
             "share": interval.mean, "low": interval.low, "high": interval.high}
        )  # fmt: skip
    distinct = {id(task): task for task in run.tasks}.values()
    baselines = pd.concat([baseline_counts(task) for task in distinct])
    baselines = baselines.groupby(["baseline", "group"], sort=False, as_index=False).sum()
    baselines = baselines.rename(columns={"baseline": "by"})
    return pd.concat([pd.DataFrame(rows), baselines], ignore_index=True)


def score_rows(run: Run, table: pd.DataFrame) -> tuple[list[str], list[list[str]], list[str]]:
    """Scores as headers, rows and notes: a row an answerer, a column a group."""
    groups = list(dict.fromkeys(table["group"]))
    words = [group_words(group) for group in groups]
    headers = ["answered by", *words, *(f"margin,\n{word}" for word in words)]
    rows = []
    for by in dict.fromkeys(table["by"]):
        part = table[table["by"] == by].set_index("group").to_dict("index")
        seed = by in map(str, run.seeds)
        cells = [f"seed {by}" if seed else "all seeds" if by == "all" else by]
        cells += [f"{part[g]['right']}/{part[g]['of']}" if g in part else "" for g in groups]
        cells += [f"{part[g]['margin']:+.2f}".replace("+nan", "") if seed else "" for g in groups]
        rows.append(cells)
    together = table[table["by"] == "all"].set_index("group").to_dict("index")
    shares = {
        str(g): Interval(mean=row["share"], low=row["low"], high=row["high"])
        for g, row in together.items()
    }
    notes = [
        share_sentence(shares),
        "Margin: logits between the right character and the best wrong one, at its smallest.",
    ]
    if run.is_complete and run.config.recipe is not None:
        notes += late_sentences(run)
    return headers, rows, notes


def late_sentences(run: Run) -> list[str]:
    """Of a finished run's late evaluations, at how many all seen and all held-out were right."""
    late = run.summary()["seeds"]
    sentences = []
    for side in (side for side in ("seen", "held_out") if f"late_{side}" in late[0]):
        counts = ", ".join("{}/{}".format(*row[f"late_{side}"]) for row in late)
        sentences.append(
            f"Evaluations in the last sixth of training with all {side.replace('_', '-')} "
            f"right, by seed: {counts}."
        )
    return sentences


def operand_scores(
    run: Run, low: int, high: int, *, step: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every equation over a range of operands: the answers, and their counts over all seeds.

    An equation whose prompt and answer do not fit the models' window is counted as not fitting and
    as not right.

    Returns:
        a row an equation and seed (a, operator, b, group, seed, fits, margin, right), and a row a
        group and operator with right, "does not fit" and of.
    Raises:
        TbttError: if the run's task has no equations.
    """
    if not {"+", "-", "=", "<"} <= set(run.config.vocabulary):
        raise TbttError(
            f"the task of {run.folder} has no equations: --operands is for arithmetic and joint"
        )
    parts = []
    stacked = run.parameters(step)
    for place, (seed, task) in enumerate(zip(run.seeds, run.tasks, strict=True)):
        grid = operand_grid(low, high, task.examples)
        questions = PromptBatch.of(grid, task.vocabulary, run.shape.n_ctx)
        one = {name: value[place : place + 1] for name, value in stacked.items()}
        margins = answer_margins(one, run.shape, questions)[0].numpy()
        part = pd.DataFrame([dict(e.labels) | {"group": e.group} for e in grid])
        part = part[["a", "operator", "b", "value", "group"]]
        fits = questions.fits
        parts.append(part.assign(seed=seed, fits=fits, margin=margins, right=fits & (margins > 0)))
    answers = pd.concat(parts, ignore_index=True)
    counts = answers.groupby(["group", "operator"], sort=False).agg(
        right=("right", "sum"), missing=("fits", lambda fits: (~fits).sum()), of=("right", "size")
    )
    return answers, counts.reset_index().rename(columns={"missing": "does not fit"})

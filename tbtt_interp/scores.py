"""What a run's models answer, group by group, beside what baselines answer."""

import math

import pandas as pd

from tbtt_interp.baselines import baseline_counts
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Evaluation, Questions, answer_margins, evaluate_models
from tbtt_interp.runs import Run
from tbtt_interp.stats import Rate, interval_over_seeds
from tbtt_interp.tasks.arithmetic import operand_grid


def evaluate_run(run: Run, step: int | None = None) -> Evaluation:
    """Every model of a run on every example of its task.

    Args:
        step: of a kept checkpoint; None is the last.
    """
    return evaluate_models(run.parameters(step), run.shape, run.tasks, run.seeds)


def answers_of(run: Run, step: int | None = None) -> pd.DataFrame:
    """A row an example and seed: prompt, answer, group, held_out, margin, right, fits."""
    return evaluate_run(run, step).table


def run_scores(run: Run, step: int | None = None) -> pd.DataFrame:
    """A row a group and answerer: each seed, all seeds, and the two baselines.

    Columns: group; by (a seed, "all", or a baseline's name); right; of; for "all" the mean share
    over seeds and its 95 % interval (share, low, high); for a seed the group's smallest margin.
    """
    evaluation = evaluate_run(run, step)
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
                 "margin": float(margins[seed])}
            )  # fmt: skip
        interval = interval_over_seeds([rate.value for rate in rates.values()])
        together = sum(rates.values(), Rate(hits=0, total=0))
        rows.append(
            {"group": group, "by": "all", "right": together.hits, "of": together.total,
             "share": interval.mean, "low": interval.low, "high": interval.high}
        )  # fmt: skip
    baselines = baseline_counts(run.tasks[0]).rename(columns={"baseline": "by"})
    return pd.concat([pd.DataFrame(rows), baselines], ignore_index=True)


def score_rows(run: Run, table: pd.DataFrame) -> tuple[list[str], list[list[str]], list[str]]:
    """Scores as headers, rows and notes: a row a group, a column an answerer."""
    by = list(dict.fromkeys(table["by"]))
    seeds = [str(seed) for seed in run.seeds]
    names = [f"seed {name}" if name in seeds else name for name in by]
    headers = ["right of all", *names]
    headers.insert(headers.index("all") + 1, "share [95 %]")
    rows = []
    for group in dict.fromkeys(table["group"]):
        part = table[table["group"] == group].set_index("by")
        cells = [group.replace("_", " ")]
        for name in by:
            here = name in part.index
            cells.append(f"{part.loc[name, 'right']}/{part.loc[name, 'of']}" if here else "")
            if name == "all":
                share, low, high = (float(part.loc[name, k]) for k in ("share", "low", "high"))
                bounds = "" if low == high or math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
                cells.append(f"{share:.2f}{bounds}")
        rows.append(cells)
    margins = table.dropna(subset=["margin"])
    for group in dict.fromkeys(margins["group"]):
        part = margins[margins["group"] == group].set_index("by")["margin"]
        cells = [f"{group.replace('_', ' ')}, margin"]
        cells += [f"{part[name]:+.2f}" if name in part.index else "" for name in by]
        cells.insert(headers.index("share [95 %]"), "")
        rows.append(cells)
    notes = ["Margin: logits between the right character and the best wrong one, at its smallest."]
    if run.is_complete and run.config.recipe is not None:
        late = run.summary()["seeds"]
        for side in ("seen", "held_out"):
            words = ", ".join("{}/{}".format(*row[f"late_{side}"]) for row in late)
            notes.append(
                f"Evaluations in the last sixth of training with all {side.replace('_', '-')} "
                f"right, by seed: {words}."
            )
    return headers, rows, notes


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
        questions = Questions.of(grid, task.vocabulary, run.shape.n_ctx)
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

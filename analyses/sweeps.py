"""The tables of the paper's sweeps, kept in `tables`, and functions that their studies share."""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from measures import fits_table, measures_over_training, measures_table

from tbtt_interp.baselines import baseline_answers
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.evaluate import evaluate_run
from tbtt_interp.model_tables import ACCURACIES, models_table, over_training_table, run_settings
from tbtt_interp.results import FEWEST_MODELS, Claim, Result
from tbtt_interp.runs import Run, find_runs, load_run
from tbtt_interp.shares import Counts, share_over_models
from tbtt_interp.stats import ANY, SHARE, Bounds, mean_over_models
from tbtt_interp.study import save_figure, study_arguments
from tbtt_interp.tables import check_whole
from tbtt_interp.tasks import load_task
from tbtt_interp.tasks.arithmetic import Pair, pairs_text

SHIPPED = Path(__file__).parent / "tables"
Reads = Sequence[tuple[str, str]]  # the tables that a study takes, each by sweep and one of TABLES
EQUATION = ["seed", "held_out", "prompt", "operator", "a", "b", "answer", "margin", "right",
            "nearest", "additive"]  # fmt: skip


def held_out_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per model and held-out equation, at the model's last step.

    Returns:
        `run` to `held_out` as in `models_table`; `prompt`, `operator`, `a`, `b`, `answer`;
        `margin`, in logits; `right`; `nearest` and `additive`: whether that baseline, fitted on the
        lines that this model has seen, is right. No row where a run holds out no equations.
    Raises:
        TbttError: if there is no run.
    """
    runs, tables = list(runs), []
    for run in runs:
        if not (any(run.config.held_out) and "operator" in run.tasks[0].prompts()):
            continue
        answers = evaluate_run(run).table.query("held_out")
        pairs = dict(zip(run.seeds, map(pairs_text, run.config.held_out), strict=True))
        answers = answers.assign(held_out=answers["seed"].map(pairs))
        asked = pd.concat([_equations(pairs) for pairs in dict.fromkeys(run.config.held_out)])
        found = answers.merge(asked, on=["held_out", "prompt"]).assign(**run_settings(run))
        tables.append(found[[*run_settings(run), *EQUATION]])
    if not runs:
        raise TbttError("there is no finished run to tabulate: tbtt sweep trains some")
    if not tables:
        return pd.DataFrame(columns=[*run_settings(runs[0]), *EQUATION])
    return pd.concat(tables, ignore_index=True)


@cache
def _equations(held_out: tuple[Pair, ...]) -> pd.DataFrame:
    """The equations of held-out pairs, and whether each baseline, fitted on the rest, is right."""
    task = load_task("arithmetic", held_out=held_out)
    right = baseline_answers(task).pivot(index="prompt", columns="baseline", values="right")
    right = right.rename(columns={"nearest seen equation": "nearest", "additive model": "additive"})
    equations = task.prompts(held_out=True)[["prompt", "operator", "a", "b"]]
    return equations.merge(right, on="prompt").assign(held_out=pairs_text(held_out))


def finished_runs(folder: Path) -> list[Run]:
    """The complete runs below a folder, by name.

    A run that cannot be read is named on standard error, and left out.

    Raises:
        TbttError: if there is none.
    """
    runs = []
    for path in find_runs(folder):
        try:
            if (run := load_run(path)).is_complete:
                check_whole(run)
                runs.append(run)
        except TbttError as error:
            print(f"left out, {path}: {error}", file=sys.stderr)
    if not runs:
        raise TbttError(f"there is no finished run below {folder}: train some with `tbtt sweep`")
    return runs


TABLES: dict[str, tuple[str, Callable[[Iterable[Run]], pd.DataFrame]]] = {  # ending of files, maker
    "models": ("", models_table),
    "over training": ("-over-training", over_training_table),
    "held out": ("-held-out", held_out_table),
    "fits": ("-fits", fits_table),
    "measures": ("-measures", measures_table),
    "digits": ("-digits", measures_over_training),
}
OF_A_LADDER = ("models", "over training", "held out")
OF_CAUSES = ("fits", "measures")


def sweep_table(name: str, which: str, folder: Path | None = None) -> pd.DataFrame:
    """One of a sweep's tables.

    Args:
        name: of the sweep.
        which: one of TABLES.
        folder: of runs to tabulate; None reads the shipped table.
    Raises:
        TbttError: if the table is unknown or does not ship.
    """
    if which not in TABLES:
        raise unknown("table", which, TABLES)
    ending, tabulate = TABLES[which]
    if folder is not None:
        return tabulate(finished_runs(folder))
    path = SHIPPED / f"{name}{ending}.csv.gz"
    if not path.is_file():
        raise TbttError(
            f"sweep {name} has no tables in {SHIPPED}: train it by tbtt sweep {name}, and give its "
            "folder"
        )
    return pd.read_csv(path)


def study_result(study: Callable[..., Result], reads: Reads, folder: Path | None = None) -> Result:
    """A study's result on the tables that it reads.

    Args:
        folder: of the first table's runs. Other sweeps' runs are looked for beside it; those that
            are not there are read from the shipped tables, as all are without a folder.
    """

    def place(sweep: str) -> Path | None:
        if folder is None or sweep == reads[0][0]:
            return folder
        return next(folder.parent.glob(sweep), None)

    return study(*(sweep_table(sweep, which, place(sweep)) for sweep, which in reads))


def answer_as_script(study: Callable[..., Result], reads: Reads, figure: str) -> None:
    """Prints a study's result on the folder of runs that the script is given; draws a figure."""
    folders, files = study_arguments()
    result = study_result(study, reads, folders[0] if folders else None)
    save_figure(result.figures[figure](), files, result.question, f"the sweep {reads[0][0]}")
    print(result)


def write_tables(name: str, folder: Path, to: Path, tables: Iterable[str] = OF_A_LADDER) -> None:
    """Writes a sweep's tables as `sweep_table` reads them from SHIPPED."""
    to.mkdir(exist_ok=True)
    for which in tables:
        table = sweep_table(name, which, folder)
        table.drop(columns=ACCURACIES, errors="ignore").to_csv(
            to / f"{name}{TABLES[which][0]}.csv.gz", index=False, float_format="%.5g",
            compression={"method": "gzip", "mtime": 0},
        )  # fmt: skip


def select(models: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows that have these values."""
    return models[(models[list(where)] == pd.Series(where)).all(axis=1)]


def by_seed(models: pd.DataFrame, value: str = "held_out_accuracy", **where: object) -> pd.Series:
    """One value per model, indexed by seed, of the rows that `select` gives.

    The difference of two such series is paired by seed: a seed that one of them lacks is nan.
    """
    rows = select(models, **where)
    if value not in rows:
        return pd.Series(dtype=float)
    return rows.set_index("seed")[value].astype(float).dropna()


def check_one_each(models: pd.DataFrame, cell: Sequence[str]) -> None:
    """Checks that no cell has two models with the same seed.

    Raises:
        TbttError: if one has.
    """
    double = models[models.duplicated([*cell, "seed"], keep=False)]
    if not double.empty:
        names = " and ".join(sorted(set(double["run"]))[:2])
        raise TbttError(
            f"seed {double['seed'].iloc[0]} occurs twice in one cell ({names}): "
            "give a folder with the runs of one sweep alone"
        )


def first_evaluations(over: pd.DataFrame, reached: pd.Series) -> pd.DataFrame:
    """Each model's first evaluation with a property; models that never have it are left out."""
    by_step = over[reached].sort_values("step")
    return by_step.groupby(["run", "seed"], sort=False).head(1).sort_index()


def claim_over_models(values: pd.Series, bounds: Bounds = ANY, **claim: Any) -> Claim:
    """The claim whose effect is the mean of these values, one per model or pair of models.

    Args:
        claim: `Claim`'s other attributes.
    """
    return Claim(effect=mean_over_models(values, bounds=bounds), **claim)


def counts_text(models: pd.DataFrame, group: str) -> str:
    """Right answers of all models together; empty where there are no answers."""
    if f"{group}_of" not in models or not models[f"{group}_of"].sum() > 0:
        return ""
    return f"{models[f'{group}_right'].sum():.0f}/{models[f'{group}_of'].sum():.0f}"


def counts_by_model(models: pd.DataFrame, group: str = "held_out", **where: object) -> Counts:
    """Each model's right answers and those it was asked, of the rows that `select` gives.

    Args:
        group: as in the columns `held_out_right` and `held_out_of`; or a column of 0 and 1, whose
            counts are of one each.
    """
    rows = select(models, **where)
    if f"{group}_right" in rows:
        pairs = rows[[f"{group}_right", f"{group}_of"]].dropna().astype(int)
        return [(right, of) for right, of in pairs.itertuples(index=False) if of]
    return [(int(x), 1) for x in rows[group].dropna()] if group in rows else []


def mean_text(values: pd.Series, bounds: Bounds = ANY, *, with_n: bool = False) -> str:
    """A mean over models with its interval, and the number of models; empty where there is none."""
    if not values.notna().any():
        return ""
    return mean_over_models(values, bounds=bounds).format() + (
        f" ({values.count()})" if with_n else ""
    )


def share_text(counts: Counts) -> str:
    """A share over models with its interval; empty where there is none."""
    return share_over_models(counts).format() if counts else ""


def answers_text(models: pd.DataFrame) -> dict[str, str]:
    """What models answer, as cells of a printed table: counts, mean accuracy and order known."""
    return {
        "seen": counts_text(models, "seen"), "held-out": counts_text(models, "held_out"),
        "accuracy [95 %]": share_text(counts_by_model(models)),
        "order known": mean_text(models["order_known"], SHARE),
    }  # fmt: skip


def interval_note(claims: Sequence[Claim]) -> str:
    """A note on these claims' intervals, and on how few models they have."""
    least = min((claim.effect.n for claim in claims if claim.effect.n), default=0)
    return (
        "Intervals of answers, and of differences of answers, are the beta-binomial's, of "
        "independent groups of models; all others are Student's over models. With fewer than "
        f"{FEWEST_MODELS} models there is no verdict. The smallest claim here has {least} models."
    )

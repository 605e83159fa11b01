"""What is measured of each model beside its share of held-out answers, at a checkpoint or many."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.analyses.representations import EMBEDDINGS, number_line, operand_representations
from tbtt_interp.evaluate import complete, evaluate_run
from tbtt_interp.model_tables import over_training_table, run_settings
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run
from tbtt_interp.train.effects import FITTED
from tbtt_interp.train.recipe import recorded_recipe
from tbtt_interp.train.step import learning_rate_at

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from transformer_lens import HookedTransformer

    from tbtt_interp.model import Parameters

LINES = {
    "line_embedding": "embedding", "line_before": "before the MLP", "line_after": "after the MLP",
}  # fmt: skip
PARTS = {"norm": "", "norm_embed": "embed.", "norm_attention": ".attn.", "norm_mlp": ".mlp."}
CLIP = 10.0  # of margins, in logits: beyond it a margin says no more
SETTINGS = ("run", "size", "framing", "learning_rate")
READS = ("fit", "later", "end")


def number_lines(model: "HookedTransformer", prompts: PromptSet) -> dict[str, float]:
    """The share of the ten digits' variance that is linear in the digit, at LINES; 1/9 by chance.

    Means over operands and operators. Before and after the MLP it is computed on each operand's
    mean activation over the other operand, at the prompt's last position.
    """
    block = f"blocks.{model.cfg.n_layers - 1}"
    sites = (EMBEDDINGS, f"{block}.hook_resid_mid", f"{block}.hook_resid_post")
    found = operand_representations(model, prompts)
    return {
        name: float(
            np.mean([float(number_line(r.vectors, r.values)) for r in found if r.site == site])
        )
        for name, site in zip(LINES, sites, strict=True)
    }


def norms(parameters: "Parameters") -> "dict[str, Float[np.ndarray, ' model']]":
    """Each model's norm of all weights, and of those of the embedding, attention and the MLP."""
    squares = {name: x.flatten(1).double().square().sum(1) for name, x in parameters.items()}
    return {
        norm: np.sqrt(sum(x.numpy() for name, x in squares.items() if word in name))
        for norm, word in PARTS.items()
    }


def error_sizes(run: Run, step: int | None = None) -> pd.DataFrame:
    """What each model says to the held-out equations that it answers wrongly.

    Returns:
        One row per model and wrong answer: `seed`, `prompt`, `answer`, `said`, and `error`, said
        minus right; nan where no number was said.
    """
    table = evaluate_run(run, step).table
    wrong = table[table["held_out"] & ~table["right"]]
    task, rows = run.tasks[0], []
    stacked, places = run.parameters(step), {seed: k for k, seed in enumerate(run.seeds)}
    for prompt, models in wrong.groupby("prompt", sort=False):
        said = complete(stacked, run.shape, str(prompt), task.vocabulary, task.terminators, limit=8)
        for row in models.to_dict("records"):
            text = said[places[row["seed"]]].text
            numbers = [_number(x, task.terminators) for x in (text, row["answer"])]
            rows.append({"seed": row["seed"], "prompt": prompt, "answer": row["answer"],
                         "said": text, "error": numbers[0] - numbers[1]})  # fmt: skip
    return pd.DataFrame(rows, columns=["seed", "prompt", "answer", "said", "error"])


def _number(text: str, terminators: frozenset[str]) -> float:
    digits = text.rstrip("".join(terminators))
    return float(digits) if digits.removeprefix("-").isdecimal() else np.nan


def measures(run: Run, step: int, seeds: Iterable[int] | None = None) -> pd.DataFrame:
    """One row per model at a kept checkpoint; of the models of these seeds, or of all.

    Returns:
        SETTINGS, `seed`, `step`; `share` of the held-out equations right, and their mean
        `margin` in logits (each clipped at ±10); LINES; and the norms of PARTS.
    """
    sound, sizes = run.sound_seeds(step), norms(run.parameters(step))
    table = evaluate_run(run, step).table.query("held_out")
    table = table.assign(margin=table["margin"].clip(-CLIP, CLIP))
    means = table.groupby("seed").agg(share=("right", "mean"), margin=("margin", "mean"))
    rows = [
        {"seed": seed, "step": step}
        | number_lines(run.model(seed, step), PromptSet.of_seed(run, seed))
        | {name: float(values[run.seed_index(seed)]) for name, values in sizes.items()}
        for seed in (sound if seeds is None else seeds) if seed in sound
    ]  # fmt: skip
    own = {name: run_settings(run)[name] for name in SETTINGS}
    return pd.DataFrame(rows).assign(**own).merge(means.reset_index(), on="seed")


def measures_over_training(runs: Iterable[Run]) -> pd.DataFrame:
    """`measures` at every kept checkpoint, with `held_out` and `loss` of the evaluation there."""
    runs = list(runs)
    tables = [measures(run, step) for run in runs for step in run.checkpoints]
    over = over_training_table(runs)[["run", "seed", "held_out", "step", "loss"]]
    return pd.concat(tables, ignore_index=True).merge(over, on=["run", "seed", "step"])


def next_kept(run: Run, steps: pd.Series) -> "Int[np.ndarray, ' step']":
    """For each step, the first kept checkpoint that is not before it."""
    kept = np.array(sorted(run.checkpoints))
    return kept[np.searchsorted(kept, steps)]


def fits_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per model: held-out answers at its fit, later at equal summed rates, and at the end.

    Returns:
        `models_table`'s settings of the run, `seed` and `held_out`; `fit_step`, the first
        evaluation with 99 % of the seen right, nan where there is none; `later_step`, the first
        evaluation by which the learning rate, summed since the fit, is the smallest such sum at
        the end of any model of the same task, framing, rate and steps, whose rate was not lowered
        at the fit;
        `fit_right`, `later_right`, `best_right` and `end_right` of `held_out_of`; `end_accuracy`,
        `end_seen_accuracy`, `loss` and `margin_held_out`, at the end.
    """
    runs = list(runs)
    over, model = over_training_table(runs), ["run", "seed", "held_out"]
    over = over.assign(summed=np.concatenate([_summed_rates(run) for run in runs] or [[]]))
    end = over.loc[over.groupby(model, sort=False)["step"].idxmax()].set_index(model)
    fits = _first(over[over["seen_accuracy"] >= FITTED], model)
    over = over.join(fits["summed"].rename("at_fit"), on=model)
    since = over["summed"] - over["at_fit"]
    alike = [over[name] for name in ("task", "framing", "learning_rate", "steps")]
    smallest = since.where(over["step"] == over["steps"]).groupby(alike).transform("min")
    later = _first(over[since >= smallest * (1 - 1e-9)], model)
    for name, rows in (("fit", fits), ("later", later)):
        end[[f"{name}_step", f"{name}_right"]] = rows[["step", "held_out_right"]]
    end["best_right"] = over.groupby(model)["held_out_right"].max()
    ends = {"held_out_right": "right", "held_out_accuracy": "accuracy",
            "seen_accuracy": "seen_accuracy"}  # fmt: skip
    end = end.rename(columns={name: f"end_{short}" for name, short in ends.items()})
    settings = [name for name in over.loc[:, "task":"steps"] if name != "run"]
    read = ["fit_step", "later_step", "fit_right", "later_right", "best_right", "end_right",
            "held_out_of", "end_accuracy", "end_seen_accuracy", "loss",
            "margin_held_out"]  # fmt: skip
    return end.reset_index()[["run", *settings, "seed", "held_out", *read]]


def _first(rows: pd.DataFrame, model: list[str]) -> pd.DataFrame:
    """Each model's first row, by model."""
    return rows.groupby(model, sort=False)[["step", "held_out_right", "summed"]].first()


def _summed_rates(run: Run) -> "Float[np.ndarray, ' row']":
    """The learning rate summed up to each row of `run.metrics()`; nan if lowered at the fit."""
    recipe = recorded_recipe(run.config.recipe or {})
    rates = [learning_rate_at(step, recipe.training) for step in range(run.config.steps)]
    summed = np.concatenate([[0.0], np.cumsum(rates)])[run.metrics()["step"]]
    return summed if recipe.changes.rate == "scheduled" else np.full_like(summed, np.nan)


def measures_table(runs: Iterable[Run]) -> pd.DataFrame:
    """`measures` of each model at its fit, later and at the end; see `fits_table`.

    Where no checkpoint of that step is kept, at the next one that is.

    Returns:
        `read`, one of READS, and `measures`' columns; and at the end `wrong`, the number of wrong
        held-out answers, `off_by_one`, how many of them, `error`, the mean absolute error of those
        that are numbers, and `order_known` (nan unless the framing is file).
    """
    runs, tables = list(runs), []
    fits = fits_table(runs)
    known = over_training_table(runs)[["run", "seed", "step", "order_known"]]
    for run in runs:
        own = fits[fits["run"] == run.folder.name].assign(end_step=run.config.steps)
        wrong = error_sizes(run).assign(size=lambda x: x["error"].abs())
        answers = wrong.groupby("seed").agg(
            wrong=("prompt", "size"), off_by_one=("size", lambda x: int((x == 1).sum())),
            error=("size", "mean"),
        )  # fmt: skip
        for read in READS:
            steps = own.set_index("seed")[f"{read}_step"].dropna()
            kept = next_kept(run, steps)
            for step in dict.fromkeys(kept.tolist()):
                found = measures(run, step, steps.index[kept == step]).assign(read=read)
                if read == "end":
                    found = found.merge(answers, on="seed", how="left")
                    found = found.fillna({"wrong": 0, "off_by_one": 0})
                tables.append(found)
    table = pd.concat(tables, ignore_index=True).merge(known, on=["run", "seed", "step"])
    return table.assign(order_known=table["order_known"].where(table["read"] == "end"))

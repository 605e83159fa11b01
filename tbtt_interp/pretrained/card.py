"""Model cards: the README.md of a trained run's folder, with metadata for model hubs as YAML."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2

from tbtt_interp import tables
from tbtt_interp.baselines import baseline_counts
from tbtt_interp.errors import TbttError
from tbtt_interp.metrics import group_label
from tbtt_interp.model import count_parameters
from tbtt_interp.runs import Run

SHORT = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- mechanistic-interpretability
- character-level
---

# {name}

Character-level transformers of the task {task}, each a GPT2LMHeadModel with a tokenizer. The window
is {n_ctx} characters. These models were imported or are still in training, so nothing is known of
their answers.
"""


def trained_recipe(run: Run) -> dict[str, Any]:
    """The recipe of a run; raises a TbttError if it is unfinished, damaged or imported."""
    tables.check_whole(run)
    if run.config.recipe is None:
        raise TbttError(f"{run.folder} is an imported model: a card has nothing on its training")
    return dict(run.config.recipe)


def model_card(run: Run, name: str, *, gpt2: Sequence[str] = ()) -> str:
    """The card of a finished run that was trained here.

    Args:
        gpt2: the folders of its models for transformers; none are those of a run.
    """
    recipe, table = trained_recipe(run), tables.training_table(run)
    headers, rows = tables.training_rows(table if len(run.seeds) > 1 else table[:1])
    sentences = [tables.accuracy_sentence(tables.accuracy_intervals(table[:-1])),
                 *tables.late_sentences(run)]  # fmt: skip
    if same_split := len(set(run.config.held_out)) == 1:
        for baseline, counts in baseline_counts(run.task).groupby("baseline", sort=False):
            words = [f"{group_label(str(row.group))} {row.right}/{row.of}"
                     for row in counts.itertuples()]  # fmt: skip
            sentences.append(f"Without a transformer, {baseline}: {', '.join(words)}.")
    environment = jinja2.Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    text = (files("tbtt_interp.pretrained") / "card.md.jinja").read_text("utf-8")
    return environment.from_string(text).render(
        name=name, run=run, gpt2=gpt2, floors=run.summary()["seeds"][0].get("floors"),
        recipe=recipe, task=run.tasks[0], same_split=same_split, rows=rows,
        parameters=count_parameters(run.shape),
        headers=[header.replace("\n", " ") for header in headers],
        sentences=[*sentences, *tables.TRAINING_NOTES],
    )  # fmt: skip


def gpt2_card(run: Run, name: str, folders: Sequence[str]) -> str:
    """The card of a run's models for transformers; a short one where training left no record."""
    if run.is_complete and run.config.recipe is not None:
        return model_card(run, name, gpt2=folders)
    return SHORT.format(name=name, task=run.config.task, n_ctx=run.shape.n_ctx)

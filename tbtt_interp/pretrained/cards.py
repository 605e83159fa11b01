"""The card of a run: what its models are, how they were trained, what they answer."""

from importlib.resources import files

import jinja2

from tbtt_interp.baselines import baseline_counts
from tbtt_interp.model import count_parameters
from tbtt_interp.runs import Run
from tbtt_interp.tables import (
    TRAINING_NOTES,
    accuracy_intervals,
    accuracy_sentence,
    group_label,
    late_sentences,
    training_rows,
    training_table,
)
from tbtt_interp.tasks import Task


def model_card(run: Run, name: str) -> str:
    """A README.md for a trained run's folder, all of it computed from the run.

    It begins with the metadata that model hubs read, as YAML: licence, library and tags.

    Args:
        name: of the models, as a heading.
    """
    table, task = training_table(run), run.tasks[0]
    headers, rows = training_rows(table)
    same_split = len(set(run.config.held_out)) == 1
    template = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    ).from_string((files("tbtt_interp.pretrained") / "card.md.jinja").read_text("utf-8"))
    return template.render(
        name=name,
        run=run,
        config=run.config,
        recipe=run.config.recipe,
        shape=run.shape,
        parameters=count_parameters(run.shape),
        task=task.name,
        is_ours=not task.order_is_given,
        lines=task.lines,
        held_out=[example.line.strip() for example in task.examples if example.held_out],
        same_split=same_split,
        checkpoints=[f"{step:,}" for step in run.checkpoints],
        headers=[header.replace("\n", " ") for header in headers],
        rows=rows if len(run.seeds) > 1 else rows[:1],
        sentences=[
            accuracy_sentence(accuracy_intervals(table[:-1])),
            *(_baseline_sentences(task) if same_split else []),
            *late_sentences(run),
            *TRAINING_NOTES,
        ],
        seconds=run.summary()["seconds"],
    )


def _baseline_sentences(task: Task) -> list[str]:
    """What answers without a transformer, as scores have it beside the models."""
    sentences = []
    for name, counts in baseline_counts(task).groupby("baseline", sort=False):
        rates = zip(counts["group"], counts["right"], counts["of"], strict=True)
        words = [f"{group_label(group)} {right}/{of}" for group, right, of in rates]
        sentences.append(f"Without a transformer, {name}: {', '.join(words)}.")
    return sentences

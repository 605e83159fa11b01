"""How much of its file's line order a model knows, in bits, and which next lines it predicts.

A model trained on windows of one file, whose order never changes, can learn which line follows
which. Its log-probabilities are compared with two exact predictors that know every line: one knows
their order, too, and one does not. See `tasks.entropy`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise
from os.path import commonprefix
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from tbtt_interp.analyses import preceding_line
from tbtt_interp.analyses.token_roles import label_positions
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import answer_logits
from tbtt_interp.plots import BLACK, BLUE, ORANGE, name_once, panels, points
from tbtt_interp.prompts import PromptBatch, PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds, over_untrained
from tbtt_interp.shares import summarize_shares
from tbtt_interp.stats import ANY, SHARE, Interval, mean_over_models
from tbtt_interp.tasks import Stream
from tbtt_interp.tasks.entropy import IndependentLines

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

NEXT = ["accuracy", "other_order", "untrained", "majority"]
KNOWN = (-math.inf, 1.0)  # not knowing the lines lowers the bits of the order


def ordered_lines(prompts: PromptSet) -> Stream:
    """The windows of a model whose file has an order; `lines` has it.

    For framing shuffled, whose models have met every order, it is the order of a file framing's.

    Raises:
        TbttError: if the order is not known, or there is none.
    """
    if prompts.training is None or not prompts.order_is_known:
        raise TbttError(
            f"the order of the lines that {prompts.name} was trained on is not known: "
            "give a run that was trained here, or one imported with its corpus"
        )
    if prompts.training.framing == "line":
        raise TbttError(
            f"{prompts.name} was trained on one line at a time, so there is no order to know: "
            "give a run of framing file, or of framing shuffled as a control"
        )
    return prompts.training


@lru_cache(maxsize=64)  # a model and its untrained model read the same file
def exact_predictives(
    lines: tuple[str, ...], n_ctx: int
) -> tuple[Float[np.ndarray, " character"], Float[np.ndarray, " character"]]:
    """Log-probabilities, in nats, of a file's characters from its second line on.

    Each is predicted from the n_ctx characters before it, by two predictors. The first knows every
    line but not their order. The second counts what follows the same window in the file.
    """
    text = "".join(lines)
    window = min(n_ctx, len(text) - 1)
    source = IndependentLines(lines, window + 1)
    starts = range(len(text) - window)
    known = Counter(text[i:j] for i in starts for j in range(i + 1, i + window + 2))
    nats = []
    for t in range(len(lines[0]), len(text)):
        read = text[max(0, t - window) : t]
        longer = read + text[t]
        nats.append((
            source.log_probability(longer) - source.log_probability(read),
            math.log(known[longer] / known[read]),
        ))  # fmt: skip
    of_lines, of_order = np.array(nats).T
    return of_lines, of_order


def bits_by_character(
    model: "HookedTransformer", prompts: PromptSet, *, other_order: bool = False
) -> pd.DataFrame:
    """What a model knows of each character of its own file, from the second line on.

    Args:
        other_order: read a file of the same lines in an order that no model of the run has seen.
    Returns:
        one row per character: `line_number` in the file, `line`, `preceding_line`, `pos` in the
        line, `label` that begins here, or "", `character`; `predicted`, the most likely character;
        `rank` of the right one, 0 where it is predicted; `bits`, the log-probability beyond that
        of knowing every line but not their order; `max_bits`, the same of knowing their order.
    """
    lines, task = ordered_lines(prompts).lines, prompts.task
    assert task is not None
    lines = task.file(prompts.unseen_order_seed) if other_order else lines
    first, rest = (task.vocabulary.encode(text) for text in (lines[0], "".join(lines[1:])))
    batch = PromptBatch.of_tokens([(first, rest)], prompts.n_ctx)
    nats = answer_logits(model, batch).log_softmax(-1)
    right = nats.gather(1, batch.answer_token[:, None])
    of_lines, of_order = exact_predictives(lines, prompts.n_ctx)
    unlabelled = {len(commonprefix(task.lines)): "first"}  # noqa: RUF071
    labels = {e.line: label_positions(e, task.varied) or unlabelled for e in task.examples}
    table = pd.DataFrame(
        [
            (number, line, before, pos, labels[line].get(pos, ""), character)
            for number, (before, line) in enumerate(pairwise(lines), 1)
            for pos, character in enumerate(line)
        ],
        columns=["line_number", "line", "preceding_line", "pos", "label", "character"],
    )
    return table.assign(
        predicted=[task.vocabulary.characters[token] for token in nats.argmax(1)],
        rank=(nats >= right).sum(1).numpy() - 1,
        bits=(right[:, 0].numpy() - of_lines) / math.log(2),
        max_bits=(of_order - of_lines) / math.log(2),
    )


def characters_table(models: Models | Run) -> pd.DataFrame:
    """`bits_by_character` of every seed, compared with another order and untrained models.

    Returns:
        its columns; `bits` and `rank` of the same line in a file of another order and of the
        untrained model, as `_other_order` and `_untrained`; nan for the other file's first line.
    """
    table = over_seeds(models, bits_by_character)
    other = over_seeds(models, bits_by_character, other_order=True)
    at = ["seed", "line", "pos"]
    table = table.merge(other[[*at, "bits", "rank"]], "left", at, suffixes=("", "_other_order"))
    untrained = over_untrained(models, bits_by_character)
    for name in ("bits", "rank"):
        table[f"{name}_untrained"] = np.nan if untrained is None else untrained[name]
    return table


def bits_by_line(characters: pd.DataFrame) -> pd.DataFrame:
    """`characters_table` summed by line.

    Returns:
        one row per seed and line: `line_number`, `line`, `preceding_line`, and the sums of `bits`,
        `max_bits`, `bits_other_order`, `bits_untrained`; `label_bits` and `label_max_bits` count
        only the characters where labels begin, from which the rest of the line follows.
    """
    keys = ["seed", "line_number", "line", "preceding_line"]
    labels = characters[["bits", "max_bits"]].where(characters["label"] != "", 0.0)
    table = characters.join(labels.add_prefix("label_"))
    sums = ["bits", "max_bits", "bits_other_order", "bits_untrained", *labels.add_prefix("label_")]
    return table.groupby(keys, sort=False)[sums].sum(min_count=1).reset_index()


def next_line_accuracy(characters: pd.DataFrame) -> pd.DataFrame:
    """The accuracy on each label of the next line, at its first character.

    The true characters before it are fed in. The first label is thus predicted from the preceding
    line alone.

    Returns:
        one row per seed and label: `accuracy`, `other_order` (in a file of another order),
        `untrained` and `majority` (the most frequent character), shares of lines; `n_lines`.
    """
    known = characters[characters["label"] != ""]
    ranks = known[["rank", "rank_other_order", "rank_untrained"]].set_axis(NEXT[:3], axis=1)
    right = ranks.eq(0).astype(float).where(ranks.notna())
    groups = known[["seed", "label", "bits", "max_bits"]].join(right).groupby(
        ["seed", "label"], sort=False)  # fmt: skip
    frequency = known.groupby(["seed", "label", "character"]).size()
    means = groups[[*NEXT[:3], "bits", "max_bits"]].mean()
    majority = frequency.groupby(["seed", "label"]).max() / groups.size()
    return means.assign(majority=majority, n_lines=groups.size()).reset_index()


def order_claims(lines: pd.DataFrame, following: pd.DataFrame) -> list[Claim]:
    """Claims on the share of the order known, and on the accuracy on the next line.

    Args:
        lines: `bits_by_line` of every seed.
        following: means over models of `next_line_accuracy`.
    """
    sums = lines.groupby("seed").sum(numeric_only=True)
    other = float((sums["bits_other_order"] / sums["max_bits"]).mean())
    claims = [
        Claim(
            text="Of which line follows which, models know", unit=unit,
            effect=mean_over_models(sums[f"{of}bits"] / sums[f"{of}max_bits"], bounds=KNOWN),
            null=max(0.0, other), null_name="knowing the lines alone, or a file of another order",
        )
        for of, unit in (("", "of the bits"), ("label_", "of the bits where labels begin"))
    ]  # fmt: skip
    return claims + [
        Claim(
            text=f"After the preceding line, {row['label']} of the next line is predicted in",
            effect=Interval.of_row(row, "accuracy"), unit="of lines",
            null=max(row["other_order"], row["majority"]),
            null_name="the larger of the majority class and a file of another order",
        )
        for row in following.to_dict("records")
    ]  # fmt: skip


def analyse_order(
    run_or_models: Models | Run, *, sites: Sequence[str] | None = None, seed: int = 0
) -> Result:
    """How much of the order is known, what it predicts, and what the preceding line does.

    Args:
        sites: hook names that are patched; None is all that `patching` patches.
        seed: of the lines that stand before prompts.
    """
    models = Models.of(run_or_models)
    ordered_lines(models.shared_prompts)
    characters = characters_table(models)
    lines, following = bits_by_line(characters), next_line_accuracy(characters)
    by_label = summarize_shares(following, ["label"], NEXT, of="n_lines")
    sums = lines.groupby("seed").mean(numeric_only=True)
    of_models = pd.DataFrame({
        "bits": sums["bits"], "max bits": sums["max_bits"], "other order": sums["bits_other_order"],
        "known": sums["bits"] / sums["max_bits"],
        "known, labels": sums["label_bits"] / sums["label_max_bits"],
    })  # fmt: skip
    predicted = following.pivot(index="seed", columns="label", values="accuracy")
    shares = predicted[following["label"].unique()].add_prefix("next ")
    notes = [
        "Bits per line beyond knowing every line but not their order, as a fraction of the bits "
        "that knowing the order gives. What a model lacks of the lines counts against it, so bits "
        "can be negative. Labels: only where labels begin. Next: lines whose label is predicted "
        "from the preceding line."
    ]
    tables = {"order": lines, "order-characters": characters, "order-next": following}
    figures = {"order": partial(plot_bits, lines), "order-next": partial(plot_next, by_label)}
    claims = order_claims(lines, by_label)
    if all(map(preceding_line.has_room, models.prompts)):
        after = preceding_line.analyse_preceding_line(models, sites, seed)
        tables, figures = {**tables, **after.tables}, {**figures, **after.figures}
        claims, notes = [*claims, *after.claims], [*notes, *after.notes]
        shares = shares.join(after.display)
    else:
        notes.append(
            f"No answers: {models.shared_prompts.n_ctx} characters of context leave no room "
            "before a prompt for three different line ends, its own and two others: give a run "
            "with a longer window."
        )
    of_models = of_models.join(shares)
    limits = dict.fromkeys(shares, SHARE) | {c: KNOWN for c in of_models if "known" in str(c)}
    means = {column: mean_over_models(of_models[column], bounds=limits.get(column, ANY)).format()
             for column in of_models}  # fmt: skip
    text = of_models.map("{:.2f}".format).rename(index=str)
    display = pd.concat([text, pd.DataFrame(means, index=["all"])]).rename_axis("seed")
    return Result(
        name="order", tables=tables, figures=figures, claims=claims, notes=notes,
        display=display.reset_index(),
    )  # fmt: skip


def plot_bits(lines: pd.DataFrame) -> "Figure":
    """Bits of order known of each line, sorted, a curve per model."""
    figure, [place] = panels([""], width=640, height=360)
    for name, column, style in (
        ("a model", "bits", {"color": ORANGE, "width": 1.5}),
        ("a model, in a file of another order", "bits_other_order",
         {"color": BLUE, "width": 1, "dash": "dot"}),
        ("knowing the order", "max_bits", {"color": BLACK, "width": 1, "dash": "dash"}),
    ):  # fmt: skip
        for seed, of_model in lines.groupby("seed"):
            figure.add_scatter(
                x=(np.arange(len(of_model)) + 0.5) / len(of_model), mode="lines", name=name,
                y=of_model[column].sort_values(ascending=False), line=style, opacity=0.8,
                hovertemplate=f"seed {seed}, {name}<br>%{{y:.2f}} bits<extra></extra>", **place,
            )  # fmt: skip
            if column == "max_bits":
                break  # nearly the same for all models
    top = lines["max_bits"].max()
    figure.update_yaxes(title="bits per line", range=[-1.6 * top, 1.15 * top])
    figure.update_xaxes(title="lines, the best known first", tickformat=".0%")
    return name_once(figure)


def plot_next(by_label: pd.DataFrame) -> "Figure":
    """How often each label of the next line is predicted, with its nulls."""
    return points(
        by_label, name="label", value="accuracy", title="share of lines", horizontal=False,
        nulls={"majority": "majority class", "other_order": "a file of another order",
               "untrained": "untrained model"},
    )  # fmt: skip

"""What was memorized that is not arithmetic: which line follows which.

A model that is trained on windows of one file, whose order never changes, can come to know that
order. How much it does is exact, beside two that know every line: one that knows their order too,
and one that does not. See `tasks.entropy`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from tbtt_interp import figures
from tbtt_interp.analyses.ending_patches import ending_findings, ending_table
from tbtt_interp.analyses.endings import (
    answer_findings,
    answers_after,
    have_room,
    no_room,
)
from tbtt_interp.analyses.findings import Finding, Result, Tell, silent
from tbtt_interp.analyses.old_pairs import VARIED
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions, reference_loss
from tbtt_interp.model import stack_parameters
from tbtt_interp.old_interventions import logits_of
from tbtt_interp.probes.datasets import opening
from tbtt_interp.runs import Run
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import Example, Stream, Vocabulary
from tbtt_interp.tasks.entropy import IndependentLines, stream_floors

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

Lines = tuple[str, ...]


def own_files(subject: Subject) -> list[Lines]:
    """The lines that each model was trained on, in its file's order.

    Of framing shuffled, whose models have met every order, it is the order they would have had.

    Raises:
        TbttError: if no order is known, or there is none to know.
    """
    run = subject.run
    if run is None or (run.config.recipe is None and not run.tasks[0].order_is_given):
        raise TbttError(
            f"the order of the lines that {subject.name} was trained on is not known: "
            "give a run that was trained here, or one imported with its corpus"
        )
    if run.config.framing == "line":
        raise TbttError(
            f"{run.folder} was trained on one line at a time, so there is no order to know: "
            "give a run of framing file, or of framing shuffled as a control"
        )
    return [task.file(order) for task, order in subject.files]


def other_files(subject: Subject) -> list[Lines]:
    """For each model its lines in an order that no model of this run was trained on."""
    assert subject.run is not None
    known = subject.run.config.order_seeds
    first = 1 + max((order for order in known if order is not None), default=0)
    return [task.file(first + k) for k, (task, _) in enumerate(subject.files)]


def exact_predictives(
    lines: Sequence[str], n_ctx: int
) -> tuple[Float[np.ndarray, " character"], Float[np.ndarray, " character"]]:
    """Log-probabilities, in nats, of a file's characters, from its second line on.

    Each is read after the last n_ctx before it: by one that knows every line but not their order,
    and by one that knows the file, and counts what follows this beginning of its windows.
    """
    text = "".join(lines)
    window = min(n_ctx, len(text) - 1)
    source = IndependentLines(tuple(lines), window + 1)
    starts = range(len(text) - window)
    known = Counter(text[i:j] for i in starts for j in range(i + 1, i + window + 2))
    found = []
    for t in range(len(lines[0]), len(text)):
        seen = text[max(0, t - window) : t]
        said = seen + text[t]
        found.append((
            source.log_probability(said) - source.log_probability(seen),
            math.log(known[said] / known[seen]),
        ))  # fmt: skip
    of_lines, of_order = np.array(found).T
    return of_lines, of_order


def read_file(
    model: "HookedTransformer", lines: Sequence[str], vocabulary: Vocabulary, n_ctx: int
) -> Arrays:
    """What a model makes of a file from its second line on, each character after the last n_ctx.

    Returns:
        nats, the log-probability of each; said, the likeliest token there; rank, how many others
        are at least as likely as the right one.
    """
    first, rest = vocabulary.encode(lines[0]), vocabulary.encode("".join(lines[1:]))
    questions = Questions.of_tokens([(first, rest)], n_ctx)
    nats = logits_of(model, questions).log_softmax(-1)
    right = nats.gather(1, questions.target[:, None])
    return {
        "nats": right.squeeze(1).numpy(),
        "said": nats.argmax(1).numpy(),
        "rank": (nats >= right).sum(1).numpy() - 1,
    }


def asked_places(example: Example, begun: str) -> dict[int, str]:
    """Where in a line something is told that only the line before could tell: each label's begin.

    Args:
        begun: what all lines begin with; what follows it is asked where there are no such labels.

    >>> from tbtt_interp.tasks.arithmetic import equation
    >>> asked_places(equation(3, "-", 3), "<")
    {1: 'a', 2: 'operator', 3: 'b'}
    """
    found, at = {}, 0
    for name in VARIED:
        value = str(example.labels.get(name, ""))
        if value and (place := example.prompt.find(value, at)) >= 0:
            found[place] = name
            at = place + len(value)
    return found or {len(begun): "first"}


def character_table(
    subject: Subject, *, parts: Parts | None = None, tell: Tell = silent
) -> pd.DataFrame:
    """Every character of each model's own file, from its second line on, as the model reads it.

    Returns:
        a row a seed and character: number (of its line in the file), line, before (the line before
        it), at (in the line), place (of a label that begins here, or ""), character, said (the
        likeliest), rank (of the right one, 0 if it is that); `bits`, the log-probability beyond
        what knowing every line, but not their order, would give; `worth`, what knowing their order
        would give. Of the same line in a file of another order, other and other_rank; of the
        untrained model, untrained and untrained_rank. nan where that file begins with the line.
    Raises:
        TbttError: if the order is not known, or there is none.
    """
    files, parts = own_files(subject), parts or Parts()
    assert subject.run is not None
    tables = []
    for k, (s, lines, other) in enumerate(
        zip(subject.seeds, files, other_files(subject), strict=True)
    ):
        task = subject.files[k][0]
        mine, apart = _layout(lines), _layout(other)
        of_lines, of_order = exact_predictives(lines, subject.n_ctx)
        mine["worth"] = (of_order - of_lines) / math.log(2)
        readers = [
            ("", subject.models[k], mine, lines, of_lines),
            ("other", subject.models[k], apart, other, exact_predictives(other, subject.n_ctx)[0]),
            ("untrained", subject.untrained[k], mine, lines, of_lines),
        ]
        for name, model, table, text, floor in readers:
            compute = partial(read_file, model, text, task.vocabulary, subject.n_ctx)
            read = parts.get(f"file-{s}{name}", compute)
            table[name or "bits"] = (read["nats"] - floor) / math.log(2)
            table[f"{name}_rank".strip("_")] = read["rank"]
            if not name:
                table["said"] = [task.vocabulary.characters[token] for token in read["said"]]
        begun = opening(task.lines)
        named = {e.line: asked_places(e, begun) for e in task.examples}
        mine["place"] = [
            named[line].get(at, "") for line, at in zip(mine["line"], mine["at"], strict=True)
        ]
        apart = apart[["line", "at", "other", "other_rank"]]
        tables.append(mine.merge(apart, how="left", on=["line", "at"]).assign(seed=s))
        tell(k + 1, len(subject.seeds))
    return pd.concat(tables, ignore_index=True)


def _layout(lines: Sequence[str]) -> pd.DataFrame:
    """A row a character, from the second line on."""
    rows = [
        (number, line, before, at, character)
        for number, (before, line) in enumerate(pairwise(lines), 1)
        for at, character in enumerate(line)
    ]
    return pd.DataFrame(rows, columns=["number", "line", "before", "at", "character"])


def line_table(characters: pd.DataFrame) -> pd.DataFrame:
    """Line by line, how much of the order is known.

    Args:
        characters: as `character_table` has it.
    Returns:
        a row a seed and line: number, line, before, and the sums of bits, worth, other, untrained;
        label_bits and label_worth, of the characters where labels begin alone, which the rest of
        the line follows from.
    """
    keys = ["seed", "number", "line", "before"]
    sums = ["bits", "worth", "other", "untrained", "label_bits", "label_worth"]
    begins = (characters["place"] != "").astype(float)
    split = characters.assign(
        label_bits=characters["bits"] * begins, label_worth=characters["worth"] * begins
    )
    return split.groupby(keys, sort=False)[sums].sum(min_count=1).reset_index()


def next_table(characters: pd.DataFrame) -> pd.DataFrame:
    """How often the next line is foretold: what a model says where each label of it begins.

    What comes before in the line is fed in, so that after its newline the first label is told from
    the line before alone.

    Args:
        characters: as `character_table` has it.
    Returns:
        a row a seed and place: `right`, a share of lines; `other`, in a file of another order;
        `untrained`; `majority`, the commonest character's; `bits` and `worth` a line; `lines`.
    """
    rows = []
    asked = characters[characters["place"] != ""]
    for (seed, place), some in asked.groupby(["seed", "place"], sort=False):
        there = some["other_rank"].notna()
        rows.append({
            "seed": seed, "place": place, "right": (some["rank"] == 0).mean(),
            "other": (some.loc[there, "other_rank"] == 0).mean(),
            "untrained": (some["untrained_rank"] == 0).mean(),
            "majority": some["character"].value_counts(normalize=True).iloc[0],
            "bits": some["bits"].mean(), "worth": some["worth"].mean(), "lines": len(some),
        })  # fmt: skip
    return pd.DataFrame(rows)


def loss_table(subject: Subject) -> pd.DataFrame:
    """The same from each model's loss on all its windows, beside the floors of lines and of order.

    Windows begin anywhere, so that what is read before a character is up to n_ctx long, not as long
    as can be.

    Returns:
        a row a seed: `loss`, `lines` and `order` (floors), in nats a predicted character;
        `bits` a line beyond what knowing the lines gives; `share` of what their order would give.
    """
    files = own_files(subject)
    assert subject.run is not None
    run = subject.run
    streams = [
        Stream(lines=lines, vocabulary=task.vocabulary, framing=run.config.framing,
               window=subject.n_ctx, batch=1, seed=s)
        for lines, (task, _), s in zip(files, subject.files, subject.seeds, strict=True)
    ]  # fmt: skip
    stacked = stack_parameters([dict(model.named_parameters()) for model in subject.models])
    rows = []
    for s, stream, loss in zip(
        subject.seeds, streams, reference_loss(stacked, run.shape, streams), strict=True
    ):
        floors = stream_floors(stream)
        gained = floors.lines - loss
        rows.append({
            "seed": s, "loss": loss, "lines": floors.lines, "order": floors.order,
            "bits": gained * np.mean([len(line) for line in stream.lines]) / math.log(2),
            "share": gained / (floors.lines - floors.order),
        })  # fmt: skip
    return pd.DataFrame(rows)


def order_findings(lines: pd.DataFrame, following: pd.DataFrame) -> list[Finding]:
    """How much of the order is known, and how often it tells what comes next."""
    sums = lines.groupby("seed").sum(numeric_only=True)
    found = []
    for name, worth, words in (
        ("bits", "worth", "the bits"),
        ("label_bits", "label_worth", "the bits of where labels begin"),
    ):
        other = (sums["other"] / sums["worth"]).mean()
        found.append(
            Finding(
                what="of which line follows which, these models know",
                effect=mean_over_models((sums[name] / sums[worth]).tolist()),
                null=max(0.0, float(other)),
                null_is="knowing the lines alone, or in a file of another order",
                of=words,
            )
        )
    for place, some in following.groupby("place", sort=False):
        nulls = some[["other", "majority"]].mean()
        found.append(
            Finding(
                what=f"after the end of the line before, {place} of the next line is foretold in",
                effect=mean_over_models(some["right"].tolist()),
                null=float(nulls.max()),
                null_is="the better of the commonest and a file of another order",
                of="lines",
            )
        )
    return found


def analyse_order(
    subject: Subject | Run,
    *,
    sites: Sequence[str] | None = None,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> Result:
    """What is known of the order, what it foretells, what it does to answers, and through what.

    Args:
        sites: that are patched, by hook name; None is every one of `patching.sites_of`.
        parts: where finished models are kept.
        seed: of the lines that stand before.
    """
    subject = Subject.of(subject)
    files = own_files(subject)
    characters = character_table(subject, parts=parts)
    lines, following, losses = line_table(characters), next_table(characters), loss_table(subject)
    tables = {
        "order": lines, "order-characters": characters, "order-next": following,
        "order-loss": losses,
    }  # fmt: skip
    drawn = {"order": partial(figures.order_known, lines, following)}
    findings, shown = order_findings(lines, following), _shown(lines, following, losses)
    notes = [
        "Bits a line beyond what knowing every line, but not their order, gives, of those that "
        "knowing the order gives; what a model lacks of the lines counts against it, so bits can "
        "be negative. From the loss: the same on windows that begin anywhere. Labels: the same "
        "where labels begin alone. Next: lines whose labels are foretold from the line before."
    ]
    if have_room(subject, files):
        answers = answers_after(subject, files, parts=parts, seed=seed)
        patched = ending_table(subject, files, sites=sites, parts=parts, tell=tell, seed=seed)
        tables |= {"order-answers": answers, "order-patching": patched}
        drawn |= {
            "order-answers": partial(figures.order_answers, answers),
            "order-patching": partial(figures.order_patching, patched),
        }
        findings += [*answer_findings(answers), *ending_findings(patched)]
        shown = shown.merge(_shown_answers(answers), on="seed")
        notes.append(
            "Answers: right after the line that a prompt follows, after another, and of held-out "
            f"prompts, which follow none. Of {len(subject.examples):,} prompts "
            f"{answers['example'].nunique():,} leave room for a line before them; "
            f"{patched['prompts'].iloc[0]:,} of these, in each model, are patched."
        )
    else:
        notes.append(f"No answers: {no_room(subject)}.")
    return Result(
        name="order", tables=tables, shown=shown, figures=drawn, findings=findings, notes=notes
    )


def _formatted(by_seed: pd.DataFrame) -> pd.DataFrame:
    """A row a model, and one for all."""
    by_seed = by_seed.dropna(axis=1, how="all")
    every = {
        str(name): mean_over_models(column.tolist()).format() for name, column in by_seed.items()
    }
    rows = by_seed.map("{:.2f}".format).reset_index().astype(str).to_dict("records")
    return pd.DataFrame([*rows, {"seed": "all", **every}])


def _shown(lines: pd.DataFrame, following: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    sums = lines.groupby("seed").mean(numeric_only=True)
    shown = pd.DataFrame({
        "bits": sums["bits"], "worth": sums["worth"], "another order": sums["other"],
        "share": sums["bits"] / sums["worth"],
        "share, from loss": losses.set_index("seed")["share"],
        "share, labels": sums["label_bits"] / sums["label_worth"],
    })  # fmt: skip
    wide = following.pivot(index="seed", columns="place", values="right")
    places = list(dict.fromkeys(following["place"]))
    return _formatted(shown.join(wide[places].add_prefix("next ")))


def _shown_answers(answers: pd.DataFrame) -> pd.DataFrame:
    seen, away = (
        answers[answers["split"] == split].groupby("seed")[["right", "right_others"]].mean()
        for split in ("seen", "held-out")
    )
    columns = [seen["right"], seen["right_others"], away["right_others"]]
    return _formatted(
        pd.concat(columns, axis=1, keys=["after own line", "after another", "held-out"])
    )

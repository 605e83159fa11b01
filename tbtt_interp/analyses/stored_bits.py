"""How many bits a model holds: of the table of answers, and of the order of its file's lines.

A bit here is what it takes to write down what the model already says: of an answer, against one who
knows how often each answer occurs; of the order, against one who knows every line. What a rule
supplies counts among the table's bits; the held-out answers show how much that is.

Source: Allen-Zhu and Li 2024, Physics of Language Models 3.3, arXiv 2404.05405; Morris et al. 2025,
How much do language models memorize?, arXiv 2505.24832.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from tbtt_interp.analyses.findings import Finding
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.evaluate import Questions
from tbtt_interp.old_interventions import logits_of
from tbtt_interp.stats import mean_over_models
from tbtt_interp.tasks import Stream
from tbtt_interp.tasks.entropy import stream_floors

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

KNOWLEDGE = 2.0  # bits of knowledge a parameter: Allen-Zhu and Li 2024
CAPACITY = 3.6  # bits of random text a parameter: Morris et al. 2025
SEEN, HELD_OUT, ORDER, FLOOR, ALL = (
    "seen answers", "held-out answers", "order of the lines", "below the lines' floor", "all"
)  # fmt: skip


def answer_bits(model: "HookedTransformer", questions: Questions) -> Float[np.ndarray, " example"]:
    """Bits that each right answer, its end included, takes to write with this model."""
    logs = logits_of(model, questions).log_softmax(-1)
    nats = -logs.gather(1, questions.target[:, None]).squeeze(1).numpy()
    return np.bincount(questions.example, nats, len(questions.fits)) / math.log(2)


def marginal_bits(subject: Subject) -> Float[np.ndarray, " example"]:
    """The same for one who knows how often each answer occurs in its group, held out or not."""
    keys = [(e.group, e.answer) for e in subject.examples]
    times, sizes = Counter(keys), Counter(group for group, _ in keys)
    return np.array([math.log2(sizes[key[0]] / times[key]) for key in keys])


def order_bits(
    model: "HookedTransformer", stream: Stream, sections: Sequence[int]
) -> dict[str, tuple[float, float]]:
    """What a model's loss on its file says of the order of the file's lines.

    Args:
        sections: lines of each; the order of the sections themselves is known to anyone.
    Returns:
        of `order of the lines`, the bits by which the model, reading on from as much as its context
        holds, writes the file shorter than anyone can who knows only the lines, and the bits of all
        orders: the model holds at least the difference, and below 0 nothing is shown. Of `below the
        lines' floor`, how far the mean loss over all contexts, short ones too, is below that of one
        who knows only the lines, and how far it could be; above 0, some order is known.
    """
    windows = stream.reference()
    with torch.no_grad():
        logs = model(torch.from_numpy(windows.tokens)).double().log_softmax(-1)
    nats = -logs.gather(-1, torch.from_numpy(windows.targets)[..., None]).squeeze(-1)
    written = float(nats[0].sum() + nats[1:, -1].sum()) / math.log(2)
    orders = sum(math.lgamma(lines + 1) for lines in sections) / math.log(2)
    floors, bits = stream_floors(stream), len(stream.text) / math.log(2)
    return {
        ORDER: (orders - written, orders),
        FLOOR: ((floors.lines - float(nats.mean())) * bits, (floors.lines - floors.order) * bits),
    }


def stored_bits_table(subject: Subject) -> pd.DataFrame:
    """Bits in each model's answers, and in its order of the lines if it was trained on a file.

    Returns:
        a row a model and kind (seen answers, held-out answers, order of the lines, below the lines'
        floor, and all: seen answers and what is shown of the order): `bits`, `most` there could be,
        `share` of these, `of` (answers, or lines), `parameters` and `per_parameter`.
    """
    questions = Questions.of(subject.examples, subject.vocabulary, subject.n_ctx)
    marginal = marginal_bits(subject)
    orders: list[tuple[Stream, list[int]] | None] = [None] * len(subject.models)
    if subject.run is not None and subject.run.config.framing == "file":
        tasks = [subject.run.tasks[subject.run.seed_index(seed)] for seed in subject.seeds]
        sections = [[sum(not e.held_out for e in s) for s in task.sections] for task in tasks]
        orders = list(zip(subject.streams(), sections, strict=True))
    rows = []
    for seed, model, away, order in zip(
        subject.seeds, subject.models, subject.held_out, orders, strict=True
    ):
        saved = marginal - answer_bits(model, questions)
        found = {
            kind: (float(saved[mask].sum()), float(marginal[mask].sum()), int(mask.sum()))
            for kind, mask in ((SEEN, ~away), (HELD_OUT, away)) if mask.any()
        }  # fmt: skip
        if order is not None:
            of_order = order_bits(model, *order)
            found |= {kind: (*bits, sum(order[1])) for kind, bits in of_order.items()}
        bits, most, count = found[SEEN]
        shown, possible, _ = found.get(ORDER, (0.0, 0.0, 0))
        found[ALL] = (bits + max(shown, 0.0), most + possible, count)
        parameters = trained_parameters(model)
        rows += [
            {"seed": seed, "kind": kind, "bits": bits, "most": most,
             "share": bits / most if most else math.nan, "of": count,
             "parameters": parameters, "per_parameter": bits / parameters}
            for kind, (bits, most, count) in found.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def trained_parameters(model: "HookedTransformer") -> int:
    """Of ours, those that were trained: no biases that are 0, and embeddings once if tied."""
    named = {name: p for name, p in model.named_parameters() if bool((p != 0).any())}
    tied = torch.equal(model.W_E, model.W_U.mT)
    return sum(p.numel() for name, p in named.items() if not (tied and name == "unembed.W_U"))


def stored_bits_findings(table: pd.DataFrame) -> list[Finding]:
    """Over models: shares of what there is to store, and of what a parameter is said to hold."""
    found = []
    reader = "one who knows how often each answer occurs"
    said = {
        SEEN: ("seen answers have", "their bits", reader),
        HELD_OUT: ("held-out answers have", "their bits", reader),
        ORDER: ("of the lines' order is held, at least,", "its bits",
                "one who knows every line and not their order"),
    }  # fmt: skip
    for kind, (what, of, null_is) in said.items():
        shares = table.loc[table["kind"] == kind, "share"].dropna()
        if kind == ORDER:
            shares = shares.clip(lower=0)  # what is at least less than nothing is nothing
        if len(shares):
            effect = mean_over_models(shares.tolist())
            found.append(Finding(what=what, effect=effect, null=0.0, null_is=null_is, of=of))
    every = table.loc[table["kind"] == ALL, "per_parameter"]
    found.append(
        Finding(
            what="seen answers and order take",
            effect=mean_over_models((every / KNOWLEDGE).tolist()),
            null=0.0,
            null_is="a model that stores nothing",
            of=f"{KNOWLEDGE:g} bits a parameter",
        )
    )
    return found

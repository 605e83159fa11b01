"""How an answer changes with the line that stands before the prompt.

A window of a file shows a prompt after the end of the line before it. Here the prompts are put
after the end of the line that they follow in the file, and after the ends of other lines, all as
long as the context allows: without any line before it a prompt would stand at other positions.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.analyses.findings import Finding
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import Questions
from tbtt_interp.old_interventions import logits_of
from tbtt_interp.stats import Interval, crossed_intervals
from tbtt_interp.tasks import Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

ENDINGS = 32  # of other lines, if there are more


def endings_of(task: Task, lines: Sequence[str], n_ctx: int, seed: int) -> pd.DataFrame:
    """The ends of lines that each prompt is put after.

    They are of the prompt's own section, and as long as the context leaves room for and every line
    of it is. Of more than ENDINGS some are drawn.

    Args:
        lines: of the file, in its order.
    Returns:
        a row a prompt and ending: example (its number), ending, own (whether it is of the line that
        the prompt follows in the file), and lines, how many have it. Prompts that leave no room are
        not there.
    """
    rows: list[tuple[int, str, bool, int]] = []
    numbers = {example.line: number for number, example in enumerate(task.examples)}
    for section in task.sections:
        inside = {example.line for example in section}
        mine = [line for line in lines if line in inside]
        if not mine:
            continue
        before = {after: line for line, after in pairwise(mine)}
        drawn: dict[int, Counter[str]] = {}
        for example in section:
            length = min(n_ctx - len(example.prompt), *map(len, mine))
            if length < 1:
                continue
            if length not in drawn:
                drawn[length] = _some(Counter(line[-length:] for line in mine), seed)
            own = before[example.line][-length:] if example.line in before else None
            number = numbers[example.line]
            known = drawn[length] | Counter([own] if own else [])
            rows += [(number, ending, ending == own, count) for ending, count in known.items()]
    return pd.DataFrame(rows, columns=["example", "ending", "own", "lines"])


def draw_endings(asked: pd.DataFrame, count: int, draws: int, seed: int) -> pd.DataFrame:
    """For each prompt its own ending, one that stands in its place, and a third as another donor.

    Args:
        count: of prompts, drawn at random; all, if there are no more.
    Returns:
        so many draws, a row each, of a prompt that has three: example, own, placed, other.
    """
    generator = np.random.default_rng((seed, 0xE4D))
    rows = []
    for number, some in asked.groupby("example"):
        own, others = some[some["own"]], some[~some["own"]]
        if len(own) and len(others) >= 2:
            chance = others["lines"].to_numpy(float) / others["lines"].sum()
            for _ in range(draws):
                placed, other = generator.choice(others["ending"], 2, replace=False, p=chance)
                rows.append((number, own["ending"].iloc[0], placed, other))
    found = pd.DataFrame(rows, columns=["example", "own", "placed", "other"])
    kept = generator.permutation(found["example"].unique())[:count]
    return found[found["example"].isin(kept)]


def have_room(subject: Subject, files: Sequence[Sequence[str]]) -> bool:
    """Whether for every model some prompt can be put after its own line's end, and two others'."""
    assert subject.run is not None
    return all(
        len(draw_endings(endings_of(task, lines, subject.n_ctx, seed=0), 1, 1, seed=0))
        for (task, _), lines in zip(subject.files, files, strict=True)
    )


def no_room(subject: Subject) -> TbttError:
    """The error where a context has no room for a line before any prompt."""
    return TbttError(
        f"{subject.n_ctx} characters of context leave no prompt room for the end of a line before "
        "it, with two others that end otherwise: give a run of a longer window"
    )


def _some(endings: Counter[str], seed: int) -> Counter[str]:
    if len(endings) <= ENDINGS:
        return endings
    drawn = np.random.default_rng((seed, 0xE7D)).permutation(len(endings))[:ENDINGS]
    kept = [list(endings)[k] for k in drawn]
    return Counter({ending: endings[ending] for ending in kept})


def questions_after(
    task: Task, examples: Sequence[int], endings: Sequence[str], n_ctx: int
) -> Questions:
    """The prompts after these endings; as answers grow, the window slides."""
    encode = task.vocabulary.encode
    asked = [(task.examples[k], ending) for k, ending in zip(examples, endings, strict=True)]
    return Questions.of_tokens(
        [(encode(end + e.prompt), encode(e.answer)) for e, end in asked], n_ctx
    )


def answer_nats(
    questions: Questions, logits: Float[Tensor, "character d_vocab"]
) -> Float[Tensor, " example"]:
    """The log-probability of each whole answer."""
    right = logits.log_softmax(-1).gather(1, questions.target[:, None]).squeeze(1)
    return torch.zeros(len(questions.fits)).to(right).index_add(0, questions.example, right)


def _answers(model: "HookedTransformer", task: Task, asked: pd.DataFrame, n_ctx: int) -> Arrays:
    questions = questions_after(task, asked["example"].tolist(), asked["ending"].tolist(), n_ctx)
    logits = logits_of(model, questions)
    right = questions.margins(logits[None])[0] > 0
    return {"nats": answer_nats(questions, logits).numpy(), "right": right.numpy()}


def answers_after(
    subject: Subject,
    files: Sequence[Sequence[str]],
    *,
    parts: Parts | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How each answer is after the line that its prompt follows, and after other lines.

    Other lines count as often as the file has their ending, and have another ending than the own.
    A held-out prompt follows no line of the file.

    Args:
        files: each model's lines, in their order.
        seed: of the endings, where there are many.
    Returns:
        a row a seed and prompt: split, ending (the own), `nats` and `right`, of the whole answer
        after it; `nats_others` and `right_others`, the mean after other lines; `change`, the mean
        absolute difference in nats from the own to another, and `flips`, the share of others after
        which a right answer is wrong or a wrong one right; `change_others` and `flips_others`, the
        same between two others. nan where no own or fewer than two others are.
    Raises:
        TbttError: if no prompt has room for lines before it.
    """
    assert subject.run is not None
    if not have_room(subject, files):
        raise no_room(subject)
    parts, tables = parts or Parts(), []
    for k, (s, lines) in enumerate(zip(subject.seeds, files, strict=True)):
        task = subject.files[k][0]
        examples = task.examples
        asked = endings_of(task, lines, subject.n_ctx, seed)
        compute = partial(_answers, subject.models[k], task, asked, subject.n_ctx)
        asked = asked.assign(**parts.get(f"answers-{s}", compute))
        rows = [
            {"seed": s, "example": number, "prompt": examples[number].prompt,
             "split": "held-out" if examples[number].held_out else "seen",
             **_compare(asked[asked["example"] == number])}
            for number in asked["example"].unique().tolist()
        ]  # fmt: skip
        tables.append(pd.DataFrame(rows))
    return pd.concat(tables, ignore_index=True)


def _compare(asked: pd.DataFrame) -> dict[str, object]:
    """One prompt's answers: after its own line against others, and between two others."""
    own, others = asked[asked["own"]], asked[~asked["own"]]
    nats, right = others["nats"].to_numpy(float), others["right"].to_numpy(float)
    each = others["lines"] / others["lines"].sum()
    both = np.outer(each, each) * ~np.eye(len(each), dtype=bool)
    both = both / both.sum() if both.any() else np.full_like(both, np.nan)
    found: dict[str, object] = {
        "ending": None, "nats": np.nan, "right": np.nan, "change": np.nan, "flips": np.nan,
        "nats_others": each @ nats if len(each) else np.nan,
        "right_others": each @ right if len(each) else np.nan,
        "change_others": (both * abs(nats[:, None] - nats)).sum() if both.size else np.nan,
        "flips_others": (both * abs(right[:, None] - right)).sum() if both.size else np.nan,
    }  # fmt: skip
    if len(own):
        here, is_right = float(own["nats"].iloc[0]), float(own["right"].iloc[0])
        found |= {
            "ending": own["ending"].iloc[0], "nats": here, "right": is_right,
            "change": each @ abs(nats - here) if len(each) else np.nan,
            "flips": each @ abs(right - is_right) if len(each) else np.nan,
        }  # fmt: skip
    return found


def answer_findings(table: pd.DataFrame) -> list[Finding]:
    """Whether seen and held-out prompts are answered otherwise after another line."""

    def share(name: str, split: str) -> Interval:
        wide = table[(table["split"] == split) & table[name].notna()]
        if wide.empty:
            return Interval(mean=np.nan, low=np.nan, high=np.nan)
        grid = wide.pivot(index="seed", columns="example", values=name).to_numpy(float)
        there = np.isfinite(grid).astype(float)
        return crossed_intervals(np.nan_to_num(grid)[None], there[None])[0]

    two_seen = share("flips_others", "seen").mean
    found = [
        Finding(
            what="after the end of the line that it follows, a seen prompt is answered in",
            effect=share("right", "seen"), null=share("right_others", "seen").mean,
            null_is="after another line", of="all",
        ),
        Finding(
            what="from the line that it follows to another, the answer to a seen prompt turns "
            "right or wrong in",
            effect=share("flips", "seen"), null=two_seen,
            null_is="between two others", of="all pairs",
        ),
    ]  # fmt: skip
    if (table["split"] == "held-out").any():
        found.append(
            Finding(
                what="from one line before it to another, the answer to a held-out prompt turns "
                "right or wrong in",
                effect=share("flips_others", "held-out"), null=two_seen,
                null_is="of a seen prompt, between two that it does not follow", of="all pairs",
            )
        )  # fmt: skip
    return found

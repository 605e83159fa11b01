"""How an answer changes with the line that stands before the prompt, and what carries that.

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

from tbtt_interp.activations import unknown_site
from tbtt_interp.analyses.findings import Finding, Tell, silent
from tbtt_interp.analyses.pairs import MANY_PARAMETERS
from tbtt_interp.analyses.parts import Arrays, Parts
from tbtt_interp.analyses.patching import OF_HEADS, Cell, cells_of, logits_of, patch, sites_of
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import TOKENS_AT_ONCE, Questions
from tbtt_interp.stats import Interval, crossed_intervals
from tbtt_interp.tasks import Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

ENDINGS = 32  # of other lines, if there are more
DRAWS = 4  # of other lines, for each prompt that is patched
PATCHED = 8_192  # of prompts, draws and characters of context, in small models
FEW = 16  # prompts that are patched in large ones


def asked_logits(
    model: "HookedTransformer", questions: Questions
) -> Float[Tensor, "character d_vocab"]:
    """Where characters are asked, in double precision, however many rows there are."""
    each = max(1, TOKENS_AT_ONCE // questions.tokens.shape[1])
    with torch.no_grad():
        logits = torch.cat([model(part) for part in questions.tokens.split(each)])
    return logits[questions.row, questions.pos].double().cpu()


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


def _some(endings: Counter[str], seed: int) -> Counter[str]:
    if len(endings) <= ENDINGS:
        return endings
    drawn = np.random.default_rng((seed, 0xE7D)).permutation(len(endings))[:ENDINGS]
    kept = [list(endings)[k] for k in drawn]
    return Counter({ending: endings[ending] for ending in kept})


def _questions(
    task: Task, examples: Sequence[int], endings: Sequence[str], n_ctx: int
) -> Questions:
    """The prompts after these endings; as answers grow, the window slides."""
    encode = task.vocabulary.encode
    asked = [(task.examples[k], ending) for k, ending in zip(examples, endings, strict=True)]
    return Questions.of_tokens(
        [(encode(end + e.prompt), encode(e.answer)) for e, end in asked], n_ctx
    )


def _nats(
    questions: Questions, logits: Float[Tensor, "character d_vocab"]
) -> Float[Tensor, " example"]:
    """The log-probability of each whole answer."""
    right = logits.log_softmax(-1).gather(1, questions.target[:, None]).squeeze(1)
    return torch.zeros(len(questions.fits)).to(right).index_add(0, questions.example, right)


def _answers(model: "HookedTransformer", task: Task, asked: pd.DataFrame, n_ctx: int) -> Arrays:
    questions = _questions(task, asked["example"].tolist(), asked["ending"].tolist(), n_ctx)
    logits = asked_logits(model, questions)
    right = questions.margins(logits[None])[0] > 0
    return {"nats": _nats(questions, logits).numpy(), "right": right.numpy()}


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
    """
    assert subject.run is not None
    parts, tables = parts or Parts(), []
    for k, (s, lines) in enumerate(zip(subject.seeds, files, strict=True)):
        task = subject.run.tasks[k]
        examples = task.examples
        asked = endings_of(task, lines, subject.n_ctx, seed)
        if asked.empty:
            raise TbttError(
                f"no prompt leaves room for a line before it in {subject.n_ctx} characters: "
                "give a run of a longer window"
            )
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


DONORS = ("own", "other")


def draw_endings(asked: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """For each prompt its own ending, one that stands in its place, and a third as another donor.

    Args:
        count: of prompts, drawn at random; all, if there are no more.
    Returns:
        DRAWS rows a prompt that has three: example, own, placed, other.
    """
    generator = np.random.default_rng((seed, 0xE4D))
    rows = []
    for number, some in asked.groupby("example"):
        own, others = some[some["own"]], some[~some["own"]]
        if len(own) and len(others) >= len(DONORS):
            chance = others["lines"].to_numpy(float) / others["lines"].sum()
            for _ in range(DRAWS):
                placed, other = generator.choice(others["ending"], 2, replace=False, p=chance)
                rows.append((number, own["ending"].iloc[0], placed, other))
    found = pd.DataFrame(rows, columns=["example", "own", "placed", "other"])
    kept = generator.permutation(found["example"].unique())[:count]
    return found[found["example"].isin(kept)]


def patch_endings(
    model: "HookedTransformer",
    task: Task,
    drawn: pd.DataFrame,
    cells: Sequence[Cell],
    n_ctx: int,
    tell: Tell = silent,
) -> Arrays:
    """How far each cell of a donor's run moves a prompt's answer after the ending in its place.

    Returns:
        in nats of the whole right answer: whole `[example]`, from that ending to the own one;
        moved `[donor, cell, row]`, by the own line's activation and by another's.
    """

    def after(name: str) -> Questions:
        return _questions(task, drawn["example"].tolist(), drawn[name].tolist(), n_ctx)

    asked = after("placed")
    before = _nats(asked, logits_of(model, asked))
    whole = _nats(asked, logits_of(model, after("own"))) - before
    moved = torch.zeros(len(DONORS), len(cells), len(before), dtype=before.dtype)
    sites = list(dict.fromkeys(cell.site for cell in cells))
    for d, donor in enumerate(DONORS):
        with torch.no_grad():
            cache = model.run_with_cache(after(donor).tokens, names_filter=sites)[1]
        for k, cell in enumerate(cells):
            hook = partial(patch, cell=cell, donor=cache[cell.site], end=asked.end)
            moved[d, k] = _nats(asked, logits_of(model, asked, [(cell.site, hook)])) - before
            tell(d * len(cells) + k + 1, len(DONORS) * len(cells))
    return {"whole": whole.numpy(), "moved": moved.numpy()}


def ending_table(
    subject: Subject,
    files: Sequence[Sequence[str]],
    *,
    sites: Sequence[str] | None = None,
    parts: Parts | None = None,
    tell: Tell = silent,
    seed: int = 0,
) -> pd.DataFrame:
    """Which activations carry what the own line before a seen prompt does for its answer.

    Each prompt is put after another line's end; there one activation of its run after its own line
    is put. A share is of the log-probability that the own line gives the right answer beyond that
    one, as the ratio of sums over prompts; its interval is over models and prompts. The null is the
    same patch from a run after a third line.

    Args:
        files: each model's lines, in their order.
        sites: by hook name; None is `patching.sites_of`.
        parts: where finished models are kept.
        seed: of the other lines, and of resampling.
    Returns:
        a row a cell: site, head, pos, place, `effect`, nats an answer, `share`, `low`, `high`,
        `other` (the null's share); `whole`, nats an answer from the other line to the own, with
        `whole_low` and `whole_high`; `prompts`.
    Raises:
        TbttError: if a site is unknown or has nothing that can be patched.
    """
    assert subject.run is not None
    known = sites_of(subject)
    for site in sites or ():
        if site not in known:
            raise unknown_site(site, known)
    parts, models, examples = parts or Parts(), len(subject.models), len(subject.examples)
    size = sum(p.numel() for p in subject.models[0].parameters())
    most = FEW if size > MANY_PARAMETERS else max(FEW, PATCHED // DRAWS // subject.n_ctx)
    drawn = [
        draw_endings(endings_of(task, lines, subject.n_ctx, seed), most, seed)
        for task, lines in zip(subject.run.tasks, files, strict=True)
    ]
    asked = [_questions(task, each["example"].tolist(), each["own"].tolist(), subject.n_ctx)
             for task, each in zip(subject.run.tasks, drawn, strict=True)]  # fmt: skip
    cells = cells_of(subject, asked[0], list(sites or known))
    whole = np.zeros((models, examples))
    count = np.zeros((models, examples))
    moved = np.zeros((len(DONORS), len(cells), models, examples))

    def told(k: int, done: int, of: int) -> None:
        tell(k * of + done, models * of)

    for k, (s, each) in enumerate(zip(subject.seeds, drawn, strict=True)):
        compute = partial(
            patch_endings, subject.models[k], subject.run.tasks[k], each, cells, subject.n_ctx,
            partial(told, k),
        )  # fmt: skip
        found = parts.get(f"patched-{s}", compute)
        for row, example in enumerate(each["example"].tolist()):
            whole[k, example] += found["whole"][row]
            count[k, example] += 1
            moved[:, :, k, example] += found["moved"][..., row]
    used = count.any(0)
    whole, count, moved = whole[:, used], count[:, used], moved[..., used]
    weights = np.broadcast_to(whole, moved.shape[1:])
    shares = crossed_intervals(moved[0], weights, seed=seed)
    others = moved[1].sum((1, 2)) / whole.sum()
    all_there = crossed_intervals(whole[None], count[None], seed=seed)[0]
    names = _place_names(subject, cells)
    return pd.DataFrame([
        {"site": cell.site, "head": cell.head, "pos": cell.pos, "place": names[cell.pos],
         "effect": moved[0, k].sum() / count.sum(), "share": shares[k].mean,
         "low": shares[k].low, "high": shares[k].high, "other": others[k],
         "whole": all_there.mean, "whole_low": all_there.low, "whole_high": all_there.high,
         "prompts": int((count > 0).sum() / models)}
        for k, cell in enumerate(cells)
    ]).astype({"head": "Int64", "pos": "Int64"})  # fmt: skip


def _place_names(subject: Subject, cells: Sequence[Cell]) -> dict[int | None, str]:
    """What stands at each place; of the line before, how far from its end. No name is twice."""
    places = [cell.pos for cell in cells if cell.pos is not None]
    longest = max(len(prompt) for prompt, _ in subject.tokens)
    known = subject.place_names(min(places), max(places))
    names = {p: name if p >= -longest else f"before {p + longest}" for p, name in known.items()}
    often = Counter(names.values())
    unique = {p: name if often[name] == 1 else f"{name} {p}" for p, name in names.items()}
    return {None: "all", **unique}


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


def ending_findings(table: pd.DataFrame) -> list[Finding]:
    """Of each part of the model the place that carries most; none if there is nothing to carry.

    Not of the streams: in the line before they hold all there is.
    """
    carried = table[
        (table["whole_low"] > 0)
        & table["pos"].notna()
        & table["site"].str.endswith((*OF_HEADS, "mlp_out"))
    ]
    found = []
    for site, rows in carried.groupby("site", sort=False):
        row = rows.sort_values("share").iloc[-1]
        head = "" if pd.isna(row["head"]) else f" head {row['head']}"
        found.append(
            Finding(
                what=f"after another line, {site}{head} at {row['place']} brings back",
                effect=Interval(mean=row["share"], low=row["low"], high=row["high"]),
                null=float(row["other"]), null_is="from a third line",
                of=f"the {row['whole']:.2f} nats that its own line gives a seen answer",
            )
        )  # fmt: skip
    return found

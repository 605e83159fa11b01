"""What is said of the ladder: what was found, what was expected, and what the paper claims."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tbtt_interp.errors import listed
from tbtt_interp.evidence.claims import Claim
from tbtt_interp.evidence.effects import ANY, SHARE, arm, claim_on, counts, weakest, words
from tbtt_interp.evidence.published import HELD_OUT, published
from tbtt_interp.train.sweep import read_sweep

COMMAND = "tbtt sweep ladder && python analyses/ladder.py runs/ladder"
SIZES = ("small", "medium", "large")
FRAMINGS = {"file": "on the file", "shuffled": "on shuffled windows", "line": "on whole lines"}
OPERATORS = {"+": "sums", "-": "differences"}


def by_operator(equations: pd.DataFrame, **cell: str) -> dict[str, str]:
    """Held-out sums and differences that a cell's models answer, of all they are asked."""
    mine = equations
    for name, value in cell.items():
        mine = mine[mine[name] == value]
    right = {what: mine.loc[mine["operator"] == sign, "right"] for sign, what in OPERATORS.items()}
    return {what: f"{some.sum()}/{len(some)}" if len(some) else "" for what, some in right.items()}


def _held_out(models: pd.DataFrame, **where: str) -> dict[str, pd.Series]:
    """Held-out shares by size, of those that are there."""
    found = {size: arm(models, size=size, **where) for size in SIZES}
    return {size: values for size, values in found.items() if len(values)}


def _counted(models: pd.DataFrame, group: str, **where: str) -> str:
    """Right answers of each size, in words; empty where there are none."""
    for name, value in where.items():
        models = models[models[name] == value]
    said = [
        f"{size} {text}"
        for size in SIZES
        if (text := counts(models[models["size"] == size], group))
    ]
    return listed(said, "and") if said else ""


def _steps(models: pd.DataFrame, task: str, framing: str) -> str:
    cell = models[(models["task"] == task) & (models["framing"] == framing)]
    return listed([f"{n:,.0f}" for n in sorted(set(cell["steps"]))] or [""], "to")


def sentences(models: pd.DataFrame, over: pd.DataFrame, equations: pd.DataFrame) -> list[str]:
    """What was found, the most telling first."""
    found = [
        *_of_held_out(models), *_of_order(models), *_of_training(over), *_of_operators(equations),
        *_of_stuck(models), *_of_facts(models),
    ]  # fmt: skip
    return [sentence for sentence in found if sentence]


def _of_held_out(models: pd.DataFrame) -> list[str]:
    found = []
    for framing, where in FRAMINGS.items():
        said = _counted(models, "held_out", task="arithmetic", framing=framing)
        if not said:
            continue
        theirs = published("arithmetic", "held_out")
        also = ", ".join(f"{HELD_OUT * theirs[size]:.0f}/{HELD_OUT}" for size in SIZES)
        also = f" (the paper, one model each: {also})"
        after = _steps(models, "arithmetic", framing)
        found.append(
            f"{where[0].upper()}{where[1:]}, after {after} steps, held-out equations are answered "
            f"by {said}{also if framing == 'file' else ''}."
        )
    return [" ".join(found)]


def _of_order(models: pd.DataFrame) -> list[str]:
    known = {size: arm(models, "order_known", task="arithmetic", framing="file", size=size)
             for size in SIZES}  # fmt: skip
    said = [f"{size} {words(values, SHARE)}" for size, values in known.items() if len(values)]
    found = [f"Of the file's order, models know at least: {', '.join(said)}."] if said else []
    change = _changes(models, "file", "shuffled")
    return found + (
        [f"Taking the order away and keeping the windows changes the held-out share at the end of "
         f"{change}."] if change else []
    )  # fmt: skip


def _changes(models: pd.DataFrame, before: str, after: str) -> str:
    """What another framing does to each size's held-out share, by seed."""
    more, less = (_held_out(models, task="arithmetic", framing=f) for f in (after, before))
    differences = {size: (more[size] - less[size]).dropna() for size in more if size in less}
    return ", of ".join(
        f"{size} by {words(values, ANY)}" for size, values in differences.items() if len(values)
    )


def early(over: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """What arithmetic models answer over the steps that all framings train, and how many these are.

    A row a model: framing, size, seed and held_out, the mean share over these steps.
    """
    mine = over[over["task"] == "arithmetic"]
    shared = mine.groupby("framing")["step"].max().min()
    rows = [
        dict(zip(("framing", "size", "seed"), key, strict=True))
        | {"held_out": np.trapezoid(some["held_out"], some["step"]) / np.ptp(some["step"])}
        for key, some in mine[mine["step"] <= shared].groupby(["framing", "size", "seed"])
    ]  # between evaluations as on a line: they are not equally dense
    columns = ["framing", "size", "seed", "held_out"]
    return pd.DataFrame(rows, columns=columns), float(shared)


def _of_training(over: pd.DataFrame) -> list[str]:
    """What framings do over the steps that they share, and where these end."""
    means, shared = early(over)
    said = [
        f"{where} {', '.join(f'{s} {words(v, SHARE)}' for s, v in shares.items())}"
        for framing, where in FRAMINGS.items()
        if (shares := _held_out(means, framing=framing))
    ]
    if not said:
        return []
    found = [f"Over the first {shared:,.0f} steps, which all framings train, the held-out share is "
             f"on average {'; '.join(said)}."]  # fmt: skip
    there = over[(over["task"] == "arithmetic") & (over["step"] == shared)]
    change = _changes(there, "shuffled", "line")
    return found + (
        [f"At step {shared:,.0f}, whole lines in place of shuffled windows change it of {change}: "
         "framing, and with it batches of fewer characters and a learning rate that has come down "
         "by then."] if change else []
    )  # fmt: skip


def _of_operators(equations: pd.DataFrame) -> list[str]:
    mine = equations[equations["task"] == "arithmetic"]
    said = []
    for framing, where in FRAMINGS.items():
        cells = {s: by_operator(mine, framing=framing, size=s) for s in SIZES}
        each = [f"{s} {' and '.join(c.values())}" for s, c in cells.items() if all(c.values())]
        said += [f"{where} {', '.join(each)}"] if each else []
    return [f"Held-out sums and differences apart: {'; '.join(said)}."] if said else []


def _of_stuck(models: pd.DataFrame) -> list[str]:
    """Cells of arithmetic in which some models do not know all that they have seen, and some do."""
    said = []
    for framing, where in FRAMINGS.items():
        for size in SIZES:
            cell = models[(models["task"] == "arithmetic") & (models["framing"] == framing)
                          & (models["size"] == size)]  # fmt: skip
            stuck = cell[cell["knows_all"] == 0]
            if not len(cell) or len(stuck) in (0, len(cell)):
                continue
            scores = listed([f"{n:.0f}" for n in stuck["seen_right"]], "and")
            rest = counts(cell.drop(stuck.index), "held_out")
            of = f"{stuck['seen_of'].max():.0f}"
            said.append(f"{size} {where}, {len(stuck)} of {len(cell)} ({scores} of {of} right); "
                        f"the others answer {rest} of the held-out")  # fmt: skip
    start = "Some models do not answer all that they have seen: of "
    return [f"{start}{'. Of '.join(said)}."] if said else []


def _of_facts(models: pd.DataFrame) -> list[str]:
    """Facts alone and beside arithmetic; and of the latter, what was seen beside what was not."""
    facts, joint = ([], [])
    for framing in ("file", "line"):
        where = FRAMINGS[framing]
        cell = {"framing": framing}
        if known := _counted(models, "seen_facts", task="facts", **cell):
            after = _steps(models, "facts", framing)
            facts.append(f"{where} {known} (after {after} steps)")
        if away := _counted(models, "held_out", task="joint", **cell):
            seen = models.assign(
                equations_right=models["seen_right"] - models.get("seen_facts_right", 0),
                equations_of=models["seen_of"] - models.get("seen_facts_of", 0),
            )
            known = _counted(seen, "equations", task="joint", **cell)
            joint.append(f"{where} {away} of the held-out, with {known} of the seen")
    found = [f"Of the facts are known {'; '.join(facts)}."] if facts else []
    return found + ([f"Of equations trained beside facts are answered, {'; '.join(joint)}."]
                    if joint else [])  # fmt: skip


def expected(models: pd.DataFrame, baselines: pd.DataFrame) -> list[Claim]:
    """What was written down before the run."""
    order, size, rule, facts, joint = read_sweep("ladder").expected
    said: dict[str, Any] = {"by": "expected before the run", "command": COMMAND}
    file, shuffled = (
        {name: arm(models, task="arithmetic", framing=framing, size=name) for name in SIZES}
        for framing in ("file", "shuffled")
    )
    base = baselines.loc[baselines["group"] == "held_out", "share"].max()
    gain: dict[str, Any] = {"unit": "more of the held-out", "null": 0.0,
                            "null_is": "no difference"}  # fmt: skip
    return [
        claim_on(shuffled["large"] - file["large"], says=order, **gain, **said),
        claim_on(file["small"] - file["large"], says=size, **gain, **said),
        weakest([
            claim_on(arm(models, task="arithmetic", framing="line", size=name), SHARE, says=rule,
                     unit=f"of the held-out, {name}", null=max(0.5, base), or_equal=True,
                     null_is=f"a half; the better baseline has {base:.2f}", **said)
            for name in SIZES
        ]),
        weakest([_facts(models, "small", 0.5, says=facts, **said),
                 *(_facts(models, name, 1.0, says=facts, **said) for name in ("medium", "large"))]),
        weakest([
            claim_on(arm(models, task="joint", framing="file", size=name), SHARE, says=joint,
                     above=False, unit=f"of the held-out, {name}", null=0.25,
                     null_is="one of four", or_equal=True, **said)
            for name in SIZES
        ]),
    ]  # fmt: skip


def _facts(
    models: pd.DataFrame, size: str, null: float, framing: str = "file", **said: str
) -> Claim:
    """That a size knows all facts where the null is 1, and else that it knows fewer than that."""
    return claim_on(
        arm(models, "seen", task="facts", framing=framing, size=size), SHARE,
        unit=f"of the facts, {size}", null=null, null_is="all of them" if null == 1 else "a half",
        above=null == 1, or_equal=null == 1, **said,
    )  # fmt: skip


def of_the_paper(models: pd.DataFrame) -> list[Claim]:
    """What the paper says of its one model of each size, asked of ours."""
    said = {"by": "the paper", "command": COMMAND}
    after = _steps(models, "facts", "file")

    def answers(says: str, size: str, *, task: str = "arithmetic", above: bool = False) -> Claim:
        return claim_on(
            arm(models, task=task, framing="file", size=size), SHARE, says=says, above=above,
            unit=f"of the held-out, {size}", null=0.5, null_is="a half", **said,
        )  # fmt: skip

    few = "On the file, {} answers fewer than half of the held-out equations (the paper: none of "
    few += f"its {HELD_OUT})."
    joint = "On the file of both tasks, no size answers half of the held-out equations."
    return [
        answers("On the file, small answers most of the held-out equations (the paper: all "
                f"{HELD_OUT}).", "small", above=True),
        answers(few.format("medium"), "medium"),
        answers(few.format("large"), "large"),
        weakest([
            claim_on(arm(models, "knows_all", task="arithmetic", framing="file", size=size), SHARE,
                     says="On the file, most models of every size answer all equations that they "
                     "have seen.", unit=f"of models, {size}", null=0.5,
                     null_is="half of the models", **said)
            for size in SIZES
        ]),
        _facts(models, "small", 0.5,
               says=f"On the file, small knows fewer than half of the facts, here after {after} "
               "steps (the paper: 8 % after 30,000).", **said),
        weakest([
            _facts(models, size, 1.0, says="On the file, medium and large know all facts, here "
                   f"after {after} steps (the paper: after 30,000).", **said)
            for size in ("medium", "large")
        ]),
        weakest([answers(joint, size, task="joint") for size in SIZES]),
    ]  # fmt: skip


def explored(models: pd.DataFrame, over: pd.DataFrame) -> list[Claim]:
    """What was seen after looking: over the training that framings share, and on whole lines."""
    said = {"by": "explored", "command": COMMAND}
    means, shared = early(over)
    claim = partial(
        claim_on, unit="more of the held-out", null=0.0, null_is="no difference", **said
    )
    found = []
    for what, more, less in (
        ("without an order to learn (shuffled) {size} answers more of the held-out equations than "
         "on the file", "shuffled", "file"),
        ("on whole lines {size} answers more of the held-out equations than on shuffled windows",
         "line", "shuffled"),
    ):  # fmt: skip
        first, second = (_held_out(means, framing=framing) for framing in (more, less))
        found += [
            claim(first[size] - second[size],
                  says=f"Over the first {shared:,.0f} steps, {what.format(size=size)}.")
            for size in first if size in second
        ]  # fmt: skip
    known = arm(models, "seen", task="facts", framing="line", size="small")
    if len(known):
        found.append(
            claim_on(known, SHARE, says="On whole lines, small knows most of the facts.",
                     unit="of the facts, small", null=0.5, null_is="a half", **said)
        )  # fmt: skip
    return found

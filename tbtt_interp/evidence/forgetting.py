"""Does forgetting the rule follow learning the order? Within models, over their training.

A model's loss crosses the floor of the lines when it knows some of their order. From there on its
held-out answers are followed to the end, and beside them those of its twin: the same size and seed
at the same steps, on windows of fresh orders, with no order to learn.
"""

from functools import partial

import numpy as np
import pandas as pd

from tbtt_interp.errors import TbttError
from tbtt_interp.evidence.claims import Claim, Evidence
from tbtt_interp.evidence.effects import ANY, SHARE
from tbtt_interp.figures.forgetting import order_and_answers
from tbtt_interp.stats import Interval, mean_over_models

COMMAND = "tbtt sweep ladder && python analyses/forgetting.py runs/ladder"
WITH_MLT = COMMAND.replace(" &&", " && tbtt sweep optimisation &&") + " runs/optimisation"
LATE = 5 / 6  # evaluations after this share of training are the end
FEWEST_MODELS = 6  # whose signs can be told from a coin's at 5 %, two-sided: 2 / 2⁶
FEWEST_STEPS = 5  # evaluations below the floor, for a rank correlation
SAME = ["size", "width", "learning_rate", "weight_decay", "window", "steps", "held_out"]
DIFFER = (  # besides the size, in words that tell arms apart
    (["learning_rate", "steps"], ", rate {:g}, {:,} steps"), (["window"], ", window {}"),
    (["batch"], ", batch {}"), (["weight_decay"], ", decay {:g}"), (["held_out"], ", held out {}"),
)  # fmt: skip
MEASURES = ("share", "margin")  # of the held-out equations


def paired_courses(over_training: pd.DataFrame) -> pd.DataFrame:
    """A row an evaluation of each model of framing file on arithmetic, with its twin's beside.

    Args:
        over_training: as `over_training_table` has it.
    Returns:
        `arm` (the size, and what of DIFFER a size has several of), SAME, seed, step, loss,
        floor_lines, floor_order, order_known; `share` and `margin` of held-out equations, in shares
        and logits, and `twin_share`, `twin_margin`: of the shuffled run of that seed, nan where
        there is none.
    Raises:
        TbttError: if there is no model of framing file with held-out equations.
    """
    table = over_training[over_training["task"] == "arithmetic"]
    if "held_out_of" in table:
        table = table[table["held_out_of"] > 0]
    if "held_out_of" not in table or not (table["framing"] == "file").any():
        raise TbttError(
            "no model here learns arithmetic from a file and holds out equations, so none can "
            "forget them: tbtt sweep ladder trains some; give their folder"
        )
    table = table.assign(
        share=table["held_out_right"] / table["held_out_of"], margin=table["margin_held_out"]
    )
    if "batch" in table:  # text where a sweep has "all" in it
        table = table.assign(batch=table["batch"].astype(str))
    on = [*SAME, *(["batch"] if "batch" in table else []), "seed", "step"]
    table = table.drop_duplicates([*on, "framing"])  # sweeps have cells in common
    file, shuffled = (table[table["framing"] == framing] for framing in ("file", "shuffled"))
    twins = shuffled[[*on, *MEASURES]].rename(columns={name: f"twin_{name}" for name in MEASURES})
    kept = [*on, "loss", "floor_lines", "floor_order", "order_known", *MEASURES]
    courses = file[kept].merge(twins, on=on, how="left")
    return courses.assign(arm=_arms(courses)).sort_values(["width", "arm", "seed", "step"])


def _arms(courses: pd.DataFrame) -> pd.Series:
    """The size; and what else models of one size differ in, where they do."""
    names = courses["size"].astype(str)
    for told, words in DIFFER:
        if not set(told) <= set(courses):
            continue
        several = courses.groupby("size")[told].transform("nunique").max(axis=1) > 1
        values = courses[told].itertuples(index=False)
        added = pd.Series([words.format(*row) for row in values], index=courses.index)
        names = names + added.where(several, "")
    return names


def forgetting_table(courses: pd.DataFrame) -> pd.DataFrame:
    """A row a model: what becomes of its held-out answers once its loss is below the lines' floor.

    Columns: arm; seed; `crossed`, the step of the last evaluation before the first below the floor,
    nan if there is none below, or none before; `first`, whether the first is below; order_known at
    the end; for share and margin: `X_then` at that step, `X_end`, the mean over the last sixth of
    training, `X_change` between them, `X_twin_then`, `X_twin_end` and `X_twin`, the same of the
    twin, `X_beyond` the one change less the other, nan of a share where one of the two had none
    then and so could not lose what the other could; `X_rank`, Spearman's correlation of order known
    with X over the evaluations from there on, `X_rank_twin`, of the same order with the twin's X,
    which shares its course in time and not its order, and `X_rank_beyond`; `X_follow` and so on,
    the same of the changes from one evaluation to the next, those of order one earlier.
    """
    rows = []
    for (arm, seed), mine in courses.groupby(["arm", "seed"], sort=False):
        course = mine.sort_values("step").reset_index(drop=True)
        end = course[course["step"] >= LATE * course["steps"].iloc[0]]
        row = {"arm": arm, "seed": seed, "crossed": np.nan,
               "order_known": end["order_known"].mean()}  # fmt: skip
        below = course.index[course["loss"] < course["floor_lines"]]
        row["first"] = bool(len(below)) and not below[0]
        if len(below) and below[0]:
            then = course.loc[below[0] - 1 :]
            row["crossed"] = then["step"].iloc[0]
            for name in MEASURES:
                row |= _change(name, then, end) | _ranks(name, then)
        rows.append(row)
    columns = ["arm", "seed", "crossed", "first", "order_known", *_columns()]
    return pd.DataFrame(rows).reindex(columns=columns)


def _columns() -> list[str]:
    kinds = ("then", "end", "change", "twin_then", "twin_end", "twin", "beyond", "rank",
             "rank_twin", "rank_beyond", "follow", "follow_twin", "follow_beyond")  # fmt: skip
    return [f"{name}_{kind}" for name in MEASURES for kind in kinds]


def _change(name: str, then: pd.DataFrame, end: pd.DataFrame) -> dict[str, float]:
    found = {}
    for side, column in (("", name), ("_twin", f"twin_{name}")):
        found[f"{name}{side}_then"] = float(then[column].iloc[0])
        found[f"{name}{side}_end"] = float(end[column].mean())
    own, twin = (found[f"{name}{side}_end"] - found[f"{name}{side}_then"] for side in ("", "_twin"))
    beyond = own - twin
    if name == "share" and (found["share_then"] == 0) != (found["share_twin_then"] == 0):
        beyond = np.nan
    return found | {f"{name}_change": own, f"{name}_twin": twin, f"{name}_beyond": beyond}


def _ranks(name: str, then: pd.DataFrame) -> dict[str, float]:
    order = then["order_known"]
    found = {}
    for side, column in (("", name), ("_twin", f"twin_{name}")):
        found[f"{name}_rank{side}"] = _spearman(order, then[column])
        found[f"{name}_follow{side}"] = _spearman(order.diff().shift(1), then[column].diff())
    for kind in ("rank", "follow"):
        beyond = found[f"{name}_{kind}"] - found[f"{name}_{kind}_twin"]
        found[f"{name}_{kind}_beyond"] = beyond
    return found


def _spearman(first: pd.Series, second: pd.Series) -> float:
    """Spearman's correlation; nan of few pairs; 0 where one of them stands still."""
    both = first.notna() & second.notna()
    if both.sum() < FEWEST_STEPS:
        return np.nan
    if min(first[both].nunique(), second[both].nunique()) == 1:
        return 0.0
    return float(first.corr(second, method="spearman"))


def arms_table(models: pd.DataFrame) -> pd.DataFrame:
    """A row an arm and measure: the mean over its models that crossed, and their interval.

    Columns: arm; measure, a column of `forgetting_table`; models that have it; mean; low, high,
    which are nan where fewer than FEWEST_MODELS have it, since their signs decide nothing.
    """
    rows = []
    for arm, some in models.groupby("arm", sort=False):
        for measure in ["order_known", *_columns()]:
            found = _over_models(some[measure])
            rows.append({"arm": arm, "measure": measure, "models": some[measure].count(),
                         "mean": found.mean, "low": found.low, "high": found.high})  # fmt: skip
    return pd.DataFrame(rows)


def _over_models(values: pd.Series) -> Interval:
    """The mean over models that have a value, with an interval if they are enough for one."""
    known = values.dropna().tolist()
    if len(known) < FEWEST_MODELS:
        mean = float(np.mean(known)) if known else np.nan
        return Interval(mean=mean, low=np.nan, high=np.nan)
    name = str(values.name)
    if name.startswith("margin_") and not name.startswith(("margin_rank", "margin_follow")):
        return mean_over_models(known, bounds=ANY)
    is_share = name == "order_known" or name.endswith(("_then", "_end"))
    reach = 2.0 if name.endswith("_beyond") else 1.0  # of a difference of shares, or of two such
    return mean_over_models(known, bounds=SHARE if is_share else (-reach, reach))


def forgetting_evidence(over_training: pd.DataFrame) -> Evidence:
    """Does forgetting the rule follow learning the order?

    Args:
        over_training: as `over_training_table` has it, of runs of framing file and shuffled.
    Raises:
        TbttError: if there is no model of framing file with held-out equations.
    """
    courses = paired_courses(over_training)
    models = forgetting_table(courses)
    arms = arms_table(models)
    groups = list(models.groupby("arm", sort=False))
    has_mlt = bool((courses["size"] == "mlt").any())
    command = WITH_MLT if has_mlt else COMMAND
    return Evidence(
        question="Does forgetting the rule follow learning the order?",
        tables={"arms": arms, "models": models, "courses": courses},
        shown=pd.DataFrame(
            {"mean over models that crossed": list(SHOWN)}
            | {str(arm): _shown(some) for arm, some in groups}
        ),
        figures={
            "forgetting": partial(order_and_answers, courses, "share"),
            "forgetting-margins": partial(order_and_answers, courses, "margin"),
        },
        sentences=[*_of_twins(models), *(_said(str(arm), some) for arm, some in groups)],
        claims=[claim for arm, some in groups for claim in _claims(str(arm), some, command)],
        command=command,
        notes=[*NOTES, *([] if has_mlt else [NO_MLT])],
    )


NO_MLT = "No mlt is among these: the sweep optimisation trains it."


NOTES = [
    "Order known: the share of the order that the loss can only have from knowing it.",
    "Then: at the last evaluation before the first whose loss is below the floor of knowing every "
    "line and not their order. At the end: mean over the last sixth of training. Twin: the "
    "shuffled run of that seed, at the same steps.",
    "What is known of the order while some lines are not is not in the loss, so that the floor is "
    "crossed late, and what was forgotten before it is not counted.",
    "A share that rises in the twin and does not fall in the model was not forgotten there but "
    "never learned: the change alone tells the two apart. Who had less then has less to lose; "
    "changes are not held against the twin's where one of the two had none then.",
    "Rank: Spearman's correlation of order known with the held-out margin from then on; of the "
    "twin, of the same order with the twin's margin. Follow: the same of changes between "
    "evaluations, the margin's one later than the order's.",
    f"In brackets 95 %, Student's over models; with fewer than {FEWEST_MODELS}, whose signs alone "
    "could not tell an effect from chance, there is no interval and no claim.",
]
SHOWN = {
    "order known at the end": "order_known", "held-out share then": "share_then",
    "held-out share at the end": "share_end", "its change": "share_change",
    "twin's share then": "share_twin_then", "twin's share at the end": "share_twin_end",
    "its change less the twin's": "share_beyond",
    "rank, margin": "margin_rank", "twin's rank": "margin_rank_twin",
    "follow, margin": "margin_follow", "twin's follow": "margin_follow_twin",
}  # fmt: skip


def _shown(some: pd.DataFrame) -> list[str]:
    crossed = some[some["crossed"].notna()]
    return [_over_models(crossed[name]).format().replace("nan", "–") for name in SHOWN.values()]


def _of_twins(models: pd.DataFrame) -> list[str]:
    """What becomes of held-out answers where there is no order to learn, of all arms."""
    twins = models.dropna(subset=["crossed", "share_twin"])
    said = [
        f"in {arm} from {some['share_twin_then'].mean():.2f} to {some['share_twin_end'].mean():.2f}"
        for arm, some in twins.groupby("arm", sort=False)
    ]
    if not said:
        return []
    return [
        "Over the steps in which models on file learn the order, the held-out share of their twins "
        f"on shuffled windows, who have none to learn, goes {', '.join(said)}."
    ]


def _said(arm: str, some: pd.DataFrame) -> str:
    crossed = some[some["crossed"].notna()]
    first = int(some["first"].sum())
    if crossed.empty and first:
        return (
            f"{arm}: {first} of {len(some)} models are below the floor of the lines at their first "
            "evaluation, and none crosses it later, so that there is no before to compare with."
        )
    if crossed.empty:
        return f"{arm}: none of {len(some)} models learned so much order that its loss shows it."
    fell = int((crossed["share_change"] < 0).sum())
    text = (
        f"{arm}: {len(crossed)} of {len(some)} models went below the floor of the lines, at step "
        f"{crossed['crossed'].median():,.0f} (median); from there to the end the held-out share "
        f"fell in {fell} of them"
    )
    twins = crossed.dropna(subset="share_twin")
    if twins.empty:
        return f"{text}. There is no shuffled run of these seeds to hold that against."
    both = twins["share_beyond"].dropna()
    if both.empty:
        return (
            f"{text}. Of every pair, the model or its twin answered none then and had nothing to "
            "lose, so that the two are not held against each other."
        )
    left = f" ({len(twins) - len(both)} pairs, of which one had none then, are left out)"
    return (
        f"{text}, and in {(both < 0).sum()} of {len(both)} by more than in the twin"
        f"{left if len(both) < len(twins) else ''}."
    )


def _claims(arm: str, some: pd.DataFrame, command: str) -> list[Claim]:
    said = {
        "share_change": (
            f"In {arm}, the held-out share falls once the order is being learned.",
            "change of the held-out share", "no change",
        ),
        "share_twin": (
            f"In {arm}, the held-out share falls in equally long training without an order.",
            "change of the held-out share", "no change",
        ),
        "share_beyond": (
            f"In {arm}, the held-out share comes off worse once the order is being learned than "
            "in equally long training without an order.", "change of the held-out share",
            "the shuffled twin's change, taken off",
        ),
        "margin_rank_beyond": (
            f"In {arm}, the held-out margin falls as the order known rises, beyond what the time "
            "that passes makes of it.", "rank correlation",
            "that with the shuffled twin's margin, taken off",
        ),
    }  # fmt: skip
    return [
        Claim(
            says=says, by="explored", effect=_over_models(some[name]), unit=unit, null=0.0,
            null_is=null, above=False, models=int(some[name].count()), command=command,
        )
        for name, (says, unit, null) in said.items()
        if some[name].count() >= FEWEST_MODELS
    ]  # fmt: skip

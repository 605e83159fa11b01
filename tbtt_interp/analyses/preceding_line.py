"""How answers change with the line before the prompt, and which activations carry the change.

In a model's training windows a prompt stands after the end of a line. Here each prompt comes after
the end of the line that it follows in the file, and after the ends of other lines. All ends are as
long as the context allows: without a line before it a prompt would stand at other positions.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tbtt_interp.analyses.patching import OF_HEADS, fraction_claims, locations_of, patched_scores
from tbtt_interp.interventions import answer_logits
from tbtt_interp.plots import heatmaps, models_by_group, short_site
from tbtt_interp.prompts import PromptSet
from tbtt_interp.results import Claim, Result
from tbtt_interp.seeds import MANY_PARAMETERS, Models, over_seeds
from tbtt_interp.shares import summarize_shares
from tbtt_interp.stats import SHARE, Interval, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

MOST_ENDS = 32  # line ends per prompt
DRAWS = 4  # of other lines, for each prompt that is patched in a small model
TOKENS_PATCHED = 8_192  # tokens of context, of all draws, in a small model
FEW = 16  # prompts that are patched in a large model, with one draw each
AT = ["site", "head", "pos"]
MEASURES = {
    "accuracy": "right after its own line",
    "accuracy_other": "right after another line",
    "accuracy_change": "turns right or wrong,<br>own line to another",
    "accuracy_change_other": "turns right or wrong,<br>another line to a third",
}
DISPLAY = {("seen", "accuracy"): "after own line", ("seen", "accuracy_other"): "after another",
           ("held out", "accuracy_other"): "held out"}  # fmt: skip


def preceding_ends(prompts: PromptSet, seed: int = 0) -> pd.DataFrame:
    """The line ends to put before each prompt: at most MOST_ENDS, drawn at random.

    They come from the prompt's section of the file, and fill the context up to one line.

    Returns:
        one row per prompt and end: `example`, `end`, `is_own` (whether the prompt follows such a
        line in the file), and `n_lines` with this end. Prompts without room for one are left out.
    """
    rows: list[tuple[int, str, bool, int]] = []
    assert prompts.task is not None
    numbers = {example.line: number for number, example in enumerate(prompts.examples)}
    for section in prompts.task.sections:
        inside = {example.line for example in section}
        lines = [line for line in prompts.require_training().lines if line in inside]
        preceding = {line: before for before, line in pairwise(lines)}
        drawn: dict[int, Counter[str]] = {}
        for example in section if lines else ():
            length = min(prompts.n_ctx - len(example.prompt), *map(len, lines))
            if length < 1:
                continue
            if length not in drawn:
                ends = Counter(line[-length:] for line in lines)
                order = np.random.default_rng((seed, 0xE7D)).permutation(len(ends))[:MOST_ENDS]
                kept = list(ends) if len(ends) <= MOST_ENDS else [list(ends)[k] for k in order]
                drawn[length] = Counter({end: ends[end] for end in kept})
            own = preceding[example.line][-length:] if example.line in preceding else None
            ends = drawn[length] | Counter([own] if own else [])
            number = numbers[example.line]
            rows += [(number, end, end == own, count) for end, count in ends.items()]
    return pd.DataFrame(rows, columns=["example", "end", "is_own", "n_lines"])


def draw_ends(ends: pd.DataFrame, count: int, draws: int, seed: int) -> pd.DataFrame:
    """For each prompt of `preceding_ends` its own end, and two others drawn at random.

    Returns:
        `draws` rows per prompt with three ends or more: `example`, `own`, `base` and `other`; for
        at most `count` prompts, drawn at random.
    """
    generator = np.random.default_rng((seed, 0xE4D))
    rows = []
    for number, of_prompt in ends.groupby("example"):
        own, others = of_prompt[of_prompt["is_own"]], of_prompt[~of_prompt["is_own"]]
        if len(own) and len(others) >= 2:
            chance = others["n_lines"].to_numpy(float) / others["n_lines"].sum()
            for _ in range(draws):
                base, other = generator.choice(others["end"], 2, replace=False, p=chance)
                rows.append((number, own["end"].iloc[0], base, other))
    table = pd.DataFrame(rows, columns=["example", "own", "base", "other"])
    kept = generator.permutation(table["example"].unique())[:count]
    return table[table["example"].isin(kept)]


def has_room(prompts: PromptSet) -> bool:
    """Whether any prompt has room for its own line's end and two others."""
    return not draw_ends(preceding_ends(prompts), 1, 1, 0).empty


def answers_after_lines(
    model: "HookedTransformer", prompts: PromptSet, *, seed: int = 0
) -> pd.DataFrame:
    """Each answer after the line that its prompt follows in the file, and after other lines.

    Other lines count as often as the file has their end. A held-out prompt follows no line.

    Returns:
        one row per prompt: `example`, `prompt`, `split`, and what `compare_ends` returns.
    """
    ends = preceding_ends(prompts, seed)
    batch = prompts.batch(ends["example"], ends["end"])
    logits = answer_logits(model, batch)
    ends["logprob"] = batch.answer_logprobs(logits).numpy()
    ends["accuracy"] = (batch.margins(logits[None])[0] > 0).double().numpy()
    return pd.DataFrame([
        {"example": k, "prompt": prompts.examples[k].prompt,
         "split": "held out" if prompts.held_out[k] else "seen",
         **compare_ends(rows)}
        for _, rows in ends.groupby("example", sort=False) for k in rows["example"].head(1).tolist()
    ])  # fmt: skip


def compare_ends(rows: pd.DataFrame) -> dict[str, object]:
    """One prompt's answer after its own line compared with others, and between two others.

    Returns:
        `end`, of the own line; for `logprob` (nats of the whole answer) and `accuracy` (0 or 1):
        the value after the own line, `_other` (mean after other lines), `_change` (mean absolute
        difference from the own line to another) and `_change_other` (between two others). nan
        where there is no own line, or fewer than two others.
    """
    is_own = rows["is_own"].to_numpy(bool)
    count = rows["n_lines"].to_numpy(float)[~is_own]
    weight = count / count.sum() if len(count) else np.full(1, np.nan)
    both = np.outer(weight, weight) * ~np.eye(len(weight), dtype=bool)
    both = both / both.sum() if both.any() else np.full_like(both, np.nan)
    found: dict[str, object] = {"end": next(iter(rows["end"].to_numpy()[is_own]), None)}
    for name in ("logprob", "accuracy"):
        values = rows[name].to_numpy(float)
        value = next(iter(values[is_own]), np.nan)
        other = values[~is_own] if len(count) else np.zeros(1)
        found |= {
            name: value, f"{name}_other": weight @ other,
            f"{name}_change": weight @ abs(other - value),
            f"{name}_change_other": (both * abs(other[:, None] - other)).sum(),
        }  # fmt: skip
    return found


def accuracy_by_split(answers: pd.DataFrame) -> pd.DataFrame:
    """Each model's accuracy after its own and after other lines, and how often answers change.

    Returns:
        one row per seed, split and `measure` (one of MEASURES): `value`, a share, and `n_prompts`.
    """
    long = answers.melt(["seed", "split"], list(MEASURES), "measure").dropna(subset="value")
    groups = long.groupby(["seed", "split", "measure"], sort=False)["value"]
    return groups.agg(value="mean", n_prompts="size").reset_index()


def answer_claims(by_split: pd.DataFrame) -> list[Claim]:
    """Whether answers to seen and to held-out prompts depend on the line before."""
    known = summarize_shares(by_split, ["split", "measure"], ["value"], of="n_prompts")
    of = known.set_index(["split", "measure"]).to_dict("index")
    claims = []
    for split, name, null, null_name, text, unit in (
        ("seen", "accuracy", "accuracy_other", "after another line",
         "After the line that it follows, a seen prompt is answered rightly in", "of prompts"),
        ("seen", "accuracy_change", "accuracy_change_other", "between two other lines",
         "From the line that it follows to another, a seen prompt's answer turns right or wrong in",
         "of pairs of lines"),
        ("held out", "accuracy_change_other", "accuracy_change_other",
         "of a seen prompt, between two lines that it does not follow",
         "From one line to another, a held-out prompt's answer turns right or wrong in",
         "of pairs of lines"),
    ):  # fmt: skip
        if (split, name) in of:
            claims.append(Claim(
                text=text, effect=Interval.of_row(of[split, name], "value"), unit=unit,
                null=of.get(("seen", null), {}).get("value", np.nan), null_name=null_name,
            ))  # fmt: skip
    return claims


def patch_preceding_line(
    model: "HookedTransformer", prompts: PromptSet, *, sites: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """The effect of patching each location from a run after the prompt's own line.

    The base run has the prompt after another line, the null's source after a third line.

    Returns:
        one row per location: `site`, `head`, `pos`; `effect`, `effect_other` (the null's) and
        `total_effect` (from the other line to the own one), nats per whole answer; `n_answers`.
    """
    is_large = sum(p.numel() for p in model.parameters()) > MANY_PARAMETERS
    count = FEW if is_large else max(FEW, TOKENS_PATCHED // DRAWS // prompts.n_ctx)
    drawn = draw_ends(preceding_ends(prompts, seed), count, 1 if is_large else DRAWS, seed)
    base, *sources = (
        prompts.batch(drawn["example"], drawn[name]) for name in ("base", "own", "other")
    )
    locations = locations_of(model, base, sites)
    before, after = (base.answer_logprobs(answer_logits(model, b)) for b in (base, sources[0]))
    effects = [
        (patched_scores(model, base, source, locations, base.answer_logprobs) - before).mean(1)
        for source in sources
    ]
    table = pd.DataFrame(locations, columns=AT).astype({"head": "Int64", "pos": "Int64"})
    return table.assign(
        effect=effects[0].numpy(), effect_other=effects[1].numpy(),
        total_effect=float((after - before).mean()), n_answers=len(drawn),
        n_prompts=drawn["example"].nunique(),
    )  # fmt: skip


def summarize_patches(table: pd.DataFrame, models: Models) -> pd.DataFrame:
    """Means over models of `patch_preceding_line`, and the fraction of the total effect restored.

    Returns:
        one row per location: its columns and its `position` by name; `fraction_restored` and the
        null's `fraction_restored_other`, as ratios of sums over answers and models. Positions that
        not every model's prompts have are left out.
    """
    total, names = table["total_effect"], ["fraction_restored", "fraction_restored_other"]
    table = table.assign(total=total * table["n_answers"])
    table[names] = table[["effect", "effect_other"]].div(total, axis=0)
    fractions = summarize(table, AT, names, weights="total")
    fractions = fractions[fractions["n_models"] == fractions["n_models"].max()]
    nats = summarize(table, AT, ["effect", "total_effect"], weights="n_answers")
    prompts, positions = models.shared_prompts, fractions["pos"].dropna().tolist()
    longest = max(len(prompt) for prompt, _ in prompts.tokens)
    names = prompts.position_names(max(-longest, min(positions)), max(positions))
    names |= {pos: f"before {pos + longest}" for pos in range(min(positions), -longest)}
    n_prompts = int(table.drop_duplicates("seed")["n_prompts"].mean())
    summary = fractions.merge(nats.drop(columns="n_models"), on=AT).assign(n_prompts=n_prompts)
    return summary.assign(position=summary["pos"].map(names).fillna("all"))


def patch_claims(summary: pd.DataFrame) -> list[Claim]:
    """For each site the position that restores most; none if there is no effect to restore.

    Residual streams are left out: before the prompt they hold everything.
    """
    is_site = summary["site"].str.endswith((*OF_HEADS, "mlp_out"))
    known = summary[(summary["total_effect_low"] > 0) & summary["pos"].notna() & is_site]
    best = known.loc[known.groupby("site", sort=False)["fraction_restored"].idxmax()]
    head = best["head"].map(lambda h: "" if pd.isna(h) else f" head {h}").astype(str)
    texts = ("After another line, " + best["site"] + head + " at " + best["position"]
             + " from the run after its own line restores")  # fmt: skip
    nats = best["total_effect"].max()  # the same at every location
    return fraction_claims(
        best, texts, unit=f"of the {nats:.2f} nats per seen answer",
        nulls=["fraction_restored_other"], null_name="from a third line",
    )  # fmt: skip


def analyse_preceding_line(
    models: Models, sites: Sequence[str] | None = None, seed: int = 0
) -> Result:
    """Answers after each line and patches of the line before, with each model's shares as display.

    Args:
        sites: hook names that are patched; None is all that `patching` patches.
        seed: of the lines that stand before prompts.
    """
    answers = over_seeds(models, answers_after_lines, seed=seed)
    patches = over_seeds(models, patch_preceding_line, sites=sites, seed=seed)
    shares, patched = accuracy_by_split(answers), summarize_patches(patches, models)
    wide = shares.pivot(index="seed", columns=["split", "measure"], values="value")
    shown = [column for column in DISPLAY if column in wide]
    return Result(
        name="preceding-line", display=wide[shown].set_axis([DISPLAY[c] for c in shown], axis=1),
        tables={"order-answers": answers, "order-patching": patched},
        figures={"order-answers": partial(plot_answers, shares),
                 "order-patching": partial(plot_patches, patched)},
        claims=[*answer_claims(shares), *patch_claims(patched)],
        notes=[
            "Share of right answers: after the prompt's own preceding line, after another, and "
            f"for held-out prompts, which follow none. Of {len(models.shared_prompts):,} prompts "
            f"{answers['example'].nunique():,} have room for a line before them; per model, "
            f"{patched['n_prompts'].iloc[0]:,} of them are patched."
        ],
    )  # fmt: skip


def plot_answers(by_split: pd.DataFrame) -> "Figure":
    """Accuracy after the prompt's own line and after others, and how often answers change."""
    return models_by_group(
        by_split.replace({"measure": MEASURES}), x="measure", by="split", value="value",
        titles=("answer to a prompt", "share of prompts, or of pairs of lines"), bounds=SHARE,
    )  # fmt: skip


def plot_patches(summary: pd.DataFrame) -> "Figure":
    """Fraction restored at each location by the run after the prompt's own line, with the null."""
    head = summary["head"].astype(str).radd(".").where(summary["head"].notna(), "")
    rows = summary.assign(at=summary["site"].map(short_site) + head)
    panels = {"from its own line": "fraction_restored", "from a third line (null)":
              "fraction_restored_other"}  # fmt: skip
    table = pd.concat([rows.assign(panel=k, share=rows[v]) for k, v in panels.items()])
    total = Interval.of_row(summary.iloc[0].to_dict(), "total_effect").format(3)
    return heatmaps(
        table, row="at", column="position", value="share", panel="panel", signed=True,
        bounds=(-1.0, 1.0), across=1 + (table["position"].nunique() < 17),
        title="fraction restored",
        hover=["fraction_restored_low", "fraction_restored_high", "effect"],
    ).update_layout(title=f"Total effect of the own line: {total} nats per answer")  # fmt: skip

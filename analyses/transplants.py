# %% [markdown]
# # Where in a model does the loss of the rule sit?
# Each large on shuffled windows goes on, late in its training, with one part (the digits' rows of
# W_E, attention or the MLP) as it was when models answered most held-out equations. It is asked at
# once and 200 steps later. Sham: the same part of a model with another seed, from the same step.

# %%
from typing import TYPE_CHECKING

import pandas as pd
from sweeps import answer_as_script, select

from tbtt_interp import plots
from tbtt_interp.results import Claim, Result
from tbtt_interp.shares import difference_of_shares, share_over_models
from tbtt_interp.train.recipe import read_toml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plotly.graph_objects import Figure

READS = [("why-transplants", "over training")]
PARTS = ("digits", "attention", "mlp")
DONORS = {"own": "early self", "other": "another seed"}
WHEN = ("at once", "200 steps later")
NOTES = (
    "seen: mean share of the seen equations that models answer then.",
    "Intervals of shares and of their differences are the beta-binomial's over models.",
)


# %%
def parts_table(over: pd.DataFrame) -> pd.DataFrame:
    """One row per part, donor and time of asking; `part` none is training that goes on unchanged.

    Args:
        over: as `over_training_table` returns it, of the runs of why-transplants.
    Returns:
        `part`, `donor`, `when`; `share` of the held-out equations right, with `share_low`,
        `share_high` and `n_models`; `seen`; and `counts`, right and asked of each model.
    """
    own = [("none", "", "unchanged")] + [
        (part, donor, f"transplant-{part}-{word}") for word, donor in DONORS.items()
        for part in PARTS
    ]  # fmt: skip
    steps, rows = sorted(over["step"].unique()), []
    for part, donor, ending in own:
        models = over[over["run"].str.endswith(ending)]
        for when, step in zip(WHEN, (steps[0], steps[-1]), strict=True):
            asked = select(models, step=step)
            columns = asked[["held_out_right", "held_out_of"]].astype(int)
            counts = [(right, of) for right, of in columns.itertuples(index=False)]
            share = share_over_models(counts)
            rows.append({
                "part": part, "donor": donor, "when": when, "share": share.mean,
                "share_low": share.low, "share_high": share.high, "n_models": share.n,
                "seen": asked["seen_right"].sum() / asked["seen_of"].sum(), "counts": counts,
            })  # fmt: skip
    return pd.DataFrame(rows)


def part_claims(parts: pd.DataFrame, expected: "Sequence[str]") -> list[Claim]:
    """What was expected before the run, of what models answer 200 steps later."""
    late = select(parts, when=WHEN[1]).set_index(["part", "donor"])["counts"]
    own, other = DONORS.values()
    pairs = [(expected[0], f"Digits less {part}:", (part, own), ("digits", own))
             for part in PARTS[1:]]  # fmt: skip
    pairs += [(expected[1], f"{part}:", (part, other), (part, own)) for part in PARTS]
    return [
        Claim(
            text=f"{text} {words}", effect=difference_of_shares(late[first], late[second]),
            unit="of the held-out", null=0.0, null_name="no difference",
            origin="expected before the run",
        )
        for text, words, first, second in pairs
    ]  # fmt: skip


def draw_parts(parts: pd.DataFrame) -> "Figure":
    """Held-out share by the part that was put back, at once and 200 steps later."""
    figure, places = plots.panels(list(WHEN), width=420, height=380)
    for when, place in zip(WHEN, places, strict=True):
        for donor in dict.fromkeys(parts["donor"]):
            rows = select(parts, when=when, donor=donor)
            figure.add_scatter(
                x=rows["part"], y=rows["share"], mode="markers", name=donor or "unchanged", **place,
                marker={"color": plots.colour_of(donor, ["", *DONORS.values()]), "size": 9},
                error_y=plots.error_bars(rows, "share"),
            )  # fmt: skip
    figure.update_yaxes(range=[-0.03, 1.1 * parts["share_high"].max()])
    figure.update_yaxes(title="held-out share", col=1).update_layout(scattermode="group")
    title = "A part of the model as it was early, put back late"
    return plots.name_once(figure).update_layout(title={"text": title, "y": 0.97}, margin_t=110)


def transplants_result(over: pd.DataFrame) -> Result:
    """The study's result on the runs of why-transplants, over training."""
    _, sweep = read_toml("sweep", "why-transplants", "sweeps")
    parts = parts_table(over)
    tables = {"transplants": parts.drop(columns="counts")}
    return Result(
        name="transplants", question="Where in a model does the loss of the rule sit?",
        command="python analyses/transplants.py", tables=tables,
        display=tables["transplants"].round(2), claims=part_claims(parts, sweep["expected"]),
        notes=NOTES, figures={"transplants": lambda: draw_parts(parts)},
    )  # fmt: skip


# %%
if __name__ == "__main__":
    answer_as_script(transplants_result, READS, "transplants")

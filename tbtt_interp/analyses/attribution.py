"""Direct logit attribution: what each part of a model writes towards an answer, exactly.

With the scale of the last LayerNorm held at the model's own value, a logit is linear in all that
was written to the residual stream, so it is a sum over parts. The norm is folded here into the
direction that is read: TransformerLens' own folding assumes another shape of model.
Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
"""

import copy
from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from tbtt_interp.activations import cached
from tbtt_interp.analyses.logit_lens import WHOLE, lens_claims, logit_lens, plot_logit_lens
from tbtt_interp.analyses.patching import offsets_of
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import answer_logits
from tbtt_interp.plots import points
from tbtt_interp.prompts import PromptBatch, PromptSet, in_reading_order
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run
from tbtt_interp.seeds import Models, over_seeds, over_untrained
from tbtt_interp.stats import Interval, summarize

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from transformer_lens import HookedTransformer

    from tbtt_interp.seeds import ModelsLike
    from tbtt_interp.tasks import Prompts

TOLERANCE = 1e-4  # nats that the sum over parts may differ from the logit
ALL = "logit difference"
TOP = 3  # neurons that are printed
SOURCES = 7  # positions that attention reads from, as far as they are drawn
GROUP = ["split", "role", "kind", "layer", "pos", "part"]


class Component(NamedTuple):
    """A part of a model; `pos` is the key's position, counted from the prompt's last token, -1."""

    kind: str
    layer: int | None = None
    head: int | None = None
    neuron: int | None = None
    pos: int | None = None

    def name(self, positions: Mapping[int, str]) -> str:
        """A name for a table or an axis.

        >>> Component("head", 2, head=1, pos=-2).name({-2: "b"})
        'layer 2 head 1 from b'
        """
        layer = "" if self.layer is None else f"layer {self.layer} "
        number = "".join(f" {k}" for k in (self.head, self.neuron) if k is not None)
        return f"{layer}{self.kind}{number}" + (
            "" if self.pos is None else f" from {positions[self.pos]}"
        )


def in_double(model: "HookedTransformer") -> "HookedTransformer":
    """A copy of the model in double precision."""
    return copy.deepcopy(model).to(torch.float64, print_details=False)


@torch.no_grad()
def contributions(
    model: "HookedTransformer", batch: PromptBatch, weights: Float[Tensor, "answer d_vocab"]
) -> dict[Component, Float[Tensor, " answer"]]:
    """A weighted sum of logits at each answer token, in nats, as a sum over the model's parts.

    Args:
        model: in double precision, or the sum is only close.
        weights: of each logit, such as 1 for the right token and -1 for a wrong one.
    Returns:
        by component, as far as the model has it. Embeddings, each layer's attention and MLP, and
        biases sum to the logit difference, which follows them. Attention by the position it reads,
        heads and neurons are parts of these.
    Raises:
        TbttError: if the parts do not sum to the model's own logits.
    """
    names = ("attn.hook_v", "attn.hook_pattern", "mlp.hook_post")
    sites = [f"blocks.{k}.{name}" for k in range(model.cfg.n_layers) for name in names]
    sites += ["hook_embed", "hook_pos_embed", "ln_final.hook_scale"]
    logits, hooks = cached(model, batch.tokens, sites)
    cache = {name: x[batch.answer_row] for name, x in hooks.items()}
    answers, at = torch.arange(len(batch.answer_row)), batch.answer_pos
    weights = weights.to(logits)
    norm = dict(getattr(model, "ln_final", torch.nn.Identity()).named_parameters())
    direction = weights @ model.W_U.T
    last_bias = weights @ model.b_U + (direction * norm.get("b", 0)).sum(-1)
    direction = direction * norm.get("w", 1)
    if model.cfg.normalization_type in ("LN", "LNPre"):  # RMS does not subtract the mean
        direction = direction - direction.mean(-1, keepdim=True)
    if "ln_final.hook_scale" in cache:
        direction = direction / cache["ln_final.hook_scale"][answers, at]
    parts, units = {}, {}
    for kind, hook in (("token", "hook_embed"), ("position", "hook_pos_embed")):
        if hook in cache:
            parts[Component(kind)] = (cache[hook][answers, at] * direction).sum(-1)
    positions = offsets_of(batch)
    for layer in range(model.cfg.n_layers):
        v, pattern = (cache[f"blocks.{layer}.attn.hook_{name}"] for name in ("v", "pattern"))
        v = v.repeat_interleave(model.cfg.n_heads // v.shape[2], 2)  # where heads share values
        towards = einsum(model.W_O[layer], direction, "head d_head d, row d -> row head d_head")
        of_key = einsum(v, towards, "row key head d_head, row head d_head -> row head key")
        of_key = of_key * pattern[answers, :, at]
        # keys by distance from the prompt's end; a later key than any answer's has no weight
        place = torch.arange(of_key.shape[-1]) - batch.last_prompt_pos[batch.answer_row][:, None]
        place = (place - 1 - positions[0]).clamp(max=len(positions) - 1)
        heads = of_key.new_zeros(*of_key.shape[:2], len(positions))
        heads = heads.scatter_add(2, place[:, None].expand_as(of_key), of_key).permute(1, 2, 0)
        parts[Component("attention", layer)] = heads.sum((0, 1))
        for pos, x in zip(positions, heads.sum(0), strict=True):
            parts[Component("attention", layer, pos=pos)] = x
        parts[Component("attention bias", layer)] = direction @ model.b_O[layer]
        for number, head in enumerate(heads):
            units[Component("head", layer, head=number)] = head.sum(0)
            for pos, x in zip(positions, head, strict=True):
                units[Component("head", layer, head=number, pos=pos)] = x
        if (post := cache.get(f"blocks.{layer}.mlp.hook_post")) is not None:
            neurons = (post[answers, at] * (direction @ model.W_out[layer].T)).T
            parts[Component("MLP", layer)] = neurons.sum(0)
            parts[Component("MLP bias", layer)] = direction @ model.b_out[layer]
            units |= {Component("neuron", layer, neuron=k): x for k, x in enumerate(neurons)}
    parts[Component("last bias")] = last_bias
    total = torch.stack([x for component, x in parts.items() if component.pos is None]).sum(0)
    error = (total - (weights * batch.at_answers(logits)).sum(-1)).abs().max()
    if not error < TOLERANCE:
        raise TbttError(
            f"the parts of this model do not sum to its logits, but miss them by {error:.2g} "
            "nats: attribution needs heads and neurons that write to the stream as they are, "
            "and between stream and logits a LayerNorm or RMSNorm and an unembedding alone"
        )
    return parts | {Component(ALL): total} | units


def best_wrong_tokens(model: "HookedTransformer", prompts: PromptSet) -> dict[str, np.ndarray]:
    """The token with the largest logit but the right one, for each answer token, as `token`."""
    batch = prompts.batch()
    logits = answer_logits(in_double(model), batch)
    return {"token": logits.scatter(1, batch.answer_token[:, None], -torch.inf).argmax(-1).numpy()}


def logit_weights(
    batch: PromptBatch, wrong: Int[Tensor, " answer"], d_vocab: int
) -> tuple[Float[Tensor, "answer d_vocab"], Float[Tensor, "answer d_vocab"]]:
    """The weights of logits in a logit difference, and in a mismatched one.

    In the mismatched one another example's token replaces the right one: the mean over all that are
    right at the same place of an answer, and not here; where there is none, over those at any.
    """
    right, minus = (F.one_hot(x, d_vocab).double() for x in (batch.answer_token, wrong))
    at = F.one_hot(batch.place_in_answer).double()
    same_place = (at.T @ right)[batch.place_in_answer] * (1 - right)
    anywhere = right.sum(0) * (1 - right)
    other = torch.where(same_place.sum(-1, keepdim=True) > 0, same_place, anywhere)
    return right - minus, other / other.sum(-1, keepdim=True) - minus


def attribution(
    model: "HookedTransformer", prompts: PromptSet, wrong: Mapping[int, np.ndarray] | None = None
) -> pd.DataFrame:
    """Direct logit attribution of each part of a model, averaged over answer tokens.

    Args:
        wrong: by `prompts.number`, the wrong token for each right one; None is the model's
            best wrong token.
    Returns:
        one row per split, role of the answer token (`answer` is all together) and component, which
        is given by `kind`, `layer`, `head`, `neuron`, `pos` and in words as `part`. `effect`: nats
        of the logit difference; `mismatched`: the same towards another example's token;
        `logit_difference`: the sum over all parts; `n_answers`: answer tokens.
    """
    batch, double = prompts.batch(), in_double(model)
    tokens = best_wrong_tokens(model, prompts)["token"] if wrong is None else wrong[prompts.number]
    weights = logit_weights(batch, torch.as_tensor(tokens), model.cfg.d_vocab)
    own, mismatched = (contributions(double, batch, x) for x in weights)
    values = np.stack([[x.cpu().numpy() for x in of.values()] for of in (own, mismatched)])
    positions = offsets_of(batch)
    names = prompts.position_names(positions[0], positions[-1])
    components = pd.DataFrame(list(own)).astype(dict.fromkeys(Component._fields[1:], "Int64"))
    components["part"] = [component.name(names) for component in own]
    total = list(own).index(Component(ALL))
    roles = np.array([role for k in range(len(prompts)) for role in prompts.answer_roles(k)])
    tables = []
    for (split, examples), role in product(
        prompts.splits.items(), [*in_reading_order(roles), WHOLE]
    ):
        mask = examples[batch.answer_example.numpy()] & ((roles == role) | (role == WHOLE))
        if mask.any():
            effect, other = values[..., mask].mean(-1)
            tables.append(components.assign(
                split=split, role=role, effect=effect, mismatched=other,
                logit_difference=effect[total], n_answers=mask.sum(),
            ))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def direct_logit_attribution(
    models: "ModelsLike", *, prompts: "Prompts | None" = None, encoder: Any = None,
    step: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """What each part of a model writes towards the answer, as a mean over models, in nats.

    Args:
        models, prompts, encoder, step: as in `Models.of`.
    Returns:
        One row per split, role of the answer token and part: `effect` with its interval, the nulls
        `mismatched` and `untrained`, and the `share` of the logit difference. Heads and neurons are
        of one model each: `attribution_tables` has them.
    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
    """
    return attribution_tables(Models.of(models, step, prompts=prompts, encoder=encoder))[0]


def attribution_tables(models: Models) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`attribution` of every model: means over models, and heads and neurons of each model.

    A head or neuron has nothing to do with the one of the same number in another model.

    Returns:
        means over models with `untrained`, the effect in untrained models, and the `share` of the
        logit difference, nan where the difference is not clear of 0; and one row per model and
        head or neuron, with `untrained`.
    """
    tokens = over_seeds(models, best_wrong_tokens)["token"]
    wrong = {prompts.number: x for prompts, x in zip(models.prompts, tokens, strict=True)}
    table = over_seeds(models, attribution, wrong=wrong)
    null = over_untrained(models, attribution, wrong=wrong)
    table["untrained"] = np.nan if null is None else null["effect"]
    table["share"] = table["effect"] / table["logit_difference"]
    table["sum"] = table["logit_difference"] * table["n_answers"]
    is_unit = table["kind"].isin(["head", "neuron"])
    of_layers, units = table[~is_unit], table[is_unit].drop(columns=["share", "sum"])
    values = ["effect", "mismatched", "untrained"]
    summary = summarize(of_layers, GROUP, values, weights="n_answers")
    shares = summarize(of_layers, GROUP, ["share"], weights="sum")
    counts = of_layers.groupby(GROUP, sort=False, dropna=False)["n_answers"].mean()
    whole = summary[summary["kind"] == ALL].set_index(["split", "role"])
    whole = whole.loc[pd.MultiIndex.from_frame(summary[["split", "role"]])].reset_index(drop=True)
    is_clear = (whole["effect"] > 0) & ~(whole["effect_low"] <= 0)
    columns = ["share", "share_low", "share_high"]
    summary[columns] = shares[columns].where(is_clear)
    summary = summary.assign(logit_difference=whole["effect"], n_answers=counts.to_numpy())
    return summary, units.reset_index(drop=True)


def main_parts(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of whole answers; of each layer's sources only the largest on the first split."""
    rows = summary[(summary["role"] == WHOLE) & (summary["effect"] != 0)]  # 0: biases are absent
    sources = rows[rows["pos"].notna() & (rows["split"] == rows["split"].iloc[0])]
    largest = sources.assign(size=sources["effect"].abs()).sort_values("size")
    kept = largest.groupby("layer")["part"].last()
    return rows[rows["pos"].isna() | rows["part"].isin(kept)]


def attribution_claims(summary: pd.DataFrame) -> list[Claim]:
    """For each part of the layers, the share of whole answers' logit difference that it writes.

    A part that writes nothing writes less than nothing towards another example's token, which has
    to compete with the best wrong one; so nothing is a null, too.
    """
    rows = main_parts(summary).dropna(subset="share")
    nulls = {"mismatched": "another example's token", "untrained": "untrained"}
    rows = rows.assign(**{name: rows[name] / rows["logit_difference"] for name in nulls}, zero=0.0)
    nulls["zero"] = "nothing"
    return [
        Claim.of_row(
            row, "share", nulls,
            text=f"{row['part']} writes", unit=f"of the logit difference of {row['split']} answers",
        )
        for row in rows[rows["kind"] != ALL].to_dict("records")
    ]  # fmt: skip


def plot_attribution(summary: pd.DataFrame) -> "Figure":
    """What each part writes towards the answer, by the token's role, with both nulls.

    If there is one layer, the positions that its attention reads most from are shown, too.
    """
    rows = summary[summary["kind"] != ALL]
    sources = rows[rows["pos"].notna() & (rows["role"] == WHOLE)]
    n_drawn = SOURCES if rows["layer"].nunique() == 1 else 0
    drawn = sources.groupby("part")["effect"].agg(lambda x: x.abs().max()).nlargest(n_drawn).index
    rows = rows[rows["pos"].isna() | rows["part"].isin(drawn)]
    return points(
        rows[rows.groupby("part")["effect"].transform("any")], name="part", value="effect",
        by="split", panel="role", title="nats of logit",
        nulls={"mismatched": "another example's token", "untrained": "untrained model"},
        hover=["share", "n_answers"],
    )  # fmt: skip


def _display(lens: pd.DataFrame, summary: pd.DataFrame, units: pd.DataFrame) -> pd.DataFrame:
    """Whole answers: each stream, part and top neuron, with both nulls, seen and held out."""
    streams = lens[(lens["role"] == WHOLE) & (lens["metric"] == "accuracy")]
    streams = streams.rename(columns=lambda name: name.replace("value", "effect"))
    neurons = units[(units["role"] == WHOLE) & (units["kind"] == "neuron")]
    neurons = neurons.assign(part=neurons["part"] + " of seed " + neurons["seed"].astype(str))
    first = neurons[neurons["split"] == lens["split"].iloc[0]]
    top = first.loc[first["effect"].abs().nlargest(TOP).index, "part"]
    written = pd.concat([main_parts(summary), neurons[neurons["part"].isin(top)]])
    rows = pd.concat([streams.assign(measure="lens, accuracy", part=streams["stream"]),
                      written.assign(measure="writes, nats")])  # fmt: skip
    cells = rows.assign(
        value=[Interval.of_row(row, "effect").format() for row in rows.to_dict("records")],
        mismatched=rows["mismatched"].map("{:.2f}".format),
        untrained=rows["untrained"].map("{:.2f}".format),
    ).pivot_table(
        index=["measure", "part"], columns="split", values=["value", "mismatched", "untrained"],
        aggfunc="first", sort=False,
    )  # fmt: skip
    cells.columns = [f"{name}, {split}" for name, split in cells.columns]
    return cells.fillna("").reset_index()


def analyse_attribution(run: Run | Models) -> Result:
    """The logit lens at each stream, and what each part writes towards the answer."""
    models = Models.of(run)
    lens = logit_lens(models)
    summary, units = attribution_tables(models)
    return Result(
        name="attribution",
        tables={"attribution": summary, "heads-and-neurons": units, "lens": lens},
        display=_display(lens, summary, units),
        claims=[*lens_claims(lens), *attribution_claims(summary)],
        figures={"lens": partial(plot_logit_lens, lens),
                 "attribution": partial(plot_attribution, summary)},
        notes=[
            "Lens: how often the right token comes first when a stream is read as the last one is. "
            "Mismatched: read from another example's stream at the same place of its answer.",
            "Writes: nats of the right token's logit minus the best wrong one's, per answer token; "
            "all parts sum to it. Mismatched: towards another example's token.",
            f"Neurons belong to one model each: the {TOP} that write most are shown.",
        ],
    )  # fmt: skip

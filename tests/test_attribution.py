"""Parts sum to the logits, each part is what is lost without it, and streams predict as by hand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from oracle import answer_logits, answer_tokens, logit_differences
from planted import (
    TASK,
    VOCABULARY,
    models_of,
    prompts_of,
    random_model,
    random_transformer,
    shape_of,
)
from torch import Tensor

from tbtt_interp.analyses.attribution import (
    ALL,
    Component,
    attribution,
    attribution_claims,
    attribution_tables,
    best_wrong_tokens,
    contributions,
    in_double,
    logit_weights,
)
from tbtt_interp.analyses.logit_lens import lens_by_role, lens_claims
from tbtt_interp.errors import TbttError
from tbtt_interp.prompts import PromptSet
from tbtt_interp.seeds import Models, summarize_over_seeds
from tbtt_interp.tasks import Example
from tbtt_interp.train.recipe import SIZES

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

EVERY = TASK.examples
SOME = EVERY[3:200:21]  # 3 to 5 characters of answers, both operators
HELD_OUT = np.array([e.held_out for e in EVERY for _ in e.answer])


def own_weights(model: "HookedTransformer", prompts: PromptSet) -> Tensor:
    wrong = torch.from_numpy(best_wrong_tokens(model, prompts)["token"])
    return logit_weights(prompts.batch(), wrong, 17)[0]


def lens_over_models(models: Models) -> pd.DataFrame:
    by = ["split", "role", "stream", "metric"]
    summary = summarize_over_seeds(models, lens_by_role, by=by, values=["value", "mismatched"],
                                   weights="n_answers", untrained="value")[1]  # fmt: skip
    return summary.set_index(by).sort_index()


def differences_by_hand(model: "HookedTransformer", examples: Sequence[Example]) -> np.ndarray:
    logits = answer_logits(model, VOCABULARY, examples)
    return np.array(logit_differences(logits, answer_tokens(VOCABULARY, examples)))


@pytest.mark.parametrize("bias", [False, True], ids=["without biases", "with biases"])
@pytest.mark.parametrize("size", SIZES)
def test_parts_sum_to_the_logit_difference_in_every_size(size, bias):
    model = in_double(random_model(shape_of(**SIZES[size], bias=bias)))
    asked = SOME[:2] if size == "mlt" else SOME  # for mlt's are many parts
    prompts, expected = prompts_of(asked), differences_by_hand(model, asked)
    assert abs(expected).max() > 1  # there is something to sum to
    parts = contributions(model, prompts.batch(), own_weights(model, prompts))
    assert parts[Component(ALL)].tolist() == pytest.approx(expected, abs=1e-4)
    table = pd.DataFrame([c._asdict() | {"nats": float(x.sum())} for c, x in parts.items()])
    is_source = table["pos"].notna()
    sums, of_sources = (
        table[mask].groupby(["kind", "layer"])["nats"].sum() for mask in (~is_source, is_source)
    )
    for found in (sums["head"], of_sources["head"], of_sources["attention"]):
        assert found.tolist() == pytest.approx(sums["attention"].tolist())
    assert sums["neuron"].tolist() == pytest.approx(sums["MLP"].tolist())
    biases = table[table["kind"].str.endswith("bias")]["nats"]
    assert len(biases) == 1 + 2 * model.cfg.n_layers and ((biases != 0) == bias).all()
    units = is_source | table["kind"].isin(["head", "neuron", ALL])
    assert table["nats"][~units].sum() == pytest.approx(expected.sum(), abs=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_only": True},
        {"normalization_type": "RMS", "gated_mlp": True, "act_fn": "silu"},
        {"normalization_type": "LNPre", "parallel_attn_mlp": True},
        {"normalization_type": None},
        {"positional_embedding_type": "rotary", "rotary_dim": 6, "n_key_value_heads": 2},
    ],
    ids=["attention alone", "RMS, gated", "scaled LN, parallel", "no LN", "rotary, grouped"],
)
def test_parts_sum_in_other_architectures(settings):
    model, prompts = random_transformer(**settings), prompts_of(SOME)
    table = attribution(model, prompts)
    whole = table[(table["kind"] == ALL) & (table["role"] == "answer")]
    expected = differences_by_hand(in_double(model), SOME).mean()
    assert whole["effect"].item() == pytest.approx(expected, abs=1e-4)
    assert lens_by_role(model, prompts)["value"].notna().all()


def test_where_parts_do_not_sum_an_error_has_the_difference():
    model = random_transformer(use_normalization_before_and_after=True, normalization_type="RMS")
    with pytest.raises(TbttError, match=r"do not sum to its logits, but miss them by \S+ nats"):
        attribution(model, prompts_of(SOME))


@pytest.mark.parametrize("bias", [False, True], ids=["without biases", "with biases"])
def test_each_part_is_what_is_lost_when_it_alone_is_not_written(bias):
    """Taken out by a hook, with all that would react to it held where it was."""
    model = in_double(random_model(shape_of(**SIZES["mlt"], bias=bias)))
    example = EVERY[157]  # 5-7: three characters
    prompts = prompts_of([example])
    batch, weights = prompts.batch(), own_weights(model, prompts)
    logits = answer_logits(model, VOCABULARY, [example])
    known = contributions(model, batch, weights)
    kept = model.run_with_cache(batch.tokens)[1]
    reacting = [n for n in kept if n.endswith(("attn_out", "mlp_out", "final.hook_scale"))]

    def lost(site: str, of: str, *index: object) -> Tensor:
        def cut(values: Tensor, hook: object) -> Tensor:
            values[(slice(None), *index)] = 0
            return values

        held = [(name, lambda _, hook: kept[hook.name]) for name in reacting if name != of]
        with torch.no_grad():
            after = model.run_with_hooks(batch.tokens, fwd_hooks=[(site, cut), *held])
        return (weights * (logits - after[0, batch.answer_pos])).sum(-1)

    every, b = slice(None), 3
    for component, expected in {
        Component("token"): lost("hook_embed", ""),
        Component("neuron", 2, neuron=7):
            lost("blocks.2.mlp.hook_post", "blocks.2.hook_mlp_out", every, 7),
        Component("head", 1, head=4):
            lost("blocks.1.attn.hook_z", "blocks.1.hook_attn_out", every, 4),
        Component("head", 0, head=5, pos=-2):
            lost("blocks.0.attn.hook_pattern", "blocks.0.hook_attn_out", 5, every, b),
    }.items():  # fmt: skip
        assert expected.abs().max() > 1e-3, component
        assert torch.allclose(known[component], expected, atol=1e-9), component


def test_mismatched_weights_are_the_mean_over_other_answers_at_the_same_place():
    examples = [Example.of(f"<{a}+{a}=", f"{answer}>", {}) for a, answer in
                ((1, "2"), (2, "4"), (3, "4"), (4, "12"))]  # fmt: skip
    batch = prompts_of(examples).batch()
    wrong = torch.full_like(batch.answer_token, VOCABULARY.index["<"])
    of = [{VOCABULARY.characters[k]: float(row[k]) for k in row.nonzero()}
          for row in logit_weights(batch, wrong, 17)[1]]  # fmt: skip
    assert of[0] == pytest.approx({"4": 2 / 3, "1": 1 / 3, "<": -1})
    assert of[1] == {"2": 1, "<": -1}  # "2" of "12", beside other terminators
    # the last terminator has nothing at its place: any other token that is right anywhere
    assert of[8] == pytest.approx({"2": 2 / 5, "4": 2 / 5, "1": 1 / 5, "<": -1})


def test_a_planted_neuron_is_found_and_belongs_to_its_own_model_alone():
    """Of two models one has a neuron that writes the terminator, and no other that writes."""
    plain, planted = (random_transformer(n_layers=1, d_mlp=6) for _ in range(2))
    end = VOCABULARY.index[">"]
    mlp = planted.blocks[0].mlp
    planted.ln_final.w.data.fill_(1)
    mlp.W_out.data.zero_()
    mlp.W_out.data[4] = planted.W_U[:, end]
    mlp.W_in.data[:, 4] = 0
    mlp.b_in.data[4] = 9  # it always fires
    summary, units = attribution_tables(models_of(plain, planted, examples=SOME))
    neurons = units[(units["kind"] == "neuron") & (units["role"] == "terminator")]
    of_planted = neurons[neurons["seed"] == 1].set_index("neuron")
    assert set(of_planted.index[of_planted["effect"] != 0]) == {4}
    assert of_planted.loc[4, "effect"] > 5 > 0 > of_planted.loc[4, "mismatched"]
    assert not {"neuron", "head"} & set(summary["kind"])
    of_mlp = summary[(summary["kind"] == "MLP") & (summary["role"] == "terminator")]
    assert of_mlp["effect"].item() == pytest.approx(neurons.groupby("seed")["effect"].sum().mean())


def test_a_run_s_parts_are_shares_of_its_own_logit_differences(line_run):
    models = Models.of(line_run)
    summary, _ = attribution_tables(models)
    for _, rows in summary.groupby(["split", "role"]):
        whole = rows[rows["kind"] == ALL].iloc[0]
        parts = rows[rows["pos"].isna() & (rows["kind"] != ALL)]
        assert parts["mismatched"].sum() == pytest.approx(whole["mismatched"], abs=1e-9)
        assert np.isnan(whole["share"]) == (whole["effect_low"] <= 0)
        assert np.isnan(whole["share"]) or parts["share"].sum() == pytest.approx(1)
    sums = summary[summary["kind"] == ALL].set_index(["split", "role"])
    count = sums["n_answers"]
    assert count["seen", "sign"] == 44 and count["held out", "sign"] == 1
    by_hand = np.array([differences_by_hand(model, EVERY) for model in models.models])
    for split, mask in (("seen", ~HELD_OUT), ("held out", HELD_OUT)):
        expected = by_hand[:, mask].mean()
        assert sums.loc[(split, "answer"), "effect"] == pytest.approx(expected, abs=1e-4)
    untrained = summary.loc[summary["kind"] == "MLP", "untrained"].abs()
    assert ((untrained > 0) & (untrained < 0.1)).all()


def test_the_lens_reads_the_model_s_answer_last_and_its_embeddings_first(line_run):
    models = Models.of(line_run)
    table = lens_over_models(models)
    targets = 2 * answer_tokens(VOCABULARY, EVERY)
    first = []
    for model in models.models:
        for example in EVERY:
            tokens = VOCABULARY.encode(example.prompt + example.answer)[:-1]
            x = (model.W_E[tokens] + model.W_pos[: len(tokens)])[len(example.prompt) - 1 :]
            centred = x - x.mean(-1, keepdim=True)
            normed = centred / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
            first.append((normed * model.ln_final.w @ model.W_U).detach())
    last = torch.cat([answer_logits(model, VOCABULARY, EVERY) for model in models.models])
    for stream, logits in (("resid_pre", torch.cat(first)), ("resid_post", last)):
        margin = np.reshape(logit_differences(logits, targets), (2, -1))
        nats = logits.log_softmax(-1)[range(len(logits)), targets]
        for split, mask in (("seen", ~HELD_OUT), ("held out", HELD_OUT)):
            found = table.loc[(split, "answer", f"blocks.0.hook_{stream}"), "value"]
            assert found["accuracy"] == pytest.approx((margin[:, mask] > 0).mean())
            assert found["logit difference"] == pytest.approx(margin[:, mask].mean(), abs=1e-4)
            expected = nats.view(2, -1)[:, mask].mean()
            assert found["log-probability"] == pytest.approx(float(expected), abs=1e-4)
    alone = lens_over_models(models_of(*models.untrained))
    assert table["untrained"].tolist() == pytest.approx(alone["value"].tolist(), abs=1e-6)


def test_a_mismatched_stream_is_each_other_example_s_at_the_same_place():
    model = random_model(shape_of())
    logits, targets = answer_logits(model, VOCABULARY, SOME), answer_tokens(VOCABULARY, SOME)
    place = [k for example in SOME for k in range(len(example.answer))]
    means = []
    for i, target in enumerate(targets):
        read = [j for j, at in enumerate(place) if at == place[i] and j != i]
        margins = np.array(logit_differences(logits[read], [target] * len(read)))
        means.append([np.mean(margins > 0), margins.mean()])
    table = (
        lens_by_role(model, prompts_of(SOME)).set_index(["role", "stream", "metric"]).sort_index()
    )
    found = table.loc[("answer", "blocks.0.hook_resid_post"), "mismatched"]
    expected = pytest.approx(np.mean(means, 0), abs=1e-4)
    assert found[["accuracy", "logit difference"]].tolist() == expected


def test_an_answer_alone_at_its_place_has_no_mismatched_stream():
    examples = [Example.of("<1+1=", "2>", {}), Example.of("<9+1=", "10>", {})]
    table = lens_by_role(random_transformer(), prompts_of(examples)).set_index("role")
    terminators = table.loc["terminator"]  # the third token of 10> is alone, the other is not
    assert terminators["mismatched"].notna().all() and (terminators["n_answers"] == 2).all()


def test_claims_are_shares_compared_with_the_closest_null():
    part = {"kind": "MLP", "layer": 0, "pos": pd.NA, "part": "layer 0 MLP", "split": "seen",
            "role": ALL, "effect": 6.0, "share": 0.6, "share_low": 0.5, "share_high": 0.7,
            "mismatched": -4.0, "untrained": 0.5, "logit_difference": 10.0,
            "n_models": 8}  # fmt: skip
    stream = {"split": "seen", "metric": "accuracy", "value": 0.5, "value_low": 0.5,
              "value_high": 0.5, "mismatched": 0.25, "untrained": np.nan, "n_models": 8,
              "role": "answer", "stream": "middle"}  # fmt: skip
    (written,) = attribution_claims(pd.DataFrame([part | {"role": "answer"}, part]))
    small = {"share": 0.001, "share_low": -0.002, "share_high": 0.004, "untrained": np.nan}
    (nothing,) = attribution_claims(pd.DataFrame([part | small | {"role": "answer"}]))
    assert (nothing.verdict, nothing.null, nothing.null_name) == ("undecided", 0.0, "nothing")
    (read, *_) = lens_claims(pd.DataFrame([stream, stream | {"stream": "last"}]))
    assert (written.effect.mean, written.null, written.null_name) == (0.6, 0.05, "untrained")
    assert (read.effect.mean, read.null) == (0.5, 0.25)
    assert read.null_name == "another example's stream"

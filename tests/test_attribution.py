"""Parts sum to the logits, each part is what is lost without it, and streams say what they hold."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from typer.testing import CliRunner

from tbtt_interp import figures
from tbtt_interp.analyses.attribution import (
    analyse_attribution,
    attribution_findings,
    attribution_table,
    readings,
)
from tbtt_interp.analyses.characters import Characters, in_double
from tbtt_interp.analyses.decomposition import Component, attribute, pooled, total, units
from tbtt_interp.analyses.findings import nearest_null
from tbtt_interp.analyses.lens import lens, lens_findings, lens_table
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.cli import app
from tbtt_interp.errors import TbttError
from tbtt_interp.model import Shape, hooked_transformer, initial_parameters
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Example, load_task

SIZES = {"small": (1, 1, 14, 14), "medium": (1, 1, 28, 28), "large": (1, 1, 56, 56),
         "mlt": (6, 6, 384, 1536)}  # fmt: skip
TASK = load_task("arithmetic")
TARGETS = [t for e in TASK.examples for t in TASK.vocabulary.encode(e.answer)]
HELD_OUT = np.array([e.held_out for e in TASK.examples for _ in e.answer])
SOME = TASK.examples[3:200:21]  # 3 to 5 characters of answers, both operators


def of_size(size: str, *, bias: bool = False) -> HookedTransformer:
    """At random, far from where training begins: nothing is small, no scale 1, no bias 0."""
    layers, heads, d_model, d_mlp = SIZES[size]
    shape = Shape(layers=layers, heads=heads, d_model=d_model, d_mlp=d_mlp, n_ctx=9, d_vocab=17,
                  bias=bias)  # fmt: skip
    chance = torch.Generator().manual_seed(0)
    parameters = {
        name: x * 10 + 0.5 * torch.randn(x.shape, generator=chance) * (x.ndim == 1)
        for name, x in initial_parameters(shape, seed=0).items()
    }
    model = hooked_transformer(parameters, shape)
    if bias:
        for name, x in model.named_parameters():
            if name.rpartition(".")[2].startswith("b"):
                x.data = torch.randn(x.shape, generator=chance)
    return model


def of_config(**settings: object) -> HookedTransformer:
    """A small model of another architecture, at random."""
    known = {"n_layers": 2, "d_model": 24, "n_heads": 4, "d_head": 6, "n_ctx": 9, "d_vocab": 17,
             "act_fn": "gelu", "normalization_type": "LN", "device": "cpu"}  # fmt: skip
    model = HookedTransformer(HookedTransformerConfig(**known | settings), move_to_device=False)
    chance = torch.Generator().manual_seed(1)
    for x in model.parameters():
        x.data = 0.5 * torch.randn(x.shape, generator=chance)
    return model.eval()


def subject_of(*models: HookedTransformer, examples: Sequence[Example] = SOME) -> Subject:
    return Subject.of_models(models, examples, TASK.vocabulary)


def logits_by_hand(model: HookedTransformer, examples: Sequence[Example]) -> Tensor:
    """One forward pass a character, with nothing after it."""
    rows = []
    for example in examples:
        for k in range(len(example.answer)):
            tokens = TASK.vocabulary.encode(example.prompt + example.answer[:k])
            with torch.no_grad():
                rows.append(model(torch.tensor([tokens]))[0, -1])
    return torch.stack(rows)


def targets_of(examples: Sequence[Example]) -> list[int]:
    return [t for example in examples for t in TASK.vocabulary.encode(example.answer)]


def differences(logits: Tensor, targets: Sequence[int]) -> list[float]:
    """The right character's logit minus the best wrong one's."""
    return [
        float(row[t] - max(x for k, x in enumerate(row.tolist()) if k != t))
        for row, t in zip(logits, targets, strict=True)
    ]


@pytest.mark.parametrize("bias", [False, True], ids=["without biases", "with biases"])
@pytest.mark.parametrize("size", SIZES)
def test_parts_sum_to_the_logit_difference_in_every_size(size: str, bias: bool) -> None:
    model = in_double(of_size(size, bias=bias))
    characters = Characters.of(subject_of(model))
    logits = logits_by_hand(model, SOME)
    expected = differences(logits, targets_of(SOME))
    assert max(map(abs, expected)) > 1  # there is something to sum to
    parts = attribute(model, characters, readings(logits, characters)[0])
    assert total(parts).tolist() == pytest.approx(expected, abs=1e-4)
    for name in ("attention bias", "MLP bias", "last bias"):
        assert bool(parts[name].any()) == bias
    for of in (pooled, units):  # and each part again, one by one
        cells = of(parts, characters)
        some = torch.stack([x for c, x in cells.items() if c.pos is None and c.kind != "head"])
        heads = [x for c, x in cells.items() if c.kind == "head" and c.pos is not None]
        rest = {pooled: total(parts), units: parts["neurons"].sum((0, 1)) + sum(heads)}[of]
        assert torch.allclose((some[:-1] if of is pooled else some).sum(0) + sum(heads), rest)


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
def test_parts_sum_in_other_architectures(settings: dict[str, object]) -> None:
    model = of_config(**{"d_mlp": 10, **settings})
    table = attribution_table(subject_of(model))
    whole = table[(table["kind"] == "logit difference") & (table["character"] == "answer")]
    expected = differences(logits_by_hand(in_double(model), SOME), targets_of(SOME))
    assert whole["effect"].item() == pytest.approx(np.mean(expected), abs=1e-4)
    assert lens_table(subject_of(model))["value"].notna().all()


def test_where_parts_do_not_sum_it_is_said() -> None:
    model = of_config(d_mlp=10, use_normalization_before_and_after=True, normalization_type="RMS")
    with pytest.raises(TbttError, match=r"do not sum to its logits, but miss them by \S+ nats"):
        attribution_table(subject_of(model))


@pytest.mark.parametrize("bias", [False, True], ids=["without biases", "with biases"])
def test_each_part_is_what_is_lost_when_it_alone_is_not_written(bias: bool) -> None:
    """Taken out by a hook, with all that would react to it held where it was."""
    model = in_double(of_size("mlt", bias=bias))
    example = TASK.examples[157]  # 5-7: three characters
    characters = Characters.of(subject_of(model, examples=[example]))
    logits = logits_by_hand(model, [example])
    reading, _ = readings(logits, characters)
    parts = attribute(model, characters, reading)
    known = pooled(parts, characters) | units(parts, characters)
    tokens, asked = characters.questions.tokens, characters.questions.pos
    kept = model.run_with_cache(tokens)[1]
    reacting = [n for n in kept if n.endswith(("attn_out", "mlp_out", "final.hook_scale"))]

    def lost(site: str, of: str, *index: object) -> Tensor:
        def cut(values: Tensor, hook: object) -> Tensor:
            values[(slice(None), *index)] = 0
            return values

        held = [(name, lambda _, hook: kept[hook.name]) for name in reacting if name != of]
        with torch.no_grad():
            after = model.run_with_hooks(tokens, fwd_hooks=[(site, cut), *held])
        return (reading * (logits - after[0, asked])).sum(-1)

    every, b = slice(None), 3
    for component, expected in {
        Component("token"): lost("hook_embed", ""),
        Component("position"): lost("hook_pos_embed", ""),
        Component("neuron", 2, neuron=7):
            lost("blocks.2.mlp.hook_post", "blocks.2.hook_mlp_out", every, 7),
        Component("head", 1, head=4):
            lost("blocks.1.attn.hook_z", "blocks.1.hook_attn_out", every, 4),
        Component("head", 0, head=2, pos=-2):
            lost("blocks.0.attn.hook_pattern", "blocks.0.hook_attn_out", 2, every, b),
        Component("attention", 3, pos=-2):
            lost("blocks.3.attn.hook_pattern", "blocks.3.hook_attn_out", every, every, b),
    }.items():  # fmt: skip
        assert expected.abs().max() > 1e-3, component
        assert torch.allclose(known[component], expected, atol=1e-9), component


def test_a_mismatched_reading_is_the_mean_over_others_answers_at_the_same_place() -> None:
    examples = [Example.of(f"<{a}+{a}=", f"{answer}>", {}) for a, answer in
                ((1, "2"), (2, "4"), (3, "4"), (4, "12"))]  # fmt: skip
    characters = Characters.of(subject_of(of_config(d_mlp=4), examples=examples))
    index = TASK.vocabulary.index
    logits = torch.zeros(len(characters), 17)
    logits[:, index["<"]] = 1  # the best wrong one, everywhere
    own, other = readings(logits, characters)

    def said(weights: Tensor) -> dict[str, float]:
        return {TASK.vocabulary.characters[k]: float(weights[k]) for k in weights.nonzero()}

    assert said(own[0]) == {"2": 1, "<": -1}
    assert said(other[0]) == pytest.approx({"4": 2 / 3, "1": 1 / 3, "<": -1})
    assert said(other[2]) == pytest.approx({"2": 1 / 2, "1": 1 / 2, "<": -1})
    assert said(other[1]) == {"2": 1, "<": -1}  # "2" of "12", beside other terminators
    # the last terminator has nothing beside it: any other character that is right anywhere
    assert said(other[8]) == pytest.approx({"2": 2 / 5, "4": 2 / 5, "1": 1 / 5, "<": -1})


def test_a_planted_neuron_is_found_and_is_of_its_own_model_alone() -> None:
    """Of two models one has a neuron that writes the terminator, and no other that writes."""
    models = of_config(n_layers=1, d_mlp=6), of_config(n_layers=1, d_mlp=6)
    planted = models[1]
    end = TASK.vocabulary.index[">"]
    mlp = planted.blocks[0].mlp
    planted.ln_final.w.data.fill_(1)
    mlp.W_out.data.zero_()
    mlp.W_out.data[4] = planted.W_U[:, end]
    mlp.W_in.data[:, 4] = 0
    mlp.b_in.data[4] = 9  # it always fires
    table = attribution_table(subject_of(*models))
    neurons = table[(table["kind"] == "neuron") & (table["seed"] == 1)]
    assert set(neurons.loc[neurons["effect"] != 0, "neuron"]) == {4}
    of_end = neurons[(neurons["character"] == "terminator") & (neurons["neuron"] == 4)].iloc[0]
    assert of_end["effect"] > 5 > 0 > of_end["mismatched"]
    assert of_end["low"] > 5 and np.isnan(of_end["untrained"])
    pooled_rows = table[table["seed"].isna()]
    assert not {"neuron", "head"} & set(pooled_rows["kind"])
    of_mlp = pooled_rows[
        (pooled_rows["kind"] == "MLP") & (pooled_rows["character"] == "terminator")
    ]
    alone = table[(table["kind"] == "neuron") & (table["character"] == "terminator")]
    assert of_mlp["effect"].item() == pytest.approx(alone.groupby("seed")["effect"].sum().mean())


def test_a_run_s_parts_sum_in_every_group_to_its_own_logits(line_run: Run) -> None:
    subject = Subject.of(line_run)
    table = attribution_table(subject)
    rows = table[table["seed"].isna()]
    for _, some in rows.groupby(["split", "character"]):
        whole = some[some["kind"] == "logit difference"].iloc[0]
        from_places = some["pos"].notna()
        parts = some[~from_places & (some["kind"] != "logit difference")]
        assert parts["effect"].sum() == pytest.approx(whole["effect"], abs=1e-9)
        assert parts["mismatched"].sum() == pytest.approx(whole["mismatched"], abs=1e-9)
        attention = parts.loc[parts["kind"] == "attention", "effect"].item()
        assert some.loc[from_places, "effect"].sum() == pytest.approx(attention, abs=1e-9)
        assert np.isnan(whole["share"]) == (whole["low"] <= 0)
        if not np.isnan(whole["share"]):
            assert parts["share"].sum() == pytest.approx(1)
    sums = rows[rows["kind"] == "logit difference"].set_index(["split", "character"])
    count = sums["characters"]
    assert count["seen", "sign"] == 44 and count["held out", "sign"] == 1
    assert count["seen", "tens"] == 43 and count["held out", "tens"] == 2
    by_hand = [differences(logits_by_hand(m, TASK.examples), TARGETS) for m in subject.models]
    for split, mask in (("seen", ~HELD_OUT), ("held out", HELD_OUT)):
        expected = np.array(by_hand)[:, mask].mean()
        assert sums.loc[(split, "answer"), "effect"] == pytest.approx(expected, abs=1e-4)
    untrained = rows.loc[rows["kind"] == "MLP", "untrained"].abs()
    assert ((untrained > 0) & (untrained < 0.1)).all()


def test_the_lens_reads_the_model_s_answer_last_and_its_embeddings_first(line_run: Run) -> None:
    table = lens_table(Subject.of(line_run)).set_index(["split", "character", "stream", "metric"])
    table = table.sort_index()
    models = [line_run.model(seed) for seed in line_run.seeds]
    first = []
    for model in models:
        for example in TASK.examples:
            tokens = TASK.vocabulary.encode(example.prompt + example.answer)
            for at in range(len(example.prompt), len(tokens)):
                x = (model.W_E[tokens[at - 1]] + model.W_pos[at - 1]).detach()
                x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * model.ln_final.w
                first.append((x @ model.W_U).detach())
    last = torch.cat([logits_by_hand(model, TASK.examples) for model in models])
    for stream, logits in (("resid_pre", torch.stack(first)), ("resid_post", last)):
        margin = np.reshape(differences(logits, [*TARGETS, *TARGETS]), (2, -1))
        nats = logits.log_softmax(-1)[range(len(logits)), [*TARGETS, *TARGETS]]
        for split, mask in (("seen", ~HELD_OUT), ("held out", HELD_OUT)):
            found = table.loc[(split, "answer", f"blocks.0.hook_{stream}"), "value"]
            assert found["right"] == pytest.approx((margin[:, mask] > 0).mean())
            assert found["logit difference"] == pytest.approx(margin[:, mask].mean(), abs=1e-4)
            expected = nats.view(2, -1)[:, mask].mean()
            assert found["log-probability"] == pytest.approx(float(expected), abs=1e-4)
    untrained = Subject.of(line_run).untrained
    alone = lens_table(subject_of(*untrained, examples=TASK.examples))
    alone = alone.set_index(table.index.names).sort_index()
    assert table["untrained"].tolist() == pytest.approx(alone["value"].tolist(), abs=1e-6)


def test_a_mismatched_stream_is_each_other_example_s_at_the_same_place() -> None:
    model = of_size("small")
    characters = Characters.of(subject_of(model))
    logits = logits_by_hand(model, SOME)
    place = [k for example in SOME for k in range(len(example.answer))]
    targets = targets_of(SOME)
    others = lens(model, characters)[1, -1]
    for i, target in enumerate(targets):
        read = [j for j, at in enumerate(place) if at == place[i] and j != i]
        margins = differences(logits[read], [target] * len(read))
        assert float(others[0, i]) == pytest.approx(np.mean(np.array(margins) > 0))
        assert float(others[2, i]) == pytest.approx(np.mean(margins), abs=1e-4)


def test_streams_say_the_same_where_nothing_is_written() -> None:
    model = of_config(d_mlp=8)
    for name, x in model.named_parameters():
        if name.endswith(("W_O", "W_out", "b_O", "b_out")):
            x.data.zero_()
    found = lens(model, Characters.of(subject_of(model)))
    assert found.shape[1] == 5
    assert torch.equal(found[0], found[0, :1].expand(5, -1, -1))


def test_an_answer_alone_at_its_place_has_no_mismatched_stream() -> None:
    examples = [Example.of("<1+1=", "2>", {}), Example.of("<9+1=", "10>", {})]
    table = lens_table(subject_of(of_config(d_mlp=4), examples=examples))
    of = table.groupby("character")["mismatched"]
    assert of.count()["character 1"] == of.size()["character 1"]  # of 2, of 1
    assert table["value"].notna().all()
    # the third character is of one example, and counts for nothing in the null
    assert len(Characters.of(subject_of(of_config(d_mlp=4), examples=examples))) == 5


def test_what_is_found_is_a_share_beside_the_null_it_is_hardest_to_tell_from() -> None:
    assert nearest_null(0.9, {"one": 0.1, "two": 0.6, "none": np.nan}) == (0.6, "two")
    row = {"kind": "MLP", "layer": 0, "head": pd.NA, "neuron": pd.NA, "pos": pd.NA, "seed": pd.NA,
           "part": "layer 0 MLP", "split": "seen", "character": "answer", "effect": 6.0,
           "share": 0.6, "share_low": 0.5, "share_high": 0.7, "mismatched": -4.0,
           "untrained": 0.5, "logit_difference": 10.0}  # fmt: skip
    table = pd.DataFrame([row, row | {"split": "held out", "share": np.nan},
                          row | {"kind": "logit difference", "part": "logit difference"},
                          row | {"character": "units"}, row | {"seed": 1}])  # fmt: skip
    (found,) = attribution_findings(table)
    assert str(found) == (
        "layer 0 MLP writes 0.60 [0.50, 0.70] of the logit difference, seen; "
        "the untrained model: 0.05."
    )
    streams = pd.DataFrame([
        {"split": "seen", "character": "answer", "stream": stream, "metric": "right",
         "value": value, "low": value, "high": value, "mismatched": 0.25, "untrained": np.nan}
        for stream, value in (("middle", 0.5), ("last", 1.0))
    ])  # fmt: skip
    (found,) = lens_findings(streams)
    assert str(found) == (
        "read at middle, the right character is first for 0.50 of the characters seen; "
        "another example's stream: 0.25."
    )


def test_figures_have_a_panel_a_role_and_both_nulls(line_run: Run) -> None:
    result = analyse_attribution(line_run)
    roles = ["all characters", "sign", "tens", "units", "terminator"]
    for name, lines in (("lens", "y"), ("attribution", "x")):
        figure = result.figures[name]()
        assert [a.text for a in figure.layout.annotations][:5] == roles
        assert len(figure.data) == 5 * 2 * 3
        assert {trace.name for trace in figure.data if trace.showlegend} >= {
            "seen, 95 %", "held out, 95 %", "untrained"
        }  # fmt: skip
        assert all(np.isfinite(np.array(trace[lines], float)).all() for trace in figure.data)
    bars = result.figures["attribution"]().data[0]
    assert "layer 0 attention from operator" in bars.y and "layer 0 attention bias" not in bars.y
    nats = figures.lens_curves(result.tables["lens"], "log-probability")
    assert nats.layout.yaxis.title.text == "log-probability, nats"


def test_the_command_writes_tables_and_figures_and_prints_what_is_found(line_run: Run) -> None:
    run = CliRunner().invoke
    done = run(app, ["analyses", "attribution", str(line_run.folder), "--out", "out"])
    assert done.exit_code == 0, done.output
    assert "layer 0 MLP" in done.output and "furthest from its null first" in done.output
    written = {path.name for path in Path("out").iterdir()}
    assert {f"{n}.{end}" for n in ("attribution", "lens") for end in ("csv", "html")} <= written
    done = run(app, ["analyses", "attribution", str(line_run.folder), "--json"])
    assert json.loads(done.stdout)[0]["kind"] == "token"


def test_facts_are_attributed_character_by_character(facts_run: Run) -> None:
    table = attribution_table(Subject.of(facts_run))
    assert {"character 1", "character 10", "terminator", "answer"} <= set(table["character"])
    assert set(table["split"]) == {"seen"}
    rows = table[(table["character"] == "answer") & table["seed"].isna()]
    assert rows.loc[rows["share"].isna(), "logit_difference"].le(0.2).all()

"""Planted lines, circles and ranks are found, and random vectors are not told from chance."""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from planted import (
    TASK,
    VOCABULARY,
    models_of,
    prompts_of,
    random_model,
    random_transformer,
    shape_of,
)
from scipy.stats import kstest, spearmanr

from tbtt_interp.analyses.geometry import (
    analyse_geometry,
    geometry_claims,
    geometry_table,
    measure_representations,
)  # fmt: skip
from tbtt_interp.analyses.representations import (
    Representation,
    alignment,
    cka,
    distance_order,
    effective_rank,
    number_line,
    operand_representations,
    spectrum,
)  # fmt: skip
from tbtt_interp.errors import TbttError
from tbtt_interp.seeds import Models
from tbtt_interp.tasks.arithmetic import operand_grid

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

DIGITS = np.arange(10.0)
MID = "blocks.0.hook_resid_mid"


def chance(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def circle(turns: int) -> np.ndarray:
    angle = 2 * np.pi * turns * DIGITS / 10
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def in_space(code: np.ndarray, width: int = 14) -> np.ndarray:
    """Somewhere else, and turned: what no measure should see."""
    basis = np.linalg.qr(chance(width, width))[0][: code.shape[1]]
    return 3 * code @ basis + chance(width)


def averaging(line: np.ndarray) -> "HookedTransformer":
    """At "=" this model has the mean of all embeddings, and digits lie on a line in this order."""
    model = random_transformer(n_layers=1, d_model=16, n_heads=1, attn_only=True,
                               normalization_type=None)  # fmt: skip
    for parameter in model.parameters():
        parameter.data.zero_()
    attention = model.blocks[0].attn
    attention.W_V.data[0] = attention.W_O.data[0] = torch.eye(16)
    model.embed.W_E.data = torch.from_numpy(chance(17, 16)).float()
    tokens = VOCABULARY.encode("0123456789")
    direction = torch.from_numpy(chance(16, seed=1))
    model.embed.W_E.data[tokens] = (torch.from_numpy(line)[:, None] * direction).float()
    return model


def random_vectors(operand: str, vectors: np.ndarray) -> Representation:
    return Representation(site="there", operator="+", operand=operand, values=DIGITS,
                          vectors=vectors)  # fmt: skip


def test_a_line_is_a_line_wherever_it_lies():
    line = in_space(DIGITS[:, None])
    assert number_line(line, DIGITS) == pytest.approx(1)
    assert distance_order(line, DIGITS) == pytest.approx(1)
    assert effective_rank(line) == pytest.approx(1)
    uneven = np.array([0.0, 1, 4, 9, 16, 25, 36, 49, 64, 81])
    assert number_line(in_space(uneven[:, None]), uneven) == pytest.approx(1)
    assert number_line(in_space(uneven[:, None]), DIGITS) < 0.95


def test_a_circle_has_one_frequency_and_little_of_a_line():
    for turns in (1, 2, 3, 4):
        found, expected = in_space(circle(turns)), [float(k == turns) for k in range(1, 6)]
        assert spectrum(found) == pytest.approx(expected, abs=1e-12)
        share = 3 / (99 * math.sin(math.pi * turns / 10) ** 2)
        assert number_line(found, DIGITS) == pytest.approx(share)
        assert effective_rank(found) == pytest.approx(2)


def test_the_order_of_distances_is_scipy_s_rank_correlation():
    code, pairs = chance(10, 6), [(i, j) for i in range(10) for j in range(i)]
    apart = [math.dist(code[i], code[j]) for i, j in pairs]
    expected = spearmanr(apart, [i - j for i, j in pairs]).statistic
    assert distance_order(code, DIGITS) == pytest.approx(expected)


def test_equal_codes_are_aligned_negated_ones_against_and_turned_ones_of_one_shape():
    a, turn = chance(10, 7), np.linalg.qr(chance(7, 7, seed=2))[0]
    assert alignment(a, 2 * a + 1) == pytest.approx(1)
    assert alignment(a, 1 - a) == pytest.approx(-1)
    assert abs(alignment(a, a @ turn)) < 0.7
    assert cka(a, 3 * a @ turn + 1) == pytest.approx(1)
    b = chance(10, 5, seed=3)
    x, y = a - a.mean(0), b - b.mean(0)
    norm = np.linalg.norm
    assert cka(a, b) == pytest.approx(norm(x.T @ y) ** 2 / norm(x.T @ x) / norm(y.T @ y))


def test_random_vectors_are_nowhere_in_their_nulls():
    """Then p is uniform: most mistakes in a permutation null make it something else."""
    places: dict[str, list[float]] = {}
    for k in range(120):
        pair = [random_vectors(o, chance(10, 6, seed=2 * k + n)) for n, o in enumerate("ab")]
        table = measure_representations(pair, np.random.default_rng(k), n_draws=49)
        for row in table[table["operand"] != "a"].to_dict("records"):
            below = np.sum([row[f"draw_{d}"] < row["value"] for d in range(49)])
            key = f"{row['measure']} {row['component']}"
            places.setdefault(key, []).append((below + 0.5) / 50)
    assert len(places) == 1 + 1 + 5 + 1 + 3 + 2
    for measure, found in places.items():
        assert kstest(found, "uniform").pvalue > 1e-3, measure


def test_nulls_are_where_theory_has_them():
    """With permuted values a line explains 1 / 9, and each frequency its part of 9 directions."""
    line = [random_vectors("a", in_space(DIGITS[:, None]))]
    table = measure_representations(line, np.random.default_rng(0), n_draws=4_000)
    table = table.set_index(["measure", "component"])
    nulls = table.filter(regex="^draw_")
    assert nulls.loc["number line", 0].mean() == pytest.approx(1 / 9, abs=0.01)
    for turns, share in enumerate((2 / 9, 2 / 9, 2 / 9, 2 / 9, 1 / 9), 1):
        assert nulls.loc["spectrum", turns].mean() == pytest.approx(share, abs=0.01)
    assert table.loc[("number line", 0), "value"] > nulls.loc["number line", 0].max()


def test_operands_representations_are_main_effects_and_leave_the_rest_out():
    model = random_model(shape_of())  # which does not attend to a and b alike
    by_name = {(r.site, r.name): r for r in operand_representations(model, prompts_of())}
    assert ("hook_embed", "digits") in by_name
    for operator in "+-":
        prompts = [f"<{i}{operator}{j}=" for i in range(10) for j in range(10)]
        tokens = torch.tensor([VOCABULARY.encode(prompt) for prompt in prompts])
        x = model.run_with_cache(tokens)[1]["resid_post", 0][:, -1].view(10, 10, -1)
        x = (x - x.mean((0, 1))).detach().numpy()
        for operand, axis in (("a", 1), ("b", 0)):
            r = by_name["blocks.0.hook_resid_post", f"{operand} of a{operator}b"]
            assert r.vectors == pytest.approx(x.mean(axis), abs=1e-4)


def test_a_planted_line_is_found_and_one_in_another_order_is_not():
    order = np.array([3.0, 8, 0, 5, 9, 2, 6, 1, 7, 4])
    tables = [geometry_table(models_of(*[averaging(line)] * 2)) for line in (DIGITS, order)]
    key = ["site", "representation", "measure", "component"]
    planted, mixed = (t[t["dimensions"] == 16].set_index(key) for t in tables)
    at = "blocks.0.hook_resid_post"
    for where in (("hook_embed", "digits"), (at, "a of a+b"), (at, "b of a-b")):
        row = planted.loc[(*where, "number line", 0)]
        assert row["value"] == pytest.approx(1) and row["p"] == 1 / 200
        assert row["null"] == pytest.approx(1 / 9, abs=0.03) and row["n_models"] == 2
        assert mixed.loc[(*where, "number line", 0), "p"] > 0.05
    for operator in "+-":
        aligned = planted.loc[(at, f"a and b of a{operator}b", "alignment", 0)]
        assert aligned["value"] == pytest.approx(1) and np.isnan(aligned["untrained"])
    projected = tables[0][tables[0]["dimensions"] == 14]
    lines = projected.loc[projected["measure"] == "number line", "value"]
    assert len(lines) == 9 and lines.to_numpy() == pytest.approx(1)


def test_sizes_are_compared_in_equal_dimensions(line_run):
    planted, line = models_of(averaging(DIGITS), name="planted"), Models.of(line_run)
    result = analyse_geometry(line, planted)
    dimensions = result.tables["geometry"].groupby("run")["dimensions"].agg(set).to_dict()
    assert dimensions == {line.name: {14}, "planted": {14, 16}}
    assert "planted" in result.display.columns
    drawn = {trace.name for trace in result.figures["geometry"]().data}
    assert {"planted", "untrained models"} <= drawn
    with pytest.raises(TbttError, match=r"is 14 wide, so .* 15 dimensions: give --dimensions 14"):
        geometry_table(line, planted, dimensions=15)


def test_an_untrained_model_attends_to_both_operands_alike(line_run):
    """So only a trained model's can be opposite, and equal ones are no news."""
    table = geometry_table(line_run)
    aligned = table[(table["measure"] == "alignment") & (table["site"] == MID)]
    assert (aligned["untrained"] > 0.9).all()
    untrained = geometry_table(models_of(*Models.of(line_run).untrained))
    assert table["untrained"].tolist() == pytest.approx(untrained["value"].tolist())
    (plus,) = [c for c in geometry_claims(table) if c.text.startswith(f"a and b of a+b at {MID}")]
    value = aligned.loc[aligned["operator"] == "+"].iloc[0]
    nearest = min((value["null"], value["untrained"]), key=lambda x: abs(x - value["value"]))
    assert (plus.null, plus.effect.mean, plus.direction) == (nearest, value["value"], "different")


def test_where_operands_have_no_order_an_error_tells():
    few = models_of(averaging(DIGITS), examples=operand_grid(0, 2, TASK.examples))
    with pytest.raises(TbttError, match="here have no order: geometry needs at least 4 numbers"):
        geometry_table(few)


def test_the_command_takes_several_runs(line_run, file_run, printed):
    command = ["analyses", "geometry", line_run.folder, file_run.folder]
    assert "All in 14 random dimensions" in printed(*command, "--explain", "--out", "out")
    names = {Models.of(run).name for run in (line_run, file_run)}
    assert set(pd.read_csv("out/geometry.csv")["run"]) == names


def test_values_of_two_characters_are_represented_but_have_no_embedding():
    prompts = prompts_of(operand_grid(8, 12, TASK.examples))
    found = operand_representations(averaging(DIGITS), prompts)
    assert {r.operand for r in found} == {"a", "b"}
    assert found[-1].values.tolist() == [8, 9, 10, 11, 12]
